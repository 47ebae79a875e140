"""`Turn`: only one transport's thread works at a time, so that they do not compete for the interpreter's lock.

Sealing a packet of 32 KiB releases the interpreter's lock for a few microseconds. If other threads wait for that lock,
each packet costs two thread switches, which take longer than the packet itself. So the transports' threads queue for a
lock of ours instead, and release it when they wait for the network.
"""

from __future__ import annotations

import threading
import time
from typing import Final

STUCK_SECONDS: Final = 0.02
"""A thread that has the turn for this long is stuck, perhaps waiting for a disk: others stop waiting for it."""
PATIENCE_SECONDS: Final = 0.2
_TRUCE_SECONDS: Final = 1.0  # after a thread was stuck, no thread waits for the turn for this long

_lock = threading.Lock()
_taken = 0  # how often the turn was taken; changed only by the thread that has it
_nobody_waits_until = 0.0


class Turn:
    """A thread's claim on the turn. It only saves time and guarantees no mutual exclusion. Never waits for long.

    Owned by one thread, which takes it; `give` does nothing in other threads.
    """

    __slots__ = ("_mine", "_thread")

    def __init__(self) -> None:
        self._mine = False
        self._thread = 0

    def take(self) -> None:
        """Wait for the turn, but not for long, unless this thread has it already."""
        global _taken
        if self._mine:
            return
        if _lock.acquire(blocking=False) or self._wait():
            _taken += 1
            self._mine, self._thread = True, threading.get_ident()

    def give(self) -> None:
        """Let others have the turn."""
        if self._mine and self._thread == threading.get_ident():
            self._mine = False
            _lock.release()

    @staticmethod
    def _wait() -> bool:
        global _nobody_waits_until
        begun = time.monotonic()
        if begun < _nobody_waits_until:
            return False
        while time.monotonic() < begun + PATIENCE_SECONDS:
            before = _taken
            if _lock.acquire(timeout=STUCK_SECONDS):
                return True
            if _taken == before:
                _nobody_waits_until = time.monotonic() + _TRUCE_SECONDS
                return False
        return False


def is_taken() -> bool:
    """Return whether any thread has the turn."""
    return _lock.locked()
