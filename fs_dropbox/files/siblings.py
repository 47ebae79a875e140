"""`Siblings`: small files fetched ahead of whoever reads the files of a folder in order. Knows no HTTP, no paths."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fs_dropbox.entries import FileEntry

SMALL_BYTES: Final = 2**20  # larger files have a read-ahead of their own
RUN_BYTES: Final = 8 * 2**20  # the most that is fetched ahead in one folder: what is wasted when its reader stops
RUN_FILES: Final = 64
TOTAL_BYTES: Final = 32 * 2**20  # the most of all folders together
RUNS: Final = 64  # folders that are read in order at the same time
STEP_FILES: Final = 4  # several threads that share a folder open its files a little out of order
LATE_FILES: Final = 128  # what was passed over by more than so many is not opened any more
IDLE_SECONDS: Final = 60.0
LEFT_SECONDS: Final = 5.0  # a folder whose reader has paused for so long gives its bytes up to others
WAIT_SECONDS: Final = 300.0  # above every deadline of a call: a bound, not a policy
LOOK_SECONDS: Final = 10.0  # between two looks for an order: in a large folder they take milliseconds

Fetch = Callable[[FileEntry], bytes]
Submit = Callable[[Callable[[], bytes]], "Future[bytes]"]


class _Order:
    """The small files of a folder in an order in which they may be opened."""

    __slots__ = ("_positions", "files")

    def __init__(self, files: list[FileEntry]) -> None:
        self.files = files
        self._positions = {each.path_lower: position for position, each in enumerate(files)}

    def position(self, entry: FileEntry) -> int | None:
        return self._positions.get(entry.path_lower)

    def step(self, last: FileEntry, entry: FileEntry) -> int | None:
        """Return how many files on one is from the other; None where they are not in here."""
        here, before = self.position(entry), self.position(last)
        return None if here is None or before is None else here - before

    def is_near(self, last: FileEntry, entry: FileEntry) -> bool:
        """Tell whether a file may still be opened by whoever is at another one."""
        step = self.step(last, entry)
        return step is not None and -LATE_FILES <= step <= RUN_FILES


class _Held(NamedTuple):
    content: Future[bytes]
    entry: FileEntry


@dataclass(slots=True)
class _Run:
    """One folder whose files are being opened."""

    last: FileEntry
    used: float
    orders: Sequence[_Order] = ()  # that were looked for
    looked: float = 0.0
    order: _Order | None = None  # in which the files are opened, once that is known
    length: int = 0  # files opened in order so far
    ahead: int = 0  # position of the first file that is not fetched yet
    held: dict[str, _Held] = field(default_factory=dict)  # by rev: content that waits
    # the last revs that were opened: whoever did so fetches what was not fetched ahead by then
    opened: deque[str] = field(default_factory=lambda: deque(maxlen=LATE_FILES))


class Siblings:
    """Watches which small files are opened, and has the next ones fetched when there is an order in it.

    Thread-safe: one leaf lock over the runs; fetches run in other threads. Owned by DropboxFS. Content is known by its
    rev, so that what was fetched ahead is never out of date. Bounded by `TOTAL_BYTES` and `RUNS`.
    """

    def __init__(self, fetch: Fetch, submit: Submit, *, now: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._submit = submit
        self._now = now
        self._lock = threading.Lock()
        # guarded by _lock
        self._runs: OrderedDict[str, _Run] = OrderedDict()  # folder key -> run, oldest use first
        self._held_bytes = 0  # of all runs

    def opened(self, entry: FileEntry, folder: str, listing: Callable[[], Sequence[object] | None]) -> None:
        """Note that a file of the folder is opened for reading; `listing` gives what is in it, if that is known."""
        if not _is_small(entry):
            return
        with self._lock:
            run = self._run_locked(folder, entry)
            last = run.last
            if self._go_on_locked(run, entry) or last.path_lower == entry.path_lower:
                return
            is_old = not run.orders or self._now() - run.looked > LOOK_SECONDS
        orders = _orders(listing()) if is_old else ()
        with self._lock:
            if self._runs.get(folder) is not run:  # it has given way to others meanwhile
                return
            if is_old:
                run.orders, run.looked = orders, self._now()
            for order in run.orders:
                step = order.step(last, entry)
                if step is not None and 0 < step <= STEP_FILES:
                    run.order, run.length, run.ahead = order, 2, 0
                    self._fetch_ahead_locked(run, order)
                    return

    def take(self, entry: FileEntry, folder: str) -> bytes | None:
        """Return the content of a file if it was fetched ahead, waiting for a fetch under way; None otherwise.

        None as well where that fetch has failed, or takes too long: whoever fetches the file himself learns why.
        """
        with self._lock:
            run = self._runs.get(folder)
            held = run.held.pop(entry.rev, None) if run is not None else None
            if held is None:
                return None
            self._held_bytes -= held.entry.size
        content = held.content
        if content.cancel():  # it has not even begun
            return None
        with suppress(Exception):
            return content.result(WAIT_SECONDS)
        return None

    def close(self) -> None:
        """Forget everything. Idempotent."""
        with self._lock:
            for folder in list(self._runs):
                self._drop_locked(folder)

    def _run_locked(self, folder: str, entry: FileEntry) -> _Run:
        now = self._now()
        for idle in [each for each, run in self._runs.items() if now - run.used > IDLE_SECONDS]:
            self._drop_locked(idle)
        run = self._runs.get(folder)
        if run is None:
            run = self._runs[folder] = _Run(entry, now)
            while len(self._runs) > RUNS:
                self._drop_locked(next(iter(self._runs)))
        self._runs.move_to_end(folder)
        run.used = now
        run.opened.append(entry.rev)
        return run

    def _go_on_locked(self, run: _Run, entry: FileEntry) -> bool:
        """Go on with a run's order where a file is near, is late, or was fetched ahead; otherwise end that order.

        Threads that share a folder can be far apart. What was fetched for them is kept, or they would fetch it again,
        until it shows that nobody is near any more.
        """
        step = run.order.step(run.last, entry) if run.order is not None else None
        if run.order is None or step is None or (not -LATE_FILES <= step <= STEP_FILES and entry.rev not in run.held):
            run.last, run.order = entry, None
            return False
        if step > 0:
            run.last = entry
            run.length += 1
        self._fetch_ahead_locked(run, run.order)
        return True

    def _fetch_ahead_locked(self, run: _Run, order: _Order) -> None:
        here = order.position(run.last)
        if here is None:
            return
        self._forget_held_locked(run, but=order)
        run.ahead = max(run.ahead, here + 1)
        end = min(len(order.files), here + 1 + min(RUN_FILES, 2 * run.length))
        held = sum(each.entry.size for each in run.held.values())
        while run.ahead < end:
            entry = order.files[run.ahead]
            if held + entry.size > RUN_BYTES or not self._has_room_locked(entry.size, run):
                break
            if entry.rev not in run.held and entry.rev not in run.opened:
                run.held[entry.rev] = _Held(self._start(entry), entry)
                held += entry.size
                self._held_bytes += entry.size
            run.ahead += 1

    def _has_room_locked(self, size: int, run: _Run) -> bool:
        """Tell whether so much more may be held, if need be after forgetting what nobody came for."""
        for other in self._runs.values():
            if self._held_bytes + size <= TOTAL_BYTES:
                return True
            if other is not run and run.used - other.used > LEFT_SECONDS:
                self._forget_held_locked(other)
        return self._held_bytes + size <= TOTAL_BYTES

    def _start(self, entry: FileEntry) -> Future[bytes]:
        try:
            return self._submit(lambda: self._fetch(entry))
        except RuntimeError as error:  # the executor has ended, with its filesystem
            ended: Future[bytes] = Future()
            ended.set_exception(error)
            return ended

    def _drop_locked(self, folder: str) -> None:
        self._forget_held_locked(self._runs.pop(folder))

    def _forget_held_locked(self, run: _Run, *, but: _Order | None = None) -> None:
        """Forget what was fetched ahead, but for what is near in an order."""
        for rev, held in list(run.held.items()):
            if but is None or not but.is_near(run.last, held.entry):
                held.content.cancel()
                self._held_bytes -= held.entry.size
                del run.held[rev]


def _is_small(entry: FileEntry) -> bool:
    return 0 < entry.size <= SMALL_BYTES and entry.is_downloadable


def _orders(listing: Sequence[object] | None) -> Sequence[_Order]:
    """Return the orders in which clients open what is in a folder: as listed, by name, and part-2 before part-10."""
    if listing is None:
        return ()
    files = [each for each in listing if isinstance(each, FileEntry) and _is_small(each)]
    by_name = sorted(files, key=lambda each: each.name)
    by_number = sorted(by_name, key=lambda each: len(each.name))
    # By number first: where part-2 is next in all, it is part-10 after that in the others.
    return [_Order(each) for each in (by_number, files, by_name) if each is not by_name or by_name != by_number]
