"""`Tasks`: runs the requests of a channel that were not answered at once, in order, until all are answered."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from sftp_gateway.files.directory_handle import BATCH_BYTES
from sftp_gateway.files.handles import MAX_READ
from sftp_gateway.requests.operations import Operations
from sftp_gateway.requests.ordering import READS_AT_ONCE, Claims, Ordering, Task
from sftp_gateway.requests.replies import Replies
from sftp_gateway.requests.room import Room
from sftp_gateway.requests.workers import Workers
from sftp_gateway.sftp import packets
from sftp_gateway.sftp.packets import Kind, Status
from sftp_gateway.sftp.parsing import Request
from sftp_gateway.ssh.channel_stream import ChannelStream

# Requests that have no effect besides their reply.
ONLY_ASKING = frozenset(
    {Kind.READ, Kind.READDIR, Kind.STAT, Kind.LSTAT, Kind.FSTAT, Kind.OPENDIR, Kind.REALPATH, Kind.READLINK}
)


class Tasks:
    """Carries requests out in `workers`, as many at once as may be, and sends their replies.

    Owned by an `SFTPChannel`. Thread-safe: `_lock` guards what is unanswered, and is a leaf but for the stream's.
    """

    def __init__(
        self,
        operations: Operations,
        replies: Replies,
        stream: ChannelStream,
        workers: Workers,
        room: Room,
        *,
        measure: Callable[[int, float, int], None],
        on_done: Callable[[], None],
    ) -> None:
        """`measure` is told of each answer: its kind, when the request arrived, its size. `on_done` is called once, in
        any thread, when all requests are answered after `close`.
        """
        self._operations = operations
        self._replies = replies
        self._stream = stream
        self._workers = workers
        self._room = room
        self._measure = measure
        self._on_done = on_done
        self._abandoned = False  # what has not begun yet is refused
        self._lock = threading.Lock()
        # guarded by _lock
        self.unanswered = 0
        self.unanswered_bytes = 0  # of their packets
        self.running = 0
        self.answered_at = 0.0  # when the last one was
        self._ordering = Ordering()
        self._ready: deque[Task] = deque()
        self._expected = 0  # the most bytes of replies that are to come, those included that wait for their turn
        self._closed = False
        self._is_done = False

    def is_free(self, claims: Claims) -> bool:
        """Tell whether a request with these claims may be answered before all that are unanswered."""
        with self._lock:
            return self._ordering.is_free(claims)

    def is_free_handle(self, handle_id: bytes) -> bool:
        """Tell whether no request of a handle is unanswered."""
        with self._lock:
            return self._ordering.is_free_handle(handle_id)

    def add(self, request: Request, claims: Claims, since: float, size: int) -> None:
        """Have a request carried out that arrived at `since` as a packet of `size` bytes."""
        task = Task(request, claims, since, size)
        with self._lock:
            self.unanswered += 1
            self.unanswered_bytes += size
            if self._ordering.add(task):
                self._ready.append(task)
        self.go_on()

    def go_on(self) -> None:
        """Start requests that may start; to be called when the client has taken replies."""
        while self._ready:
            with self._lock:
                first = not self.running  # so a session whose calls hang takes nothing from another
                task = self._begin()
            if task is None:
                return
            self._workers.submit(partial(self._run, task), urgent=first)

    def abandon(self) -> None:
        """Refuse requests that have not started yet."""
        self._abandoned = True

    def close(self) -> None:
        """Take note that no more requests will come."""
        with self._lock:
            self._closed = True
        self.go_on()
        self._end_if_done()

    # -- within

    def _begin(self) -> Task | None:
        """Take out a request that may start now, if any: none does while the client does not take its replies.

        Room for long replies is reserved when their requests start. If the client takes all its replies, more requests
        start than one slow file can occupy, so that none waits for that; and if nothing else runs, one always starts.
        """
        room = self._room.output_bytes - self._stream.pending
        if room < 0 or self.running >= self._room.limits.running:
            return None
        few = 0 if self._stream.pending else READS_AT_ONCE
        has_room = self._expected <= room or self.running <= few
        task = next((task for task in self._ready if has_room or not _most_of_reply(task.request)), None)
        if task is not None:
            self._ready.remove(task)
            self.running += 1
            self._expected += _most_of_reply(task.request)
        return task

    def _run(self, task: Task) -> None:
        """Carry out a request, and then others that are ready."""
        following: Task | None = task
        while following is not None:
            request = following.request
            in_vain = self._abandoned or (request.kind in ONLY_ASKING and self._stream.is_closed)
            reply = _refusal(request) if in_vain else self._operations.answer(request)
            self._measure(request.kind, following.since, len(reply))
            following = self._finish(following, reply)
            self._stream.wake()
        self._end_if_done()

    def _finish(self, task: Task, reply: bytes) -> Task | None:
        """Send a reply, and those that waited for it, when it is their turn; return the request to carry out next."""
        handle = self._operations.handles.get(task.request.handle)
        with self._lock:
            self.running -= 1
            answered, ready = self._ordering.done(task, reply)
            for each in answered:
                self._replies.send(handle, each.reply or b"")
                self.unanswered -= 1
                self.unanswered_bytes -= each.size
                self._expected -= _most_of_reply(each.request)
            self.answered_at = time.monotonic()
            self._ready.extend(ready)
            following = self._begin()
        self.go_on()
        return following

    def _end_if_done(self) -> None:
        with self._lock:
            if not self._closed or self.unanswered or self._is_done:
                return
            self._is_done = True
        self._on_done()


def _most_of_reply(request: Request) -> int:
    """Return the greatest size of the reply to a request, 0 if replies of its kind are short."""
    if request.kind == Kind.READ:
        return min(request.size, MAX_READ)
    return BATCH_BYTES if request.kind == Kind.READDIR else 0


def _refusal(request: Request) -> bytes:
    return packets.status(request.id, Status.FAILURE, "the server is ending")
