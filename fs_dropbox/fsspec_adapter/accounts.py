"""`Accounts`: which accounts a process has open for fsspec."""

from __future__ import annotations

import atexit
import json
import os
import threading
from typing import Any

import fs as pyfilesystem
import fs.errors
from fs.base import FS
from fs.opener.errors import OpenerError

from fs_dropbox.conventions import literal
from fs_dropbox.dropboxfs import DropboxFS
from fs_dropbox.login.connections import Connections, ConnectionsError
from fs_dropbox.metadata.single_flight import SingleFlight


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

        def opened() -> FS:
            found = self.known(options) or _open(**options)
            with self._lock:
                self._open[_key(options)] = found
            return found

        return self.known(options) or self._opening.do(_key(options), opened)

    def known(self, options: dict[str, Any]) -> FS | None:
        """Return the filesystem of these options, None when it is not open."""
        with self._lock:
            found = self._open.get(_key(options))
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


def _open(connection: str | None = None, url: str | None = None, **given: Any) -> FS:
    if url is None and not given:
        try:
            found = Connections().default() if connection is None else Connections().find(connection)
        except ConnectionsError as error:
            raise fs.errors.CreateFailed(str(error)) from error
        if found is None:
            raise fs.errors.CreateFailed("no Dropbox to open: run fs-dropbox login, or give credentials")
        url = found.url
    if url is None:
        return DropboxFS(**given)
    if not url.startswith("dropbox://"):  # it could be a path of this machine to PyFilesystem
        raise fs.errors.CreateFailed("the url is none of a Dropbox: it has to begin with dropbox://")
    try:
        return pyfilesystem.open_fs(url)
    except OpenerError as error:
        raise fs.errors.CreateFailed(literal(str(error))) from error
