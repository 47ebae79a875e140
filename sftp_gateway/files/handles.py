"""`Handle`, `ReadHandle`, `WriteHandle`: what a client has open, and what it can do with a file of it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from fs.errors import ResourceNotFound

from sftp_gateway.files.allowance import Allowance
from sftp_gateway.files.content import Content
from sftp_gateway.files.draft import Draft, State
from sftp_gateway.files.looking import of_draft
from sftp_gateway.files.spool import SpoolFullError
from sftp_gateway.files.store import Store
from sftp_gateway.sftp import attributes
from sftp_gateway.sftp.events import Transfer
from sftp_gateway.sftp.packets import Attributes, OpenFlag
from sftp_gateway.sftp.status import EndOfDataError, RefusedError, is_disk_full

MAX_READ = 256 * 1024
_RENAMES = 256  # of one handle that may be unanswered


class Handle:
    """Something that a client has open, under the id that its requests name.

    Owned by a channel, which keeps the requests to one handle in order.
    """

    def __init__(self, path: str) -> None:
        self.id = b""
        self.path = path  # as the client names it
        self.held: deque[bytes] = deque()  # replies that are held back until the storage has caught up
        self.opened = time.monotonic()
        self.failed_with = ""  # the reason that was logged last: one failure often hits many requests in flight

    def close(self) -> Transfer | None:
        """Carry out the client's CLOSE; return what is to be logged. The handle is closed even if this raises."""
        return None

    def abort(self) -> Transfer | None:
        """End without a CLOSE: nothing is committed. Never raises."""
        return None

    def attributes(self) -> Attributes:
        """Answer FSTAT."""
        raise RefusedError("not a handle of a file")

    def attributes_now(self) -> Attributes | None:
        """Answer FSTAT if that is possible without waiting."""
        return self.attributes()

    def _transfer(
        self,
        direction: Literal["upload", "download"],
        size: int,
        result: Literal["ok", "aborted", "failed"],
        reason: str = "",
    ) -> Transfer:
        return Transfer(direction, self.path, size, time.monotonic() - self.opened, result, reason)


class ReadHandle(Handle):
    """A file that is read: one committed version, or what is just being written. READs may come from many threads."""

    def __init__(self, path: str, store: Store, session: object, fs_path: str) -> None:
        """Open what is at `fs_path`, or what `session` itself writes there. Raises `fs.errors`, `RefusedError`."""
        super().__init__(path)
        self.fs_path = fs_path
        self._store = store
        self._moved = 0
        self._lock = threading.Lock()
        # changed under _lock
        self._content: Content | None = None
        self._is_closed = False
        self.source = store.open_for_reading(fs_path, session, self)
        if isinstance(self.source, Content):
            self._content = self.source

    @property
    def reads_ahead(self) -> bool:
        """Whether the filesystem fetches ahead of who reads in order."""
        return self._content is not None and self._content.reads_ahead

    @property
    def size(self) -> int:
        """The size of what is read."""
        return self.source.size

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes, fewer only at the end; raises `EndOfDataError` there, and `fs.errors`."""
        size = min(size, MAX_READ)
        if self._content is not None:
            return self._count(self._content.pread(offset, size), size)
        assert isinstance(self.source, Draft)
        try:
            piece = self.source.read(offset, size)
        except Exception:  # the draft may have ended while it was read
            if not self._is_settled():
                raise
            return self.read(offset, size)
        return self._count(piece, size)

    def read_now(self, offset: int, size: int) -> bytes | None:
        """Return what `read` would, if that is possible without waiting."""
        size = min(size, MAX_READ)
        if self._content is not None:
            piece = self._content.cached(offset, size)
            return None if piece is None else self._count(piece, size)
        assert isinstance(self.source, Draft)
        if self.source.needs_base(offset, size):
            return None
        try:
            piece = self.source.read(offset, size)
        except RefusedError:
            if not self._is_settled():
                raise
            return None
        return self._count(piece, size)

    def attributes(self) -> Attributes:
        """Answer FSTAT: the size is that of the version that is read."""
        found = self._seen_by(self._store.looking.stat)
        assert found is not None
        return found

    def attributes_now(self) -> Attributes | None:
        """Answer FSTAT if that is possible without waiting."""
        return self._seen_by(self._store.looking.quick_stat)

    def _seen_by(self, stat: Callable[[str], Attributes | None]) -> Attributes | None:
        """Return the attributes of the version that is read, with the time that `stat` tells; None if it cannot."""
        if self._content is None:
            assert isinstance(self.source, Draft)
            return _unless_given_up(self.source)
        try:
            found = stat(self.fs_path)
        except ResourceNotFound:  # renamed or removed while it is read
            return attributes.file_attributes(self._content.size, None)
        if found is None:
            return None
        return attributes.file_attributes(self._content.size, found.mtime)

    def close(self) -> Transfer | None:
        """Close what was read."""
        self._let_go()
        return self._transfer("download", self._moved, "ok") if self._moved else None

    def abort(self) -> Transfer | None:
        """Close what was read; the download counts as aborted if its end was not reached."""
        self._let_go()
        result: Literal["ok", "aborted"] = "ok" if self._moved >= self.size else "aborted"
        return self._transfer("download", self._moved, result) if self._moved else None

    def settle(self, find: Callable[[], Content | None]) -> None:
        """Go on with what `find` opens. May be called while the handle is being closed. Never raises."""
        with contextlib.suppress(Exception):  # a later read tells that its draft has ended
            content = find()
            with self._lock:
                if not self._is_closed:
                    self._content, content = content, None
            if content is not None:
                content.close()

    def _is_settled(self) -> bool:
        return self._content is not None

    def _let_go(self) -> None:
        with self._lock:
            self._is_closed, content = True, self._content
        if isinstance(self.source, Draft):
            self.source.readers.remove(self)
        if content is not None:
            content.close()

    def _count(self, piece: bytes, size: int) -> bytes:
        if not piece and size:
            raise EndOfDataError
        self._moved += len(piece)
        return piece


class WriteHandle(Handle):
    """A file that is written, and read where the client opened it for both. WRITEs come one after the other."""

    def __init__(
        self,
        path: str,
        store: Store,
        session: object,
        fs_path: str,
        flags: int,
        *,
        is_new: bool = False,
        replaces: bool = True,
        allowance: Allowance | None = None,
    ) -> None:
        """Find or make the draft at `fs_path` that this handle of `session` writes; see `Store.open_for_writing`."""
        super().__init__(path)
        self.paths = [path]  # and those that renames give it, or try to
        self.readable = bool(flags & OpenFlag.READ)
        self._append = bool(flags & OpenFlag.APPEND)
        self._allowance = allowance
        self._store = store
        self._moved = 0
        self.draft = store.open_for_writing(
            fs_path, flags, session, self, is_new=is_new, replaces=replaces, allowance=allowance
        )
        self._has_changed = self.draft.dirty  # so that its end without a commit would lose something

    def expect(self, path: str) -> None:
        """Know a path that a pending rename will give it."""
        self.paths = [*self.paths[-_RENAMES:], path]

    def write(self, offset: int, data: bytes | memoryview) -> bool:
        """Store `data`; tell whether the storage keeps up. Never waits. Raises `RefusedError`, `fs.errors`, OSError."""
        self.draft.check_writer(self)
        self._has_changed = True
        position = None if self._append else offset
        while True:
            try:
                keeps_up = self.draft.write(position, data)
                break
            except (SpoolFullError, OSError) as error:
                is_short = isinstance(error, SpoolFullError) or is_disk_full(error)
                if not is_short or not self._make_room():
                    raise
        self._moved += len(data)
        while not keeps_up and self.draft.spool.quota.is_short and self._make_room():
            keeps_up = not self.draft.pace.is_behind
        return keeps_up

    def read(self, offset: int, size: int) -> bytes:
        """Return what the file holds now; raises `EndOfDataError`, `fs.errors`."""
        self.draft.check_writer(self)
        self._check_readable()
        piece = self.draft.read(offset, min(size, MAX_READ))
        if not piece and size:
            raise EndOfDataError
        return piece

    def read_now(self, offset: int, size: int) -> bytes | None:
        """Return what `read` would, if that is possible without waiting."""
        self._check_readable()
        if self.draft.needs_base(offset, min(size, MAX_READ)):
            return None
        return self.read(offset, size)

    def truncate(self, size: int) -> None:
        """Set the size."""
        self.draft.check_writer(self)
        self._has_changed = True
        self.draft.truncate(size)

    def set_modified(self, modified: float) -> None:
        """Set the time that the commit will carry."""
        self.draft.check_writer(self)
        self.draft.modified = modified

    def sync(self) -> None:
        """Make what was received survive a crash of the gateway and its machine; that does not commit it."""
        self.draft.check_writer(self)
        self.draft.spool.sync()
        self.draft.note_down()

    def attributes(self) -> Attributes:
        """Answer FSTAT: the bytes received so far."""
        self.draft.check_writer(self)
        return _unless_given_up(self.draft)

    def close(self, *, at_once: bool = False) -> Transfer | None:
        """Commit. Raises what the storage refused; `NotAtOnceError` as `Store.commit`."""
        if not self._has_changed and self not in self.draft.handles:
            return None  # another session has taken the file over, and this handle has written nothing
        self.draft.check_writer(self)
        self._store.commit(self.draft, self, self._allowance, at_once=at_once)
        return self._transfer("upload", self._moved, "ok")

    def abort(self) -> Transfer | None:
        """Let go without a commit."""
        self._store.abandon(self.draft, self)
        return self._transfer("upload", self._moved, "aborted")

    def failed(self, reason: str) -> Transfer:
        """Return what is to be logged about a CLOSE that failed."""
        return self._transfer("upload", self._moved, "failed", reason)

    def _make_room(self) -> bool:
        return self.draft.pace.thin(at_least=1) or self._store.drafts.make_room()

    def _check_readable(self) -> None:
        if not self.readable:
            raise RefusedError("the file is open for writing only")


def _unless_given_up(draft: Draft) -> Attributes:
    if draft.state is State.ENDED:
        raise RefusedError(draft.end_reason)
    return of_draft(draft)
