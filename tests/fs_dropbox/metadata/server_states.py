"""A tree of files and folders in memory that keeps every state it ever had, and a journal as Dropbox keeps it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import TypeAlias

from fs_dropbox import paths
from fs_dropbox.entries import DeletedEntry, Entry, FileEntry, FolderEntry
from fs_dropbox.metadata.known import Present

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEPTH = 3  # of the deepest paths

State: TypeAlias = dict[str, Present]


class RefusedError(Exception):
    """The server does not do that."""


class Server:
    """A tree with all its past states, and a journal. Keys are paths: nothing here has capital letters."""

    def __init__(self) -> None:
        self.states: list[State] = [{}]
        self.journal: list[tuple[str, bool]] = []  # path, and whether it was a deletion
        self._numbers = itertools.count(1)
        self.lists_children = False  # of what was deleted as a whole

    @property
    def now(self) -> State:
        return self.states[-1]

    def write(self, path: str) -> FileEntry:
        if isinstance(self.now.get(path), FolderEntry):
            raise RefusedError
        state = self._with_folders_above(path)
        entry = FileEntry(paths.name(path), path, path, f"id:{path}", f"rev{next(self._numbers)}", 1, NOW, NOW)
        state[path] = entry
        self._add(state, entry)
        return entry

    def make(self, path: str) -> FolderEntry:
        if path in self.now:
            raise RefusedError
        state = self._with_folders_above(path)
        entry = self._folder(path)
        state[path] = entry
        self._add(state, entry)
        return entry

    def delete(self, path: str) -> None:
        if path not in self.now:
            raise RefusedError
        self._drop(path)

    def copy(self, source: str, target: str) -> Present:
        self._check_transfer(source, target)
        return self._put_tree(
            {key: entry for key, entry in self.now.items() if paths.is_under(key, source)}, source, target
        )

    def move(self, source: str, target: str) -> Present:
        self._check_transfer(source, target)
        moved = {key: entry for key, entry in self.now.items() if paths.is_under(key, source)}
        # The journal tells of both in this order, and the state changes at once.
        self._drop(source)
        self.states.pop()
        before = self.states[-1]
        self.states[-1] = {key: entry for key, entry in before.items() if key not in moved}
        entry = self._put_tree(moved, source, target)
        self.states[-2] = before
        return entry

    def _check_transfer(self, source: str, target: str) -> None:
        if source not in self.now or target in self.now or paths.is_under(target, source):
            raise RefusedError
        if paths.parent(target) and not isinstance(self.now.get(paths.parent(target)), FolderEntry):
            raise RefusedError
        depth = max(key.count("/") for key in self.now if paths.is_under(key, source)) - source.count("/")
        if target.count("/") + depth > DEPTH:
            raise RefusedError

    def _put_tree(self, tree: State, source: str, target: str) -> Present:
        state = dict(self.now)
        told: list[Entry] = []
        for key, entry in sorted(tree.items()):
            path = target + key[len(source) :]
            renamed = entry._replace(name=paths.name(path), path_lower=path, path_display=path)
            if isinstance(renamed, FileEntry):
                renamed = renamed._replace(rev=f"rev{next(self._numbers)}")
            state[path] = renamed
            told.append(renamed)
        self._add(state, *told)
        return state[target]

    def _with_folders_above(self, path: str) -> State:
        state = dict(self.now)
        for above in reversed(list(paths.ancestors(path))):
            known = state.get(above)
            if isinstance(known, FileEntry):
                raise RefusedError
            if known is None:
                state[above] = self._folder(above)
                self.journal.append((above, False))
        return state

    def _folder(self, path: str) -> FolderEntry:
        return FolderEntry(paths.name(path), path, path, f"id{next(self._numbers)}")

    def _drop(self, path: str) -> None:
        gone = sorted((key for key in self.now if paths.is_under(key, path)), reverse=True)
        told = gone if self.lists_children else [path]
        state = {key: entry for key, entry in self.now.items() if key not in gone}
        self._add(state, *(DeletedEntry(paths.name(key), key, key) for key in told))

    def _add(self, state: State, *told: Entry) -> None:
        self.states.append(state)
        self.journal += [(entry.path_lower, isinstance(entry, DeletedEntry)) for entry in told]

    def page(self, cursor: int, limit: int) -> tuple[list[Entry], int]:
        """Return what has happened since, and how far that goes: deletions, and what is there now, each path once."""
        latest: dict[tuple[str, bool], None] = {}
        for record in self.journal[cursor:]:
            if record not in latest and len(latest) == limit:
                break
            latest.pop(record, None)
            latest[record] = None
            cursor += 1
        told: list[Entry] = []
        for path, is_gone in latest:
            entry = self.now.get(path)
            if not is_gone and entry is not None:
                told.append(entry)
            elif is_gone and not isinstance(entry, FileEntry):
                told.append(DeletedEntry(paths.name(path), path, path))
        return told, cursor
