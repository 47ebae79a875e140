"""Write-back: what is refused is kept and shown, what cannot be reached is waited for, nothing is lost."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from unittest.mock import Mock

import pytest
from fs import errors

from sftp_gateway.write_back.bell import Bell
from sftp_gateway.write_back.delivery import LOOK_SECONDS
from sftp_gateway.write_back.journal_rows import Outcome
from tests.sftp_gateway.conftest import LogLines, ServeWriteBack
from tests.sftp_gateway.write_back.remote_fs import RemoteFS, StagedFS, get, put, staged_too
from tests.waiting import eventually


def test_a_refused_file_is_kept_shown_and_reported(
    storage: RemoteFS, start: ServeWriteBack, log_lines: LogLines
) -> None:
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
    assert storage.readbytes("/better") == b"content", "with another name it is tried again"
    assert not serving.pending()


def test_a_refused_file_is_changed_in_place_and_tried_again(storage: RemoteFS, start: ServeWriteBack) -> None:
    storage.refused["/f"] = errors.ResourceReadOnly("/f")
    serving = start()
    client = serving.client()
    put(client, "/f", b"content")
    serving.settled()
    del storage.refused["/f"]
    with client.open("/f", "r+") as file:
        file.write(b"C")
    serving.settled()
    assert storage.readbytes("/f") == b"Content"
    assert not serving.pending()


@staged_too
def test_one_refused_version_holds_up_no_later_one(storage: RemoteFS, start: ServeWriteBack) -> None:
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
    assert storage.readbytes("/f") == b"second"
    failed = serving.pending()[0]
    assert (failed.failed, failed.hidden) == (True, True)
    assert not serving.journal.retry(failed.id, replace=False), "it would overwrite what came later"
    client.remove("/f")
    assert client.listdir("/") == []
    assert serving.journal.retry(failed.id, replace=True)
    serving.settled()
    assert storage.readbytes("/f") == b"first"


@pytest.mark.parametrize("is_down", [False, True])
def test_a_clock_that_is_set_right_holds_nothing_up(
    storage: RemoteFS, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch, is_down: bool
) -> None:
    """One that was ahead is often set back when the network comes, for which the files were waiting, too."""
    if is_down:
        storage.reachable.clear()
    now = time.time
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time", lambda: now() + 86400.0)
        files = start(delay_seconds=0.3 if is_down else 5.0).written_back
        files.makedir_later("/made")
        with files.openbin("/f", "w", write_back=True) as file:
            file.write(b"content")
        if is_down:
            eventually(lambda: files.journal.trouble("/f"))
    storage.reachable.set()
    eventually(lambda: storage.isfile("/f") and storage.isdir("/made"))


@staged_too
def test_an_outage_is_waited_out(
    storage: RemoteFS, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
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
    assert storage.readbytes("/f") == b"content"


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
    storage: RemoteFS, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch
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
    assert storage.readbytes("/f") == b"content"


def test_a_full_disk_does_not_keep_a_gateway_from_ending(
    storage: RemoteFS, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = start(delay_seconds=60.0)
    put(serving.client(), "/f", b"content")
    full = sqlite3.OperationalError("database or disk is full")
    with monkeypatch.context() as patched:
        patched.setattr(serving.journal, "hurry", Mock(side_effect=full))
        assert not serving.written_back.drain(1.0)
        patched.setattr(serving.journal, "is_live", Mock(side_effect=full))
        assert serving.written_back.is_busy
    assert serving.written_back.drain(20.0)
    assert storage.readbytes("/f") == b"content"


def test_what_needs_an_unreachable_storage_says_so(storage: RemoteFS, start: ServeWriteBack) -> None:
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
def test_a_removed_folder_is_made_again(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.makedir("/d")
    for path in ("/d/f", "/d/g"):
        put(client, path, b"content")
    storage.removedir("/d")
    serving.journal.hurry()
    serving.settled()
    assert len(storage.happened("bulk")) == isinstance(storage, StagedFS)
    assert [storage.readbytes(path) for path in ("/d/f", "/d/g")] == [b"content"] * 2


@staged_too
def test_a_damaged_local_copy_fails_alone(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/large", bytes(100_000))
    put(client, "/small", b"x")
    for path in serving.journal.vault.directory.glob("*.content"):
        path.write_bytes(b"short")
    serving.journal.hurry()
    serving.settled()
    assert storage.readbytes("/small") == b"x"
    assert not storage.exists("/large")
    assert "damaged" in serving.pending()[0].reason
