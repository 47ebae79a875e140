"""Dropbox as a PyFilesystem2 filesystem.

    with DropboxFS(app_key, app_secret, refresh_token) as box:
        ...
    with fs.open_fs("dropbox://APP_KEY~APP_SECRET:REFRESH_TOKEN@/folder") as box:
        ...

`fs-dropbox login` makes the credentials. A file is in Dropbox once its `close()` has returned; an error there, or an
exception in its `with` block, leaves what was there before. Errors are those of `fs.errors`, and say why in words for
people. Where somebody else has changed a file that is written with mode "a" or "+", or with `expected_version`, that is
`VersionConflict`.
"""

import warnings

with warnings.catch_warnings():
    # fs 2.4.16 declares its namespace through pkg_resources, which warns; the first import is the one that does.
    warnings.simplefilter("ignore")
    import fs.opener

from fs_dropbox._version import __version__
from fs_dropbox.dropboxfs import DropboxFS
from fs_dropbox.errors import VersionConflict

__all__ = ["DropboxFS", "VersionConflict", "__version__"]

del fs, warnings  # no part of what this package offers
