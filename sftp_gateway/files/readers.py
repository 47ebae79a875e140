"""`Readers`: who reads a file that is being written, and goes on with the committed file."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Protocol

from sftp_gateway.files.content import Content


class Reader(Protocol):
    """A reader of a draft."""

    def settle(self, path: str, is_it: Callable[[Content], bool]) -> None:
        """Go on with the committed file at `path`, if `is_it` says that it is the draft's. Never raises."""


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

    def settle(self, path: str, is_it: Callable[[Content], bool]) -> None:
        """Have all go on with the committed file at `path`. In the path's turn: later it may be another version."""
        with self._lock:
            self._is_over, readers = True, list(self._readers)
        for reader in readers:
            reader.settle(path, is_it)
