"""What an error of a storage means for what is to be delivered to it: whether, and when, to try again. Pure."""

from __future__ import annotations

from typing import Final

from fs import errors

MAX_BACKOFF_SECONDS: Final = 300.0
MAX_ATTEMPTS: Final = 20  # for what the storage refuses without saying that it is for good

# What no repetition changes; everything else may pass.
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
# What passes by itself or is put right by people, after however long a time.
_PASSING = (
    errors.PermissionDenied,
    errors.InsufficientStorage,
    errors.RemoteConnectionError,
    errors.OperationTimeout,
    errors.ResourceLocked,
    errors.FilesystemClosed,
)


def is_for_good(error: Exception, attempts: int) -> bool:
    """Tell whether nothing is to be tried again after so many attempts before this one."""
    return isinstance(error, _FOR_GOOD) or (tells_of_the_file(error) and attempts + 1 >= MAX_ATTEMPTS)


def tells_of_the_file(error: Exception) -> bool:
    """Tell whether an error says something of what was to be stored, not of the storage as a whole."""
    return isinstance(error, errors.FSError) and not isinstance(error, _PASSING)


def pause(attempts: int) -> float:
    """Return the seconds until the next try, after so many attempts before this one."""
    return float(min(2.0 ** min(attempts, 20), MAX_BACKOFF_SECONDS))
