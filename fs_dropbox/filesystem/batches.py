"""`Batches`: changes many children of a folder in few calls, and finds out what became of each. No HTTP."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import fs.errors
from fs.path import combine

from fs_dropbox import paths
from fs_dropbox.api import commits
from fs_dropbox.api.batch_calls import BATCH_ENTRIES, Outcome, UnfinishedJobError
from fs_dropbox.api.client import Client
from fs_dropbox.entries import FileEntry, FolderEntry
from fs_dropbox.errors import ApiError, DropboxError, TransportError, fs_errors
from fs_dropbox.metadata.catalog import Catalog
from fs_dropbox.metadata.known import Present

# Fewer are cheaper one by one: a batch is a call, a job, and a look or two at how far it is.
LEAST_CHILDREN: Final = 4
ROUNDS: Final = 5

Children: TypeAlias = list[Present]


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be done with children: in one call, where one has succeeded, and how to look which are undone."""

    paths: tuple[str, ...]  # of the folders that change
    call: Callable[[Children], Sequence[Outcome]]
    succeeded: Callable[[Present, Present, int], object]
    undone: Callable[[Children], Children]
    # whether a refusal says that it has been done before
    is_over: Callable[[Present, ApiError, int], bool] = lambda *_: False


class Batches:
    """Thread-safe, lock-free; owned by ServerSide; raises `fs.errors` errors.

    What Dropbox refuses in a batch is handed back: on its own it is refused with the reason, or goes after all. An
    answer that is lost, of the batch or of its job, is settled by one look at all that it was about; what is undone
    then goes into another batch.
    """

    def __init__(self, client: Client, catalog: Catalog) -> None:
        self._client = client
        self._catalog = catalog

    def copy(self, source: str, target: str, children: Children) -> Children:
        """Copy children of one folder into another that has none of their names; return those that are left to do."""

        def undone(left: Children) -> Children:
            there = self._now_in(target)
            return [child for child in left if not self._is_copy(source, child, there.get(paths.key(child.name)))]

        return self._run(
            _Work(
                paths=(target,),
                call=lambda left: self._client.batches.copy(_pairs(source, target, left)),
                succeeded=lambda _, entry, since: self._catalog.copied(entry, since),
                undone=undone,
            ),
            children,
        )

    def move(self, source: str, target: str, children: Children) -> Children:
        """Move children of one folder into another that has none of their names; return those that are left to do."""

        def undone(left: Children) -> Children:
            self._catalog.forget(source)
            moved = {entry.id for entry in self._now_in(target).values()}
            return [child for child in left if child.id not in moved]

        return self._run(
            _Work(
                paths=(source, target),
                call=lambda left: self._client.batches.move(_pairs(source, target, left)),
                succeeded=lambda child, entry, since: self._catalog.moved(combine(source, child.name), entry, since),
                undone=undone,
            ),
            children,
        )

    def remove(self, folder: str, children: Children) -> Children:
        """Delete children of a folder, with all that they hold; return those that are left to do."""

        def undone(left: Children) -> Children:
            there = {entry.id for entry in self._now_in(folder).values()}
            return [child for child in left if child.id in there]

        return self._run(
            _Work(
                paths=(folder,),
                call=lambda left: self._client.batches.delete([(_api(folder, child), _rev(child)) for child in left]),
                succeeded=lambda child, _, since: self._catalog.removed(combine(folder, child.name), since),
                undone=undone,
                is_over=lambda child, error, since: self._is_gone(folder, child, error, since),
            ),
            children,
        )

    def _run(self, work: _Work, children: Children) -> Children:
        refused: Children = []
        left, doubtful = children, False
        for turn in range(ROUNDS):
            with self._failing(work.paths, doubtful=doubtful):
                if turn:
                    self._client.pause_after(turn)
                again, lost = self._try(work, left, refused, doubtful=doubtful)
            doubtful = doubtful or lost
            left = self._undone(work, again) if doubtful and again else again
            if not left:
                break
        return refused + left

    def _try(self, work: _Work, left: Children, refused: Children, *, doubtful: bool) -> tuple[Children, bool]:
        """Carry out one batch. Return what is to be tried again, and whether some of that may have been done.

        Where an earlier batch may still be at work, what this one is refused may be due to that.
        """
        since = self._catalog.epoch()
        try:
            outcomes = work.call(left)
        except DropboxError as error:
            if error.is_not_taken:
                refused += left  # one by one they may be taken
                return [], False
            if not _may_go_on(error):
                raise
            return left, True
        again: Children = []
        lost = False
        for child, outcome in zip(left, outcomes, strict=True):
            if not isinstance(outcome, ApiError):
                work.succeeded(child, outcome, since)
            elif not work.is_over(child, outcome, since):
                lost = lost or outcome.is_ambiguous
                (again if doubtful or outcome.is_transient else refused).append(child)
        return again, lost

    def _undone(self, work: _Work, children: Children) -> Children:
        """Look which are still to be done; once more while somebody, perhaps a lost job, is seen to do them."""
        with self._failing(work.paths, doubtful=True):
            while True:
                left = work.undone(children)
                if not left or len(left) == len(children):
                    return left
                children = left
                self._client.pause_after(1)

    def _now_in(self, folder: str) -> dict[str, Present]:
        """Return what Dropbox says is in a folder now, by folded name."""
        self._catalog.forget(folder)
        return {paths.key(entry.name): entry for entry in self._catalog.children(folder)}

    def _is_copy(self, source: str, child: Present, found: Present | None) -> bool:
        if isinstance(child, FileEntry):
            return isinstance(found, FileEntry) and (child.size, child.content_hash) == (found.size, found.content_hash)
        if not isinstance(found, FolderEntry):
            return False
        original = paths.to_api(combine(source, child.name))
        return commits.settle_copy(self._client, original, found.path_lower) is not None

    def _is_gone(self, folder: str, child: Present, error: ApiError, since: int) -> bool:
        if not error.is_not_found:
            return False
        self._catalog.removed(combine(folder, child.name), since)
        return True

    @contextmanager
    def _failing(self, changed: tuple[str, ...], *, doubtful: bool) -> Iterator[None]:
        """Where Dropbox cannot be asked any further, forget what was known of the folders, and say why; and that what
        was asked for may have been done, or may still be, where an earlier batch is in doubt."""
        try:
            with fs_errors(changed[0], target=changed[-1]):
                try:
                    yield
                except (DropboxError, fs.errors.FSError) as error:
                    problem = error.__cause__ if isinstance(error, fs.errors.FSError) else error
                    if not doubtful or not isinstance(problem, DropboxError):
                        raise
                    problem = copy.copy(problem)  # others may have the same one
                    problem.is_unsettled = True
                    raise problem from None
        except BaseException:
            for folder in changed:
                self._catalog.forget(folder)
            raise


def groups(children: Children) -> Iterator[Children]:
    """Yield as many at a time as one batch takes."""
    for begin in range(0, len(children), BATCH_ENTRIES):
        yield children[begin : begin + BATCH_ENTRIES]


def _may_go_on(error: DropboxError) -> bool:
    """Tell whether what became of a batch can be looked up, and the rest be tried again."""
    if isinstance(error, ApiError):
        return error.is_transient and error.status != 429  # for that the call has waited as long as it may
    stopped = isinstance(error, TransportError) and error.kind in ("interrupted", "closed")
    ended = stopped or isinstance(error, UnfinishedJobError)
    return error.is_unsettled and not ended


def _api(folder: str, child: Present) -> str:
    return paths.to_api(combine(folder, child.name))


def _rev(child: Present) -> str | None:
    return child.rev if isinstance(child, FileEntry) else None


def _pairs(source: str, target: str, children: Children) -> list[tuple[str, str]]:
    return [(_api(source, child), _api(target, child)) for child in children]
