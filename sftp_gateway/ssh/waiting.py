"""`Waiting`: waits for a socket and for other threads at once, and looks for what comes before it sleeps.

To be woken costs a virtual machine's idle core some 0.1 ms, as much as a small request; a client nearby that waits for
each answer sends its next request within such a time.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from typing import Final

from sftp_gateway.network.wake_up import WakeUp
from sftp_gateway.ssh import turns

_LONGEST_REST: Final = 255

_polling = threading.Lock()  # one thread of the process is busy polling; nobody waits for it


class Waiting:
    """What one thread waits with. Owned by a packetizer, whose thread calls all but `wake`.

    With `busy_poll_seconds` a wait looks for so long before it sleeps: seldom where that was in vain, and only while no
    other thread does so or has the turn. Others that want the core get it. Threads that want the interpreter hardly do:
    whoever waits for those does not look.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.busy_poll_seconds = 0.0
        self._sock = sock
        self._poll: select.poll | None = None
        self._rest = 0  # how many waits slept without a look after the last that was in vain
        self._resting = 0  # how many more do
        self._wake_up: WakeUp | None = None

    def open(self) -> None:
        """Make `wake` work; raises OSError."""
        self._wake_up = WakeUp()

    def close(self) -> None:
        """Give the descriptors back."""
        if self._wake_up is not None:
            self._wake_up.close()

    def wake(self) -> None:
        """End the wait under way, or the next one. From any thread."""
        if self._wake_up is not None:
            self._wake_up.ring()

    def wait(self, seconds: float, *, look: bool = True) -> bool:
        """Wait until the socket can be read, `wake` was called or the time is over; tell whether it can be read."""
        poll, wake_up = self._poll, self._wake_up
        if poll is None:
            poll = self._poll = select.poll()
            poll.register(self._sock, select.POLLIN)
            if wake_up is not None:
                poll.register(wake_up, select.POLLIN)
        looks = look and self.busy_poll_seconds and seconds  # who may not wait misses nothing
        ready = (self._busy_poll(poll, seconds) if looks else None) or poll.poll(seconds * 1000)
        if wake_up is None or not ready or (len(ready) == 1 and ready[0][0] != wake_up.fileno()):
            return bool(ready)
        wake_up.clear()
        return len(ready) > 1

    def _busy_poll(self, poll: select.poll, seconds: float) -> list[tuple[int, int]] | None:
        if self._resting:
            self._resting -= 1
            return None
        if not _polling.acquire(blocking=False):
            return None
        try:
            until = time.perf_counter() + min(self.busy_poll_seconds, seconds)
            while not (ready := poll.poll(0)):
                if turns.is_taken():
                    return None
                if time.perf_counter() >= until:
                    self._resting = self._rest = min(2 * self._rest + 1, _LONGEST_REST)
                    return None
                os.sched_yield()
            self._rest //= 2
            return ready
        finally:
            _polling.release()


def has_cores_to_spare() -> bool:
    """Tell whether a thread may be busy without keeping everybody else from working."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (cores or 1) > 1
