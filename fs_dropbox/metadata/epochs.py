"""`Epochs`, `Cuts`: in which order requests were sent and changes became known. No I/O, no locks of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from fs_dropbox.paths import ancestors, parent

KEYS_KEPT: Final = 50_000
CUTS_KEPT: Final = 20_000


class _Notes:
    """Epochs of changes, by key: of the key itself, of all below it going at once, of something coming below it.

    Bounded: when it is full, everything is dropped, and every request from before counts as older than a change.
    """

    def __init__(self) -> None:
        self.clear(0)

    def clear(self, epoch: int) -> None:
        self.floor = epoch
        self.changed: dict[str, int] = {}
        self.emptied: dict[str, int] = {}
        self.below: dict[str, int] = {}

    def make_room(self, epoch: int) -> bool:
        """Drop everything if there is no room; tell whether."""
        is_full = len(self.changed) + len(self.emptied) >= KEYS_KEPT
        if is_full:
            self.clear(epoch)
        return is_full

    def was_emptied(self, keys: Iterable[str], since: int) -> bool:
        return any(self.emptied.get(key, 0) > since for key in keys)


class Epochs:
    """The epoch counts changes as they become known. For one thread at a time: the lock of the cache guards it.

    Requests carry the epoch at which they were sent. Revs carry no order, so whether an answer is older than a change,
    or which of two changes was first, is found out from here: what is known to have ended before the other began is
    older, and where neither is, nobody knows.
    """

    def __init__(self) -> None:
        self.now = 0
        self._all = _Notes()  # for answers: what they may be older than
        self._own = _Notes()  # for what the feed tells: what own calls have done
        self._told = _Notes()  # for own calls: what the feed has told that was not known
        self._recent: dict[str, set[str]] = {}  # folder -> children at or below which something has changed

    def advance(self) -> int:
        """Begin a new epoch."""
        self.now += 1
        return self.now

    def changed(self, key: str, *, is_own: bool, is_news: bool = True) -> None:
        """Note that a key changes now, or that nothing is known of it any more."""
        self.advance()
        if self._all.make_room(self.now):
            self._recent.clear()
        self._all.changed[key] = self.now
        for above in _above(key):
            self._all.below[above] = self.now
        self._index(key)
        if is_own:
            self._own.make_room(self.now)
            self._own.changed[key] = self.now
        elif is_news:
            self._told.make_room(self.now)
            self._told.changed[key] = self.now

    def came_below(self, key: str, *, is_own: bool) -> None:
        """Note that, with a change of a key, something is, or may be, below all that is above it."""
        self.advance()
        notes = self._own if is_own else self._told
        for above in _above(key):
            notes.below[above] = self.now

    def emptied(self, key: str, *, is_own: bool) -> None:
        """Note that whatever was below a key is gone now."""
        self.advance()
        if self._all.make_room(self.now):
            self._recent.clear()
        notes = self._own if is_own else self._told
        notes.make_room(self.now)
        self._all.emptied[key] = notes.emptied[key] = self.now

    def outdate(self) -> None:
        """Begin a new epoch; every request under way counts as older than some change."""
        self.advance()
        self._recent.clear()
        for notes in (self._all, self._own, self._told):
            notes.clear(self.now)

    def is_stale(self, key: str, epoch: int) -> bool:
        """Tell whether an answer about a key, asked for at `epoch`, may be older than a change."""
        notes = self._all
        if epoch < notes.floor or notes.changed.get(key, 0) > epoch:
            return True
        return notes.was_emptied((key, *_above(key)), epoch)

    def has_changed_below(self, key: str, epoch: int) -> bool:
        """Tell whether anything below a key has changed since: it is a folder, or was one."""
        return epoch < self._all.floor or self._all.below.get(key, 0) > epoch

    def changes_in(self, key: str, epoch: int) -> Iterator[tuple[str, int, int]]:
        """Yield children that have changed since, or something below them, each with the epochs of both (0: never)."""
        changed, below = self._all.changed, self._all.below
        for child in self._recent.get(key, ()):
            known = changed.get(child, 0), below.get(child, 0)
            if max(known) > epoch:
                yield child, *known

    def is_own_newer(self, key: str, since: int, *, is_folder: bool) -> bool:
        """Tell whether what was asked for at `since`, and tells of a change of a key, may be older than an own one."""
        return self._is_newer(self._own, key, since, is_folder)

    def is_any_newer(self, key: str, since: int, *, is_folder: bool) -> bool:
        """Tell whether what an own call did, which was sent at `since`, may be older than what is known by now."""
        return self._is_newer(self._own, key, since, is_folder) or self._is_newer(self._told, key, since, is_folder)

    def _is_newer(self, notes: _Notes, key: str, since: int, is_folder: bool) -> bool:
        if since < notes.floor or notes.changed.get(key, 0) > since:
            return True
        if not is_folder and notes.below.get(key, 0) > since:  # what is put into a folder does not speak against it
            return True
        return notes.was_emptied(_above(key), since)

    def _index(self, key: str) -> None:
        while key:
            folder = parent(key)
            children = self._recent.setdefault(folder, set())
            if key in children:
                return
            children.add(key)
            key = folder


class Cuts:
    """Epochs before which nothing counts that is stored at or below folders. Guarded like `Epochs`.

    Only where something is stored is a cut worth a place: of files, there are too many.
    """

    def __init__(self, most_folders: int) -> None:
        self._most_folders = most_folders
        self._cut: dict[str, int] = {}
        self._occupied: set[str] = set()  # folders at or below which anything is stored, or was

    def clear(self) -> None:
        """Begin anew: nothing is stored any more."""
        self._cut.clear()
        self._occupied.clear()

    def occupy(self, folder: str) -> bool:
        """Note that something is stored at or below a folder; False where it is too much to remember."""
        if len(self._occupied) > self._most_folders:
            return False
        while folder and folder not in self._occupied:
            self._occupied.add(folder)
            folder = parent(folder)
        return True

    def is_occupied(self, folder: str) -> bool:
        """Tell whether anything may be stored at or below a folder."""
        return not folder or folder in self._occupied

    def cut(self, folder: str, epoch: int) -> bool:
        """Let nothing count that is stored at or below a folder by now; False where it is too much to remember."""
        if not self.is_occupied(folder):
            return True
        if len(self._cut) == CUTS_KEPT and folder not in self._cut:
            return False
        self._cut[folder] = epoch
        return True

    def concern(self, folder: str, epoch: int) -> bool:
        """Tell whether what is of an epoch, and stored at or below a folder, does not count."""
        return bool(self._cut) and any(self._cut.get(each, 0) > epoch for each in (folder, *_above(folder)))


def _above(key: str) -> Iterator[str]:
    """Yield all folders above a key, the root included; the root itself has none but itself."""
    yield from ancestors(key)
    yield ""
