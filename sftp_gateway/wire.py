"""Private parts of paramiko, the transport's: a thread that is woken instead of polling, large reads and writes.

Two threads per session would hand the interpreter's lock over for every packet. So the transport's own thread serves
its channels: it hands received data to their owner, and sends what others left for it whenever it is about to wait.
Written for paramiko 5.0 and 5.1; tests/sftp_gateway/test_wire.py fails clearly when a part used here moves.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import paramiko
from paramiko.packet import NeedRekeyException, Packetizer

RECEIVE_BYTES: Final = (64 * 1024, 1024 * 1024)
"""How much is received at once: more while there is more, so that uploads take fewer turns."""
SEND_BYTES: Final = 256 * 1024
IDLE_SECONDS: Final = 5.0
"""How long the transport's thread waits at most before it looks at keepalives and rekeying."""
STALL_SECONDS = 900.0
"""A peer that takes no byte for so long is gone. Suspended clients come back within minutes, and little waits here."""


class Served(Protocol):
    """What a transport serves before it waits."""

    def serve(self) -> None:
        """Send what can be sent."""


class GatewayPacketizer(Packetizer):
    """Waits on socket and wake-up together, receives in large pieces, sends many messages in one write.

    Owned by one `GatewayTransport`: its thread reads; any thread writes, under paramiko's own write lock.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.before_wait: Callable[[], float] = lambda: IDLE_SECONDS  # returns the seconds to wait at most
        self._peer = sock
        self._received = bytearray()
        self._taken = 0  # bytes of _received that were handed out
        self._receive_bytes = RECEIVE_BYTES[0]
        self._wake_lock = threading.Lock()
        self._wake_fds: tuple[int, int] | None = None  # guarded by _wake_lock
        self._woken = False
        self._corked: list[bytes] | None = None  # guarded by paramiko's write lock
        self._corked_bytes = 0

    # -- wake-up

    def open_wake_up(self) -> None:
        """Make `wake` work; called by the thread that reads."""
        with self._wake_lock:
            reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
            self._wake_fds = (reader, writer)

    def close_wake_up(self) -> None:
        """Give the descriptors back; called by the thread that reads, at its end."""
        with self._wake_lock:
            fds, self._wake_fds = self._wake_fds, None
        for fd in fds or ():
            os.close(fd)

    def wake(self) -> None:
        """Let the thread that reads call `before_wait` soon. From any thread."""
        with self._wake_lock:
            if self._wake_fds is not None and not self._woken:
                self._woken = True
                os.write(self._wake_fds[1], b"\0")

    def _wait(self, seconds: float) -> bool:
        """Wait until the socket can be read; tell whether it can."""
        poll = select.poll()
        poll.register(self._peer, select.POLLIN)
        if self._wake_fds is not None:
            poll.register(self._wake_fds[0], select.POLLIN)
        ready = poll.poll(seconds * 1000)
        if self._wake_fds is not None and any(fd == self._wake_fds[0] for fd, _ in ready):
            with self._wake_lock:
                os.read(self._wake_fds[0], 64)
                self._woken = False
            return len(ready) > 1
        return bool(ready)

    # -- reading

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Return exactly `n` bytes; see paramiko's method for the errors."""
        private: Any = self
        leftover: bytes = private._Packetizer__remainder
        if leftover:  # read together with the banner
            self._received += leftover
            private._Packetizer__remainder = b""
        while len(self._received) - self._taken < n:
            self._receive(may_rekey=check_rekey and len(self._received) == self._taken)
        piece = bytes(memoryview(self._received)[self._taken : self._taken + n])
        self._taken += n
        if self._taken == len(self._received):
            self._received.clear()
            self._taken = 0
        return piece

    def _receive(self, *, may_rekey: bool) -> None:
        try:
            seconds = self.before_wait()
            if self.closed or self.handshake_timed_out():
                raise EOFError
            if not self._wait(seconds):
                if may_rekey and self.need_rekey():
                    raise NeedRekeyException
                self._check_keepalive()  # type: ignore[attr-defined]
                return
            data = self._peer.recv(self._receive_bytes)
        except TimeoutError:
            return
        except (OSError, ValueError) as error:  # ValueError: the descriptor is gone
            if self.closed:
                raise EOFError from None
            if isinstance(error, BlockingIOError):
                return
            raise
        if not data:
            raise EOFError
        least, most = RECEIVE_BYTES
        if len(data) == self._receive_bytes:
            self._receive_bytes = min(most, 2 * self._receive_bytes)
        elif len(data) < self._receive_bytes // 4:
            self._receive_bytes = least
        if self._taken:
            del self._received[: self._taken]
            self._taken = 0
        self._received += data

    # -- writing

    def write_all(self, out: bytes) -> None:  # type: ignore[override]
        """Send `out`, or keep it where `corked` is active; raises EOFError when the peer is gone or takes nothing."""
        if self._corked is not None:
            self._corked.append(out)
            self._corked_bytes += len(out)
            if self._corked_bytes < SEND_BYTES:
                return
            out, self._corked, self._corked_bytes = b"".join(self._corked), [], 0
        self._send(out)

    def _send(self, out: bytes) -> None:
        private: Any = self
        private._Packetizer__keepalive_last = time.time()
        rest = memoryview(out)
        patience = time.monotonic() + STALL_SECONDS
        while rest:
            try:
                sent = self._peer.send(rest)
            except (TimeoutError, BlockingIOError):
                if self.closed or time.monotonic() > patience:
                    raise EOFError from None
                self._wait_until_writable()
                continue
            except (OSError, ValueError):
                raise EOFError from None
            if sent:
                rest = rest[sent:]
                patience = time.monotonic() + STALL_SECONDS

    def _wait_until_writable(self) -> None:
        poll = select.poll()  # select() refuses descriptors from 1024 on
        with contextlib.suppress(ValueError):  # the descriptor is gone
            poll.register(self._peer, select.POLLOUT)
            poll.poll(100)

    @contextlib.contextmanager
    def corked(self) -> Iterator[None]:
        """Collect what is sent meanwhile, by whichever thread, and send it in one write."""
        private: Any = self
        with private._Packetizer__write_lock:
            self._corked, self._corked_bytes = [], 0
            try:
                yield
            finally:
                collected, self._corked = self._corked, None
                if collected:
                    self._send(b"".join(collected))


class GatewayTransport(paramiko.Transport):
    """A server's transport whose own thread answers SFTP requests and sends replies; construct it like paramiko's.

    It differs in its packetizer (a `GatewayPacketizer`), and in that it sleeps until something is to be done.
    """

    packetizer: GatewayPacketizer

    def __init__(self, sock: Any, **options: Any) -> None:
        options.setdefault("packetizer_class", GatewayPacketizer)
        super().__init__(sock, **options)
        self.packetizer.before_wait = self._before_wait
        self._agenda_lock = threading.Lock()
        # guarded by _agenda_lock
        self._streams: list[Served] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_numbers = itertools.count()

    def run(self) -> None:
        """Serve the connection; paramiko's thread starts here."""
        self.packetizer.open_wake_up()
        try:
            super().run()
        finally:
            self.packetizer.close_wake_up()
            with self._agenda_lock:
                self._streams.clear()
                self._timers.clear()

    def wake(self) -> None:
        """Let the transport's thread look at its streams soon. From any thread."""
        if threading.current_thread() is not self:
            self.packetizer.wake()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call `callback` in the transport's thread after `seconds`, if the connection lives. From any thread."""
        with self._agenda_lock:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._timer_numbers), callback))
        self.wake()

    def close(self) -> None:
        """End the connection; see paramiko's method."""
        super().close()
        self.wake()

    def attach(self, stream: Served) -> None:
        """Serve a stream from now on."""
        with self._agenda_lock:
            self._streams.append(stream)

    def detach(self, stream: Served) -> None:
        """Serve a stream no longer."""
        with self._agenda_lock, contextlib.suppress(ValueError):
            self._streams.remove(stream)

    def _before_wait(self) -> float:
        """Send what is left to send and call due timers; return how long the thread may sleep."""
        if self._timers:
            now = time.monotonic()
            while True:
                with self._agenda_lock:
                    if not self._timers or self._timers[0][0] > now:
                        break
                    callback = heapq.heappop(self._timers)[2]
                callback()
        for stream in self._streams[:] if self._streams else ():
            stream.serve()
        with self._agenda_lock:
            if self._timers:
                return min(IDLE_SECONDS, max(0.0, self._timers[0][0] - time.monotonic()))
        return IDLE_SECONDS
