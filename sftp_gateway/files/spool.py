"""`Spool`: local bytes behind a file that is being written, with the map of which bytes are there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
import time
from bisect import bisect_left, bisect_right
from pathlib import Path

from sftp_gateway.sftp.status import RefusedError

_LARGE_BYTES = 64 * 2**20  # the system takes a tenth of a second and more to free a file of this size
_LOCK_TRIES = 20
_LOCK_PAUSE_SECONDS = 0.005


class Intervals:
    """A set of byte positions as sorted, disjoint, non-adjacent ranges. Not thread-safe."""

    __slots__ = ("_ends", "_starts", "total")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0

    def __iter__(self) -> zip[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, end: int) -> int:
        """Add the positions [start, end); return how many of them are new."""
        if start >= end:
            return 0
        ends = self._ends
        if ends and start == ends[-1]:  # the usual case: one writer that goes on
            ends[-1] = end
            self.total += end - start
            return end - start
        if not ends:
            self._starts.append(start)
            ends.append(end)
            self.total = end - start
            return self.total
        first = bisect_left(ends, start)  # the first range that touches or follows
        last = bisect_right(self._starts, end)  # one past the last range that touches
        before = self.total
        if first < last:
            self.total -= sum(ends[i] - self._starts[i] for i in range(first, last))
            start = min(start, self._starts[first])
            end = max(end, ends[last - 1])
        self._starts[first:last] = [start]
        ends[first:last] = [end]
        self.total += end - start
        return self.total - before

    def count_missing(self, start: int, end: int) -> int:
        """Return how many of the positions [start, end) are not there."""
        if not self._ends or start >= self._ends[-1]:
            return end - start
        return sum(last - first for first, last in self.missing(start, end))

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the gaps within [start, end), in order."""
        gaps = []
        for i in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[i] >= end:
                break
            if self._starts[i] > start:
                gaps.append((start, self._starts[i]))
            start = self._ends[i]
        if start < end:
            gaps.append((start, end))
        return gaps

    def truncate(self, size: int) -> int:
        """Drop the positions from `size` on; return how many were dropped."""
        before = self.total
        while self._starts and self._starts[-1] >= size:
            self.total -= self._ends.pop() - self._starts.pop()
        if self._ends and self._ends[-1] > size:
            self.total -= self._ends[-1] - size
            self._ends[-1] = size
        return before - self.total

    @property
    def prefix(self) -> int:
        """The end of the range that starts at 0."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0


class DamagedError(Exception):
    """A spool file does not hold what is noted of it."""


class SpoolFullError(RefusedError):
    """The quota of the spools is used up."""


class Quota:
    """A bound on the bytes of all spools of a tree. Thread-safe (one lock, a leaf)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._used = 0  # guarded by _lock

    @property
    def used(self) -> int:
        """Bytes in use."""
        return self._used

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


class Spool:
    """The bytes that were written to a file so far, in memory while it is small, else in a file that only we can read.

    Owned by a draft. Thread-safe: one lock, held over memory and local disk only. Positions that were never
    written are no part of it: `missing` tells them; what `pread` returns for them means nothing. The space of a large
    file is freed in a short-lived thread of its own.
    """

    def __init__(self, directory: Path, quota: Quota, *, memory_limit: int) -> None:
        self._directory = directory
        self._quota = quota
        self._memory_limit = memory_limit
        self._lock = threading.RLock()
        # guarded by _lock
        self._written = Intervals()
        self._memory: bytearray | None = bytearray()
        self._fd = -1
        self._closed = False
        self._shared = False
        self.path: Path | None = None  # of the file, once there is one

    @property
    def limit(self) -> int:
        """The most that this and all spools beside it may hold."""
        return self._quota.limit

    @property
    def used(self) -> int:
        """Bytes that were written, each position counted once."""
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
        """Whether another process may take the file over."""
        return self._shared

    @property
    def end(self) -> int:
        """One past the last position that was written."""
        with self._lock:
            ranges = list(self._written)
            return ranges[-1][1] if ranges else 0

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Store `data`; raises `SpoolFullError`, or OSError when the disk is full: then nothing has changed."""
        end = offset + len(data)
        with self._lock:
            self._check_open()
            new = self._written.count_missing(offset, end)
            if new:
                self._quota.take(new)
            try:
                self._store(offset, end, data)
            except BaseException:
                self._quota.give(new)
                raise
            self._written.add(offset, end)

    def _store(self, offset: int, end: int, data: bytes | memoryview) -> None:
        memory = self._memory
        if memory is not None and end > self._memory_limit:
            self.to_disk()
            memory = None
        if memory is None:
            _write_all(self._fd, data, offset)
            return
        if offset > len(memory):
            memory.extend(bytes(offset - len(memory)))
        memory[offset:end] = data

    def to_disk(self) -> Path:
        """Move what is in memory to the file, if it is not there yet; return the file's path."""
        with self._lock:
            self._check_open()
            if self.path is None:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                path = self._directory / f"{secrets.token_hex(12)}.spool"
                unlocked = path.with_suffix(".new")
                fd = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # tells other processes that it is in use
                    unlocked.rename(path)
                    _write_all(fd, self._memory or b"", 0)
                except BaseException:
                    os.close(fd)
                    unlocked.unlink(missing_ok=True)
                    path.unlink(missing_ok=True)
                    raise
                self._fd, self.path, self._memory = fd, path, None
            return self.path

    def adopt(self, path: Path, ranges: list[tuple[int, int]]) -> None:
        """Take over a spool file that an earlier process left, with what it says is written.

        Only for a new spool. What is there beyond the ranges stays until `truncate`. Raises BlockingIOError where
        another process uses the file, `DamagedError` where it is shorter, `SpoolFullError`, OSError.
        """
        with self._lock:
            total = sum(end - start for start, end in ranges)
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_size < max((end for _, end in ranges), default=0):
                    raise DamagedError(f"{path}: shorter than noted")
                self._quota.take(total)
            except BaseException:
                os.close(fd)
                raise
            self._fd = fd
            self.path, self._memory = path, None
            for start, end in ranges:
                self._written.add(start, end)

    def share(self) -> None:
        """Let another process take the file over, until `reclaim`."""
        with self._lock:
            if self._fd >= 0:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
                self._shared = True

    def reclaim(self) -> bool:
        """Have a shared file for ourselves again; tell whether it is still there as we know it, and nobody uses it."""
        with self._lock:
            if not self._shared:
                return not self._closed
            if self._closed or not _lock_patiently(self._fd):
                return False
            found = os.fstat(self._fd)
            if found.st_nlink == 0 or found.st_size != self.end:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
                return False
            self._shared = False
            return True

    def sync(self) -> None:
        """Make what was written survive a crash of the machine."""
        with self._lock:
            fd = os.dup(self._fd) if self.to_disk() else -1
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def pread(self, offset: int, size: int) -> bytes:
        """Return `size` bytes."""
        with self._lock:
            self._check_open()
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
        """Forget everything from `size` on."""
        with self._lock:
            self._check_open()
            self._quota.give(self._written.truncate(size))
            if self._memory is not None:
                del self._memory[size:]
            elif os.fstat(self._fd).st_size > size:
                os.ftruncate(self._fd, size)

    def close(self) -> None:
        """Drop everything, the file too. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            size = self._written.total
            self._quota.give(size)
            self._memory = None
            fd, self._fd = self._fd, -1
            if self.path is not None:
                self.path.unlink(missing_ok=True)
            if fd >= 0:
                _close(fd, frees=size if self.path is not None else 0)

    def release(self) -> None:
        """Close, but leave the file for a later process (`adopt`). Idempotent."""
        with self._lock:
            self.path = None
            self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RefusedError("the file was removed while it was being written")


def _close(fd: int, *, frees: int) -> None:
    """Close a file, which frees so many bytes of the disk: no client waits for it where they are many."""
    if frees >= _LARGE_BYTES:
        with contextlib.suppress(RuntimeError):  # no more threads: then it takes its time
            threading.Thread(target=os.close, args=(fd,), name="sftp-spool").start()
            return
    os.close(fd)


def _lock_patiently(fd: int) -> bool:
    """Lock the file; others look at it for a moment only, unless they use it."""
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
