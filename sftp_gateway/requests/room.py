"""`Room`: how many bytes of requests, replies and input a channel may keep, alone and among all channels."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Final

ROOM_BYTES: Final = 256 * 2**20

LEAST_WINDOW_BYTES: Final = 2**19
"""A packet has to fit in, and with less than 256 KiB uploads crawl."""


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """Bounds of one channel; its share of a `Room` may be less than those in bytes."""

    handles: int = 1024  # open at once, in all channels of a connection together
    in_flight: int = 256  # requests that are not answered yet; parsing stops above
    input_bytes: int = 4 * 2**20  # of those that were not answered at once; parsing stops above
    running: int = 32  # of them in worker threads at once
    output_bytes: int = 4 * 2**20  # replies that the client has not taken yet; parsing stops above
    window_bytes: int = 2 * 2**20  # SSH window: bytes that may arrive before they are parsed; more gains nothing


class Room:
    """The room that channels share equally: the more channels there are, the less each of them may keep.

    Few need their share; but a user may have a hundred sessions with sixteen channels each, all of which may ask for
    much and take nothing. Owned by the gateway. Thread-safe: one leaf lock.
    """

    def __init__(self, limits: ChannelLimits = ChannelLimits(), total: int = ROOM_BYTES) -> None:
        """`total` is for all channels, of each kind of bytes."""
        self.limits = limits
        self._total = total
        self._lock = threading.Lock()
        self._channels: Counter[str] = Counter()  # of each user; guarded by _lock
        self._count("", 0)

    def is_full(self, user: str) -> bool:
        """Tell whether a user should get no more channels that he can do without.

        He may have half of the channels that the others leave, so that there are always some for others.
        """
        with self._lock:
            mine = self._channels[user]
            return 2 * mine >= self._total // LEAST_WINDOW_BYTES - (self._channels.total() - mine)

    def enter(self, user: str) -> None:
        """Count a channel."""
        self._count(user, 1)

    def leave(self, user: str) -> None:
        """Count a channel no longer."""
        self._count(user, -1)

    def _count(self, user: str, change: int) -> None:
        limits = self.limits
        with self._lock:
            self._channels[user] += change
            if not self._channels[user]:
                del self._channels[user]
            share = self._total // max(1, self._channels.total())
            self.input_bytes = min(limits.input_bytes, share)
            self.output_bytes = min(limits.output_bytes, share)
            self.window_bytes = max(LEAST_WINDOW_BYTES, min(limits.window_bytes, share))
