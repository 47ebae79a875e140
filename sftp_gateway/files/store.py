"""`Store`: a filesystem together with the files that are being written to it, in the filesystem's own paths."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fs import errors
from fs.base import FS
from fs.path import dirname

from sftp_gateway.files.allowance import Allowance, Allowances, counting
from sftp_gateway.files.content import Content, Fingerprint, fingerprint_of
from sftp_gateway.files.draft import Draft, State
from sftp_gateway.files.drafts import Drafts, TreeLimits
from sftp_gateway.files.folding import fold_path
from sftp_gateway.files.leavings import Leavings
from sftp_gateway.files.looking import Looking
from sftp_gateway.files.overlay import Overlay
from sftp_gateway.files.readers import Reader
from sftp_gateway.files.spool import Quota
from sftp_gateway.sftp import attributes
from sftp_gateway.sftp.packets import OpenFlag, Status
from sftp_gateway.sftp.status import EXISTS, NotAtOnceError, RefusedError

__all__ = ["Store", "TreeLimits"]

_CREAT_EXCL = OpenFlag.CREAT | OpenFlag.EXCL
_CONTESTED = "other sessions take over its upload again and again"
_TRIES, _PAUSE_SECONDS = 100, 0.01  # to open what ends just then, or is gone on with elsewhere


class Store:
    """What all sessions of an account share. Owned by a `Tree`. Thread-safe; no lock is held over the filesystem.

    Every method raises `fs.errors`, `RefusedError` and OSError.
    """

    def __init__(self, filesystem: FS, *, spool_directory: Path, limits: TreeLimits) -> None:
        self.filesystem: Any = filesystem
        self.limits = limits
        meta: Mapping[str, Any] = filesystem.getmeta()
        self.atomic = bool(meta.get("atomic_writes"))
        self.local = meta.get("network") is False  # its calls may be made in threads that must not wait
        self.read_only = bool(meta.get("read_only"))
        self.case_insensitive = bool(meta.get("case_insensitive"))
        self.resumable = bool(meta.get("resumable_uploads"))
        self.has_journal = bool(meta.get("write_back"))
        self.at_once_bytes = int(meta.get("at_once_bytes", 0))  # the largest file that a journal takes with one sync
        self._check_writable = getattr(filesystem, "check_writable", None)
        self.quota = Quota(limits.spool_quota)
        self.allowances = Allowances(filesystem)
        self._left: Leavings[object] = Leavings()  # by folded path: the mark of the view that wrote it last
        self.overlay = Overlay(self.fold, wait_seconds=limits.commit_wait_seconds)
        self.drafts = Drafts(
            filesystem, self.overlay, self.quota, atomic=self.atomic, spool_directory=spool_directory, limits=limits
        )
        self.looking = Looking(
            filesystem,
            self.overlay,
            local=self.local,
            atomic=self.atomic,
            follow=self.drafts.follow if limits.shared else None,
        )

    def close(self) -> None:
        """End all drafts; what can be continued stays on disk for a later process. Idempotent."""
        self.drafts.close()

    # -- reading and writing

    def open_for_reading(self, path: str, session: object, reader: Reader) -> Content | Draft:
        """Open what is at `path`: a committed version, or what this session itself is writing there for `reader`."""
        for _ in range(_TRIES):
            self.overlay.wait_settled(path)
            draft = self.looking.current(path)
            if draft is None or draft.state is not State.OPEN or draft.owner is not session:
                try:
                    return self.open_committed(path)
                except errors.ResourceNotFound:
                    if draft is None:
                        raise
                    if draft.state is State.OPEN:
                        raise RefusedError("is still being written by another session") from None
            if draft.readers.add(reader):
                return draft
            time.sleep(_PAUSE_SECONDS)  # it ended just now
        raise RefusedError(_CONTESTED)

    def open_committed(self, path: str) -> Content:
        """Open the committed version at `path`."""
        return Content(self.filesystem, path, local=self.local, quota=self.quota)

    def open_for_writing(
        self,
        path: str,
        flags: int,
        session: object,
        handle: object,
        *,
        is_new: bool = False,
        replaces: bool = True,
        allowance: Allowance | None = None,
    ) -> Draft:
        """Return the draft that `handle` of `session` may write: a new one, or one that is continued.

        `is_new`: it is known that nothing is at `path`, and that a file may be there. Without `replaces` it is always a
        new file, beside what others write there, and replaces nothing that is committed, now or when it is closed.
        `allowance` is the quota that its commit counts for.
        """
        self.filesystem.validatepath(path)
        if self._check_writable is not None:
            self._check_writable(path)
        exclusive = not replaces or flags & _CREAT_EXCL == _CREAT_EXCL
        if is_new:
            anew = exclusive or bool(flags & OpenFlag.TRUNC)
            return self.drafts.new(path, session, handle, exclusive=exclusive, fresh=True, anew=anew)
        with self.overlay.opening(path):
            room = allowance.room(path) if allowance is not None else None
            for _ in range(_TRIES):
                self.drafts.follow(at_once=True)
                if exclusive:
                    self._refuse_existing(path, self.looking.current(path) if replaces else None)
                    draft: Draft | None = self.drafts.new(path, session, handle, exclusive=True, fresh=True)
                else:
                    draft = self._open_for_writing(path, flags, session, handle)
                if draft is not None:
                    draft.bounds.room = room
                    return draft
                self.overlay.wait_settled(path)  # it may be in the middle of its commit
                time.sleep(_PAUSE_SECONDS)
            raise RefusedError(_CONTESTED)

    def _open_for_writing(self, path: str, flags: int, session: object, handle: object) -> Draft | None:
        """Do it; None if the draft at `path` has just ended, so that it is to be tried again."""
        draft = self.looking.current(path)
        if flags & OpenFlag.TRUNC:
            there = self._find(path, draft, create=bool(flags & OpenFlag.CREAT))
            new = self.drafts.new(path, session, handle, fresh=there is None)
            new.replaces = there
            return new
        if draft is not None and draft.state is State.OPEN:
            return draft if self.drafts.join(draft, session, handle) else None
        try:
            base = self.open_committed(path)
        except errors.ResourceNotFound:
            if draft is not None and draft.state is State.PARTIAL:
                return draft if self.drafts.join(draft, session, handle) else None
            if not flags & OpenFlag.CREAT:
                raise
            self.check_parent(path)
            return self.drafts.new(path, session, handle, fresh=True, anew=False)
        self.drafts.drop_partials(path)
        return self.drafts.new(path, session, handle, base=base, anew=False)

    def commit(
        self, draft: Draft, handle: object, allowance: Allowance | None = None, *, at_once: bool = False
    ) -> None:
        """Commit what `handle` has written, if `allowance` allows it; the handle leaves the draft, whatever happens.

        With `at_once` only if nothing but the local disk has to be waited for: otherwise raises `NotAtOnceError`, and
        nothing has changed.
        """
        if at_once and (allowance is not None or not draft.may_end_on_disk(self.at_once_bytes)):
            raise NotAtOnceError
        try:
            while True:
                path = draft.path
                with self.overlay.turn(path, wait=not at_once):
                    if draft.path != path:
                        continue  # renamed while this waited
                    is_changed, size = draft.dirty, draft.size
                    if is_changed and not draft.exclusive:
                        self._check_may_replace(path, draft.owner)
                    with counting(allowance if is_changed else None, path, size=size):
                        for other in self.overlay.at(path) if is_changed else ():
                            other.bounds.room = None  # it now replaces this: its quota is checked again at its CLOSE
                        draft.commit(handle, size, at_once=at_once)
                    if is_changed:
                        self.drafts.stored(path)
                        self.note_left(path, draft.owner)
                    if not is_changed and (modified := draft.modified) is not None:
                        draft.base.note_time(self.filesystem, path, partial(self._set_committed_time, path, modified))
                    if draft.leave(handle):
                        committed = partial(self._open_committed_as, draft, path, size)
                        draft.readers.settle(committed if is_changed else draft.base.share)
                        self.drafts.let_go(draft, "the file was closed")
                    else:
                        draft.note_down()
                    return
        except NotAtOnceError:
            raise
        except BaseException:
            if draft.leave(handle):
                self.drafts.fail(draft, "the file could not be stored")
            raise

    def abandon(self, draft: Draft, handle: object) -> None:
        """Let go of a draft whose client is gone without a CLOSE: keep what can be continued."""
        if handle in draft.handles and draft.leave(handle):
            self.drafts.cut_off(draft)

    def truncate(self, path: str, size: int, session: object, allowance: Allowance | None = None) -> None:
        """Set the size of the file at `path`, as far as `allowance` allows."""
        with self.overlay.turn(path):  # not during its commit, which would miss this
            draft = self.looking.current(path)
            if draft is not None and draft.state is State.OPEN:
                draft.truncate(size)
                return
        there = self.looking.stat(path)
        if there.size == size and not attributes.are_of_directory(there):
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
        self.commit(draft, handle, allowance)

    def set_modified(self, path: str, modified: float) -> None:
        """Set the time of the file at `path` if the filesystem can; otherwise only check that it is there."""
        draft = self.looking.current(path)
        if draft is not None and draft.state is State.OPEN:
            draft.modified = modified
            return
        if draft is None:
            self._set_committed_time(path, modified)
            return
        self.looking.stat(path)

    def copy_onto(self, draft: Draft, source: str, version: Content | Draft) -> None:
        """Make an empty draft a copy of the committed file at `source`, which must still be the one in `version`."""
        content, is_taken = self.open_committed(source), False
        try:
            is_same = isinstance(version, Content) and content.is_same(version)
            is_taken = is_same and draft.become_copy(content, source)
        finally:
            if not is_taken:
                content.close()
        if not is_taken:
            raise RefusedError("the file was changed by someone else meanwhile")

    # -- who has written what, for drop boxes

    def note_left(self, path: str, session: object) -> None:
        """Note who has written what is at a path (None: nobody that is known). In the path's turn."""
        self._left.note(self.fold(path), getattr(session, "mark", None))

    def forget_left_below(self, directory: str) -> None:
        """Forget who has written what is in a directory."""
        self._left.forget_below(self.fold(directory))

    def is_left_by(self, mark: object, path: str) -> bool:
        """Tell whether the view with this `mark` has written what is at a path."""
        return self._left.last(self.fold(path)) is mark

    def is_theirs(self, path: str, session: object) -> bool:
        """Tell whether something is committed at a path that `session` may not replace."""
        may_replace = getattr(session, "may_replace", None)
        return may_replace is not None and not may_replace(path) and self.filesystem.exists(path)

    # -- within

    def _open_committed_as(self, draft: Draft, path: str, size: int) -> Content | None:
        """Open the file at `path`, if it can be the `size` bytes that a draft has just committed."""
        content = self.open_committed(path)
        if draft.may_be(size, content):
            return content
        content.close()
        return None

    def _check_may_replace(self, path: str, session: object) -> None:
        if self.is_theirs(path, session):
            raise RefusedError(EXISTS)

    def _set_committed_time(self, path: str, modified: float) -> None:
        raw = self.filesystem.getinfo(path, ["details"]).raw
        if "modified" in (raw.get("details") or {}).get("_write", ()):
            self.filesystem.setinfo(path, {"details": {"modified": modified}})

    def fold(self, path: str) -> str:
        """Return what is equal for all spellings of a path."""
        return fold_path(path) if self.case_insensitive else path

    def _refuse_existing(self, path: str, draft: Draft | None) -> None:
        if draft is not None or self._find(path, None, create=True, refuse=True) is not None:
            raise RefusedError(EXISTS)

    def _find(self, path: str, draft: Draft | None, *, create: bool, refuse: bool = False) -> Fingerprint | None:
        """Return the fingerprint of the file at `path`; refuse directories, and new files without a parent."""
        try:
            info = self.filesystem.getinfo(path, ["details"])
        except errors.ResourceNotFound:
            if draft is None:
                if not create:
                    raise
                self.check_parent(path)
            return None
        if attributes.is_directory(info) and not refuse:
            raise errors.FileExpected(path)
        return fingerprint_of(info)

    def check_parent(self, path: str, called: str = "the parent directory") -> None:
        parent = dirname(path)
        if parent == "/":
            return
        try:
            info = self.filesystem.getinfo(parent)
        except errors.ResourceNotFound:
            raise RefusedError(f"{called} does not exist", Status.NO_SUCH_FILE) from None
        if not attributes.is_directory(info):
            raise RefusedError("its parent is not a directory", Status.NO_SUCH_FILE)
