"""Our gateway over a filesystem in memory that costs nothing, as `python -m benchmarks.memory_gateway`.

PyFilesystem's own memory filesystem would be most of what is measured.
"""

from __future__ import annotations

import io
from typing import Any, cast

from fs import errors
from fs.base import FS
from fs.memoryfs import MemoryFS
from fs.opener import Opener, registry
from fs.opener.parse import ParseResult
from fs.path import abspath, normpath

from sftp_gateway.__main__ import main

URL = "nothing://"


class FreeFS(MemoryFS):
    """Files as plain bytes, with what the gateway asks of a filesystem that it need not wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._meta = {**MemoryFS._meta, "network": False, "atomic_writes": True}
        self.contents: dict[str, bytearray] = {}

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        path = abspath(normpath(path))
        if "r" in mode:
            if path not in self.contents:
                raise errors.ResourceNotFound(path)
            return _Read(self.contents[path])
        return _Write(self, path)

    def getinfo(self, path: str, namespaces: Any = None) -> Any:
        info = super().getinfo(path, namespaces)
        content = self.contents.get(abspath(normpath(path)))
        if content is not None and "details" in info.raw:
            cast(dict[str, Any], info.raw["details"])["size"] = len(content)
        return info

    def scandir(self, path: str, namespaces: Any = None, page: Any = None) -> Any:
        for name in self.listdir(path):
            yield self.getinfo(f"{path.rstrip('/')}/{name}", namespaces)


class _Read(io.RawIOBase):
    version = "1"

    def __init__(self, content: bytearray) -> None:
        super().__init__()
        self._view = memoryview(content)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._view)}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        piece = self._view[self._position : self._position + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def pread(self, offset: int, size: int) -> bytes:
        return bytes(self._view[offset : offset + size])

    def cached(self, offset: int, size: int) -> bytes:
        return bytes(self._view[offset : offset + size])


class _Write(io.RawIOBase):
    def __init__(self, filesystem: FreeFS, path: str) -> None:
        super().__init__()
        self.modified = None
        self._filesystem = filesystem
        self._path = path
        self._content: bytearray | None = bytearray()

    def write(self, data: Any) -> int:
        assert self._content is not None
        self._content += data
        return len(data)

    def writable(self) -> bool:
        return True

    def abort(self) -> None:
        self._content = None

    def close(self) -> None:
        if not self.closed and self._content is not None:
            with MemoryFS.openbin(self._filesystem, self._path, "wb"):
                self._filesystem.contents[self._path] = self._content
        super().close()


class _FreeOpener(Opener):
    protocols = ["nothing"]

    def open_fs(self, fs_url: str, parse_result: ParseResult, writeable: bool, create: bool, cwd: str) -> FS:
        return FreeFS()


if __name__ == "__main__":
    registry.install(_FreeOpener)
    main()
