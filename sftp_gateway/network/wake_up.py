"""`WakeUp`: how a thread that waits for sockets is told that something else has happened, or that it is to end."""

from __future__ import annotations

import os
import select
import socket
import threading
from typing import Any, Final

_FULL_SECONDS: Final = 1.0


class WakeUp:
    """Ends a wait from any thread; select and poll take it like a socket, which can be read from `ring` to `clear`.

    Owned by whoever has the thread that waits. Thread-safe: `_lock` guards its descriptors, a leaf.
    """

    def __init__(self) -> None:
        """Raises OSError where there are no more descriptors."""
        self._lock = threading.Lock()
        # guarded by _lock
        self._fds: tuple[int, int] | None = os.pipe()
        self._is_rung = False

    def fileno(self) -> int:
        """Return what to wait for."""
        return self._fds[0] if self._fds is not None else -1

    def ring(self) -> None:
        """End the wait under way, or the next one; nothing once it is closed."""
        with self._lock:
            if self._fds is not None and not self._is_rung:
                self._is_rung = True
                os.write(self._fds[1], b"\0")

    def clear(self) -> None:
        """Let the next wait be one again. By the thread that waits."""
        with self._lock:
            if self._fds is not None and self._is_rung:
                self._is_rung = False
                os.read(self._fds[0], 1)

    def close(self) -> None:
        """Give the descriptors back. Idempotent."""
        with self._lock:
            fds, self._fds = self._fds, None
        for fd in fds or ():
            os.close(fd)

    def accept(self, listener: socket.socket) -> tuple[socket.socket, Any] | None:
        """Wait for a connection to a socket that never blocks; return it with its peer, None once somebody has rung.

        Where the system has no room for one more, it waits in the queue: to look again at once would be without an end.
        """
        while self.wait(listener):
            try:
                return listener.accept()
            except (BlockingIOError, ConnectionError):  # another process has taken it, or it is gone
                continue
            except OSError:
                self.wait(seconds=_FULL_SECONDS)
        return None

    def wait(self, sock: socket.socket | None = None, seconds: float | None = None) -> bool:
        """Wait for the socket; tell whether it can be read and nobody has rung."""
        poll = select.poll()
        for each in (self, sock):
            if each is not None:
                poll.register(each, select.POLLIN)
        ready = poll.poll(None if seconds is None else seconds * 1000)
        return bool(ready) and all(fd != self.fileno() for fd, _ in ready)
