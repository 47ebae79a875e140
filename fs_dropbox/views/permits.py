"""Which files cannot be read or written, whatever else holds, and why: links, documents, files that others lock."""

from __future__ import annotations

import fs.errors

from fs_dropbox.conventions import path_error
from fs_dropbox.entries import FileEntry
from fs_dropbox.views.documents import kind_of


def check_readable(path: str, entry: FileEntry) -> None:
    """Raise Unsupported for a symbolic link: Dropbox shows where it leads, and has nothing to read."""
    if entry.symlink_target is not None:
        reason = f"a symbolic link to {entry.symlink_target!r}, which is not followed"
        raise path_error(fs.errors.Unsupported, path, reason)


def check_writable(path: str, entry: FileEntry) -> None:
    """Raise ResourceReadOnly for a document, ResourceLocked for a file that somebody else has locked."""
    if not entry.is_downloadable:
        raise read_only(path, entry)
    if entry.lock is not None and not entry.lock.is_holder:
        raise path_error(fs.errors.ResourceLocked, path, entry.lock.told())


def read_only(path: str, entry: FileEntry) -> fs.errors.FSError:
    """Return the error for whoever would write into a document."""
    reason = f"{kind_of(entry)} can be edited in Dropbox only; here it can be read"
    return path_error(fs.errors.ResourceReadOnly, path, reason)
