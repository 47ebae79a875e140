"""`BulkUpload`: many files in few calls, each with a result of its own.

A thousand small files cost a dozen calls: one starts their sessions, each of a few brings the content of a hundred, one
commits them all (API facts, section 5: appends take no lock, commits in one namespace are serial).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias

import fs.errors

from fs_dropbox import commits, paths
from fs_dropbox.catalog import Catalog
from fs_dropbox.client import Client, Commit
from fs_dropbox.content_hash import ContentHash
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, TransportError, to_fs_error
from fs_dropbox.group_commit import GROUP_FILES, is_final

if TYPE_CHECKING:
    from fs_dropbox.upload import Uploader

COMMIT_FILES: Final = 1000  # the most that one call commits
SMALL_BYTES: Final = 4 * 2**20  # larger files go through uploads of their own
APPEND_BYTES: Final = 16 * 2**20
THREADS: Final = 4
# Fewer are cheaper one by one.
LEAST_FILES: Final = 4
BUSY_ROUNDS: Final = 5
PIECE_BYTES: Final = 4 * 2**20

File: TypeAlias = tuple[str, Callable[[], BinaryIO], int, datetime | None]
"""Path, what opens the content for reading, size in bytes, time to store (aware)."""
Outcome: TypeAlias = FileEntry | Exception


@dataclass(slots=True, eq=False)
class _Item:
    """One file on its way."""

    index: int
    path: str
    commit: Commit
    open: Callable[[], BinaryIO]
    size: int
    session: str = ""
    content_hash: str = ""
    is_appended: bool = False  # its session has it all; only then a commit can be in doubt


_Settled: TypeAlias = list[tuple[_Item, Outcome]]


class BulkUpload:
    """Uploads many files at once, replacing what is there. Thread-safe; owned by DropboxFS, holds no lock.

    Each run has threads of its own, which end with it. At most `THREADS` groups of `APPEND_BYTES` are in memory,
    within what all uploads of the filesystem may have.
    """

    def __init__(self, client: Client, catalog: Catalog, uploader: Uploader) -> None:
        self._client = client
        self._catalog = catalog
        self._uploader = uploader

    def run(self, files: Iterable[File], check: Callable[[str], str]) -> Iterator[tuple[int, Exception | None]]:
        """Yield the index and the result of every file, once, as they become known; see `DropboxFS.upload_files`.

        `check` returns the normalised path, or raises an `fs.errors` error. Closing the iterator early gives up what
        has not been sent.
        """
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="fs-dropbox-bulk")
        under_way: list[Future[_Settled]] = []
        try:
            for window, refused in self._windows(files, check):
                yield from refused
                appended, singles, failed = self._append_all(pool, window)
                # One commit at a time, and those of a path in their order.
                for future in as_completed(under_way):
                    yield from self._results(pool, future.result())
                yield from self._results(pool, failed)
                under_way = [pool.submit(self._upload, item) for item in singles]
                if appended:
                    under_way.append(pool.submit(self._commit, appended))
            for future in as_completed(under_way):
                yield from self._results(pool, future.result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

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
            window.append(_Item(index, path, commit, open_file, size))
        yield window, refused

    def _append_all(self, pool: ThreadPoolExecutor, window: list[_Item]) -> tuple[list[_Item], list[_Item], _Settled]:
        """Send the content of small files; return what waits for its commit, what goes alone, and what has failed."""
        small = [item for item in window if item.size <= SMALL_BYTES]
        singles = [item for item in window if item.size > SMALL_BYTES]
        if len(small) < LEAST_FILES:
            return [], window, []
        try:
            sessions = self._client.session_start_batch(len(small))
        except (ApiError, TransportError) as error:
            return [], singles, [(item, error) for item in small]
        for item, session in zip(small, sessions, strict=True):
            item.session = session
        appended: list[_Item] = []
        failed: _Settled = []
        for sent, alone, wrong in pool.map(self._append, _groups(small)):
            appended += sent
            singles += alone
            failed += wrong
        return appended, singles, failed

    def _append(self, group: list[_Item]) -> tuple[list[_Item], list[_Item], _Settled]:
        """Send the content of one group; returns as `_append_all` does."""
        expected = sum(item.size for item in group)
        self._uploader.sending.take(expected)
        try:
            parts, sent, alone, failed = self._read(group)
            try:
                errors = self._client.session_append_batch(parts) if parts else []
            except (ApiError, TransportError) as error:
                return [], alone, failed + [(item, error) for item in sent]  # nothing of them can be visible
        finally:
            self._uploader.sending.give(expected)
        # Whatever is wrong with a session, the file has another chance without one.
        alone += [item for item, error in zip(sent, errors, strict=True) if error is not None]
        appended = [item for item, error in zip(sent, errors, strict=True) if error is None]
        for item in appended:
            item.is_appended = True
        return appended, alone, failed

    def _read(self, group: list[_Item]) -> tuple[list[tuple[str, bytes]], list[_Item], list[_Item], _Settled]:
        parts: list[tuple[str, bytes]] = []
        sent: list[_Item] = []
        alone: list[_Item] = []
        failed: _Settled = []
        for item in group:
            try:
                with closing(item.open()) as file:
                    data = _read_whole(file, item.size + 1)
            except Exception as error:  # noqa: BLE001 - it is not ours; the file's result tells
                failed.append((item, error))
                continue
            if len(data) > item.size:
                alone.append(item)  # it has grown; who knows how far
                continue
            item.size, item.content_hash = len(data), ContentHash(data).hexdigest()
            parts.append((item.session, data))
            sent.append(item)
        return parts, sent, alone, failed

    def _commit(self, items: list[_Item]) -> _Settled:
        """Commit what was appended; what has no outcome yet comes back with the error that stood in its way."""
        settled: _Settled = []
        busy: _Settled = []
        left = items
        for turn in range(BUSY_ROUNDS):
            if turn:
                self._client.pause_after(turn)
            try:
                outcomes: Sequence[Outcome] = self._client.session_finish_batch(
                    [(item.session, item.size, item.commit) for item in left]
                )
            except (ApiError, TransportError) as error:
                outcomes = [error] * len(left)
            busy = [pair for pair in zip(left, outcomes, strict=True) if _is_busy(pair[1])]
            settled += [pair for pair in zip(left, outcomes, strict=True) if not _is_busy(pair[1])]
            left = [item for item, _ in busy]
            if not left:
                break
        return settled + busy

    def _results(self, pool: ThreadPoolExecutor, settled: _Settled) -> Iterator[tuple[int, Exception | None]]:
        """Yield the results of what is settled, after settling what is in doubt one by one."""
        doubtful = [item for item, outcome in settled if item.is_appended and _is_doubtful(outcome)]
        unreachable: list[TransportError] = []

        def settle(item: _Item) -> Outcome:
            if unreachable:
                return unreachable[0]  # one long wait is enough for all
            outcome = self._settle(item)
            if isinstance(outcome, TransportError):
                unreachable.append(outcome)
            return outcome

        again = pool.map(settle, doubtful)
        for item, outcome in [pair for pair in settled if pair[0] not in doubtful]:
            yield item.index, self._result(item, outcome)
        for item, outcome in zip(doubtful, again, strict=True):
            yield item.index, self._result(item, outcome)

    def _settle(self, item: _Item) -> Outcome:
        """Return the file if Dropbox has it; otherwise upload it on its own."""
        try:
            found = commits.settle_commit(self._client, item.commit, item.size, item.content_hash)
        except (ApiError, TransportError) as error:
            return error
        return found if found is not None else self._upload(item)[0][1]

    def _upload(self, item: _Item) -> _Settled:
        """Upload one file by itself."""
        upload = self._uploader.open(item.commit)
        try:
            with closing(item.open()) as file:
                while piece := file.read(PIECE_BYTES):
                    upload.write(piece)
            return [(item, upload.commit())]
        except Exception as error:  # noqa: BLE001 - of the source as well; the file's result tells
            upload.abort()
            return [(item, error)]

    def _result(self, item: _Item, outcome: Outcome) -> Exception | None:
        if isinstance(outcome, FileEntry):
            if item.content_hash and outcome.content_hash not in (None, item.content_hash):
                outcome = ApiError("files/upload_session/finish_batch_v2", ("content_hash_mismatch",))
            else:
                self._catalog.applied(outcome)
                return None
        if isinstance(outcome, (ApiError, TransportError)):
            self._catalog.forget(item.path)
            return to_fs_error(outcome, item.path, None)
        return outcome


def _groups(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Yield what goes into one append_batch: its argument travels in a header, which is bounded."""
    group: list[_Item] = []
    size = 0
    for item in items:
        if group and (len(group) == GROUP_FILES or size + item.size > APPEND_BYTES):
            yield group
            group, size = [], 0
        group.append(item)
        size += item.size
    if group:
        yield group


def _read_whole(file: BinaryIO, most: int) -> bytes:
    """Read up to so many bytes, of files too that give less at a time."""
    pieces: list[bytes] = []
    while most > 0 and (piece := file.read(most)):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def _is_busy(outcome: Outcome) -> bool:
    return isinstance(outcome, ApiError) and "too_many_write_operations" in outcome.tag


def _is_doubtful(outcome: Outcome) -> bool:
    """Tell whether it is open what became of a file, or its session alone was refused."""
    if isinstance(outcome, TransportError):
        return outcome.was_sent
    return isinstance(outcome, ApiError) and not is_final(outcome)
