"""`Lookups`: when so many names of one folder are asked for, one by one, that its listing is cheaper. No I/O."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cachetools import LRUCache

FIRST_LOOKUPS: Final = 3  # of different names in a folder, before its first page is asked for
LOOKUPS_GROW: Final = 4  # times as many before the next try, where that did not answer for the whole folder
MOST_LOOKUPS: Final = FIRST_LOOKUPS * LOOKUPS_GROW**3
MOST_PAGES: Final = 10
WINDOW_SECONDS: Final = 20.0  # lookups that lie further apart have nothing to do with each other
CALM_SECONDS: Final = 20.0  # a listing that lasted so long was worth it: the next may come as early
LARGE_SECONDS: Final = 300.0  # so long a folder is remembered as too large for its first page
FOLDERS_KEPT: Final = 1000


@dataclass(slots=True)
class _Folder:
    used: float
    names: set[str] = field(default_factory=set)
    wanted: int = FIRST_LOOKUPS
    listed: float = float("-inf")
    is_large: bool = False


class Lookups:
    """Counts lookups that nothing known answers. Thread-safe: one leaf lock; owned by the Catalog.

    Whoever asks for names one after the other pays a call for each. After `FIRST_LOOKUPS` different ones the first page
    of the folder's listing is worth its call. Where that is not the whole folder, or does not last, more lookups have
    to come before the next try, which may take more pages: in all, listings are a third of the calls at most.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._folders: LRUCache[str, _Folder] = LRUCache(FOLDERS_KEPT)  # guarded by _lock

    def note(self, folder: str, key: str) -> int:
        """Note that a name in a folder has to be looked up; return how many pages of its listing to ask for instead.

        0 is for a lookup of the name alone.
        """
        now = self._now()
        with self._lock:
            seen = self._folders.get(folder)
            if seen is None:
                seen = self._folders[folder] = _Folder(now)
            if now - seen.used > WINDOW_SECONDS:
                seen.names.clear()
            if now - seen.listed > (LARGE_SECONDS if seen.is_large else CALM_SECONDS):
                seen.wanted = FIRST_LOOKUPS
            seen.used = now
            if key in seen.names or len(seen.names) < seen.wanted:
                seen.names.add(key)
                return 0
            pages = min(seen.wanted // FIRST_LOOKUPS, MOST_PAGES)
            seen.names.clear()
            seen.wanted = min(seen.wanted * LOOKUPS_GROW, MOST_LOOKUPS)
            seen.listed = now
            return pages

    def listed(self, folder: str, *, is_whole: bool) -> None:
        """Note whether the pages asked for were the whole listing."""
        with self._lock:
            seen = self._folders.get(folder)
            if seen is not None:
                seen.is_large = not is_whole
