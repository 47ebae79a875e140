"""`SFTPChannel`: one SFTP channel of a session: reads requests, keeps their order, answers them."""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import partial

import paramiko

from sftp_gateway import packets
from sftp_gateway.channel_stream import ChannelStream
from sftp_gateway.events import Events, Meter
from sftp_gateway.handles import Handle, WriteHandle
from sftp_gateway.operations import Operations
from sftp_gateway.ordering import Ordering, Task
from sftp_gateway.packets import Kind, PacketError, Request, Status, UndecodableNameError
from sftp_gateway.tree import TreeView
from sftp_gateway.workers import Workers

logger = logging.getLogger(__name__)

HOLD_SECONDS = 5.0
"""How long the answer to a WRITE waits at most for the storage: clients give up after 15 seconds of silence."""

_LENGTH = struct.Struct(">I")
_READ = struct.Struct(">II4sQI")  # id, length of the handle, handle, offset, size
_WRITE_KIND = int(Kind.WRITE)
_READ_KIND = int(Kind.READ)
_OK = int(Status.OK)


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """Bounds of one channel."""

    handles: int = 1024  # open at once
    in_flight: int = 256  # requests that are not answered yet; parsing stops above
    running: int = 32  # of them in worker threads at once
    output_bytes: int = 4 * 2**20  # replies that the client has not taken yet; parsing stops above


class SFTPChannel:
    """Serves one channel of a `GatewayTransport` until the client, the transport or `stop()` ends it.

    Requests are parsed in the transport's thread, and answered there where that cannot block; the others run in
    `workers`. Owned by a session. Thread-safe: `_lock` guards what is unanswered, and is a leaf but for the stream's;
    `_parsing` is held while requests are taken in.
    """

    def __init__(
        self,
        channel: paramiko.Channel,
        view: TreeView,
        *,
        events: Events,
        workers: Workers,
        limits: ChannelLimits = ChannelLimits(),
        meter: Meter | None = None,
    ) -> None:
        self.channel = channel
        self.last_activity = time.monotonic()  # of the last request
        self._limits = limits
        self._workers = workers
        self._events = events
        self._meter = meter
        self._stream = ChannelStream(channel, on_data=self._on_data, on_idle=self._on_idle, on_end=self._on_end)
        self._operations = Operations(view, events, max_handles=limits.handles, tell=self._stream.aside)
        self._handles = self._operations.handles
        self._ended = threading.Event()
        self._peer_gone = False
        self._parsing = threading.RLock()
        # guarded by _parsing
        self._buffer = bytearray()
        self._position = 0
        self._stalled = False
        self._deaf = False  # takes no request any more
        self._lock = threading.Lock()
        # guarded by _lock
        self._ordering = Ordering()
        self._ready: deque[Task] = deque()
        self._reads: dict[bytes, deque[Task]] = {}  # unanswered, by handle, in order
        self._unanswered = 0
        self._running = 0
        self._held = 0
        self._drained = False
        self._cleaned = False
        self._abandoned = False  # what has not begun yet is refused

    def start(self) -> None:
        """Serve from now on in the transport's own thread and in `workers`; returns at once.

        Call it inside `check_channel_subsystem_request`, before it returns True.
        """
        self._stream.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the channel has ended and everything of it is cleaned up; tell whether it has."""
        return self._ended.wait(timeout)

    def run(self) -> None:
        """Start, and return when the channel has ended and left nothing: no handle, no thread, no spool file."""
        self.start()
        self.wait()

    @property
    def unanswered(self) -> int:
        """How many requests have come in that are not answered yet."""
        return self._unanswered

    @property
    def handles(self) -> list[Handle]:
        """What the client has open."""
        return list(self._handles.values())

    def stop(self, deadline: float = 0.0) -> bool:
        """Take no new request, give running ones `deadline` seconds, abort the rest; tell whether all could end.

        A client that has left by itself is not cut short: what it had sent completely, above all a CLOSE, is done.
        """
        if not self._peer_gone:
            with self._parsing:
                self._deaf = True
            self._workers.submit(self._drain)
        if not self._ended.wait(deadline) and not self._peer_gone:
            with self._lock:
                self._abandoned = True
        self._stream.close()
        return self._ended.is_set()

    # -- called by the stream

    def _on_data(self, data: bytes | memoryview) -> None:
        self.last_activity = time.monotonic()
        if self._meter is not None:
            self._meter.received(len(data))
        with self._parsing:
            if not self._deaf:
                self._buffer += data
                self._parse()

    def _on_idle(self) -> None:
        if self._ready:
            self._start_ready()
        if self._stalled:
            with self._parsing:
                self._parse()

    def _on_end(self) -> None:
        self._peer_gone = True
        self._workers.submit(self._drain)

    # -- requests

    def _is_full(self) -> bool:
        return (
            self._unanswered + self._held >= self._limits.in_flight or self._stream.pending > self._limits.output_bytes
        )

    def _parse(self, *, bounded: bool = True) -> None:
        """Take in what is complete, as far as the limits allow."""
        buffer = self._buffer
        begin = start = self._position
        self._stalled = False
        while True:
            available = len(buffer) - start
            if available < 4:
                break
            if bounded and self._is_full():
                self._stalled = True
                break
            length: int = _LENGTH.unpack_from(buffer, start)[0]
            if not 5 <= length <= packets.MAX_PACKET:
                self._give_up(f"a packet of {length} bytes")
                return
            end = start + 4 + length
            if len(buffer) < end:
                break
            kind = buffer[start + 4]
            if not (
                (kind == _WRITE_KIND and self._write_fast(start + 5, end))
                or (kind == _READ_KIND and length == 25 and self._read_fast(start + 5))
            ):
                self._take(bytes(buffer[start + 4 : end]))
                if self._deaf:
                    return
            start = end
        self._position = start
        if start == len(buffer):
            buffer.clear()
            self._position = 0
        elif start > packets.MAX_PACKET:
            del buffer[:start]
            self._position = 0
        if start > begin:
            self._stream.consumed(start - begin)

    def _write_fast(self, start: int, end: int) -> bool:
        """Answer a WRITE at once if it is an ordinary one; tell whether it was."""
        buffer = self._buffer
        if end - start < 24:
            return False
        since = time.monotonic()
        request_id, handle_length, handle_id, offset, size = _READ.unpack_from(buffer, start)
        handle = self._handles.get(handle_id)
        if handle_length != 4 or start + 24 + size > end or not isinstance(handle, WriteHandle):
            return False
        if self._unanswered and not self._is_free_handle(handle_id):
            return False
        keeps_up = True
        try:
            with memoryview(buffer) as view, view[start + 24 : start + 24 + size] as data:
                keeps_up = handle.write(offset, data)
        except Exception as error:  # noqa: BLE001 - whatever fails, the client gets a status
            reply = self._operations.failure(Request(_WRITE_KIND, request_id, handle=handle_id), error)
        else:
            reply = packets.status(request_id, _OK)
        if keeps_up and not handle.held:
            self._stream.send(reply)
        else:
            self._hold(handle, reply)
        self._measure(_WRITE_KIND, since, reply)
        return True

    def _read_fast(self, start: int) -> bool:
        """Answer a READ at once if its bytes are at hand; tell whether they were."""
        since = time.monotonic()
        request_id, handle_length, handle_id, offset, size = _READ.unpack_from(self._buffer, start)
        if handle_length != 4 or (self._unanswered and not self._is_free_handle(handle_id)):
            return False
        try:
            reply = self._operations.read_now(request_id, handle_id, offset, size)
        except Exception as error:  # noqa: BLE001 - whatever fails, the client gets a status
            reply = self._operations.failure(Request(_READ_KIND, request_id, handle=handle_id), error)
        if reply is None:
            return False
        self._deliver(handle_id, reply)
        self._measure(_READ_KIND, since, reply)
        return True

    def _measure(self, kind: int, since: float, reply: bytes) -> None:
        if self._meter is not None:
            self._meter.answered(kind, time.monotonic() - since, len(reply))

    def _is_free_handle(self, handle_id: bytes) -> bool:
        with self._lock:
            return self._ordering.is_free_handle(handle_id)

    def _take(self, packet: bytes) -> None:
        """Take in one request: answer it at once, or leave it to the workers."""
        since = time.monotonic()
        try:
            request = packets.parse(packet)
        except PacketError as error:
            if error.request_id is None:
                self._give_up(error.reason)
                return
            code = Status.FAILURE if isinstance(error, UndecodableNameError) else Status.BAD_MESSAGE
            self._events.on_failure("request", "", error.reason)
            self._stream.send(packets.status(error.request_id, code, error.reason))
            return
        if request.kind == Kind.CLOSE:
            self._release(self._handles.get(request.handle))
        claims = self._operations.claims(request)
        with self._lock:
            is_free = self._ordering.is_free(claims)
        if is_free:
            reply = self._operations.answer_now(request)
            if reply is not None:
                self._deliver(request.handle, reply)
                self._measure(request.kind, since, reply)
                return
        task = Task(request, claims, since)
        with self._lock:
            self._unanswered += 1
            if claims.shared:
                self._reads.setdefault(request.handle, deque()).append(task)
            if self._ordering.add(task):
                self._ready.append(task)
        self._start_ready()

    def _give_up(self, reason: str) -> None:
        """End a channel whose bytes make no sense."""
        self._deaf = True
        self._buffer.clear()
        self._position = 0
        self._events.on_failure("protocol", "", f"the client sent {reason}: its channel is closed")
        self._stream.close()
        self._workers.submit(self._drain)

    # -- work in other threads

    def _start_ready(self) -> None:
        while True:
            with self._lock:
                if not self._may_run():
                    return
                task = self._ready.popleft()
                first = not self._running  # so a session whose calls hang takes nothing from another
                self._running += 1
            self._workers.submit(partial(self._run, task), urgent=first)

    def _may_run(self) -> bool:
        """Tell whether a request that is ready may begin; none does while the client does not take its replies."""
        return bool(
            self._ready and self._running < self._limits.running and self._stream.pending <= self._limits.output_bytes
        )

    def _run(self, task: Task) -> None:
        """Carry out a request, and then others that are ready."""
        following: Task | None = task
        while following is not None:
            reply = self._refuse(following) if self._abandoned else self._operations.answer(following.request)
            self._measure(following.request.kind, following.since, reply)
            following = self._finish(following, reply)
            self._stream.wake()
        self._clean_up_if_done()

    def _refuse(self, task: Task) -> bytes:
        return packets.status(task.request.id, Status.FAILURE, "the server is ending")

    def _finish(self, task: Task, reply: bytes) -> Task | None:
        """Send a reply when it is its turn; return a request to go on with."""
        handle_id = task.request.handle
        with self._lock:
            task.reply = reply
            if task.claims.shared:
                waiting = self._reads[handle_id]
                while waiting and waiting[0].reply is not None:
                    self._deliver_locked(handle_id, waiting.popleft().reply or b"")
                if not waiting:
                    del self._reads[handle_id]
            else:
                self._deliver_locked(handle_id, reply)
            self._ready.extend(self._ordering.done(task))
            self._unanswered -= 1
            self._running -= 1
            following = self._ready.popleft() if self._may_run() else None
            if following is not None:
                self._running += 1
            more = self._may_run()
        if more:
            self._start_ready()
        return following

    # -- replies

    def _deliver(self, handle_id: bytes, reply: bytes) -> None:
        """Send a reply, behind those of its handle that are held back."""
        handle = self._handles.get(handle_id)
        if handle is not None and handle.held:
            self._hold(handle, reply)
        else:
            self._stream.send(reply)

    def _deliver_locked(self, handle_id: bytes, reply: bytes) -> None:
        handle = self._handles.get(handle_id)
        if handle is not None and handle.held:
            handle.held.append(reply)
            self._held += 1
        else:
            self._stream.send(reply)

    def _hold(self, handle: Handle, reply: bytes) -> None:
        """Keep a reply back until the storage has caught up, but not for long."""
        with self._lock:
            handle.held.append(reply)
            self._held += 1
            first = len(handle.held) == 1
        if first:
            release = partial(self._release, handle)
            self._stream.transport.call_later(HOLD_SECONDS, release)
            if isinstance(handle, WriteHandle):
                handle.draft.when_caught_up(release)

    def _release(self, handle: Handle | None) -> None:
        if handle is None or not handle.held:
            return
        with self._lock:
            while handle.held:
                self._stream.send(handle.held[0])
                handle.held.popleft()  # only now may others send for this handle by themselves
                self._held -= 1
        self._stream.wake()

    # -- the end

    def _drain(self) -> None:
        """Take in what had arrived completely: a CLOSE that was sent counts, even if its sender is gone."""
        with self._parsing:
            if not self._deaf:
                self._parse(bounded=False)
            self._deaf = True
            self._buffer.clear()
            self._position = 0
            self._stalled = False
        with self._lock:
            self._drained = True
        self._start_ready()
        self._clean_up_if_done()

    def _clean_up_if_done(self) -> None:
        with self._lock:
            if not self._drained or self._unanswered or self._cleaned:
                return
            self._cleaned = True
        for handle in list(self._handles.values()):
            self._release(handle)
        self._operations.abort_all()
        self._stream.finish()
        self._ended.set()
