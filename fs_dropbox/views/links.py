"""`Links`: addresses at which others get files. No HTTP."""

from __future__ import annotations

import fs.errors

from fs_dropbox import paths
from fs_dropbox.api.sharing import Sharing
from fs_dropbox.conventions import path_error
from fs_dropbox.errors import fs_errors
from fs_dropbox.views.permits import check_readable
from fs_dropbox.views.shown import Shown


class Links:
    """Makes links. Thread-safe, lock-free; owned by DropboxFS; raises `fs.errors` errors that say what is missing."""

    def __init__(self, sharing: Sharing, shown: Shown) -> None:
        self._sharing = sharing
        self._shown = shown

    def download(self, path: str) -> str:
        """Return a link to the content of a file as it is now, or to a version of it, good for four hours."""
        entry = self._shown.require_file(path)
        check_readable(path, entry)
        with fs_errors(path):
            return self._sharing.temporary_link(f"rev:{entry.rev}")

    def share(self, path: str) -> str:
        """Return the shared link of a file or folder: it shows what is there when somebody follows it."""
        self._shown.require(path)
        real = self._shown.real(path)
        if real == "/":
            raise path_error(fs.errors.OperationFailed, path, "the root has no link: give one of what is in it")
        with fs_errors(path):
            return self._sharing.shared_link(paths.to_api(real))
