"""Everything that touches private parts of paramiko: the transport's wake-up, reading and writing of channels.

Two threads per session would hand the interpreter's lock over for every packet. So the transport's own thread serves
its channels: it hands received data to their owner, and sends what others left for it whenever it is about to wait.
Written for paramiko 5.0 and 5.1; tests/sftp_gateway/test_wire.py fails clearly when a part used here moves.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import paramiko
from paramiko.common import cMSG_CHANNEL_WINDOW_ADJUST
from paramiko.message import Message
from paramiko.packet import NeedRekeyException, Packetizer
from paramiko.ssh_exception import SSHException

logger = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 128 * 1024
SEND_BYTES: Final = 256 * 1024
IDLE_SECONDS: Final = 5.0
"""How long the transport's thread waits at most before it looks at keepalives and rekeying."""
STALL_SECONDS: Final = 60.0
"""A peer that takes no byte for so long is gone."""
FINISH_SECONDS: Final = 10.0
"""How long a channel that ends waits for its client to take the last replies."""
PACKET_OVERHEAD: Final = 64
REKEY_PAUSE_SECONDS: Final = 0.02

_DATA_HEAD = struct.Struct(">BII")
_CHANNEL_DATA = 94


class _Payload:
    """The one method of a Message that a packetizer calls."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def asbytes(self) -> bytes:
        return self._data


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
        piece = bytes(self._received[self._taken : self._taken + n])
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
            data = self._peer.recv(RECEIVE_BYTES)
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
                select.select([], [self._peer], [], 0.1)
                continue
            except (OSError, ValueError):
                raise EOFError from None
            if sent:
                rest = rest[sent:]
                patience = time.monotonic() + STALL_SECONDS

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
        self._streams: list[ChannelStream] = []
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

    def attach(self, stream: ChannelStream) -> None:
        """Serve a stream from now on."""
        with self._agenda_lock:
            self._streams.append(stream)

    def detach(self, stream: ChannelStream) -> None:
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


class _Inlet:
    """Stands in for the buffer that a channel feeds."""

    def __init__(self, stream: ChannelStream) -> None:
        self._stream = stream

    def feed(self, data: bytes) -> None:
        self._stream.received(data)

    def close(self) -> None:
        self._stream.ended()

    def empty(self) -> bytes:
        return b""

    def read(self, nbytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return b""

    def read_ready(self) -> bool:
        return False

    def set_event(self, event: threading.Event) -> None:
        """Nobody waits here."""

    def __len__(self) -> int:
        return 0


class ChannelStream:
    """The bytes of one channel of a `GatewayTransport`, without paramiko's buffers and blocking calls.

    Owned by an `SFTPChannel`. `on_data` and `on_idle` are called in the transport's thread; `on_end` once, in any
    thread and possibly with paramiko's channel lock held: it may only take note. `on_idle` comes after replies were
    sent, before the thread waits. `send`, `finish`, `close` and `wake` may be called from any thread.
    """

    def __init__(
        self,
        channel: paramiko.Channel,
        *,
        on_data: Callable[[bytes], None],
        on_idle: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        transport = channel.get_transport()
        if not isinstance(transport, GatewayTransport):
            raise TypeError("SFTP channels are served on a GatewayTransport only")
        self.channel: Any = channel
        self.transport: GatewayTransport = transport
        self._on_data = on_data
        self._on_idle = on_idle
        self._on_end = on_end
        self._lock = threading.Lock()
        # guarded by _lock
        self._out: deque[bytes] = deque()
        self._ended = False
        self.pending = 0  # bytes not sent yet
        # of the transport's thread
        self._head_sent = 0
        self._exit_status: int | None = None

    def start(self) -> None:
        """Take the channel over. In the transport's thread."""
        before = self.channel.in_buffer
        self.channel.in_buffer = _Inlet(self)
        self.transport.attach(self)
        early = before.empty()
        if early:
            self.received(early)
        if self.channel.eof_received or self.channel.closed:
            self.ended()

    def send(self, data: bytes) -> None:
        """Send `data` in order, soon; never blocks. What cannot be sent any more is dropped."""
        with self._lock:
            if self._ended and self.channel.closed:
                return
            self._out.append(data)
            self.pending += len(data)
        self.transport.wake()

    def consumed(self, count: int) -> None:
        """Let the client send `count` bytes more. In the transport's thread."""
        more = self.channel._check_add_window(count)
        if more:
            message = Message()
            message.add_byte(cMSG_CHANNEL_WINDOW_ADJUST)
            message.add_int(self.channel.remote_chanid)
            message.add_int(more)
            if self.transport.clear_to_send.is_set():
                self.transport.packetizer.send_message(message)
            else:  # keys are being exchanged: nothing may be sent, nothing may wait
                with self.channel.lock:
                    self.channel.in_window_sofar += more
                self.transport.call_later(REKEY_PAUSE_SECONDS, lambda: self.consumed(0))

    def finish(self, exit_status: int = 0) -> None:
        """Close the channel when everything is sent, or soon if the client does not take it."""
        self._exit_status = exit_status
        self.transport.call_later(FINISH_SECONDS, self._close)
        self.transport.wake()

    def close(self) -> None:
        """Close the channel at once."""
        with self._lock:
            self._out.clear()
            self.pending = 0
        self.finish()

    def wake(self) -> None:
        """Have `on_idle` called soon."""
        self.transport.wake()

    # -- called by the transport

    def received(self, data: bytes) -> None:
        """Pass on what came in."""
        try:
            self._on_data(data)
        except Exception:
            logger.exception("an SFTP channel failed")
            self.close()

    def ended(self) -> None:
        """Note that nothing will come in any more."""
        with self._lock:
            first, self._ended = not self._ended, True
            if self.channel.closed:
                self._out.clear()
                self.pending = 0
        if first:
            self._on_end()
            self.transport.wake()

    def serve(self) -> None:
        """Send what can be sent, then let the owner go on."""
        try:
            self._flush()
            self._on_idle()
            self._flush()
        except (EOFError, OSError, SSHException):
            raise
        except Exception:
            logger.exception("an SFTP channel failed")
            self.close()
        if self._exit_status is not None and not self._out:
            self._close()

    def _close(self) -> None:
        if self._exit_status is None:
            return
        if not self.channel.closed:
            if not self.transport.clear_to_send.is_set():  # keys are being exchanged
                self.transport.call_later(REKEY_PAUSE_SECONDS, self._close)
                return
            with contextlib.suppress(OSError, EOFError, SSHException):
                self.channel.send_exit_status(self._exit_status)
                self.channel.close()
        self._exit_status = None
        self.transport.detach(self)

    def _flush(self) -> None:
        if not self._out or not self._room():
            return
        with self.transport.clear_to_send_lock:
            if not self.transport.clear_to_send.is_set():
                return  # keys are being exchanged
            with self.transport.packetizer.corked():
                while self._out and (room := self._room()):
                    self._send_some(room)

    def _room(self) -> int:
        channel = self.channel
        if channel.closed or channel.eof_sent:
            return 0
        return int(min(channel.out_window_size, channel.out_max_packet_size - PACKET_OVERHEAD))

    def _send_some(self, room: int) -> None:
        """Send one channel packet of at most `room` bytes."""
        pieces: list[bytes | memoryview] = []
        size = 0
        out = self._out
        while out and size < room:
            head = out[0]
            left = len(head) - self._head_sent
            if left <= room - size:
                pieces.append(memoryview(head)[self._head_sent :] if self._head_sent else head)
                size += left
                self._head_sent = 0
                out.popleft()
            else:
                pieces.append(memoryview(head)[self._head_sent : self._head_sent + room - size])
                self._head_sent += room - size
                size = room
        with self.channel.lock:
            self.channel.out_window_size -= size
        with self._lock:
            self.pending -= size
        packet = _DATA_HEAD.pack(_CHANNEL_DATA, self.channel.remote_chanid, size) + b"".join(pieces)
        self.transport.packetizer.send_message(_Payload(packet))  # type: ignore[arg-type]
