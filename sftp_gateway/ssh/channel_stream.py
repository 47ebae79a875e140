"""Private parts of paramiko's channel: its bytes, without paramiko's buffers and blocking calls.

Written for paramiko 5.0 and 5.1; tests/sftp_gateway/ssh/test_wire.py fails clearly when a part used here moves.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import paramiko
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA, MSG_CHANNEL_WINDOW_ADJUST
from paramiko.ssh_exception import SSHException

from sftp_gateway.logs import printable
from sftp_gateway.ssh.sealing import Piece
from sftp_gateway.ssh.wire import GatewayTransport

logger = logging.getLogger(__name__)

FINISH_SECONDS: Final = 10.0
"""How long a channel that is ending waits for its client to take the last replies."""
PACKET_OVERHEAD: Final = 64
REKEY_PAUSE_SECONDS: Final = 0.02

_DATA_HEAD = struct.Struct(">BII")
_ADJUST = struct.Struct(">BII")
_ASIDE_HEAD = struct.Struct(">BIII")
_STDERR = 1
MAX_ASIDES: Final = 20


class _Inlet:
    """Replaces the buffer that a paramiko channel feeds."""

    def __init__(self, stream: ChannelStream) -> None:
        self._stream = stream

    def feed(self, data: Piece) -> None:
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
        """Do nothing: no thread waits for this buffer."""

    def __len__(self) -> int:
        return self._stream.unconsumed


class ChannelStream:
    """The bytes of one channel of a `GatewayTransport`, without paramiko's buffers and blocking calls.

    Owned by an `SFTPChannel`. `on_data` and `on_idle` are called in the transport's thread; `on_end` once, in any
    thread and possibly with paramiko's channel lock held, so it may only record the fact. `on_idle` is called after
    replies were sent and before the thread waits; it returns whether only the client is being waited for. `send`,
    `finish`, `close` and `wake` may be called from any thread.
    """

    def __init__(
        self,
        channel: paramiko.Channel,
        *,
        on_data: Callable[[Piece], None],
        on_idle: Callable[[], bool],
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
        self._out: deque[Piece] = deque()
        self._asides: deque[bytes] = deque(maxlen=MAX_ASIDES)
        self._ended = False
        self.pending = 0  # bytes not sent yet
        self._over = threading.Event()  # nothing more will be sent
        # of the transport's thread
        self.unconsumed = 0  # bytes received that the owner has not consumed yet
        self._grant = 0  # how many more bytes the client may send, in addition to what was announced to it
        self._is_finishing = False

    def start(self, window: int) -> None:
        """Take over the channel, and widen its receive window to `window`. In the transport's thread."""
        self._grant = max(0, window - self.channel.in_window_size)
        self.channel._set_window(self.channel.in_window_size + self._grant, self.channel.in_max_packet_size)
        before = self.channel.in_buffer
        self.channel.in_buffer = _Inlet(self)
        self.transport.attach(self)
        early = before.empty()
        if early:
            self.received(early)
        if self.channel.eof_received or self.channel.closed:
            self.ended()

    @property
    def is_closed(self) -> bool:
        """Whether replies can no longer reach the client; a client that has only stopped sending still takes them."""
        return bool(self.channel.closed)

    def send(self, *pieces: Piece) -> None:
        """Send `pieces` in order, soon; never blocks. What can no longer be sent is dropped."""
        with self._lock:
            if self._ended and self.channel.closed:
                return
            for piece in pieces:
                self._out.append(piece)
                self.pending += len(piece)
        self.transport.wake()

    def aside(self, text: str) -> None:
        """Show a line to the person at the client if it is OpenSSH's, which prints what it receives on stderr.

        Never blocks. The line is sent before anything passed to `send` later. If the client takes none of many lines,
        some are lost.
        """
        if self.transport.remote_version.startswith("SSH-2.0-OpenSSH"):
            with self._lock:
                self._asides.append(f"{printable(text)}\n".encode())
            self.transport.wake()

    def consumed(self, count: int) -> None:
        """Let the client send `count` more bytes, soon. In the transport's thread."""
        self.unconsumed -= count
        self._grant += self.channel._check_add_window(count)

    def finish(self) -> None:
        """Close the channel when everything is sent, or after `FINISH_SECONDS` if the client does not take it."""
        self._is_finishing = True
        self.transport.call_later(FINISH_SECONDS, self._close)
        self.transport.wake()

    def close(self) -> None:
        """Close the channel at once."""
        with self._lock:
            self._out = deque()  # a new deque, as the transport's thread may be sending from the old one
            self.pending = 0
        self.finish()

    def wait(self, seconds: float) -> None:
        """Wait up to `seconds` until everything queued before `finish` is sent, or the client can no longer take it."""
        self._over.wait(seconds)

    def wake(self) -> None:
        """Have `on_idle` called soon."""
        self.transport.wake()

    def give_way(self) -> None:
        """Let other sessions work, as this one is about to wait for something other than its client."""
        self.transport.packetizer.give_way()

    # -- called by the transport

    def received(self, data: Piece) -> None:
        """Pass on received data; raises SSHException if it is more than the client was allowed to send."""
        self.unconsumed += len(data)
        if self.unconsumed > self.channel.in_window_size:
            raise SSHException("the client sent more than its window allows")
        try:
            self._on_data(data)
        except Exception:
            logger.exception("an SFTP channel failed")
            self.close()

    def ended(self) -> None:
        """Record that nothing more will be received."""
        with self._lock:
            first, self._ended = not self._ended, True
            if self.channel.closed:
                self._out = deque()
                self.pending = 0
                self._over.set()
        if first:
            self._on_end()
            self.transport.wake()

    def serve(self) -> bool:
        """Send what can be sent, then let the owner continue; return the result of `on_idle`."""
        is_clients_turn = False
        try:
            self._flush()
            is_clients_turn = self._on_idle()
            self._flush()
        except (EOFError, OSError, SSHException):
            raise
        except Exception:
            logger.exception("an SFTP channel failed")
            self.close()
        if self._is_finishing and not self._out:
            self._close()
        return is_clients_turn

    def _close(self) -> None:
        if not self._is_finishing:
            return
        if not self.channel.closed:
            if not self.transport.clear_to_send.is_set():  # keys are being exchanged
                self.transport.call_later(REKEY_PAUSE_SECONDS, self._close)
                return
            with contextlib.suppress(OSError, EOFError, SSHException):
                self.channel.send_exit_status(0)
                self.channel.close()
        self._is_finishing = False
        self._over.set()
        self.transport.detach(self)

    def _flush(self) -> None:
        if not self._grant and (not (self._out or self._asides) or not self._room()):
            return
        with self.transport.clear_to_send_lock:
            if not self.transport.clear_to_send.is_set():
                return  # keys are being exchanged
            packetizer = self.transport.packetizer
            packetizer.cork()
            try:
                if self._grant:
                    self._send_grant()
                while self._asides and len(self._asides[0]) <= self._room():
                    self._send_aside(self._asides.popleft())
                if self._out:
                    self._send_data()
            finally:
                packetizer.uncork()

    def _room(self) -> int:
        channel = self.channel
        if channel.closed or channel.eof_sent:
            return 0
        return int(min(channel.out_window_size, channel.out_max_packet_size - PACKET_OVERHEAD))

    def _send_grant(self) -> None:
        grant, self._grant = self._grant, 0
        if not self.channel.closed:
            adjust = _ADJUST.pack(MSG_CHANNEL_WINDOW_ADJUST, self.channel.remote_chanid, grant)
            self.transport.packetizer.send_pieces((adjust,), len(adjust))

    def _send_aside(self, line: bytes) -> None:
        with self.channel.lock:
            self.channel.out_window_size -= len(line)
        head = _ASIDE_HEAD.pack(MSG_CHANNEL_EXTENDED_DATA, self.channel.remote_chanid, _STDERR, len(line))
        self.transport.packetizer.send_pieces((head, line), len(head) + len(line))

    def _send_data(self) -> None:
        """Send as much as fits into the client's window, in the largest channel packets that it accepts."""
        channel, out = self.channel, self._out
        window = channel.out_window_size if self._room() else 0
        largest = channel.out_max_packet_size - PACKET_OVERHEAD
        sent = 0
        try:
            while out and sent < window:
                size = 0
                room = min(largest, window - sent)
                pieces: list[Piece] = [b""]
                while out and size < room:
                    piece = out.popleft()
                    if len(piece) > room - size:
                        out.appendleft(memoryview(piece)[room - size :])
                        piece = memoryview(piece)[: room - size]
                    pieces.append(piece)
                    size += len(piece)
                sent += size
                pieces[0] = _DATA_HEAD.pack(MSG_CHANNEL_DATA, channel.remote_chanid, size)
                self.transport.packetizer.send_pieces(pieces, _DATA_HEAD.size + size)
        finally:
            with channel.lock:
                channel.out_window_size -= sent
            with self._lock:
                if out is self._out:  # otherwise `close` or `ended` has dropped its content
                    self.pending -= sent
