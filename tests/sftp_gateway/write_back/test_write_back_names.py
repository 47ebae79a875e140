"""Write-back: versions arrive in order, and what is pending is renamed, removed and shown in its directory."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.sftp_gateway.conftest import ServeWriteBack
from tests.sftp_gateway.write_back.remote_fs import RemoteFS, WriteBack, get, put, staged_too
from tests.waiting import eventually

# -- order


@staged_too
def test_each_version_of_a_path_arrives_in_order(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start()
    client = serving.client()
    for number in range(1, 30):
        put(client, "/f", bytes(number))
        put(client, f"/other{number % 3}", bytes(number))
    serving.settled()
    assert [size for path, size, _ in storage.commits if path == "/f"] == list(range(1, 30))
    assert storage.readbytes("/other2") == bytes(29)


def test_versions_are_in_order_where_several_threads_send(tmp_path: Path) -> None:
    storage = RemoteFS()
    serving = WriteBack(storage, tmp_path, delay_seconds=60.0)
    client = serving.client()
    for number in range(1, 5):
        put(client, "/f", bytes(number))
    with storage.stalled("arrival", "/f"):
        serving.journal.hurry()
        eventually(lambda: bool(storage.happened("arrival")), "it was not sent")
        put(client, "/other", b"x")
        serving.journal.hurry()
        eventually(lambda: "/other" in storage.happened("arrival"), "it waits for another path")
        assert storage.happened("arrival").count("/f") == 1
    serving.settled()
    serving.close()
    assert [size for path, size, _ in storage.commits if path == "/f"] == [1, 2, 3, 4]


# -- names


def test_a_new_pending_file_is_renamed_without_the_storage(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.writebytes("/target", b"old")
    put(client, "/upload.part", b"new")
    with pytest.raises(OSError, match="exists"):
        client.rename("/upload.part", "/target")
    client.posix_rename("/upload.part", "/target")
    assert client.listdir("/") == ["target"]
    assert get(client, "/target") == b"new"
    assert storage.readbytes("/target") == b"old"
    serving.journal.hurry()
    serving.settled()
    assert storage.readbytes("/target") == b"new"
    assert [path for path, _, _ in storage.commits[1:]] == ["/target"], "nothing was ever at the first path"
    assert not storage.happened("move")


def test_a_renamed_file_comes_after_what_it_replaces(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/new", b"new!")
    put(client, "/f", b"old")
    client.posix_rename("/new", "/f")
    put(client, "/new", b"again")
    serving.journal.hurry()
    serving.settled()
    assert [(path, size) for path, size, _ in storage.commits if path == "/f"] == [("/f", 3), ("/f", 4)]
    assert storage.readbytes("/new") == b"again"


@staged_too
def test_a_changed_file_is_delivered_before_it_is_renamed(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.writebytes("/a", b"old")
    put(client, "/a", b"changed")
    client.rename("/a", "/b")
    assert not storage.exists("/a")
    assert storage.readbytes("/b") == b"changed"
    assert not serving.pending()


def test_a_case_change_of_a_pending_file(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/readme", b"x")
    client.rename("/readme", "/README")
    assert client.listdir("/") == ["README"]
    serving.journal.hurry()
    serving.settled()
    assert storage.listdir("/") == ["README"]


def test_a_directory_above_a_pending_file_is_renamed(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    client.mkdir("/d")
    client.mkdir("/d/e")
    put(client, "/d/e/f", b"content")
    client.rename("/d", "/g")
    assert client.listdir("/g/e") == ["f"]
    assert get(client, "/g/e/f") == b"content"
    serving.settled()
    assert storage.readbytes("/g/e/f") == b"content"
    assert not storage.exists("/d")


def test_removing_a_pending_file(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.writebytes("/old", b"old")
    put(client, "/new", b"new")
    put(client, "/old", b"newer")
    for path in ("/new", "/old"):
        client.remove(path)
        with pytest.raises(FileNotFoundError):
            client.stat(path)
    serving.settled()
    assert not storage.listdir("/")
    assert ("arrival", "/new") not in storage.calls


def test_a_file_that_is_just_being_sent_is_renamed_and_removed_after_that(
    storage: RemoteFS, start: ServeWriteBack
) -> None:
    serving = start()
    client = serving.client()
    for count, act in enumerate((lambda: client.rename("/f", "/g"), lambda: client.remove("/f")), 1):
        with storage.stalled("arrival", "/f"):
            put(client, "/f", b"content")
            eventually(lambda: len(storage.happened("arrival")) == count, "it was not sent")  # noqa: B023
            thread = threading.Thread(target=act)
            thread.start()
            thread.join(0.3)
            assert thread.is_alive()
        thread.join(30)
    assert storage.listdir("/") == ["g"]
    assert not serving.pending()


def test_a_file_that_is_on_its_way_for_too_long_is_not_waited_for(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(wait_seconds=0.3)
    client = serving.client()
    with storage.stalled("arrival", "/f"):
        put(client, "/f", b"content")
        eventually(lambda: storage.happened("arrival"), "it was not sent")
        for act in (lambda: client.rename("/f", "/g"), lambda: client.remove("/f")):
            with pytest.raises(OSError, match=r"still on its way|cannot be delivered yet"):
                act()
        assert client.stat("/f").st_size == 7
    serving.settled()
    assert storage.readbytes("/f") == b"content"


@pytest.mark.parametrize("change", ["put", "rename"])
def test_a_version_that_arrives_while_the_next_is_acknowledged_does_not_come_back(
    storage: RemoteFS, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Between the look at the storage, which has nothing yet, and the journal's record."""
    serving = start(delay_seconds=60.0)
    client = serving.client()
    record = getattr(serving.journal, change)

    def late(*arguments: Any, **options: Any) -> Any:
        arriving.close()
        eventually(lambda: ("/f", 5) in [commit[:2] for commit in storage.commits], "it has not arrived")
        eventually(lambda: all(pending.state != "sending" for pending in serving.pending()), "it is not settled")
        return record(*arguments, **options)

    put(client, "/f", b"first")
    with ExitStack() as arriving:
        arriving.enter_context(storage.stalled("arrival", "/f"))
        serving.journal.hurry("/f")
        eventually(lambda: storage.happened("arrival"), "it was not sent")
        if change == "rename":
            put(client, "/new", b"second")
        monkeypatch.setattr(serving.journal, change, late)
        if change == "put":
            put(client, "/f", b"second")
        else:
            client.posix_rename("/new", "/f")
    client.remove("/f")
    assert client.listdir("/") == []
    serving.settled()
    assert storage.listdir("/") == []


@pytest.mark.parametrize("change", ["put", "rename"])
def test_a_pending_file_is_shown_in_the_case_that_it_will_have(
    storage: RemoteFS, start: ServeWriteBack, change: str
) -> None:
    """As the storage has it: in that of the first version."""
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/Readme", b"first")
    if change == "put":
        put(client, "/README", b"second")
    else:
        put(client, "/new", b"second")
        client.posix_rename("/new", "/README")
    assert client.listdir("/") == ["Readme"]
    serving.journal.hurry()
    serving.settled()
    assert client.listdir("/") == storage.listdir("/") == ["Readme"]


def test_directories_know_of_pending_files(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    client.mkdir("/d")
    put(client, "/d/f", b"x")
    with pytest.raises(OSError, match="not empty"):
        client.rmdir("/d")
    with pytest.raises(OSError, match="exists"):
        client.mkdir("/d/f")
    for is_no_directory in (client.listdir, client.rmdir):
        with pytest.raises(OSError, match="not a directory"):
            is_no_directory("/d/f")
    client.remove("/d/f")
    client.rmdir("/d")
    assert not storage.listdir("/")
