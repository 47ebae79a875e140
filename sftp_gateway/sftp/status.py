"""Which SFTP status and which text an error of a filesystem becomes. Pure."""

from __future__ import annotations

import errno

from fs import errors

from sftp_gateway.sftp.packets import Status


class RefusedError(Exception):
    """A request that this server itself refuses, with the status and the reason that the client is told."""

    def __init__(self, reason: str, code: Status = Status.FAILURE) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class NotAtOnceError(Exception):
    """Something that must not wait would have to; nothing has changed."""


class EndOfDataError(Exception):
    """The end of a file or of a listing: no error."""


def is_disk_full(error: BaseException) -> bool:
    """Tell whether the gateway's disk is full, or its quota there used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_unexpected(error: BaseException) -> bool:
    """Tell whether an error looks like a bug, here or in the filesystem, as nobody raises its kind on purpose."""
    return not isinstance(error, (RefusedError, EndOfDataError, errors.FSError, OSError))


EXISTS = "exists already"

# First match counts. A text of None means that the error speaks for itself.
_TABLE: tuple[tuple[type[Exception], Status, str | None], ...] = (
    (errors.ResourceNotFound, Status.NO_SUCH_FILE, "no such file or directory"),
    (errors.PermissionDenied, Status.PERMISSION_DENIED, "permission denied"),
    (errors.ResourceReadOnly, Status.PERMISSION_DENIED, "the filesystem is read-only"),
    (errors.Unsupported, Status.OP_UNSUPPORTED, "not supported by the filesystem"),
    (errors.DirectoryNotEmpty, Status.FAILURE, "the directory is not empty"),
    (errors.DirectoryExpected, Status.FAILURE, "not a directory"),
    (errors.FileExpected, Status.FAILURE, "is a directory"),
    (errors.DirectoryExists, Status.FAILURE, EXISTS),
    (errors.FileExists, Status.FAILURE, EXISTS),
    (errors.DestinationExists, Status.FAILURE, "the target exists already"),
    (errors.RemoveRootError, Status.FAILURE, "the root cannot be removed"),
    (errors.InsufficientStorage, Status.FAILURE, "quota exceeded"),
    (errors.InvalidCharsInPath, Status.FAILURE, "the name holds characters that are not allowed"),
    (errors.IllegalBackReference, Status.PERMISSION_DENIED, "the path leads out of the root"),
    (errors.InvalidPath, Status.FAILURE, "the name is not allowed"),
    (errors.PathError, Status.FAILURE, "the name is too long, or not allowed"),
    (errors.ResourceLocked, Status.PERMISSION_DENIED, "locked by someone else"),
    (errors.OperationTimeout, Status.FAILURE, "the storage did not answer in time"),
    (errors.RemoteConnectionError, Status.FAILURE, "the storage cannot be reached"),
    (errors.FilesystemClosed, Status.FAILURE, "the server is ending"),
    (errors.FSError, Status.FAILURE, None),
)

_MAX_TEXT = 1000


def status_of(error: BaseException, path: str = "") -> tuple[Status, str]:
    """Return the status code and the text for `error` at the client's `path`.

    Only what is meant for people is passed on: errors of unknown kinds are named, not quoted.
    """
    code, reason = _status_and_reason(error)
    text = f"{path}: {reason}" if path and path not in reason else reason
    return code, " ".join(text.split())[:_MAX_TEXT]


def _status_and_reason(error: BaseException) -> tuple[Status, str]:
    if isinstance(error, RefusedError):
        return error.code, error.reason
    if isinstance(error, EndOfDataError):
        return Status.EOF, "end of file"
    for kind, code, text in _TABLE:
        if isinstance(error, kind):
            reason = getattr(error, "reason", None)
            return code, str(reason or text or _own_words(error))
    if is_disk_full(error):
        return Status.FAILURE, "the disk of the gateway is full"
    if isinstance(error, OSError):
        return Status.FAILURE, f"the system failed: {error.strerror or type(error).__name__}"
    return Status.FAILURE, f"internal error ({type(error).__name__})"


def _own_words(error: Exception) -> str:
    """Return an error's own text; of an OSError without its paths, which are not those of the client."""
    cause = getattr(error, "exc", None)
    return f"the storage failed: {cause.strerror}" if isinstance(cause, OSError) else words_of(error)


def words_of(error: Exception) -> str:
    """Return the text of an error, even if `str(error)` fails."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - PyFilesystem formats its texts, which fails if they contain braces
        return str(getattr(error, "_msg", type(error).__name__))
