"""`Overlay`: which paths have a file that is being written, and whose turn it is to change a path."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sftp_gateway.draft import Draft, State
from sftp_gateway.folding import related
from sftp_gateway.status import RefusedError


class Turn:
    """Somebody's right to change paths, as a context."""

    __slots__ = ("_keys", "_overlay")

    def __init__(self, overlay: Overlay, keys: tuple[str, ...]) -> None:
        self._overlay = overlay
        self._keys = keys

    def __enter__(self) -> None:
        self._overlay.begin(self._keys)

    def __exit__(self, *_: object) -> None:
        self._overlay.end(self._keys)


class Overlay:
    """The drafts of a store by path, names folded. Owned by a store. Thread-safe: one condition, a leaf."""

    def __init__(self, fold: Callable[[str], str], *, wait_seconds: float) -> None:
        self.fold = fold
        self._wait_seconds = wait_seconds
        self._condition = threading.Condition()
        # guarded by _condition
        self._drafts: dict[str, list[Draft]] = {}  # the latest last
        self._turns: list[tuple[str, ...]] = []

    def turn(self, *paths: str) -> Turn:
        """Return a context that holds the right to change these paths and everything below them.

        Entering it raises `RefusedError` after a long wait.
        """
        return Turn(self, tuple(self.fold(path) for path in paths))

    def wait_settled(self, path: str) -> None:
        """Wait until nothing at or above `path` is being changed; raises `RefusedError` after a long wait."""
        if self.is_settled(path):
            return
        keys = (self.fold(path),)
        with self._condition:
            if not self._condition.wait_for(lambda: not self._is_taken(keys), self._wait_seconds):
                raise RefusedError("the file is still being stored")

    @property
    def is_quiet(self) -> bool:
        """Whether no path at all is being changed."""
        return not self._turns

    def is_settled(self, path: str) -> bool:
        """Tell whether nothing at or above `path` is being changed."""
        if not self._turns:
            return True
        with self._condition:
            return not self._is_taken((self.fold(path),))

    def add(self, draft: Draft) -> None:
        """Show a draft."""
        with self._condition:
            self._drafts.setdefault(self.fold(draft.path), []).append(draft)

    def remove(self, draft: Draft) -> None:
        """Show a draft no longer. Idempotent."""
        with self._condition:
            self._remove(draft)

    def move(self, draft: Draft, path: str, *, exclusive: bool | None = None, fresh: bool | None = None) -> None:
        """Give a draft another path."""
        with self._condition:
            if self._remove(draft):
                draft.retarget(path, exclusive=exclusive, fresh=fresh)
                self._drafts.setdefault(self.fold(path), []).append(draft)

    def top(self, path: str) -> Draft | None:
        """Return the draft that counts at `path`: the latest that is being written, else a partial."""
        if not self._drafts:
            return None
        with self._condition:
            drafts = self._drafts.get(self.fold(path))
            return _top(drafts) if drafts else None

    def at(self, path: str) -> list[Draft]:
        """Return all drafts at `path`."""
        if not self._drafts:
            return []
        with self._condition:
            return list(self._drafts.get(self.fold(path), ()))

    def below(self, folder: str) -> list[Draft]:
        """Return all drafts below `folder`, at any depth."""
        prefix = self.fold(folder).rstrip("/") + "/"
        with self._condition:
            return [draft for key, drafts in self._drafts.items() if key.startswith(prefix) for draft in drafts]

    def children(self, folder: str) -> dict[str, Draft]:
        """Return the drafts directly in `folder` that count, by folded name."""
        if not self._drafts:
            return {}
        prefix = self.fold(folder).rstrip("/") + "/"
        found = {}
        with self._condition:
            for key, drafts in self._drafts.items():
                name = key[len(prefix) :]
                if key.startswith(prefix) and name and "/" not in name:
                    found[name] = _top(drafts)
        return found

    def all(self) -> list[Draft]:
        """Return every draft."""
        with self._condition:
            return [draft for drafts in self._drafts.values() for draft in drafts]

    def partials(self, older_than: float | None = None) -> list[Draft]:
        """Return the partials, the oldest first; only those untouched for `older_than` seconds if given."""
        if not self._drafts:
            return []
        limit = None if older_than is None else time.time() - older_than
        found = [draft for draft in self.all() if draft.state is State.PARTIAL]
        return sorted(
            (draft for draft in found if limit is None or draft.touched < limit), key=lambda draft: draft.touched
        )

    def begin(self, keys: tuple[str, ...]) -> None:
        """Take the turn for these folded paths; raises `RefusedError` after a long wait."""
        with self._condition:
            if self._turns and not self._condition.wait_for(lambda: not self._is_taken(keys), self._wait_seconds):
                raise RefusedError("another operation on the same path is still running")
            self._turns.append(keys)

    def end(self, keys: tuple[str, ...]) -> None:
        """Give the turn back."""
        with self._condition:
            self._turns.remove(keys)
            self._condition.notify_all()

    def _remove(self, draft: Draft) -> bool:
        key = self.fold(draft.path)
        drafts = self._drafts.get(key, [])
        if draft not in drafts:
            return False
        drafts.remove(draft)
        if not drafts:
            del self._drafts[key]
        return True

    def _is_taken(self, keys: tuple[str, ...]) -> bool:
        return any(related(key, other) for turn in self._turns for other in turn for key in keys)


def _top(drafts: list[Draft]) -> Draft:
    for draft in reversed(drafts):
        if draft.state is not State.PARTIAL:
            return draft
    return drafts[-1]
