"""What a storage's error means for a delivery: whether and when to try again. Pure."""

from __future__ import annotations

from typing import Final

from fs import errors

MAX_BACKOFF_SECONDS: Final = 300.0
MAX_ATTEMPTS: Final = 20  # for errors that may be permanent, although the storage does not say so

# Repeating cannot help; every other error may pass.
_FOR_GOOD = (
    errors.InvalidPath,
    errors.FileExpected,
    errors.DirectoryExpected,
    errors.FileExists,
    errors.DirectoryExists,
    errors.DestinationExists,
    errors.Unsupported,
    errors.ResourceReadOnly,
    errors.IllegalBackReference,
)
# These pass by themselves or are fixed by people, however long that takes.
_PASSING = (
    errors.PermissionDenied,
    errors.InsufficientStorage,
    errors.RemoteConnectionError,
    errors.OperationTimeout,
    errors.ResourceLocked,
    errors.FilesystemClosed,
)


def is_for_good(error: Exception, attempts: int) -> bool:
    """Tell whether not to try again, after so many attempts before this one."""
    return isinstance(error, _FOR_GOOD) or (tells_of_the_file(error) and attempts + 1 >= MAX_ATTEMPTS)


def tells_of_the_file(error: Exception) -> bool:
    """Tell whether an error is about the file to be stored, not about the storage as a whole."""
    return isinstance(error, errors.FSError) and not isinstance(error, _PASSING)


def pause(attempts: int) -> float:
    """Return the seconds until the next try, after so many attempts before this one."""
    return float(min(2.0 ** min(attempts, 20), MAX_BACKOFF_SECONDS))
