"""`Accounts`: which accounts a process has open for fsspec."""

from __future__ import annotations

import atexit
import json
import os
import threading
from typing import Any, Final

import fs.errors
from fs.base import FS
from fs.opener.errors import OpenerError, ParseError
from fs.opener.parse import parse_fs_url

from fs_dropbox import opener
from fs_dropbox.conventions import literal
from fs_dropbox.dropboxfs import DropboxFS
from fs_dropbox.login.connections import Connections, ConnectionsError
from fs_dropbox.metadata.single_flight import SingleFlight

_CREDENTIALS: Final = {"app_key", "app_secret", "refresh_token", "access_token"}


class Accounts:
    """The open filesystems of this process, one for each set of options, whichever thread asks.

    One leaf lock over the table; accounts are opened unlocked, once for all that ask. After a fork the child starts
    with none: connections and threads are the parent's.
    """

    def __init__(self) -> None:
        self._forget()
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._opening = SingleFlight()
        self._lock = threading.Lock()
        self._open: dict[str, FS] = {}  # guarded by _lock

    def get(self, options: dict[str, Any]) -> FS:
        """Return the filesystem of these options, opened when it is not."""
        key = _key(options)

        def opened() -> FS:
            found = self._known(key) or _open(**options)
            with self._lock:
                self._open[key] = found
            return found

        return self._known(key) or self._opening.do(key, opened)

    def known(self, options: dict[str, Any]) -> FS | None:
        """Return the filesystem of these options, None when it is not open."""
        return self._known(_key(options))

    def _known(self, key: str) -> FS | None:
        with self._lock:
            found = self._open.get(key)
        return None if found is None or found.isclosed() else found

    def close(self) -> None:
        """Close all; the next use opens anew."""
        with self._lock:
            filesystems, self._open = list(self._open.values()), {}
        for filesystem in filesystems:
            filesystem.close()


def _key(options: dict[str, Any]) -> str:
    """Return a text that is equal for equal options, of which some are lists."""
    return json.dumps(options, sort_keys=True, default=repr)


def _open(connection: str | None = None, fs_url: str | None = None, token: str | None = None, **given: Any) -> FS:
    """Open what the options name; those of DropboxFS come before what a connection or URL says itself."""
    if token is not None:  # what dropboxdrivefs, which had the protocol before, calls it
        given = {"access_token": token} | given
    has_credentials = bool(given.keys() & _CREDENTIALS)
    if (connection is not None) + (fs_url is not None) + has_credentials > 1:
        raise fs.errors.CreateFailed("whose Dropbox? Give a connection, an fs_url or credentials, one of these")
    if fs_url is None and not has_credentials:
        try:
            found = Connections().default() if connection is None else Connections().find(connection)
        except ConnectionsError as error:
            raise fs.errors.CreateFailed(literal(str(error))) from error
        if found is None:
            raise fs.errors.CreateFailed("no Dropbox to open: run fs-dropbox login, or give credentials")
        fs_url = found.url
    if fs_url is None:
        return DropboxFS(**given)
    if not fs_url.startswith("dropbox://"):
        raise fs.errors.CreateFailed("the fs_url is none of a Dropbox: it has to begin with dropbox://")
    try:
        return opener.opened(parse_fs_url(fs_url), **given)
    except ParseError:
        raise fs.errors.CreateFailed(f"the fs_url is malformed; it is {opener.FORM}, percent-encoded") from None
    except OpenerError as error:
        raise fs.errors.CreateFailed(literal(str(error))) from error
