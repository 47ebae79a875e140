"""`OpenFiles`: opens files in every mode, and knows which are open. No HTTP."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from weakref import WeakSet

import fs.errors
from fs.mode import Mode
from fs.path import dirname

from fs_dropbox import paths
from fs_dropbox.api.client import Client, Commit, Update
from fs_dropbox.conventions import path_error
from fs_dropbox.entries import FileEntry, FolderEntry
from fs_dropbox.errors import VersionConflict, fs_errors
from fs_dropbox.files.blocks import BLOCK_BYTES, BlockBudget, BlockReader
from fs_dropbox.files.integrity import CheckedFetch
from fs_dropbox.files.read_file import DropboxFile, ReadFile
from fs_dropbox.files.siblings import Siblings
from fs_dropbox.files.write_file import WriteFile
from fs_dropbox.metadata.catalog import Catalog
from fs_dropbox.metadata.known import Present
from fs_dropbox.uploads.checkpoints import Checkpoint
from fs_dropbox.uploads.upload import Upload, Uploader
from fs_dropbox.views.documents import Documents
from fs_dropbox.views.permits import check_readable, check_writable


class OpenFiles:
    """The files of one root of an account. Thread-safe: one lock over the set, a leaf; owned by DropboxFS.

    Those of all roots share the threads and the budget.
    """

    def __init__(
        self,
        client: Client,
        catalog: Catalog,
        uploader: Uploader,
        documents: Documents,
        *,
        read_ahead: ThreadPoolExecutor,
        small: ThreadPoolExecutor,
        budget: BlockBudget,
    ) -> None:
        self._client = client
        self._catalog = catalog
        self._uploader = uploader
        self._documents = documents
        self._read_ahead = read_ahead
        self._budget = budget
        self._siblings = Siblings(
            lambda entry: b"".join(self._client.download_revision(entry, 0, entry.size)), small.submit
        )
        self._lock = threading.RLock()  # the garbage collector may close a file in the thread that has it
        self._files: WeakSet[DropboxFile] = WeakSet()  # guarded by _lock

    def open(
        self,
        path: str,
        mode: Mode,
        *,
        expected_version: str | None = None,
        modified: datetime | None = None,
        seekable: bool = True,
        resume: str | None = None,
        **_: object,
    ) -> DropboxFile:
        """Open the file at a normalised path in a mode that writes (docs/semantics.md, Writing); raises `fs.errors`."""
        base = self._base(path, mode, expected_version)
        commit = _commit(path, mode, base, expected_version)
        resumed = [] if resume is None else [self._resumed(path, commit, resume)]
        file = WriteFile(
            path,
            mode,
            open_upload=lambda: resumed.pop() if resumed else self._uploader.open(commit),
            epoch=self._catalog.epoch,
            on_commit=self._catalog.applied,
            on_failure=self._catalog.forget,
            on_close=self._forget,
            base=None if base is None else (base, self._blocks(path, base)),
            modified=modified,
            seekable=seekable,
        )
        return self._noted(file)

    def read(self, path: str, entry: FileEntry) -> DropboxFile:
        """Open a revision for reading; `path` is what its reader calls it. A document is read as what it exports."""
        check_readable(path, entry)
        if not entry.is_downloadable:
            content = self._documents.content(path, entry)
            entry = entry._replace(size=len(content), content_hash=None)
            blocks = BlockReader(lambda start, end: [content[start:end]], entry.size, budget=self._budget)
            return self._noted(ReadFile(path, entry, blocks, self._forget))
        folder = dirname(path)
        self._siblings.opened(entry, paths.parent(entry.path_lower), lambda: self._catalog.known_children(folder))
        return self._noted(ReadFile(path, entry, self._blocks(path, entry), self._forget))

    def _noted(self, file: DropboxFile) -> DropboxFile:
        with self._lock:
            self._files.add(file)
        return file

    def abort_all(self) -> None:
        """Discard what is being written; closing it then tells that the filesystem was closed before."""
        with self._lock:
            files = list(self._files)
        for file in files:
            file.abort(fs.errors.FilesystemClosed())
        self._siblings.close()

    def check_writable(self, path: str) -> None:
        """Raise ResourceReadOnly for a document at a path, ResourceLocked for a file that somebody else has locked."""
        existing = self._existing(path)
        if isinstance(existing, FileEntry):
            check_writable(path, existing)

    def _existing(self, path: str, *, latest: bool = False) -> Present | None:
        existing = self._catalog.find_latest(path) if latest else self._catalog.find(path)
        if isinstance(existing, FileEntry) and existing.lock is not None:
            return self._catalog.find_latest(path)  # it may be free by now
        return existing

    def _base(self, path: str, mode: Mode, expected_version: str | None) -> FileEntry | None:
        """Return the file that is to be changed in place, None for a new content; raises where neither can be."""
        in_place = not mode.truncate and not mode.exclusive
        existing = self._existing(path, latest=in_place)
        if in_place and expected_version and isinstance(existing, FileEntry) and existing.rev != expected_version:
            self._catalog.forget(path)  # the feed may not have heard of it yet
            existing = self._existing(path, latest=True)
        if isinstance(existing, FolderEntry):
            raise fs.errors.FileExpected(path)
        if existing is None:
            if not mode.create:
                raise fs.errors.ResourceNotFound(path)
            self._catalog.require_parent(path)
            return None
        if mode.exclusive:
            raise fs.errors.FileExists(path)
        check_writable(path, existing)
        if not in_place:
            return None
        if expected_version not in (None, "", existing.rev):
            # What is changed in place is that version: upon another one, what came between would be undone.
            raise VersionConflict(path)
        return existing

    def _resumed(self, path: str, commit: Commit, checkpoint: str) -> Upload:
        """Go on with an upload; raises OperationFailed where Dropbox has forgotten it."""
        with fs_errors(path):
            try:
                return self._uploader.open(commit, Checkpoint.parse(checkpoint))
            except ValueError as error:
                raise path_error(fs.errors.OperationFailed, path, str(error)) from None

    def _blocks(self, path: str, entry: FileEntry) -> BlockReader:
        """Return a reader of this revision, whatever the path holds later."""

        def fetch(start: int, end: int) -> Sequence[bytes]:
            known = self._siblings.take(entry, paths.parent(entry.path_lower)) if end - start == entry.size else None
            if known is None:
                return self._client.download_revision(entry, start, end, BLOCK_BYTES)
            return [known[at : at + BLOCK_BYTES] for at in range(0, len(known), BLOCK_BYTES)]

        checked = CheckedFetch(fetch, path, entry.size, entry.content_hash) if entry.content_hash else fetch
        return BlockReader(checked, entry.size, submit=self._read_ahead.submit, budget=self._budget)

    def _forget(self, file: DropboxFile) -> None:
        with self._lock:
            self._files.discard(file)


def _commit(path: str, mode: Mode, base: FileEntry | None, expected_version: str | None) -> Commit:
    """Return how a file of this mode is committed (docs/semantics.md, Writing)."""
    api_path = paths.to_api(path)
    if expected_version:
        return Commit(api_path, Update(expected_version))
    if base is not None:
        return Commit(api_path, Update(base.rev))
    if mode.exclusive or mode.appending:  # of two that begin one log with the same line, both would succeed
        return Commit(api_path, "add", strict_conflict=True)
    return Commit(api_path, "overwrite")
