"""`Overlay`: which paths have a file that is being written, and whose turn it is to change a path."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from sftp_gateway.files.draft import Draft, State
from sftp_gateway.files.folding import is_at_or_below, related
from sftp_gateway.sftp.status import NotAtOnceError, RefusedError

_T = TypeVar("_T")


class _Held(Generic[_T]):
    """Keeps an entry in one of an overlay's lists until the end of a `with`."""

    def __init__(self, condition: threading.Condition, held: list[_T], one: _T) -> None:
        self._condition = condition
        self._held = held
        self._one = one

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._held.remove(self._one)
            self._condition.notify_all()


class Overlay:
    """The drafts of a store by path, names folded. Owned by a store. Thread-safe: one condition, a leaf."""

    def __init__(self, fold: Callable[[str], str], *, wait_seconds: float) -> None:
        self.fold = fold
        self._wait_seconds = wait_seconds
        self._condition = threading.Condition()
        # guarded by _condition
        self._drafts: dict[str, list[Draft]] = {}  # the latest last
        self._turns: list[tuple[str, ...]] = []
        self._openings: list[str] = []

    def turn(self, *paths: str, names: bool = False, wait: bool = True) -> _Held[tuple[str, ...]]:
        """Wait for the right to change these paths and everything below them; return a context that holds it.

        With `names`, also wait for files that are being opened there, whose path must not change meanwhile. Raises
        `RefusedError` after a long wait; without `wait` it raises `NotAtOnceError` instead of waiting.
        """
        keys = tuple(map(self.fold, paths))

        def is_free() -> bool:
            is_open = names and any(is_at_or_below(opening, key) for opening in self._openings for key in keys)
            return not is_open and not self._is_taken(keys)

        return self._hold(self._turns, keys, is_free, wait, "another operation on the same path is still running")

    def opening(self, path: str, *, wait: bool = True) -> _Held[str]:
        """Wait until nothing at or above `path` is being changed; return a context in which no name there changes.

        Raises `RefusedError` after a long wait; without `wait` it raises `NotAtOnceError` instead of waiting.
        """
        key = self.fold(path)

        def is_free() -> bool:
            return not self._turns or not any(is_at_or_below(key, other) for turn in self._turns for other in turn)

        return self._hold(self._openings, key, is_free, wait, "the file is still being stored")

    def _hold(self, held: list[_T], one: _T, is_free: Callable[[], bool], wait: bool, refusal: str) -> _Held[_T]:
        with self._condition:
            if not is_free():
                if not wait:
                    raise NotAtOnceError
                self._wait_for(is_free, refusal)
            held.append(one)
        return _Held(self._condition, held, one)

    def wait_settled(self, path: str) -> None:
        """Wait until nothing at or above `path` is being changed; raises `RefusedError` after a long wait."""
        if self.is_settled(path):
            return
        keys = (self.fold(path),)
        with self._condition:
            self._wait_for(lambda: not self._is_taken(keys), "the file is still being stored")

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
        """Return the draft that counts at `path`: the latest that somebody writes, or a later partial."""
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

    def below(self, directory: str) -> list[Draft]:
        """Return all drafts below `directory`, at any depth."""
        prefix = self.fold(directory).rstrip("/") + "/"
        with self._condition:
            return [draft for key, drafts in self._drafts.items() if key.startswith(prefix) for draft in drafts]

    def children(self, directory: str) -> dict[str, Draft]:
        """Return the drafts directly in `directory` that count, by folded name."""
        if not self._drafts:
            return {}
        prefix = self.fold(directory).rstrip("/") + "/"
        found = {}
        with self._condition:
            for key, drafts in self._drafts.items():
                name = key[len(prefix) :]
                if key.startswith(prefix) and name and "/" not in name:
                    found[name] = _top(drafts)
        return found

    def all(self) -> list[Draft]:
        """Return every draft."""
        if not self._drafts:
            return []
        with self._condition:
            return [draft for drafts in self._drafts.values() for draft in drafts]

    def partials(self, path: str | None = None) -> list[Draft]:
        """Return the partials, or those at `path`, the oldest first."""
        return _partials(self.all() if path is None else self.at(path))

    def _wait_for(self, is_free: Callable[[], bool], refusal: str) -> None:
        if not self._condition.wait_for(is_free, self._wait_seconds):
            raise RefusedError(refusal)

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
        return bool(self._turns) and any(related(key, other) for turn in self._turns for other in turn for key in keys)


def _partials(drafts: list[Draft]) -> list[Draft]:
    return sorted((draft for draft in drafts if draft.state is State.PARTIAL), key=lambda draft: draft.touched)


def _top(drafts: list[Draft]) -> Draft:
    partials = _partials(drafts)
    if not partials:
        return drafts[-1]
    later = [draft for draft in drafts if draft.state is not State.PARTIAL and draft.touched > partials[-1].touched]
    return (later or partials)[-1]  # a draft that is older than a partial may be that of a client that has vanished
