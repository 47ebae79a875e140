"""`Staging`: content that is sent ahead and becomes visible later: once at most, however often that is asked for.

An upload session is committed once. Whoever keeps its name before he asks for the commit, and finishes the same session
again where he has not heard of an answer, in another process even, settles by that what became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import fs.errors

from fs_dropbox import paths
from fs_dropbox.api import commits
from fs_dropbox.api.client import Client
from fs_dropbox.api.commits import Commit, Update
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, TransportError, to_fs_error
from fs_dropbox.metadata.catalog import Catalog
from fs_dropbox.pool import Pool
from fs_dropbox.uploads.bulk import BUSY_ROUNDS, COMMIT_FILES, is_busy
from fs_dropbox.uploads.checkpoints import Staged
from fs_dropbox.uploads.session_contents import THREADS, Content, SessionContents, pieces

if TYPE_CHECKING:
    from fs_dropbox.uploads.upload import Uploader

Source: TypeAlias = tuple[Callable[[], BinaryIO], int]
"""What opens the content for reading, size in bytes."""
StagedFile: TypeAlias = tuple[str, str, datetime, str | None]
"""Path, what `stage` gave, time to store (aware), and what is there: None whatever it is, "" nothing, else this rev."""


_Outcome: TypeAlias = FileEntry | ApiError | TransportError


@dataclass(slots=True, eq=False)
class _Item:
    """One file that is to become visible."""

    index: int
    path: str
    staged: Staged
    commit: Commit


class Staging:
    """Thread-safe, holds no lock; owned by DropboxFS. Each run has threads of its own, which end with it."""

    def __init__(self, client: Client, catalog: Catalog, uploader: Uploader) -> None:
        self._client = client
        self._catalog = catalog
        self._uploader = uploader
        self._contents = SessionContents(client, uploader)

    def stage(self, sources: Iterable[Source]) -> Iterator[tuple[int, str | Exception]]:
        """Yield the index of each content and its token, or why it has none, once; see `DropboxFS.stage_files`."""
        contents = [Content(index, open_content, size) for index, (open_content, size) in enumerate(sources)]
        with Pool(THREADS, "fs-dropbox-stage") as pool:
            for begin in range(0, len(contents), COMMIT_FILES):
                sent = self._contents.send(pool, contents[begin : begin + COMMIT_FILES])
                for item in sent.appended:
                    yield item.index, str(Staged(item.session, item.size, item.content_hash))
                for item, error in sent.failed:
                    yield item.index, _told(error, "")
                for item, outcome in zip(sent.alone, pool.map(self._send_alone, sent.alone), strict=True):
                    yield item.index, outcome

    def commit(
        self, files: Iterable[StagedFile], check: Callable[[str], str]
    ) -> Iterator[tuple[int, bool | Exception]]:
        """Yield the index of each file and what became of it, once; see `DropboxFS.commit_files`."""
        window: dict[str, _Item] = {}
        for index, (path, token, modified, expected) in enumerate(files):
            try:
                staged = Staged.parse(token)
                real = check(path)
            except (fs.errors.FSError, ValueError) as error:
                yield index, error if isinstance(error, fs.errors.FSError) else False
                continue
            key = paths.key(real)
            if key in window or len(window) == COMMIT_FILES:  # those of one path keep their order
                yield from self._commit(list(window.values()))
                window = {}
            window[key] = _Item(index, path, staged, _commit(paths.to_api(real), modified, expected))
        yield from self._commit(list(window.values()))

    def _send_alone(self, item: Content) -> str | Exception:
        try:
            with closing(pieces(item)) as whole:
                return str(self._uploader.stage(whole))
        except Exception as error:  # noqa: BLE001 - of the source as well; the content's result tells
            return _told(error, "")

    def _commit(self, items: list[_Item]) -> Iterator[tuple[int, bool | Exception]]:
        left = items
        for turn in range(BUSY_ROUNDS):
            if not left:
                return
            try:
                if turn:
                    self._client.pause_after(turn)
                since = self._catalog.epoch()
                outcomes = self._finish(left)
            except BaseException as error:  # Ctrl-C as well
                for item in left:
                    self._catalog.forget(item.commit.path)
                if not isinstance(error, (ApiError, TransportError)):
                    raise
                yield from [(item.index, _told(error, item.path)) for item in left]
                return
            last = turn + 1 == BUSY_ROUNDS
            pairs = list(zip(left, outcomes, strict=True))
            with Pool(THREADS, "fs-dropbox-settle") as pool:
                known = [(*pair, since) for pair in pairs if last or not is_busy(pair[1])]
                told = list(pool.map(lambda each: self._settle(*each), known))
            # All are taken over before the first is yielded: nobody may ask for the others.
            yield from [(item.index, outcome) for (item, *_), outcome in zip(known, told, strict=True)]
            left = [item for item, outcome in pairs if not last and is_busy(outcome)]

    def _finish(self, items: list[_Item]) -> Sequence[_Outcome]:
        """Commit all in one call, or one by one where that is not taken: by one of its names, or by a stand-in."""
        try:
            return self._client.session_finish_batch(
                [(item.staged.session_id, item.staged.size, item.commit) for item in items]
            )
        except (ApiError, TransportError) as error:
            if not error.is_not_taken:
                raise
        with Pool(THREADS, "fs-dropbox-finish") as pool:
            return list(pool.map(self._finish_alone, items))

    def _finish_alone(self, item: _Item) -> _Outcome:
        staged = item.staged
        try:
            return self._client.session_finish(staged.session_id, staged.size, item.commit, staged.content_hash)
        except (ApiError, TransportError) as error:
            return error

    def _settle(self, item: _Item, outcome: _Outcome, since: int) -> bool | Exception:
        told: bool | Exception = False
        try:
            entry = self._made(item, outcome)
            if entry is not None:
                self._catalog.applied(entry, since)
                return True
        except (ApiError, TransportError) as error:
            told = _told(error, item.path)
        self._catalog.forget(item.commit.path)
        return told

    def _made(self, item: _Item, outcome: _Outcome) -> FileEntry | None:
        """Return the file that was made, now or by an earlier call; None where none was and none will be."""
        commit, size, content_hash = item.commit, item.staged.size, item.staged.content_hash
        if isinstance(outcome, FileEntry):
            if outcome.content_hash not in (None, content_hash):
                raise ApiError("files/upload_session/finish_batch_v2", ("stored_otherwise",))
            return outcome
        if isinstance(outcome, TransportError) or outcome.is_not_taken:
            raise outcome
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


def _commit(path: str, modified: datetime, expected: str | None) -> Commit:
    if expected is None:
        return Commit(path, "overwrite", modified)
    if not expected:
        return Commit(path, "add", modified, strict_conflict=True)
    return Commit(path, Update(expected), modified)


def _told(error: Exception, path: str) -> Exception:
    return to_fs_error(error, path) if isinstance(error, (ApiError, TransportError)) else error
