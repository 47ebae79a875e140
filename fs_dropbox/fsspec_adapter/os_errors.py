"""`os_errors`: PyFilesystem's errors as the built-in ones, for callers that know no PyFilesystem. One table."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import fs.errors

# The first class that an error is an instance of decides; OSError turns a number into its own subclass.
_NUMBERS: Final[tuple[tuple[type[Exception], int], ...]] = (
    (fs.errors.ResourceNotFound, errno.ENOENT),
    (fs.errors.FileExists, errno.EEXIST),
    (fs.errors.DirectoryExists, errno.EEXIST),
    (fs.errors.DestinationExists, errno.EEXIST),
    (fs.errors.FileExpected, errno.EISDIR),
    (fs.errors.DirectoryExpected, errno.ENOTDIR),
    (fs.errors.DirectoryNotEmpty, errno.ENOTEMPTY),
    (fs.errors.RemoveRootError, errno.EBUSY),
    (fs.errors.ResourceLocked, errno.EBUSY),
    (fs.errors.PermissionDenied, errno.EACCES),
    (fs.errors.ResourceReadOnly, errno.EROFS),
    (fs.errors.InsufficientStorage, errno.ENOSPC),
    (fs.errors.Unsupported, errno.ENOTSUP),
    (fs.errors.NoURL, errno.ENOTSUP),
    (fs.errors.InvalidPath, errno.EINVAL),
    (fs.errors.RemoteConnectionError, errno.ECONNABORTED),
    (fs.errors.OperationTimeout, errno.ETIMEDOUT),
    (fs.errors.CreateFailed, errno.EACCES),
)
_SAYS_ALL: Final = frozenset({errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY})


def _os_error(error: fs.errors.FSError, path: str) -> OSError:
    """Return the built-in error for an error of PyFilesystem, and its reason; EIO where none is closer."""
    number = next((number for kind, number in _NUMBERS if isinstance(error, kind)), errno.EIO)
    reason: str | None = getattr(error, "reason", None)
    if reason is None:
        # PyFilesystem's own sentences name the path again.
        reason = os.strerror(number) if number in _SAYS_ALL else str(error)
    return OSError(number, reason, path)


@contextmanager
def os_errors(path: str | None = None) -> Iterator[None]:
    """Raise what the block raises of PyFilesystem's errors as OSError: with this path, else with the one they name."""
    try:
        yield
    except fs.errors.FSError as error:
        raise _os_error(error, path or getattr(error, "path", None) or "/") from error
