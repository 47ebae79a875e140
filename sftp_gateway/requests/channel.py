"""`SFTPChannel`: one SFTP channel of a session: receives requests, answers them or hands them to workers."""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable

import paramiko

from sftp_gateway.files.handles import Handle, WriteHandle
from sftp_gateway.files.tree import TreeView
from sftp_gateway.requests.at_once import AtOnce
from sftp_gateway.requests.failures import Failures
from sftp_gateway.requests.operations import Operations
from sftp_gateway.requests.ordering import Claims
from sftp_gateway.requests.replies import Replies
from sftp_gateway.requests.room import Room
from sftp_gateway.requests.tasks import ONLY_ASKING, Tasks
from sftp_gateway.requests.workers import Workers
from sftp_gateway.sftp import packets
from sftp_gateway.sftp.events import Events, Meter
from sftp_gateway.sftp.packets import Kind, Status
from sftp_gateway.sftp.parsing import ByteCursor, PacketError, Request, parse
from sftp_gateway.sftp.status import RefusedError
from sftp_gateway.ssh.channel_stream import ChannelStream

logger = logging.getLogger(__name__)

_LENGTH = struct.Struct(">I")
_READ = struct.Struct(">II4sQI")  # id, length of the handle, handle, offset, size
_WRITE_KIND = int(Kind.WRITE)
_READ_KIND = int(Kind.READ)
_CLOSE_KIND = int(Kind.CLOSE)
_INIT_KIND = int(Kind.INIT)

Bytes = bytes | bytearray | memoryview


class SFTPChannel:
    """Serves one channel of a `GatewayTransport` until the client, the transport or `stop()` ends it.

    Requests are parsed in the transport's thread, and answered there if that cannot block; the others run in `workers`.
    Owned by a session. Thread-safe: `_parsing` is held while requests are being received.
    """

    def __init__(
        self,
        channel: paramiko.Channel,
        view: TreeView,
        *,
        events: Events,
        workers: Workers,
        room: Room,
        meter: Meter | None = None,
        count_handles: Callable[[], int] | None = None,
    ) -> None:
        """`count_handles` is for `Operations`."""
        self.channel = channel
        self._heard_at = time.monotonic()
        self._room = room
        self._view = view
        self._workers = workers
        self._events = events
        self._meter = meter
        self._stream = ChannelStream(channel, on_data=self._on_data, on_idle=self._on_idle, on_end=self._on_end)
        self._replies = Replies(self._stream)
        reads_texts = channel.get_transport().remote_version.startswith("SSH-2.0-ssh2js")  # node-ssh is above it
        failures = Failures(events, tell=self._stream.aside, reads_texts=reads_texts)
        self._operations = Operations(
            view, events, failures, max_handles=room.limits.handles, count_handles=count_handles
        )
        self._at_once = AtOnce(self._operations, view, give_way=self._stream.give_way)
        self._tasks = Tasks(
            self._operations, self._replies, self._stream, workers, room, measure=self._measure, on_done=self._clean_up
        )
        self._handles = self._operations.handles
        self._ended = threading.Event()
        self._peer_gone = False
        self._parsing = threading.RLock()
        # guarded by _parsing
        self._buffer = bytearray()
        self._position = 0
        self._stalled = False
        self._greeting = False  # INIT is being answered: no request is taken before VERSION is sent
        self._deaf = False  # no more requests are taken

    def start(self) -> None:
        """Serve from now on in the transport's own thread and in `workers`; returns at once.

        Call it inside `check_channel_subsystem_request`, before it returns True.
        """
        self._room.enter(self._view.user)
        self._stream.start(self._room.window_bytes)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the channel has ended and is cleaned up; return whether it has."""
        return self._ended.wait(timeout)

    @property
    def last_activity(self) -> float:
        """When the client last sent something or was answered; now, while a request is running."""
        return time.monotonic() if self._tasks.running else max(self._heard_at, self._tasks.answered_at)

    @property
    def unanswered(self) -> int:
        """How many received requests are not answered yet."""
        return self._tasks.unanswered

    @property
    def is_busy(self) -> bool:
        """Whether the client waits for a reply, one that is not sent yet included."""
        return bool(self.unanswered or self._replies.held or self._stream.pending)

    @property
    def open_handles(self) -> int:
        """How many files and directories the client has open."""
        return len(self._handles)

    @property
    def handles(self) -> list[Handle]:
        """What the client has open."""
        return list(self._handles.values())

    def stop(self, deadline: float = 0.0) -> bool:
        """Take no new request, give running ones and their replies `deadline` seconds, abort the rest.

        Returns whether all requests could end. If the client has left by itself, everything that it had sent completely
        is still carried out, above all a CLOSE.
        """
        if not self._peer_gone:
            with self._parsing:
                self._deaf = True
            self._workers.submit(self._drain)
        until = time.monotonic() + deadline
        if self._ended.wait(deadline):
            self._stream.wait(until - time.monotonic())
        elif not self._peer_gone:
            self._tasks.abandon()
        self._stream.close()
        return self._ended.is_set()

    # -- called by the stream

    def _on_data(self, data: bytes | memoryview) -> None:
        self._heard_at = time.monotonic()
        if self._meter is not None:
            self._meter.received(len(data))
        with self._parsing:
            if self._deaf:
                return
            if self._buffer:
                self._buffer += data
                self._parse_buffer()
            else:
                taken = self._parse(data, 0)
                if taken < len(data) and not self._deaf:
                    self._buffer += data[taken:]

    def _on_idle(self) -> bool:
        self._tasks.go_on()
        with self._parsing:
            if self._stalled:
                self._parse_buffer()
            if self._tasks.unanswered:
                return False
            self._at_once.look_ahead()  # safe, as no other thread uses a handle now
            return True

    def _on_end(self) -> None:
        self._peer_gone = True
        self._workers.submit(self._drain)

    # -- requests

    def _is_full(self) -> bool:
        if self._greeting:
            self._greeting = self._tasks.unanswered > 0
        return (
            self._greeting
            or self._tasks.unanswered + self._replies.held >= self._room.limits.in_flight
            or self._tasks.unanswered_bytes > self._room.input_bytes
            or self._stream.pending + self._replies.held_bytes > self._room.output_bytes
        )

    def _parse_buffer(self, *, bounded: bool = True) -> None:
        """Parse the complete packets in the buffer."""
        buffer = self._buffer
        self._position = self._parse(buffer, self._position, bounded=bounded)
        if self._position >= len(buffer):
            buffer.clear()
            self._position = 0
        elif self._position > packets.MAX_PACKET:
            del buffer[: self._position]
            self._position = 0

    def _parse(self, data: Bytes, begin: int, *, bounded: bool = True) -> int:
        """Parse the complete packets of `data` from `begin` on, as far as the limits allow; return where they end."""
        start = begin
        size = len(data)
        self._stalled = False
        while size - start >= 4:
            if bounded and self._is_full():
                self._stalled = True
                break
            length: int = _LENGTH.unpack_from(data, start)[0]
            if not 5 <= length <= packets.MAX_PACKET:
                self._give_up(f"a packet of {length} bytes")
                break
            end = start + 4 + length
            if size < end:
                break
            kind = data[start + 4]
            if self._peer_gone and kind in ONLY_ASKING and self._stream.is_closed:
                pass  # nobody is there to receive the reply
            elif not (
                (kind == _WRITE_KIND and self._write_fast(data, start + 5, end))
                or (kind == _READ_KIND and length == 25 and self._read_fast(data, start + 5))
            ):
                self._take(bytes(data[start + 4 : end]))
                if self._deaf:
                    break
            start = end
        if start > begin:
            self._stream.consumed(start - begin)
        return start

    def _write_fast(self, packet: Bytes, start: int, end: int) -> bool:
        """Answer a WRITE at once if it is an ordinary one; return whether it was."""
        if end - start < 24:
            return False
        since = time.monotonic()
        request_id, handle_length, handle_id, offset, size = _READ.unpack_from(packet, start)
        handle = self._handles.get(handle_id)
        if handle_length != 4 or start + 24 + size > end or not isinstance(handle, WriteHandle):
            return False
        if self._tasks.unanswered and not self._tasks.is_free_handle(handle_id):
            return False
        keeps_up = True
        try:
            with memoryview(packet) as view, view[start + 24 : start + 24 + size] as data:
                keeps_up = handle.write(offset, data)
        except Exception as error:  # noqa: BLE001 - whatever fails, the client gets a status
            reply = self._operations.failure(Request(_WRITE_KIND, request_id, handle=handle_id), error)
        else:
            reply = packets.ok(request_id)
        if keeps_up:
            self._replies.send(handle, reply)
        else:
            self._replies.hold(handle, reply)
        self._measure(_WRITE_KIND, since, len(reply))
        return True

    def _read_fast(self, packet: Bytes, start: int) -> bool:
        """Answer a READ at once if its bytes are in memory; return whether they were."""
        since = time.monotonic()
        request_id, handle_length, handle_id, offset, size = _READ.unpack_from(packet, start)
        if handle_length != 4 or (self._tasks.unanswered and not self._tasks.is_free_handle(handle_id)):
            return False
        content = b""
        try:
            found = self._at_once.content(handle_id, offset, size)
        except Exception as error:  # noqa: BLE001 - whatever fails, the client gets a status
            reply = self._operations.failure(Request(_READ_KIND, request_id, handle=handle_id), error)
        else:
            if found is None:
                return False
            content, reply = found, packets.data_head(request_id, len(found))
        self._replies.send(self._handles.get(handle_id), reply, content)
        self._measure(_READ_KIND, since, len(reply) + len(content))
        return True

    def _measure(self, kind: int, since: float, size: int) -> None:
        if self._meter is not None:
            self._meter.answered(kind, time.monotonic() - since, size)

    def _take(self, packet: bytes) -> None:
        """Take one request: answer it at once, or leave it to the workers."""
        since = time.monotonic()
        try:
            request = parse(packet)
        except PacketError as error:
            if error.request_id is None:
                self._give_up(error.reason)
                return
            self._events.on_failure("request", "", error.reason)
            self._stream.send(packets.status(error.request_id, Status.BAD_MESSAGE, error.reason))
            return
        if request.wrong_name and self._view.names_are_bytes:
            request = parse(packet, ByteCursor)
        if request.wrong_name:
            self._stream.send(self._operations.failure(request, RefusedError(request.wrong_name)))
            return
        handle = self._handles.get(request.handle) if request.handle else None
        if request.kind == _CLOSE_KIND and handle is not None:
            self._replies.release(handle)
        claims: Claims | None = None
        if self._tasks.unanswered:
            claims = self._operations.claims(request)
        if claims is None or self._tasks.is_free(claims):
            reply = self._at_once.answer(request)
            if reply is not None:
                self._replies.send(handle, reply)
                self._measure(request.kind, since, len(reply))
                return
        self._greeting = request.kind == _INIT_KIND
        self._tasks.add(request, claims or self._operations.claims(request), since, len(packet))

    def _give_up(self, reason: str) -> None:
        """End a channel whose client violates the protocol."""
        self._deaf = True
        self._buffer.clear()
        self._position = 0
        self._events.on_failure("protocol", "", f"the client sent {reason}: its channel is closed")
        self._stream.close()
        self._workers.submit(self._drain)

    # -- the end

    def _drain(self) -> None:
        """Take the requests that have arrived completely: a CLOSE counts even if its sender is gone."""
        with self._parsing:
            if not self._deaf:
                self._parse_buffer(bounded=False)
            self._deaf = True
            self._buffer.clear()
            self._position = 0
        self._tasks.close()

    def _clean_up(self) -> None:
        """Release everything, after the last request was answered."""
        for handle in list(self._handles.values()):
            self._replies.release(handle)
        self._operations.abort_all()
        self._stream.finish()
        self._room.leave(self._view.user)
        self._ended.set()
