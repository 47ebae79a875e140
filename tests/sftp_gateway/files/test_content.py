"""Reading at positions over filesystems whose files give less than they are asked for, as `read` may."""

from __future__ import annotations

import io

import pytest
from fs.memoryfs import MemoryFS

from sftp_gateway.files.content import Content
from sftp_gateway.files.spool import Quota


class _Dribble(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(3 if size is None or size < 0 else min(size, 3))


class _Dribbling(MemoryFS):
    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: object) -> _Dribble:
        with super().openbin(path, mode) as file:
            return _Dribble(file.read())


@pytest.mark.parametrize(("offset", "size"), [(0, 10), (1, 8), (0, 100), (9, 5), (10, 1)])
def test_a_read_is_full_but_at_the_end(offset: int, size: int) -> None:
    filesystem = _Dribbling()
    with filesystem:
        with MemoryFS.openbin(filesystem, "/f", "w") as file:
            file.write(b"0123456789")
        content = Content(filesystem, "/f", local=True, quota=Quota(0))
        assert content.pread(offset, size) == b"0123456789"[offset : offset + size]
        content.close()
