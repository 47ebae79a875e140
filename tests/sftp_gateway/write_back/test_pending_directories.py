"""Directories with write-back: there at once, made by what is delivered into them, or a moment later."""

from __future__ import annotations

import stat
import threading
from functools import partial
from typing import Any

import paramiko
import pytest
from fs import errors

from tests.sftp_gateway.conftest import LogLines, ServeWriteBack
from tests.sftp_gateway.write_back.remote_fs import RemoteFS, StagedFS, WriteBack, get, put
from tests.waiting import eventually


class Made(StagedFS):
    """Counts the directories that it is asked to make; `parents` made along with files are not counted."""

    def makedirs(self, path: str, permissions: Any = None, recreate: bool = False) -> Any:
        self.passes("makedirs", path)
        return super().makedirs(path, permissions, recreate)


@pytest.fixture
def storage() -> Made:
    return Made()


@pytest.fixture
def start(storage: Made, serve_write_back: ServeWriteBack, unhurried: None) -> ServeWriteBack:
    """Serve the storage with write-back that delivers nothing before it is asked to."""
    return partial(serve_write_back, storage, delay_seconds=1000.0)


def deliver(serving: WriteBack) -> None:
    serving.journal.hurry()
    serving.settled()


def is_folder(client: paramiko.SFTPClient, path: str) -> bool:
    return stat.S_ISDIR(client.stat(path).st_mode or 0)


def test_a_tree_is_there_at_once_and_made_by_what_is_delivered(storage: Made, start: ServeWriteBack) -> None:
    serving = start()
    client, other = serving.client(), serving.client(write_back=False)
    storage.reachable.clear()
    client.mkdir("/Tree")
    client.mkdir("/tree/Deep")
    put(client, "/Tree/deep/one", b"1")
    put(client, "/tree/two", b"22")
    for each in (client, other):
        assert each.listdir("/") == ["Tree"]
        assert sorted(each.listdir("/TREE")) == ["Deep", "two"]
        assert is_folder(each, "/tree/deep")
        assert get(each, "/tree/deep/one") == b"1"
        with pytest.raises(FileNotFoundError):
            each.stat("/tree/none")
    assert not storage.listdir("/")
    storage.reachable.set()
    deliver(serving)
    assert sorted(storage.listdir("/Tree")) == ["Deep", "two"]
    assert storage.readbytes("/Tree/Deep/one") == b"1"
    assert not serving.journal.totals().is_anything_waiting
    assert is_folder(client, "/Tree/Deep")


def test_beyond_the_quota_they_are_made_at_once(
    storage: Made, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftp_gateway.write_back.journal.FREE_BYTES", 200_000)
    files = start(quota=1000).written_back
    for number in range(150):
        files.makedir_later(f"/{number}{'x' * 1000}")
    assert 10 < len(storage.listdir("/")) < 140
    assert len(files.listdir("/")) == 150


def test_empty_directories_are_made_after_a_moment(
    storage: Made, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftp_gateway.write_back.delivery.QUIET_SECONDS", 0.05)
    for otherwise in ("LOOK_SECONDS", "TIDY_SECONDS"):
        monkeypatch.setattr(f"sftp_gateway.write_back.delivery.{otherwise}", 3600.0)
    serving = start()
    client = serving.client()
    eventually(lambda: serving.journal.bell._wakes <= 2, "it does not sleep")
    for path in ("/a", "/a/b", "/a/b/c", "/a/d"):
        client.mkdir(path)
    serving.settled()
    assert storage.isdir("/a/b/c")
    assert storage.isdir("/a/d")
    assert set(storage.happened("makedirs")) <= {"/a", "/a/b", "/a/b/c", "/a/d"}
    assert client.listdir("/a") == ["b", "d"]


def test_what_a_directory_refuses(storage: Made, start: ServeWriteBack) -> None:
    serving = start()
    client = serving.client()
    client.mkdir("/d")
    client.mkdir("/d/e")
    put(client, "/f", b"x")
    for attempt, match in (
        (lambda: client.mkdir("/D"), "exists"),
        (lambda: client.mkdir("/f"), "exists"),
        (lambda: client.mkdir("/none/d"), "parent directory does not exist"),
        (lambda: client.mkdir("/f/d"), "not a directory"),
        (lambda: client.rmdir("/d"), "not empty"),
        (lambda: client.remove("/d"), "directory"),
        (lambda: put(client, "/d", b""), "directory"),
        (lambda: client.open("/d"), "directory"),
    ):
        with pytest.raises(OSError, match=match):
            attempt()
    client.rmdir("/d/e")
    client.rmdir("/d")
    with pytest.raises(FileNotFoundError):
        client.rmdir("/d")
    client.remove("/f")
    deliver(serving)
    assert not storage.listdir("/")
    assert not storage.happened("makedirs")


def test_others_find_it_made_where_they_need_it(storage: Made, start: ServeWriteBack) -> None:
    serving = start()
    client, other = serving.client(), serving.client(write_back=False)
    storage.writebytes("/old", b"old")
    client.mkdir("/d")
    client.mkdir("/d/e")
    other.rename("/old", "/d/e/old")
    assert storage.readbytes("/d/e/old") == b"old"
    client.mkdir("/g")
    put(other, "/g/f", b"f")
    assert storage.readbytes("/g/f") == b"f"
    client.mkdir("/h")
    other.mkdir("/h/i")
    assert storage.isdir("/h/i")
    assert serving.journal.totals().directories == 0


def test_a_directory_is_renamed_with_all_that_is_pending_in_it(storage: Made, start: ServeWriteBack) -> None:
    serving = start()
    client = serving.client()
    client.mkdir("/d")
    client.mkdir("/d/e")
    put(client, "/d/e/f", b"x")
    client.mkdir("/into")
    client.rename("/d", "/into/d")
    assert client.listdir("/into") == ["d"]
    assert get(client, "/into/d/e/f") == b"x"
    assert storage.readbytes("/into/d/e/f") == b"x"
    client.mkdir("/empty")
    client.posix_rename("/empty", "/full")
    assert sorted(client.listdir("/")) == ["full", "into"]
    put(client, "/new", b"new")
    client.mkdir("/last")
    client.rename("/new", "/last/new")
    assert not storage.exists("/last")
    deliver(serving)
    assert storage.readbytes("/last/new") == b"new"


def test_a_directory_that_is_just_being_made_is_removed_after_that(storage: Made, start: ServeWriteBack) -> None:
    serving = start()
    client = serving.client()
    with storage.stalled("makedirs", "/d"):
        client.mkdir("/d")
        serving.journal.hurry()
        eventually(lambda: bool(storage.happened("makedirs")), "it is not made")
        thread = threading.Thread(target=client.rmdir, args=("/d",))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join(30)
    serving.settled()
    assert not storage.listdir("/")


def test_what_may_have_been_made_is_removed_in_the_storage_too(storage: Made, start: ServeWriteBack) -> None:
    first = start()
    first.client().mkdir("/d")
    first.journal.directories.send(first.journal.directories.all())  # being made, when the process is killed
    storage.makedirs("/d/theirs")
    first.close()
    second = start()
    with pytest.raises(OSError, match="not empty"):
        second.client().rmdir("/d")
    storage.removedir("/d/theirs")
    second.client().rmdir("/d")
    assert not storage.listdir("/")


def test_what_was_made_without_an_answer_is_removed_in_the_storage_too(
    storage: Made, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = start()
    client, other = serving.client(), serving.client(write_back=False)
    client.mkdir("/d")
    makedirs = storage.makedirs

    def made_unheard(path: str, *args: Any, **options: Any) -> None:
        makedirs(path, *args, **options)
        raise errors.RemoteConnectionError(path, msg="the answer was lost")

    with monkeypatch.context() as lost:
        lost.setattr(storage, "makedirs", made_unheard)
        put(other, "/d/f", b"x")  # paramiko keeps the error of CLOSE to itself
    assert storage.isdir("/d")
    client.rmdir("/d")
    assert storage.listdir("/") == client.listdir("/") == []


def test_what_was_made_for_a_refused_file_is_removed_in_the_storage_too(
    start: ServeWriteBack, serve_write_back: ServeWriteBack
) -> None:
    class Strict(RemoteFS):
        def commit(self, path: str, content: bytes, **options: Any) -> None:
            if not self.isdir("/d"):
                raise errors.ResourceNotFound("/d")
            super().commit(path, content, **options)

    storage = Strict()
    serving = serve_write_back(storage, delay_seconds=1000.0)
    client = serving.client()
    client.mkdir("/d")
    storage.refused["/d/bad"] = errors.InvalidPath("/d/bad", msg="not this name")
    put(client, "/d/bad", b"x")
    serving.journal.hurry("/d/bad")
    eventually(lambda: serving.pending()[0].failed, "it was not refused")
    client.remove("/d/bad")
    client.rmdir("/d")
    assert storage.listdir("/") == client.listdir("/") == []


def test_what_is_in_a_directory_that_may_have_been_made_is_seen(storage: Made, start: ServeWriteBack) -> None:
    serving = start()
    client = serving.client()
    client.mkdir("/d")
    serving.journal.directories.doubt("/d")
    assert client.listdir("/d") == []
    with pytest.raises(FileNotFoundError):
        client.stat("/d/f")
    storage.makedir("/d")
    storage.writebytes("/d/f", b"delivered")
    assert client.listdir("/") == ["d"]
    assert client.listdir("/d") == ["f"]
    assert client.stat("/d/f").st_size == 9
    client.remove("/d/f")
    assert storage.listdir("/d") == []


def test_it_outlives_the_process(storage: Made, start: ServeWriteBack) -> None:
    first = start()
    first.client().mkdir("/d")
    first.close()
    second = start()
    assert second.client().listdir("/") == ["d"]
    deliver(second)
    assert storage.isdir("/d")


def test_both_of_two_processes_see_it(storage: Made, start: ServeWriteBack) -> None:
    first, second = start(), start()
    eventually(lambda: first.written_back._delivery.is_mine, "nobody delivers")
    second.client().mkdir("/d")
    put(second.client(), "/d/f", b"x")
    assert first.client().listdir("/d") == ["f"]
    deliver(second)
    for each in (first, second):
        assert each.client().listdir("/") == ["d"]
        assert get(each.client(), "/d/f") == b"x"


def test_an_outage_is_waited_out(storage: Made, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftp_gateway.write_back.refusals.MAX_BACKOFF_SECONDS", 0.05)
    serving = start()
    client = serving.client()
    storage.faults["makedirs"] = errors.RemoteConnectionError(msg="no network")
    client.mkdir("/d")
    serving.journal.hurry()
    eventually(lambda: len(storage.happened("makedirs")) > 2, "it was not tried again")
    assert serving.journal.trouble("/") == "the storage cannot be reached"
    del storage.faults["makedirs"]
    serving.settled()
    assert storage.isdir("/d")


def test_one_that_cannot_be_made_is_reported(storage: Made, start: ServeWriteBack, log_lines: LogLines) -> None:
    serving = start()
    client = serving.client()
    client.mkdir("/d")
    storage.writebytes("/d", b"somebody else's file")
    deliver(serving)
    assert client.listdir("/") == ["d"]
    assert get(client, "/d") == b"somebody else's file"
    assert [line["path"] for line in log_lines("undeliverable", 1)] == ["/d/"]


def test_a_directory_that_is_needed_while_dropbox_is_away_says_so(storage: Made, start: ServeWriteBack) -> None:
    serving = start(wait_seconds=0.5)
    client = serving.client()
    client.mkdir("/d")
    storage.faults["makedirs"] = errors.RemoteConnectionError(msg="no network")
    with pytest.raises(OSError, match="cannot be delivered yet: the storage cannot be reached"):
        client.rename("/d", "/e")
    del storage.faults["makedirs"]
    client.rename("/d", "/e")
    assert storage.listdir("/") == ["e"]
