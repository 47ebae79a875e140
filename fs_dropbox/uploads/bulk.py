"""`BulkUpload`: many files in few calls, each with a result of its own.

A thousand small files cost a dozen calls: those that bring the contents, and one that commits them all
(commits in one namespace are serial).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, as_completed
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, TypeAlias

import fs.errors

from fs_dropbox import paths
from fs_dropbox.api import commits
from fs_dropbox.api.client import Client, Commit
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, DropboxError, TransportError
from fs_dropbox.metadata.catalog import Catalog
from fs_dropbox.pool import Pool
from fs_dropbox.uploads.group_commit import is_final
from fs_dropbox.uploads.session_commits import Ready, SessionCommits, windows
from fs_dropbox.uploads.session_contents import THREADS, Content, SessionContents, pieces
from fs_dropbox.uploads.upload import Upload, Uploader

File: TypeAlias = tuple[str, Callable[[], BinaryIO], int, datetime | None]
"""Path, what opens the content for reading, size in bytes, time to store (aware)."""
Outcome: TypeAlias = FileEntry | Exception


@dataclass(eq=False, kw_only=True)
class _Item(Content, Ready):
    """One file on its way."""


_Settled: TypeAlias = list[tuple[_Item, Outcome]]
_Told: TypeAlias = tuple[int, Exception | None]


class BulkUpload:
    """Uploads many files at once, replacing what is there. Thread-safe; owned by DropboxFS, holds no lock.

    Each run has threads of its own, which end with it.
    """

    def __init__(self, client: Client, catalog: Catalog, uploader: Uploader) -> None:
        self._client = client
        self._catalog = catalog
        self._uploader = uploader
        self._contents = SessionContents(client, uploader)
        self._commits = SessionCommits(client, catalog)

    def run(self, files: Iterable[File], check: Callable[[str], str]) -> Iterator[_Told]:
        """Yield the index and the result of every file, once, as they become known; see `DropboxFS.upload_files`.

        `check` returns the normalised path, or raises an `fs.errors` error. Closing the iterator early gives up what
        has not been sent.
        """
        pool = Pool(THREADS, "fs-dropbox-bulk")
        under_way: list[Future[_Settled]] = []
        refused: list[_Told] = []
        folders: set[str] = set()
        try:
            for window in windows(self._checked(files, check, folders, refused)):
                folders.clear()  # whether they are there is looked at once for a window
                yield from refused
                refused.clear()
                self._contents.send(pool, window)
                # One commit at a time, and those of a path in their order.
                yield from self._ended(pool, under_way)
                yield from self._told([(item, item.error) for item in window if item.error is not None])
                under_way = [pool.submit(self._upload, item) for item in window if item.is_alone]
                ready = [item for item in window if item.staged is not None]
                if ready:
                    under_way.append(pool.submit(self._commit, ready))
            yield from self._ended(pool, under_way)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for future in under_way:  # of whoever has closed the iterator
                for item, _ in [] if future.cancelled() or future.exception() else future.result():
                    self._catalog.forget(item.commit.path)

    def _ended(self, pool: Pool, under_way: list[Future[_Settled]]) -> Iterator[_Told]:
        """Yield the results of all that is under way, which is nothing then: what is in doubt is settled one by one."""
        unreachable: list[TransportError] = []
        while under_way:
            for future in as_completed(list(under_way)):
                known = [pair for pair in future.result() if not _is_doubtful(*pair)]
                doubtful = [pair for pair in future.result() if _is_doubtful(*pair)]
                for item, problem in doubtful:
                    self._catalog.forget(item.commit.path)  # nobody may ask for them to be settled
                    under_way.append(pool.submit(self._settle, item, problem, unreachable))
                told = self._told(known)
                under_way.remove(future)
                yield from told

    def _told(self, settled: _Settled) -> list[_Told]:
        """Take all over, before the first is yielded: nobody may ask for the others."""
        return [(item.index, self._commits.take_over(item, outcome)) for item, outcome in settled]

    def _checked(
        self, files: Iterable[File], check: Callable[[str], str], folders: set[str], refused: list[_Told]
    ) -> Iterator[_Item]:
        """Yield what can be uploaded; `folders` are known to be there, `refused` takes what is not uploaded and why."""
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
            else:
                commit = Commit(paths.to_api(checked), "overwrite", modified)
                yield _Item(index=index, open=open_file, size=size, path=path, commit=commit)

    def _commit(self, items: list[_Item]) -> _Settled:
        return list(zip(items, self._commits.finish(items), strict=True))

    def _settle(self, item: _Item, problem: Outcome, unreachable: list[TransportError]) -> _Settled:
        """Find the file in Dropbox, or upload it on its own, unless its commit may still take place."""
        staged, item.staged = item.staged, None  # what is known after this is all that will be
        assert staged is not None
        try:
            if unreachable:
                raise unreachable[0]  # one long wait is enough for all
            found = commits.settle_commit(self._client, item.commit, staged.size, staged.content_hash)
        except DropboxError as error:
            unknown = copy.copy(error)  # others may have the same one
            unknown.is_unsettled = True
            settled: _Settled = [(item, unknown)]
        else:
            is_over = found is not None or (isinstance(problem, DropboxError) and problem.is_unsettled)
            settled = [(item, found or problem)] if is_over else self._upload(item)
        outcome = settled[0][1]
        if isinstance(outcome, TransportError) and outcome is not problem:
            unreachable.append(outcome)
        return settled

    def _upload(self, item: _Item) -> _Settled:
        """Upload one file by itself."""

        def commit(upload: Upload) -> FileEntry:
            item.since = self._catalog.epoch()
            return upload.commit()

        try:
            with closing(pieces(item)) as whole:
                return [(item, self._uploader.send(whole, item.commit, commit))]
        except Exception as error:  # noqa: BLE001 - of the source as well; the file's result tells
            return [(item, error)]


def _is_doubtful(item: _Item, outcome: Outcome) -> bool:
    """Tell whether it is open what became of a file, or its session alone was refused."""
    if item.staged is None:
        return False
    if isinstance(outcome, TransportError):
        return outcome.was_sent
    return isinstance(outcome, ApiError) and (not is_final(outcome) or outcome.is_unsettled)
