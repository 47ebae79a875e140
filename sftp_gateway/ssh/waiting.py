"""`Waiting`: waits for a socket and for other threads at once, and can poll for a while before it sleeps.

Waking the idle core of a virtual machine takes about 0.1 ms, as long as a small request; a nearby client that waits for
each answer sends its next request within that time.
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

_polling = threading.Lock()  # held by the one thread of the process that is busy polling; never waited for


class Waiting:
    """The wait of one thread. Owned by a packetizer, whose thread calls every method but `wake`.

    With `busy_poll_seconds`, a wait polls for that long before it sleeps: less and less often while that is in vain,
    and only while no other thread polls or has the turn. Polling yields the core to other threads that want it, but
    hardly the interpreter: a thread that waits for other threads of this process passes `look=False`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.busy_poll_seconds = 0.0
        self._sock = sock
        self._poll: select.poll | None = None
        self._rest = 0  # how many waits sleep without polling after polling was in vain
        self._resting = 0  # how many of them are left
        self._wake_up: WakeUp | None = None

    def open(self) -> None:
        """Make `wake` work; raises OSError."""
        self._wake_up = WakeUp()

    def close(self) -> None:
        """Close the descriptors of the wake-up."""
        if self._wake_up is not None:
            self._wake_up.close()

    def wake(self) -> None:
        """End the current wait, or the next one. From any thread."""
        if self._wake_up is not None:
            self._wake_up.ring()

    def wait(self, seconds: float, *, look: bool = True) -> bool:
        """Wait until the socket is readable, `wake` was called or the time is over; return whether it is readable."""
        poll, wake_up = self._poll, self._wake_up
        if poll is None:
            poll = self._poll = select.poll()
            poll.register(self._sock, select.POLLIN)
            if wake_up is not None:
                poll.register(wake_up, select.POLLIN)
        looks = look and self.busy_poll_seconds and seconds  # a wait of 0 seconds gains nothing from polling
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
    """Return whether a thread may be busy without keeping all others from working."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (cores or 1) > 1
