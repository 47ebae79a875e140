"""Faults under whole operations: success with the right bytes or one clear error, never half a file, never a hang."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fs
import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from fs_dropbox.entries import FileEntry
from tests.waiting import eventually

DEADLINE_SECONDS = 30.0
LARGE = bytes(range(256)) * 80_000  # several upload blocks


@pytest.fixture
def account(open_dropbox: Callable[..., DropboxFS]) -> DropboxFS:
    return open_dropbox(timeout_seconds=5)


@pytest.fixture(autouse=True)
def nothing_stalls_for_ever(emulator: Emulator) -> Iterator[None]:
    yield
    emulator.control.clear_faults()


def refuse(emulator: Emulator, route: str, *tags: str, count: int | None = 1) -> None:
    """Let a route refuse with a path of tags."""
    error: dict[str, Any] = {".tag": tags[-1]}
    for tag in reversed(tags[:-1]):
        error = {".tag": tag, tag: error}
    if route == "files/upload":
        error = {".tag": "path", "reason": error["path"], "upload_session_id": ""}
    emulator.control.fault(route, "error", count, error=error)


@pytest.mark.parametrize("data", [b"new", LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("tag", "error"),
    [
        (("insufficient_space",), fs.errors.InsufficientStorage),
        (("no_write_permission",), fs.errors.PermissionDenied),
        (("disallowed_name",), fs.errors.InvalidPath),
        (("conflict", "folder"), fs.errors.FileExpected),
    ],
)
def test_a_commit_that_fails_is_told_by_close_once(
    account: DropboxFS, emulator: Emulator, data: bytes, tag: tuple[str, ...], error: type[Exception]
) -> None:
    emulator.control.write("/file", b"old")
    refuse(emulator, "files/upload", "path", *tag)
    refuse(emulator, "files/upload_session/finish", "path", *tag)
    file = account.openbin("file", "w")
    file.write(data)
    with pytest.raises(error, match="file"):
        file.close()
    assert file.closed
    file.close()
    assert emulator.control.tree() == {"/file": 3}
    assert account.readbytes("file") == b"old"


@pytest.mark.parametrize("mode", ["w", "x", "a", "r+"])
@pytest.mark.parametrize("data", [b"new", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("status", [None, 500], ids=["cut", "500"])
def test_a_commit_whose_answer_is_lost_is_done_once(
    account: DropboxFS, emulator: Emulator, mode: str, data: bytes, status: int | None
) -> None:
    if mode in ("a", "r+"):
        emulator.control.write("/file", b"")
        assert account.isfile("file")
    for route in ("files/upload", "files/upload_session/finish"):
        emulator.control.fault(route, "ambiguous", status=status)
    with account.openbin("file", mode) as file:
        file.write(data)
    assert emulator.control.faults_struck == 1
    assert emulator.control.tree() == {"/file": len(data)}
    assert emulator.control.read("/file") == data
    assert len(account.versions("file")) == (2 if mode in ("a", "r+") else 1)


@pytest.mark.parametrize("at_byte", [0, 5, 4_000_000])
def test_an_upload_that_is_cut_goes_on(account: DropboxFS, emulator: Emulator, at_byte: int) -> None:
    for route in ("files/upload", "files/upload_session/append_v2"):
        emulator.control.fault(route, "cut_request", 2, at_byte=at_byte)
    account.writebytes("file", LARGE)
    account.writebytes("small", b"small")
    assert emulator.control.read("/file") == LARGE
    assert emulator.control.read("/small") == b"small"


def test_an_upload_that_cannot_go_on_leaves_the_old_version(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    account = open_dropbox()
    emulator.control.write("/file", b"old")
    refuse(emulator, "files/upload_session/append_v2", "not_found", count=None)
    with pytest.raises(fs.errors.OperationFailed, match="file"):
        account.writebytes("file", LARGE)
    assert emulator.control.read("/file") == b"old"
    assert account.readbytes("file") == b"old"


@pytest.mark.parametrize(
    ("kind", "count"), [("cut_body", 3), ("reset", 3), ("server_error", 3), ("rate_limit", 2), ("expired_token", 1)]
)
def test_reading_goes_on_through_faults(account: DropboxFS, emulator: Emulator, kind: str, count: int) -> None:
    emulator.control.write("/file", LARGE)
    emulator.control.fault("files/download", kind, count, after=1)
    with account.openbin("file") as file:
        pieces = []
        while piece := file.read(300_000):
            pieces.append(piece)
    assert b"".join(pieces) == LARGE
    assert emulator.control.faults_struck == count


@pytest.mark.usefixtures("impatient")
def test_a_stalled_read_times_out(open_dropbox: Callable[..., DropboxFS], emulator: Emulator) -> None:
    account = open_dropbox()
    emulator.control.write("/file", LARGE)
    emulator.control.fault("files/download", "stall", None)
    with account.openbin("file") as file, ThreadPoolExecutor(1) as pool:
        account._parts.client._caller._timeout_seconds = 0.3
        reading = pool.submit(file.read, 10)
        with pytest.raises(fs.errors.OperationTimeout):
            reading.result(60)


def test_a_stalled_read_of_one_file_delays_no_other(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.write("/stalled", LARGE)
    emulator.control.write("/other", LARGE)
    revs = {name: emulator.control.metadata(f"/{name}")["rev"] for name in ("stalled", "other")}
    emulator.control.fault("files/download", "stall", None, path=revs["stalled"])
    with account.openbin("stalled") as stalled, ThreadPoolExecutor(20) as pool:
        reading = [pool.submit(stalled.pread, at * 1_000_000, 10) for at in range(20)]  # type: ignore[attr-defined]
        eventually(lambda: emulator.control.faults_struck)
        assert account.readbytes("other") == LARGE
        account.writebytes("new", b"1")
        emulator.control.clear_faults()
        assert all(len(each.result(DEADLINE_SECONDS)) == 10 for each in reading)


def test_content_that_is_not_what_dropbox_stored_is_an_error(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.write("/file", LARGE)
    assert account.isfile("file")
    eventually(lambda: account.feed_is_live)
    entry = account._parts.catalog.find("/file")
    assert isinstance(entry, FileEntry)
    account._parts.catalog.applied(entry._replace(content_hash="0" * 64), account._parts.catalog.epoch())
    with account.openbin("file") as file, pytest.raises(fs.errors.OperationFailed, match="not what Dropbox has stored"):
        file.read()
    reader: Any = account.openbin("file")
    with reader, pytest.raises(fs.errors.OperationFailed, match="not what Dropbox has stored"):
        [reader.pread(start, 32_768) for start in range(0, len(LARGE), 32_768)]
    with pytest.raises(fs.errors.OperationFailed):
        account.appendbytes("file", b"more")
    assert emulator.control.read("/file") == LARGE


def fill_up(self: object, data: bytes) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("mode", ["w+", "a", "r+"])
def test_a_full_disk_commits_nothing(
    account: DropboxFS, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """A write that fails leaves nothing that could be taken for the whole, even where its error goes unnoticed."""
    emulator.control.write("/file", b"old")

    file = account.openbin("file", mode)
    monkeypatch.setattr("tempfile.SpooledTemporaryFile.write", fill_up)
    with pytest.raises(OSError, match="No space left"):
        file.write(b"new")
    monkeypatch.undo()
    with pytest.raises(OSError, match="No space left"):
        file.write(b"more")
    with pytest.raises(OSError, match="No space left"):
        file.close()
    file.close()
    with account.open("file", mode) as text:
        text.write("new text")
        monkeypatch.setattr("tempfile.SpooledTemporaryFile.write", fill_up)
        with pytest.raises(OSError, match="No space left"):
            text.close()
    monkeypatch.undo()
    assert emulator.control.read("/file") == b"old"


def test_a_full_disk_is_nothing_to_who_writes_in_order(
    account: DropboxFS, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may be larger than this machine's disk."""
    with account.openbin("file", "w") as file:
        file.write(LARGE[:1000])
        monkeypatch.setattr("tempfile.SpooledTemporaryFile.write", fill_up)
        for start in range(1000, len(LARGE), 100_000):
            file.write(LARGE[start : start + 100_000])
        assert file.tell() == len(LARGE)
    assert emulator.control.read("/file") == LARGE


@pytest.mark.parametrize("then", ["write", "truncate"])
def test_who_needs_the_copy_that_a_full_disk_did_not_take_is_told(
    account: DropboxFS, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    emulator.control.write("/file", b"old")
    file: Any = account.openbin("file", "w")
    file.write(b"kept")
    with monkeypatch.context() as patched:
        patched.setattr("tempfile.SpooledTemporaryFile.write", fill_up)
        file.write(b"not kept")
    file.seek(0)
    with pytest.raises(OSError, match="No space left"):
        file.write(b"K") if then == "write" else file.truncate(4)
    with pytest.raises(OSError, match="No space left"):
        file.close()
    assert emulator.control.read("/file") == b"old"


def test_a_base_that_cannot_be_read_is_not_taken_for_the_whole(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.write("/file", LARGE)
    error = {".tag": "path", "path": {".tag": "restricted_content"}}
    file = account.openbin("file", "r+")
    emulator.control.fault("files/download", "error", None, after=1, error=error)
    with pytest.raises(fs.errors.PermissionDenied):
        file.read(10)
    with pytest.raises(fs.errors.PermissionDenied):
        file.write(b"new")
    with pytest.raises(fs.errors.PermissionDenied):
        file.close()
    assert emulator.control.read("/file") == LARGE


def test_a_cursor_reset_rebuilds(account: DropboxFS, emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    emulator.control.write("/old", b"1")
    assert account.listdir("/") == ["old"]
    eventually(lambda: account.feed_is_live)
    heard = threading.Event()
    account.subscribe(lambda entries: None if entries else heard.set())
    emulator.control.reset_cursors()
    assert heard.wait(DEADLINE_SECONDS)
    eventually(lambda: account.feed_is_live)
    emulator.control.delete("/old")
    emulator.control.write("/new", b"1")
    eventually(lambda: account.listdir("/") == ["new"])
    assert "reset the change feed" in caplog.text


def test_a_feed_that_is_down_falls_back_to_the_ttl_and_recovers(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    account = open_dropbox(cache_ttl_seconds=0.2)
    assert account.listdir("/") == []
    eventually(lambda: account.feed_is_live)
    emulator.control.fault("files/list_folder/longpoll", "invalid_token", None)
    emulator.control.write("/one", b"1")
    eventually(lambda: not account.feed_is_live)
    eventually(lambda: account.listdir("/") == ["one"])
    emulator.control.write("/two", b"1")
    eventually(lambda: sorted(account.listdir("/")) == ["one", "two"])
    emulator.control.clear_faults()
    eventually(lambda: account.feed_is_live)
    emulator.control.delete("/one")
    eventually(lambda: account.listdir("/") == ["two"])
    down = [record for record in caplog.records if "the change feed is down" in record.message]
    assert len([record for record in down if record.levelname == "WARNING"]) == 1


def test_close_ends_what_is_stalled(emulator: Emulator, open_dropbox: Callable[..., DropboxFS]) -> None:
    account = open_dropbox()
    emulator.control.write("/file", LARGE)
    emulator.control.seed("/folder")
    account.listdir("/")
    eventually(lambda: account.feed_is_live)
    writer, reader = account.openbin("new", "w"), account.openbin("file")
    emulator.control.fault("files/download", "stall", None)
    emulator.control.fault("files/upload_session/append_v2", "stall", None)
    emulator.control.fault("files/upload_session/start", "stall", None)
    emulator.control.fault("files/get_metadata", "stall", None)
    emulator.control.fault("files/move_v2", "stall", None)

    def write() -> None:
        for _ in range(100):
            writer.write(LARGE)
        writer.close()

    works: list[Callable[[], object]] = [
        write,
        lambda: reader.read(),
        lambda: account.exists("folder/unknown"),
        lambda: account.move("file", "moved"),
    ]
    with ThreadPoolExecutor(len(works)) as pool:
        working = [pool.submit(work) for work in works]
        eventually(lambda: emulator.control.faults_struck >= 4)
        started = time.monotonic()
        account.close()
        assert time.monotonic() - started < 20.0
        for work in working:
            with pytest.raises(fs.errors.FSError):
                work.result(20.0)
    assert emulator.control.tree() == {"/file": len(LARGE), "/folder": None}


def test_a_listing_that_breaks_off_is_no_listing(
    account: DropboxFS, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fs_dropbox.api.client.PAGE_ENTRIES", 3)
    for number in range(10):
        emulator.control.seed(f"/folder/{number}", b"1")
    refuse(emulator, "files/list_folder/continue", "path", "restricted_content")
    with pytest.raises(fs.errors.PermissionDenied):
        account.listdir("folder")
    assert len(account.listdir("folder")) == 10


def test_removal_whose_answer_is_lost(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.write("/file", b"1")
    emulator.control.write("/folder/file", b"1")
    emulator.control.fault("files/delete_v2", "ambiguous", 2)
    account.remove("file")
    account.removetree("folder")
    assert emulator.control.tree() == {}
    assert account.listdir("/") == []


def test_moves_and_folders_whose_answers_are_lost(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.fault("files/create_folder_v2", "ambiguous", 1)
    emulator.control.fault("files/move_v2", "ambiguous", 1)
    emulator.control.fault("files/copy_v2", "ambiguous", 1)
    account.makedir("folder")
    account.writebytes("folder/a", b"1")
    account.move("folder/a", "folder/b")
    account.copy("folder/b", "folder/c")
    assert emulator.control.tree() == {"/folder": None, "/folder/b": 1, "/folder/c": 1}
    assert sorted(account.listdir("folder")) == ["b", "c"]


def test_a_revoked_token_is_said_so(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.write("/file", b"1")
    emulator.control.revoke_tokens()
    with pytest.raises(fs.errors.PermissionDenied, match="no longer accepts"):
        account.exists("file")


@pytest.mark.usefixtures("impatient")
def test_opening_tells_refusal_from_silence(emulator: Emulator, open_dropbox: Callable[..., DropboxFS]) -> None:
    with pytest.raises(fs.errors.CreateFailed) as refused:
        open_dropbox(refresh_token="no such token")
    assert "no such token" not in str(refused.value)
    with pytest.raises(fs.errors.CreateFailed):
        open_dropbox(refresh_token=None, app_key=None)
    with pytest.raises(fs.errors.RemoteConnectionError):
        open_dropbox(api_host="127.0.0.1:1")
