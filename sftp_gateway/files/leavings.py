"""`Leavings`: what is known of what was left last at a path, for as many paths as are of use."""

from __future__ import annotations

import threading
from typing import Final, Generic, TypeVar

_REMEMBERED: Final = 10_000
_T = TypeVar("_T")


class Leavings(Generic[_T]):
    """What was noted last at each path. Thread-safe: one leaf lock; owned by whoever notes.

    Of what was never noted, or so many others since, nothing is known.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, _T] = {}  # by path, the oldest first; guarded by _lock

    def note(self, path: str, what: _T) -> None:
        """Note what is left at a path."""
        with self._lock:
            self._last.pop(path, None)
            self._last[path] = what
            if len(self._last) > _REMEMBERED:
                del self._last[next(iter(self._last))]

    def forget(self, path: str) -> None:
        """Know nothing of what was left at a path. Idempotent."""
        with self._lock:
            self._last.pop(path, None)

    def forget_below(self, directory: str) -> None:
        """Know nothing of what was left in a directory."""
        prefix = directory.rstrip("/") + "/"
        with self._lock:
            for path in [path for path in self._last if path.startswith(prefix)]:
                del self._last[path]

    def last(self, path: str) -> _T | None:
        """Return what is left at a path, if that is known."""
        return self._last.get(path)
