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

from typing import TYPE_CHECKING

from fs_dropbox._version import __version__

if TYPE_CHECKING:
    from fs_dropbox.dropboxfs import DropboxFS
    from fs_dropbox.errors import VersionConflict

__all__ = ["DropboxFS", "VersionConflict", "__version__"]

_HOMES = {"DropboxFS": "dropboxfs", "VersionConflict": "errors"}


def __getattr__(name: str) -> object:
    """Import what is exported when it is asked for: the SDK takes half a second, and the emulator needs none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found


del TYPE_CHECKING, fs, warnings  # no part of what this package offers
