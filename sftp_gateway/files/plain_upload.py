"""`upload`: a draft's content into a filesystem that has no atomic writes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, cast

from fs.base import FS
from fs.errors import FSError

from sftp_gateway.files.base import Base
from sftp_gateway.files.spool import Spool
from sftp_gateway.files.stream import PIECE_BYTES


def upload(filesystem: FS, path: str, read: Callable[[int, int], bytes], size: int, modified: float | None) -> None:
    """Store `size` bytes from `read(offset, size)`, and the time if the filesystem can. Raises `fs.errors`."""
    filesystem.upload(path, cast(BinaryIO, _Reader(read, size)), chunk_size=PIECE_BYTES)
    if modified is not None:
        with contextlib.suppress(FSError):
            filesystem.setinfo(path, {"details": {"modified": modified}})


def gather(base: Base, spool: Spool, lock: AbstractContextManager[object]) -> None:
    """Copy into the spool what still counts of the old content, which is about to be overwritten.

    What the client writes or truncates meanwhile, under the draft's lock, is kept. Raises `fs.errors`, OSError.
    """
    for start, stop in spool.missing(0, base.size):
        for position in range(start, stop, PIECE_BYTES):
            piece = base.pread(position, min(stop, position + PIECE_BYTES))
            with lock:
                for first, last in spool.missing(position, min(position + len(piece), base.size)):
                    spool.write(first, piece[first - position : last - position])


class _Reader(io.RawIOBase):
    """The readable file for `FS.upload`, with all the methods that storage libraries call."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._read = read
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._position)
        piece = self._read(self._position, left if size is None or size < 0 else min(size, left))
        self._position += len(piece)
        return piece

    def readinto(self, buffer: Any) -> int:
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
