"""`Fresh`: what was committed moments ago, which moves and copies may not find yet. Knows no HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from cachetools import TTLCache

from fs_dropbox import paths
from fs_dropbox.entries import FileEntry, FolderEntry
from fs_dropbox.errors import ApiError

T = TypeVar("T")

# For moments after a commit, moves and copies may not find what was committed.
FRESH_SECONDS: Final = 10.0
FRESH_PAUSES_SECONDS: Final = (0.25, 0.5, 1.0, 2.0)


class Fresh:
    """Thread-safe; owned by Client, and shared by those of other roots. Its one lock is a leaf."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # guarded by _lock: keys that were committed moments ago
        self._keys: TTLCache[str, None] = TTLCache(1000, FRESH_SECONDS, timer=time.monotonic)

    def note(self, entry: T) -> T:
        """Note that an entry was committed just now; returns it."""
        if isinstance(entry, (FileEntry, FolderEntry)):
            with self._lock:
                self._keys[entry.path_lower] = None
        return entry

    def covers(self, path: str) -> bool:
        """Tell whether something was committed at, above or below an API path moments ago."""
        key = paths.key(path)
        with self._lock:
            return any(paths.is_under(key, each) or paths.is_under(each, key) for each in self._keys)

    def relocate(self, source: str, call: Callable[[], T], pause: Callable[[float], None]) -> T:
        """Return what a move or copy from `source` returns; it goes again where it does not know the source yet."""
        for seconds in FRESH_PAUSES_SECONDS:
            try:
                return self.note(call())
            except ApiError as error:
                if error.tag != ("from_lookup", "not_found") or not self.covers(source):
                    raise
            pause(seconds)
        return self.note(call())
