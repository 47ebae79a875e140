"""`AllOrNothing`: the end of a `with` block of a file that is written whole or not at all."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Protocol

_logger = logging.getLogger(__name__)


class _File(Protocol):
    def abort(self) -> None: ...

    def close(self) -> None: ...

    def writable(self) -> bool: ...


def tell_forgotten(file: _File) -> None:
    """Log that a file was forgotten without `close()`, if it is one that is written: its content is discarded."""
    if file.writable():
        path = getattr(file, "path", None) or getattr(file, "name", None)  # fsspec's name for it, and Python's
        _logger.warning("%s was never closed: what was written to it is discarded", path)


class AllOrNothing:
    """A file that an exception in its `with` block discards: half a file is never committed.

    Its heir has `abort()`, which discards, and `close()`, which does nothing after that.
    """

    def __exit__(
        self: _File, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        self.close()
