"""`PendingDirectories`: a filesystem together with the directories that are acknowledged and not made in it yet."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from fs import errors
from fs.base import FS
from fs.enums import ResourceType
from fs.info import Info
from fs.path import dirname
from fs.permissions import Permissions

from sftp_gateway.files.folding import shown_name
from sftp_gateway.sftp import attributes
from sftp_gateway.write_back.directory_rows import DirectoryRows, PendingDirectory


class PendingDirectories:
    """The calls of a filesystem that also see the pending directories, which it gets as soon as it needs them.

    `makedir_later` only records a directory: a file that is delivered into it makes it, otherwise the delivery does. A
    call that puts something else into one has it made first. The filesystem is never asked about what is below a fresh
    pending directory: there is nothing. Owned by a `WriteBackFS`. Thread-safe: has no state but the rows.
    """

    def __init__(self, filesystem: FS, rows: DirectoryRows) -> None:
        self._inner: Any = filesystem
        self._rows = rows
        self._cached_info = getattr(filesystem, "cached_info", None)
        self._cached_listing = getattr(filesystem, "cached_listing", None)

    # -- looking

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        found = self._look(path)
        if found is None:
            found = self._inner.getinfo(path, namespaces)
        return found

    def cached_info(self, path: str, namespaces: Collection[str] | None = None) -> Info | None:
        """Return the Info if that needs no waiting; raises ResourceNotFound if the path is known to be absent."""
        found = self._look(path)
        if found is None and self._cached_info is not None:
            found = self._cached_info(path, namespaces)
        return found

    def scandir(self, path: str, namespaces: Collection[str] | None = None) -> Iterator[Info]:
        directories = self._rows.children(path)
        pending = self._find(path)
        infos: Iterable[Info] = ()
        if pending is None:
            infos = self._inner.scandir(path, namespaces=namespaces)
        elif not pending.fresh:
            infos = self._perhaps_in(path, namespaces)
        return self._with_directories(infos, directories)

    def cached_listing(self, path: str, namespaces: Collection[str] | None = None) -> Iterator[Info] | None:
        """Return what `scandir` would if that needs no waiting, else None."""
        directories = self._rows.children(path)
        pending = self._find(path)
        infos: Iterable[Info] | None = ()
        if pending is None or not pending.fresh:
            try:
                infos = None if self._cached_listing is None else self._cached_listing(path, namespaces)
            except errors.ResourceNotFound:
                if pending is None:
                    raise
        return None if infos is None else self._with_directories(infos, directories)

    def _perhaps_in(self, path: str, namespaces: Collection[str] | None) -> Iterator[Info]:
        with contextlib.suppress(errors.ResourceNotFound):
            yield from self._inner.scandir(path, namespaces=namespaces)

    def _find(self, path: str) -> PendingDirectory | None:
        """Return the pending directory at a path; raises ResourceNotFound below one that the storage does not have."""
        above = self._rows.above(path)
        if above is not None and above.key == self._rows.fold(path):
            return above
        if above is not None and above.fresh:
            raise errors.ResourceNotFound(path)
        return None

    def _look(self, path: str) -> Info | None:
        """Return the Info of a pending directory; raises ResourceNotFound as `_find` does."""
        pending = self._find(path)
        return None if pending is None else _info(pending)

    def _with_directories(self, infos: Iterable[Info], directories: dict[str, PendingDirectory]) -> Iterator[Info]:
        for info in infos:
            directories.pop(self._rows.fold(info.name), None)  # made by somebody else
            yield info
        for directory in directories.values():
            yield _info(directory)

    # -- files

    def openbin(self, path: str, mode: str, buffering: int = -1, **options: Any) -> Any:
        if set(mode) & {"w", "x", "a"}:
            self.make(dirname(path))
        elif self._look(path) is not None:
            raise errors.FileExpected(path)
        return self._inner.openbin(path, mode, buffering, **options)

    def remove(self, path: str) -> None:
        if self._look(path) is not None:
            raise errors.FileExpected(path)
        self._inner.remove(path)

    def copy(self, src_path: str, dst_path: str, **options: bool) -> None:
        self._look(src_path)
        self.make(dirname(dst_path))
        self._inner.copy(src_path, dst_path, **options)

    def move(self, src_path: str, dst_path: str, **options: bool) -> None:
        self._look(src_path)
        self.make(dirname(dst_path))
        self._inner.move(src_path, dst_path, **options)

    def setinfo(self, path: str, info: Mapping[str, Mapping[str, object]]) -> None:
        if self._look(path) is None:
            self._inner.setinfo(path, info)

    # -- directories

    def makedir_later(self, path: str) -> None:
        """Record a directory to be made; raises as `makedir` does."""
        with contextlib.suppress(errors.ResourceNotFound):
            self.getinfo(path)
            raise errors.DirectoryExists(path)
        parent = dirname(path)
        if parent != "/" and not attributes.is_directory(self.getinfo(parent, ["basic"])):
            raise errors.DirectoryExpected(parent)
        self._rows.add(path)

    def makedir(self, path: str, permissions: Permissions | None = None, recreate: bool = False) -> None:
        if self._rows.find(path) is None:
            self.make(dirname(path))
            self._inner.makedir(path, permissions, recreate)
        elif recreate:
            self.make(path)
        else:
            raise errors.DirectoryExists(path)

    def removedir(self, path: str) -> None:
        """Remove an empty directory; raises `BeingSentError` as well as `fs.errors`."""
        if self._rows.find(path) is not None and self._rows.discard(path):
            return
        if self._rows.are_at_or_below(path):
            if self._rows.children(path):
                raise errors.DirectoryNotEmpty(path)
            self.make(path)  # perhaps it is there, perhaps somebody else's files are in it
        self._inner.removedir(path)

    def movedir(self, src_path: str, dst_path: str, **options: bool) -> None:
        """Move a directory; nothing may be pending below it."""
        self.make(src_path)
        self.make(dst_path if self._rows.find(dst_path) is not None else dirname(dst_path))
        self._inner.movedir(src_path, dst_path, **options)

    def make(self, path: str) -> None:
        """Have the filesystem make the pending directories at and above `path`."""
        above = self._rows.above(path)
        if above is not None:
            self._rows.doubt(above.path)
            self._inner.makedirs(above.path, recreate=True)
            self._rows.made(above.path)


def _info(directory: PendingDirectory) -> Info:
    return Info(
        {
            "basic": {"name": shown_name(directory.path), "is_dir": True},
            "details": {"type": int(ResourceType.directory), "size": 0, "_write": []},
        }
    )
