"""`MetadataCache`: entries, complete listings and remembered absences. Never I/O, never a callback."""

from __future__ import annotations

import enum
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from fs_dropbox.entries import DeletedEntry, Entry, FileEntry, FolderEntry
from fs_dropbox.paths import ancestors, parent

Present = FileEntry | FolderEntry


class Absence(enum.Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absence.ABSENT
_EPOCHS_KEPT: Final = 20_000
_NOTHING: Final[Mapping[str, int]] = {}


@dataclass(slots=True)
class _Slot:
    value: Present | Absence
    stored: float
    epoch: int


@dataclass(slots=True)
class _Listing:
    children: dict[str, Present]
    stored: float
    epoch: int


class MetadataCache:
    """What is known of the account, by folded path. Thread-safe; owned by DropboxFS.

    One lock over everything, a leaf. What was asked for since `follow()` needs no expiry while `trust(True)` holds: the
    change feed reports every change of it. Anything else is believed for `ttl_seconds`, negative: not at all. Bounded:
    the least recently used is dropped above `max_entries`.

    The epoch rule: take `epoch()` before a request, give it back with the answer. What has changed since is not
    overwritten by the late answer. (Revs carry no order, so the order comes from here.)
    """

    def __init__(
        self,
        *,
        ttl_seconds: float = 30.0,
        max_entries: int = 300_000,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl_seconds = ttl_seconds
        self._max_entries = max_entries
        self._now = now
        self._lock = threading.Lock()
        # guarded by _lock
        self._epoch = 0
        self._floor = 0  # answers to requests before this epoch are not stored at all
        self._followed_from = 0  # what was asked for from this epoch on is followed by the feed
        self._trusted = False
        self._changed: LRUCache[str, int] = LRUCache(_EPOCHS_KEPT)  # key -> epoch of its last change
        self._changed_children: LRUCache[str, int] = LRUCache(_EPOCHS_KEPT)  # the same of its set of children
        # What is stored below a key, and its listing, counts only when it is newer than this.
        self._cut_off: LRUCache[str, int] = LRUCache(_EPOCHS_KEPT)
        self._held: Counter[str] = Counter()
        self._slots: LRUCache[str, _Slot] = LRUCache(max(1000, max_entries // 10))
        self._listings: LRUCache[str, _Listing] = LRUCache(max_entries, getsizeof=lambda found: len(found.children) + 1)

    def epoch(self) -> int:
        """Return the present epoch; take it before the request whose answer is to be stored."""
        with self._lock:
            return self._epoch

    def follow(self) -> None:
        """Say that the change feed reports every change from now on; believed while `trust(True)` holds."""
        with self._lock:
            self._epoch += 1
            self._followed_from = self._epoch

    def trust(self, live: bool) -> None:
        """Say whether the change feed has reported every change up to now."""
        with self._lock:
            self._trusted = live

    def get(self, key: str) -> Present | Absence | None:
        """Return the entry, ABSENT where it is known that there is none, or None where nothing is known."""
        with self._lock:
            return self._get_locked(key)

    def listing(self, key: str) -> list[Present] | None:
        """Return the complete children of a folder, or None where they are not known."""
        with self._lock:
            listing = self._listing_locked(key)
            return None if listing is None else list(listing.children.values())

    def put(self, entry: Present, epoch: int) -> None:
        """Store the answer to a request that was sent at `epoch`."""
        with self._lock:
            key = entry.path_lower
            is_denied = isinstance(entry, FileEntry) and self._changed_children.get(key, 0) > epoch
            if not is_denied and not self._is_stale_locked(key, epoch):
                self._store_locked(key, entry, epoch)

    def put_absent(self, key: str, epoch: int) -> None:
        """Store that there is nothing at `key`."""
        with self._lock:
            if self._changed_children.get(key, 0) <= epoch and not self._is_stale_locked(key, epoch):
                self._remove_locked(key, epoch)

    @property
    def remembers(self) -> bool:
        """Whether what is stored now will be believed for any time."""
        with self._lock:
            return self._trusted or self._ttl_seconds > 0

    def put_listing(self, key: str, entries: Iterable[Present], epoch: int, *, age_seconds: float = 0.0) -> None:
        """Store the complete children of the folder `key`, the first of which Dropbox told so many seconds ago.

        What has changed of single children since `epoch` is newer, and stays as it is known.
        """
        with self._lock:
            if self._is_stale_locked(key, epoch):
                return
            listing = _Listing({entry.path_lower: entry for entry in entries}, self._now() - age_seconds, epoch)
            if self._changed_children.get(key, 0) > epoch and not self._update_locked(key, listing.children, epoch):
                return
            if len(listing.children) < self._max_entries:
                self._listings[key] = listing
                for child in listing.children:
                    self._slots.pop(child, None)

    def apply(self, entry: Entry, *, since: int | None = None, told_at: Mapping[str, int] = _NOTHING) -> int | None:
        """Take over a change, local or foreign, in the order in which they happened (API facts, section 4).

        A file replaces what was there and drops its children, a folder keeps them, a deletion drops the whole subtree.
        With `since`, the epoch before the request that told of the change: where something newer is known of the key
        by now, or of a folder above it that is gone, the two are in no known order, and the entry is forgotten instead,
        unless both say the same: most often it is the echo of an own change. `told_at` are the epochs of what the same
        answers have told before, by key: of that key alone, nothing older is newer than they are. Returns the epoch of
        which what is known of the key is now, None where it was not taken over.
        """
        with self._lock:
            key = entry.path_lower
            if since is not None:
                if key in self._held:
                    self._bump_locked(key)
                    return None
                known_at = max(self._changed.get(key, 0), self._changed_children.get(key, 0))
                if known_at > told_at.get(key, since):
                    if not _is_same(self._get_locked(key), entry):
                        self._forget_locked(key)
                    return None
                if any(self._cut_off.get(each, 0) > told_at.get(each, since) for each in (*ancestors(key), "")):
                    if not isinstance(entry, DeletedEntry):
                        self._revive_ancestors_locked(key)
                    self._forget_locked(key)
                    return None
            self._bump_locked(key)
            if isinstance(entry, DeletedEntry):
                self._remove_locked(key, self._epoch)
            else:
                self._revive_ancestors_locked(key)
                if isinstance(entry, FileEntry):
                    self._cut_off_below_locked(key)
                self._store_locked(key, entry, self._epoch)
            return self._epoch

    def apply_created(self, entry: FolderEntry, epoch: int) -> None:
        """Take over that an own call sent at `epoch` has made a folder: nothing is in it unless it was heard since."""
        with self._lock:
            key = entry.path_lower
            unheard = not self._is_stale_locked(key, epoch) and self._changed_children.get(key, 0) <= epoch
            self._bump_locked(key)
            self._revive_ancestors_locked(key)
            self._store_locked(key, entry, self._epoch)
            if unheard:
                self._listings[key] = _Listing({}, self._now(), self._epoch)

    @contextmanager
    def hold(self, *keys: str) -> Iterator[None]:
        """Keep what is known of some keys while own calls go through states that nobody is to see.

        What the feed tells of them meanwhile is the echo of those calls or older than their end, which is then to be
        applied or forgotten.
        """
        with self._lock:
            self._held.update(keys)
        try:
            yield
        finally:
            with self._lock:
                self._held.subtract(keys)
                for key in keys:
                    if self._held[key] <= 0:
                        del self._held[key]

    def forget(self, key: str) -> None:
        """Forget one entry, and that its parent's listing is complete; late answers about it are not stored."""
        with self._lock:
            self._forget_locked(key)

    def doubt(self, key: str) -> None:
        """Forget what is believed of a key only because it is young: before changes that must not hit anything else."""
        with self._lock:
            known = self._listings.get(parent(key)) or self._slots.get(key)
            if known is not None and not self._is_followed_locked(known):
                self._forget_locked(key)

    def forget_tree(self, key: str) -> None:
        """Forget an entry and everything below it."""
        with self._lock:
            self._forget_locked(key)
            self._cut_off_locked(key)

    def clear(self) -> None:
        """Forget everything; answers to requests under way are not stored."""
        with self._lock:
            self._epoch += 1
            self._clear_locked()

    def _clear_locked(self) -> None:
        self._floor = self._epoch
        self._slots.clear()
        self._listings.clear()

    def _get_locked(self, key: str) -> Present | Absence | None:
        listing = self._listing_locked(parent(key)) if key else None
        if listing is not None:
            known = listing.children.get(key)
            # The server's lower-casing of other scripts may differ from ours, so only for ASCII is this the proof.
            if known is not None or key.isascii():
                return ABSENT if known is None else known
        slot = self._slot_locked(key)
        if slot is not None:
            return slot.value
        for above in ancestors(key):
            listing = self._listing_locked(parent(above))
            if listing is not None:
                return ABSENT if above not in listing.children and above.isascii() else None
            slot = self._slot_locked(above)
            if slot is not None:
                return ABSENT if slot.value is ABSENT else None
        return None

    def _slot_locked(self, key: str) -> _Slot | None:
        slot = self._slots.get(key)
        if slot is None:
            return None
        if self._is_fresh_locked(slot) and not self._is_cut_off_locked((*ancestors(key), ""), slot.epoch):
            return slot
        del self._slots[key]
        return None

    def _listing_locked(self, key: str) -> _Listing | None:
        listing = self._listings.get(key)
        if listing is None:
            return None
        if self._is_fresh_locked(listing) and not self._is_cut_off_locked((key, *ancestors(key), ""), listing.epoch):
            return listing
        del self._listings[key]
        return None

    def _is_followed_locked(self, known: _Slot | _Listing) -> bool:
        return self._trusted and known.epoch >= self._followed_from

    def _is_fresh_locked(self, known: _Slot | _Listing) -> bool:
        return self._is_followed_locked(known) or self._now() - known.stored <= self._ttl_seconds

    def _is_cut_off_locked(self, keys: Iterable[str], epoch: int) -> bool:
        return any(self._cut_off.get(key, 0) > epoch for key in keys)

    def _store_locked(self, key: str, entry: Present, epoch: int) -> None:
        listing = self._listing_locked(parent(key)) if key else None
        if listing is None:
            self._slots[key] = _Slot(entry, self._now(), epoch)
            return
        listing.children[key] = entry
        self._slots.pop(key, None)
        self._resize_locked(parent(key), listing)

    def _remove_locked(self, key: str, epoch: int) -> None:
        self._cut_off_below_locked(key)
        listing = self._listing_locked(parent(key))
        if listing is None or not key.isascii():
            self._slots[key] = _Slot(ABSENT, self._now(), epoch)
        else:
            self._slots.pop(key, None)
        if listing is not None and listing.children.pop(key, None) is not None:
            self._resize_locked(parent(key), listing)

    def _update_locked(self, key: str, children: dict[str, Present], epoch: int) -> bool:
        """Bring what was asked for at `epoch` up to date; False where what has changed since is not known any more."""
        for folder in [each for each in self._changed_children if each and parent(each) == key]:
            if folder not in children and self._changed_children[folder] > epoch:  # it was there then
                return False
        for child in [each for each in self._changed if parent(each) == key and each != key]:
            changed = self._changed.get(child, 0)
            if changed <= epoch:
                continue
            slot = self._slot_locked(child)
            if slot is None or slot.epoch < changed:
                return False
            if slot.value is ABSENT:
                children.pop(child, None)
            else:
                children[child] = slot.value
        return True

    def _resize_locked(self, key: str, listing: _Listing) -> None:
        """Let the table know the new size of a listing."""
        if len(listing.children) < self._max_entries:
            self._listings[key] = listing
        else:
            del self._listings[key]

    def _revive_ancestors_locked(self, key: str) -> None:
        """Something exists at `key`, so every folder above does: forget what says otherwise.

        They may have come into being together with it: those below the first that is known count as changed, too.
        """
        is_known = False
        for above in ancestors(key):
            slot = self._slot_locked(above)
            if slot is not None and not isinstance(slot.value, FolderEntry):
                self._bump_locked(above)
                del self._slots[above]
                slot = None
            listing = self._listing_locked(parent(above))
            if listing is not None and not isinstance(listing.children.get(above), FolderEntry):
                self._bump_locked(above)
                del self._listings[parent(above)]
                listing = None
            is_known = is_known or slot is not None or listing is not None
            if not is_known:
                self._epoch += 1
                self._note_locked(self._changed_children, parent(above))

    def _forget_locked(self, key: str) -> None:
        self._bump_locked(key)
        self._slots.pop(key, None)
        if key:
            self._listings.pop(parent(key), None)

    def _cut_off_below_locked(self, key: str) -> None:
        """Forget what is below a key at which there is no folder, unless it is known that there was none."""
        if key in self._listings or not (isinstance(known := self._get_locked(key), FileEntry) or known is ABSENT):
            self._cut_off_locked(key)

    def _cut_off_locked(self, key: str) -> None:
        self._epoch += 1
        self._listings.pop(key, None)
        if len(self._cut_off) == _EPOCHS_KEPT and key not in self._cut_off:
            self._clear_locked()  # an epoch is about to be lost
            self._cut_off.clear()
        self._cut_off[key] = self._epoch

    def _bump_locked(self, key: str) -> None:
        self._epoch += 1
        self._note_locked(self._changed, key)
        self._note_locked(self._changed_children, parent(key))

    def _note_locked(self, table: LRUCache[str, int], key: str) -> None:
        if len(table) == _EPOCHS_KEPT and key not in table:
            self._floor = self._epoch  # an epoch is about to be lost: be strict with everything under way
        table[key] = self._epoch

    def _is_stale_locked(self, key: str, epoch: int) -> bool:
        if epoch < self._floor or self._changed.get(key, 0) > epoch:
            return True
        return self._is_cut_off_locked((key, *ancestors(key), ""), epoch)


def _is_same(known: Present | Absence | None, entry: Entry) -> bool:
    """Tell whether a change leads to what is known already."""
    if isinstance(entry, DeletedEntry):
        return known is ABSENT
    if isinstance(entry, FileEntry):
        return isinstance(known, FileEntry) and (known.rev, known.name) == (entry.rev, entry.name)
    return isinstance(known, FolderEntry) and (known.id, known.name) == (entry.id, entry.name)
