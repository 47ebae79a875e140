"""Write-back: a change in place never overwrites what somebody else has written, in whatever order it is known."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from fs import errors

from sftp_gateway.sftp.status import RefusedError
from tests.sftp_gateway.conftest import LogLines, ServeWriteBack
from tests.sftp_gateway.write_back.remote_fs import RemoteFS, events, get, put, staged_too
from tests.waiting import eventually


def test_an_append_to_a_pending_file_takes_its_place(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/log", b"one")
    for _ in range(3):
        put(client, "/log", b" more", "a")
    assert get(client, "/log") == b"one more more more"
    serving.journal.hurry()
    serving.settled()
    assert storage.readbytes("/log") == b"one more more more"
    assert len(storage.commits) == 1


def test_a_change_of_what_was_delivered_meanwhile(storage: RemoteFS, start: ServeWriteBack) -> None:
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
    assert storage.readbytes("/f") == b"ab23456789"


def test_a_change_of_what_was_delivered_meanwhile_while_others_are_read(
    storage: RemoteFS, start: ServeWriteBack
) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    for name in "abcdefgh":
        put(client, f"/{name}", name.encode())
    with contextlib.ExitStack() as stack:
        for name in "abcdegh":
            stack.enter_context(client.open(f"/{name}", "r"))
        with client.open("/f", "r+") as file:
            file.write(b"F")
            serving.journal.hurry()
            serving.settled()
    serving.journal.hurry()
    serving.settled()
    assert storage.readbytes("/f") == b"F"


@staged_too
def test_a_change_in_place_never_overwrites_a_foreign_one(
    storage: RemoteFS, start: ServeWriteBack, log_lines: LogLines
) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.commit("/f", b"0123456789")
    with client.open("/f", "r+") as file:
        file.write(b"ab")
    storage.commit("/f", b"foreign")
    serving.journal.hurry()
    serving.settled()
    assert storage.readbytes("/f") == b"foreign"
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
    assert storage.readbytes("/g") == b"foreign"


def test_a_change_in_place_never_overwrites_what_was_acknowledged_meanwhile(
    storage: RemoteFS, start: ServeWriteBack
) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.commit("/f", b"0123456789")
    with client.open("/f", "r+") as file:
        file.write(b"ab")
        put(serving.client(), "/f", b"of another session")
    assert ("failure", "close", "/f", "/f: the file was changed by someone else meanwhile") in events(serving)
    assert get(client, "/f") == b"of another session"


def test_what_is_known_to_be_refused_is_told_at_the_close(storage: RemoteFS, start: ServeWriteBack) -> None:
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
    assert storage.readbytes("/f") == b"of another session"
    assert storage.readbytes("/new") == b"foreign"
    assert not serving.pending()


def test_a_change_of_what_failed_never_overwrites_a_foreign_file(storage: RemoteFS, start: ServeWriteBack) -> None:
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
    assert storage.readbytes("/f") == b"foreign"
    assert [pending.failed for pending in serving.pending()] == [True]


def test_an_overwrite_replaces_what_is_there_by_then(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    put(serving.client(), "/f", b"mine")
    storage.commit("/f", b"foreign")
    serving.journal.hurry()
    serving.settled()
    assert storage.readbytes("/f") == b"mine"


@staged_too
def test_an_exclusive_creation_replaces_nothing(storage: RemoteFS, start: ServeWriteBack) -> None:
    serving = start(delay_seconds=60.0)
    client = serving.client()
    put(client, "/f", b"mine", "wx")
    with pytest.raises(OSError, match="exists"):
        client.open("/f", "wx")
    storage.commit("/f", b"foreign")
    serving.journal.hurry()
    serving.settled()
    assert storage.readbytes("/f") == b"foreign"
    assert [pending.failed for pending in serving.pending()] == [True]


@staged_too
def test_what_had_arrived_although_nobody_knew_is_no_conflict(storage: RemoteFS, start: ServeWriteBack) -> None:
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
    assert storage.readbytes("/changed") == b"ab23456789"
    assert len([path for path, _, _ in storage.commits if path == "/changed"]) == 2
    assert len([path for path, _, _ in storage.commits if path == "/new"]) == 1


def test_what_may_have_arrived_is_renamed_in_the_storage_too(
    storage: RemoteFS, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch
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
def test_a_delivery_that_dies_is_taken_up(storage: RemoteFS, start: ServeWriteBack) -> None:
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


@staged_too
@pytest.mark.parametrize("act", ["rename", "posix_rename", "remove", "copy"])
def test_what_is_done_to_an_upload_is_not_done_to_what_another_has_put_there(
    storage: RemoteFS, start: ServeWriteBack, act: str
) -> None:
    """The upload is refused only when it is delivered, because of that very request."""
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.commit("/f", b"0123")
    storage.commit("/there", b"there")
    with client.open("/f", "r+") as file:
        file.write(b"ab")
    storage.commit("/f", b"foreign")
    asked: Callable[[], None] = {
        "rename": lambda: client.rename("/f", "/g"),
        "posix_rename": lambda: client.posix_rename("/f", "/there"),
        "remove": lambda: client.remove("/f"),
        "copy": lambda: serving.written_back.copy("/f", "/there", overwrite=True),
    }[act]
    with pytest.raises((OSError, RefusedError), match="what was uploaded there was refused"):
        asked()
    assert (storage.readbytes("/f"), storage.readbytes("/there")) == (b"foreign", b"there")
    assert sorted(storage.listdir("/")) == ["f", "there"]
    assert [pending.failed for pending in serving.pending()] == [True]
    client.remove("/f")  # now it is known whose it is


@pytest.mark.parametrize("act", ["rename", "remove"])
def test_an_upload_that_is_refused_while_it_is_renamed_or_removed_is_done_with(
    storage: RemoteFS, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    monkeypatch.setattr("sftp_gateway.write_back.refusals.MAX_BACKOFF_SECONDS", 0.05)
    serving = start(delay_seconds=60.0)
    client = serving.client()
    storage.reachable.clear()
    put(client, "/bad", b"content")
    serving.journal.hurry()
    eventually(lambda: bool(serving.journal.trouble("/")), "it was not tried")
    storage.refused["/bad"] = errors.InvalidPath("/bad", msg="not this name")
    storage.reachable.set()
    if act == "rename":
        client.rename("/bad", "/better")
        assert client.listdir("/") == ["better"]
    else:
        client.remove("/bad")
    serving.journal.hurry()
    serving.settled()
    assert not serving.pending()
    assert storage.listdir("/") == client.listdir("/") == (["better"] if act == "rename" else [])
