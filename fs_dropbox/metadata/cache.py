"""`MetadataCache`: entries, complete listings and remembered absences. Never I/O, never a callback."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf
from typing import Final

from cachetools import LRUCache

from fs_dropbox.entries import DeletedEntry, Entry, FileEntry, FolderEntry
from fs_dropbox.metadata.epochs import Cuts, Epochs
from fs_dropbox.metadata.known import ABSENT, Absence, Listing, Present, Slot, says_same
from fs_dropbox.paths import ancestors, other_keys, parent

UNFOLLOWED_SECONDS: Final = 5.0  # is believed what was asked for before the feed followed, once it does
TRUSTED_SECONDS: Final = 130.0  # is a feed that says no more: longer than any longpoll takes
_HEARD_AT_ONCE: Final = 100  # others want to look, too
# Where the system has a clock that goes on while the machine sleeps, as people's do: Linux, macOS, else as it is.
_CLOCKS: Final = [getattr(time, name) for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC") if hasattr(time, name)]
_elapsed: Final = partial(time.clock_gettime, _CLOCKS[0]) if _CLOCKS else time.monotonic


class MetadataCache:
    """What is known of the account, by folded path. Thread-safe; owned by DropboxFS.

    One lock over everything, a leaf. What was asked for since `follow()` needs no expiry while `trust(True)` holds, for
    `TRUSTED_SECONDS`: the change feed reports every change of it. Anything else is believed for `ttl_seconds`, not at
    all if that is negative; and while the feed can be trusted, for `UNFOLLOWED_SECONDS` at most, as changes are to be
    seen within seconds then. Bounded: the least recently used is dropped above `max_entries`.

    The epoch rule: take `epoch()` before a request, give it back with the answer. What may be older than a change that
    is known by now changes nothing that is known: an answer is not stored; and of two changes in no known order, an own
    one and another, nothing is believed any more. (Revs carry no order, so the order comes from here.)
    """

    def __init__(
        self, *, ttl_seconds: float = 30.0, max_entries: int = 300_000, now: Callable[[], float] = _elapsed
    ) -> None:
        self._ttl_seconds = ttl_seconds
        self._max_entries = max_entries
        self._now = now
        self._lock = threading.Lock()
        # guarded by _lock
        self._epochs = Epochs()
        self._followed_from = 0  # what was asked for from this epoch on is followed by the feed
        self._trusted_until = -inf
        self._cuts = Cuts(2 * max_entries)
        self._held: Counter[str] = Counter()
        self._shown: dict[str, Present | Absence] = {}  # what is to be seen at held keys, unless nobody knows
        self._slots: LRUCache[str, Slot] = LRUCache(max(1000, max_entries // 10))
        self._listings: LRUCache[str, Listing] = LRUCache(max_entries, getsizeof=lambda found: len(found.children) + 1)

    def epoch(self) -> int:
        """Return the present epoch; take it before the request whose answer is to be stored."""
        with self._lock:
            return self._epochs.now

    def follow(self) -> None:
        """Say that the change feed reports every change from now on; believed while `trust(True)` holds."""
        with self._lock:
            self._followed_from = self._epochs.advance()

    def trust(self, live: bool) -> None:
        """Say whether the change feed has reported every change up to now."""
        with self._lock:
            self._trusted_until = self._now() + TRUSTED_SECONDS if live else -inf

    @property
    def is_trusting(self) -> bool:
        """Whether the change feed is trusted."""
        return self._now() < self._trusted_until

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
            is_denied = isinstance(entry, FileEntry) and self._epochs.has_changed_below(key, epoch)
            if not is_denied and not self._is_outdated_locked(key, epoch):
                self._store_locked(key, entry, epoch, asked=epoch)

    def put_absent(self, key: str, epoch: int) -> None:
        """Store that there is nothing at `key`."""
        with self._lock:
            if not self._epochs.has_changed_below(key, epoch) and not self._is_outdated_locked(key, epoch):
                self._remove_locked(key, epoch, asked=epoch)
                if self._cuts.is_occupied(key):
                    self._cut_off_locked(key, is_own=False)

    @property
    def remembers(self) -> bool:
        """Whether what is stored now will be believed for any time."""
        with self._lock:
            return self.is_trusting or self._ttl_seconds > 0

    def put_listing(self, key: str, entries: Iterable[Present], epoch: int, *, age_seconds: float = 0.0) -> None:
        """Store the complete children of the folder `key`, the first of which Dropbox told so many seconds ago.

        What has changed of single children since `epoch` is newer, and stays as it is known.
        """
        with self._lock:
            known = self._listing_locked(key)
            children = self._updated_locked(key, entries, epoch)
            if children is None or len(children) >= self._max_entries or (known is not None and known.epoch > epoch):
                return
            self._occupy_locked(key)
            self._listings[key] = Listing(children, self._now() - age_seconds, epoch, epoch)
            for child in children:
                self._slots.pop(child, None)

    def updated(self, key: str, entries: Iterable[Present], epoch: int) -> list[Present] | None:
        """Return the children of a folder, which were asked for at `epoch`, with what has changed since, if known."""
        with self._lock:
            children = self._updated_locked(key, entries, epoch)
            return None if children is None else list(children.values())

    def apply(self, entry: Entry, *, since: int | None = None, with_contents: bool = False) -> None:
        """Take over what an own call, sent at `since`, has changed.

        A file replaces what was there and drops its children, a folder keeps them unless it has come `with_contents`,
        a deletion drops the whole subtree. What may be older than something else that is known is not believed, and
        neither is that, unless both say the same.
        """
        with self._lock:
            self._apply_locked(entry, since, with_contents)

    def apply_created(self, entry: FolderEntry, since: int) -> None:
        """Take over that an own call sent at `since` has made a folder: nothing is in it unless it was heard since."""
        with self._lock:
            key = entry.path_lower
            is_unheard = not self._epochs.is_stale(key, since) and not self._epochs.has_changed_below(key, since)
            if self._apply_locked(entry, since, with_contents=True) and is_unheard:
                self._occupy_locked(key)
                self._listings[key] = Listing({}, self._now(), self._epochs.now, since)

    def hear(self, entries: Sequence[Entry], since: int, *, has_more: bool = False) -> None:
        """Take over a page that the feed was told, asked for at `since`, in the order of the journal.

        What may be older than an own change is not believed, and neither is that, unless both say the same: an echo.
        A page may tell that something is gone which its rest brings back, so all of it counts at once; or the next
        one does, where it `has_more`: then any own change may be newer.
        """
        is_one = any(isinstance(entry, DeletedEntry) for entry in entries)
        at_once = len(entries) if is_one else _HEARD_AT_ONCE
        for begin in range(0, len(entries), at_once or 1):
            with self._lock:
                for entry in entries[begin : begin + at_once]:
                    self._hear_locked(entry, 0 if has_more else since)

    def _hear_locked(self, entry: Entry, since: int) -> None:
        key = entry.path_lower
        if key in self._held:
            self._epochs.changed(key, is_own=False, is_news=not isinstance(entry, DeletedEntry))
        else:
            is_contested = self._epochs.is_own_newer(key, since, is_folder=isinstance(entry, FolderEntry))
            self._take_over_locked(entry, is_contested, is_own=False, asked=self._epochs.now)

    @contextmanager
    def hold(self, shown: Mapping[str, Present | Absence]) -> Iterator[None]:
        """Show this at some keys while own calls go through states that nobody is to see, or what those have made.

        What the feed tells of them meanwhile is an echo of those calls or older than their end, which is then applied.
        """
        with self._lock:
            self._held.update(shown.keys())
            self._shown.update(shown)
        try:
            yield
        finally:
            with self._lock:
                self._held -= Counter(shown.keys())
                for key in shown.keys() - self._held.keys():
                    self._shown.pop(key, None)

    def doubt(self, key: str) -> None:
        """Forget what is believed of a key only because it is young: before changes that must not hit anything else."""
        with self._lock:
            known = self._listings.get(parent(key)), self._slots.get(key)
            if any(each is not None and not self._is_followed_locked(each) for each in known):
                self._forget_locked(key, is_own=False)
            self._revive_ancestors_locked(key, but_followed=True)

    def forget_tree(self, key: str) -> None:
        """Forget an entry, everything below it and that nothing is above it: an own call may have changed them."""
        with self._lock:
            self._shown.pop(key, None)
            self._forget_locked(key, is_own=True)
            self._epochs.came_below(key, is_own=True)
            self._cut_off_locked(key, is_own=True)
            self._revive_ancestors_locked(key)

    def clear(self) -> None:
        """Forget everything; answers to requests under way are not stored."""
        with self._lock:
            self._shown.clear()
            self._clear_locked()

    def _clear_locked(self) -> None:
        self._epochs.outdate()
        self._slots.clear()
        self._listings.clear()
        self._cuts.clear()

    def _get_locked(self, key: str) -> Present | Absence | None:
        if key in self._shown:
            return self._shown[key]
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

    def _slot_locked(self, key: str) -> Slot | None:
        slot = self._slots.get(key)
        if slot is not None and not self._is_believed_locked(slot, parent(key)):
            del self._slots[key]
            return None
        return slot

    def _listing_locked(self, key: str) -> Listing | None:
        listing = self._listings.get(key)
        if listing is not None and not self._is_believed_locked(listing, key):
            del self._listings[key]
            return None
        return listing

    def _is_believed_locked(self, known: Slot | Listing, folder: str) -> bool:
        """Tell whether what is known of a folder, or of something in it, is neither too old nor of what is gone."""
        most = min(self._ttl_seconds, UNFOLLOWED_SECONDS) if self.is_trusting else self._ttl_seconds
        is_fresh = self._is_followed_locked(known) or self._now() - known.stored <= most
        return is_fresh and not self._cuts.concern(folder, known.epoch)

    def _is_followed_locked(self, known: Slot | Listing) -> bool:
        return known.asked >= self._followed_from and self.is_trusting

    def _is_outdated_locked(self, key: str, epoch: int) -> bool:
        """Tell whether an answer about one key is older than what is known."""
        if key in self._held or self._epochs.is_stale(key, epoch):
            return True
        known = self._listing_locked(parent(key)) if key else None, self._slots.get(key)
        return any(each is not None and each.epoch > epoch for each in known)

    def _apply_locked(self, entry: Entry, since: int | None, with_contents: bool) -> bool:
        key = entry.path_lower
        is_folder = isinstance(entry, FolderEntry)
        is_contested = since is not None and self._epochs.is_any_newer(key, since, is_folder=is_folder)
        if with_contents:
            self._cut_off_locked(key, is_own=True)
        self._take_over_locked(entry, is_contested, is_own=True, asked=self._epochs.now if since is None else since)
        if key in self._held:
            self._shown[key] = ABSENT if isinstance(entry, DeletedEntry) else entry
        if not isinstance(entry, DeletedEntry):
            self._epochs.came_below(key, is_own=True)
        return not is_contested

    def _take_over_locked(self, entry: Entry, is_contested: bool, *, is_own: bool, asked: int) -> None:
        """Store what has changed, or forget what two changes in no known order have left, unless both say the same."""
        key = entry.path_lower
        for other in other_keys(key):
            self._forget_locked(other, is_own=is_own)
            self._cut_off_locked(other, is_own=is_own)
        is_same = says_same(self._get_locked(key), entry)
        if is_contested and not is_same:
            self._forget_locked(key, is_own=is_own)
            if not isinstance(entry, FolderEntry):
                self._cut_off_locked(key, is_own=is_own)
            if not isinstance(entry, DeletedEntry):
                self._revive_ancestors_locked(key)
            return
        is_news = is_own or not is_same or isinstance(entry, DeletedEntry)  # what was gone may have been there since
        self._epochs.changed(key, is_own=is_own, is_news=is_news)
        epoch = self._epochs.now
        if isinstance(entry, DeletedEntry):
            self._remove_locked(key, epoch, asked)
            self._cut_off_locked(key, is_own=is_own)
            return
        self._revive_ancestors_locked(key)
        if isinstance(entry, FileEntry):
            self._cut_off_locked(key, is_own=is_own)
        self._store_locked(key, entry, epoch, asked)
        if is_news and not is_own:
            self._epochs.came_below(key, is_own=False)

    def _store_locked(self, key: str, entry: Present, epoch: int, asked: int) -> None:
        listing = self._listing_locked(parent(key)) if key else None
        if listing is not None and asked < self._followed_from <= listing.asked:
            del self._listings[parent(key)]  # of which everything is believed for longer
            listing = None
        if listing is None:
            self._occupy_locked(parent(key))
            self._slots[key] = Slot(entry, self._now(), epoch, asked)
            return
        listing.children[key] = entry
        self._slots.pop(key, None)
        self._resize_locked(parent(key), listing)

    def _remove_locked(self, key: str, epoch: int, asked: int) -> None:
        listing = self._listing_locked(parent(key))
        if listing is None or not key.isascii():
            self._occupy_locked(parent(key))
            self._slots[key] = Slot(ABSENT, self._now(), epoch, asked)
        else:
            self._slots.pop(key, None)
        if listing is not None and listing.children.pop(key, None) is not None:
            self._resize_locked(parent(key), listing)

    def _updated_locked(self, key: str, entries: Iterable[Present], epoch: int) -> dict[str, Present] | None:
        """Return the children of a folder, asked for at `epoch`, as they are now; None where that is not known."""
        if self._epochs.is_stale(key, epoch):
            return None
        children = {entry.path_lower: entry for entry in entries}
        newer: dict[str, Present | Absence] = {}
        for child in self._held:
            if parent(child) == key:
                if (known := self._get_locked(child)) is None:
                    return None
                newer[child] = known
        for child, changed, below in self._epochs.changes_in(key, epoch):
            if changed > epoch and child not in newer:
                slot = self._slot_locked(child)
                if slot is None or slot.epoch < changed:
                    return None
                newer[child] = slot.value
            if below > max(changed, epoch) and not isinstance(newer.get(child, children.get(child)), FolderEntry):
                return None
        for child, value in newer.items():
            if value is ABSENT:
                children.pop(child, None)
            else:
                children[child] = value
        return children

    def _resize_locked(self, key: str, listing: Listing) -> None:
        """Let the table know the new size of a listing."""
        if len(listing.children) < self._max_entries:
            self._listings[key] = listing
        else:
            del self._listings[key]

    def _revive_ancestors_locked(self, key: str, *, but_followed: bool = False) -> None:
        """Something may exist at `key`, so every folder above may: forget what denies it, `but_followed` knowledge."""

        def denies(known: Slot | Listing | None, value: object) -> bool:
            if known is None or isinstance(value, FolderEntry):
                return False
            return not (but_followed and self._is_followed_locked(known))

        for above in ancestors(key):
            slot, listing = self._slots.get(above), self._listings.get(parent(above))
            if denies(slot, slot and slot.value):
                del self._slots[above]
            if denies(listing, listing and listing.children.get(above)):
                del self._listings[parent(above)]

    def _forget_locked(self, key: str, *, is_own: bool) -> None:
        self._epochs.changed(key, is_own=is_own)
        self._slots.pop(key, None)
        if key:
            self._listings.pop(parent(key), None)

    def _cut_off_locked(self, key: str, *, is_own: bool) -> None:
        """Believe nothing that was known, or asked for, of what is below a key by now."""
        self._epochs.emptied(key, is_own=is_own)
        self._listings.pop(key, None)
        if not self._cuts.cut(key, self._epochs.now):
            self._clear_locked()

    def _occupy_locked(self, key: str) -> None:
        if not self._cuts.occupy(key):
            self._clear_locked()
            self._cuts.occupy(key)
