"""`GroupCommit`: small files that are committed at the same time share their calls; a lone one waits for nobody.

Commits in one namespace are serial, so many writers that each wait for their own commit spend
their time in a queue. While one commit is under way, those that arrive form a group; the group then costs one
append_batch and one finish_batch_v2, with sessions that were started ahead, and every writer gets its own result.
Larger files do not share the one connection of an append_batch: each sends its content itself, and shares the commit.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

from fs_dropbox import paths
from fs_dropbox.api.commits import Commit
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, DropboxError, TransportError

# The argument of append_batch travels in a header, which servers bound at 16 KiB; an entry takes about 110 bytes of it.
GROUP_FILES: Final = 120
GROUP_BYTES: Final = 8 * 2**20
# Content takes no lock: from here on it travels faster beside that of others than after it.
SHARED_BYTES: Final = 256 * 1024
SESSIONS_AHEAD: Final = 500
# Sessions live for 7 days; older ones than this are forgotten rather than counted on.
SESSION_SECONDS: Final = 3600.0
# A commit that takes longer than this (a stalled call, a long wait after a 429) no longer holds up those behind it.
PATIENCE_SECONDS: Final = 5.0
# So long a group waits for the writers of the one before to come back with their next file, where there was one just
# now: a part of the time that the group before took, within bounds.
GATHER_PART: Final = 0.25
GATHER_SECONDS: Final = 0.02
LONGEST_GATHER_SECONDS: Final = 0.2


class GroupClient(Protocol):
    """The calls that a group needs, with the client's retries and errors."""

    def upload(self, commit: Commit, data: bytes) -> FileEntry: ...

    def session_start_batch(self, count: int) -> list[str]: ...

    def session_append(self, session_id: str, offset: int, data: bytes, close: bool) -> None: ...

    def session_append_batch(self, parts: Sequence[tuple[str, bytes]]) -> list[ApiError | None]: ...

    def session_finish_batch(self, finished: Sequence[tuple[str, int, Commit]]) -> list[FileEntry | ApiError]: ...


@dataclass(slots=True, eq=False)
class _Writer:
    """One file in the queue."""

    commit: Commit
    data: bytes
    session: str | None = None  # that has the content already
    result: Future[FileEntry] = field(default_factory=Future)

    def settle(self, result: FileEntry | Exception) -> None:
        if isinstance(result, Exception):
            self.result.set_exception(result)
        else:
            self.result.set_result(result)


class GroupCommit:
    """Commits small files. Thread-safe; owned by the Uploader.

    One leaf lock with two conditions over the queue and the sessions started ahead. Calls run unlocked, in the writers'
    threads: one of them leads, commits what has gathered by then, and hands the lead to the first that came meanwhile.
    Where whoever answers does not take the calls of groups, the groups get smaller, down to single files.
    """

    def __init__(self, client: GroupClient, *, now: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._now = now
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._arrived = threading.Condition(lock)
        # guarded by the lock of both conditions
        self._queue: deque[_Writer] = deque()
        self._leader: _Writer | None = None
        self._sessions: list[str] = []
        self._sessions_since = 0.0
        self._ahead = 0  # how many were started ahead the last time
        self._last_group = 0  # writers of the last group, and when it ended, and who waited then
        self._last_end = 0.0
        self._last_seconds = 0.0
        self._waiting = 0
        self._most_files = GROUP_FILES

    @property
    def most_files(self) -> int:
        """How many files may share their calls: 1 where none may."""
        with self._changed:
            return self._most_files

    def shrink(self, most_files: int) -> None:
        """Let no more files than these share their calls from now on: they were not taken."""
        with self._changed:
            self._most_files = max(1, min(self._most_files, most_files))

    def commit(self, commit: Commit, data: bytes) -> FileEntry:
        """Commit one file and return it; raises its own ApiError or TransportError, never that of another file."""
        if commit.is_exact or self.most_files == 1:
            # An exact commit cannot be settled by repeating it, as a group whose answer was lost has to be.
            return self._client.upload(commit, data)
        writer = _Writer(commit, data, self._send_alone(data))
        try:
            with self._changed:
                self._queue.append(writer)
                self._arrived.notify_all()
                if self._leader is None:
                    self._leader = writer
            while self._has_to_lead(writer):
                self._lead(writer)
        except BaseException:  # Ctrl-C
            self._withdraw(writer)
            raise
        return writer.result.result()

    def _withdraw(self, writer: _Writer) -> None:
        """Give up a file that nobody has begun to commit: later, it might undo what was stored since."""
        with self._changed:
            if writer in self._queue:
                self._queue.remove(writer)
            if self._leader is writer:
                self._leader = self._queue[0] if self._queue else None
            self._changed.notify_all()

    def _send_alone(self, data: bytes) -> str | None:
        """Send content that is too large for a shared call to a session; None where it is not, or there is no hurry."""
        with self._changed:
            if len(data) <= SHARED_BYTES or self._leader is None:
                return None
        try:
            session = self._take_sessions(1)[0]
        except DropboxError as error:
            if not error.is_not_taken:
                raise
            return None
        self._client.session_append(session, 0, data, True)
        return session

    def _has_to_lead(self, writer: _Writer) -> bool:
        """Wait until the writer's file is settled (False) or it is its turn to lead (True)."""
        with self._changed:
            while not writer.result.done() and self._leader is not writer:
                if not self._changed.wait(PATIENCE_SECONDS) and writer in self._queue:
                    self._leader = writer
            return not writer.result.done()

    def _lead(self, leader: _Writer) -> None:
        group: list[_Writer] = []
        begin = 0.0
        try:
            with self._changed:
                self._gather_locked()
                self._take_group_locked(group)
            begin = time.monotonic()
            self._settle(group)
        finally:
            with self._changed:
                for writer in group:
                    # The leader was interrupted, perhaps after its call was sent.
                    if not writer.result.done() and writer not in self._queue:
                        interrupted = TransportError("interrupted")
                        interrupted.is_unsettled = True
                        writer.settle(interrupted)
                self._last_group, self._last_end = len(group), time.monotonic()
                self._last_seconds = self._last_end - begin
                self._waiting = len(self._queue)
                if self._leader is leader and leader not in self._queue:
                    self._leader = self._queue[0] if self._queue else None
                self._changed.notify_all()

    def _gather_locked(self) -> None:
        """Wait a moment for those who have just been served; a lone writer has nobody to wait for."""
        expected = min(self._last_group + self._waiting, GROUP_FILES)
        patience = min(max(GATHER_SECONDS, GATHER_PART * self._last_seconds), LONGEST_GATHER_SECONDS)
        deadline = self._last_end + patience
        while len(self._queue) < expected and (left := deadline - time.monotonic()) > 0:
            self._arrived.wait(left)

    def _take_group_locked(self, group: list[_Writer]) -> None:
        """Fill a group; those that are in it have left the queue then, all in one step."""
        keys: set[str] = set()
        size = 0
        for writer in islice(self._queue, self._most_files):
            key = paths.key(writer.commit.path)
            # Two commits of one path keep their order: the second goes into the next group.
            shared = len(writer.data) if writer.session is None else 0
            if group and (size + shared > GROUP_BYTES or key in keys):
                break
            size += shared
            keys.add(key)
            group.append(writer)
        self._queue = deque(islice(self._queue, len(group), None))

    def _settle(self, group: list[_Writer]) -> None:
        if len(group) == 1 and group[0].session is None:
            self._upload(group[0])
            return
        self._append([writer for writer in group if writer.session is None])
        ready = [(writer.session, writer) for writer in group if writer.session is not None]
        results: Sequence[FileEntry | DropboxError]
        try:
            results = (
                self._client.session_finish_batch(
                    [(session, len(writer.data), writer.commit) for session, writer in ready]
                )
                if ready
                else []
            )
        except DropboxError as error:
            if error.is_not_taken and isinstance(error, TransportError):  # a bad request may be so by one of its names
                self.shrink(1)
            results = [error] * len(ready)
        again: list[tuple[_Writer, bool]] = []
        for (_, writer), result in zip(ready, results, strict=True):
            if isinstance(result, DropboxError) and not is_final(result):
                # A session that is not known any more was committed; the same content makes no second revision.
                is_lost = isinstance(result, ApiError) and (result.is_ambiguous or result.tag[:1] == ("lookup_failed",))
                again.append((writer, is_lost))
            else:
                writer.settle(result)
        again += [(writer, False) for writer in group if writer.session is None and not writer.result.done()]
        for writer, is_lost in again:
            self._upload(writer, is_lost=is_lost)

    def _append(self, writers: list[_Writer]) -> None:
        """Send the content of some writers in one call: those that it went well for have a session then.

        Those that it failed for are settled, unless it is the shared call that was not taken.
        """
        if not writers:
            return
        try:
            sessions = self._take_sessions(len(writers))
            appended = self._client.session_append_batch(
                [(session, writer.data) for session, writer in zip(sessions, writers, strict=True)]
            )
        except DropboxError as error:
            if error.is_not_taken:
                self.shrink(len(writers) // 2)  # a header may be too long for some that are in between
                return
            for writer in writers:
                writer.settle(error)
            return
        for session, writer, refused in zip(sessions, writers, appended, strict=True):
            if refused is None:
                writer.session = session

    def _upload(self, writer: _Writer, *, is_lost: bool = False) -> None:
        """Commit one file; `is_lost` tells that an earlier commit of it may have taken place."""
        try:
            writer.settle(self._client.upload(writer.commit, writer.data))
        except DropboxError as error:
            told = copy.copy(error)  # others may have the same one
            told.is_unsettled = error.is_unsettled or is_lost
            writer.settle(told)

    def _take_sessions(self, count: int) -> list[str]:
        """Return closed-to-be sessions, from those started ahead where there are enough; each is given out once."""
        with self._changed:
            if self._now() - self._sessions_since > SESSION_SECONDS:
                self._sessions, self._ahead = [], 0
            taken, self._sessions = self._sessions[:count], self._sessions[count:]
        if len(taken) < count:
            # The first group of a burst starts a few ahead, a burst that goes on starts more each time.
            with self._changed:
                ahead = self._ahead = min(SESSIONS_AHEAD, max(8 * count, 2 * self._ahead))
            try:
                started = self._client.session_start_batch(count - len(taken) + ahead)
            except DropboxError as error:
                if error.is_not_taken:
                    self.shrink(1)
                raise
            taken, rest = taken + started[: count - len(taken)], started[count - len(taken) :]
            with self._changed:
                self._sessions += rest
                self._sessions_since = self._now()
        return taken


def is_final(error: DropboxError) -> bool:
    """Tell whether a failed commit is not to be followed by another one of the same content: what it says is about the
    file, not about its session or a busy namespace; or it may still take place, even after later changes."""
    if error.is_unsettled:
        return True
    return isinstance(error, ApiError) and error.tag[:1] == ("path",) and "too_many_write_operations" not in error.tag
