"""Private parts of paramiko's packetizer: a wait that can be woken, large reads and writes, each byte moved once.

Written for paramiko 5.0 and 5.1; tests/sftp_gateway/ssh/test_wire.py fails clearly when a part used here moves.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from paramiko.common import MSG_CHANNEL_DATA
from paramiko.message import Message
from paramiko.packet import Packetizer
from paramiko.ssh_exception import SSHException

from sftp_gateway.ssh.sealing import LENGTH_BYTES, Engine, Piece, Sealer, Unsealer
from sftp_gateway.ssh.turns import Turn
from sftp_gateway.ssh.waiting import Waiting, has_cores_to_spare

RECEIVE_BYTES: Final = (16 * 1024, 1024 * 1024)
"""The smallest and largest size of one receive: it grows while there is more, so that uploads take fewer turns."""
SEND_BYTES: Final = 256 * 1024
_JOIN_BYTES: Final = 16 * 1024
_MOST_PIECES: Final = 512  # of one write; the system takes 1,024
IDLE_SECONDS: Final = 5.0
"""The longest time that the transport's thread waits before it checks keepalives and rekeying."""
STALL_SECONDS = 900.0
"""A peer that takes no byte for this long is gone. Suspended clients come back within minutes, and little is kept
for them here."""

_MOST_SEQUENCE: Final = 2**32 - 1


class _Payload:
    """The one method of a Message that a packetizer calls."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def asbytes(self) -> bytes:
        return self._data


class GatewayPacketizer(Packetizer):
    """Waits for socket and wake-up together, receives in large pieces, sends many messages in one write.

    It seals and unseals AES-GCM packets itself, and leaves all others to paramiko. Owned by one `GatewayTransport`,
    whose thread reads, and holds the turn (`Turn`) while it works; any thread writes, under paramiko's own write lock.
    """

    # private parts of paramiko's, which its stubs do not have
    _Packetizer__aead_in: bool
    _Packetizer__aead_out: bool
    _Packetizer__block_engine_in: Engine
    _Packetizer__block_engine_out: Engine
    _Packetizer__iv_in: bytes
    _Packetizer__iv_out: bytes
    _Packetizer__keepalive_last: float
    _Packetizer__received_bytes: int
    _Packetizer__remainder: bytes
    _Packetizer__sent_bytes: int
    _Packetizer__sequence_number_in: int
    _Packetizer__sequence_number_out: int
    _Packetizer__write_lock: threading.RLock
    _check_keepalive: Callable[[], None]
    _trigger_rekey: Callable[[], None]

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.before_wait: Callable[[], float] = lambda: IDLE_SECONDS  # returns the most seconds to wait
        self.deliver: Callable[[memoryview], bool] = lambda _: False  # takes CHANNEL_DATA, or leaves it to paramiko
        self.is_clients_turn = True  # only the client is being waited for
        self._peer = sock
        self._turn = Turn()
        self._waiting = Waiting(sock)
        # of the thread that reads
        self._buffer = bytearray()
        self._start = 0  # _buffer[_start:_end] was received and not handed out yet
        self._end = 0
        self._receive_bytes = RECEIVE_BYTES[0]
        self._more = False  # the last receive filled the buffer
        self._unsealer: Unsealer | None = None
        self._in_bytes = self._in_packets = 0  # under the keys of _unsealer
        # guarded by paramiko's write lock
        self._sealer: Sealer | None = None
        self._out_bytes = self._out_packets = 0  # under the keys of _sealer
        self._is_corked = False
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0

    # -- keys

    def set_outbound_cipher(self, *args: Any, **options: Any) -> None:
        """Switch to other keys; see paramiko's method."""
        super().set_outbound_cipher(*args, **options)
        with self._Packetizer__write_lock:
            self._sealer = None
            self._out_bytes = self._out_packets = 0
            if self._Packetizer__aead_out:
                self._sealer = Sealer(self._Packetizer__block_engine_out, self._Packetizer__iv_out)

    def set_inbound_cipher(self, *args: Any, **options: Any) -> None:
        """Switch to other keys; see paramiko's method."""
        super().set_inbound_cipher(*args, **options)
        self._unsealer = None
        self._in_bytes = self._in_packets = 0
        if self._Packetizer__aead_in:
            self._unsealer = Unsealer(self._Packetizer__block_engine_in, self._Packetizer__iv_in)

    @property
    def transferred(self) -> int:
        """How many bytes were transferred in both directions under the current keys."""
        by_paramiko = self._Packetizer__sent_bytes + self._Packetizer__received_bytes
        return self._in_bytes + self._out_bytes + by_paramiko

    # -- waiting

    def open_wake_up(self) -> None:
        """Make `wake` work; called by the thread that reads. Raises OSError."""
        self._waiting.open()

    def close_wake_up(self) -> None:
        """Close the wake-up's descriptors; called by the thread that reads, when it ends."""
        self._turn.give()
        self._waiting.close()

    def wake(self) -> None:
        """Let the thread that reads call `before_wait` soon. From any thread."""
        self._waiting.wake()

    def busy_poll(self, seconds: float) -> None:
        """From now on, poll for `seconds` before each sleep, if the machine has a core to spare; see `Waiting`."""
        self._waiting.busy_poll_seconds = seconds if has_cores_to_spare() else 0.0

    def pause(self, seconds: float) -> None:
        """Do nothing for `seconds`. By the thread that reads."""
        self.give_way()
        time.sleep(seconds)

    def give_way(self) -> None:
        """Let other threads have the turn. By the thread that reads."""
        self._turn.give()

    # -- reading

    def read_message(self) -> tuple[int, Message]:
        """Return the next message that `deliver` leaves to paramiko; see paramiko's method for the errors."""
        while self._unsealer is not None:
            payload = self._next_payload(self._unsealer)
            if payload[0] == MSG_CHANNEL_DATA and self.deliver(payload):
                continue
            message = Message(bytes(payload[1:]))
            message.seqno = (self._Packetizer__sequence_number_in - 1) & _MOST_SEQUENCE
            return payload[0], message
        found: tuple[int, Message] = super().read_message()
        return found

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:  # noqa: ARG002 - paramiko's
        """Return exactly `n` bytes; see paramiko's method for the errors.

        A rekey that is due waits for the next message: if none comes, hardly anything is sent, either.
        """
        self._admit(n)
        leftover = self._Packetizer__remainder
        if leftover:  # read together with the banner
            self._buffer, self._end = bytearray(leftover), len(leftover)
            self._Packetizer__remainder = b""
        while self._end - self._start < n:
            self._receive(n)
        with memoryview(self._buffer) as received:
            piece = bytes(received[self._start : self._start + n])
        self._start += n
        return piece

    def _next_payload(self, unsealer: Unsealer) -> memoryview:
        while self._end - self._start < LENGTH_BYTES:
            self._receive(LENGTH_BYTES)
        size = unsealer.size(self._buffer, self._start)
        self._admit(size)
        while self._end - self._start < size:
            self._receive(size)
        try:
            with memoryview(self._buffer) as received, received[self._start : self._start + size] as packet:
                payload = unsealer.unseal(packet)
        except ValueError as error:
            raise SSHException(str(error)) from error
        self._start += size
        self._count_in(size)
        return payload

    def _admit(self, size: int) -> None:
        """Raise if a packet of `size` bytes, or any packet at all, must not be read."""

    def _receive(self, needed: int) -> None:
        """Receive more bytes, into a buffer with room for `needed` in a row; may return without any.

        It returns without new bytes when a wait has timed out or was woken, so that the caller calls it again.
        """
        try:
            self._turn.take()
            seconds = self.before_wait()
            self._turn.give()
            if self.closed:
                raise EOFError
            if not self._more and not self._waiting.wait(seconds, look=self.is_clients_turn):
                self._drop_buffer()
                self._check_keepalive()
                return
            self._make_room(needed)
            size = len(self._buffer) - self._end
            if self._end:
                with memoryview(self._buffer) as buffer, buffer[self._end :] as room:
                    count = self._peer.recv_into(room)
            else:
                count = self._peer.recv_into(self._buffer)
        except (TimeoutError, BlockingIOError):
            self._more = False
            return
        except (OSError, ValueError):  # ValueError: the descriptor is gone
            if self.closed:
                raise EOFError from None
            raise
        if not count:
            raise EOFError
        self._end += count
        self._more = count == size
        least, most = RECEIVE_BYTES
        if self._more:
            self._receive_bytes = min(most, 2 * self._receive_bytes)
        elif count < size // 4:
            self._receive_bytes = least
        self._turn.take()

    def _drop_buffer(self) -> None:
        """Free the buffer while nothing is received."""
        if self._start == self._end:
            self._buffer, self._start, self._end = bytearray(), 0, 0

    def _make_room(self, needed: int) -> None:
        """Make the buffer large enough to hold at least `needed` bytes in a row, with those received at its start."""
        held = self._end - self._start
        capacity = max(self._receive_bytes, needed)
        if len(self._buffer) != capacity:
            buffer = bytearray(capacity)
            buffer[:held] = self._buffer[self._start : self._end]
            self._buffer = buffer
        elif self._start:
            self._buffer[:held] = self._buffer[self._start : self._end]
        self._start, self._end = 0, held

    def _read_timeout(self, timeout: float) -> bytes:
        """Return some bytes of the banner; raises TimeoutError, EOFError."""
        until = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._peer, select.POLLIN)
        while not poll.poll(100):
            if self.closed:
                raise EOFError
            if time.monotonic() > until:
                raise TimeoutError
        piece = self._peer.recv(128)
        if not piece:
            raise EOFError
        return piece

    # -- writing

    def send_message(self, data: Message | _Payload) -> None:
        """Send a message; see paramiko's method for the errors."""
        payload = data.asbytes()
        self.send_pieces((payload,), len(payload))

    def send_pieces(self, pieces: Sequence[Piece], size: int) -> None:
        """Send a message given in pieces, of `size` bytes in total; raises EOFError like `write_all`."""
        with self._Packetizer__write_lock:
            sealer = self._sealer
            if sealer is None:
                super().send_message(_Payload(b"".join(pieces)))  # type: ignore[arg-type]
                return
            length, sealed = sealer.seal(pieces, size)
            self._count_out(LENGTH_BYTES + len(sealed))
            self._put(length, sealed)

    def write_all(self, out: bytes) -> None:  # type: ignore[override]
        """Send `out`, or keep it while `cork` is active; raises EOFError if the peer is gone or takes nothing."""
        self._put(out)

    def cork(self) -> None:
        """Collect messages from now on, to send them in few writes. By the thread that reads, once; others wait."""
        self._turn.take()
        self._Packetizer__write_lock.acquire()
        self._is_corked = True

    def uncork(self) -> None:
        """Send what was collected; raises EOFError like `write_all`. To be called in a `finally`."""
        try:
            self._is_corked = False
            if self._outbox:
                self._empty_outbox()
        finally:
            self._Packetizer__write_lock.release()

    def _put(self, *parts: bytes) -> None:
        self._outbox += parts
        self._outbox_bytes += sum(map(len, parts))
        if not self._is_corked:
            self._empty_outbox()
        elif self._outbox_bytes >= SEND_BYTES:
            self._empty_outbox()
            self._turn.take()  # the thread that corked continues its work

    def _empty_outbox(self) -> None:
        """Send what is in the outbox. Under the write lock, so messages stay in order; gives up the turn meanwhile."""
        self._Packetizer__keepalive_last = time.time()
        pieces: list[Piece] = list(self._outbox)
        self._outbox, size, self._outbox_bytes = [], self._outbox_bytes, 0
        if size < _JOIN_BYTES and len(pieces) > 1:
            pieces = [b"".join(pieces)]
        patience = time.monotonic() + STALL_SECONDS
        self._turn.give()
        while size:
            try:
                sent = self._peer.sendmsg(pieces[:_MOST_PIECES]) if len(pieces) > 1 else self._peer.send(pieces[0])
            except (TimeoutError, BlockingIOError):
                if self.closed or time.monotonic() > patience:
                    raise EOFError from None
                self._wait_until_writable()
                continue
            except OSError:
                raise EOFError from None
            size -= sent
            pieces = _without(pieces, sent)
            patience = time.monotonic() + STALL_SECONDS

    def _wait_until_writable(self) -> None:
        poll = select.poll()  # select() refuses descriptors from 1024 on
        with contextlib.suppress(ValueError):  # the descriptor is gone
            poll.register(self._peer, select.POLLOUT)
            poll.poll(100)

    # -- counts, to number packets and to exchange keys in time

    def _count_in(self, size: int) -> None:
        self._Packetizer__sequence_number_in = (self._Packetizer__sequence_number_in + 1) & _MOST_SEQUENCE
        self._in_bytes += size
        self._in_packets += 1
        if self._in_bytes < self.REKEY_BYTES and self._in_packets < self.REKEY_PACKETS:
            return
        if not self.need_rekey():
            self._trigger_rekey()
        elif (
            self._in_bytes >= self.REKEY_BYTES + self.REKEY_BYTES_OVERFLOW_MAX
            or self._in_packets >= self.REKEY_PACKETS + self.REKEY_PACKETS_OVERFLOW_MAX
        ):
            raise SSHException("the client does not exchange keys when asked to")

    def _count_out(self, size: int) -> None:
        self._Packetizer__sequence_number_out = (self._Packetizer__sequence_number_out + 1) & _MOST_SEQUENCE
        self._out_bytes += size
        self._out_packets += 1
        if self._out_bytes >= self.REKEY_BYTES or self._out_packets >= self.REKEY_PACKETS:
            self._trigger_rekey()


def _without(pieces: list[Piece], sent: int) -> list[Piece]:
    """Return `pieces` without their first `sent` bytes."""
    for index, piece in enumerate(pieces):
        if sent < len(piece):
            return [memoryview(piece)[sent:] if sent else piece, *pieces[index + 1 :]]
        sent -= len(piece)
    return []
