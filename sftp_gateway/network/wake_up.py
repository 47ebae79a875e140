"""`WakeUp`: wakes a thread that waits for sockets, because something else has happened or the thread is to end."""

from __future__ import annotations

import os
import select
import socket
import threading
from typing import Any, Final

_FULL_SECONDS: Final = 1.0


class WakeUp:
    """Ends a wait from any thread; select and poll accept it like a socket, readable from `ring` until `clear`.

    Owned by the owner of the thread that waits. Thread-safe: `_lock`, a leaf, guards its descriptors.
    """

    def __init__(self) -> None:
        """Raises OSError if there are no more file descriptors."""
        self._lock = threading.Lock()
        # guarded by _lock
        self._fds: tuple[int, int] | None = os.pipe()
        self._is_rung = False

    def fileno(self) -> int:
        """Return the descriptor to wait for; -1 once closed."""
        return self._fds[0] if self._fds is not None else -1

    def ring(self) -> None:
        """End the current wait, or the next one; does nothing once closed."""
        with self._lock:
            if self._fds is not None and not self._is_rung:
                self._is_rung = True
                os.write(self._fds[1], b"\0")

    def clear(self) -> None:
        """Undo `ring`, so that the next wait really waits. By the thread that waits."""
        with self._lock:
            if self._fds is not None and self._is_rung:
                self._is_rung = False
                os.read(self._fds[0], 1)

    def close(self) -> None:
        """Close the descriptors. Idempotent."""
        with self._lock:
            fds, self._fds = self._fds, None
        for fd in fds or ():
            os.close(fd)

    def accept(self, listener: socket.socket) -> tuple[socket.socket, Any] | None:
        """Wait for a connection to a non-blocking socket; return it with its peer's address, or None after a `ring`.

        If the system has no room for another connection, it stays in the queue, and there is a pause before the next
        try: to try again at once would be a busy loop.
        """
        while self.wait(listener):
            try:
                return listener.accept()
            except (BlockingIOError, ConnectionError):  # another process has accepted it, or the peer is gone
                continue
            except OSError:
                self.wait(seconds=_FULL_SECONDS)
        return None

    def wait(self, sock: socket.socket | None = None, seconds: float | None = None) -> bool:
        """Wait for the socket or a `ring`, `seconds` at most; return whether it is readable and there was no `ring`."""
        poll = select.poll()
        for each in (self, sock):
            if each is not None:
                poll.register(each, select.POLLIN)
        ready = poll.poll(None if seconds is None else seconds * 1000)
        return bool(ready) and all(fd != self.fileno() for fd, _ in ready)
