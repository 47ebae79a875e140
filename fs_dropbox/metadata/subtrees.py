"""`Subtrees`: when a tree is listed folder by folder, so that one recursive listing is cheaper. No I/O."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cachetools import LRUCache

from fs_dropbox import paths

FIRST_FOLDERS: Final = 3  # side by side that had to be listed, before all that is beside them is asked for
FOLDERS_GROW: Final = 4  # times as many before the next try, where that was too much
MOST_FOLDERS: Final = FIRST_FOLDERS * FOLDERS_GROW**5
FEWEST_PAGES: Final = 2
MOST_PAGES: Final = 10
WINDOW_SECONDS: Final = 20.0  # listings that lie further apart have nothing to do with each other
FOLDERS_KEPT: Final = 1000


@dataclass(slots=True)
class _Above:
    used: float
    children: set[str] = field(default_factory=set)  # folders in it that had to be listed
    listings: int = 0  # that were asked for below it, at any depth
    wanted: int = FIRST_FOLDERS
    is_under_way: bool = False


class Subtrees:
    """Counts listings that nothing known answers. Thread-safe: one leaf lock; owned by the Catalog.

    Whoever walks a tree (`ls -R`, `get -r`, a synchronising client) asks for one folder after the other, and each costs
    a call. Once `FIRST_FOLDERS` folders in the same one had to be listed, that one is worth a recursive listing, of no
    more pages than a third of the listings below it: so it climbs from the leaves, and what is too large for it costs
    little. Where it was too large, more folders have to come before the next try.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._folders: LRUCache[str, _Above] = LRUCache(FOLDERS_KEPT)  # guarded by _lock

    def note(self, key: str) -> tuple[str, int] | None:
        """Note that a folder has to be listed.

        Returns the key of a folder above to list with all that is below it, and of how many pages; None for nothing.
        """
        if not key:
            return None
        above = paths.parent(key)
        with self._lock:
            for each in (*paths.ancestors(key), ""):
                self._at_locked(each).listings += 1
            seen = self._at_locked(above)
            seen.children.add(key)
            if seen.is_under_way or len(seen.children) < seen.wanted:
                return None
            pages = min(max(FEWEST_PAGES, seen.listings // FIRST_FOLDERS), MOST_PAGES)
            seen.is_under_way = True
            return above, pages

    def listed(self, key: str, *, is_whole: bool) -> None:
        """Note how the recursive listing ended that `note` has asked for."""
        with self._lock:
            seen = self._at_locked(key)
            seen.is_under_way = False
            seen.children.clear()
            seen.listings = 0
            seen.wanted = FIRST_FOLDERS if is_whole else min(seen.wanted * FOLDERS_GROW, MOST_FOLDERS)

    def _at_locked(self, key: str) -> _Above:
        now = self._now()
        seen = self._folders.get(key)
        if seen is None:
            seen = self._folders[key] = _Above(now)
        if now - seen.used > WINDOW_SECONDS and not seen.is_under_way:
            seen.children.clear()
            seen.listings = 0
        seen.used = now
        return seen
