"""A connection before its login and at its end: the algorithms that it is offered, and the limits that it is held to.

Written for paramiko 5.0 and 5.1; tests/sftp_gateway/ssh/test_transport.py fails clearly when a part used here moves.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import paramiko
from paramiko.channel import Channel
from paramiko.common import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_CHANNEL_REQUEST,
    OPEN_FAILED_RESOURCE_SHORTAGE,
    cMSG_CHANNEL_OPEN_FAILURE,
    cMSG_DISCONNECT,
)
from paramiko.kex_curve25519 import KexCurve25519
from paramiko.message import Message
from paramiko.ssh_exception import SSHException

from sftp_gateway.network.proxy_protocol import SIGNATURE
from sftp_gateway.ssh.algorithms import (
    CIPHERS,
    COMPATIBLE_KEX,
    GCM,
    KEX,
    MACS,
    STRICT_KEX,
    STRICT_MACS,
)
from sftp_gateway.ssh.authentication import BoundedAuthHandler
from sftp_gateway.ssh.key_exchange import Group14, Group16, Pace
from sftp_gateway.ssh.postponing import FIRST_SERVICE_MESSAGE, PostponingPacketizer
from sftp_gateway.ssh.sealing import Piece
from sftp_gateway.ssh.wire import GatewayTransport

FIRST_WINDOW_BYTES: Final = 64 * 1024
"""Receive window of a channel whose purpose is not known yet."""

MAX_PACKET_BYTES: Final = 256 * 1024
"""The longest SSH packet read, in bytes; our channels announce 32 KiB, RFC 4253 requires at least 35,000."""

MAX_STRANGERS_PACKET_BYTES: Final = 35_000
"""The same before the login: however a client fills its lists and keys, they are parsed quickly."""

MAX_BANNER_BYTES: Final = 8 * 1024

SFTP_ONLY: Final = "This server offers SFTP only."

UNTRUSTED_PROXY: Final = "a PROXY header came from an address that proxy_protocol does not name"

DISCONNECT_SERVICE_NOT_AVAILABLE: Final = 7
DISCONNECT_BY_APPLICATION: Final = 11
DISCONNECT_TOO_MANY_CONNECTIONS: Final = 12

_UNASKED = ("SSH-2.0-OpenSSH", "SSH-2.0-paramiko")  # prefer ciphers that are expensive in Python, but support others
_MAX_HELD_BACK = 10_000
_CHANNELS_REMEMBERED = 1000  # so that a message for a channel that has ended is not taken for an error
_USER_NAME = re.compile(r"(?<=username=).*", re.DOTALL)  # can contain an app's secret
_PARAMIKOS_PREFIX = re.compile(r"Exception \(server\): (?:Error reading SSH protocol banner)?")

_ssh_logger = logging.getLogger("sftp_gateway.paramiko")


# Adds RFC 8731's name for the method that paramiko knows only by its earlier name.
_KEX_INFO: Final[dict[str, Any]] = {
    **paramiko.Transport._kex_info,  # type: ignore[attr-defined]
    "curve25519-sha256": KexCurve25519,
    Group14.name: Group14,
    Group16.name: Group16,
}


def _available(kex: Iterable[str]) -> tuple[str, ...]:
    """Return the key exchange methods that the installed paramiko and its `cryptography` support."""
    return tuple(name for name in kex if name in _KEX_INFO)


class BoundedPacketizer(PostponingPacketizer):
    """Refuses packets that only an attacker sends, and says goodbye when the connection closes.

    Owned by one `BoundedTransport`; only the transport's thread reads, any thread may write.
    """

    REKEY_BYTES = 4 * 1024**3
    REKEY_PACKETS = 2**31

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.farewell: Message | None = None
        self.max_packet_bytes = MAX_STRANGERS_PACKET_BYTES
        self._banner_bytes = 0

    def _admit(self, size: int) -> None:
        if size > self.max_packet_bytes:
            raise SSHException(f"packet of {size} bytes, more than {self.max_packet_bytes}")
        if self.farewell is not None:
            raise EOFError

    def send_pieces(self, pieces: Sequence[Piece], size: int) -> None:
        if self.farewell is None:
            super().send_pieces(pieces, size)

    def _read_timeout(self, timeout: float) -> bytes:
        piece = super()._read_timeout(timeout)
        self._banner_bytes += len(piece)
        if self._banner_bytes > MAX_BANNER_BYTES:
            raise SSHException("no SSH banner")
        return piece

    def readline(self, timeout: float) -> str:
        """Return the client's first line; paramiko would skip other lines before its banner, even a PROXY header."""
        line: str = super().readline(timeout)
        if line[:4] == "SSH-":
            return line
        rest = self._Packetizer__remainder
        proxied = line[:6] == "PROXY " or (not line and rest.startswith(SIGNATURE[2:]))
        raise SSHException(UNTRUSTED_PROXY if proxied else "no SSH banner")

    def start_handshake(self, timeout: float) -> None:
        """Do nothing: paramiko would start a timer thread here; the gateway's login deadline covers the handshake."""

    def complete_handshake(self) -> None:
        """Do nothing, as `start_handshake` does."""

    def close(self) -> None:
        farewell, self.farewell = self.farewell, None
        if farewell is not None and not self.closed:
            with contextlib.suppress(OSError, EOFError, SSHException):
                self._peer.settimeout(1.0)
                self._Packetizer__closed = True  # a write that makes no progress within the timeout gives up
                self.send_message(farewell)
        shut_down(self._peer)
        super().close()


class BoundedTransport(GatewayTransport):
    """One SSH connection of the gateway, in server mode.

    Owned by `SFTPGateway`; runs in its own thread from `start_server(event=…)` until the connection ends. In that
    thread it calls `on_login()` when the client has signed in, and `on_end()` as its last action. `disconnect` and
    `close` may be called from any thread and never wait for the peer.
    """

    packetizer: BoundedPacketizer
    _CLIENT_ID = "SFTPGateway"
    _kex_info = _KEX_INFO
    _preferred_ciphers: tuple[str, ...] = CIPHERS
    _preferred_macs: tuple[str, ...] = MACS
    _preferred_kex: tuple[str, ...] = _available(KEX)

    def __init__(
        self,
        sock: socket.socket,
        *,
        host_keys: Iterable[paramiko.PKey],
        on_login: Callable[[], None],
        on_end: Callable[[], None],
        compatible_algorithms: bool = False,
        strict_algorithms: bool = False,
        keepalive_seconds: float = 0,
        busy_poll_seconds: float = 0,
    ) -> None:
        super().__init__(sock, default_window_size=FIRST_WINDOW_BYTES, packetizer_class=BoundedPacketizer)
        self.last_problem: str | None = None
        self.leaving_since: float | None = None
        self._on_login = on_login
        self._on_end = on_end
        self._kex_init_deferred = False
        self._refusals: dict[int, tuple[str, bool]] = {}
        self._held_back: list[Message] = []  # of the transport's thread
        self.busy_poll_seconds = busy_poll_seconds
        self._pace = Pace(time.monotonic())
        self._channel_handler_table: dict[int, Callable[[Channel, Message], None]] = {
            **self._channel_handler_table,
            MSG_CHANNEL_REQUEST: self._handle_channel_request,
            MSG_CHANNEL_DATA: self._handle_channel_data,
            MSG_CHANNEL_EXTENDED_DATA: lambda *_: None,  # nobody reads this data, and paramiko would keep all of it
        }
        if compatible_algorithms:
            self._preferred_kex = _available(COMPATIBLE_KEX)
        if strict_algorithms:
            self._preferred_kex, self._preferred_ciphers, self._preferred_macs = STRICT_KEX, GCM, STRICT_MACS
        self.set_log_channel(_ssh_logger.name)
        for key in host_keys:
            self.add_server_key(key)
        if keepalive_seconds:
            self.set_keepalive(keepalive_seconds)
        self.name = "sftp-gateway-transport"

    def disconnect(self, reason: int, text: str) -> None:
        """End the connection, giving the client the reason; returns at once. Only the first call has an effect."""
        if self.leaving_since is not None:
            return
        self.leaving_since = time.monotonic()
        farewell = Message()
        farewell.add_byte(cMSG_DISCONNECT)
        farewell.add_int(reason)
        farewell.add_string(text)
        farewell.add_string("en")
        self.packetizer.farewell = farewell
        shut_down(self.sock, socket.SHUT_RD)

    def refuse(self, channel: Channel, text: str, *, as_scp: bool = False) -> None:
        """Accept the current request on this channel, answer it with a text on stderr and exit status 1, and close it.

        To be called from `check_channel_…_request`, which then returns True. With `as_scp` the text is sent as an error
        of the old scp protocol instead: libssh2 treats a channel that ends with output on stderr as a success.
        """
        self._refusals[channel.get_id()] = text, as_scp

    @property
    def open_channels(self) -> int:
        """How many channels the client has open. In the transport's thread."""
        return sum(not channel.closed for channel in self.server_accepts)

    def close(self) -> None:
        shut_down(self.sock)
        super().close()

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._on_end()

    def _log(self, level: int, msg: Any, *args: Any) -> None:
        """Keep paramiko's last complaint for the single line that the gateway logs; its own text is for debugging."""
        if level >= logging.WARNING and isinstance(msg, str) and not msg.startswith("Traceback"):
            self.last_problem = _PARAMIKOS_PREFIX.sub("", msg) or "no SSH banner"
        # That line is enough for a peer that does not speak SSH, and instead of a traceback for a client's nonsense.
        is_of_use = self.remote_version and not (isinstance(msg, list) and isinstance(sys.exception(), SSHException))
        if is_of_use and _ssh_logger.isEnabledFor(logging.DEBUG):
            for line in msg if isinstance(msg, list) else [msg]:
                _ssh_logger.debug(_USER_NAME.sub("***", str(line)), *args)

    def _send_message(self, data: Message) -> None:
        """Hold back what must not be sent during a key exchange: paramiko would answer requests in the middle of it."""
        if data.asbytes()[0] == MSG_CHANNEL_OPEN_FAILURE:
            data = _explained(data)
        if data.asbytes()[0] >= FIRST_SERVICE_MESSAGE and self.initial_kex_done and not self.clear_to_send.is_set():
            self._held_back.append(data)
            if len(self._held_back) > _MAX_HELD_BACK:
                raise SSHException("the client goes on asking instead of exchanging keys")
        else:
            super()._send_message(data)  # type: ignore[misc]

    def _send_user_message(self, data: Message) -> None:
        """Send like paramiko's method, but never wait for a key exchange in the thread that carries it out."""
        if threading.current_thread() is not self:
            super()._send_user_message(data)  # type: ignore[misc]
        elif self.is_active():
            self._send_message(data)

    def _send_kex_init(self) -> None:
        """Let clients that send their lists unasked speak first; `_hear_offer` chooses our lists accordingly."""
        first = not self.initial_kex_done and not self._kex_init_deferred
        if first and self.remote_version.startswith(_UNASKED):
            self._kex_init_deferred = True
            return
        super()._send_kex_init()  # type: ignore[misc]

    def _hear_offer(self, offer: Mapping[str, Any]) -> None:
        """Offer only AES-GCM to a client that lists it after ciphers that are expensive in Python: its order decides.

        New keys cost a client nothing, but are expensive for us: a client that requests them too often has to wait.

        Raises:
            SSHException: a client that has not signed in requests new keys.
        """
        if self.initial_kex_done:
            if not self.is_authenticated():
                raise SSHException("new keys are not exchanged before the login")
            if wait := self._pace.take(self.packetizer.transferred, time.monotonic()):
                self.packetizer.pause(wait)
        elif self.local_kex_init is None:
            ciphers = offer["client_encrypt_algo_list"], offer["server_encrypt_algo_list"]
            if all(any(name in offered for name in GCM) for offered in ciphers):
                self._preferred_ciphers = GCM

    def _parse_newkeys(self, m: Message) -> None:
        if self.auth_handler is None:
            self.auth_handler = BoundedAuthHandler(self)
        super()._parse_newkeys(m)  # type: ignore[misc]
        held_back, self._held_back = self._held_back, []
        for message in held_back:
            self._send_message(message)

    def _auth_trigger(self) -> None:
        super()._auth_trigger()  # type: ignore[misc]
        self.packetizer.max_packet_bytes = MAX_PACKET_BYTES
        self._on_login()

    def _parse_ext_info(self, msg: Message) -> None:
        """Ignore the client's extensions: none is used here, and paramiko would loop as often as the message asks."""

    def _queue_incoming_channel(self, channel: Channel) -> None:
        """Keep only open channels: nobody accepts them from the queue, and paramiko would keep them all forever."""
        self.server_accepts = [known for known in self.server_accepts if not known.closed] + [channel]
        if len(self.channels_seen) > _CHANNELS_REMEMBERED:
            del self.channels_seen[next(iter(self.channels_seen))]

    def _handle_channel_data(self, channel: Channel, m: Message) -> None:
        channel._feed(m)  # type: ignore[attr-defined]
        if len(channel.in_buffer) > channel.in_window_size:
            raise SSHException("the client sent more than its window allows")

    def _handle_channel_request(self, channel: Channel, m: Message) -> None:
        channel._handle_request(m)  # type: ignore[attr-defined]
        refusal = self._refusals.pop(channel.get_id(), None)
        if refusal is not None:
            text, as_scp = refusal
            with contextlib.suppress(OSError, EOFError, SSHException):
                channel.settimeout(0.0)  # a client whose window is closed gets no text; do not wait for it
                if as_scp:
                    channel.sendall(b"\2" + text.encode() + b"\n")
                else:
                    channel.sendall_stderr(text.encode() + b"\r\n")
            channel.send_exit_status(1)
            channel.close()


def _explained(failure: Message) -> Message:
    """Return the message with a text that says why the channel is not opened; paramiko's is empty."""
    refused = Message(failure.asbytes())
    refused.get_byte()
    channel, reason = refused.get_int(), refused.get_int()
    answer = Message()
    answer.add_byte(cMSG_CHANNEL_OPEN_FAILURE)
    answer.add_int(channel)
    answer.add_int(reason)
    answer.add_string("too many channels" if reason == OPEN_FAILED_RESOURCE_SHORTAGE else SFTP_ONLY)
    answer.add_string("en")
    return answer


def prepare_socket(sock: socket.socket) -> None:
    """Make the socket send small replies at once and detect a vanished peer; a sleeping one has ten minutes."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 10)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def shut_down(sock: Any, how: int = socket.SHUT_RDWR) -> None:
    """Shut down the socket, which wakes every thread that waits for it; closing the descriptor alone does not."""
    with contextlib.suppress(OSError):
        sock.shutdown(how)
