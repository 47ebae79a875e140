"""Private parts of paramiko's transport: its own thread serves its channels, and is woken instead of polling.

Two threads per session would pass the interpreter's lock back and forth for every packet. So the transport's own thread
serves its channels: it hands received data to their owners, and sends what other threads have queued whenever it is
about to wait.
Written for paramiko 5.0 and 5.1; tests/sftp_gateway/ssh/test_wire.py fails clearly when a part used here moves.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import paramiko
from paramiko.message import Message
from paramiko.ssh_exception import IncompatiblePeer

from sftp_gateway.ssh.algorithms import nothing_in_common
from sftp_gateway.ssh.packetizer import IDLE_SECONDS
from sftp_gateway.ssh.postponing import PostponingPacketizer

_DATA_HEAD: Final = struct.Struct(">BII")  # kind, channel, size


class Served(Protocol):
    """A stream that a transport serves before it waits."""

    channel: Any

    def serve(self) -> bool:
        """Send what can be sent; return whether only the client is being waited for."""

    def received(self, data: memoryview) -> None:
        """Take in data received for the channel."""


class GatewayTransport(paramiko.Transport):
    """A server's transport whose own thread answers SFTP requests and sends replies; construct it like paramiko's.

    It differs from paramiko's in its packetizer (a `PostponingPacketizer`), and sleeps until there is something to do.
    """

    packetizer: PostponingPacketizer
    # private parts of paramiko's, which its stubs do not have
    active: bool
    _expected_packet: tuple[int, ...]
    _log: Callable[..., None]
    _really_parse_kex_init: Callable[..., Mapping[str, Any]]

    def __init__(self, sock: Any, **options: Any) -> None:
        options.setdefault("packetizer_class", PostponingPacketizer)
        super().__init__(sock, **options)
        self.sock.setblocking(False)
        self.busy_poll_seconds = 0.0  # how long to look for a client's next request before sleeping
        self.packetizer.before_wait = self._before_wait
        self.packetizer.deliver = self._deliver
        self.packetizer.is_exchanging = self._is_exchanging
        self._inlets: dict[int, Served] = {}  # by channel; of the transport's thread
        self._agenda_lock = threading.Lock()
        # guarded by _agenda_lock
        self._streams: list[Served] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_numbers = itertools.count()

    def run(self) -> None:
        """Serve the connection; paramiko's thread starts here."""
        try:
            self.packetizer.open_wake_up()
        except OSError as error:  # out of file descriptors
            self._log(logging.ERROR, error.strerror or str(error))
            self.close()
            return
        try:
            super().run()
        finally:
            self.packetizer.close_wake_up()
            with self._agenda_lock:
                self._streams.clear()
                self._timers.clear()
            self._inlets.clear()

    def wake(self) -> None:
        """Have the transport's thread serve its streams soon. From any thread."""
        if threading.current_thread() is not self:
            self.packetizer.wake()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call `callback` in the transport's thread after `seconds`, if the connection still lives. From any thread."""
        with self._agenda_lock:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._timer_numbers), callback))
        self.wake()

    def close(self) -> None:
        """End the connection; see paramiko's method."""
        super().close()
        self.wake()

    def attach(self, stream: Served) -> None:
        """Serve a stream from now on. In the transport's thread."""
        self._inlets[stream.channel.get_id()] = stream
        self.packetizer.busy_poll(self.busy_poll_seconds)
        with self._agenda_lock:
            self._streams.append(stream)

    def detach(self, stream: Served) -> None:
        """Stop serving a stream. In the transport's thread."""
        self._inlets.pop(stream.channel.get_id(), None)
        with self._agenda_lock, contextlib.suppress(ValueError):
            self._streams.remove(stream)

    def _negotiate_keys(self, m: Message) -> None:
        theirs = self._really_parse_kex_init(Message(m.asbytes()))
        self._hear_offer(theirs)
        try:
            super()._negotiate_keys(m)  # type: ignore[misc]
        except IncompatiblePeer as error:
            raise IncompatiblePeer(nothing_in_common(theirs, self._offered())) from error
        ours = self._offered()
        firsts = ("kex_algo_list", "server_key_algo_list")  # a guess is right if these are equal (RFC 4253)
        if theirs["kex_follows"] and any(ours[name][:1] != theirs[name][:1] for name in firsts):
            self.packetizer.drop_next()

    def _offered(self) -> Mapping[str, Any]:
        """Return what we have offered to the client, by paramiko's names."""
        return self._really_parse_kex_init(Message(self.local_kex_init), ignore_first_byte=True)

    def _hear_offer(self, offer: Mapping[str, Any]) -> None:
        """Handle the client's offer, by paramiko's names, before it is answered; does nothing here."""

    def _is_exchanging(self) -> bool:
        return bool(self.initial_kex_done and self._expected_packet)

    def _deliver(self, payload: memoryview) -> bool:
        """Hand CHANNEL_DATA to its stream unless something is unusual; return whether that was done."""
        if len(payload) < _DATA_HEAD.size or not self.active or self._expected_packet:
            return False
        if self.packetizer.need_rekey():
            return False
        _, channel_id, size = _DATA_HEAD.unpack_from(payload)
        stream = self._inlets.get(channel_id)
        if stream is None or len(payload) != _DATA_HEAD.size + size or stream.channel.closed:
            return False
        stream.received(payload[_DATA_HEAD.size :])
        return True

    def _before_wait(self) -> float:
        """Call due timers and let streams send what is left; return how many seconds the thread may sleep."""
        if self._timers:
            now = time.monotonic()
            while True:
                with self._agenda_lock:
                    if not self._timers or self._timers[0][0] > now:
                        break
                    callback = heapq.heappop(self._timers)[2]
                callback()
        served = [stream.serve() for stream in self._streams[:]]
        self.packetizer.is_clients_turn = all(served)
        if self._timers:
            with self._agenda_lock:
                return min(IDLE_SECONDS, max(0.0, self._timers[0][0] - time.monotonic()))
        return IDLE_SECONDS
