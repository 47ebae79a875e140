"""`BulkUpload`: many files in few calls, each with a result of its own.

A thousand small files cost a dozen calls: those that bring the contents, and one that commits them all
(commits in one namespace are serial).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias

import fs.errors

from fs_dropbox import paths
from fs_dropbox.api import commits
from fs_dropbox.api.client import Client, Commit
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, TransportError, to_fs_error
from fs_dropbox.metadata.catalog import Catalog
from fs_dropbox.pool import Pool
from fs_dropbox.uploads.group_commit import is_final
from fs_dropbox.uploads.session_contents import THREADS, Content, SessionContents, pieces

if TYPE_CHECKING:
    from fs_dropbox.uploads.upload import Uploader

COMMIT_FILES: Final = 1000  # the most that one call commits
BUSY_ROUNDS: Final = 5

File: TypeAlias = tuple[str, Callable[[], BinaryIO], int, datetime | None]
"""Path, what opens the content for reading, size in bytes, time to store (aware)."""
Outcome: TypeAlias = FileEntry | Exception


@dataclass(slots=True, eq=False, kw_only=True)
class _Item(Content):
    """One file on its way."""

    path: str
    commit: Commit
    since: int = 0  # the epoch before its commit


_Settled: TypeAlias = list[tuple[_Item, Outcome]]


class BulkUpload:
    """Uploads many files at once, replacing what is there. Thread-safe; owned by DropboxFS, holds no lock.

    Each run has threads of its own, which end with it.
    """

    def __init__(self, client: Client, catalog: Catalog, uploader: Uploader) -> None:
        self._client = client
        self._catalog = catalog
        self._uploader = uploader
        self._contents = SessionContents(client, uploader)

    def run(self, files: Iterable[File], check: Callable[[str], str]) -> Iterator[tuple[int, Exception | None]]:
        """Yield the index and the result of every file, once, as they become known; see `DropboxFS.upload_files`.

        `check` returns the normalised path, or raises an `fs.errors` error. Closing the iterator early gives up what
        has not been sent.
        """
        pool = Pool(THREADS, "fs-dropbox-bulk")
        under_way: list[Future[_Settled]] = []
        try:
            for window, refused in self._windows(files, check):
                yield from refused
                sent = self._contents.send(pool, window)
                # One commit at a time, and those of a path in their order.
                yield from self._ended(pool, under_way)
                yield from [(item.index, self._result(item, error)) for item, error in sent.failed]
                under_way = [pool.submit(self._upload, item) for item in sent.alone]
                if sent.appended:
                    under_way.append(pool.submit(self._commit, sent.appended))
            yield from self._ended(pool, under_way)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for future in under_way:  # of whoever has closed the iterator
                for item, _ in [] if future.cancelled() or future.exception() else future.result():
                    self._catalog.forget(item.commit.path)

    def _ended(self, pool: Pool, under_way: list[Future[_Settled]]) -> Iterator[tuple[int, Exception | None]]:
        """Yield the results of all that is under way, which is nothing then: what is in doubt is settled one by one."""
        unreachable: list[TransportError] = []
        while under_way:
            for future in as_completed(list(under_way)):
                known: _Settled = []
                doubtful: _Settled = []
                for item, outcome in future.result():
                    (doubtful if item.is_appended and _is_doubtful(outcome) else known).append((item, outcome))
                for item, problem in doubtful:
                    self._catalog.forget(item.commit.path)  # nobody may ask for them to be settled
                    under_way.append(pool.submit(self._settle, item, problem, unreachable))
                # All are taken over before the first is yielded: nobody may ask for the others.
                told = [(item.index, self._result(item, outcome)) for item, outcome in known]
                under_way.remove(future)
                yield from told

    def _windows(
        self, files: Iterable[File], check: Callable[[str], str]
    ) -> Iterator[tuple[list[_Item], list[tuple[int, Exception | None]]]]:
        """Yield what can be committed together: so many files at most, no path twice; and what is refused before."""
        window: list[_Item] = []
        refused: list[tuple[int, Exception | None]] = []
        keys: set[str] = set()
        folders: set[str] = set()  # that are there
        for index, (path, open_file, size, modified) in enumerate(files):
            try:
                checked = check(path)
                if checked == "/":
                    raise fs.errors.FileExpected(path)
                folder = paths.parent(paths.key(checked))
                if folder not in folders:
                    self._catalog.require_parent(checked)
                    folders.add(folder)
            except fs.errors.FSError as error:
                refused.append((index, error))
                continue
            key = paths.key(checked)
            if key in keys or len(window) == COMMIT_FILES:
                yield window, refused
                window, refused, keys, folders = [], [], set(), set()
            keys.add(key)
            commit = Commit(paths.to_api(checked), "overwrite", modified)
            window.append(_Item(index, open_file, size, path=path, commit=commit))
        yield window, refused

    def _commit(self, items: list[_Item]) -> _Settled:
        """Commit what was appended; what has no outcome yet comes back with the error that stood in its way."""
        settled: _Settled = []
        busy: _Settled = []
        left = items
        for turn in range(BUSY_ROUNDS):
            if turn:
                self._client.pause_after(turn)
            since = self._catalog.epoch()
            for item in left:
                item.since = since
            try:
                outcomes: Sequence[Outcome] = self._client.session_finish_batch(
                    [(item.session, item.size, item.commit) for item in left]
                )
            except (ApiError, TransportError) as error:
                outcomes = [error] * len(left)
            busy = [pair for pair in zip(left, outcomes, strict=True) if is_busy(pair[1])]
            settled += [pair for pair in zip(left, outcomes, strict=True) if not is_busy(pair[1])]
            left = [item for item, _ in busy]
            if not left:
                break
        return settled + busy

    def _settle(self, item: _Item, problem: Outcome, unreachable: list[TransportError]) -> _Settled:
        """Find the file in Dropbox, or upload it on its own, unless its commit may still take place."""
        item.is_appended = False  # what is known after this is all that will be
        try:
            if unreachable:
                raise unreachable[0]  # one long wait is enough for all
            found = commits.settle_commit(self._client, item.commit, item.size, item.content_hash)
        except (ApiError, TransportError) as error:
            unknown = copy.copy(error)  # others may have the same one
            unknown.is_unsettled = True
            settled: _Settled = [(item, unknown)]
        else:
            is_over = found is not None or _is_unsettled(problem)
            settled = [(item, found or problem)] if is_over else self._upload(item)
        outcome = settled[0][1]
        if isinstance(outcome, TransportError) and outcome is not problem:
            unreachable.append(outcome)
        return settled

    def _upload(self, item: _Item) -> _Settled:
        """Upload one file by itself."""
        upload = self._uploader.open(item.commit)
        try:
            with closing(pieces(item)) as whole:
                for piece in whole:
                    upload.write(piece)
            item.since = self._catalog.epoch()
            return [(item, upload.commit())]
        except Exception as error:  # noqa: BLE001 - of the source as well; the file's result tells
            upload.abort()
            return [(item, error)]

    def _result(self, item: _Item, outcome: Outcome) -> Exception | None:
        if isinstance(outcome, FileEntry):
            if item.content_hash and outcome.content_hash not in (None, item.content_hash):
                outcome = ApiError("files/upload_session/finish_batch_v2", ("stored_otherwise",))
            else:
                self._catalog.applied(outcome, item.since)
                return None
        if isinstance(outcome, (ApiError, TransportError)):
            self._catalog.forget(item.commit.path)
            return to_fs_error(outcome, item.path, None)
        return outcome


def is_busy(outcome: Outcome) -> bool:
    """Tell whether a commit is to be asked for again because others change the same namespace."""
    return isinstance(outcome, ApiError) and "too_many_write_operations" in outcome.tag


def _is_doubtful(outcome: Outcome) -> bool:
    """Tell whether it is open what became of a file, or its session alone was refused."""
    if isinstance(outcome, TransportError):
        return outcome.was_sent
    return isinstance(outcome, ApiError) and (not is_final(outcome) or outcome.is_unsettled)


def _is_unsettled(outcome: Outcome) -> bool:
    return isinstance(outcome, (ApiError, TransportError)) and outcome.is_unsettled
