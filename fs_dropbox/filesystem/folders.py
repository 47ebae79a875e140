"""`Folders`: creates folders, exactly or with those above them. No HTTP."""

from __future__ import annotations

import fs.errors

from fs_dropbox import paths
from fs_dropbox.api.client import Client
from fs_dropbox.conventions import path_error
from fs_dropbox.entries import FileEntry, FolderEntry
from fs_dropbox.errors import ApiError, fs_errors
from fs_dropbox.metadata.catalog import Catalog


class Folders:
    """Thread-safe, lock-free; owned by DropboxFS; raises `fs.errors` errors."""

    def __init__(self, client: Client, catalog: Catalog) -> None:
        self._client = client
        self._catalog = catalog

    def make(self, path: str, *, recreate: bool) -> None:
        """Create a folder in one that is there; one that exists is an error unless `recreate`."""
        existing = self._catalog.find(path)
        if isinstance(existing, FileEntry):
            raise path_error(fs.errors.DirectoryExists, path, "a file with this name is there already")
        if existing is not None and not recreate:
            raise fs.errors.DirectoryExists(path)
        if existing is None:
            self._catalog.require_parent(path)
            self._create(path, exist_ok=recreate)

    def make_all(self, path: str, *, recreate: bool) -> None:
        """Create a folder and those above it that are missing; one that exists is an error unless `recreate`."""
        existing = self._catalog.find(path)
        if isinstance(existing, FileEntry):
            raise fs.errors.DirectoryExpected(path)
        if existing is not None and not recreate:
            raise fs.errors.DirectoryExists(path)
        if existing is None:
            self._create(path, exist_ok=recreate)  # Dropbox makes the folders above as well

    def _create(self, path: str, *, exist_ok: bool) -> None:
        since = self._catalog.epoch()
        with fs_errors(path):
            try:
                self._catalog.created(self._client.create_folder(paths.to_api(path)), since)
            except BaseException as error:  # Ctrl-C as well
                self._catalog.forget(path)
                is_conflict = isinstance(error, ApiError) and "conflict" in error.tag
                if not (exist_ok and is_conflict and isinstance(self._catalog.find(path), FolderEntry)):
                    raise
