"""`Store`: a filesystem together with the files that are being written to it, in the filesystem's own paths."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fs import errors
from fs.base import FS
from fs.path import dirname

from sftp_gateway import attributes
from sftp_gateway.allowance import Allowance
from sftp_gateway.content import Content
from sftp_gateway.draft import Draft, State
from sftp_gateway.folding import fold_path
from sftp_gateway.looking import Looking
from sftp_gateway.overlay import Overlay
from sftp_gateway.packets import OpenFlag, Status
from sftp_gateway.partials import Partials
from sftp_gateway.spool import DamagedError, Quota, Spool, SpoolFullError
from sftp_gateway.status import RefusedError

_EXISTS = "exists already"


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """Bounds of one tree; sizes are bytes."""

    spool_quota: int = 10 * 2**30  # of all files being written and of kept partial uploads
    spool_memory: int = 2**20  # a file is kept in memory up to this size
    partial_seconds: float = 86400.0  # how long an upload that was cut off can be continued
    commit_wait_seconds: float = 120.0  # how long one request waits for another that changes the same path
    shared: bool = False  # other processes of this gateway use the same spool directory
    streams: int = 32  # uploads that are sent on while they arrive; others are sent on at CLOSE


class Store:
    """What all sessions of an account share. Owned by a `Tree`. Thread-safe; no lock is held over the filesystem.

    Every method raises `fs.errors`, `RefusedError` and OSError.
    """

    def __init__(self, filesystem: FS, *, spool_directory: Path, limits: TreeLimits) -> None:
        self.filesystem: Any = filesystem
        self.limits = limits
        meta = filesystem.getmeta()
        self.atomic = bool(meta.get("atomic_writes"))
        self.local = meta.get("network") is False  # its calls may be made where nothing may wait
        self.case_insensitive = bool(meta.get("case_insensitive"))
        self.has_journal = bool(meta.get("write_back"))
        self._check_writable = getattr(filesystem, "check_writable", None)
        self.quota = Quota(limits.spool_quota)
        self.overlay = Overlay(self.fold, wait_seconds=limits.commit_wait_seconds)
        self.looking = Looking(
            filesystem,
            self.overlay,
            local=self.local,
            atomic=self.atomic,
            follow=self.follow if limits.shared else None,
        )
        self._streams = threading.BoundedSemaphore(limits.streams)
        self.partials = Partials(spool_directory)
        self._spool_directory = spool_directory
        self._allowances: dict[tuple[str, tuple[int, int]], Allowance] = {}  # guarded by _following
        self._following = threading.Lock()  # one thread at a time compares the partials with the directory
        for path, size, touched, file in self.partials.load():
            self._revive(path, size, touched, file)

    def close(self) -> None:
        """Give up what is still being written; partials stay for a later process. Idempotent."""
        for draft in self.overlay.all():
            with contextlib.suppress(OSError, RefusedError):  # the disk is full: it cannot be kept
                if draft.state is State.OPEN and draft.keep():
                    self.partials.save(draft)
            if draft.state is State.PARTIAL:
                draft.spool.release()
            self.let_go(draft, "the server is ending")

    # -- reading and writing

    def open_for_reading(self, path: str, session: object) -> Content | Draft:
        """Open what is at `path`: a committed version, or what this session itself is writing there."""
        self.overlay.wait_settled(path)
        draft = self.looking.current(path)
        if draft is not None and draft.state is State.OPEN and draft.owner is session:
            return draft
        try:
            return self.open_committed(path)
        except errors.ResourceNotFound:
            if draft is None:
                raise
            if draft.state is State.PARTIAL:
                return draft
            raise RefusedError("is still being written by another session") from None

    def open_committed(self, path: str) -> Content:
        """Open the committed version at `path`."""
        return Content(self.filesystem, path, local=self.local)

    def open_for_writing(
        self, path: str, flags: int, session: object, handle: object, *, is_new: bool = False
    ) -> Draft:
        """Return the draft that `handle` of `session` may write: a new one, or one that goes on.

        `is_new`: it is known that nothing is at `path` and that there can be something.
        """
        self.filesystem.validatepath(path)
        if self._check_writable is not None:
            self._check_writable(path)
        if is_new:
            self._sweep()
            return self._new(path, session, handle, exclusive=bool(flags & OpenFlag.EXCL), fresh=True)
        with self.overlay.opening(path):
            self._sweep()
            while True:
                self.follow(at_once=True)
                draft = self._open_for_writing(path, flags, session, handle)
                if draft is not None:
                    return draft

    def _open_for_writing(self, path: str, flags: int, session: object, handle: object) -> Draft | None:
        """Do it, or return None if a draft ended just then."""
        draft = self.looking.current(path)
        if flags & OpenFlag.CREAT and flags & OpenFlag.EXCL:
            self._refuse_existing(path, draft)
            return self._new(path, session, handle, exclusive=True, fresh=True)
        if flags & OpenFlag.TRUNC:
            fresh = self._is_absent(path, draft, create=bool(flags & OpenFlag.CREAT))
            return self._new(path, session, handle, fresh=fresh)
        if draft is not None and draft.state is State.OPEN:
            return draft if self._join(draft, session, handle) else None
        try:
            base = self.open_committed(path)
        except errors.ResourceNotFound:
            if draft is not None and draft.state is State.PARTIAL:
                return draft if self._join(draft, session, handle) else None
            if not flags & OpenFlag.CREAT:
                raise
            self.check_parent(path)
            return self._new(path, session, handle, fresh=True)
        self.drop_partials(path)
        return self._new(path, session, handle, base=base)

    def open_new(self, path: str, session: object, handle: object) -> Draft:
        """Return the draft of a new file, which replaces nothing that is committed, now or when it is closed."""
        self.filesystem.validatepath(path)
        with self.overlay.opening(path):
            self._sweep()
            self.follow(at_once=True)
            self._refuse_existing(path, None)
            return self._new(path, session, handle, exclusive=True, fresh=True)

    def allowance(self, root: str, quota: tuple[int, int]) -> Allowance | None:
        """Return the quota of bytes and files of a directory, the same for all its sessions; None without one."""
        if not any(quota):
            return None
        with self._following:
            known = self._allowances.get((root, quota))
            if known is None:
                known = Allowance(self.filesystem, root, max_bytes=quota[0], max_files=quota[1])
                self._allowances[root, quota] = known
            return known

    def drop(self, draft: Draft, handle: object) -> None:
        """Let go of a draft that its handle gives up, if it still has it; nothing of it is kept."""
        if handle in draft.handles and draft.leave(handle):
            self.let_go(draft, "the file could not be stored")

    def commit(self, draft: Draft, handle: object) -> None:
        """Store what `handle` has written and let go of the draft, whatever happens."""
        try:
            while True:
                path = draft.path
                with self.overlay.turn(path):
                    if draft.path != path:
                        continue  # renamed while this waited
                    is_changed = draft.dirty
                    draft.commit()
                    if not is_changed and draft.modified is not None:
                        self._set_committed_time(path, draft.modified)
                    self.partials.forget(draft)
                    if draft.leave(handle):
                        draft.is_stored = True
                        self.let_go(draft, "the file was closed")
                    return
        except BaseException:
            if draft.leave(handle):
                self.let_go(draft, "the file could not be stored")
            raise

    def abandon(self, draft: Draft, handle: object) -> None:
        """Let go of a draft whose handle will not be closed by its client: keep what can be continued."""
        if handle not in draft.handles or not draft.leave(handle):
            return
        kept = False
        with contextlib.suppress(OSError, RefusedError):
            kept = draft.keep()
        if not kept:
            self.let_go(draft, "the upload was cut off")
            return
        for other in self.overlay.at(draft.path):
            if other is not draft and other.state is State.PARTIAL:
                self.let_go(other, "replaced by a later upload")
        self.partials.save(draft)
        if self.limits.shared:
            draft.share()

    def make_room(self) -> bool:
        """Drop the oldest partial; tell whether there was one."""
        oldest = self.overlay.partials()[:1]
        for draft in oldest:
            self.let_go(draft, "its space was needed")
        return bool(oldest)

    def truncate(self, path: str, size: int, session: object) -> None:
        """Set the size of the file at `path`."""
        draft = self.looking.current(path)
        if draft is not None and draft.state is State.OPEN:
            draft.truncate(size)
            return
        there = self.looking.stat(path)
        if there.size == size and there.permissions != attributes.DIRECTORY_MODE:
            return
        if size and draft is not None and not self.filesystem.exists(path):
            raise RefusedError("its upload was cut off and is not finished")
        handle = object()
        flags = OpenFlag.WRITE if size else OpenFlag.WRITE | OpenFlag.TRUNC
        draft = self.open_for_writing(path, flags, session, handle)
        try:
            draft.truncate(size)
        except BaseException:
            self.abandon(draft, handle)
            raise
        self.commit(draft, handle)

    def set_modified(self, path: str, modified: float) -> None:
        """Set the time of the file at `path` where the filesystem can; else only check that it is there."""
        draft = self.looking.current(path)
        if draft is not None and draft.state is State.OPEN:
            draft.modified = modified
            return
        if draft is None:
            self._set_committed_time(path, modified)
            return
        self.looking.stat(path)

    def copy_onto(self, draft: Draft, source: str, version: Content | Draft) -> None:
        """Make an empty draft a copy of the committed file at `source`, which must still be at `version`."""
        content = self.open_committed(source)
        if not isinstance(version, Content) or not content.is_same(version) or not draft.become_copy(content, source):
            content.close()
            raise RefusedError("the file was changed by someone else meanwhile")

    # -- within

    def _set_committed_time(self, path: str, modified: float) -> None:
        raw = self.filesystem.getinfo(path, ["details"]).raw
        if "modified" in (raw.get("details") or {}).get("_write", ()):
            self.filesystem.setinfo(path, {"details": {"modified": modified}})

    def fold(self, path: str) -> str:
        """Return what is equal for all spellings of a path."""
        return fold_path(path) if self.case_insensitive else path

    def follow(self, *, at_once: bool = False) -> None:
        """Know the partials that other processes have left, and forget those that they go on with."""
        if not self.limits.shared or not self.partials.may_differ(at_once=at_once):
            return
        with self._following:
            found = {file: (path, size, touched) for path, size, touched, file in self.partials.load()}
            for draft in self.overlay.partials():
                path, size, _ = found.get(draft.spool.path or Path(), ("", -1, 0.0))
                if (path, size) == (draft.path, draft.size):
                    del found[draft.spool.path or Path()]
                elif draft.yield_up():
                    self.overlay.remove(draft)
            for file, (path, size, touched) in found.items():
                self._revive(path, size, touched, file)

    def _new(
        self,
        path: str,
        session: object,
        handle: object,
        *,
        base: Content | None = None,
        exclusive: bool = False,
        fresh: bool = False,
    ) -> Draft:
        spool = Spool(self._spool_directory, self.quota, memory_limit=self.limits.spool_memory)
        draft = self._draft(path, spool, base=base, exclusive=exclusive, fresh=fresh)
        draft.owner = session
        draft.write_back = self._writes_back(session)
        draft.handles.add(handle)
        if base is None:
            self.drop_partials(path)
        self.overlay.add(draft)
        return draft

    def _join(self, draft: Draft, session: object, handle: object) -> bool:
        draft.write_back = self._writes_back(session)
        joined = draft.join(session, handle)
        if not joined and draft.state is State.PARTIAL:  # another process has just taken it
            self.partials.doubt()
        return joined

    def _writes_back(self, session: object) -> bool:
        """Tell whether CLOSE is to be answered when the file is on local disk."""
        return self.has_journal and bool(getattr(session, "write_back", False))

    def note_again(self, draft: Draft) -> None:
        """Note the new path of a draft that has a note, unless another process has taken it over."""
        if draft.note.size and draft.spool.reclaim():
            self.partials.save(draft, draft.note.grows)
            if self.limits.shared:
                draft.share()

    def let_go(self, draft: Draft, reason: str) -> None:
        if draft.state is State.PARTIAL and not draft.spool.reclaim():
            draft.spool.release()  # another process goes on with it, or has dropped it
        self.partials.forget(draft)
        draft.end(reason)
        self.overlay.remove(draft)

    def drop_partials(self, path: str) -> None:
        for draft in self.overlay.at(path):
            if draft.state is State.PARTIAL:
                self.let_go(draft, "replaced")

    def _sweep(self) -> None:
        for draft in self.overlay.partials(self.limits.partial_seconds):
            self.let_go(draft, "it was too old")

    def _revive(self, path: str, size: int, touched: float, file: Path) -> None:
        spool = Spool(self._spool_directory, self.quota, memory_limit=self.limits.spool_memory)
        try:
            spool.adopt(file, [(0, size)])
        except BlockingIOError:  # another process was quicker
            return
        except DamagedError:
            file.unlink(missing_ok=True)
            return
        except OSError:  # out of descriptors, perhaps: that says nothing of the file
            return
        except SpoolFullError:
            if not self.limits.shared or touched < time.time() - self.limits.partial_seconds:
                file.unlink(missing_ok=True)  # else another process may have the room for it
            return
        draft = self._draft(path, spool, fresh=True)
        draft.size, draft.touched, draft.state = size, touched, State.PARTIAL
        draft.forwarding.resume = self.partials.checkpoint(file)
        self.partials.save(draft)  # before the file is cut, from whose size its note may have told how much there is
        spool.truncate(size)
        if self.limits.shared:
            draft.share()
        self.overlay.add(draft)

    def _draft(
        self, path: str, spool: Spool, *, base: Content | None = None, exclusive: bool = False, fresh: bool = False
    ) -> Draft:
        return Draft(
            self.filesystem,
            path,
            spool,
            base=base,
            exclusive=exclusive,
            fresh=fresh,
            atomic=self.atomic,
            may_stream=lambda: self._streams.acquire(blocking=False),
            stream_ended=self._streams.release,
            save_note=self.partials.save,
        )

    def _refuse_existing(self, path: str, draft: Draft | None) -> None:
        if draft is not None or not self._is_absent(path, None, create=True, refuse=True):
            raise RefusedError(_EXISTS)

    def _is_absent(self, path: str, draft: Draft | None, *, create: bool, refuse: bool = False) -> bool:
        """Tell whether no committed file is at `path`; refuse directories, and new files without a parent."""
        try:
            info = self.filesystem.getinfo(path)
        except errors.ResourceNotFound:
            if draft is None:
                if not create:
                    raise
                self.check_parent(path)
            return True
        if attributes.is_directory(info) and not refuse:
            raise errors.FileExpected(path)
        return False

    def check_parent(self, path: str) -> None:
        parent = dirname(path)
        if parent == "/":
            return
        try:
            info = self.filesystem.getinfo(parent)
        except errors.ResourceNotFound:
            raise RefusedError("the parent directory does not exist", Status.NO_SUCH_FILE) from None
        if not attributes.is_directory(info):
            raise RefusedError("its parent is not a directory", Status.NO_SUCH_FILE)
