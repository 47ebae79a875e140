"""`SessionCommits`: makes visible what upload sessions have: many files in one call, each with its own outcome."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from fs_dropbox import paths
from fs_dropbox.api.client import Client, Commit
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, DropboxError, to_fs_error
from fs_dropbox.metadata.catalog import Catalog
from fs_dropbox.pool import Pool
from fs_dropbox.uploads.checkpoints import Staged
from fs_dropbox.uploads.session_contents import THREADS

COMMIT_FILES: Final = 1000  # the most that one call commits
BUSY_ROUNDS: Final = 5


@dataclass(eq=False, kw_only=True)
class Ready:
    """A file that is to become visible."""

    index: int
    path: str  # as the caller gave it
    commit: Commit
    staged: Staged | None = None
    since: int = 0  # the epoch before its commit


R = TypeVar("R", bound=Ready)


class SessionCommits:
    """Thread-safe, holds no lock; owned by BulkUpload and Staging."""

    def __init__(self, client: Client, catalog: Catalog) -> None:
        self._client = client
        self._catalog = catalog

    def finish(self, items: Sequence[Ready]) -> list[FileEntry | DropboxError]:
        """Commit up to `COMMIT_FILES`, no path twice; again those that others have held up."""
        outcomes: dict[Ready, FileEntry | DropboxError] = {}
        left = list(items)
        for turn in range(BUSY_ROUNDS):
            if not left:
                break
            try:
                if turn:
                    self._client.pause_after(turn)
                since = self._catalog.epoch()
                for item in left:
                    item.since = since
                outcomes.update(zip(left, self._finish(left), strict=True))
            except DropboxError as error:
                outcomes.update(dict.fromkeys(left, error))
                break
            except BaseException:  # Ctrl-C: who knows what was committed
                for item in items:
                    self._catalog.forget(item.commit.path)
                raise
            left = [item for item in left if _is_busy(outcomes[item])]
        return [outcomes[item] for item in items]

    def _finish(self, items: Sequence[Ready]) -> Sequence[FileEntry | DropboxError]:
        """Commit all in one call, or one by one where that is not taken: by one of its names, or by a stand-in."""
        ready = [(item.staged, item.commit) for item in items if item.staged is not None]
        batch = [(staged.session_id, staged.size, commit) for staged, commit in ready]
        try:
            return self._client.session_finish_batch(batch)
        except DropboxError as error:
            if not error.is_not_taken:
                raise
        with Pool(THREADS, "fs-dropbox-finish") as pool:
            return list(pool.map(lambda each: self._finish_alone(*each), ready))

    def _finish_alone(self, staged: Staged, commit: Commit) -> FileEntry | DropboxError:
        try:
            return self._client.session_finish(staged.session_id, staged.size, commit, staged.content_hash)
        except DropboxError as error:
            return error

    def take_over(self, item: Ready, outcome: FileEntry | Exception) -> Exception | None:
        """Have the cache know what became of a file; return what went wrong, for whoever gave its path."""
        if isinstance(outcome, FileEntry):
            if item.staged is None or outcome.content_hash in (None, item.staged.content_hash):
                self._catalog.applied(outcome, item.since)
                return None
            outcome = ApiError("files/upload_session/finish_batch_v2", ("stored_otherwise",))
        self._catalog.forget(item.commit.path)
        return told(outcome, item.path)


def told(error: Exception, path: str) -> Exception:
    """Return what went wrong for whoever gave the path; what reading the content raised as it is."""
    return to_fs_error(error, path) if isinstance(error, DropboxError) else error


def windows(items: Iterable[R]) -> Iterator[list[R]]:
    """Yield as many at a time as can be committed together: no path twice, so that those of one keep their order."""
    window: dict[str, R] = {}
    for item in items:
        key = paths.key(item.commit.path)
        if key in window or len(window) == COMMIT_FILES:
            yield list(window.values())
            window = {}
        window[key] = item
    yield list(window.values())


def _is_busy(outcome: FileEntry | DropboxError) -> bool:
    return isinstance(outcome, ApiError) and "too_many_write_operations" in outcome.tag
