"""What a refusal means for a delivery: acknowledged files are given up for nothing that may pass."""

from __future__ import annotations

import pytest
from fs import errors

from sftp_gateway.sftp.status import RefusedError
from sftp_gateway.write_back.refusals import MAX_ATTEMPTS, MAX_BACKOFF_SECONDS, is_for_good, pause

PASSING = [
    errors.RemoteConnectionError("/f"),
    errors.OperationTimeout("/f"),
    errors.InsufficientStorage("/f"),
    errors.PermissionDenied("/f"),
    errors.ResourceLocked("/f"),
    errors.FilesystemClosed(),
    OSError(5, "Input/output error"),
    RefusedError("not now"),
    RuntimeError("a bug"),
]
FOR_GOOD = [
    errors.InvalidPath("/f"),
    errors.InvalidCharsInPath("/f"),
    errors.FileExpected("/f"),
    errors.DirectoryExpected("/f"),
    errors.FileExists("/f"),
    errors.DirectoryExists("/f"),
    errors.DestinationExists("/f"),
    errors.Unsupported("/f"),
    errors.ResourceReadOnly("/f"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_what_may_pass_is_waited_for_without_end(error: Exception) -> None:
    assert not is_for_good(error, 0)
    assert not is_for_good(error, 10_000)


@pytest.mark.parametrize("error", FOR_GOOD, ids=lambda error: type(error).__name__)
def test_what_no_repetition_changes_is_not_repeated(error: Exception) -> None:
    assert is_for_good(error, 0)


@pytest.mark.parametrize("error", [errors.OperationFailed("/f"), errors.ResourceNotFound("/f")])
def test_what_does_not_say_whether_it_lasts_is_tried_twenty_times(error: Exception) -> None:
    assert MAX_ATTEMPTS == 20
    assert not is_for_good(error, MAX_ATTEMPTS - 2)
    assert is_for_good(error, MAX_ATTEMPTS - 1)


def test_pauses_grow_up_to_five_minutes() -> None:
    assert [pause(attempts) for attempts in range(4)] == [1, 2, 4, 8]
    assert pause(8) == 256
    assert pause(9) == pause(100_000) == MAX_BACKOFF_SECONDS == 300
