"""`DropboxFile`, `CompressedFile`: open files in fsspec's terms."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fs_dropbox.files.all_or_nothing import AllOrNothing, tell_forgotten
from fs_dropbox.fsspec_adapter.os_errors import os_errors

if TYPE_CHECKING:
    from fs_dropbox.fsspec_adapter.filesystem import DropboxFileSystem


class DropboxFile(AllOrNothing, io.IOBase):
    """An open file with fsspec's `commit()` and `discard()`; errors are OSError.

    In a transaction `close()` only ends the writing; what is forgotten without being closed is discarded. As
    thread-safe as the file below it. Pickled, a file that is read opens again: the same version, at the same position.
    """

    def __init__(self, filesystem: DropboxFileSystem, path: str, mode: str, binary: Any, *, autocommit: bool) -> None:
        super().__init__()
        self.fs = filesystem
        self.path = path
        self.mode = mode
        self.autocommit = autocommit
        self._binary = binary
        self._done = False
        self._goes_nowhere = False

    def __reduce__(self) -> tuple[Any, ...]:
        if self.mode != "rb":
            raise io.UnsupportedOperation(f"{self.path} is open for writing: it cannot be pickled")
        return _reopened, (self.fs, self.path, self.version, self.tell())

    @property
    def version(self) -> str:
        """The rev of the file; of one that is written, once it is committed."""
        return str(self._binary.version)

    @property
    def details(self) -> dict[str, Any]:
        """What `info` says of the path now."""
        return self.fs.info(self.path)

    @property
    def size(self) -> int | None:
        """The size of a file that is read, in bytes: of this version, whatever the path holds by now."""
        return int(self._binary.size) if self.mode == "rb" else None

    def readable(self) -> bool:
        return bool(self._binary.readable())

    def writable(self) -> bool:
        return bool(self._binary.writable())

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._binary.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._binary.seek(offset, whence))

    def read(self, size: int | None = -1) -> bytes:
        with os_errors(self.path):
            return bytes(self._binary.read(size))

    read1 = read

    def readinto(self, buffer: Any) -> int:
        with os_errors(self.path):
            return int(self._binary.readinto(buffer))

    readinto1 = readinto

    def readline(self, size: int | None = -1) -> bytes:
        with os_errors(self.path):
            return bytes(self._binary.readline(size))

    def write(self, data: Any) -> int:
        self._check_writing()
        if self._goes_nowhere:
            return memoryview(data).nbytes
        with os_errors(self.path):
            return int(self._binary.write(data))

    def truncate(self, size: int | None = None) -> int:
        self._check_writing()
        with os_errors(self.path):
            return int(self._binary.truncate(size))

    def _check_writing(self) -> None:
        if self.closed:
            raise ValueError("write to a closed file")

    def close(self) -> None:
        """Commit, unless a transaction is to do so."""
        if not self.closed:
            super().close()
            if self.autocommit or not self.writable():
                self.commit()

    def commit(self) -> None:
        """Make what was written visible."""
        if not self._done:
            self._done = True
            with os_errors(self.path):
                self._binary.close()

    def drop(self) -> None:
        """Let what is still written go nowhere: the file is about to be discarded."""
        self._goes_nowhere = True

    def discard(self) -> None:
        """Forget what was written."""
        if not self._done:
            self._done = True
            self._binary.abort()
            self._binary.close()
        super().close()

    abort = discard

    def __del__(self) -> None:
        if not self.closed:
            tell_forgotten(self)
            self.discard()


def _reopened(filesystem: DropboxFileSystem, path: str, version: str, position: int) -> DropboxFile:
    file: DropboxFile = filesystem.open(path)
    if file.version != version:
        file.close()
        file = filesystem.open(path, version=version)
    file.seek(position)
    return file


class CompressedFile(AllOrNothing, io.BufferedIOBase):
    """A codec over a `DropboxFile`, which ends with it: codecs leave the file below them open."""

    def __init__(self, codec: Any, below: DropboxFile) -> None:
        super().__init__()
        self._codec = codec
        self._below = below
        self.path = below.path

    def readable(self) -> bool:
        return self._below.readable()

    def writable(self) -> bool:
        return self._below.writable()

    def seekable(self) -> bool:
        return bool(self._codec.seekable())

    def tell(self) -> int:
        return int(self._codec.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._codec.seek(offset, whence))

    def read(self, size: int | None = -1) -> bytes:
        return bytes(self._codec.read(size))

    read1 = read

    def readline(self, size: int | None = -1) -> bytes:
        return bytes(self._codec.readline(size))

    def write(self, data: Any) -> int:
        return int(self._codec.write(data))

    def close(self) -> None:
        """Write what the codec holds back, and commit."""
        if not self.closed:
            super().close()
            try:
                self._codec.close()
            except BaseException:
                self._below.discard()
                raise
            self._below.close()

    def abort(self) -> None:
        """Forget what was written."""
        super().close()
        self._below.drop()
        with suppress(Exception):  # once it is forgotten it would try to write what it holds back, and complain
            self._codec.close()
        self._below.discard()

    def __del__(self) -> None:
        if not self.closed:
            tell_forgotten(self)
            self.abort()
