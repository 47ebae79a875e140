"""Dropbox as a PyFilesystem2 filesystem: `DropboxFS`, or `fs.open_fs("dropbox://KEY~SECRET:REFRESH_TOKEN@/")`."""

import warnings

with warnings.catch_warnings():
    # fs 2.4.16 declares its namespace through pkg_resources, which warns; the first import is the one that does.
    warnings.simplefilter("ignore")
    import fs.opener  # noqa: F401

from fs_dropbox._version import __version__
from fs_dropbox.dropboxfs import DropboxFS
from fs_dropbox.errors import VersionConflict

__all__ = ["DropboxFS", "VersionConflict", "__version__"]
