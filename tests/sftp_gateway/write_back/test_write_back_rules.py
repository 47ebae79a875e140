"""Rules of write-back that no ordinary day shows: what failed, what the storage may have, what is left on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import pytest
from fs import errors

from sftp_gateway.write_back.journal_rows import Pending
from tests.sftp_gateway.conftest import ServeWriteBack
from tests.sftp_gateway.raw_client import W
from tests.sftp_gateway.write_back.remote_fs import RemoteFS, StagedFS, WriteBack, get, put, staged_too
from tests.waiting import eventually


@pytest.fixture
def begin(
    storage: RemoteFS, serve_write_back: ServeWriteBack, unhurried: None, monkeypatch: pytest.MonkeyPatch
) -> ServeWriteBack:
    """Serve the storage, or another one, with write-back that waits for a minute and tries again at once."""
    monkeypatch.setattr("sftp_gateway.write_back.refusals.MAX_BACKOFF_SECONDS", 0.05)

    def begin(over: RemoteFS = storage, **limits: Any) -> WriteBack:
        return serve_write_back(over, **({"delay_seconds": 60.0} | limits))

    return begin


def deliver(serving: WriteBack) -> None:
    serving.journal.hurry()
    serving.settled()


def contents(serving: WriteBack) -> list[Path]:
    return list(serving.journal.vault.directory.glob("*.content"))


def change(serving: WriteBack, path: str, content: bytes) -> None:
    with serving.client().open(path, "r+") as file:
        file.write(content)


# -- what the storage has, or may have


def test_where_the_storage_cannot_be_asked_it_may_have_the_file(storage: RemoteFS, begin: ServeWriteBack) -> None:
    serving = begin()
    storage.writebytes("/f", b"old")
    file = serving.written_back.openbin("/f", "w", write_back=True)
    file.write(b"new")
    storage.faults["getinfo"] = errors.RemoteConnectionError("/f")
    file.close()
    storage.faults.clear()
    serving.written_back.remove("/f")
    assert not storage.exists("/f"), "what was there before is back"


def test_what_a_rename_replaces_does_not_come_back(storage: RemoteFS, begin: ServeWriteBack) -> None:
    serving = begin()
    client = serving.client()
    storage.writebytes("/g", b"old")
    put(client, "/f", b"new")
    client.posix_rename("/f", "/g")
    assert client.listdir("/") == ["g"]
    client.remove("/g")
    assert client.listdir("/") == []
    assert not storage.exists("/g")


def test_a_pending_file_replaces_nothing_by_a_plain_rename_and_goes_nowhere_that_is_not_there(
    begin: ServeWriteBack,
) -> None:
    client = begin().client()
    put(client, "/f", b"one")
    put(client, "/g", b"two")
    with pytest.raises(OSError, match="exists"):
        client.rename("/f", "/g")
    with pytest.raises(FileNotFoundError):
        client.rename("/f", "/nowhere/f")
    assert (get(client, "/f"), get(client, "/g")) == (b"one", b"two")


def test_a_copy_is_of_what_is_pending(storage: RemoteFS, begin: ServeWriteBack) -> None:
    serving = begin()
    storage.writebytes("/f", b"old")
    put(serving.client(), "/f", b"new")
    serving.written_back.copy("/f", "/g")
    assert storage.readbytes("/g") == b"new"


@pytest.mark.parametrize("call", ["copy", "move"])
def test_what_was_pending_before_comes_before_a_copy_or_a_move(
    storage: RemoteFS, begin: ServeWriteBack, call: str
) -> None:
    serving = begin()
    storage.commit("/source", b"later")
    put(serving.client(), "/f", b"earlier")
    getattr(serving.written_back, call)("/source", "/f", overwrite=True)
    deliver(serving)
    assert storage.readbytes("/f") == b"later"


@pytest.mark.parametrize("call", ["copy", "move", "remove"])
def test_what_has_failed_does_not_come_back_when_its_successor_is_gone(
    storage: RemoteFS, begin: ServeWriteBack, call: str
) -> None:
    serving = begin()
    client = serving.client()
    storage.refused["/f"] = errors.ResourceReadOnly("/f")
    put(client, "/f", b"refused")
    deliver(serving)
    storage.refused.clear()
    storage.commit("/f" if call == "remove" else "/source", b"successor")
    if call == "remove":
        assert client.stat("/f").st_size == client.listdir_attr("/")[0].st_size == len(b"successor")
        client.remove("/f")
    else:
        getattr(serving.written_back, call)("/source", "/f")
        assert get(client, "/f") == b"successor"
        storage.remove("/f")
    assert "f" not in client.listdir("/")
    assert [pending.failed for pending in serving.pending()] == [True], "it is reported all the same"


@staged_too
def test_changes_in_place_never_overwrite_foreign_files(storage: RemoteFS, begin: ServeWriteBack) -> None:
    serving = begin()
    for path in ("/f", "/g"):
        storage.commit(path, b"0123")
        change(serving, path, b"ab")
        storage.commit(path, b"foreign")
    deliver(serving)
    assert [storage.readbytes(path) for path in ("/f", "/g")] == [b"foreign"] * 2
    assert [pending.failed for pending in serving.pending()] == [True, True]


@pytest.mark.parametrize("storage", [StagedFS], indirect=True)
def test_what_the_storage_has_already_needs_no_local_copy(storage: RemoteFS, begin: ServeWriteBack) -> None:
    serving = begin()
    put(serving.client(), "/large", b"x" * 100_000)
    storage.reachable.clear()
    serving.journal.hurry()
    eventually(lambda: storage.happened("arrival"), "nothing is sent")
    for path in contents(serving):
        path.write_bytes(b"short")
    storage.reachable.set()
    deliver(serving)
    assert storage.readbytes("/large") == b"x" * 100_000
    assert not serving.pending()


def test_a_change_of_a_pending_file_that_goes_through_replaces_no_foreign_one(
    storage: RemoteFS, begin: ServeWriteBack
) -> None:
    serving = begin()
    put(serving.client(), "/f", b"0123")
    client = serving.session(write_back=False).raw()
    handle = client.opened("/f", W)
    assert client.wait(client.write(handle, 0, b"ab")).ok
    deliver(serving)
    storage.commit("/f", b"foreign")
    assert "changed by someone else" in client.wait(client.close(handle)).text
    assert storage.readbytes("/f") == b"foreign"


def test_what_is_delivered_while_it_is_being_opened_is_read_from_the_storage(
    begin: ServeWriteBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = begin()
    client = serving.client()
    put(client, "/f", b"content")
    content = serving.journal.content

    def content_late(pending: Pending) -> BinaryIO | bytes:
        monkeypatch.setattr(serving.journal, "content", content)
        deliver(serving)
        return content(pending)

    monkeypatch.setattr(serving.journal, "content", content_late)
    assert get(client, "/f") == b"content"


def test_a_change_of_what_is_gone_is_told_at_once(storage: RemoteFS, begin: ServeWriteBack) -> None:
    serving = begin()
    storage.commit("/f", b"0123")
    change(serving, "/f", b"ab")
    storage.remove("/f")
    deliver(serving)
    assert [(pending.failed, pending.attempts) for pending in serving.pending()] == [(True, 1)]
    assert not storage.exists("/f")


def test_a_refusal_that_is_about_no_other_version_is_tried_again(storage: RemoteFS, begin: ServeWriteBack) -> None:
    serving = begin()
    storage.commit("/f", b"0123")
    change(serving, "/f", b"ab")
    storage.refused["/f"] = errors.OperationFailed("/f", msg="not now")
    serving.journal.hurry()
    eventually(lambda: len(storage.happened("arrival")) > 3, "it was not tried again")
    del storage.refused["/f"]
    serving.settled()
    assert not serving.pending()
    assert storage.readbytes("/f") == b"ab23"


def test_a_delivery_that_breaks_off_is_aborted(begin: ServeWriteBack) -> None:
    one_by_one = RemoteFS()
    serving = begin(one_by_one)
    one_by_one.commit("/f", b"old")
    put(serving.client(), "/f", b"new")
    one_by_one.faults["write"] = errors.RemoteConnectionError("/f", msg="gone")
    serving.journal.hurry()
    eventually(lambda: "/f" in one_by_one.happened("abort"), "what was begun is left to chance")
    assert one_by_one.readbytes("/f") == b"old"
    one_by_one.faults.clear()
    serving.settled()
    assert one_by_one.readbytes("/f") == b"new"


# -- what failed


def failed(serving: WriteBack, storage: RemoteFS, path: str) -> None:
    """Have a file refused for good."""
    storage.refused[path] = errors.InvalidPath(path, msg="not this name")
    put(serving.client(), path, b"refused")
    deliver(serving)
    del storage.refused[path]
    assert serving.client().stat(path).st_size == 7


def test_what_failed_goes_along_with_its_directory(storage: RemoteFS, begin: ServeWriteBack) -> None:
    serving = begin()
    storage.makedir("/d")
    failed(serving, storage, "/d/bad")
    client = serving.client()
    client.rename("/d", "/e")
    assert client.listdir("/") == ["e"]
    assert client.listdir("/e") == ["bad"]
    assert serving.journal.retry(serving.pending()[0].id, replace=False)
    serving.settled()
    assert storage.readbytes("/e/bad") == b"refused"


def test_what_failed_does_not_come_back_where_another_file_was_moved_away(
    storage: RemoteFS, begin: ServeWriteBack
) -> None:
    serving = begin()
    failed(serving, storage, "/f")
    storage.commit("/f", b"foreign")
    client = serving.client()
    assert get(client, "/f") == b"foreign"
    client.rename("/f", "/g")
    assert client.listdir("/") == ["g"]
    assert len(serving.pending()) == 1, "it is reported all the same"


def test_what_failed_does_not_come_back_after_a_commit_that_waited_for_nothing(
    storage: RemoteFS, begin: ServeWriteBack
) -> None:
    serving = begin()
    failed(serving, storage, "/f")
    direct = serving.client(write_back=False)
    put(direct, "/f", b"stored")
    assert storage.readbytes("/f") == b"stored"
    storage.remove("/f")  # by somebody else
    assert direct.listdir("/") == []


@pytest.mark.parametrize("act", ["rename", "rmdir"])
def test_what_failed_does_not_come_back_where_a_directory_is_gone(
    storage: RemoteFS, begin: ServeWriteBack, act: str
) -> None:
    serving = begin()
    failed(serving, storage, "/f")
    storage.makedir("/f")
    client = serving.client()
    if act == "rename":
        client.rename("/f", "/g")
    else:
        client.rmdir("/f")
    assert client.listdir("/") == (["g"] if act == "rename" else [])
    assert len(serving.pending()) == 1, "it is reported all the same"


# -- what is left on local disk


def test_contents_end_with_what_they_belong_to(begin: ServeWriteBack) -> None:
    serving = begin()
    client = serving.client()
    large = bytes(100_000)
    put(client, "/f", large)
    assert len(contents(serving)) == 1
    put(client, "/f", b"and more", "a")
    assert len(contents(serving)) == 1, "the copy that was changed is left"
    client.remove("/f")
    assert contents(serving) == []
    file = serving.written_back.openbin("/g", "w", write_back=True)
    file.write(large)
    assert len(contents(serving)) == 1
    file.abort()  # type: ignore[attr-defined]
    assert contents(serving) == []
