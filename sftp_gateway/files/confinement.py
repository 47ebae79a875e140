"""`Confinement`: keeps paths of a local filesystem below a directory, whatever links and special files are there."""

from __future__ import annotations

import os
import stat

from fs import errors
from fs.base import FS

from sftp_gateway.sftp.packets import Status
from sftp_gateway.sftp.status import RefusedError


class Confinement:
    """The directory of one view, where the filesystem is made of local files. Has no state; looks at links each time.

    Clients cannot make links; whoever can, on the machine itself, could also change one after it was looked at.
    """

    def __init__(self, filesystem: FS, root: str) -> None:
        self._filesystem = filesystem
        self._root: str | None = None
        if filesystem.hassyspath(root or "/"):
            self._root = os.path.realpath(filesystem.getsyspath(root or "/"))

    @property
    def is_needed(self) -> bool:
        """Whether there can be links at all."""
        return self._root is not None

    def check(self, path: str) -> None:
        """Refuse a path (of the filesystem) that a symbolic link leads out of the directory."""
        if self._root is None:
            return
        try:
            real = os.path.realpath(self._filesystem.getsyspath(path))
        except ValueError:  # a null character
            raise errors.InvalidCharsInPath(path) from None
        if real != self._root and not real.startswith(self._root.rstrip("/") + "/"):
            raise RefusedError("leads out of the user's folder", Status.PERMISSION_DENIED)

    def check_openable(self, path: str) -> None:
        """Refuse to open a pipe, a socket or a device: who opens one may wait for ever."""
        if self._root is None:
            return
        try:
            kind = stat.S_IFMT(os.stat(self._filesystem.getsyspath(path)).st_mode)
        except OSError:  # told by who opens it
            return
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise RefusedError("is no regular file")
