"""Answers that are lost while someone else changes the same thing: nobody's work is lost, no credit is taken for it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.api.client import Client, Commit, Update
from fs_dropbox.api.retry import RetryPolicy
from fs_dropbox.content_hash import ContentHash
from fs_dropbox.emulator import Emulator
from fs_dropbox.entries import DeletedEntry, FileEntry, SupersededEntry
from fs_dropbox.errors import UNSETTLED, ApiError, TransportError, reason
from fs_dropbox.uploads.group_commit import _Writer
from tests.waiting import eventually

FINISH_BATCH = "files/upload_session/finish_batch_v2"
LANDED: dict[str, Any] = {"kind": "ambiguous"}
NOT_DONE: dict[str, Any] = {"kind": "server_error", "status": 502}
LONG_AGO = 1_500_000_000
Meanwhile = Callable[[], object]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = RetryPolicy(attempts=3, deadline_seconds=20.0, first_pause_seconds=0.01)
    monkeypatch.setattr("fs_dropbox.api.client.RetryPolicy", lambda: policy)


def lose(emulator: Emulator, client: Client, route: str, fault: dict[str, Any], meanwhile: Meanwhile) -> None:
    """Let the next call of a route fail, and something happen before the client looks what became of it."""
    parameters = dict(fault)
    struck = emulator.control.faults_struck
    emulator.control.fault(route, parameters.pop("kind"), **parameters)
    look = client.get_metadata

    def look_later(path: str) -> Any:
        if emulator.control.faults_struck > struck:
            vars(client).pop("get_metadata")
            meanwhile()
        return look(path)

    client.get_metadata = look_later  # type: ignore[method-assign]


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
        with pytest.raises((ApiError, TransportError)) as caught:
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
    with pytest.raises((ApiError, TransportError)) as caught:
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
    with pytest.raises((ApiError, TransportError)) as caught:
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


# Whole operations


def test_what_may_have_come_back_is_seen(open_dropbox: Callable[..., DropboxFS], emulator: Emulator) -> None:
    account = open_dropbox(cache_ttl_seconds=1000, change_feed=False)
    emulator.control.write("/file", b"old")
    rev = rev_of(emulator, "/file")
    emulator.control.delete("/file")
    assert account.listdir("/") == []
    emulator.control.fault("files/restore", "ambiguous")
    emulator.control.fault("files/get_metadata", "server_error", 3)
    with pytest.raises(fs.errors.RemoteConnectionError, match="not known"):
        account.restore("file", rev)
    assert account.readbytes("file") == b"old"


def test_what_is_told_late_of_what_may_have_come_back_is_not_believed(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = open_dropbox(cache_ttl_seconds=1000, change_feed=False)
    emulator.control.write("/source", b"new")
    emulator.control.write("/target", b"old")
    cache, client = account._parts.cache, account._parts.client
    told: list[tuple[Any, int]] = []

    def lose_twice(path: str, _: str) -> Any:
        for data in (b"back", b"back again"):
            emulator.control.write(path, data)
            told.append((client.get_metadata(path), cache.epoch()))
        raise TransportError("cut")

    monkeypatch.setattr(client, "bring_back", lose_twice)
    emulator.control.fault("files/move_v2", "server_error", 3)
    with pytest.raises(fs.errors.OperationFailed, match="restore its rev"):
        account.move("source", "target", overwrite=True)
    first, asked = told[0]
    cache.hear([first], asked)
    assert account.getinfo("target", ["dropbox"]).get("dropbox", "rev") == rev_of(emulator, "/target")


@pytest.mark.parametrize("size", [2, 9_000_000], ids=["small", "large"])
def test_an_append_that_was_replaced_leaves_the_cache_right(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, size: int
) -> None:
    account = open_dropbox(cache_ttl_seconds=1000, change_feed=False)
    emulator.control.write("/log", b"1")
    route = "files/upload" if size == 2 else "files/upload_session/finish"
    lose(emulator, account._parts.client, route, LANDED, lambda: emulator.control.write("/log", b"theirs"))
    account.appendbytes("log", b"+" * size)
    assert account.readbytes("log") == b"theirs"
    assert [info.get("details", "size") for info in account.versions("log")] == [6, size + 1, 1]


def test_a_removed_file_that_is_back_is_seen(open_dropbox: Callable[..., DropboxFS], emulator: Emulator) -> None:
    account = open_dropbox(cache_ttl_seconds=1000, change_feed=False)
    for path in ("/file", "/folder/file"):
        emulator.control.write(path, b"old")
    assert sorted(account.listdir("/")) == ["file", "folder"]
    lose(emulator, account._parts.client, "files/delete_v2", LANDED, lambda: emulator.control.write("/file", b"theirs"))
    account.remove("file")
    assert account.readbytes("file") == b"theirs"
    lose(
        emulator,
        account._parts.client,
        "files/delete_v2",
        LANDED,
        lambda: emulator.control.write("/folder/new", b"theirs"),
    )
    account.removetree("folder")
    assert account.listdir("folder") == ["new"]


def test_a_replacing_move_that_landed_is_not_undone(open_dropbox: Callable[..., DropboxFS], emulator: Emulator) -> None:
    """The old target must not come back over the moved file: its source is gone, so nothing else would have it."""
    account = open_dropbox()
    emulator.control.write("/source", b"new")
    emulator.control.write("/target", b"old")
    silence = lambda: emulator.control.fault("files/get_metadata", "server_error", 3)  # noqa: E731
    lose(emulator, account._parts.client, "files/move_v2", LANDED, silence)
    with pytest.raises(fs.errors.RemoteConnectionError, match="not known"):
        account.move("source", "target", overwrite=True)
    assert emulator.control.tree() == {"/target": 3}
    assert account.readbytes("target") == b"new"


def test_what_could_not_be_replaced_comes_back_but_over_nobody(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = open_dropbox()
    emulator.control.write("/source", b"new")
    emulator.control.write("/target", b"old")
    refusal = {".tag": "cant_move_into_vault", "cant_move_into_vault": {".tag": "is_shared_folder"}}
    emulator.control.fault("files/move_v2", "error", error=refusal)
    with pytest.raises(fs.errors.PermissionDenied):
        account.move("source", "target", overwrite=True)
    assert emulator.control.read("/target") == b"old"
    emulator.control.fault("files/move_v2", "error", error=refusal)
    delete = account._parts.client.delete

    def delete_and_more(path: str, **others: Any) -> Any:
        entry = delete(path, **others)
        emulator.control.write("/target", b"theirs")
        return entry

    monkeypatch.setattr(account._parts.client, "delete", delete_and_more)
    with pytest.raises(fs.errors.PermissionDenied):
        account.move("source", "target", overwrite=True)
    assert emulator.control.read("/target") == b"theirs"
    assert account.readbytes("target") == b"theirs"
    assert emulator.control.read("/source") == b"new"


def test_a_rename_of_case_that_landed_is_not_undone(open_dropbox: Callable[..., DropboxFS], emulator: Emulator) -> None:
    account = open_dropbox()
    emulator.control.write("/name", b"1")
    emulator.control.fault("files/move_v2", "ambiguous", after=1)
    account.move("name", "NAME", overwrite=True)
    assert list(emulator.control.tree()) == ["/NAME"]


@pytest.mark.parametrize("what", ["others", "network"])
def test_a_rename_of_case_that_cannot_be_undone_says_where_the_file_is(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    account = open_dropbox()
    emulator.control.write("/name", b"mine")
    move = account._parts.client.move

    def move_and_more(source: str, target: str, **others: Any) -> Any:
        entry = move(source, target, **others)
        if what == "others":
            emulator.control.write("/name", b"theirs")
        else:
            emulator.control.fault("files/move_v2", "cut_request", None)
        return entry

    monkeypatch.setattr(account._parts.client, "move", move_and_more)
    with pytest.raises(fs.errors.OperationFailed, match="it may be at /") as caught:
        account.move("name", "NAME", overwrite=True)
    (place,) = (word for word in str(caught.value).split() if word.endswith(".renaming"))
    assert emulator.control.read(place) == b"mine"
    assert sorted(account.listdir("/")) == sorted(path[1:] for path in emulator.control.tree())


def test_a_rename_of_case_that_may_be_carried_out_yet_says_where_the_file_is_then(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    account = open_dropbox(change_feed=False)
    emulator.control.write("/name", b"mine")
    emulator.control.fault("files/move_v2", "late", 3)
    with pytest.raises(fs.errors.OperationFailed, match="it may be at /") as caught:
        account.move("name", "NAME", overwrite=True)
    assert UNSETTLED in str(caught.value)
    assert emulator.control.read("/name") == account.readbytes("name") == b"mine"
    (place,) = (word for word in str(caught.value).split() if word.endswith(".renaming"))
    emulator.control.release()
    eventually(lambda: emulator.control.tree() == {place: 4})


@pytest.mark.parametrize("how", ["group", "bulk"])
def test_what_is_carried_out_late_undoes_nothing_that_was_done_since(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, how: str
) -> None:
    """A session is committed once: finishing it again settles what became of it, before anything else happens."""
    account = open_dropbox(change_feed=False)
    emulator.control.fault(FINISH_BATCH, "late")
    names = [str(number) for number in range(4)]
    if how == "group":
        writers = [_Writer(Commit(f"/{name}", "overwrite"), b"first") for name in names]
        account._parts.uploader.small_files._settle(writers)
        assert all(isinstance(writer.result.result(0), FileEntry) for writer in writers)
    else:
        files = [(name, lambda: io.BytesIO(b"first"), 5, None) for name in names]
        assert dict(account.upload_files(files)) == dict.fromkeys(range(4))
    account.remove("0")
    account.move("1", "moved")
    account.writebytes("2", b"second")
    emulator.control.release()
    eventually(lambda: [each.route for each in emulator.control.requests()].count(FINISH_BATCH) == 2)
    assert emulator.control.tree() == {"/moved": 5, "/2": 6, "/3": 5}


@pytest.mark.parametrize(("times", "kind"), [(1, ApiError), (None, TransportError)])
def test_a_group_whose_answer_is_lost_says_so_where_it_cannot_be_settled(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, times: int | None, kind: type[Exception]
) -> None:
    account = open_dropbox(change_feed=False)
    group = account._parts.uploader.small_files
    emulator.control.fault(FINISH_BATCH, "ambiguous", times)
    emulator.control.fault("files/upload", "rate_limit", None, retry_after=90)
    writers = [_Writer(Commit(f"/{number}", "overwrite"), b"mine") for number in range(3)]
    group._settle(writers)
    assert set(emulator.control.tree()) == {"/0", "/1", "/2"}
    for writer in writers:
        error = writer.result.exception()
        assert isinstance(error, kind)
        assert isinstance(error, (ApiError, TransportError))
        assert error.is_unsettled
        assert reason(error).endswith(UNSETTLED)


def test_two_that_begin_a_file_with_the_same_line_make_two_lines_or_know(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    files = [open_dropbox().openbin("log", "a") for _ in range(2)]
    for file in files:
        file.write(b"the same line\n")
    files[0].close()
    with pytest.raises(fs.errors.FileExists):
        files[1].close()
    assert emulator.control.read("/log") == b"the same line\n"


def test_two_that_append_the_same_line_make_two_lines_or_know(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    emulator.control.write("/log", b"")
    first, second = open_dropbox(), open_dropbox()
    files = [each.openbin("log", "a") for each in (first, second)]
    for file in files:
        file.write(b"the same line\n")
    files[0].close()
    with pytest.raises(fs.errors.OperationFailed, match="changed by someone else"):
        files[1].close()
    assert emulator.control.read("/log") == b"the same line\n"
    second.appendbytes("log", b"the same line\n")
    assert emulator.control.read("/log") == b"the same line\n" * 2
