"""`Allowance`: how much a user's directory may hold, in bytes and files, and how much it does. Knows no SFTP."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fs import errors
from fs.base import FS

from sftp_gateway.files.listing import sizes_below
from sftp_gateway.sftp import attributes
from sftp_gateway.sftp.status import RefusedError

REMEASURE_SECONDS = 300.0
DOUBT_SECONDS = 10.0  # an older measurement is repeated before somebody is refused for it
_DOUBT_FACTOR = 10  # or one that is older than so many times the seconds that it took


@dataclass(eq=False)
class _Change:
    """A change under way: what is counted for it until its outcome is known."""

    size: int
    files: int
    moment: int  # of its beginning: see `Allowance._moment`


class Allowance:
    """The quota of a directory; one for all sessions of a process that see it. Owned by `Allowances`. Thread-safe.

    The directory is measured by one walk before the first write, and again by the first write after a few minutes. In
    between, the changes of our own sessions are counted, by what is there before and after each; what others add counts
    with the next measurement. A change under way during a measurement may or may not be seen by it, and is counted as
    if it were not: the count is never too low, and before a refusal the directory is measured once more. One leaf lock
    over the numbers; another one around measuring, so that it is done once for all who wait.
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
        self._measured_in = 0.0  # seconds
        self._moment = 0  # incremented whenever measuring begins, and whenever it ends: odd during it
        self._under_way: set[_Change] = set()
        self._added = (0, 0)  # bytes and files that were added since the last measurement began

    def room(self, path: str) -> Room | None:
        """Return how large the file at `path` may become; None if only the number of files is limited.

        Raises `RefusedError` if it would be one file too many.
        """
        self._measure()
        old = self._size(path)
        if old is None:
            self._check(1, 1)
        return Room(self, old or 0) if self._max_bytes else None

    @property
    def left(self) -> int:
        """How many bytes are left, as far as is known."""
        with self._lock:
            return self._max_bytes - self._bytes

    def usage(self, total: int, used: int) -> tuple[int, int]:
        """Return total and used bytes as this quota shows them, in a storage with `total` and `used`."""
        if not self._max_bytes:
            return total, used
        self._measure()
        left = min(self.left, total - used)
        return self._max_bytes, self._max_bytes - max(0, left)

    @contextlib.contextmanager
    def counting(self, *paths: str, size: int | None = None) -> Iterator[None]:
        """Count what the block changes about the files at `paths`, whose turn the caller has.

        With `size`, the block stores the first of them with so many bytes: refused if that is too much.
        """
        if size is None and self._measured_at is None:
            yield
            return
        self._measure()
        before = self._sizes(paths)
        more, files = (size - sum(before), int(not before)) if size is not None else (0, 0)
        change = self._check(more, files, begin=True)
        try:
            yield
        finally:
            try:
                after = self._sizes(paths)
            except Exception:  # noqa: BLE001 - the outcome is unknown until the next measurement
                self._end(change, change.size, change.files)
            else:
                self._end(change, sum(after) - sum(before), len(after) - len(before))

    def _check(self, more: int, files: int, *, begin: bool = False) -> _Change:
        """Refuse so many more bytes and files if that is too much; with `begin`, count them as a change under way."""
        while True:
            with self._lock:
                too_large = self._max_bytes and more > 0 and self._bytes + more > self._max_bytes
                if not too_large and not (self._max_files and files > 0 and self._files + files > self._max_files):
                    change = _Change(max(0, more), max(0, files), self._moment)
                    if begin:
                        self._under_way.add(change)
                        self._add(change.size, change.files)
                    return change
                refusal = self._refusal()
            if not self._measure(max(DOUBT_SECONDS, _DOUBT_FACTOR * self._measured_in)):
                raise refusal

    def _end(self, change: _Change, more: int, files: int) -> None:
        with self._lock:
            self._under_way.discard(change)
            if change.moment != self._moment or self._moment % 2:  # a measurement may have seen it or not
                more, files = max(0, more), max(0, files)
            self._add(more - change.size, files - change.files)

    def _add(self, more: int, files: int) -> None:
        self._bytes += more
        self._files += files
        self._added = self._added[0] + more, self._added[1] + files

    def _measure(self, seconds: float = REMEASURE_SECONDS) -> bool:
        """Measure the directory, unless that was done within `seconds`; return whether it was measured."""
        with self._measuring:
            begun = self._clock()
            if self._measured_at is not None and begun - self._measured_at < seconds:
                return False
            with self._lock:
                self._moment += 1
                under_way = self._under_way
                self._added = sum(each.size for each in under_way), sum(each.files for each in under_way)
            try:
                found = self._sizes_there()
                with self._lock:
                    self._bytes, self._files = sum(found) + self._added[0], len(found) + self._added[1]
                    self._measured_at = self._clock()
                    self._measured_in = self._measured_at - begun
            finally:
                with self._lock:
                    self._moment += 1
            return True

    def _sizes_there(self) -> list[int]:
        """Return the sizes of all files that are there."""
        if not self._filesystem.getmeta().get("atomic_writes"):
            return list(sizes_below(self._filesystem, self._root))
        walk = self._filesystem.walk.info(self._root, ["details"])  # the filesystem may have a faster way
        return [info.size for _, info in walk if not info.is_dir]

    def _sizes(self, paths: Iterable[str]) -> list[int]:
        """Return the sizes of the files that are there."""
        return [size for path in paths if (size := self._size(path)) is not None]

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


class Room:
    """How large one file that is being written may become within a quota."""

    def __init__(self, allowance: Allowance, old: int) -> None:
        """Know that the file replaces `old` bytes."""
        self._allowance = allowance
        self._old = old

    @property
    def size(self) -> int:
        """How large it may become, as far as is known without waiting."""
        return max(0, self._old + self._allowance.left)


def counting(
    allowance: Allowance | None, *paths: str, size: int | None = None
) -> contextlib.AbstractContextManager[None]:
    """Return `allowance.counting(...)`, or a context that does nothing without an allowance."""
    return allowance.counting(*paths, size=size) if allowance is not None else contextlib.nullcontext()


class Allowances:
    """The quotas of a filesystem: one for each directory and limits, shared by all sessions. Owned by a `Store`.

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
