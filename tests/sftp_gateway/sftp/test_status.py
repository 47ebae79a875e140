"""Every error of a filesystem has one status and a reason that people understand."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from fs import errors

from sftp_gateway.sftp.packets import Status
from sftp_gateway.sftp.status import EndOfDataError, RefusedError, status_of

OF_VERSION_3 = {Status.NO_SUCH_FILE, Status.PERMISSION_DENIED, Status.FAILURE, Status.OP_UNSUPPORTED}


def _raised(kind: type[errors.FSError]) -> errors.FSError:
    if issubclass(kind, errors.BulkCopyFailed):
        return kind([])
    if issubclass(kind, (errors.NoURL,)):
        return kind("/a", "share")
    if issubclass(kind, (errors.ResourceError, errors.OperationFailed, errors.PathError)):
        return kind(path="/a")
    return kind()


def test_every_filesystem_error_has_a_status() -> None:
    kinds = [getattr(errors, name) for name in errors.__all__]
    kinds = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, errors.FSError)]
    assert len(kinds) > 25
    for kind in kinds:
        code, text = status_of(_raised(kind), "/a")
        assert code in OF_VERSION_3, kind
        assert "/a" in text, kind
        assert "internal error" not in text, kind


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.ResourceNotFound("/a"), Status.NO_SUCH_FILE, "no such file"),
        (errors.DestinationExists("/a"), Status.FAILURE, "exists already"),
        (errors.DirectoryNotEmpty("/a"), Status.FAILURE, "not empty"),
        (errors.PermissionDenied(), Status.PERMISSION_DENIED, "permission denied"),
        (errors.ResourceLocked("/a"), Status.PERMISSION_DENIED, "locked"),
        (errors.InsufficientStorage("/a"), Status.FAILURE, "quota exceeded"),
        (errors.PathError("/home/ann/a"), Status.FAILURE, "too long"),
        (
            errors.OperationFailed("/home/ann/a", exc=OSError(errno.ELOOP, "loop", "/home/ann/a")),
            Status.FAILURE,
            "loop",
        ),
        (errors.OperationFailed("/a", msg='answered {"error": 1}'), Status.FAILURE, 'answered {"error": 1}'),
        (RefusedError("told so", Status.PERMISSION_DENIED), Status.PERMISSION_DENIED, "told so"),
        (EndOfDataError(), Status.EOF, "end of file"),
        (OSError(errno.ENOSPC, "full"), Status.FAILURE, "disk of the gateway is full"),
    ],
)
def test_what_a_client_is_told(error: Exception, code: Status, text: str) -> None:
    found = status_of(error, "/a")
    assert found[0] is code
    assert text in found[1]
    assert "/home" not in found[1]  # paths are the client's, not the storage's


def test_the_reason_of_the_filesystem_goes_before_ours() -> None:
    error: Any = errors.OperationFailed("/a")
    error.reason = "the Dropbox is full"
    assert status_of(error, "/a") == (Status.FAILURE, "/a: the Dropbox is full")


def test_errors_that_are_not_meant_for_people_are_named_not_quoted() -> None:
    assert "s3cret" not in status_of(ValueError("s3cret"), "/a")[1]
    assert "s3cret" not in status_of(OSError("s3cret"), "/a")[1]


def test_a_text_is_one_line_of_bounded_length() -> None:
    text = status_of(RefusedError("one\r\ntwo " + "x" * 5000), "/a")[1]
    assert "\n" not in text
    assert len(text) <= 1000
