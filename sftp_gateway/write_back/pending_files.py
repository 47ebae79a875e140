"""What is pending, as file objects and as Info."""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO

from fs.enums import ResourceType
from fs.info import Info

from sftp_gateway.files.folding import shown_name
from sftp_gateway.write_back.journal_rows import Pending

VERSION_PREFIX = "pending:"


class PendingReader(io.RawIOBase):
    """The content of a pending file as it was when it was opened; it stays readable after the delivery.

    Owned by its opener. `pread` and `cached` may be called from many threads.
    """

    def __init__(self, content: BinaryIO | bytes, pending: Pending) -> None:
        super().__init__()
        self.size = pending.size
        self.version = f"{VERSION_PREFIX}{pending.id}"
        self._pending = pending
        self._content = content
        self._position = 0

    def pread(self, offset: int, size: int) -> bytes:
        """Return the bytes at `offset`, fewer than `size` only at the end."""
        if isinstance(self._content, bytes):
            return self._content[offset : offset + size]
        return os.pread(self._content.fileno(), size, offset)

    cached = pread

    def again(self) -> PendingReader:
        """Return another reader of the same content, positioned at its start."""
        content = self._content
        return PendingReader(
            content if isinstance(content, bytes) else os.fdopen(os.dup(content.fileno()), "rb"), self._pending
        )

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        piece = self.pread(self._position, len(buffer))
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        if not self.closed and not isinstance(self._content, bytes):
            self._content.close()
        super().close()


def info_of(pending: Pending, name: str | None = None) -> Info:
    """Return the Info of a pending file, with the name that its directory lists if that is given."""
    return Info(
        {
            "basic": {"name": name or shown_name(pending.path), "is_dir": False},
            "details": {
                "type": int(ResourceType.file),
                "size": pending.size,
                "modified": pending.modified,
                "_write": ["modified"] if pending.may_change else [],
            },
        }
    )
