"""`Staging`: content that is sent ahead and becomes visible later: once at most, however often that is asked for.

An upload session is committed once. Whoever keeps its name before he asks for the commit, and finishes the same session
again where he has not heard of an answer, in another process even, settles by that what became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import BinaryIO, TypeAlias

import fs.errors

from fs_dropbox import paths
from fs_dropbox.api import commits
from fs_dropbox.api.client import Client
from fs_dropbox.api.commits import Commit, Update
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, DropboxError
from fs_dropbox.metadata.catalog import Catalog
from fs_dropbox.pool import Pool
from fs_dropbox.uploads.checkpoints import Staged
from fs_dropbox.uploads.session_commits import COMMIT_FILES, Ready, SessionCommits, told, windows
from fs_dropbox.uploads.session_contents import THREADS, Content, SessionContents, pieces
from fs_dropbox.uploads.upload import Upload, Uploader

Source: TypeAlias = tuple[Callable[[], BinaryIO], int]
"""What opens the content for reading, size in bytes."""
StagedFile: TypeAlias = tuple[str, str, datetime, str | None]
"""Path, what `stage` gave, time to store (aware), and what is there: None whatever it is, "" nothing, else this rev."""


class Staging:
    """Thread-safe, holds no lock; owned by DropboxFS. Each run has threads of its own, which end with it."""

    def __init__(self, client: Client, catalog: Catalog, uploader: Uploader) -> None:
        self._client = client
        self._catalog = catalog
        self._uploader = uploader
        self._contents = SessionContents(client, uploader)
        self._commits = SessionCommits(client, catalog)

    def stage(self, sources: Iterable[Source]) -> Iterator[tuple[int, str | Exception]]:
        """Yield the index of each content and its token, or why it has none, once; see `DropboxFS.stage_files`."""
        contents = [Content(index=i, open=open_content, size=size) for i, (open_content, size) in enumerate(sources)]
        with Pool(THREADS, "fs-dropbox-stage") as pool:
            for begin in range(0, len(contents), COMMIT_FILES):
                window = contents[begin : begin + COMMIT_FILES]
                self._contents.send(pool, window)
                list(pool.map(self._send_alone, [item for item in window if item.is_alone]))
                for item in window:
                    yield item.index, str(item.staged) if item.error is None else told(item.error, "")

    def commit(
        self, files: Iterable[StagedFile], check: Callable[[str], str]
    ) -> Iterator[tuple[int, bool | Exception]]:
        """Yield the index of each file and what became of it, once; see `DropboxFS.commit_files`."""
        refused: list[tuple[int, bool | Exception]] = []
        for window in windows(_parsed(files, check, refused)):
            yield from refused
            refused.clear()
            outcomes = self._commits.finish(window)
            # All are taken over before the first is yielded: nobody may ask for the others.
            with Pool(THREADS, "fs-dropbox-settle") as pool:
                settled = pool.map(self._settle, window, outcomes)
            yield from zip([item.index for item in window], settled, strict=True)

    def _send_alone(self, item: Content) -> None:
        try:
            with closing(pieces(item)) as whole:
                item.staged = self._uploader.send(whole, None, Upload.stage)
        except Exception as error:  # noqa: BLE001 - of the source as well; the content's result tells
            item.error = error

    def _settle(self, item: Ready, outcome: FileEntry | DropboxError) -> bool | Exception:
        made: FileEntry | DropboxError | None
        try:
            made = self._made(item, outcome)
        except DropboxError as error:
            made = error
        if made is None:
            self._catalog.forget(item.commit.path)
            return False
        return self._commits.take_over(item, made) or True

    def _made(self, item: Ready, outcome: FileEntry | DropboxError) -> FileEntry | None:
        """Return the file that was made, now or by an earlier call; None where none was and none will be."""
        if isinstance(outcome, FileEntry):
            return outcome
        if not isinstance(outcome, ApiError) or outcome.status != 409:
            raise outcome
        assert item.staged is not None
        commit, size, content_hash = item.commit, item.staged.size, item.staged.content_hash
        if not (outcome.tag[:1] == ("path",) or outcome.is_transient or outcome.is_ambiguous):
            # The session was committed before, or has expired, or takes no commit.
            found = commits.settle_commit(self._client, commit, size, content_hash)
            # Of what was replaced or removed since, the time tells whose it was.
            exact = replace(commit, strict_conflict=True)
            return found or commits.find_superseded(self._client, exact, size, content_hash)
        same = commits.unchanged(self._client, commit, size, content_hash) if outcome.lost_update else None
        if same is None:
            raise outcome
        return same


def _parsed(
    files: Iterable[StagedFile], check: Callable[[str], str], refused: list[tuple[int, bool | Exception]]
) -> Iterator[Ready]:
    """Yield what can be committed; `refused` takes what cannot, and why."""
    for index, (path, token, modified, expected) in enumerate(files):
        try:
            commit = _commit(paths.to_api(check(path)), modified, expected)
            yield Ready(index=index, path=path, commit=commit, staged=Staged.parse(token))
        except fs.errors.FSError as error:
            refused.append((index, error))
        except ValueError:
            refused.append((index, False))


def _commit(path: str, modified: datetime, expected: str | None) -> Commit:
    if expected is None:
        return Commit(path, "overwrite", modified)
    if not expected:
        return Commit(path, "add", modified, strict_conflict=True)
    return Commit(path, Update(expected), modified)
