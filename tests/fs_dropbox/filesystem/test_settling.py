"""Answers that are lost while someone else changes the same thing: nobody's work is lost, no credit is taken for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.api.client import Client, Commit, Update
from fs_dropbox.content_hash import ContentHash
from fs_dropbox.emulator import Emulator
from fs_dropbox.entries import DeletedEntry, FileEntry, SupersededEntry
from fs_dropbox.errors import UNSETTLED, ApiError, DropboxError, TransportError
from tests.fs_dropbox.filesystem.lost_answers import LANDED, NOT_DONE, lose

LONG_AGO = 1_500_000_000

pytestmark = pytest.mark.usefixtures("impatient")


def rev_of(emulator: Emulator, path: str) -> str:
    return str(emulator.control.metadata(path)["rev"])


def contents_ever(client: Client, emulator: Emulator, path: str) -> list[bytes]:
    """Return what the file at a path has held, oldest first."""
    return [client.download(f"rev:{each.rev}", 0, each.size) for each in reversed(client.list_revisions(path))]


def commit_small(client: Client, commit: Commit, data: bytes) -> FileEntry:
    return client.upload(commit, data)


def commit_session(client: Client, commit: Commit, data: bytes) -> FileEntry:
    session = client.session_start()
    client.session_append(session, 0, data, True)
    return client.session_finish(session, len(data), commit, ContentHash(data).hexdigest())


by_route = pytest.mark.parametrize(
    ("commit", "route"),
    [(commit_small, "files/upload"), (commit_session, "files/upload_session/finish")],
    ids=["upload", "session"],
)
CommitCall = Callable[[Client, Commit, bytes], FileEntry]


@by_route
@pytest.mark.parametrize("theirs", ["overwrite", "append", "delete", "folder"])
def test_an_update_that_landed_and_was_replaced_is_done(
    client: Client, emulator: Emulator, commit: CommitCall, route: str, theirs: str
) -> None:
    """To call it a conflict would let its writer append the same once more."""
    emulator.control.write("/log", b"1")
    base = rev_of(emulator, "/log")

    def meanwhile() -> None:
        if theirs in ("delete", "folder"):
            emulator.control.delete("/log")
        if theirs == "folder":
            emulator.control.seed("/log")
        if theirs in ("overwrite", "append"):
            emulator.control.write("/log", b"theirs" if theirs == "overwrite" else b"123")

    lose(emulator, client, route, LANDED, meanwhile)
    if theirs == "folder":  # Dropbox lists no revisions of a folder: nobody can tell
        with pytest.raises(DropboxError) as caught:
            commit(client, Commit("/log", Update(base)), b"12")
        assert caught.value.is_unsettled
        assert emulator.control.tree() == {"/log": None}
        return
    entry = commit(client, Commit("/log", Update(base)), b"12")
    assert isinstance(entry, SupersededEntry)
    assert client.download(f"rev:{entry.rev}", 0, 2) == b"12"
    expected = {"overwrite": b"theirs", "append": b"123"}.get(theirs)
    assert emulator.control.exists("/log") == (expected is not None)
    if expected is not None:
        assert emulator.control.read("/log") == expected
        assert contents_ever(client, emulator, "/log") == [b"1", b"12", expected]


@by_route
@pytest.mark.parametrize("theirs", [b"theirs", b"12"], ids=["other content", "equal content"])
def test_an_update_that_did_not_land_takes_no_credit_for_that_of_another(
    client: Client, emulator: Emulator, commit: CommitCall, route: str, theirs: bytes
) -> None:
    """Two append the same line: there have to be two lines, or one of the writers has to know."""
    emulator.control.write("/log", b"1")
    base = rev_of(emulator, "/log")
    lose(emulator, client, route, NOT_DONE, lambda: emulator.control.write("/log", theirs, LONG_AGO))
    with pytest.raises(ApiError) as caught:
        commit(client, Commit("/log", Update(base)), b"12")
    assert caught.value.lost_update
    assert contents_ever(client, emulator, "/log") == [b"1", theirs]


@by_route
def test_a_plain_conflict_with_equal_content_is_a_conflict(
    client: Client, emulator: Emulator, commit: CommitCall, route: str
) -> None:
    emulator.control.write("/log", b"1")
    base = rev_of(emulator, "/log")
    emulator.control.write("/log", b"12")
    with pytest.raises(ApiError) as caught:
        commit(client, Commit("/log", Update(base)), b"12")
    assert caught.value.lost_update
    unchanged = commit(client, Commit("/log", Update(rev_of(emulator, "/log"))), b"12")
    assert unchanged.rev == rev_of(emulator, "/log")


@by_route
def test_exact_creation_that_did_not_land_takes_no_credit(
    client: Client, emulator: Emulator, commit: CommitCall, route: str
) -> None:
    lose(emulator, client, route, NOT_DONE, lambda: emulator.control.write("/lock", b"mine", LONG_AGO))
    with pytest.raises(ApiError) as caught:
        commit(client, Commit("/lock", "add", strict_conflict=True), b"mine")
    assert caught.value.tag == ("path", "conflict", "file")
    assert len(client.list_revisions("/lock")) == 1


@by_route
def test_exact_creation_that_landed_and_was_replaced_leaves_the_successor(
    client: Client, emulator: Emulator, commit: CommitCall, route: str
) -> None:
    lose(emulator, client, route, LANDED, lambda: emulator.control.write("/lock", b"theirs"))
    entry = commit(client, Commit("/lock", "add", strict_conflict=True), b"mine")
    assert isinstance(entry, SupersededEntry)
    assert contents_ever(client, emulator, "/lock") == [b"mine", b"theirs"]


@by_route
def test_exact_creation_that_landed_and_was_removed_is_not_made_again(
    client: Client, emulator: Emulator, commit: CommitCall, route: str
) -> None:
    lose(emulator, client, route, LANDED, lambda: emulator.control.delete("/lock"))
    assert isinstance(commit(client, Commit("/lock", "add", strict_conflict=True), b"mine"), SupersededEntry)
    assert emulator.control.tree() == {}


@by_route
@pytest.mark.parametrize("fault", [LANDED, NOT_DONE], ids=["landed", "not done"])
def test_an_overwrite_loses_no_version(
    client: Client, emulator: Emulator, commit: CommitCall, route: str, fault: dict[str, Any]
) -> None:
    lose(emulator, client, route, fault, lambda: emulator.control.write("/file", b"theirs"))
    entry = commit(client, Commit("/file", "overwrite"), b"mine")
    if isinstance(entry, SupersededEntry):  # a session that was finished cannot be finished again
        assert contents_ever(client, emulator, "/file") == [b"mine", b"theirs"]
    else:
        assert entry.rev == rev_of(emulator, "/file")
        assert contents_ever(client, emulator, "/file")[-2:] == [b"theirs", b"mine"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_removal_that_landed_spares_the_successor(client: Client, emulator: Emulator, kind: str) -> None:
    path = "/thing" if kind == "file" else "/thing/inner"
    emulator.control.write(path, b"old")
    before = client.get_metadata("/thing")

    def meanwhile() -> None:
        emulator.control.write(path, b"theirs")

    lose(emulator, client, "files/delete_v2", LANDED, meanwhile)
    rev = before.rev if isinstance(before, FileEntry) else None
    assert isinstance(client.delete("/thing", parent_rev=rev, entry_id=before.id), DeletedEntry)
    assert emulator.control.read(path) == b"theirs"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_was_moved_away_meanwhile_is_not_said_to_be_removed(client: Client, emulator: Emulator, kind: str) -> None:
    path, moved = ("/thing", "/moved") if kind == "file" else ("/thing/inner", "/moved/inner")
    emulator.control.write(path, b"precious")
    before = client.get_metadata("/thing")
    lose(emulator, client, "files/delete_v2", NOT_DONE, lambda: emulator.control.move("/thing", "/moved"))
    rev = before.rev if isinstance(before, FileEntry) else None
    with pytest.raises(ApiError) as caught:
        client.delete("/thing", parent_rev=rev, entry_id=before.id)
    assert caught.value.tag == ("path_lookup", "not_found")
    assert emulator.control.read(moved) == b"precious"


def test_a_removal_that_did_not_land_is_made(client: Client, emulator: Emulator) -> None:
    emulator.control.write("/folder/old", b"old")
    before = client.get_metadata("/folder")
    lose(emulator, client, "files/delete_v2", NOT_DONE, lambda: emulator.control.write("/folder/new", b"theirs"))
    client.delete("/folder", entry_id=before.id)
    assert emulator.control.tree() == {}


def test_a_move_that_landed_is_done_whatever_takes_the_old_place(client: Client, emulator: Emulator) -> None:
    emulator.control.write("/source", b"mine")
    before = client.get_metadata("/source")
    lose(emulator, client, "files/move_v2", LANDED, lambda: emulator.control.write("/source", b"theirs"))
    assert client.move("/source", "/target", source_id=before.id).id == before.id
    assert (emulator.control.read("/source"), emulator.control.read("/target")) == (b"theirs", b"mine")


def test_a_move_takes_no_credit_for_what_is_there(client: Client, emulator: Emulator) -> None:
    emulator.control.write("/source", b"mine")
    before = client.get_metadata("/source")

    def meanwhile() -> None:
        emulator.control.delete("/source")
        emulator.control.write("/target", b"theirs")

    lose(emulator, client, "files/move_v2", NOT_DONE, meanwhile)
    with pytest.raises(ApiError) as caught:
        client.move("/source", "/target", source_id=before.id)
    assert caught.value.tag == ("from_lookup", "not_found")
    assert emulator.control.read("/target") == b"theirs"


@pytest.mark.parametrize("is_refused", [True, False], ids=["refused", "lost again"])
def test_a_move_that_landed_and_was_undone_is_not_made_again(
    client: Client, emulator: Emulator, is_refused: bool
) -> None:
    """It is neither here nor there: whoever has changed that, it may have been moved."""
    emulator.control.write("/source", b"mine")
    before = client.get_metadata("/source")

    def meanwhile() -> None:
        emulator.control.delete("/target")
        if not is_refused:
            emulator.control.fault("files/move_v2", "cut_body", None)

    lose(emulator, client, "files/move_v2", {"kind": "cut_body"}, meanwhile)
    with pytest.raises(DropboxError) as caught:
        client.move("/source", "/target", source_id=before.id)
    assert caught.value.is_unsettled
    assert not is_refused or (isinstance(caught.value, ApiError) and caught.value.tag == ("from_lookup", "not_found"))
    assert emulator.control.tree() == {}


@pytest.mark.parametrize("is_refused", [True, False], ids=["refused", "lost again"])
@pytest.mark.parametrize("changed", ["/target", "/source"])
def test_a_copy_that_landed_leaves_what_others_change(
    client: Client, emulator: Emulator, changed: str, is_refused: bool
) -> None:
    """What is there is not what the source holds by now, and may be what it held."""
    emulator.control.write("/source", b"mine")

    def meanwhile() -> None:
        emulator.control.write(changed, b"theirs")
        if not is_refused:
            emulator.control.fault("files/copy_v2", "cut_body", None)

    lose(emulator, client, "files/copy_v2", {"kind": "cut_body"}, meanwhile)
    with pytest.raises(DropboxError) as caught:
        client.copy("/source", "/target")
    assert caught.value.is_unsettled
    assert not is_refused or (isinstance(caught.value, ApiError) and caught.value.tag[:2] == ("to", "conflict"))
    assert emulator.control.read(changed) == b"theirs"


def test_a_folder_that_was_made_and_removed_is_made(client: Client, emulator: Emulator) -> None:
    lose(emulator, client, "files/create_folder_v2", LANDED, lambda: emulator.control.delete("/folder"))
    client.create_folder("/folder")
    assert emulator.control.tree() == {"/folder": None}


@pytest.mark.parametrize("fault", [LANDED, NOT_DONE], ids=["landed", "not done"])
def test_a_folder_counts_as_made_when_it_is_there_whoever_made_it(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, fault: dict[str, Any]
) -> None:
    """Dropbox tells neither when a folder was made nor by whom; only without a lost answer is it sure to be ours."""
    account = open_dropbox(change_feed=False)
    assert not account.exists("folder")
    lose(
        emulator,
        account._parts.client,
        "files/create_folder_v2",
        fault,
        lambda: emulator.control.write("/folder/file", b"1"),
    )
    account.makedir("folder")
    assert account.listdir("folder") == ["file"]  # that it is empty is believed only where it was an answer
    emulator.control.write("/other/file", b"1")
    with pytest.raises(fs.errors.DirectoryExists):
        account.makedir("other")


def test_what_nobody_can_tell_is_said_to_be_unknown(client: Client, emulator: Emulator) -> None:
    emulator.control.fault("files/upload", "ambiguous")
    emulator.control.fault("files/get_metadata", "server_error", None)
    with pytest.raises(TransportError) as caught:
        client.upload(Commit("/file", "overwrite"), b"mine")
    assert caught.value.is_unsettled
    assert str(caught.value).endswith(UNSETTLED)
    assert len(client.list_revisions("/file")) == 1
    emulator.control.clear_faults()
    emulator.control.fault("files/upload", "server_error", None)
    with pytest.raises(TransportError) as caught:
        client.upload(Commit("/other", "overwrite"), b"mine")
    assert not caught.value.is_unsettled


def test_a_commit_that_landed_and_was_replaced_may_be_unknown(client: Client, emulator: Emulator) -> None:
    """The session is gone, so it was committed; whether as this file, only the revisions could tell."""

    def meanwhile() -> None:
        emulator.control.write("/file", b"theirs")
        emulator.control.fault("files/list_revisions", "reset", count=None)

    lose(emulator, client, "files/upload_session/finish", LANDED, meanwhile)
    with pytest.raises(TransportError) as caught:
        commit_session(client, Commit("/file", "overwrite"), b"mine")
    assert caught.value.is_unsettled
    assert UNSETTLED in str(caught.value)


def test_a_restoration_that_landed_is_made_once(client: Client, emulator: Emulator) -> None:
    for data in (b"old", b"new"):
        emulator.control.write("/file", data)
    rev = client.list_revisions("/file")[-1].rev
    lose(emulator, client, "files/restore", LANDED, lambda: None)
    assert client.restore("/file", rev).rev == rev_of(emulator, "/file")
    assert contents_ever(client, emulator, "/file") == [b"old", b"new", b"old"]


@pytest.mark.parametrize("fault", [LANDED, NOT_DONE], ids=["landed", "not done"])
def test_what_comes_back_takes_the_place_of_nobody(client: Client, emulator: Emulator, fault: dict[str, Any]) -> None:
    emulator.control.write("/file", b"old")
    rev = rev_of(emulator, "/file")
    emulator.control.delete("/file")
    lose(emulator, client, "files/restore", fault, lambda: emulator.control.write("/file", b"theirs"))
    client.bring_back("/file", rev)
    assert emulator.control.read("/file") == b"theirs"
