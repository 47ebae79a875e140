"""`Leavings`: a bounded memory of what was last done at a path."""

from __future__ import annotations

import threading
from typing import Final, Generic, TypeVar

_REMEMBERED: Final = 10_000
_T = TypeVar("_T")


class Leavings(Generic[_T]):
    """What was noted last for each path, of the latest 10,000. Thread-safe: one leaf lock; owned by whoever notes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, _T] = {}  # by path, the oldest first; guarded by _lock

    def note(self, path: str, what: _T) -> None:
        """Note `what` for a path."""
        with self._lock:
            self._last.pop(path, None)
            self._last[path] = what
            if len(self._last) > _REMEMBERED:
                del self._last[next(iter(self._last))]

    def forget(self, path: str) -> None:
        """Forget what was noted for a path. Idempotent."""
        with self._lock:
            self._last.pop(path, None)

    def forget_below(self, directory: str) -> None:
        """Forget what was noted for anything in a directory."""
        prefix = directory.rstrip("/") + "/"
        with self._lock:
            for path in [path for path in self._last if path.startswith(prefix)]:
                del self._last[path]

    def last(self, path: str) -> _T | None:
        """Return what was noted last for a path, if that is still known."""
        return self._last.get(path)
