"""Our gateway over a filesystem in memory that costs nothing, as `python -m benchmarks.memory_gateway`.

It is `nothing://`, or `nothing://?room=BYTES` with memory for so many bytes from the beginning. PyFilesystem's own
memory filesystem would be most of what is measured.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from fs import errors
from fs.base import FS
from fs.enums import ResourceType
from fs.info import Info
from fs.opener import Opener, registry
from fs.opener.parse import ParseResult
from fs.path import abspath, basename, dirname, normpath
from fs.subfs import SubFS

from sftp_gateway.__main__ import main

URL = "nothing://"


_BLOCK_BYTES = 2**20


class _Blocks:
    """Memory that is there already: to be given fresh pages costs as much as all that a gateway does with a byte."""

    def __init__(self, room: int) -> None:
        """Begin with `room` bytes; more are made where they do not suffice."""
        self._spare = deque(bytearray(b"\1") * _BLOCK_BYTES for _ in range(-(-room // _BLOCK_BYTES)))

    def take(self) -> bytearray:
        """Return a block with anything in it, or one that is to grow."""
        return self._spare.pop() if self._spare else bytearray()

    def give_back(self, blocks: Iterable[bytearray]) -> None:
        """Have blocks used again."""
        self._spare.extend(blocks)


class _Content:
    """The bytes of a file, whose blocks are given back when nobody has it any more."""

    def __init__(self, blocks: _Blocks) -> None:
        self.size = 0
        self._source = blocks
        self._blocks: list[bytearray] = []

    def __del__(self) -> None:
        self._source.give_back(self._blocks)

    def append(self, data: Any) -> None:
        with memoryview(data) as rest:
            done = 0
            while done < len(rest):
                start = self.size % _BLOCK_BYTES
                if not start:
                    self._blocks.append(self._source.take())
                count = min(len(rest) - done, _BLOCK_BYTES - start)
                self._blocks[-1][start : start + count] = rest[done : done + count]
                done += count
                self.size += count

    def read(self, offset: int, size: int) -> bytes:
        end = min(offset + size, self.size)
        pieces = []
        while offset < end:
            number, start = divmod(offset, _BLOCK_BYTES)
            pieces.append(memoryview(self._blocks[number])[start : start + end - offset])
            offset += len(pieces[-1])
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)


class FreeFS(FS):
    """Whole files and their `Info` in dictionaries, with what the gateway asks of a filesystem it need not wait for.

    Thread-safe: one lock, held by whatever changes it.
    """

    _meta = {
        "case_insensitive": False,
        "invalid_path_chars": "\0",
        "network": False,
        "read_only": False,
        "thread_safe": True,
        "unicode_paths": True,
        "virtual": False,
        "supports_rename": False,
        "atomic_writes": True,
    }

    def __init__(self, room: int = 0) -> None:
        super().__init__()
        self.blocks = _Blocks(room)
        self._infos = {"/": _info("", None)}  # by path
        self._folders: dict[str, dict[str, Info]] = {"/": {}}  # by path, then by name
        self._contents: dict[str, _Content] = {}

    def validatepath(self, path: str) -> str:
        if path in self._infos:  # as nearly all are
            return path
        self.check()
        if "\0" in path:
            raise errors.InvalidCharsInPath(path)
        return str(abspath(normpath(path)))

    def getinfo(self, path: str, namespaces: Any = None) -> Info:
        info = self._infos.get(path)
        if info is None:
            info = self._infos.get(abspath(normpath(path)))
            if info is None:
                raise errors.ResourceNotFound(path)
        return info

    def listdir(self, path: str) -> list[str]:
        return list(self._folder(path))

    def scandir(self, path: str, namespaces: Any = None, page: Any = None) -> Iterator[Info]:
        infos = list(self._folder(path).values())
        return iter(infos if page is None else infos[slice(*page)])

    def setinfo(self, path: str, info: Any) -> None:
        with self._lock:
            path = self.validatepath(path)
            old = self.getinfo(path)
            modified = info.get("details", {}).get("modified", old.raw["details"]["modified"])
            self._show(path, _info(old.name, self._contents.get(path), modified))

    def makedir(self, path: str, permissions: Any = None, recreate: bool = False) -> SubFS[FS]:
        with self._lock:
            path = self.validatepath(path)
            if path not in self._infos:
                self._folder(dirname(path))
                self._folders[path] = {}
                self._show(path, _info(basename(path), None))
            elif not recreate:
                raise errors.DirectoryExists(path)
            return self.opendir(path)

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        path = self.validatepath(path)
        if path in self._folders:
            raise errors.FileExpected(path)
        kind = mode.replace("b", "")
        if kind == "r":
            content = self._contents.get(path)
            if content is None:
                raise errors.ResourceNotFound(path)
            return _Read(content)
        if kind not in ("w", "x"):
            raise errors.Unsupported("files are read, or written as a whole")
        self._folder(dirname(path))
        if kind == "x" and path in self._contents:
            raise errors.FileExists(path)
        return _Write(self, path)

    def remove(self, path: str) -> None:
        with self._lock:
            path = self.validatepath(path)
            if self.getinfo(path).is_dir:
                raise errors.FileExpected(path)
            del self._contents[path]
            self._hide(path)

    def removedir(self, path: str) -> None:
        with self._lock:
            path = self.validatepath(path)
            if path == "/":
                raise errors.RemoveRootError
            if self._folder(path):
                raise errors.DirectoryNotEmpty(path)
            del self._folders[path]
            self._hide(path)

    def keep(self, path: str, content: _Content, modified: datetime | None) -> None:
        """Make `content` the file at a normal path."""
        with self._lock:
            self._folder(dirname(path))
            self._contents[path] = content
            self._show(path, _info(basename(path), content, modified.timestamp() if modified else None))

    def _folder(self, path: str) -> dict[str, Info]:
        """Return what is in a folder; raises as PyFilesystem wants it."""
        found = self._folders.get(path)
        if found is None:
            found = self._folders.get(abspath(normpath(path)))
            if found is None:
                self.getinfo(path)
                raise errors.DirectoryExpected(path)
        return found

    def _show(self, path: str, info: Info) -> None:
        self._infos[path] = info
        if path != "/":
            self._folder(dirname(path))[info.name] = info

    def _hide(self, path: str) -> None:
        del self._infos[path]
        del self._folder(dirname(path))[basename(path)]


def _info(name: str, content: _Content | None, modified: float | None = None) -> Info:
    """Return the Info of a file, or of a folder if it has no content."""
    is_folder = content is None
    details = {
        "_write": ["modified"],
        "type": int(ResourceType.directory if is_folder else ResourceType.file),
        "size": 0 if content is None else content.size,
        "modified": time.time() if modified is None else modified,
    }
    return Info({"basic": {"name": name, "is_dir": is_folder}, "details": details})


class _Read(io.RawIOBase):
    version = "1"

    def __init__(self, content: _Content) -> None:
        super().__init__()
        self._content = content
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._content.size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        piece = self._content.read(self._position, len(buffer))
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def pread(self, offset: int, size: int) -> bytes:
        return self._content.read(offset, size)

    def cached(self, offset: int, size: int) -> bytes:
        return self._content.read(offset, size)


class _Write(io.RawIOBase):
    def __init__(self, filesystem: FreeFS, path: str) -> None:
        super().__init__()
        self.modified: datetime | None = None
        self._filesystem = filesystem
        self._path = path
        self._content: _Content | None = _Content(filesystem.blocks)

    def write(self, data: Any) -> int:
        assert self._content is not None
        self._content.append(data)
        return len(data)

    def write_now(self, data: Any) -> bool:
        self.write(data)
        return True

    def writable(self) -> bool:
        return True

    def abort(self) -> None:
        self._content = None

    def close(self) -> None:
        if not self.closed and self._content is not None:
            self._filesystem.keep(self._path, self._content, self.modified)
        super().close()


class _FreeOpener(Opener):
    protocols = ["nothing"]

    def open_fs(self, fs_url: str, parse_result: ParseResult, writeable: bool, create: bool, cwd: str) -> FS:
        return FreeFS(int(parse_result.params.get("room", "0")))


if __name__ == "__main__":
    registry.install(_FreeOpener)
    main()
