"""What a filesystem does, shows and says where an answer was lost, or comes late."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.api.client import Commit
from fs_dropbox.emulator import Emulator
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import UNSETTLED, ApiError, DropboxError, TransportError, reason
from fs_dropbox.uploads.group_commit import _Writer
from tests.fs_dropbox.filesystem.lost_answers import LANDED, lose
from tests.waiting import eventually

FINISH_BATCH = "files/upload_session/finish_batch_v2"

pytestmark = pytest.mark.usefixtures("impatient")


def test_what_may_have_come_back_is_seen(open_dropbox: Callable[..., DropboxFS], emulator: Emulator) -> None:
    account = open_dropbox(cache_ttl_seconds=1000, change_feed=False)
    emulator.control.write("/file", b"old")
    rev = emulator.control.metadata("/file")["rev"]
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
    assert account.getinfo("target", ["dropbox"]).get("dropbox", "rev") == emulator.control.metadata("/target")["rev"]


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
        assert isinstance(error, DropboxError)
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
