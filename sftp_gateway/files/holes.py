"""`punch`: free the disk space of a part of a file (`fallocate`), which Python's own library cannot."""

from __future__ import annotations

import ctypes
import errno
import functools
import sys
from collections.abc import Callable

_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # FALLOC_FL_…, linux/falloc.h
_UNABLE = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENODEV, errno.ESPIPE, errno.EBADF}


def punch(descriptor: int, start: int, end: int) -> bool:
    """Free the space from `start` to `end`, which reads as zeros then; return whether the system could.

    If it could not, nothing has changed. If it failed half-way, as on a full disk, the range counts as freed: nobody
    knows what is left of it.
    """
    fallocate = _fallocate()
    if fallocate is None:
        return False
    while fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, start, end - start):
        code = ctypes.get_errno()
        if code != errno.EINTR:
            return code not in _UNABLE
    return True


@functools.cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)  # not every C library has it
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        function.restype = ctypes.c_int
    return function
