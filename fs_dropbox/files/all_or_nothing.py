"""`AllOrNothing`: the end of a `with` block of a file that is written whole or not at all."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol


class _File(Protocol):
    def abort(self) -> None: ...

    def close(self) -> None: ...


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
