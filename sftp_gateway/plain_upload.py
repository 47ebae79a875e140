"""`upload`: a draft's content into a filesystem that has no atomic writes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import BinaryIO, Final, cast

from fs.base import FS
from fs.errors import FSError

PIECE_BYTES: Final = 2**20


def upload(filesystem: FS, path: str, read: Callable[[int, int], bytes], size: int, modified: float | None) -> None:
    """Store `size` bytes, given by `read(offset, size)`, and the time where the filesystem can. Raises `fs.errors`."""
    filesystem.upload(path, cast(BinaryIO, _Reader(read, size)), chunk_size=PIECE_BYTES)
    if modified is not None:
        with contextlib.suppress(FSError):
            filesystem.setinfo(path, {"details": {"modified": modified}})


class _Reader:
    """The readable file that `FS.upload` wants."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read = read
        self._size = size
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._position
        piece = self._read(self._position, left if size < 0 else min(size, left))
        self._position += len(piece)
        return piece
