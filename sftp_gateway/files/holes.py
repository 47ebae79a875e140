"""`punch`: give the space of a file's beginning back to the disk. Python's own library cannot."""

from __future__ import annotations

import ctypes
import errno
import functools
import sys
from collections.abc import Callable

_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # FALLOC_FL_…, linux/falloc.h
_UNABLE = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENODEV, errno.ESPIPE, errno.EBADF}


def punch(descriptor: int, start: int, end: int) -> bool:
    """Free what is from `start` to `end`, of which zeros are read then; tell whether the system could.

    Where it could not, nothing has changed. What failed half-way, on a full disk for one, counts as freed: nobody knows
    what is left there.
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
