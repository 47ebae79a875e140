"""`Upload`: one file on its way to Dropbox, in one call or through an upload session. Knows no io objects."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Final, Protocol, TypeVar

from fs_dropbox.api.commits import Commit
from fs_dropbox.content_hash import BLOCK_SIZE, ContentHash
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, TransportError
from fs_dropbox.pool import Pool
from fs_dropbox.uploads.checkpoints import Checkpoint, Staged
from fs_dropbox.uploads.group_commit import SHARED_BYTES, GroupClient, GroupCommit
from fs_dropbox.uploads.memory import Allowance, Buffer

# Appends of a concurrent session start at, and have, multiples of 4 MiB. An append has a fixed
# cost of about 0.6 s, so larger ones pay; 8 MiB keeps the memory of many uploads at once within reason.
BLOCK_BYTES: Final = 2 * BLOCK_SIZE
APPENDS_PER_UPLOAD: Final = 8
APPENDS_IN_ALL: Final = 16
# What all uploads of a filesystem collect in memory before it is sent; what is more waits on local disk.
COLLECTED_BYTES: Final = 64 * 2**20
# What files of one block, and the last bytes of larger ones, take while they are committed: they wait for each other,
# but never for the blocks of a large file on a slow line; and the smallest for nobody.
COMMITTED_BYTES: Final = 64 * 2**20

T = TypeVar("T")


class UploadClient(GroupClient, Protocol):
    """The calls that uploads need, with the client's retries and errors."""

    def session_start(self) -> str: ...

    def session_upload(self, data: bytes) -> str: ...

    def session_finish(self, session_id: str, offset: int, commit: Commit, content_hash: str) -> FileEntry: ...

    def interrupt(self, thread_id: int | None) -> None: ...


class Uploader:
    """Opens uploads; owns the threads of their appends, and the memory of them all. Thread-safe.

    Owned by DropboxFS. No lock of its own. However many files are open, what they collect is bounded by
    `COLLECTED_BYTES` and goes to local disk beyond, and what is being sent by `appends` blocks and `COMMITTED_BYTES`:
    more wait their turn.
    """

    def __init__(self, client: UploadClient, *, block_bytes: int = BLOCK_BYTES, appends: int = APPENDS_IN_ALL) -> None:
        if block_bytes % BLOCK_SIZE:
            raise ValueError(f"block_bytes must be a multiple of {BLOCK_SIZE}, not {block_bytes}")
        self.client = client
        self.block_bytes = block_bytes
        self.collected = Allowance(COLLECTED_BYTES)
        self.sending = Allowance(appends * block_bytes)
        self.committing = Allowance(COMMITTED_BYTES)
        self.small_files = GroupCommit(client)
        self._pool = Pool(appends, "fs-dropbox-append")

    def open(self, commit: Commit, resumed: Checkpoint | None = None) -> Upload:
        """Begin an upload; nothing is sent before there is more than one block, or a commit.

        With `resumed` an earlier upload of the same bytes is gone on with, all of which are to be written again, and
        are not sent again. Raises ApiError or TransportError where its session does not take any more.
        """
        if resumed is not None:
            self.client.session_append(resumed.session_id, resumed.sent, b"", False)
        return Upload(self, commit, resumed)

    def send(self, content: Iterable[bytes], commit: Commit | None, end: Callable[[Upload], T]) -> T:
        """Send a whole content, which `end` then commits or stages; raises as that does, and as reading it does."""
        upload = Upload(self, commit)
        try:
            for piece in content:
                upload.write(piece)
            return end(upload)
        except BaseException:
            upload.abort()
            raise

    def start_session(self) -> Future[str]:
        """Start an upload session in a thread of the pool, which takes tasks in order: before its appends."""
        return self._run(self.client.session_start)

    def submit(self, upload: Upload, offset: int, block: Buffer, size: int, *, allowed: bool = False) -> Future[None]:
        """Append the beginning of a block in a thread of the pool; waits while too much is being sent.

        With `allowed` its size was taken from `sending` before.
        """
        if not allowed:
            self.sending.take(size)
        try:
            data = block.take(size)
            future = self._run(lambda: upload.append(offset, data))
        except BaseException:
            self.sending.give(size)
            raise
        # Also called for a future that is cancelled before it runs, so that no memory is lost.
        future.add_done_callback(lambda _: self.sending.give(size))
        return future

    def commit_small(self, commit: Commit, block: Buffer) -> FileEntry:
        """Commit a file of one block at most, which is empty then; waits while too much is being committed."""
        with self.room(len(block)):
            return self.small_files.commit(commit, block.take())

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Have memory for bytes that are being committed."""
        if size <= SHARED_BYTES:
            yield
            return
        self.committing.take(size)
        try:
            yield
        finally:
            self.committing.give(size)

    def _run(self, work: Callable[[], T]) -> Future[T]:
        try:
            return self._pool.submit(work)
        except RuntimeError as error:
            raise TransportError("closed", was_sent=False) from error

    def close(self) -> None:
        """End the threads; requests under way end when the client is closed. Idempotent."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Upload:
    """One file on its way. Nothing of it is visible before `commit()`, nothing ever after `abort()`.

    For one thread at a time: the file object that owns it holds its lock; `abort()` may come from any thread. At most
    `APPENDS_PER_UPLOAD` blocks are in flight, and one is being filled, whatever the file's size.
    """

    def __init__(self, uploader: Uploader, commit: Commit | None, resumed: Checkpoint | None = None) -> None:
        self._uploader = uploader
        self._client = uploader.client
        self._commit = commit
        self._hash = ContentHash()
        self._block = Buffer(uploader.collected)
        self._session: Future[str] | None = None
        self._checkpoint = resumed  # the latest; at first what the session has from an earlier upload
        self._resumed = 0  # bytes of that
        self._sent = 0  # bytes handed to appends, now or earlier
        self._appends: deque[Future[None]] = deque()
        self._allowed = False  # the next block need not wait: its size is taken from `sending` already
        self._ended = False
        self._error: Exception | None = None  # of an append; whatever follows raises it again
        self._lock = threading.Condition()  # reentrant: finalizers of forgotten files take it, in any thread
        # guarded by _lock, which append threads take too
        self._is_in_order = False  # the session takes bytes in their order alone
        self._has_failed = False  # an append has
        self._threads: set[int] = set()  # that send appends of this upload now
        self._aborted = False
        self._arrived: dict[int, int] = {}  # blocks beyond `_certain` that Dropbox has: where they begin and end
        self._certain = 0  # how far Dropbox has everything
        if resumed is not None:
            self._resumed = self._certain = resumed.sent
            self._session = Future()
            self._session.set_result(resumed.session_id)

    @property
    def bytes_written(self) -> int:
        """Bytes that were written so far."""
        return self._sent + len(self._block)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes, and wait while too many are in flight; raises what an earlier append raised."""
        self._check_open()
        view = memoryview(data).cast("B")
        self._hash.update(view)
        known = min(len(view), max(0, self._resumed - self._sent))
        self._sent += known
        view = view[known:]
        if known and self._sent == self._resumed:
            self._check_beginning()
        while view:
            # A full block stays here until more follows: the last append is the one that closes the session.
            if len(self._block) == self._uploader.block_bytes:
                self._send()
            part = view[: self._uploader.block_bytes - len(self._block)]
            self._block.append(part)
            view = view[len(part) :]

    def write_now(self, data: bytes | bytearray | memoryview) -> bool:
        """Take all of the bytes if nothing has to be waited for, and tell whether; what is wrong is left to `write`."""
        view = memoryview(data).cast("B")
        block_bytes = self._uploader.block_bytes
        beyond = len(self._block) + len(view) - block_bytes  # what is for the next block
        if self._error is not None or self._ended or self._sent < self._resumed or beyond > block_bytes:
            return False
        self._allowed = beyond > 0 and self._may_append() and self._uploader.sending.try_take(block_bytes)
        if beyond > 0 and not self._allowed:
            return False
        try:
            self.write(view)
        finally:
            if self._allowed:
                self._allowed = False
                self._uploader.sending.give(block_bytes)
        return True

    @property
    def checkpoint(self) -> Checkpoint | None:
        """What a later upload could go on with, in this process or another. Never waits."""
        with self._lock:
            if self._session is None or not self._certain:
                return None
            # Made once for each length: it is asked for with every write, and hashes more the longer the file is.
            if self._checkpoint is None or self._checkpoint.sent != self._certain:
                session_id = self._session.result()  # which is there: it has taken bytes
                self._checkpoint = Checkpoint(session_id, self._certain, self._hash.beginning(self._certain))
            return self._checkpoint

    def commit(self, *, client_modified: datetime | None = None) -> FileEntry:
        """Make the file visible and return it as Dropbox has it.

        Raises ApiError or TransportError: then nothing became visible, except where the outcome itself is unknown,
        which the error says. What Dropbox has is what was written, or the error is `stored_otherwise`.
        """
        self._check_open()
        if self._sent < self._resumed:
            raise ValueError("fewer bytes were written than the session has")
        self._ended = True
        assert self._commit is not None
        commit = self._commit if client_modified is None else replace(self._commit, client_modified=client_modified)
        try:
            if self._session is None:
                entry = self._uploader.commit_small(commit, self._block)
            else:
                session_id, size = self._close_session(self._session)
                entry = self._client.session_finish(session_id, size, commit, self._hash.hexdigest())
        except BaseException:
            self._cancel()
            raise
        if entry.content_hash is not None and entry.content_hash != self._hash.hexdigest():
            raise ApiError("files/upload", ("stored_otherwise",))
        return entry

    def stage(self) -> Staged:
        """Have everything in a closed session, to be committed later. Raises as `commit` does."""
        self._check_open()
        self._ended = True
        try:
            if self._session is None:
                size = len(self._block)
                with self._uploader.room(size):
                    session_id = self._client.session_upload(self._block.take())
            else:
                session_id, size = self._close_session(self._session)
        except BaseException:
            self._cancel()
            raise
        return Staged(session_id, size, self._hash.hexdigest())

    def abort(self) -> None:
        """Discard everything and break off the requests under way. Idempotent."""
        with self._lock:
            self._aborted = self._ended = True
            self._lock.notify_all()
            # Under the lock: a thread that has let go of it may be at another upload's append by now.
            for thread in self._threads:
                self._client.interrupt(thread)
        self._cancel()

    def append(self, offset: int, data: bytes) -> None:
        """Send one block; runs in a thread of the uploader."""
        assert self._session is not None
        thread = threading.get_ident()
        with self._lock:
            if not self._may_send_locked(offset):
                return
            self._threads.add(thread)
        try:
            self._append(self._session.result(), offset, data)
            with self._lock:
                self._arrived[offset] = offset + len(data)
                while self._certain in self._arrived:
                    self._certain = self._arrived.pop(self._certain)
        except BaseException:
            with self._lock:
                self._has_failed = True
            raise
        finally:
            with self._lock:
                self._threads.discard(thread)
                self._lock.notify_all()

    def _append(self, session_id: str, offset: int, data: bytes) -> None:
        """Send a block; again after those before it where a stand-in knows no sessions that take them in any order."""
        try:
            self._client.session_append(session_id, offset, data, False)
        except ApiError as error:
            if error.tag != ("incorrect_offset",):
                raise
            with self._lock:
                self._is_in_order = True
                if not self._may_send_locked(offset):
                    raise
            self._client.session_append(session_id, offset, data, False)

    def _may_send_locked(self, offset: int) -> bool:
        """Wait for the turn of a block where there are turns; tell whether it is to be sent at all."""
        while self._is_in_order and self._certain < offset and not (self._aborted or self._has_failed):
            self._lock.wait()
        return not (self._aborted or (self._is_in_order and self._has_failed))

    def _close_session(self, session: Future[str]) -> tuple[str, int]:
        """Send what is left; return the session and its size."""
        session_id = session.result()
        ahead = (len(self._block) - 1) // BLOCK_SIZE * BLOCK_SIZE
        if ahead > 0 and not all(append.done() for append in self._appends):
            self._submit(ahead)  # beside the others, rather than after them with the tail
        while self._appends:
            self._settle_oldest()
        size = len(self._block)
        with self._uploader.room(size):
            # Nothing may follow the append that closes, so it waits for the others, and carries the tail.
            self._client.session_append(session_id, self._sent, self._block.take(), True)
        return session_id, self._sent + size

    def _send(self) -> None:
        """Hand the full block to the pool, after the oldest append where enough are under way."""
        if self._session is None:
            self._session = self._uploader.start_session()
        while self._appends and (self._appends[0].done() or len(self._appends) >= APPENDS_PER_UPLOAD):
            self._settle_oldest()
        self._submit(len(self._block))

    def _may_append(self) -> bool:
        """Tell whether one more append may begin now, and none before it has failed."""
        while self._appends and self._appends[0].done():
            if self._appends[0].cancelled() or self._appends[0].exception() is not None:
                return False
            self._appends.popleft()
        return len(self._appends) < APPENDS_PER_UPLOAD

    def _submit(self, size: int) -> None:
        allowed, self._allowed = self._allowed, False
        self._appends.append(self._uploader.submit(self, self._sent, self._block, size, allowed=allowed))
        self._sent += size

    def _cancel(self) -> None:
        self._block.close()
        for future in list(self._appends):
            future.cancel()
        self._appends.clear()

    def _settle_oldest(self) -> None:
        try:
            self._appends.popleft().result()
        except Exception as error:
            self._error = error
            raise

    def _check_beginning(self) -> None:
        """Raise ApiError where what was written again is not what the session has: it would become a mix of both."""
        assert self._checkpoint is not None
        if self._hash.beginning(self._resumed) != self._checkpoint.content_hash:
            self._error = ApiError("files/upload_session/append_v2", ("begun_otherwise",))
            raise self._error

    def _check_open(self) -> None:
        if self._error is not None:
            raise self._error
        if self._ended:
            raise ValueError("the upload has ended")
