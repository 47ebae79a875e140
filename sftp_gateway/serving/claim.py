"""`Claim`: only one gateway at a time uses a state folder. Knows nothing about its content."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path
from typing import Final

from sftp_gateway.private_directories import make_private

FILE_NAME: Final = "gateway.lock"
_MAX_BYTES: Final = 1000


class ClaimError(Exception):
    """Another gateway uses the state folder, or it is unusable; the text is one line that says what to do."""


class Claim:
    """A lock on a file in the state folder, which names its holder; released when the holder's process ends in any way.

    Two gateways with different settings would deliver each other's journals, end each other's sessions and replace
    each other's sockets. Owned by the gateway; with several processes, by their supervisor, so that the processes of
    a supervisor that was killed can still end while its successor serves.
    """

    def __init__(self, folder: Path, listen: str) -> None:
        """Take the folder for a gateway that is to listen on `listen`; raises `ClaimError`."""
        path = folder / FILE_NAME
        try:
            make_private(folder)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ClaimError(
                f"{path}: cannot be made: {error.strerror or error}; choose another folder with --state-folder"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, _MAX_BYTES, 0).decode(errors="replace").strip()
            self.release()
            raise ClaimError(
                f"{folder}: another gateway has this state folder{f' ({holder})' if holder else ''}; "
                "stop it, or choose another folder with --state-folder: two gateways share none"
            ) from None
        except OSError:
            return  # a disk without locks
        with contextlib.suppress(OSError):  # the disk is full: others then learn that there is a gateway, but not which
            os.ftruncate(self._descriptor, 0)
            text = f"process {os.getpid()} on {socket.gethostname()}, to listen on {listen}\n"
            os.pwrite(self._descriptor, text.encode(), 0)

    def release(self) -> None:
        """Release the folder; in a forked process, leave it to the parent. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
