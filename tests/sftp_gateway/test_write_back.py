"""Write-back: what was acknowledged is visible, delivered in order, and never lost or dropped."""

from __future__ import annotations

import gc
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from fs import errors

from sftp_gateway.write_back.bell import Bell
from sftp_gateway.write_back.delivery import LOOK_SECONDS
from sftp_gateway.write_back.journal import Outcome
from tests.waiting import eventually

from .conftest import LogLines, ServeWriteBack
from .write_back import BulkFS, StagedFS, WriteBack, get, put

staged_too = pytest.mark.parametrize("storage", [BulkFS, StagedFS], indirect=True)


def contents(storage: BulkFS, path: str) -> bytes:
    return storage.readbytes(path)


def events(serving: WriteBack) -> list[tuple[str, ...]]:
    return [event for session in serving.sessions for event in session.events.others]


# -- acknowledging


def test_close_is_answered_before_the_storage_has_the_file(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start()
    storage.reachable.clear()
    client = serving.client()
    put(client, "/f", b"content")
    assert not storage.exists("/f")
    assert [(pending.path, pending.size) for pending in serving.pending()] == [("/f", 7)]
    storage.reachable.set()
    serving.journal.hurry()
    serving.settled()
    assert contents(storage, "/f") == b"content"
    assert serving.journal.totals().bytes == 0


def test_what_is_forgotten_or_fails_in_its_block_is_not_stored(start: ServeWriteBack) -> None:
    """Nobody has said that it is complete."""
    storage = start().written_back
    forgotten = storage.openbin("/forgotten", "w")
    forgotten.write(b"half")
    del forgotten
    with suppress(KeyError), storage.openbin("/failed", "w") as file:
        file.write(b"half")
        raise KeyError
    gc.collect()
    assert storage.listdir("/") == []


def test_a_user_without_write_back_waits_for_the_storage(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    put(serving.client(), "/f", b"acknowledged")
    put(serving.client(write_back=False), "/f", b"stored")
    assert contents(storage, "/f") == b"stored"
    assert [path for path, _, _ in storage.commits] == ["/f", "/f"], "what was acknowledged before came before"
    assert not serving.pending()


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 9 * 2**20])
def test_content_of_any_size_arrives(storage: BulkFS, start: ServeWriteBack, size: int) -> None:
    content = os.urandom(size)
    serving = start()
    put(serving.client(), "/f", content)
    serving.settled()
    assert contents(storage, "/f") == content
    eventually(lambda: not list(serving.journal.vault.directory.glob("*.content")), "content was left behind")


def test_many_small_files_share_their_calls(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    for number in range(100):
        put(client, f"/{number}", b"x")
    serving.journal.hurry()
    serving.settled()
    assert storage.happened("bulk") == ["100"]
    assert len(storage.commits) == 100


def test_without_bulk_uploads_files_go_one_by_one(tmp_path: Path) -> None:
    storage = BulkFS(bulk=False)
    serving = WriteBack(storage, tmp_path)
    client = serving.client()
    for number in range(20):
        put(client, f"/{number}", b"x")
    serving.settled()
    serving.close()
    assert sorted(path for path, _, _ in storage.commits) == sorted(f"/{number}" for number in range(20))


def test_concurrent_closes_share_their_syncs(start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    eventually(lambda: serving.written_back._delivery.is_mine, "nobody delivers")
    commits: list[int] = []
    file = serving.journal._file
    real = file._commit

    def counted(batch: list[Any]) -> None:
        commits.append(len(batch))
        real(batch)

    file._commit = counted  # type: ignore[method-assign]
    outgoing = [serving.written_back.openbin(f"/{number}", "w", write_back=True) for number in range(64)]
    threads = [threading.Thread(target=each.close) for each in outgoing]
    with file._writing:  # as a slow disk does
        for thread in threads:
            thread.start()
        eventually(lambda: len(file._queue) == 64, "not all wait")
    for thread in threads:
        thread.join()
    assert commits == [64]
    assert len(serving.pending()) == 64


def test_the_journal_is_for_its_owner_alone(start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    put(serving.client(), "/large", bytes(100_000))
    folder = serving.journal.vault.directory
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    names = {path.name for path in folder.iterdir()}
    assert "journal.sqlite3" in names
    assert any(name.endswith(".content") for name in names)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_beyond_the_quota_files_go_through(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(quota=1000, delay_seconds=60.0)
    client = serving.client()
    put(client, "/first", bytes(900))
    assert not storage.exists("/first")
    put(client, "/second", bytes(200))
    assert contents(storage, "/second") == bytes(200), "there was no room: CLOSE waits for the storage"
    put(client, "/large", bytes(3 * 2**20))
    assert contents(storage, "/large") == bytes(3 * 2**20)
    assert not storage.exists("/first")
    put(client, "/first", bytes(500))
    assert [size for path, size, _ in storage.commits if path == "/first"] == [900, 500], "in order, though"


def test_what_goes_through_at_its_close_and_fails_is_discarded(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(quota=1000, delay_seconds=60.0)
    file = serving.written_back.openbin("/f", "w", write_back=True, seekable=False)
    file.write(bytes(900))
    put(serving.client(), "/other", bytes(200))  # there was room, and is no more
    storage.faults["write"] = errors.InsufficientStorage("/f")
    with pytest.raises(errors.InsufficientStorage):
        file.close()
    assert storage.happened("abort") == ["/f"]


def test_local_disk_takes_at_once_what_there_is_room_for(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(quota=3 * 2**20, delay_seconds=0.0)
    content = os.urandom(6 * 2**20)
    file = serving.written_back.openbin("/f", "w", write_back=True, seekable=False)
    taken = 0
    while file.write_now(memoryview(content)[taken : taken + 2**18]):
        taken += 2**18
    assert 2 * 2**20 <= taken <= 4 * 2**20, "asked for once for each mebibyte"
    assert not storage.happened("write"), "nothing went to the storage"
    file.write(content[taken : taken + 2**18])
    assert not file.write_now(b"x"), "the storage's own file takes nothing at once"
    file.write(content[taken + 2**18 :])
    file.close()
    assert contents(storage, "/f") == content
    discarded = serving.written_back.openbin("/g", "w", write_back=True, seekable=False)
    discarded.abort()
    assert not discarded.write_now(b"x")


# -- what others see


def test_pending_files_are_seen_by_all_sessions_with_size_and_time(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    mine, other = serving.client(), serving.client(write_back=False)
    storage.makedir("/d")
    storage.writebytes("/d/old", b"committed")
    with mine.open("/d/new", "w") as file:
        file.write(b"12345")
        file.utime((1_600_000_000, 1_600_000_001))
    put(mine, "/d/OLD", b"pending")
    for client in (mine, other):
        assert client.stat("/d/new").st_size == 5
        assert client.stat("/d/new").st_mtime == 1_600_000_001
        assert {(each.filename, each.st_size) for each in client.listdir_attr("/d")} == {("new", 5), ("old", 7)}
        assert get(client, "/d/new") == b"12345"
        assert get(client, "/d/old") == b"pending"
    before = mine.stat("/d/new").st_mtime
    serving.journal.hurry()
    serving.settled()
    assert mine.stat("/d/new").st_mtime == before
    assert not storage.happened("pread"), "it was read from local disk"


def test_a_time_that_comes_after_close_travels_with_the_delivery(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/f", b"first")
    client.utime("/f", (1_500_000_000, 1_500_000_000))
    put(client, "/f", b"second")
    client.utime("/F", (1_600_000_000, 1_600_000_001.5))
    assert client.stat("/f").st_mtime == 1_600_000_001
    assert [pending.modified for pending in serving.pending()] == [1_500_000_000, 1_600_000_001]
    with client.open("/f") as file:
        file.utime((1_600_000_000, 1_600_000_002))
    serving.journal.hurry()
    serving.settled()
    assert client.stat("/f").st_mtime == 1_600_000_002
    assert contents(storage, "/f") == b"second"
    assert len(storage.happened("arrival")) == 2


def test_a_time_that_comes_while_a_file_is_being_sent_changes_nothing(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start()
    client = serving.client()
    with storage.stalled("arrival", "/f"):
        put(client, "/f", b"content")
        eventually(lambda: bool(storage.happened("arrival")), "it was not sent")
        before = client.stat("/f").st_mtime
        client.utime("/f", (1_500_000_000, 1_500_000_000))
        assert client.stat("/f").st_mtime == before
    serving.settled()
    assert client.stat("/f").st_mtime == before


def test_a_reader_goes_on_after_the_delivery(storage: BulkFS, start: ServeWriteBack) -> None:
    for size in (1000, 300_000):
        serving = start(delay_seconds=60.0)
        client = serving.client()
        content = os.urandom(size)
        put(client, "/f", content)
        with client.open("/f") as file:
            serving.journal.hurry()
            serving.settled()
            put(client, "/f", b"later")
            assert file.read() == content
        serving.journal.hurry()
        serving.settled()
        serving.close()


# -- order


@staged_too
def test_each_version_of_a_path_arrives_in_order(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start()
    client = serving.client()
    for number in range(1, 30):
        put(client, "/f", bytes(number))
        put(client, f"/other{number % 3}", bytes(number))
    serving.settled()
    assert [size for path, size, _ in storage.commits if path == "/f"] == list(range(1, 30))
    assert contents(storage, "/other2") == bytes(29)


def test_versions_are_in_order_where_several_threads_send(tmp_path: Path) -> None:
    storage = BulkFS(bulk=False)
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


def test_a_new_pending_file_is_renamed_without_the_storage(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.writebytes("/target", b"old")
    put(client, "/upload.part", b"new")
    with pytest.raises(OSError, match="exists"):
        client.rename("/upload.part", "/target")
    client.posix_rename("/upload.part", "/target")
    assert client.listdir("/") == ["target"]
    assert get(client, "/target") == b"new"
    assert contents(storage, "/target") == b"old"
    serving.journal.hurry()
    serving.settled()
    assert contents(storage, "/target") == b"new"
    assert [path for path, _, _ in storage.commits[1:]] == ["/target"], "nothing was ever at the first path"
    assert not storage.happened("move")


def test_a_renamed_file_comes_after_what_it_replaces(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/new", b"new!")
    put(client, "/f", b"old")
    client.posix_rename("/new", "/f")
    put(client, "/new", b"again")
    serving.journal.hurry()
    serving.settled()
    assert [(path, size) for path, size, _ in storage.commits if path == "/f"] == [("/f", 3), ("/f", 4)]
    assert contents(storage, "/new") == b"again"


@staged_too
def test_a_changed_file_is_delivered_before_it_is_renamed(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.writebytes("/a", b"old")
    put(client, "/a", b"changed")
    client.rename("/a", "/b")
    assert not storage.exists("/a")
    assert contents(storage, "/b") == b"changed"
    assert not serving.pending()


def test_a_case_change_of_a_pending_file(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/readme", b"x")
    client.rename("/readme", "/README")
    assert client.listdir("/") == ["README"]
    serving.journal.hurry()
    serving.settled()
    assert storage.listdir("/") == ["README"]


def test_a_directory_above_a_pending_file_is_renamed(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    client.mkdir("/d")
    client.mkdir("/d/e")
    put(client, "/d/e/f", b"content")
    client.rename("/d", "/g")
    assert client.listdir("/g/e") == ["f"]
    assert get(client, "/g/e/f") == b"content"
    serving.settled()
    assert contents(storage, "/g/e/f") == b"content"
    assert not storage.exists("/d")


def test_removing_a_pending_file(storage: BulkFS, start: ServeWriteBack) -> None:
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
    storage: BulkFS, start: ServeWriteBack
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


@pytest.mark.parametrize("change", ["put", "rename"])
def test_a_version_that_arrives_while_the_next_is_acknowledged_does_not_come_back(
    storage: BulkFS, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch, change: str
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
    storage: BulkFS, start: ServeWriteBack, change: str
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


def test_directories_know_of_pending_files(storage: BulkFS, start: ServeWriteBack) -> None:
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


# -- changes in place


def test_an_append_to_a_pending_file_takes_its_place(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/log", b"one")
    for _ in range(3):
        put(client, "/log", b" more", "a")
    assert get(client, "/log") == b"one more more more"
    serving.journal.hurry()
    serving.settled()
    assert contents(storage, "/log") == b"one more more more"
    assert len(storage.commits) == 1


def test_a_change_of_what_was_delivered_meanwhile(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/f", b"0123456789")
    with client.open("/f", "r+") as file:
        file.write(b"ab")
        serving.journal.hurry()
        serving.settled()
    assert get(client, "/f") == b"ab23456789"
    serving.journal.hurry()
    serving.settled()
    assert contents(storage, "/f") == b"ab23456789"


@staged_too
def test_a_change_in_place_never_overwrites_a_foreign_one(
    storage: BulkFS, start: ServeWriteBack, log_lines: LogLines
) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.commit("/f", b"0123456789")
    with client.open("/f", "r+") as file:
        file.write(b"ab")
    storage.commit("/f", b"foreign")
    serving.journal.hurry()
    serving.settled()
    assert contents(storage, "/f") == b"foreign"
    assert [(pending.failed, pending.size) for pending in serving.pending()] == [(True, 10)], "kept"
    assert get(client, "/f") == b"foreign"
    assert log_lines("undeliverable", 1)[0]["path"] == "/f"
    put(client, "/g", b"0123456789")
    with client.open("/g", "r+") as file:
        file.write(b"ab")
        serving.journal.hurry()
        serving.settled()
        storage.commit("/g", b"foreign")
    assert ("failure", "close", "/g", "/g: the file was changed by someone else meanwhile") in events(serving)
    assert contents(storage, "/g") == b"foreign"


def test_a_change_in_place_never_overwrites_what_was_acknowledged_meanwhile(
    storage: BulkFS, start: ServeWriteBack
) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.commit("/f", b"0123456789")
    with client.open("/f", "r+") as file:
        file.write(b"ab")
        put(serving.client(), "/f", b"of another session")
    assert ("failure", "close", "/f", "/f: the file was changed by someone else meanwhile") in events(serving)
    assert get(client, "/f") == b"of another session"


def test_what_is_known_to_be_refused_is_told_at_the_close(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.commit("/f", b"0123456789")
    with client.open("/f", "r+") as file, client.open("/new", "wx") as new:
        file.write(b"ab")
        new.write(b"ab")
        put(serving.client(), "/f", b"of another session")
        serving.journal.hurry()
        serving.settled()
        storage.commit("/new", b"foreign")
    assert ("failure", "close", "/f", "/f: the file was changed by someone else meanwhile") in events(serving)
    assert ("failure", "close", "/new", "/new: exists already") in events(serving)
    assert contents(storage, "/f") == b"of another session"
    assert contents(storage, "/new") == b"foreign"
    assert not serving.pending()


def test_a_change_of_what_failed_never_overwrites_a_foreign_file(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/f", b"0123456789")
    with client.open("/f", "r+") as file:
        file.write(b"ab")
        storage.refused["/f"] = errors.ResourceReadOnly("/f")
        serving.journal.hurry()
        serving.settled()
        storage.refused.clear()
        storage.commit("/f", b"foreign")
    assert ("failure", "close", "/f", "/f: the file was changed by someone else meanwhile") in events(serving)
    assert contents(storage, "/f") == b"foreign"
    assert [pending.failed for pending in serving.pending()] == [True]


def test_an_overwrite_replaces_what_is_there_by_then(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    put(serving.client(), "/f", b"mine")
    storage.commit("/f", b"foreign")
    serving.journal.hurry()
    serving.settled()
    assert contents(storage, "/f") == b"mine"


@staged_too
def test_an_exclusive_creation_replaces_nothing(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/f", b"mine", "wx")
    with pytest.raises(OSError, match="exists"):
        client.open("/f", "wx")
    storage.commit("/f", b"foreign")
    serving.journal.hurry()
    serving.settled()
    assert contents(storage, "/f") == b"foreign"
    assert [pending.failed for pending in serving.pending()] == [True]


@staged_too
def test_what_had_arrived_although_nobody_knew_is_no_conflict(storage: BulkFS, start: ServeWriteBack) -> None:
    """As after a crash between the commit and the journal's note of it."""
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.commit("/changed", b"0123456789")
    put(client, "/new", b"content", "wx")
    with client.open("/changed", "r+") as file:
        file.write(b"ab")
    storage.lost |= {"/new", "/changed"}
    serving.journal.hurry()
    serving.settled()
    assert not serving.pending()
    assert contents(storage, "/changed") == b"ab23456789"
    assert len([path for path, _, _ in storage.commits if path == "/changed"]) == 2
    assert len([path for path, _, _ in storage.commits if path == "/new"]) == 1


def test_what_may_have_arrived_is_renamed_in_the_storage_too(
    storage: BulkFS, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftp_gateway.write_back.refusals.MAX_BACKOFF_SECONDS", 0.05)
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/f", b"content")
    storage.lost.add("/f")
    serving.journal.hurry()
    eventually(lambda: bool(serving.journal.trouble("/")) or not serving.pending(), "it was not tried")
    client.rename("/f", "/g")
    serving.settled()
    assert storage.listdir("/") == ["g"]


@staged_too
def test_a_delivery_that_dies_is_taken_up(storage: BulkFS, start: ServeWriteBack) -> None:
    first = start(delay_seconds=60.0)
    put(first.client(), "/f", b"content")
    put(first.client(), "/gone", b"content")
    first.journal.send(first.pending())  # on their way, when the process is killed
    storage.commit("/gone", b"content")
    first.close()
    second = start(delay_seconds=60.0)
    client = second.client()
    client.rename("/gone", "/h")
    second.journal.hurry()
    second.settled()
    assert sorted(storage.listdir("/")) == ["f", "h"]


# -- what fails


def test_a_refused_file_is_kept_shown_and_reported(storage: BulkFS, start: ServeWriteBack, log_lines: LogLines) -> None:
    storage.refused["/bad"] = errors.InvalidPath("/bad", msg="the storage does not allow this name")
    serving = start()
    client = serving.client()
    put(client, "/bad", b"content")
    put(client, "/good", b"content")
    serving.settled()
    assert log_lines("undeliverable", 1)[0]["path"] == "/bad"
    totals = serving.journal.totals()
    assert (totals.waiting, totals.failed, totals.bytes) == (0, 1, 7)
    assert sorted(client.listdir("/")) == ["bad", "good"], "it was acknowledged: it is here still"
    assert get(client, "/bad") == b"content"
    client.rename("/bad", "/better")
    serving.settled()
    assert contents(storage, "/better") == b"content", "with another name it is tried again"
    assert not serving.pending()


@staged_too
def test_one_refused_version_holds_up_no_later_one(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/f", b"first")
    storage.refused["/f"] = errors.ResourceReadOnly("/f")
    serving.journal.hurry()
    serving.settled()
    del storage.refused["/f"]
    put(client, "/f", b"second")
    assert get(client, "/f") == b"second"
    serving.journal.hurry()
    serving.settled()
    assert contents(storage, "/f") == b"second"
    failed = serving.pending()[0]
    assert (failed.failed, failed.hidden) == (True, True)
    assert not serving.journal.retry(failed.id, replace=False), "it would overwrite what came later"
    client.remove("/f")
    assert client.listdir("/") == []
    assert serving.journal.retry(failed.id, replace=True)
    serving.settled()
    assert contents(storage, "/f") == b"first"


@staged_too
def test_an_outage_is_waited_out(
    storage: BulkFS, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    monkeypatch.setattr("sftp_gateway.write_back.refusals.MAX_BACKOFF_SECONDS", 0.05)
    monkeypatch.setattr("sftp_gateway.write_back.refusals.MAX_ATTEMPTS", 3)
    storage.reachable.clear()
    serving = start()
    client = serving.client()
    put(client, "/f", b"content")
    eventually(lambda: len(storage.happened("arrival")) > 10, "it was not tried again and again")
    assert len(log_lines("delayed", 1)) == 1, "said once"
    storage.reachable.set()
    serving.settled()
    assert contents(storage, "/f") == b"content"


def test_who_has_nothing_to_deliver_sleeps(start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeps: list[float] = []
    real = Bell.wait

    def wait(bell: Bell, seconds: float, *, urgent: bool = False) -> bool:
        sleeps.append(seconds)
        return real(bell, seconds, urgent=urgent)

    monkeypatch.setattr(Bell, "wait", wait)
    monkeypatch.setattr("sftp_gateway.write_back.delivery.TIDY_SECONDS", 0.0)
    serving = start()
    client = serving.client()
    put(client, "/f", b"content")
    serving.settled()

    def rests() -> bool:
        before = len(sleeps)
        time.sleep(0.5)
        return sleeps[-1:] == [LOOK_SECONDS] and len(sleeps) == before

    eventually(rests, lambda: f"it wakes for nothing: {sleeps}")
    put(client, "/g", b"content")
    serving.settled()


@staged_too
def test_a_failed_record_of_a_delivery_loses_nothing(
    storage: BulkFS, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftp_gateway.write_back.delivery.QUIET_SECONDS", 0.01)
    serving = start()
    real = serving.journal.settle
    failures = [sqlite3.OperationalError("disk I/O error")]

    def settle(outcomes: Iterable[Outcome]) -> None:
        if failures:
            raise failures.pop()
        real(outcomes)

    monkeypatch.setattr(serving.journal, "settle", settle)
    put(serving.client(), "/f", b"content")
    serving.settled()
    assert not failures
    assert contents(storage, "/f") == b"content"


def test_what_needs_an_unreachable_storage_says_so(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.writebytes("/f", b"old")
    put(client, "/f", b"new")
    storage.reachable.clear()
    with pytest.raises(OSError, match="cannot be delivered yet: the storage cannot be reached"):
        client.rename("/f", "/g")
    assert get(client, "/f") == b"new"
    storage.reachable.set()


@staged_too
def test_a_removed_folder_is_made_again(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.makedir("/d")
    for path in ("/d/f", "/d/g"):
        put(client, path, b"content")
    storage.removedir("/d")
    serving.journal.hurry()
    serving.settled()
    assert len(storage.happened("bulk")) == 1
    assert [contents(storage, path) for path in ("/d/f", "/d/g")] == [b"content"] * 2


@staged_too
def test_a_damaged_local_copy_fails_alone(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/large", bytes(100_000))
    put(client, "/small", b"x")
    for path in serving.journal.vault.directory.glob("*.content"):
        path.write_bytes(b"short")
    serving.journal.hurry()
    serving.settled()
    assert contents(storage, "/small") == b"x"
    assert not storage.exists("/large")
    assert "damaged" in serving.pending()[0].reason


# -- the end, and after it


def test_closing_drains_what_it_can(storage: BulkFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/f", b"content")
    assert serving.written_back.drain(10.0)
    assert contents(storage, "/f") == b"content"
    storage.reachable.clear()
    put(client, "/g", b"content")
    assert not serving.written_back.drain(0.1)
    serving.close()
    storage.reachable.set()
    again = start()
    again.settled()
    assert contents(storage, "/g") == b"content"


def test_a_start_clears_away_what_belongs_to_nothing_alone(storage: BulkFS, start: ServeWriteBack) -> None:
    first = start(delay_seconds=60.0)
    put(first.client(), "/f", bytes(300_000))
    folder = first.journal.vault.directory
    (folder / "dead.content").write_bytes(b"left by a process that was killed before its CLOSE was answered")
    unfinished = first.written_back.openbin("/g", "w", write_back=True)
    unfinished.write(bytes(300_000))
    first.journal.recover()
    assert len(list(folder.glob("*.content"))) == 2, "what is pending, and what is being written"
    unfinished.close()
    first.close()
    second = start(delay_seconds=60.0)
    second.journal.hurry()
    second.settled()
    assert [len(contents(storage, path)) for path in ("/f", "/g")] == [300_000] * 2
    eventually(lambda: not list(folder.glob("*.content")), "content was left behind")


def test_of_two_processes_one_delivers_and_both_see(storage: BulkFS, start: ServeWriteBack) -> None:
    """Two instances over one folder behave as two processes do: locks are those of open files."""
    first = start(delay_seconds=60.0)
    eventually(lambda: first.written_back._delivery.is_mine, "nobody delivers")
    second = start(delay_seconds=60.0)
    put(second.client(), "/f", b"content")
    assert get(first.client(), "/f") == b"content"
    assert first.client().listdir("/") == ["f"]
    assert not second.written_back._delivery.is_mine
    second.client().rename("/f", "/g")
    assert first.client().listdir("/") == ["g"]
    second.journal.hurry()
    second.settled()
    assert storage.happened("arrival") == ["/g"]
    first.close()
    eventually(lambda: second.written_back._delivery.is_mine, "nobody took over")
