"""Folders that are too large for one call: copied, moved and removed in batches, whatever becomes of their answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.api import batch_calls
from fs_dropbox.api.client import Client, Commit
from fs_dropbox.emulator import Emulator
from fs_dropbox.errors import ApiError, DropboxError, TransportError
from fs_dropbox.filesystem import batches
from fs_dropbox.filesystem.batches import Batches
from tests.fs_dropbox.files.small_blocks import impatient

FILES = 12
CHANGES = ["copy", "move", "delete"]
ROUTES = {
    "copy": ("files/copy_batch_v2", "files/copy_batch/check_v2"),
    "move": ("files/move_batch_v2", "files/move_batch/check_v2"),
    "delete": ("files/delete_batch", "files/delete_batch/check"),
}


@pytest.fixture
def account(open_dropbox: Callable[..., DropboxFS], emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> DropboxFS:
    """An account with a folder that is too large for one call, and for one batch."""
    emulator.control.options(max_subtree_entries=5)
    for number in range(FILES):
        emulator.control.seed(f"/Flat/File {number}", f"{number}".encode())
    monkeypatch.setattr(batches, "BATCH_ENTRIES", 8)
    return open_dropbox()


def carry_out(account: DropboxFS, change: str) -> None:
    if change == "copy":
        account.copydir("Flat", "Other", create=True)
    elif change == "move":
        account.movedir("Flat", "Other", create=True)
    else:
        account.removetree("Flat")


def check(account: DropboxFS, emulator: Emulator, change: str) -> None:
    """Every file is where it should be, once and with its content, and the account is seen as it is."""
    whole = {f"/File {number}": len(str(number)) for number in range(FILES)}
    wanted = {
        **({f"/Flat{path}": size for path, size in whole.items()} if change == "copy" else {}),
        **({f"/Other{path}": size for path, size in whole.items()} if change != "delete" else {}),
    }
    tree = emulator.control.tree()
    assert {path: size for path, size in tree.items() if "File" in path} == wanted
    assert sorted(path for path in account.walk.files("/") if "File" in path) == sorted(wanted)
    if change != "delete":
        assert account.readtext("Other/File 11") == "11"
    assert account.exists("Flat") == (change == "copy")


def counted(emulator: Emulator, route: str) -> int:
    return emulator.control.calls().get(route, 0)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("answer", ["job", "complete"])
def test_a_flat_folder_costs_few_calls(account: DropboxFS, emulator: Emulator, change: str, answer: str) -> None:
    emulator.control.options(batch_answer=answer, job_polls=2)
    carry_out(account, change)
    check(account, emulator, change)
    batch, polls = ROUTES[change]
    assert counted(emulator, batch) == 2
    assert counted(emulator, polls) == (6 if answer == "job" else 0)
    single = "files/delete_v2" if change == "delete" else f"files/{change}_v2"
    assert counted(emulator, single) <= 2


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "ambiguous"},
        {"kind": "ambiguous", "status": 503},
        {"kind": "cut_request"},
        {"kind": "cut_body"},
        {"kind": "server_error"},
        {"kind": "rate_limit", "retry_after": 0},
        {"kind": "too_many_write_operations", "entries": 5},
        {"kind": "too_many_write_operations", "entries": 2},
    ],
    ids=["lost", "lost 503", "cut", "half", "500", "429", "busy", "few busy"],
)
def test_a_fault_of_the_batch_goes_unnoticed(
    account: DropboxFS, emulator: Emulator, change: str, fault: dict[str, Any]
) -> None:
    emulator.control.fault(ROUTES[change][0], **fault)
    carry_out(account, change)
    assert emulator.control.faults_struck == 1
    check(account, emulator, change)
    for number in range(FILES if change != "delete" else 0):  # done once, whatever was told of it
        assert len(account.versions(f"Other/File {number}")) == 1


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "server_error", "count": 2},
        {"kind": "cut_body", "count": 2},
        {"kind": "error", "error": {".tag": "invalid_async_job_id"}},
        {"kind": "error", "error": {".tag": "internal_error"}, "count": 2},
        {"kind": "rate_limit", "retry_after": 0},
    ],
    ids=["500", "half", "forgotten", "internal", "429"],
)
def test_a_job_that_cannot_be_asked_for_goes_unnoticed(
    account: DropboxFS, emulator: Emulator, change: str, fault: dict[str, Any]
) -> None:
    emulator.control.fault(ROUTES[change][1], **fault)
    carry_out(account, change)
    assert emulator.control.faults_struck == fault.get("count", 1)
    check(account, emulator, change)
    assert counted(emulator, ROUTES[change][0]) == 2  # what was done is not sent again


@pytest.mark.parametrize("change", ["copy", "move"])
def test_an_entry_that_is_refused_is_told_and_the_others_are_done(
    account: DropboxFS, emulator: Emulator, change: str
) -> None:
    """On its own it is refused with the reason; repeated when the reason is gone, all is done."""
    account.makedir("Other")
    assert account.listdir("Other") == []
    emulator.control.write("/Other/File 3/in the way", b"a folder that is not heard of")
    with pytest.raises(fs.errors.FileExpected, match="File 3"):
        carry_out(account, change)
    assert len(emulator.control.tree("/Other")) >= 8 + 1  # the first batch
    emulator.control.delete("/Other/File 3")
    account.forget("/")
    carry_out(account, change)
    check(account, emulator, change)


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_in_a_batch_may_be_too_large_itself(account: DropboxFS, emulator: Emulator, change: str) -> None:
    for number in range(6):
        emulator.control.seed(f"/Flat/Deep/{number}", b"1")
    carry_out(account, change)
    check(account, emulator, change)
    for folder, is_there in (("/Flat/Deep", change == "copy"), ("/Other/Deep", change != "delete")):
        assert emulator.control.exists(folder) == is_there
        assert not is_there or len(account.listdir(folder)) == 6


def test_a_folder_that_is_too_large_although_it_is_empty_is_an_error(account: DropboxFS, emulator: Emulator) -> None:
    account.makedir("/folder")
    emulator.control.fault("files/delete_v2", "error", error={".tag": "too_many_files"}, count=None)
    with pytest.raises(fs.errors.OperationFailed, match="so many files at once"):
        account.removetree("/folder")


def test_what_is_there_already_is_replaced(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.write("/Other/file 5", b"old")
    emulator.control.write("/Other/theirs", b"stays")
    account.copydir("Flat", "Other")
    assert account.readtext("Other/File 5") == "5"
    assert account.readtext("Other/theirs") == "stays"
    assert counted(emulator, "files/copy_v2") == 1 + 3  # too few are left for a second batch
    assert len(account.listdir("Other")) == FILES + 1


def test_what_others_have_done_meanwhile(account: DropboxFS, emulator: Emulator) -> None:
    """A file that is there although it was not, and one that is gone although it was there."""
    account.makedir("Other")
    account.listdir("Other"), account.listdir("Flat")
    emulator.control.write("/Other/File 5", b"theirs")
    account.movedir("Flat", "Other")
    check_moved = emulator.control.tree("/Other")
    assert check_moved["/Other/File 5"] == 1
    assert len(account.versions("Other/File 5")) >= 1
    for number in range(FILES):
        emulator.control.seed(f"/Gone/{number}", b"1")
    account.listdir("Gone")
    emulator.control.delete("/Gone/5")
    account.removetree("Gone")
    assert not emulator.control.exists("/Gone")


@pytest.mark.parametrize("change", CHANGES)
def test_without_cache(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, account: DropboxFS, change: str
) -> None:
    emulator.control.fault(ROUTES[change][0], "ambiguous")
    other = open_dropbox(cache=False)
    carry_out(other, change)
    check(other, emulator, change)


@pytest.mark.parametrize("change", CHANGES)
def test_a_lost_job_that_is_still_at_work_is_waited_for(
    account: DropboxFS, emulator: Emulator, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is told of the job, and its changes appear one after another."""
    client: Client = account._parts.client
    lost = iter([True])
    done_before: list[int] = []

    def call(self: object, argument: list[Any]) -> list[Any]:
        if not next(lost, False):
            done_before.append(len(argument))
            return list(original(client.batches, argument))
        original(client.batches, argument[:3])
        pauses = iter([3, 6])

        def pause(failures: int) -> None:
            begin = next(pauses, None)
            if begin is not None:
                original(client.batches, argument[begin : begin + 3])

        monkeypatch.setattr(client, "pause_after", pause)
        error = TransportError("reset")
        error.is_unsettled = True
        raise error

    original = getattr(batch_calls.BatchCalls, change)
    monkeypatch.setattr(batch_calls.BatchCalls, change, call)
    carry_out(account, change)
    check(account, emulator, change)
    assert done_before == [4]  # the second batch; the lost one was not sent again


@pytest.mark.parametrize("change", CHANGES)
def test_a_lost_batch_that_is_carried_out_before_the_next_one_is_what_that_is_refused_for(
    account: DropboxFS, emulator: Emulator, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Client = account._parts.client
    lost: list[list[Any]] = []

    def call(self: object, argument: list[Any]) -> list[Any]:
        if not lost:
            lost.append(argument)
            error = TransportError("reset")
            error.is_unsettled = True
            raise error
        if len(lost) == 1:
            original(client.batches, lost[0])
            lost.append(argument)
        return list(original(client.batches, argument))

    original = getattr(batch_calls.BatchCalls, change)
    monkeypatch.setattr(batch_calls.BatchCalls, change, call)
    monkeypatch.setattr(client, "pause_after", lambda failures: None)
    carry_out(account, change)
    check(account, emulator, change)
    assert lost[1] == lost[0]
    assert emulator.control.calls()[f"files/{change}_v2"] <= 2  # of the folder itself; of no file on its own


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("then", ["no look", "no other batch"])
def test_a_lost_batch_of_which_no_more_is_known_may_be_carried_out(
    account: DropboxFS, emulator: Emulator, change: str, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(self: batch_calls.BatchCalls, argument: list[Any]) -> list[Any]:
        emulator.control.fault("files/list_folder", "server_error", None)
        return list(original(self, argument))

    original = getattr(batch_calls.BatchCalls, change)
    impatient(account).listdir("/Flat")
    emulator.control.fault(ROUTES[change][0], "late")
    if then == "no look":
        monkeypatch.setattr(batch_calls.BatchCalls, change, call)
    else:
        emulator.control.fault(ROUTES[change][0], "rate_limit", None, retry_after=90)
    with pytest.raises(fs.errors.OperationFailed, match="not known"):
        carry_out(account, change)


@pytest.mark.parametrize("change", CHANGES)
def test_a_job_that_does_not_end_is_an_error_with_an_unknown_outcome(
    account: DropboxFS, emulator: Emulator, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_calls, "JOB_SECONDS", 0.3)
    emulator.control.options(batch_answer="job", job_polls=1000)
    with pytest.raises(fs.errors.OperationTimeout, match="not known"):
        carry_out(account, change)
    assert counted(emulator, ROUTES[change][0]) == 1
    emulator.control.options(job_polls=0)
    assert sorted(account.walk.files("/")) == sorted(path for path in emulator.control.tree() if "File" in path)


def test_a_job_that_fails_as_a_whole_is_tried_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [
        {".tag": "async_job_id", "async_job_id": "dbjid:1"},
        {".tag": "failed", "failed": {".tag": "too_many_write_operations"}},
    ]

    def call(route: Any, argument: Any, *, decode: Callable[[Any], Any], **_: Any) -> Any:
        return decode(answers.pop(0))

    monkeypatch.setattr(client.batches._caller, "call", call)
    with pytest.raises(ApiError) as failed:
        client.batches.delete([("/1", None), ("/2", None)])
    assert failed.value.is_transient
    answers += [{".tag": "complete", "entries": []}]
    with pytest.raises(ValueError, match="0 results for 2 entries"):  # a protocol error where it is a real call
        client.batches.delete([("/1", None), ("/2", None)])


def test_the_end_of_a_filesystem_ends_the_wait_for_a_job(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    emulator.control.options(max_subtree_entries=5, batch_answer="job", job_polls=1000)
    for number in range(FILES):
        emulator.control.seed(f"/Flat/{number}", b"1")
    account = open_dropbox()
    refused: list[BaseException] = []

    def remove() -> None:
        try:
            account.removetree("Flat")
        except fs.errors.FSError as error:
            refused.append(error)

    worker = threading.Thread(target=remove)
    worker.start()
    while not counted(emulator, "files/delete_batch/check"):
        worker.join(0.05)
    account.close()
    worker.join(30)
    assert not worker.is_alive()
    assert isinstance(refused[0], fs.errors.FSError)


def test_a_copy_is_known_by_its_content(client: Client) -> None:
    """Or one that was lost would take credit for what somebody else has put there."""
    for path, data in (("/d/f", b"one"), ("/e/same", b"one"), ("/e/other", b"two")):
        client.upload(Commit(path, "overwrite"), data)
    original, same, other, folder = map(client.get_metadata, ("/d/f", "/e/same", "/e/other", "/e"))
    known = Batches(client, None)  # type: ignore[arg-type]
    assert known._is_copy("/d", original, same)
    assert not any(known._is_copy("/d", original, found) for found in (other, folder, None))
    assert not known._is_copy("/", folder, same)


@pytest.mark.parametrize(
    ("error", "may"),
    [
        (ApiError("r", ("too_many_write_operations",)), True),
        (ApiError("r", ("too_many_requests",), status=429), False),  # for that the call has waited as long as it may
        (ApiError("r", ("path", "conflict")), False),
        (TransportError("reset"), False),
    ],
    ids=str,
)
def test_what_is_worth_another_batch(error: DropboxError, may: bool) -> None:
    assert batches._may_go_on(error) is may
    if isinstance(error, TransportError):
        error.is_unsettled = True
        assert batches._may_go_on(error)
        ended = TransportError("closed")
        ended.is_unsettled = True
        assert not batches._may_go_on(ended)
