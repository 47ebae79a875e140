"""`Leavings`: who has left what is at a path, so that nobody takes another's file for his own."""

from __future__ import annotations

import threading
from typing import Final

_REMEMBERED: Final = 10_000


class Leavings:
    """The last session that has left a file at a path. Thread-safe: one leaf lock; owned by a `Tree`.

    Sessions are told apart by a mark, any object. Of what nobody here has left, or so many have left others since,
    nothing is known.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, object] = {}  # by path, the oldest first; guarded by _lock

    def note(self, path: str, mark: object) -> None:
        """Note that a session has left a file."""
        with self._lock:
            self._last.pop(path, None)
            self._last[path] = mark
            if len(self._last) > _REMEMBERED:
                del self._last[next(iter(self._last))]

    def is_anothers(self, path: str, mark: object) -> bool:
        """Tell whether it is known that another session has left what is there."""
        with self._lock:
            return self._last.get(path, mark) is not mark
