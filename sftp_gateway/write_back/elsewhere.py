"""`Elsewhere`: what was seen as pending while another process delivers; what that has delivered is asked for anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fs.path import recursepath

from sftp_gateway.write_back.journal import Journal, Pending

_MAX_SEEN = 100_000


class Elsewhere:
    """Looks into a journal on behalf of a filesystem that knows of its own changes alone.

    Of what another process has delivered, such a filesystem may still know what was there before. Owned by a
    `WriteBackFS`. Thread-safe: its dictionary changes in single steps.
    """

    def __init__(
        self, filesystem: Any, journal: Journal, fold: Callable[[str], str], *, is_mine: Callable[[], bool]
    ) -> None:
        """`is_mine` tells whether it is this process that delivers."""
        self._journal = journal
        self._fold = fold
        self._is_mine = is_mine
        self._forget: Callable[[str], None] | None = getattr(filesystem, "forget", None)
        self._seen: dict[str, str] = {}  # paths by key

    def note(self, path: str) -> None:
        """Note that `path` was seen as pending."""
        if not self._is_mine() and len(self._seen) < _MAX_SEEN:
            self._seen[self._fold(path)] = path

    def drop(self, key: str) -> None:
        """Forget about what is pending at a folded path no more, as this process knows. Idempotent."""
        self._seen.pop(key, None)

    def find(self, path: str) -> Pending | None:
        """Return what is pending at `path`; the filesystem forgets what it knew of what was so, and is no more."""
        pending = self._journal.find(path)
        if pending is not None:
            self.note(path)
        elif self._seen and self._forget is not None and not self._is_mine():
            for each in recursepath(path):  # those above may be directories that were made with it
                key = self._fold(each)
                if key in self._seen and not (self._journal.find(each) or self._journal.directories.find(each)):
                    self._forget(each)
                    self.drop(key)
        return pending

    def find_below(self, path: str) -> None:
        """Do what `find` does for everything at, above and below `path`."""
        prefix = self._fold(path).rstrip("/") + "/"
        for seen in [seen for key, seen in list(self._seen.items()) if key.startswith(prefix)]:
            self.find(seen)
        self.find(path)
