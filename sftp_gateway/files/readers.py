"""`Readers`: who reads a file that is being written, and goes on with the committed file."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Protocol

from sftp_gateway.files.content import Content


class Reader(Protocol):
    """A reader of a draft."""

    def settle(self, find: Callable[[], Content | None]) -> None:
        """Go on with what `find` opens: the same content, if that can still be read. Never raises."""


class Readers:
    """The readers of a draft. Owned by it. Thread-safe: one leaf lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: list[Reader] = []
        self._is_over = False

    def add(self, reader: Reader) -> bool:
        """Add a reader; return whether it is not too late for that."""
        with self._lock:
            if not self._is_over:
                self._readers.append(reader)
            return not self._is_over

    def remove(self, reader: Reader) -> None:
        """Remove a reader. Idempotent."""
        with self._lock, contextlib.suppress(ValueError):
            self._readers.remove(reader)

    def settle(self, find: Callable[[], Content | None]) -> None:
        """Have all go on with what `find` opens. In the path's turn: later there may be another version."""
        with self._lock:
            self._is_over, readers = True, list(self._readers)
        for reader in readers:
            reader.settle(find)
