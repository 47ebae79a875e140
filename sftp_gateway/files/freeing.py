"""`close`: closes a file whose space may take long to free."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Final

LARGE_BYTES: Final = 64 * 2**20  # to free a file of this size takes the system a tenth of a second or more


def close(descriptor: int, *, frees: int) -> None:
    """Close a file, which `frees` so many bytes: if they are many, in a thread, so that no client waits for it."""
    if frees >= LARGE_BYTES:
        with contextlib.suppress(RuntimeError):  # no more threads: the client has to wait
            threading.Thread(target=os.close, args=(descriptor,), name="sftp-spool").start()
            return
    os.close(descriptor)
