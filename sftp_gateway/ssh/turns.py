"""`Turn`: one transport's thread works at a time, so that they do not fight for the interpreter's lock.

Sealing a packet of 32 KiB lets go of the interpreter's lock for some microseconds. Where other threads wait for it,
each packet costs two changes of threads, which is more than the packet itself. So the threads of transports line up for
a lock of ours instead, and let go of it when they wait for the network.
"""

from __future__ import annotations

import threading
import time
from typing import Final

STUCK_SECONDS: Final = 0.02
"""Whoever has the turn for so long is held up, by a disk perhaps: nobody waits for it."""
PATIENCE_SECONDS: Final = 0.2
_TRUCE_SECONDS: Final = 1.0  # after somebody was stuck, nobody waits for so long

_lock = threading.Lock()
_taken = 0  # how often it was taken; changed by who has it
_nobody_waits_until = 0.0


class Turn:
    """A thread's claim on the turn. It only saves time: nothing relies on it for being alone. Never waits for long.

    Owned by one thread, which takes it; `give` does nothing for others.
    """

    __slots__ = ("_mine", "_thread")

    def __init__(self) -> None:
        self._mine = False
        self._thread = 0

    def take(self) -> None:
        """Wait for the turn, unless this thread has it already."""
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
    """Tell whether anybody has the turn."""
    return _lock.locked()
