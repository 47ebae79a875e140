"""`Tree`: one shared filesystem and the files being written to it; `TreeView`: what one session sees of it."""

from __future__ import annotations

import contextlib
import enum
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from fs import errors
from fs.base import FS

from sftp_gateway.files.confinement import Confinement
from sftp_gateway.files.directory_handle import DirectoryHandle
from sftp_gateway.files.handles import Handle, ReadHandle, WriteHandle
from sftp_gateway.files.names import Names
from sftp_gateway.files.store import Store, TreeLimits
from sftp_gateway.sftp import attributes
from sftp_gateway.sftp.packets import Attributes, OpenFlag, Status
from sftp_gateway.sftp.status import NotAtOnceError, RefusedError

__all__ = ["Rights", "Tree", "TreeLimits", "TreeView"]

_WRITING = OpenFlag.WRITE | OpenFlag.APPEND | OpenFlag.CREAT | OpenFlag.TRUNC
_REMEMBERED = 1000  # uploads of a session that failed
_READ, _CREAT = int(OpenFlag.READ), int(OpenFlag.CREAT)


class Rights(enum.Enum):
    """What a session may do in its view."""

    READ_WRITE = "read-write"
    READ_ONLY = "read-only"
    WRITE_ONLY = "write-only"  # a drop box: only directories and what this session itself has sent are there


class Tree:
    """One shared filesystem, its open writes and its partial uploads; one for all sessions of an account. Thread-safe.

    The tree does not own `filesystem`: whoever opened it closes it, after `close()`. `spool_directory` (made with mode
    0700 when needed) must be used for this filesystem alone. Partial uploads that an earlier process left there can be
    continued: give each account the same directory again after a restart.
    """

    def __init__(self, filesystem: FS, *, spool_directory: Path, limits: TreeLimits | None = None) -> None:
        self.store = Store(filesystem, spool_directory=spool_directory, limits=limits or TreeLimits())

    def view(
        self,
        root: str = "/",
        *,
        rights: Rights = Rights.READ_WRITE,
        write_back: bool = False,
        quota: tuple[int, int] = (0, 0),
        user: str = "",
    ) -> TreeView:
        """Return what one session sees: the directory `root` as "/"; no client path leads out of it.

        `quota` is the most that it may hold, in bytes and files (0: no limit). With `write_back`, and if the filesystem
        has a journal, files count as committed when they are on local disk. `user` is who has signed in: only the same
        user resumes an upload.
        """
        return TreeView(self.store, root, rights, write_back=write_back, quota=quota, user=user)

    def close(self) -> None:
        """End what is still being written; what can be continued stays on disk. Idempotent."""
        self.store.close()


class TreeView:
    """What one session sees of a tree; made by `Tree.view`, one for each session. Thread-safe.

    Its methods take the client's paths, apply the rights, and raise `fs.errors`, `RefusedError` and OSError.
    """

    def __init__(
        self,
        store: Store,
        root: str,
        rights: Rights,
        *,
        write_back: bool = False,
        quota: tuple[int, int] = (0, 0),
        user: str = "",
    ) -> None:
        self.store = store
        self.user = user
        self._looking = store.looking
        self.write_back = write_back and store.has_journal
        self.rights = rights
        self._root = "" if (root := normal(root)) == "/" else root
        self._confinement = Confinement(store.filesystem, self._root)
        self._is_viewed = getattr(store.filesystem, "is_viewed", None) if rights is Rights.WRITE_ONLY else None
        self._allowance = store.allowances.find(self._root, quota)
        self.mark = object()  # by which it is known what this view has written
        self._names = Names(store, self._allowance, self)
        self._lost: deque[str] = deque(maxlen=_REMEMBERED)  # paths whose upload failed

    # -- paths

    def inner(self, path: str) -> str:
        """Return the filesystem's path for a client's path."""
        path = normal(path)
        inner = self._root + path if path != "/" else self._root or "/"
        if self._confinement.is_needed:
            self._confinement.check(inner)
        if self._is_viewed is not None and self._is_viewed(inner):
            raise errors.ResourceNotFound(path)
        return inner

    @property
    def names_are_bytes(self) -> bool:
        """Whether names are those of a local disk, which need not be UTF-8; the others are held as Python does."""
        return self._confinement.is_needed

    @property
    def acknowledges_at_once(self) -> bool:
        """Whether files may be committed where nothing waits but for the local disk."""
        return self.write_back and self.rights is Rights.READ_WRITE

    def is_settled(self, path: str) -> bool:
        """Tell whether nothing at or above a client's path is being changed, so that a request need not wait."""
        overlay = self.store.overlay
        return overlay.is_quiet or overlay.is_settled(self.inner(path))

    def key(self, path: str) -> str:
        """Return what is equal for all spellings of a client's path."""
        return self.store.fold(normal(path))

    # -- looking

    def stat(self, path: str) -> Attributes:
        """Return the attributes of what is at `path`; of the root without asking anybody."""
        path = normal(path)
        if path == "/":
            return attributes.directory_attributes()
        return self._shown(path, self._looking.stat(self.inner(path))) or self._looking.committed(self.inner(path))

    def quick_stat(self, path: str) -> Attributes | None:
        """Return the attributes if that is possible without waiting."""
        path = normal(path)
        if path == "/":
            return attributes.directory_attributes()
        found = self._looking.quick_stat(self.inner(path))
        return None if found is None else self._shown(path, found)

    def open_directory(self, path: str) -> DirectoryHandle:
        """Open a directory to be listed."""
        path = normal(path)
        return self._directory_handle(path, self._looking.scan(self.inner(path)))

    def open_directory_at_once(self, path: str) -> DirectoryHandle | None:
        """Open a directory to be listed if all that is in it is at hand; else None."""
        path = normal(path)
        entries = self._looking.quick_scan(self.inner(path))
        return None if entries is None else self._directory_handle(path, entries, at_hand=True)

    def _directory_handle(
        self, path: str, entries: Iterator[tuple[str, Attributes]], *, at_hand: bool = False
    ) -> DirectoryHandle:
        if self.rights is Rights.WRITE_ONLY:
            within = path.rstrip("/") + "/"
            entries = (
                (name, value)
                for name, value in entries
                if attributes.are_of_directory(value) or self._is_own(within + name)
            )
        return DirectoryHandle(path, entries, at_hand=at_hand or self.store.local)

    # -- files

    def open(self, path: str, flags: int, wished: Attributes) -> Handle:
        """Open a file with the flags of SFTP version 3; `wished.size` is a mere announcement."""
        self._confinement.check_openable(self.inner(path))
        if flags & _WRITING:
            return self._open_for_writing(path, flags, wished)
        self._may_read()
        return ReadHandle(normal(path), self.store, self, self.inner(path))

    def open_new_at_once(self, path: str, flags: int, wished: Attributes) -> Handle | None:
        """Begin a new file if that needs no waiting, because it is known that nothing is there; else return None."""
        if not flags & _CREAT or flags & _READ or self._allowance is not None or _is_for_directories(path):
            return None
        inner = self.inner(path)
        try:
            with self.store.overlay.opening(inner, wait=False):
                is_new = self._looking.is_known_to_be_new(inner)
                return self._open_for_writing(path, flags, wished, is_new=True) if is_new else None
        except NotAtOnceError:
            return None

    def lost(self, handle: Handle) -> None:
        """Note that an upload failed: its client may still ask to remove the file."""
        self._lost.append(self.key(handle.path))

    def set_attributes(self, path: str, wished: Attributes) -> None:
        """Set size and time where possible; modes and owners are accepted and change nothing."""
        self._may_write()
        inner = self.inner(path)
        if wished.size is not None:
            self._may_change(path)
            self.store.truncate(inner, wished.size, self, self._allowance)
        if wished.mtime is not None and normal(path) != "/":
            if self.rights is Rights.WRITE_ONLY:
                self.stat(path)  # raises for what the drop box hides
                if not self._is_own(path):
                    return
            self.store.set_modified(inner, wished.mtime)
        elif wished.size is None:
            self.stat(path)

    # -- names

    def doubt(self, *paths: str) -> bool:
        """Forget that something is missing if another process may have made it; return whether to look again."""
        with contextlib.suppress(errors.FSError, RefusedError):  # for invalid paths
            return True in {self._looking.doubt(self.inner(path)) for path in paths}
        return False

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        self._may_write()
        if normal(path) == "/":
            raise errors.DirectoryExists(path)
        self._names.mkdir(self.inner(path), write_back=self.write_back)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        self._may_change()
        if normal(path) == "/":
            raise errors.RemoveRootError(path)
        self._names.rmdir(self.inner(path))

    def remove(self, path: str) -> None:
        """Remove a file; one whose upload failed is gone already, which is no error."""
        key = self.key(path)
        if self.rights is Rights.WRITE_ONLY and key in self._lost and not self._is_own(path):
            self._lost.remove(key)  # what it has sent is gone; what is there now is somebody else's
            return
        self._may_change(path)
        try:
            self._names.remove(self.inner(path))
        except errors.ResourceNotFound:
            if key not in self._lost:
                raise
            self._lost.remove(key)

    def rename(self, source: str, target: str, *, replace: bool) -> None:
        """Give a file or directory another path."""
        self._may_change(source)
        if "/" in (normal(source), normal(target)):
            raise RefusedError("the root cannot be renamed")
        if _is_for_directories(target) and not attributes.are_of_directory(self.stat(source)):
            self._check_directory(target)
        self._names.rename(self.inner(source), self.inner(target), replace=replace)

    def copy(self, source: ReadHandle, target: WriteHandle) -> None:
        """Make the empty file of `target` a copy of the whole file of `source`, by a server-side copy."""
        self.store.copy_onto(target.draft, source.fs_path, source.source)

    # -- rights

    def _open_for_writing(self, path: str, flags: int, wished: Attributes, *, is_new: bool = False) -> WriteHandle:
        self._may_write()
        if flags & OpenFlag.READ:
            self._may_read()
        if not flags & (OpenFlag.WRITE | OpenFlag.APPEND | OpenFlag.CREAT):
            raise RefusedError("opened with TRUNC, but not for writing")
        if normal(path) == "/":
            raise errors.FileExpected(path)
        if flags & _CREAT and _is_for_directories(path):
            self._check_directory(path)
        is_passed_on = self.store.resumable and not self.write_back
        if wished.size is not None and wished.size > self.store.quota.limit and not is_passed_on:
            raise RefusedError("the file is larger than the gateway's space for unfinished uploads")
        replaces = self.rights is not Rights.WRITE_ONLY or self._is_own(path)
        if not replaces and not flags & _CREAT:
            raise errors.ResourceNotFound(path)
        inner = self.inner(path)
        handle = WriteHandle(
            normal(path), self.store, self, inner, flags, is_new=is_new, replaces=replaces, allowance=self._allowance
        )
        if wished.mtime is not None:
            handle.set_modified(wished.mtime)
        return handle

    def _check_directory(self, path: str) -> None:
        """Refuse to make a file where the client means a missing directory: each file would replace the one before."""
        try:
            if not attributes.are_of_directory(self.stat(path)):
                raise errors.DirectoryExpected(path)
        except errors.ResourceNotFound:
            raise RefusedError("there is no such directory") from None

    # -- quota

    def usage(self) -> tuple[int, int]:
        """Return total and used bytes: of the user's quota, or else of the storage."""
        total, used = self._looking.usage()
        return self._allowance.usage(total, used) if self._allowance is not None else (total, used)

    # -- drop boxes

    def may_replace(self, fs_path: str) -> bool:
        """Tell whether this session may change what is committed at a path: in a drop box, only its own files."""
        return self.rights is not Rights.WRITE_ONLY or self.store.is_left_by(self.mark, fs_path)

    def _is_own(self, path: str) -> bool:
        """Tell whether the file at `path` is this session's: it writes it, or has written it last."""
        inner = self.inner(path)
        draft = self._looking.current(inner)
        if draft is not None:
            return draft.owner is self  # partials have no owner
        return self.may_replace(inner)

    def _shown(self, path: str, found: Attributes) -> Attributes | None:
        """Return what is seen of an entry; raises `ResourceNotFound` for what a drop box hides.

        None if somebody else is writing over this session's own file: the committed one is to be shown.
        """
        if self.rights is not Rights.WRITE_ONLY or attributes.are_of_directory(found) or self._is_own(path):
            return found
        if self.may_replace(self.inner(path)):
            return None
        raise errors.ResourceNotFound(path)

    def _may_read(self) -> None:
        if self.rights is Rights.WRITE_ONLY:
            raise RefusedError("this user may not read files", Status.PERMISSION_DENIED)

    def _may_write(self) -> None:
        if self.store.read_only:
            raise errors.ResourceReadOnly("")
        if self.rights is Rights.READ_ONLY:
            raise RefusedError("this user may only read", Status.PERMISSION_DENIED)

    def _may_change(self, path: str | None = None) -> None:
        self._may_write()
        if self.rights is Rights.WRITE_ONLY and (path is None or not self._is_own(path)):
            raise RefusedError("this user may not change what is there", Status.PERMISSION_DENIED)


def _is_for_directories(path: str) -> bool:
    """Tell whether only a directory can be called so."""
    return path.endswith(("/", "/."))


def normal(path: str) -> str:
    """Return a client's path absolute and without ".", "..", empty parts; relative paths start at the root."""
    if path[:1] == "/" and "//" not in path and "/." not in path and (len(path) == 1 or path[-1] != "/"):
        return path
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)
