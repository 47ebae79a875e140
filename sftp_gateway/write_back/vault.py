"""`Vault`: local bytes of files that are acknowledged and not delivered yet; survives a crash of the machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from sftp_gateway.files import locked_files

SUFFIX = ".content"


class Vault:
    """One directory of content files that only their owner may read. Owned by a journal. Thread-safe: has no state.

    The writer of a content file holds a lock on it until the journal names it: a file that is neither locked nor named
    was left by a process that died.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, *, memory_limit: int) -> LocalBytes:
        """Return new local bytes, in memory up to `memory_limit`."""
        return LocalBytes(self.directory, memory_limit)

    def path(self, name: str) -> Path:
        """Return where a content file is."""
        return self.directory / name

    def remove(self, names: Iterable[str]) -> None:
        """Remove content files. Those who have one open can read on."""
        for name in names:
            self.path(name).unlink(missing_ok=True)

    def clear(self, is_named: Callable[[str], bool]) -> None:
        """Remove what dead processes have left: files that nobody is writing and the journal does not name."""
        for path in self.directory.glob("*" + SUFFIX):
            # Its writer holds the lock until the journal names it: so first the lock, then the question.
            with contextlib.suppress(OSError), locked_files.locked(path):
                if not is_named(path.name):
                    path.unlink()
        for path in self.directory.glob("*" + locked_files.NEW_SUFFIX):
            locked_files.clear_begun(path)


class LocalBytes:
    """Bytes that are written from the first to the last: in memory while they are few, else in a content file.

    Owned by the file object that writes it; not thread-safe. Raises OSError when the disk is full.
    """

    def __init__(self, directory: Path, memory_limit: int) -> None:
        self._directory = directory
        self._memory_limit = memory_limit
        self._memory: bytearray | None = bytearray()
        self._descriptor = -1
        self.size = 0
        self.name: str | None = None  # of the content file, once there is one

    @property
    def memory(self) -> bytes | None:
        """The bytes themselves if there is no content file."""
        return None if self._memory is None else bytes(self._memory)

    def write(self, data: bytes | memoryview) -> None:
        """Add `data`."""
        if self._memory is not None and self.size + len(data) > self._memory_limit:
            self._to_disk()
        if self._memory is not None:
            self._memory += data
        else:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
        self.size += len(data)

    def read(self, offset: int, size: int) -> bytes:
        """Return what was written at `offset`."""
        if self._memory is not None:
            return bytes(self._memory[offset : offset + size])
        return os.pread(self._descriptor, size, offset)

    def sync(self) -> None:
        """Make a content file and its name survive a crash; the journal keeps bytes that are in memory."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def release(self) -> None:
        """Let go of the content file, which the journal names now. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._memory = None
        self.size = 0

    def discard(self) -> None:
        """Drop everything. Idempotent; nothing happens after `release`."""
        if self._descriptor >= 0 and self.name is not None:
            (self._directory / self.name).unlink(missing_ok=True)
        self.release()

    def _to_disk(self) -> None:
        path, self._descriptor = locked_files.create(self._directory, SUFFIX)
        self.name = path.name
        memory, self._memory = self._memory or bytearray(), None
        self.size = 0
        self.write(memoryview(memory))
