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
    """The directory of one view, where the filesystem is made of local files. Has no state; looks at links each time.

    Clients cannot make links; whoever can, on the machine itself, could also change one after it was looked at.
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
        """Refuse a path (of the filesystem) that a symbolic link leads out of the directory."""
        if self._root is None or (place := self._place(path)) is None:
            return
        real = os.path.realpath(place)
        if _is_within(real, self._root):
            return
        layer = place.removesuffix(path[len(self._prefix) :])  # of a MultiFS: paths go on in each as in the first
        if layer == place or not _is_within(real, os.path.realpath(layer)):
            raise RefusedError("leads out of the user's folder", Status.PERMISSION_DENIED)

    def _place(self, path: str) -> str | None:
        """Return where a path is on the disk, or would be; None of what is on none."""
        missing: list[str] = []
        while True:
            try:
                return os.path.join(self._filesystem.getsyspath(path), *reversed(missing))
            except errors.ResourceNotFound:  # a MultiFS knows no place for what it does not have
                if path == "/":
                    return None
                missing.append(basename(path))
                path = dirname(path)
            except errors.NoSysPath:
                return None
            except ValueError:  # a null character
                raise errors.InvalidCharsInPath(path) from None

    def check_openable(self, path: str) -> None:
        """Refuse to open a pipe, a socket or a device: who opens one may wait for ever."""
        if self._root is None:
            return
        try:
            kind = stat.S_IFMT(os.stat(self._filesystem.getsyspath(path)).st_mode)
        except (OSError, errors.ResourceNotFound, errors.NoSysPath):  # told by who opens it
            return
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise RefusedError("is no regular file")


def _is_within(place: str, directory: str) -> bool:
    return place == directory or place.startswith(directory.rstrip("/") + "/")
