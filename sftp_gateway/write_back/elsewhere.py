"""`Elsewhere`: has a filesystem forget what other processes have changed in the storage."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fs.path import recursepath

from sftp_gateway.write_back.arrivals import KEPT
from sftp_gateway.write_back.journal import Journal
from sftp_gateway.write_back.journal_rows import Pending


class Elsewhere:
    """Looks into a journal on behalf of a filesystem that knows only its own changes.

    After another process has delivered a file, such a filesystem may still have the old state cached. It is told to
    forget that only when somebody asks for the path, so that a directory that receives many files is not listed again
    and again. Owned by a `WriteBackFS`. Thread-safe: one lock, a leaf except that the filesystem forgets under it.
    """

    def __init__(self, filesystem: Any, journal: Journal) -> None:
        self._journal = journal
        self._fold = journal.fold
        self._forget: Callable[[str], None] = getattr(filesystem, "forget", lambda _path: None)
        self._lock = threading.Lock()
        # guarded by _lock
        self._heard = journal.arrivals.latest()  # up to which arrival
        self._news: dict[str, str] = {}  # paths, by key, of which the filesystem may know what was there before

    def find(self, path: str) -> Pending | None:
        """Return what is pending at `path`; have the filesystem forget what it knew of files delivered there."""
        pending = self._journal.find(path)
        self._hear()  # after that: what stopped being pending has arrived
        if self._news:
            with self._lock:
                for each in recursepath(path):  # directories above it may have been made with it
                    self._forget_at(self._fold(each))
        return pending

    def find_below(self, path: str) -> None:
        """Do the same for everything at, above and below `path`."""
        self.find(path)
        if self._news:
            prefix = self._fold(path).rstrip("/") + "/"
            with self._lock:
                for key in [key for key in self._news if key.startswith(prefix)]:
                    self._forget_at(key)

    def _hear(self) -> None:
        arrivals = self._journal.arrivals.since(self._heard)
        if not arrivals:
            return
        with self._lock:
            if arrivals[0].number > self._heard + 1:  # too many at once to know which
                self._forget("/")
                self._news.clear()
            for arrival in arrivals:
                if arrival.is_foreign and arrival.number > self._heard:
                    self._news[self._fold(arrival.path)] = arrival.path
            self._heard = max(self._heard, arrivals[-1].number)
            while len(self._news) > KEPT:
                self._forget_at(next(iter(self._news)))

    def _forget_at(self, key: str) -> None:
        if key in self._news:
            self._forget(self._news[key])
            del self._news[key]
