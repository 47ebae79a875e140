"""File objects: what all have in common, and `ReadFile`. No HTTP."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fs.mode import Mode

from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import fs_errors
from fs_dropbox.files.all_or_nothing import AllOrNothing
from fs_dropbox.files.blocks import BlockReader

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

COPY_BYTES: Final = 4 * 2**20
LINE_BYTES: Final = 8 * 1024


def invalid(reason: str) -> OSError:
    """What files on disk raise: zipfile, for one, looks for the end of an archive with positions that may not be."""
    return OSError(errno.EINVAL, reason)


class DropboxFile(AllOrNothing, io.RawIOBase):
    """What reading and writing files share: position, lines, the end of a `with` block."""

    def __init__(self, path: str, mode: Mode, on_close: Callable[[DropboxFile], None]) -> None:
        super().__init__()
        self.name = path
        self.mode = mode.to_platform_bin()
        self._mode = mode
        self._on_close = on_close
        self._process = os.getpid()
        self._lock = threading.RLock()
        # guarded by _lock
        self._position = 0

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {self.name!r} mode={self.mode!r} {state}>"

    def readable(self) -> bool:
        return self._mode.reading

    def writable(self) -> bool:
        return self._mode.writing

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check_open()
        with self._lock:
            if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
                raise ValueError(f"invalid whence: {whence}")
            base = 0 if whence == io.SEEK_SET else self._position if whence == io.SEEK_CUR else self._length()
            if base + offset < 0:
                raise invalid(f"negative position: {base + offset}")
            self._position = base + offset
            return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        self._check_reading()
        with self._lock:
            if size is None or size < 0:
                return self.readall()
            data = self._read_at(self._position, size)
            self._position += len(data)
            return data

    def readall(self) -> bytes:
        self._check_reading()
        with self._lock:
            pieces = []
            while piece := self.read(COPY_BYTES):
                pieces.append(piece)
            return b"".join(pieces)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readline(self, size: int | None = -1, /) -> bytes:
        self._check_reading()
        with self._lock:
            pieces = []
            left = -1 if size is None else size
            while left:
                piece = self._read_at(self._position, LINE_BYTES if left < 0 else min(left, LINE_BYTES))
                if not piece:
                    break
                end = piece.find(b"\n") + 1
                piece = piece[:end] if end else piece
                self._position += len(piece)
                left -= len(piece) if left > 0 else 0
                pieces.append(piece)
                if end:
                    break
            return b"".join(pieces)

    def abort(self, error: Exception | None = None) -> None:
        """Discard what was written; nothing of a file that only reads."""

    @property
    def _is_the_parents(self) -> bool:
        """Whether this process was forked since it was opened: no lock of it may ever be free here."""
        return os.getpid() != self._process

    def _length(self) -> int:
        raise NotImplementedError

    def _read_at(self, offset: int, size: int) -> bytes:
        raise NotImplementedError

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _check_reading(self) -> None:
        self._check_open()
        if not self._mode.reading:
            raise io.UnsupportedOperation("not open for reading")

    def _check_writing(self) -> None:
        self._check_open()
        if not self._mode.writing:
            raise io.UnsupportedOperation("not open for writing")


class ReadFile(DropboxFile):
    """One revision of a file, whatever happens to the path meanwhile.

    Thread-safe: one lock over the position; `pread` and `cached` take none. A read moves the position before it
    fetches: threads that share a file, each with `seek` and `read` in a row, as DuckDB has, wait in neither.
    """

    def __init__(
        self, path: str, entry: FileEntry, blocks: BlockReader, on_close: Callable[[DropboxFile], None]
    ) -> None:
        super().__init__(path, Mode("r"), on_close)
        self.version = entry.rev
        self.size = entry.size  # bytes
        self._blocks = blocks

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        self._check_reading()
        with self._lock:
            begin = self._position
            self._position = end = max(begin, min(begin + size, self.size))
        try:
            return self._read_at(begin, size)
        except BaseException:
            with self._lock:
                if self._position == end:
                    self._position = begin
            raise

    def pread(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on, fewer only at the end of the file; does not move the position."""
        self._check_open()
        with fs_errors(self.name):
            return self._blocks.read(offset, size)

    def cached(self, offset: int, size: int) -> bytes | None:
        """Return what `pread` would if that needs no request, else None."""
        self._check_open()
        return self._blocks.cached(offset, size)

    def close(self) -> None:
        if self._is_the_parents:
            super().close()
        elif not self.closed:
            self._blocks.close()
            super().close()
            self._on_close(self)

    def write(self, data: ReadableBuffer, /) -> int:  # noqa: ARG002 - to refuse it as files do
        raise io.UnsupportedOperation("not open for writing")

    def _length(self) -> int:
        return self.size

    def _read_at(self, offset: int, size: int) -> bytes:
        return self.pread(offset, size)
