"""Keeps file contents by content hash, small ones in memory, large ones and durable ones in files. Knows no tree.

Bodies pass through in blocks: nothing here ever holds a whole large content.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from fs_dropbox.content_hash import ContentHash

BLOCK_BYTES = 1 << 20
MEMORY_BYTES = 1 << 20  # up to this size a content stays in memory when nothing need survive


class Spool:
    """Bytes on their way in: written at any offset, in memory first, in a file when large or durable.

    Used by one thread at a time, but for write_at of concurrent appends, which go to different places of the file.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        self.path = path  # where the bytes are once they are in a file
        self._lock = threading.Lock()
        self._memory: bytearray | None = None if durable else bytearray()
        if durable:
            path.touch()

    def read(self, size: int) -> Iterator[bytes]:
        """Yield the first `size` bytes in blocks."""
        if self._memory is not None:
            yield bytes(self._memory[:size])
            return
        with self.path.open("rb") as file:
            while size > 0 and (block := file.read(min(BLOCK_BYTES, size))):
                size -= len(block)
                yield block

    def take(self, size: int) -> bytes | None:
        """Return the bytes when they are in memory, else None with the file cut to `size`."""
        if self._memory is not None:
            return bytes(self._memory[:size])
        os.truncate(self.path, size)
        return None

    def discard(self) -> None:
        """Forget the bytes."""
        self.path.unlink(missing_ok=True)
        self._memory = bytearray()

    def _memory_write(self, offset: int, block: bytes | memoryview) -> bool:
        with self._lock:
            if self._memory is None:
                return False
            end = offset + len(block)
            if end > MEMORY_BYTES:
                self.path.write_bytes(self._memory)
                self._memory = None
                return False
            if len(self._memory) < offset:
                self._memory.extend(bytes(offset - len(self._memory)))
            self._memory[offset:end] = block
            return True


class SpoolWriter:
    """Writes a run of blocks into a spool; close it."""

    def __init__(self, spool: Spool, offset: int) -> None:
        self._spool = spool
        self._fd: int | None = None
        self.offset = offset

    def write(self, block: bytes | memoryview) -> None:
        """Write the next block."""
        if self._fd is not None or not self._spool._memory_write(self.offset, block):
            if self._fd is None:
                self._fd = os.open(self._spool.path, os.O_WRONLY | os.O_CREAT, 0o600)
            view = memoryview(block)
            written = 0
            while written < len(view):
                written += os.pwrite(self._fd, view[written:], self.offset + written)
        self.offset += len(block)

    def close(self) -> None:
        """Release the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Content:
    """One content, shared by every revision that has it; removed with its last reference."""

    __slots__ = ("data", "hash", "path", "references", "size")

    def __init__(self, content_hash: str, size: int, data: bytes | None, path: Path | None) -> None:
        self.hash = content_hash
        self.size = size
        self.data = data
        self.path = path
        self.references = 0


class ContentReader:
    """Yields a part of a content in blocks, once; close it."""

    def __init__(self, content: Content, start: int, end: int) -> None:
        self._data = content.data
        self._file = None if content.path is None else content.path.open("rb", buffering=0)
        self._start = start
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        if self._data is not None:
            if self._end > self._start:
                yield self._data[self._start : self._end]
            return
        assert self._file is not None
        self._file.seek(self._start)
        position = self._start
        while position < self._end:
            block = self._file.read(min(BLOCK_BYTES, self._end - position))
            if not block:
                raise OSError(f"content ends at {position} instead of {self._end}")
            position += len(block)
            yield block

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()


class Contents:
    """All contents. Thread-safe; the lock guards the table and the names of files, bytes pass outside of it."""

    def __init__(self, folder: Path | None) -> None:
        self.durable = folder is not None
        self._folder = folder if folder is not None else Path(tempfile.mkdtemp(prefix="dropbox-emulator-"))
        self._stored = self._folder / "contents"
        self.incoming = self._folder / "incoming"
        self._stored.mkdir(parents=True, exist_ok=True)
        self.incoming.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._table: dict[str, Content] = {}
        self._spools = 0

    def spool(self, name: str | None = None) -> Spool:
        """Return an empty spool; a named one survives a restart when the contents do."""
        with self._lock:
            self._spools += 1
            number = self._spools
        path = self.incoming / (name or f"body-{number}")
        return Spool(path, durable=self.durable and name is not None)

    def keep(self, spool: Spool, content_hash: str, size: int) -> Content:
        """Turn a spool's bytes into a content; uses the spool up. The caller holds a reference and must release it."""
        data = spool.take(size)
        if data is not None and self.durable:
            spool.path.write_bytes(data)
            data = None
        with self._lock:
            content = self._table.get(content_hash)
            if content is None:
                path = None
                if data is None:
                    path = self._path(content_hash)
                    path.parent.mkdir(exist_ok=True)
                    os.replace(spool.path, path)
                content = self._table[content_hash] = Content(content_hash, size, data, path)
            content.references += 1
        spool.discard()
        return content

    def keep_blocks(self, blocks: Iterable[bytes]) -> Content:
        """Turn a stream of blocks into a content, like keep()."""
        spool = self.spool()
        running = ContentHash()
        with closing(SpoolWriter(spool, 0)) as writer:
            for block in blocks:
                writer.write(block)
                running.update(block)
        return self.keep(spool, running.hexdigest(), writer.offset)

    def reference(self, content_hash: str, size: int) -> Content:
        """Count one more revision that has this content; after a restart this is also how contents become known."""
        with self._lock:
            content = self._table.get(content_hash)
            if content is None:
                content = self._table[content_hash] = Content(content_hash, size, None, self._path(content_hash))
            content.references += 1
            return content

    def release(self, content_hash: str) -> None:
        """Drop one reference, and the content with the last one."""
        with self._lock:
            content = self._table[content_hash]
            content.references -= 1
            if content.references > 0:
                return
            del self._table[content_hash]
            if content.path is not None:  # under the lock, lest the same content come back in between
                content.path.unlink(missing_ok=True)

    def read(self, content_hash: str, start: int = 0, end: int | None = None) -> ContentReader:
        """Return a reader of the bytes [start, end). The file is opened at once, so a later release does no harm."""
        with self._lock:
            content = self._table[content_hash]
            return ContentReader(content, start, content.size if end is None else min(end, content.size))

    def bytes_of(self, content_hash: str, size: int | None = None) -> bytes:
        """Return a content, or its first bytes."""
        reader = self.read(content_hash, 0, size)
        try:
            return b"".join(reader)
        finally:
            reader.close()

    def sweep(self, keep: set[str]) -> None:
        """Remove what a kill left behind: contents without a revision, spools not in `keep`."""
        for path in self._stored.glob("*/*"):
            if path.name not in self._table:
                path.unlink()
        for path in self.incoming.iterdir():
            if path.name not in keep:
                path.unlink()

    def close(self) -> None:
        """Remove the temporary folder, if the contents were not to survive."""
        if not self.durable:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, content_hash: str) -> Path:
        return self._stored / content_hash[:2] / content_hash
