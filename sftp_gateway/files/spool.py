"""`Spool`: local bytes behind a file that is being written, with the map of which bytes are there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sftp_gateway.files import freeing, locked_files
from sftp_gateway.files.holes import punch
from sftp_gateway.files.intervals import Intervals
from sftp_gateway.private_directories import make_private
from sftp_gateway.sftp.status import RefusedError

MEMORY_BYTES = 64 * 2**20
"""How much all spools of a tree together may hold in memory: clients can have thousands of files open."""
SPOOL_SUFFIX = ".spool"
PAGE_BYTES = 4096  # counted for each gap: a single byte behind it can take as much of the disk
_RESERVE_BYTES = 32 * 2**20  # what clients send before they notice that they are held back
_LOCK_TRIES = 20
_LOCK_PAUSE_SECONDS = 0.005


class DamagedError(Exception):
    """A spool file does not hold what is noted of it."""


class SpoolFullError(RefusedError):
    """The quota of the spools is used up."""


class DroppedError(RefusedError):
    """The beginning of a file is not here any more."""

    def __init__(self) -> None:
        super().__init__(
            "the gateway has no room for files of this size, and keeps of this one only what the storage does not have:"
            " it can be sent from its start to its end alone"
        )


class Quota:
    """A bound on what all spools of a tree take of the disk, and of memory. Thread-safe (one lock, a leaf)."""

    def __init__(self, limit: int, memory_limit: int = MEMORY_BYTES) -> None:
        self.limit = limit
        self._memory_limit = memory_limit
        self._lock = threading.Lock()
        # guarded by _lock
        self._used = 0
        self._in_memory = 0

    @property
    def used(self) -> int:
        """Bytes in use."""
        return self._used

    @property
    def is_scarce(self) -> bool:
        """Whether more than half is in use."""
        return 2 * self._used > self.limit

    @property
    def is_short(self) -> bool:
        """Whether there is so little left that clients are held back where that makes room."""
        return self._used > self.limit - min(self.limit // 4, _RESERVE_BYTES)

    def take(self, count: int) -> None:
        """Reserve `count` bytes; raises `SpoolFullError` where they are not there."""
        with self._lock:
            if self._used + count > self.limit:
                raise SpoolFullError("the gateway's space for unfinished uploads is used up")
            self._used += count

    def give(self, count: int) -> None:
        """Give `count` bytes back."""
        with self._lock:
            self._used -= count

    def move_memory(self, old: int, new: int) -> bool:
        """Count a spool that has `new` bytes in memory instead of `old`; tell whether there is room for them."""
        with self._lock:
            if new > old and self._in_memory + new - old > self._memory_limit:
                return False
            self._in_memory += new - old
            return True


class Spool:
    """The bytes that were written to a file so far: in memory while they are few, else in a file with mode 0600.

    Owned by a draft. Thread-safe: one lock, held over memory and local disk only. Positions that were never written
    are not part of it: `missing` returns them, and what `pread` returns for them means nothing. The space of a large
    file is freed in a short-lived thread of its own.
    """

    def __init__(self, directory: Path, quota: Quota, *, memory_limit: int) -> None:
        self._directory = directory
        self.quota = quota  # of this and all spools beside it
        self._memory_limit = memory_limit
        self._lock = threading.RLock()
        # guarded by _lock
        self._written = Intervals()
        self._counted = 0  # of the quota
        self._memory: bytearray | None = bytearray()
        self._fd = -1
        self._closed = False
        self._shared = False
        self._was_shared = False
        self.is_given = False  # the file is the stored one now
        self._can_drop = True  # as far as is known
        self.dropped = 0  # how many bytes of the beginning were dropped
        self.path: Path | None = None  # of the file, once there is one

    @property
    def used(self) -> int:
        """How many bytes were written, each position counted once."""
        return self._written.total

    @property
    def prefix(self) -> int:
        """The number of bytes from position 0 on that are there without a gap."""
        return self._written.prefix

    @property
    def is_gapless(self) -> bool:
        """Whether all that was written follows from position 0 on without a gap."""
        return self._written.prefix == self._written.total

    @property
    def is_shared(self) -> bool:
        """Whether other processes may take the file over."""
        return self._shared

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Store `data`. Raises `SpoolFullError`, or OSError if the disk is full; nothing has changed then."""
        end = offset + len(data)
        with self._lock:
            self._check_changeable(offset)
            if end == offset:
                return
            written = self._written
            ranges = len(written) + 1 - written.count_touching(offset, end)
            self._count(written.total + written.count_missing(offset, end), ranges)
            try:
                self._store(offset, end, data)
            except BaseException:
                self._count(written.total, len(written))
                with contextlib.suppress(OSError):
                    self._cut_back(written.end)
                raise
            written.add(offset, end)

    def _count(self, total: int, ranges: int) -> None:
        """Count `total` bytes in so many `ranges` against the quota; raises `SpoolFullError`."""
        count = total - self.dropped + max(0, ranges - 1) * PAGE_BYTES
        if count > self._counted:
            self.quota.take(count - self._counted)
        else:
            self.quota.give(self._counted - count)
        self._counted = count

    def _store(self, offset: int, end: int, data: bytes | memoryview) -> None:
        if self._memory is not None and not self._fits(len(self._memory), end):
            self.to_disk()
        memory = self._memory
        if memory is None:
            _write_all(self._fd, data, offset)
            return
        if offset > len(memory):
            memory.extend(bytes(offset - len(memory)))
        memory[offset:end] = data

    def _fits(self, size: int, end: int) -> bool:
        """Reserve memory for what is written up to `end`; return whether there is enough."""
        return end <= self._memory_limit and self.quota.move_memory(size, max(size, end))

    def _cut_back(self, end: int) -> None:
        """Truncate the file to what was written: notes may rely on its size."""
        if self._memory is not None:
            self.quota.move_memory(len(self._memory), min(len(self._memory), end))
            del self._memory[end:]
        elif os.fstat(self._fd).st_size > end:
            os.ftruncate(self._fd, end)

    def to_disk(self) -> Path:
        """Move what is in memory to the file, if it is not there yet; return the file's path."""
        with self._lock:
            self._check_open()
            if self.path is None:
                make_private(self._directory)
                path, fd = locked_files.create(self._directory, SPOOL_SUFFIX)
                try:
                    _write_all(fd, self._memory or b"", 0)
                except BaseException:
                    os.close(fd)
                    path.unlink(missing_ok=True)
                    raise
                self._fd, self.path = fd, path
                self._drop_memory()
            return self.path

    def _drop_memory(self) -> None:
        memory, self._memory = self._memory, None
        self.quota.move_memory(len(memory or b""), 0)

    def adopt(self, path: Path, size: int) -> None:
        """Take over the spool file of an earlier process, of which the first `size` bytes are written.

        Only for a new spool. What the file holds beyond stays until `truncate`. Raises BlockingIOError if another
        process uses the file, `DamagedError` if it is shorter, `SpoolFullError`, OSError.
        """
        with self._lock:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_size < size:
                    raise DamagedError(f"{path}: shorter than noted")
                self._count(size, 1)
            except BaseException:
                os.close(fd)
                raise
            self._fd = fd
            self.path, self._memory = path, None
            self._written.add(0, size)

    def share(self) -> None:
        """Allow other processes to take the file over, until `reclaim`."""
        with self._lock:
            if self._fd >= 0:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
                self._shared = self._was_shared = True

    @property
    def is_as_known(self) -> bool:
        """Whether the file is still there, with the size that this process has given it."""
        with self._lock:
            if self._fd < 0:
                return False
            found = os.fstat(self._fd)
            return found.st_nlink > 0 and found.st_size == self._written.end

    def reclaim(self) -> bool:
        """Lock a shared file again; return whether it is still there as we know it, and nobody else uses it."""
        with self._lock:
            if not self._shared:
                return not self._closed
            if self._closed or not _lock_patiently(self._fd):
                return False
            if not self.is_as_known:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
                return False
            self._shared = False
            return True

    def sync(self) -> None:
        """Make what was written survive a crash of the machine."""
        with self._lock:
            self.to_disk()
            fd = os.dup(self._fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def pread(self, offset: int, size: int) -> bytes:
        """Return `size` bytes."""
        with self._lock:
            self.check_here(offset)
            if self._memory is not None:
                with memoryview(self._memory) as view:
                    piece = bytes(view[offset : offset + size])
            else:
                piece = os.pread(self._fd, size, offset)
                while len(piece) < size:
                    more = os.pread(self._fd, size - len(piece), offset + len(piece))
                    if not more:
                        break
                    piece += more
            return piece if len(piece) == size else piece + bytes(size - len(piece))

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the gaps within [start, end), in order."""
        with self._lock:
            return self._written.missing(start, end)

    def truncate(self, size: int) -> None:
        """Drop everything from `size` on."""
        with self._lock:
            self._check_changeable(size)
            gaps = self._written.missing(0, size)
            self._cut_back(gaps[-1][0] if gaps and gaps[-1][1] == size else size)  # first, as it may fail
            self._written.remove(size, self._written.end)
            self._count(self._written.total, len(self._written))

    def may_drop(self, end: int) -> bool:
        """Tell whether the space before `end` can be freed, as far as is known."""
        return self._can_drop and self._fd >= 0 and not self.is_given and self.dropped < end <= self.prefix

    def drop_before(self, end: int) -> bool:
        """Free the space before `end`, which cannot be read or written any more then; return whether that worked."""
        with self._lock:
            if self._closed or not self.may_drop(end):
                return False
            self._can_drop = punch(self._fd, self.dropped, end)
            if self._can_drop:
                self.dropped = end
                self._count(self._written.total, len(self._written))
            return self._can_drop

    def forget_dropped(self) -> None:
        """Treat what was dropped as never written."""
        with self._lock:
            self._written.remove(0, self.dropped)
            self.dropped = 0

    def close(self, *, at_once: bool = False) -> None:
        """Drop everything, the file too; with `at_once` its space is free on return. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            size = self._written.total - self.dropped
            self.quota.give(self._counted)
            self._drop_memory()
            fd, self._fd = self._fd, -1
            if self.path is not None:
                self.path.unlink(missing_ok=True)
            if fd >= 0:
                freeing.close(fd, frees=0 if at_once or self.is_given or self.path is None else size)

    def release(self) -> None:
        """Close, but leave the file for a later process (`adopt`). Idempotent."""
        with self._lock:
            self.path = None
            self.close()

    def give(self, size: int, move: Callable[[int, Path], bool]) -> bool:
        """Let `move(descriptor, path)` give the file another name, if it holds `size` bytes and nothing else.

        Returns whether it did: then it can only be read here, and `close` drops no more than the name that it had.
        """
        with self._lock:
            if self._closed or self._was_shared or self.path is None:  # others may still have open what was shared
                return False
            is_whole = self._written.prefix == self._written.end == os.fstat(self._fd).st_size == size
            if not is_whole or self.dropped or not move(self._fd, self.path):
                return False
            self.is_given = True
            return True

    def check_here(self, offset: int) -> None:
        """Raise `RefusedError` if the spool is closed, or `offset` lies in what was dropped."""
        self._check_open()
        if offset < self.dropped:
            raise DroppedError

    def _check_changeable(self, offset: int) -> None:
        self.check_here(offset)
        if self.is_given:
            raise RefusedError("the file has just been stored")

    def _check_open(self) -> None:
        if self._closed:
            raise RefusedError("the file was removed while it was being written")


def _lock_patiently(fd: int) -> bool:
    """Lock the file, with a few tries: other processes lock it for a moment to see whether it is used."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return True
    return False


def _write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        done += os.pwrite(fd, memoryview(data)[done:], offset + done)
