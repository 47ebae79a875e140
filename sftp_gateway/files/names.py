"""`Names`: makes, removes and renames what is in a store, files that are being written included."""

from __future__ import annotations

import errno
import os
import secrets
from typing import Final

from fs import errors
from fs.base import FS
from fs.error_tools import convert_os_errors
from fs.path import basename, dirname, join
from fs.wrapfs import WrapFS

from sftp_gateway.files.allowance import Allowance, counting
from sftp_gateway.files.content import Fingerprint, fingerprint
from sftp_gateway.files.draft import Draft, State
from sftp_gateway.files.folding import moved
from sftp_gateway.files.store import Store
from sftp_gateway.sftp import attributes
from sftp_gateway.sftp.packets import Status
from sftp_gateway.sftp.status import EXISTS, RefusedError

_OF_TARGET: Final = "the target's directory"
_COPYING: Final = (FS.movedir, WrapFS.movedir)


class Names:
    """The requests that change names, in the filesystem's own paths. Owned by a `TreeView`; has no state of its own.

    They act for `session`, and count for the quota `allowance`. All raise `fs.errors`, `RefusedError`, OSError.
    """

    def __init__(self, store: Store, allowance: Allowance | None = None, session: object = None) -> None:
        self._store = store
        self._session = session
        self._allowance = allowance

    def mkdir(self, path: str, *, write_back: bool = False) -> None:
        """Make a directory; with `write_back` the journal may deliver it later."""
        self._store.filesystem.validatepath(path)
        with self._store.overlay.opening(path):
            if self._store.overlay.top(path) is not None:
                raise RefusedError(EXISTS)
            self._check_parent(path)
            try:
                if write_back:
                    self._store.filesystem.makedir_later(path)
                else:
                    self._store.filesystem.makedir(path)
            except errors.ResourceNotFound:
                raise RefusedError("the parent directory does not exist", Status.NO_SUCH_FILE) from None

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        with self._store.overlay.turn(path, names=True):
            self._remove_empty(path)

    def remove(self, path: str) -> None:
        """Remove a file, and what is being written in its place."""
        self._store.drafts.follow(at_once=True)
        with self._store.overlay.turn(path, names=True), counting(self._allowance, path):
            drafts = self._store.overlay.at(path)
            self._check_may_change(path)
            try:
                self._store.filesystem.remove(path)
                self._store.note_left(path, None)
            except errors.ResourceNotFound:
                if not drafts:
                    raise
            for draft in drafts:
                self._store.drafts.let_go(draft, "the file was removed while it was being written")

    def rename(self, source: str, target: str, *, replace: bool) -> None:
        """Give a file or a directory another path; a target that exists is replaced or refused."""
        self._store.filesystem.validatepath(target)
        with self._store.overlay.turn(source, target, names=True), counting(self._allowance, source, target):
            self._check_may_change(source)
            replace = replace and not self._store.is_theirs(target, self._session)
            draft = self._store.looking.current(source)
            if draft is not None and draft.state is State.PARTIAL and not self._store.filesystem.exists(source):
                raise RefusedError("its upload was cut off and is not finished")
            same = self._store.fold(source) == self._store.fold(target)
            if self._store.fold(target).startswith(self._store.fold(source) + "/"):
                self._store.looking.stat(source)
                raise RefusedError("a directory cannot be put into itself")
            if same and source == target and replace:
                self._store.looking.stat(source)
                return
            if any(each.is_open and each.spool.dropped for each in self._drafts(source)):
                raise RefusedError("its upload is under way, larger than the gateway's space: rename it afterwards")
            if not same or source == target:
                self._refuse_target(source, target, replace=replace)
            is_new = draft is not None and draft.state is State.OPEN and not self._store.filesystem.exists(source)
            bases = {} if is_new else self._bases(source)
            if is_new:
                self._store.check_parent(target, _OF_TARGET)
            else:
                self._check_parent(target, _OF_TARGET)
                if same and source != target and not self._store.atomic:
                    self._change_case(source, target)
                else:
                    self._move(source, target, replace=replace or same)
                self._store.note_left(source, None)
                self._store.note_left(target, self._session)
            if not same:
                for ended in self._store.overlay.at(target):
                    self._store.drafts.let_go(ended, "the file was replaced while it was being written")
            if is_new:
                fresh = not replace or not self._store.filesystem.exists(target)
                self._retarget(source, target, exclusive=not replace, fresh=fresh)
            else:
                self._retarget(source, target)
                self._rebase(bases)

    def _check_may_change(self, path: str) -> None:
        if self._store.is_theirs(path, self._session):
            raise RefusedError("this user may not change what is there", Status.PERMISSION_DENIED)

    def _refuse_target(self, source: str, target: str, *, replace: bool) -> None:
        """Refuse a rename onto something that exists, unless it is to be replaced and can be."""
        try:
            there = self._store.looking.stat(target)
        except errors.ResourceNotFound:
            return
        if not replace:
            self._store.looking.stat(source)  # first: told that the target is in the way, clients remove it
            raise RefusedError(f"the target {basename(target)} exists already")
        if attributes.are_of_directory(there):
            if not attributes.are_of_directory(self._store.looking.stat(source)):
                raise RefusedError("the target is a directory")
            self._remove_empty(target)
        elif attributes.are_of_directory(self._store.looking.stat(source)):
            raise RefusedError("the target is not a directory")

    def _remove_empty(self, path: str) -> None:
        if self._store.overlay.below(path):
            raise errors.DirectoryNotEmpty(path)
        try:
            self._store.filesystem.removedir(path)
        except errors.ResourceNotFound:
            self._store.looking.check_no_draft(path)
            raise

    def _check_parent(self, path: str, called: str = "the parent directory") -> None:
        """Check what some filesystems do not: MemoryFS puts files into files."""
        if self._store.local or not self._store.atomic:
            self._store.check_parent(path, called)

    def _move(self, source: str, target: str, *, replace: bool) -> None:
        try:
            if attributes.is_directory(self._store.filesystem.getinfo(source)):
                self._move_directory(source, target)
            else:
                self._store.filesystem.move(source, target, overwrite=replace)
        except errors.ResourceNotFound:
            if self._store.filesystem.exists(source):
                raise RefusedError(f"{_OF_TARGET} does not exist", Status.NO_SUCH_FILE) from None
            raise

    def _change_case(self, source: str, target: str) -> None:
        """Rename by way of a third name: filesystems that rename by copying would empty and then remove the file."""
        between = join(dirname(source), f"renamed-{secrets.token_hex(4)}")
        self._move(source, between, replace=False)
        try:
            self._move(between, target, replace=False)
        except BaseException:
            try:
                self._move(between, source, replace=False)
            except (errors.FSError, OSError):
                raise RefusedError(
                    f"could not get its new name, nor its old one back: it is {basename(between)}"
                ) from None
            raise

    def _move_directory(self, source: str, target: str) -> None:
        self._store.forget_left_below(source)
        self._store.forget_left_below(target)
        if self._rename_on_disk(source, target):
            return
        if getattr(type(self._store.filesystem), "movedir", None) in _COPYING and not self._store.atomic:
            self._refuse_what_is_elsewhere(source)
        try:
            self._store.filesystem.movedir(source, target, create=True)
        except errors.ResourceReadOnly:  # PyFilesystem takes a filesystem for read-only unless its meta denies that
            self._move_piecemeal(source, target)

    def _rename_on_disk(self, source: str, target: str) -> bool:
        """Rename a directory on a local disk, which `movedir` would copy file by file; return whether that worked."""
        filesystem = self._store.filesystem
        if not (filesystem.getmeta().get("supports_rename") and filesystem.hassyspath(source)):
            return False
        with convert_os_errors("rename", source, directory=True):
            try:
                os.rename(filesystem.getsyspath(source), filesystem.getsyspath(target))
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                return False
        return True

    def _refuse_what_is_elsewhere(self, path: str) -> None:
        """Refuse a tree with symbolic links or mount points: to move it by copying would empty what they lead to."""
        filesystem = self._store.filesystem
        directories = [path]
        while directories:
            path = directories.pop()
            itself = filesystem.getinfo(path, ["link"])
            if itself.name == "":  # the root of another filesystem
                raise RefusedError("another filesystem begins here: it cannot be moved")
            found = list(filesystem.scandir(path, ["link"]))
            if any(info.get("link", "target") for info in (itself, *found)):
                raise RefusedError("a symbolic link is in it: it cannot be moved as a whole")
            directories += [join(path, info.name) for info in found if info.is_dir]

    def _move_piecemeal(self, source: str, target: str) -> None:
        """Move a directory entry by entry; raises `ResourceReadOnly` if the filesystem is read-only."""
        self._store.filesystem.makedir(target, recreate=True)
        for name in self._store.filesystem.listdir(source):
            path = join(source, name)
            if self._store.filesystem.isdir(path):
                self._move_piecemeal(path, join(target, name))
            else:
                self._store.filesystem.move(path, join(target, name))
        self._store.filesystem.removedir(source)

    def _retarget(self, source: str, target: str, *, exclusive: bool | None = None, fresh: bool | None = None) -> None:
        for draft in self._store.overlay.at(source):
            self._store.overlay.move(draft, target, exclusive=exclusive, fresh=fresh)
            self._store.drafts.note_again(draft)
        for draft in self._store.overlay.below(source):
            self._store.overlay.move(draft, moved(draft.path, source, target))
            self._store.drafts.note_again(draft)

    def _bases(self, source: str) -> dict[Draft, Fingerprint]:
        """Return the drafts at or below `source` whose base is still what is committed, with its fingerprint."""
        found = {}
        for draft in self._drafts(source):
            base = draft.base
            if base.version is not None and self._version(draft.path) != base.version:
                continue
            if base.version is not None or base.fingerprint is not None:
                now = fingerprint(self._store.filesystem, draft.path)
                if base.fingerprint in (None, now):
                    found[draft] = now
        return found

    def _drafts(self, path: str) -> list[Draft]:
        """Return the drafts at or below `path`."""
        return self._store.overlay.at(path) + self._store.overlay.below(path)

    def _rebase(self, bases: dict[Draft, Fingerprint]) -> None:
        """Let drafts still replace what they were written over, although a rename has made that a new version."""
        for draft, known in bases.items():
            now = fingerprint(self._store.filesystem, draft.path)
            if draft.base.version is None and now[0] == known[0]:  # a copy has another time
                draft.base.know_again(now)
            elif now == known:
                draft.base.version = self._version(draft.path)

    def _version(self, path: str) -> str | None:
        content = self._store.open_committed(path)
        content.close()
        return content.version
