"""`Spool`: the local copy behind a writer that seeks: in memory while small, then on disk. Knows no Dropbox."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Final

MEMORY_BYTES: Final = 2**20
PIECE_BYTES: Final = 4 * 2**20


class Spool:
    """Bytes at any position; holes read as zeros, and take neither memory nor disk. For one thread at a time.

    Made on first use; gone after `close()`, or with the process.
    """

    def __init__(self) -> None:
        self._file: tempfile.SpooledTemporaryFile[bytes] | None = None

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put bytes at a position, and zeros before it where there is nothing."""
        self._extend(offset)
        file = self._opened()
        file.seek(offset)
        file.write(data)

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes from a position, fewer at the end."""
        file = self._opened()
        file.seek(offset)
        return file.read(max(0, size))

    def truncate(self, size: int) -> None:
        """Cut or extend to a size."""
        self._extend(size)
        self._opened().truncate(size)

    def pieces(self) -> Iterator[bytes]:
        """Yield everything."""
        offset = 0
        while piece := self.read(offset, PIECE_BYTES):
            offset += len(piece)
            yield piece

    def close(self) -> None:
        """Forget everything. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _extend(self, size: int) -> None:
        file = self._opened()
        end = file.seek(0, os.SEEK_END)
        if end < size <= MEMORY_BYTES:
            file.write(bytes(size - end))
        elif end < size:
            file.rollover()
            file.truncate(size)

    def _opened(self) -> tempfile.SpooledTemporaryFile[bytes]:
        if self._file is None:
            self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES, prefix="fs-dropbox-")  # noqa: SIM115
        return self._file
