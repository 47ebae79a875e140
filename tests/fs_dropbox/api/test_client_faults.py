"""Every fault during every kind of call: the right result, once, or one clear error; never a hang."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fs_dropbox.api.client import Client, Commit, Update
from fs_dropbox.content_hash import ContentHash
from fs_dropbox.emulator import Emulator
from fs_dropbox.entries import DeletedEntry, FileEntry, FolderEntry
from fs_dropbox.errors import ApiError, TransportError

MIB = 2**20


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture(autouse=True)
def no_faults_are_left(emulator: Emulator) -> Iterator[None]:
    yield
    emulator.control.clear_faults()
    emulator.control.options(not_found_after_create_seconds=0.0)


def upload(mode: Any, **arguments: Any) -> Callable[[Client, Emulator, str], None]:
    def operation(client: Client, emulator: Emulator, folder: str) -> None:
        path = f"{folder}/file.txt" if isinstance(mode, type) or mode == "overwrite" else f"{folder}/new.txt"
        rev = str(emulator.control.metadata(f"{folder}/file.txt")["rev"])
        commit = Commit(path, Update(rev) if isinstance(mode, type) else mode, **arguments)
        entry = client.upload(commit, b"new content")
        assert entry.rev == emulator.control.metadata(path)["rev"]
        assert emulator.control.read(path) == b"new content"
        assert len(client.list_revisions(path)) == (1 if path.endswith("new.txt") else 2)

    return operation


def session(client: Client, emulator: Emulator, folder: str) -> None:
    data = b"a" * (4 * MIB) + b"b" * (4 * MIB) + b"tail"
    session_id = client.session_start()
    client.session_append(session_id, 4 * MIB, data[4 * MIB : 8 * MIB], False)
    client.session_append(session_id, 0, data[: 4 * MIB], False)
    client.session_append(session_id, 8 * MIB, data[8 * MIB :], True)
    entry = client.session_finish(session_id, len(data), Commit(f"{folder}/big", "add"), ContentHash(data).hexdigest())
    assert entry.size == len(data)
    assert emulator.control.read(f"{folder}/big") == data
    assert len(client.list_revisions(f"{folder}/big")) == 1


def sequential_session(client: Client, emulator: Emulator, folder: str) -> None:
    session_id = client.session_start_batch(1)[0]
    client.session_append(session_id, 0, b"first,", False)
    client.session_append(session_id, 6, b"second", True)
    content_hash = ContentHash(b"first,second").hexdigest()
    assert client.session_finish(session_id, 12, Commit(f"{folder}/s", "add"), content_hash).size == 12
    assert emulator.control.read(f"{folder}/s") == b"first,second"


def create_folder(client: Client, emulator: Emulator, folder: str) -> None:
    entry = client.create_folder(f"{folder}/made")
    assert isinstance(entry, FolderEntry)
    assert entry.id == emulator.control.metadata(f"{folder}/made")["id"]


def delete(client: Client, emulator: Emulator, folder: str) -> None:
    assert isinstance(client.delete(f"{folder}/folder"), (FolderEntry, DeletedEntry))
    assert not emulator.control.exists(f"{folder}/folder")


def delete_rev(client: Client, emulator: Emulator, folder: str) -> None:
    rev = str(emulator.control.metadata(f"{folder}/file.txt")["rev"])
    client.delete(f"{folder}/file.txt", parent_rev=rev)
    assert not emulator.control.exists(f"{folder}/file.txt")


def move(client: Client, emulator: Emulator, folder: str) -> None:
    before = emulator.control.metadata(f"{folder}/folder")["id"]
    assert client.move(f"{folder}/folder", f"{folder}/moved").id == before
    assert emulator.control.read(f"{folder}/moved/inner.txt") == b"inner"
    assert not emulator.control.exists(f"{folder}/folder")


def copy_file(client: Client, emulator: Emulator, folder: str) -> None:
    assert isinstance(client.copy(f"{folder}/file.txt", f"{folder}/copy.txt"), FileEntry)
    assert emulator.control.read(f"{folder}/copy.txt") == b"seeded content"


def copy_folder(client: Client, emulator: Emulator, folder: str) -> None:
    assert isinstance(client.copy(f"{folder}/folder", f"{folder}/copy"), FolderEntry)
    assert emulator.control.read(f"{folder}/copy/inner.txt") == b"inner"


def restore(client: Client, emulator: Emulator, folder: str) -> None:
    rev = str(emulator.control.metadata(f"{folder}/file.txt")["rev"])
    emulator.control.write(f"{folder}/file.txt", b"changed")
    client.restore(f"{folder}/file.txt", rev)
    assert emulator.control.read(f"{folder}/file.txt") == b"seeded content"


def download(client: Client, emulator: Emulator, folder: str) -> None:
    assert client.download(f"{folder}/file.txt", 2, 9) == b"seeded content"[2:9]


def listing(client: Client, emulator: Emulator, folder: str) -> None:
    page = client.list_folder(folder)
    assert {entry.name for entry in page.entries} == {"file.txt", "folder"}
    emulator.control.write(f"{folder}/later", b"")
    page = client.list_folder_continue(page.cursor)
    assert [entry.name for entry in page.entries] == ["later"]
    assert client.latest_cursor(folder)


def looks(client: Client, emulator: Emulator, folder: str) -> None:
    assert client.get_metadata(f"{folder}/FILE.txt").name == "file.txt"
    assert len(client.list_revisions(f"{folder}/file.txt")) == 1
    assert client.sharing.temporary_link(f"{folder}/file.txt").startswith("https://")
    assert client.space_usage().allocated > 0


OPERATIONS: dict[str, tuple[Callable[[Client, Emulator, str], None], tuple[str, ...]]] = {
    "add": (upload("add"), ("files/upload",)),
    "exact add": (upload("add", strict_conflict=True), ("files/upload",)),
    "overwrite": (upload("overwrite"), ("files/upload",)),
    "update": (upload(Update), ("files/upload",)),
    "exact update": (upload(Update, strict_conflict=True), ("files/upload",)),
    "session": (
        session,
        ("files/upload_session/start", "files/upload_session/append_v2", "files/upload_session/finish"),
    ),
    "sequential session": (sequential_session, ("files/upload_session/append_v2", "files/upload_session/finish")),
    "create_folder": (create_folder, ("files/create_folder_v2",)),
    "delete": (delete, ("files/delete_v2",)),
    "delete a rev": (delete_rev, ("files/delete_v2",)),
    "move": (move, ("files/move_v2",)),
    "copy a file": (copy_file, ("files/copy_v2",)),
    "copy a folder": (copy_folder, ("files/copy_v2",)),
    "restore": (restore, ("files/restore",)),
    "download": (download, ("files/download",)),
    "listing": (
        listing,
        ("files/list_folder", "files/list_folder/continue", "files/list_folder/get_latest_cursor"),
    ),
    "looks": (
        looks,
        ("files/get_metadata", "files/list_revisions", "files/get_temporary_link", "users/get_space_usage"),
    ),
}
CASES = [
    pytest.param(operation, route, id=f"{name}: {route.rpartition('/')[2]}")
    for name, (operation, faulty) in OPERATIONS.items()
    for route in faulty
]
FAULTS: dict[str, dict[str, Any]] = {
    "429": {"kind": "rate_limit", "retry_after": 0},
    "429 as text": {"kind": "rate_limit", "retry_after": 0, "form": "text"},
    "429 of the lock": {"kind": "rate_limit", "retry_after": 0, "reason": "too_many_write_operations"},
    "500": {"kind": "server_error", "status": 500},
    "503 as HTML": {"kind": "server_error", "status": 503, "text": "<html>busy</html>"},
    "cut request": {"kind": "cut_request"},
    "reset": {"kind": "reset"},
    "blank body": {"kind": "blank_body"},
    "cut answer": {"kind": "cut_body"},
    "lost answer": {"kind": "ambiguous"},
    "lost answer by RST": {"kind": "ambiguous", "reset": True},
    "lost behind a 502": {"kind": "ambiguous", "status": 502},
    "expired token": {"kind": "expired_token"},
    "two in a row": {"kind": "server_error", "status": 500, "count": 2},
    "lost twice": {"kind": "ambiguous", "count": 2},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("operation", "route"), CASES)
def test_one_fault_goes_unnoticed(
    emulator: Emulator,
    client: Client,
    folder: str,
    operation: Callable[[Client, Emulator, str], None],
    route: str,
    fault: str,
) -> None:
    parameters = dict(FAULTS[fault])
    before = emulator.control.faults_struck
    emulator.control.fault(route, parameters.pop("kind"), **parameters)
    operation(client, emulator, folder)
    assert emulator.control.faults_struck > before


@pytest.mark.parametrize("at", ["request", "answer", "body"])
@pytest.mark.parametrize("name", ["add", "session", "create_folder", "delete", "move", "download", "listing"])
def test_a_stall_ends_with_the_timeout(
    emulator: Emulator, make_client: Callable[..., Client], folder: str, name: str, at: str
) -> None:
    client = make_client(timeout_seconds=0.4)
    operation, faulty = OPERATIONS[name]
    emulator.control.fault(faulty[-1], "stall", at=at)
    operation(client, emulator, folder)


def test_what_drips_for_ever_is_no_answer(
    emulator: Emulator, client: Client, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though each byte comes soon after the one before. Content may take what it takes."""
    monkeypatch.setattr("fs_dropbox.api.pool.ANSWER_SECONDS", 0.2)
    before = emulator.control.calls()
    for route in ("files/get_metadata", "files/download"):
        emulator.control.fault(route, "slow_body", pieces=10, seconds=0.1)
    entry = client.get_metadata(f"{folder}/file.txt")
    assert client.download(entry.path_lower, 0, 7) == emulator.control.read(f"{folder}/file.txt")[:7]
    made = emulator.control.calls() - before
    assert (made["files/get_metadata"], made["files/download"]) == (2, 1)


@pytest.mark.parametrize(("operation", "route"), CASES)
def test_faults_without_end_end_with_one_clear_error(
    emulator: Emulator,
    client: Client,
    folder: str,
    operation: Callable[[Client, Emulator, str], None],
    route: str,
) -> None:
    emulator.control.fault(route, "server_error", count=None, status=500)
    began = time.monotonic()
    with pytest.raises(TransportError) as caught:
        operation(client, emulator, folder)
    assert (caught.value.kind, caught.value.route) == ("server", route)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("status", [400, 403, 407, 413])
def test_a_page_of_somebody_else_is_not_told_as_what_dropbox_says(
    emulator: Emulator, client: Client, folder: str, status: int
) -> None:
    page = "\n<html><head><title>The gateway says no</title></head></html>"
    emulator.control.fault("files/get_metadata", "server_error", status=status, text=page)
    with pytest.raises(TransportError) as caught:
        client.get_metadata(f"{folder}/file.txt")
    assert (caught.value.kind, caught.value.status) == ("protocol", status)
    assert "<" not in str(caught.value)


def test_exact_creation_takes_no_credit_for_the_file_of_another(
    emulator: Emulator, client: Client, folder: str
) -> None:
    """Two create the same empty lock file; who gets no answer must not believe that the other's is its own."""
    emulator.control.write(f"{folder}/lock", b"", client_modified=1_500_000_000)
    emulator.control.fault("files/upload", "server_error", status=502)
    with pytest.raises(ApiError) as caught:
        client.upload(Commit(f"{folder}/lock", "add", strict_conflict=True), b"")
    assert caught.value.tag == ("path", "conflict", "file")
    assert not caught.value.lost_update


def test_a_lost_update_is_told_from_a_conflict(emulator: Emulator, client: Client, folder: str) -> None:
    rev = str(emulator.control.metadata(f"{folder}/file.txt")["rev"])
    emulator.control.write(f"{folder}/file.txt", b"of another")
    with pytest.raises(ApiError) as caught:
        client.upload(Commit(f"{folder}/file.txt", Update(rev)), b"mine")
    assert caught.value.lost_update
    assert caught.value.path == f"{folder}/file.txt"
    with pytest.raises(ApiError) as caught:
        client.delete(f"{folder}/file.txt", parent_rev=rev)
    assert caught.value.lost_update
    assert emulator.control.read(f"{folder}/file.txt") == b"of another"


def test_a_copy_that_did_not_land_takes_no_credit_for_what_is_there(
    emulator: Emulator, client: Client, folder: str
) -> None:
    emulator.control.write(f"{folder}/other/inner.txt", b"different")
    emulator.control.fault("files/copy_v2", "server_error", status=500)
    with pytest.raises(ApiError) as caught:
        client.copy(f"{folder}/folder", f"{folder}/other")
    assert caught.value.tag == ("to", "conflict", "folder")


def test_a_move_is_settled_by_the_id(emulator: Emulator, client: Client, folder: str) -> None:
    source = client.get_metadata(f"{folder}/file.txt")
    emulator.control.write(f"{folder}/target.txt", b"of another")
    emulator.control.delete(f"{folder}/file.txt")
    emulator.control.fault("files/move_v2", "server_error", status=500)
    with pytest.raises(ApiError) as caught:
        client.move(f"{folder}/file.txt", f"{folder}/target.txt", source_id=source.id)
    assert caught.value.tag == ("from_lookup", "not_found")


def test_what_was_just_committed_can_be_moved(emulator: Emulator, client: Client, folder: str) -> None:
    emulator.control.options(not_found_after_create_seconds=0.4)
    client.upload(Commit(f"{folder}/fresh", "add"), b"x")
    assert client.move(f"{folder}/fresh", f"{folder}/moved").name == "moved"
    client.create_folder(f"{folder}/new")
    assert client.copy(f"{folder}/new", f"{folder}/newer").name == "newer"


def test_what_is_not_there_is_not_waited_for(emulator: Emulator, client: Client, folder: str) -> None:
    emulator.control.reset_counts()
    with pytest.raises(ApiError):
        client.move(f"{folder}/nothing", f"{folder}/moved")
    assert emulator.control.calls()["files/move_v2"] == 1
