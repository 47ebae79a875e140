"""`Confinement`: keeps paths of a local filesystem below a directory, whatever links and special files are there."""

from __future__ import annotations

import os
import stat

from fs import errors
from fs.base import FS
from fs.path import basename, dirname

from sftp_gateway.sftp.packets import Status
from sftp_gateway.sftp.status import RefusedError


class Confinement:
    """The root directory of one view of a local filesystem. Has no state; resolves links each time.

    Clients cannot make links. Local users can, and could also change one after it was checked.
    """

    def __init__(self, filesystem: FS, root: str) -> None:
        self._filesystem = filesystem
        self._prefix = root
        self._root: str | None = None
        if filesystem.hassyspath(root or "/"):
            self._root = os.path.realpath(filesystem.getsyspath(root or "/"))

    @property
    def is_needed(self) -> bool:
        """Whether there can be links at all."""
        return self._root is not None

    def check(self, path: str) -> None:
        """Refuse a path (of the filesystem) that leads out of the directory by a symbolic link."""
        if self._root is None or (place := self._place(path)) is None:
            return
        real = os.path.realpath(place)
        if _is_within(real, self._root):
            return
        layer = place.removesuffix(path[len(self._prefix) :])  # of a MultiFS, whose layers share their paths
        if layer == place or not _is_within(real, os.path.realpath(layer)):
            raise RefusedError("leads out of the user's folder", Status.PERMISSION_DENIED)

    def _place(self, path: str) -> str | None:
        """Return where a path is on disk, or would be; None if it is on no disk."""
        missing: list[str] = []
        while True:
            try:
                return os.path.join(self._filesystem.getsyspath(path), *reversed(missing))
            except errors.ResourceNotFound:  # a MultiFS has no place for what does not exist
                if path == "/":
                    return None
                missing.append(basename(path))
                path = dirname(path)
            except errors.NoSysPath:
                return None
            except ValueError:  # a null character
                raise errors.InvalidCharsInPath(path) from None

    def check_openable(self, path: str) -> None:
        """Refuse to open a pipe, a socket or a device: opening one may block for ever."""
        if self._root is None:
            return
        try:
            kind = stat.S_IFMT(os.stat(self._filesystem.getsyspath(path)).st_mode)
        except (OSError, errors.ResourceNotFound, errors.NoSysPath):  # reported when it is opened
            return
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise RefusedError("is no regular file")


def _is_within(place: str, directory: str) -> bool:
    return place == directory or place.startswith(directory.rstrip("/") + "/")
