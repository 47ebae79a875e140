"""`Room`: how much the channels of a process keep together, of requests, of replies and of what comes in."""

from __future__ import annotations

import threading
from typing import Final

ROOM_BYTES: Final = 256 * 2**20


class Room:
    """The room that channels share, equally: each may keep so much of each kind, the less the more of them there are.

    Few need theirs; but a user may have a hundred sessions with sixteen channels each, and all may ask for much and
    take nothing. Owned by the gateway. Thread-safe: `_lock` guards the number of channels, a leaf.
    """

    def __init__(self, total: int = ROOM_BYTES) -> None:
        self.share = self._total = total
        self._lock = threading.Lock()
        self._channels = 0  # guarded by _lock

    def enter(self) -> None:
        """Count a channel."""
        self._count(1)

    def leave(self) -> None:
        """Count a channel no longer."""
        self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._channels += change
            self.share = self._total // max(1, self._channels)
