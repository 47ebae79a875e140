"""`Finding`: what has to be at a path, and the error that says that it is not. Knows no HTTP."""

from __future__ import annotations

from abc import ABC, abstractmethod

import fs.errors

from fs_dropbox.entries import FileEntry, FolderEntry
from fs_dropbox.metadata.known import Present


class Finding(ABC):
    """What finds entries by path."""

    @abstractmethod
    def find(self, path: str) -> Present | None:
        """Return the entry at a path, None where there is nothing."""

    def require(self, path: str) -> Present:
        """Return the entry at a path; raises ResourceNotFound."""
        entry = self.find(path)
        if entry is None:
            raise fs.errors.ResourceNotFound(path)
        return entry

    def require_file(self, path: str) -> FileEntry:
        """Return the file at a path; raises ResourceNotFound or FileExpected."""
        entry = self.require(path)
        if not isinstance(entry, FileEntry):
            raise fs.errors.FileExpected(path)
        return entry

    def require_folder(self, path: str) -> FolderEntry:
        """Return the folder at a path; raises ResourceNotFound or DirectoryExpected."""
        entry = self.require(path)
        if not isinstance(entry, FolderEntry):
            raise fs.errors.DirectoryExpected(path)
        return entry
