"""`Allowance`: how much a user's directory may hold, in bytes and files, and how much it does. Knows no SFTP."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from fs import errors
from fs.base import FS

from sftp_gateway.sftp import attributes
from sftp_gateway.sftp.status import RefusedError

REMEASURE_SECONDS = 300.0


class Allowance:
    """The quota of a directory; one for all sessions of a process that see it. Owned by `Allowances`. Thread-safe.

    The directory is measured by one walk when something is first written, and again by the next write after a while;
    between, what the sessions themselves change is counted. So what others add counts some minutes later.
    One lock over the numbers, a leaf; one around measuring, so that it is done once for all.
    """

    def __init__(
        self,
        filesystem: FS,
        root: str,
        *,
        max_bytes: int = 0,
        max_files: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Allow `max_bytes` and `max_files` (0: any number) below `root`."""
        self._filesystem = filesystem
        self._root = root or "/"
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._clock = clock
        self._measuring = threading.Lock()
        self._lock = threading.Lock()
        # guarded by _lock
        self._bytes = 0
        self._files = 0
        self._measured_at: float | None = None

    def room(self, path: str) -> int | None:
        """Return how large the file at `path` may become now; None where only the number of files is limited.

        Raises `RefusedError` where it may not be there at all.
        """
        self._measure()
        old = self._size(path)
        with self._lock:
            if old is None and self._max_files and self._files >= self._max_files:
                raise self._refusal()
            left = self._max_bytes - self._bytes + (old or 0)
            if self._max_bytes and left <= 0 and not old:
                raise self._refusal()
        return max(0, left) if self._max_bytes else None

    def usage(self, total: int, used: int) -> tuple[int, int]:
        """Return total and used bytes as they are for who may have this much of a storage with these."""
        if not self._max_bytes:
            return total, used
        self._measure()
        with self._lock:
            left = min(self._max_bytes - self._bytes, total - used)
        return self._max_bytes, self._max_bytes - max(0, left)

    @contextlib.contextmanager
    def charging(self, path: str, size: int) -> Iterator[None]:
        """Count the file at `path` with its new size, unless the block raises; refuse what is too much."""
        self._measure()
        old = self._size(path)
        more, files = size - (old or 0), int(old is None)
        with self._lock:
            too_large = self._max_bytes and more > 0 and self._bytes + more > self._max_bytes
            if too_large or (self._max_files and files and self._files >= self._max_files):
                raise self._refusal()
            self._bytes += more
            self._files += files
            measured_at = self._measured_at
        try:
            yield
        except BaseException:
            with self._lock:
                if measured_at == self._measured_at:  # else what was not stored is not counted any more
                    self._bytes -= more
                    self._files -= files
            raise

    @contextlib.contextmanager
    def releasing(self, path: str) -> Iterator[None]:
        """Count the file at `path` no longer, unless the block raises."""
        old = self._size(path) if self._measured_at is not None else None
        yield
        if old is not None:
            with self._lock:
                self._bytes -= old
                self._files -= 1

    def _measure(self) -> None:
        with self._measuring:
            if self._measured_at is not None and self._clock() - self._measured_at < REMEASURE_SECONDS:
                return
            found = [info.size for _, info in self._filesystem.walk.info(self._root, ["details"]) if not info.is_dir]
            with self._lock:
                self._bytes, self._files, self._measured_at = sum(found), len(found), self._clock()

    def _size(self, path: str) -> int | None:
        """Return the size of the file at `path`; None where there is none."""
        try:
            info = self._filesystem.getinfo(path, ["details"])
        except errors.ResourceNotFound:
            return None
        return None if attributes.is_directory(info) else attributes.from_info(info).size

    def _refusal(self) -> RefusedError:
        held = []
        if self._max_bytes:
            held.append(f"{self._bytes:,} of {self._max_bytes:,} bytes")
        if self._max_files:
            held.append(f"{self._files:,} of {self._max_files:,} files")
        return RefusedError(f"your quota is used up: {' and '.join(held)}")


class Allowances:
    """The quotas of a filesystem: one for all who see a directory within the same limits. Owned by a `Store`.

    Thread-safe: one lock, a leaf.
    """

    def __init__(self, filesystem: FS) -> None:
        self._filesystem = filesystem
        self._lock = threading.Lock()
        self._known: dict[tuple[str, tuple[int, int]], Allowance] = {}  # guarded by _lock

    def find(self, root: str, limits: tuple[int, int]) -> Allowance | None:
        """Return the quota of `root` within `limits` (bytes and files, 0 for any number); None without any."""
        if not any(limits):
            return None
        with self._lock:
            known = self._known.get((root, limits))
            if known is None:
                known = Allowance(self._filesystem, root, max_bytes=limits[0], max_files=limits[1])
                self._known[root, limits] = known
            return known
