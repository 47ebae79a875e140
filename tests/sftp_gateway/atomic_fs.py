"""A filesystem in memory with everything that the gateway's seam offers, and doors that tests hold shut."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Self

from fs import errors
from fs.memoryfs import MemoryFS

DEADLINE_SECONDS = 20.0


class AtomicFS(MemoryFS):
    """What is written becomes visible in `close()` only; reads are pinned to one version; every call is counted."""

    def __init__(self, usage: dict[str, int] | None = None) -> None:
        super().__init__()
        self._meta = {**MemoryFS._meta, "network": True, "atomic_writes": True}
        self._usage = usage
        self._guard = threading.Lock()
        self._versions: dict[str, int] = {}
        self._count = 0
        self.calls: list[tuple[str, str]] = []
        self.commits: list[tuple[str, int, datetime | None]] = []
        self.bytes_read = 0
        self.bytes_written = 0
        self.faults: dict[str, Exception] = {}  # by operation
        self._shut: dict[tuple[str, str], threading.Event] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    # -- what tests do

    def happened(self, operation: str) -> list[str]:
        """Return the paths of an operation's calls."""
        return [path for name, path in self.calls if name == operation]

    @contextlib.contextmanager
    def stalled(self, operation: str, path: str) -> Iterator[None]:
        """Let an operation on a path hang for as long as the block runs."""
        door = threading.Event()
        self._shut[operation, path] = door
        try:
            yield
        finally:
            del self._shut[operation, path]
            door.set()

    def passes(self, operation: str, path: str) -> None:
        """Count a call; hang or fail if a test wants that."""
        with self._guard:
            self.calls.append((operation, path))
        door = self._shut.get((operation, path))
        if door is not None:
            assert door.wait(DEADLINE_SECONDS), f"{operation} of {path} was never let go"
        fault = self.faults.get(operation)
        if fault is not None:
            raise fault

    # -- the filesystem

    def getmeta(self, namespace: str = "standard") -> Any:
        if namespace == "usage" and self._usage is not None:
            return dict(self._usage)
        return super().getmeta(namespace)

    def getinfo(self, path: str, namespaces: Any = None) -> Any:
        self.passes("getinfo", path)
        info = super().getinfo(path, namespaces)
        details: Any = info.raw.get("details", {})
        details.pop("_write", None)
        return info

    def scandir(self, path: str, namespaces: Any = None, page: Any = None) -> Any:
        self.passes("scandir", path)
        for name in self.listdir(path):
            with contextlib.suppress(errors.ResourceNotFound):  # removed meanwhile
                info = super().getinfo(f"{path.rstrip('/')}/{name}", namespaces)
                yield info

    def makedir(self, path: str, permissions: Any = None, recreate: bool = False) -> Any:
        self.passes("makedir", path)
        return super().makedir(path, permissions, recreate)

    def move(self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False) -> None:
        self.passes("move", src_path)
        super().move(src_path, dst_path, overwrite, preserve_time)
        with self._guard:
            self._versions[dst_path] = self._versions.pop(src_path, 0)

    def remove(self, path: str) -> None:
        self.passes("remove", path)
        super().remove(path)

    def copy(self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False) -> None:
        self.passes("copy", src_path)
        self.commit(dst_path, super_read(self, src_path), exclusive=not overwrite)

    def openbin(
        self,
        path: str,
        mode: str = "r",
        buffering: int = -1,
        *,
        expected_version: str | None = None,
        modified: datetime | None = None,
        seekable: bool = True,
        **options: Any,
    ) -> Any:
        self.passes("open", path)
        if "r" in mode:
            content = super_read(self, path)
            return PinnedFile(self, path, content, self.version(path))
        if super().isdir(path):
            raise errors.FileExpected(path)
        return PendingFile(self, path, expected_version, exclusive="x" in mode, modified=modified)

    def version(self, path: str) -> str:
        with self._guard:
            return str(self._versions.get(path, 0))

    def commit(
        self,
        path: str,
        content: bytes,
        *,
        exclusive: bool = False,
        expected_version: str | None = None,
        modified: datetime | None = None,
    ) -> None:
        if exclusive and super().exists(path):
            raise errors.FileExists(path)
        if expected_version is not None and (not super().exists(path) or self.version(path) != expected_version):
            raise errors.ResourceError(path, msg="the file was changed by someone else meanwhile")
        with super().openbin(path, "wb") as file:
            file.write(content)
        with self._guard:
            self._count += 1
            self._versions[path] = self._count
            self.commits.append((path, len(content), modified))
        if modified is not None:
            self.setinfo(path, {"details": {"modified": modified.timestamp()}})


class KnownFS(AtomicFS):
    """Everything in it is known without waiting."""

    def cached_info(self, path: str, namespaces: Any = None) -> Any:
        return MemoryFS.getinfo(self, path, namespaces)

    def cached_listing(self, path: str, namespaces: Any = None) -> Any:
        return [self.cached_info(f"{path.rstrip('/')}/{name}", namespaces) for name in self.listdir(path)]


def super_read(filesystem: AtomicFS, path: str) -> bytes:
    with MemoryFS.openbin(filesystem, path, "rb") as file:
        return bytes(file.read())


class PinnedFile(io.BytesIO):
    """A committed version that is read."""

    def __init__(self, filesystem: AtomicFS, path: str, content: bytes, version: str) -> None:
        super().__init__(content)
        self.version = version
        self._filesystem = filesystem
        self._path = path
        self._content = content
        self.cached: Callable[[int, int], bytes | None] = lambda offset, size: None

    def pread(self, offset: int, size: int) -> bytes:
        self._filesystem.passes("pread", self._path)
        piece = self._content[offset : offset + size]
        with self._filesystem._guard:
            self._filesystem.bytes_read += len(piece)
        return piece


class PendingFile(io.RawIOBase):
    """A file that is written; nobody sees it before `close()`."""

    def __init__(
        self, filesystem: AtomicFS, path: str, expected: str | None, *, exclusive: bool, modified: datetime | None
    ) -> None:
        super().__init__()
        self.modified = modified
        self._filesystem = filesystem
        self._path = path
        self._expected = expected
        self._exclusive = exclusive
        self._content = bytearray()
        self._over = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._filesystem.passes("write", self._path)
        self._content += data
        with self._filesystem._guard:
            self._filesystem.bytes_written += len(data)
        return len(data)

    def abort(self) -> None:
        if not self._over:
            self._over = True
            self._filesystem.passes("abort", self._path)

    def close(self) -> None:
        super().close()
        if self._over:
            return
        self._over = True
        self._filesystem.passes("commit", self._path)
        self._filesystem.commit(
            self._path,
            bytes(self._content),
            exclusive=self._exclusive,
            expected_version=self._expected,
            modified=self.modified,
        )
