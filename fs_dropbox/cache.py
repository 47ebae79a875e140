"""`MetadataCache`: entries, complete listings and remembered absences. Never I/O, never a callback."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Final, TypeVar

from cachetools import LRUCache

from fs_dropbox.entries import DeletedEntry, Entry, FileEntry, FolderEntry
from fs_dropbox.paths import parent

T = TypeVar("T")
Present = FileEntry | FolderEntry


class Absence(enum.Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absence.ABSENT
_EPOCHS_KEPT: Final = 10_000


@dataclass(slots=True)
class _Slot:
    value: Present | Absence
    stored: float


@dataclass(slots=True)
class _Listing:
    children: dict[str, Present]
    stored: float


class MetadataCache:
    """What is known of the account, by folded path. Thread-safe; owned by DropboxFS.

    One lock over everything, a leaf. While `trusted()` (the change feed is live) nothing expires; otherwise entries are
    believed for `ttl_seconds`. Bounded: the least recently used is dropped above `max_entries`.

    The epoch rule: take `epoch()` before a request, give it back with the answer. What has changed since is not
    overwritten by the late answer. (Revs carry no order, so the order comes from here.)
    """

    def __init__(
        self,
        *,
        ttl_seconds: float = 30.0,
        max_entries: int = 300_000,
        trusted: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl_seconds = ttl_seconds
        self._max_entries = max_entries
        self._trusted = trusted
        self._now = now
        self._lock = threading.Lock()
        # guarded by _lock
        self._epoch = 0
        self._floor = 0  # answers to requests before this epoch are not stored at all
        self._changed: LRUCache[str, int] = LRUCache(_EPOCHS_KEPT)  # key -> epoch of its last change
        self._changed_below: LRUCache[str, int] = LRUCache(_EPOCHS_KEPT)  # the same of its whole subtree
        self._changed_children: LRUCache[str, int] = LRUCache(_EPOCHS_KEPT)  # the same of its set of children
        self._slots: LRUCache[str, _Slot] = LRUCache(max(1000, max_entries // 10))
        self._listings: LRUCache[str, _Listing] = LRUCache(max_entries, getsizeof=lambda found: len(found.children) + 1)

    def epoch(self) -> int:
        """Return the present epoch; take it before the request whose answer is to be stored."""
        with self._lock:
            return self._epoch

    def get(self, key: str) -> Present | Absence | None:
        """Return the entry, ABSENT where it is known that there is none, or None where nothing is known."""
        with self._lock:
            listing = self._fresh_listing_locked(parent(key)) if key else None
            if listing is not None:
                known = listing.children.get(key)
                # The server's lower-casing of other scripts may differ from ours, so only for ASCII is this the proof.
                if known is not None or key.isascii():
                    return ABSENT if known is None else known
            slot = self._slots.get(key)
            if slot is not None and self._fresh(slot.stored):
                return slot.value
            return self._absent_ancestor_locked(key)

    def listing(self, key: str) -> list[Present] | None:
        """Return the complete children of a folder, or None where they are not known."""
        with self._lock:
            listing = self._fresh_listing_locked(key)
            return None if listing is None else list(listing.children.values())

    def put(self, entry: Present, epoch: int) -> None:
        """Store the answer to a request that was sent at `epoch`."""
        with self._lock:
            key = entry.path_lower
            if not self._is_stale_locked(key, epoch):
                self._store_locked(key, entry)

    def put_absent(self, key: str, epoch: int) -> None:
        """Store that there is nothing at `key`."""
        with self._lock:
            if not self._is_stale_locked(key, epoch):
                self._slots[key] = _Slot(ABSENT, self._now())

    def put_listing(self, key: str, entries: Iterable[Present], epoch: int) -> None:
        """Store the complete children of the folder `key`."""
        with self._lock:
            if self._is_stale_locked(key, epoch) or self._changed_children.get(key, 0) > epoch:
                return
            listing = _Listing({entry.path_lower: entry for entry in entries}, self._now())
            if len(listing.children) < self._max_entries:
                self._listings[key] = listing
                for child in listing.children:
                    self._slots.pop(child, None)

    def apply(self, entry: Entry, *, since: int | None = None) -> None:
        """Take over a change, local or foreign, in the order in which they happened (API facts, section 4).

        A file replaces what was there and drops its children, a folder keeps them, a deletion drops the whole subtree.
        With `since`, the epoch before the request that told of the change: where something newer is known of the key
        by now, the two are in no known order, and the entry is forgotten instead.
        """
        with self._lock:
            key = entry.path_lower
            if since is not None and max(self._changed.get(key, 0), self._changed_children.get(key, 0)) > since:
                self._forget_locked(key)
                return
            self._bump_locked(key)
            if not isinstance(entry, FolderEntry) and not isinstance(self._known_locked(key), FileEntry):
                self._drop_below_locked(key)
            if isinstance(entry, DeletedEntry):
                self._remove_locked(key)
            else:
                self._revive_ancestors_locked(key)
                self._store_locked(key, entry)

    def forget(self, key: str) -> None:
        """Forget one entry, and that its parent's listing is complete; late answers about it are not stored."""
        with self._lock:
            self._forget_locked(key)

    def forget_tree(self, key: str) -> None:
        """Forget an entry and everything below it."""
        with self._lock:
            self._bump_locked(key)
            self._drop_below_locked(key)
            self._slots.pop(key, None)
            if key:
                self._listings.pop(parent(key), None)

    def clear(self) -> None:
        """Forget everything; answers to requests under way are not stored."""
        with self._lock:
            self._epoch += 1
            self._floor = self._epoch
            self._slots.clear()
            self._listings.clear()

    def _forget_locked(self, key: str) -> None:
        self._bump_locked(key)
        self._slots.pop(key, None)
        self._listings.pop(parent(key), None)

    def _known_locked(self, key: str) -> Present | Absence | None:
        listing = self._listings.get(parent(key))
        slot = self._slots.get(key)
        return listing.children.get(key) if listing is not None else slot.value if slot is not None else None

    def _fresh(self, stored: float) -> bool:
        return self._trusted() or self._now() - stored <= self._ttl_seconds

    def _fresh_listing_locked(self, key: str) -> _Listing | None:
        listing = self._listings.get(key)
        if listing is None:
            return None
        if self._fresh(listing.stored):
            return listing
        del self._listings[key]
        return None

    def _absent_ancestor_locked(self, key: str) -> Absence | None:
        """Tell ABSENT where a folder above is known to be missing."""
        for above in _ancestors(key):
            listing = self._fresh_listing_locked(parent(above))
            if listing is not None:
                known = listing.children.get(above)
                return ABSENT if known is None and above.isascii() else None
            slot = self._slots.get(above)
            if slot is not None and self._fresh(slot.stored):
                return ABSENT if slot.value is ABSENT else None
        return None

    def _store_locked(self, key: str, entry: Present) -> None:
        listing = self._listings.get(parent(key)) if key else None
        if listing is None:
            self._slots[key] = _Slot(entry, self._now())
            return
        listing.children[key] = entry
        self._slots.pop(key, None)
        self._listings[parent(key)] = listing  # its size has changed

    def _remove_locked(self, key: str) -> None:
        listing = self._listings.get(parent(key))
        if listing is None:
            self._slots[key] = _Slot(ABSENT, self._now())
            return
        listing.children.pop(key, None)
        self._listings[parent(key)] = listing

    def _revive_ancestors_locked(self, key: str) -> None:
        """Something exists at `key`, so every folder above does: forget what says otherwise."""
        for above in _ancestors(key):
            slot = self._slots.get(above)
            if slot is not None and not isinstance(slot.value, FolderEntry):
                self._bump_locked(above)
                del self._slots[above]
            listing = self._listings.get(parent(above))
            if listing is not None and not isinstance(listing.children.get(above), FolderEntry):
                self._bump_locked(above)
                del self._listings[parent(above)]

    def _drop_below_locked(self, key: str) -> None:
        self._changed_below[key] = self._epoch
        self._listings.pop(key, None)
        prefix = key + "/"
        for table in (self._slots, self._listings):
            for below in [known for known in table if known.startswith(prefix)]:
                del table[below]

    def _bump_locked(self, key: str) -> None:
        self._epoch += 1
        for table, changed in ((self._changed, key), (self._changed_children, parent(key))):
            if len(table) == _EPOCHS_KEPT and changed not in table:
                self._floor = self._epoch  # an epoch is about to be lost: be strict with everything under way
            table[changed] = self._epoch

    def _is_stale_locked(self, key: str, epoch: int) -> bool:
        if epoch < self._floor or self._changed.get(key, 0) > epoch:
            return True
        return any(self._changed_below.get(above, 0) > epoch for above in (key, *_ancestors(key), ""))


def _ancestors(key: str) -> Iterator[str]:
    """Yield the folders above `key`, nearest first, without the root."""
    above = parent(key)
    while above:
        yield above
        above = parent(above)


class SingleFlight:
    """Equal calls that are under way at the same time share one. Thread-safe; one lock over the table, a leaf."""

    def __init__(self, *, wait_seconds: float = 300.0) -> None:
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._calls: dict[object, Future[object]] = {}  # guarded by _lock

    def do(self, key: object, work: Callable[[], T]) -> T:
        """Return or raise what `work()` does, or the same call under way; TimeoutError after the bound."""
        with self._lock:
            future = self._calls.get(key)
            leads = future is None
            if future is None:
                future = self._calls[key] = Future()
        if not leads:
            try:
                return future.result(self._wait_seconds)  # type: ignore[return-value]
            except FutureTimeoutError:
                if future.done():
                    raise
                raise TimeoutError(f"no answer within {self._wait_seconds:g} s") from None
        try:
            result = work()
        except BaseException as error:
            self._end(key)
            future.set_exception(error)
            raise
        self._end(key)
        future.set_result(result)
        return result

    def _end(self, key: object) -> None:
        with self._lock:
            del self._calls[key]
