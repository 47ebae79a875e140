"""Write-back: what is acknowledged at a CLOSE, what others see of it, and how it ends."""

from __future__ import annotations

import gc
import os
import stat
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fs import errors

from sftp_gateway.write_back.journal_rows import NewFile
from tests.sftp_gateway.atomic_fs import PendingFile
from tests.sftp_gateway.conftest import ServeWriteBack
from tests.sftp_gateway.write_back.remote_fs import RemoteFS, StagedFS, WriteBack, get, put
from tests.waiting import eventually

# -- acknowledging


def test_close_is_answered_before_the_storage_has_the_file(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start()
    storage.reachable.clear()
    client = serving.client()
    put(client, "/f", b"content")
    assert not storage.exists("/f")
    assert [(pending.path, pending.size) for pending in serving.pending()] == [("/f", 7)]
    storage.reachable.set()
    serving.journal.hurry()
    serving.settled()
    assert storage.readbytes("/f") == b"content"
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


def test_a_user_without_write_back_waits_for_the_storage(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    put(serving.client(), "/f", b"acknowledged")
    put(serving.client(write_back=False), "/f", b"stored")
    assert storage.readbytes("/f") == b"stored"
    assert [path for path, _, _ in storage.commits] == ["/f", "/f"], "what was acknowledged before came before"
    assert not serving.pending()


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 9 * 2**20])
def test_content_of_any_size_arrives(storage: RemoteFS, start: ServeWriteBack, size: int) -> None:
    content = os.urandom(size)
    serving = start()
    put(serving.client(), "/f", content)
    serving.settled()
    assert storage.readbytes("/f") == content
    eventually(lambda: not list(serving.journal.vault.directory.glob("*.content")), "content was left behind")


@pytest.mark.parametrize("storage", [StagedFS], indirect=True)
def test_many_small_files_share_their_calls(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    for number in range(100):
        put(client, f"/{number}", b"x")
    serving.journal.hurry()
    serving.settled()
    assert storage.happened("bulk") == ["100"]
    assert len(storage.commits) == 100


def test_what_is_written_through_keeps_its_time(storage: RemoteFS, start: ServeWriteBack) -> None:
    moment = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    file: Any = start().written_back.openbin("/f", "w")
    file.write(b"content")
    file.modified = moment
    file.close()
    assert storage.getinfo("/f", ["details"]).modified == moment


def test_without_staged_uploads_files_go_one_by_one(tmp_path: Path) -> None:
    storage = RemoteFS()
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

    file._commit = counted
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


def test_beyond_the_quota_files_go_through(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(quota=1000, delay_seconds=60.0)
    client = serving.client()
    put(client, "/first", bytes(900))
    assert not storage.exists("/first")
    put(client, "/second", bytes(200))
    assert storage.readbytes("/second") == bytes(200), "there was no room: CLOSE waits for the storage"
    put(client, "/large", bytes(3 * 2**20))
    assert storage.readbytes("/large") == bytes(3 * 2**20)
    assert not storage.exists("/first")
    put(client, "/first", bytes(500))
    assert [size for path, size, _ in storage.commits if path == "/first"] == [900, 500], "in order, though"


def test_names_without_content_take_no_more_than_the_quota(
    storage: RemoteFS, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many: the disk is as full of them."""
    monkeypatch.setattr("sftp_gateway.write_back.journal.FREE_BYTES", 200_000)
    serving = start(quota=1000, delay_seconds=60.0)
    for number in range(150):
        serving.written_back.openbin(f"/{number}{'x' * 1000}", "w", write_back=True).close()
    assert 0 <= serving.journal.used - 1000 < 10_000
    assert 10 < len(serving.pending()) == 150 - len(storage.commits)
    assert serving.journal.totals().bytes == 0


def test_what_is_being_written_takes_no_more_than_the_quota(start: ServeWriteBack) -> None:
    """All of it together, and with what waits."""
    serving = start(quota=4 * 2**20, delay_seconds=60.0)
    put(serving.client(), "/waits", bytes(2**20))
    files = [serving.written_back.openbin(f"/{number}", "w", write_back=True, seekable=False) for number in range(8)]
    for file in files:
        for _ in range(8):
            file.write(bytes(2**18))
    folder = serving.journal.vault.directory
    assert 3 * 2**20 <= sum(path.stat().st_size for path in folder.glob("*.content")) <= 5 * 2**20
    for file in files:
        file.close()
    assert serving.journal.used == 3 * 2**20


def test_what_goes_through_at_its_close_and_fails_is_discarded(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(quota=1000, delay_seconds=60.0)
    file = serving.written_back.openbin("/f", "w", write_back=True, seekable=False)
    file.write(bytes(900))
    other = serving.journal.vault.write(memory_limit=1000)
    other.write(bytes(200))
    serving.journal.put(NewFile("/other", 0, "replace"), other, quota=1000)  # as another process does
    storage.faults["write"] = errors.InsufficientStorage("/f")
    with pytest.raises(errors.InsufficientStorage):
        file.close()
    assert storage.happened("abort") == ["/f"]


def test_who_does_not_write_back_goes_on_where_the_storage_stopped(
    storage: RemoteFS, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although there is a journal between: somebody else writes back."""
    resumed: list[str | None] = []
    openbin = storage.openbin

    def open_resumed(
        path: str, mode: str = "r", buffering: int = -1, *, resume: str | None = None, **options: Any
    ) -> Any:
        resumed.append(resume)
        return openbin(path, mode, buffering, **options)

    monkeypatch.setattr(storage, "openbin", open_resumed)
    monkeypatch.setattr(PendingFile, "checkpoint", lambda file: ("text", len(file._content)), raising=False)
    files: Any = start().written_back
    local = files.openbin("/f", "w", write_back=True, seekable=False)
    local.write(b"content")
    assert local.checkpoint() is None
    local.abort()
    through = files.openbin("/f", "w", seekable=False)
    assert through.checkpoint() == ("text", 0)
    through.write(b"content")
    through.abort()
    assert through.checkpoint() == ("text", 7), "nothing can be gone on with"
    files.openbin("/f", "w", seekable=False, resume="text").close()
    assert resumed == [None, "text"]


def test_local_disk_takes_at_once_what_there_is_room_for(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(quota=3 * 2**20, delay_seconds=0.0)
    content = os.urandom(6 * 2**20)
    file: Any = serving.written_back.openbin("/f", "w", write_back=True, seekable=False)
    taken = 0
    while file.write_now(memoryview(content)[taken : taken + 2**18]):
        taken += 2**18
    assert 2 * 2**20 <= taken <= 4 * 2**20, "asked for once for each mebibyte"
    assert not storage.happened("write"), "nothing went to the storage"
    file.write(content[taken : taken + 2**18])
    assert not file.write_now(b"x"), "the storage's own file takes nothing at once"
    file.write(content[taken + 2**18 :])
    file.close()
    assert storage.readbytes("/f") == content
    discarded: Any = serving.written_back.openbin("/g", "w", write_back=True, seekable=False)
    discarded.abort()
    assert not discarded.write_now(b"x")


# -- what others see


def test_pending_files_are_seen_by_all_sessions_with_size_and_time(storage: RemoteFS, start: ServeWriteBack) -> None:
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


def test_a_time_that_comes_after_close_travels_with_the_delivery(storage: RemoteFS, start: ServeWriteBack) -> None:
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
    assert storage.readbytes("/f") == b"second"
    assert len(storage.happened("arrival")) == 2


def test_a_time_that_comes_while_a_file_is_being_sent_changes_nothing(storage: RemoteFS, start: ServeWriteBack) -> None:
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


def test_a_reader_goes_on_after_the_delivery(storage: RemoteFS, start: ServeWriteBack) -> None:
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


# -- the end, and after it


def test_closing_drains_what_it_can_and_tells_what_is_left(
    storage: RemoteFS, start: ServeWriteBack, caplog: pytest.LogCaptureFixture
) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/f", b"content")
    assert serving.written_back.drain(10.0)
    assert storage.readbytes("/f") == b"content"
    storage.reachable.clear()
    put(client, "/g", b"content")
    assert not serving.written_back.drain(0.1)
    assert "next one goes on" not in caplog.text
    serving.close()
    assert "files=1" in caplog.text
    assert "next one goes on" in caplog.text
    storage.reachable.set()
    again = start()
    again.settled()
    assert storage.readbytes("/g") == b"content"


def test_a_start_clears_away_what_belongs_to_nothing_alone(storage: RemoteFS, start: ServeWriteBack) -> None:
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
    assert [len(storage.readbytes(path)) for path in ("/f", "/g")] == [300_000] * 2
    eventually(lambda: not list(folder.glob("*.content")), "content was left behind")


def test_of_two_processes_one_delivers_and_both_see(storage: RemoteFS, start: ServeWriteBack) -> None:
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
