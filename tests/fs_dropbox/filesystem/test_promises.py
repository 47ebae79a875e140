"""Promises that hold only because of one argument or one line; each of these fails where that is left out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.api.client import Client, Commit
from fs_dropbox.content_hash import BLOCK_SIZE, ContentHash
from fs_dropbox.emulator import Emulator
from fs_dropbox.entries import FileEntry, FolderEntry
from fs_dropbox.errors import ApiError, TransportError
from fs_dropbox.uploads.upload import APPENDS_IN_ALL, Uploader
from tests.waiting import eventually


def arguments(emulator: Emulator, route: str) -> list[dict[str, Any]]:
    return [record.argument for record in emulator.control.requests() if record.route == route]


def test_every_call_that_carries_content_carries_its_hash(client: Client, emulator: Emulator) -> None:
    client.upload(Commit("/small", "overwrite"), b"small")
    session = client.session_start()
    client.session_append(session, 0, b"x" * BLOCK_SIZE, False)
    client.session_append(session, BLOCK_SIZE, b"end", True)
    sessions = client.session_start_batch(2)
    assert client.session_append_batch([(sessions[0], b"one"), (sessions[1], b"two")]) == [None, None]
    sent = [
        argument["content_hash"]
        for route in ("files/upload", "files/upload_session/append_v2", "files/upload_session/append_batch")
        for argument in arguments(emulator, route)
    ]
    assert sent == [ContentHash(data).hexdigest() for data in (b"small", b"x" * BLOCK_SIZE, b"end", b"onetwo")]


def test_what_was_removed_is_gone_at_once(open_dropbox: Callable[..., DropboxFS], emulator: Emulator) -> None:
    """Not only once the change feed tells of it."""
    account = open_dropbox(change_feed=False, cache_ttl_seconds=3600)
    account.writetext("/file", "content")
    account.makedirs("/folder/below")
    assert sorted(account.listdir("/")) == ["file", "folder"]
    account.remove("/file")
    assert not account.exists("/file")
    assert account.listdir("/") == ["folder"]
    account.removetree("/folder")
    assert not account.exists("/folder/below")
    assert account.listdir("/") == []


def test_a_removal_that_dropbox_refuses_is_an_error(dropbox_fs: DropboxFS, emulator: Emulator) -> None:
    dropbox_fs.makedirs("/folder/below")
    error = {".tag": "path_write", "path_write": {".tag": "no_write_permission"}}
    for remove in (lambda: dropbox_fs.removetree("/folder"), lambda: dropbox_fs.removedir("/folder/below")):
        emulator.control.fault("files/delete_v2", "error", error=error)
        with pytest.raises(fs.errors.PermissionDenied):
            remove()
    assert dropbox_fs.exists("/folder/below")
    assert emulator.control.exists("/folder/below")


def test_after_a_reset_nothing_known_before_is_believed(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    account = open_dropbox(cache_ttl_seconds=3600)
    account.exists("anything")
    eventually(lambda: account.feed_is_live)
    told: list[int] = []
    account.subscribe(lambda entries: told.append(len(entries)))
    emulator.control.write("/file", b"one")
    eventually(lambda: told == [1])  # or the deletion might be told together with it, and nobody would meet the reset
    assert account.listdir("/") == ["file"]
    emulator.control.fault("files/list_folder/continue", "cursor_reset")
    emulator.control.delete("/file")
    eventually(lambda: told == [1, 0] and account.feed_is_live)
    assert account.listdir("/") == []
    assert not account.exists("/file")


def test_appends_of_all_uploads_together_are_bounded(make_client: Callable[..., Client], emulator: Emulator) -> None:
    """Memory is: a block for each of these, however many files are written at the same time."""
    client = make_client()
    uploader = Uploader(client, block_bytes=BLOCK_SIZE)
    emulator.control.fault("files/upload_session/append_v2", "stall", at="request", count=None)
    uploads = [uploader.open(Commit(f"/file {number}", "overwrite")) for number in range(6)]
    written = [0] * len(uploads)

    def write(number: int) -> None:
        for _ in range(6):
            uploads[number].write(bytes(BLOCK_SIZE))
            written[number] += 1

    try:
        with ThreadPoolExecutor(len(uploads)) as writers:
            running = [writers.submit(write, number) for number in range(len(uploads))]
            eventually(lambda: sum(written) >= APPENDS_IN_ALL)
            time.sleep(0.3)  # what must not happen has no end to wait for
            # Each upload also holds the block that it fills.
            assert sum(written) <= APPENDS_IN_ALL + len(uploads)
            emulator.control.clear_faults()
            for each in running:
                each.result(60)
    finally:
        for upload in uploads:
            upload.abort()
        client.close()
        uploader.close()


def test_a_refusal_with_a_tag_of_tomorrow_is_an_error(dropbox_fs: DropboxFS, emulator: Emulator) -> None:
    emulator.control.write("/file", b"content")
    emulator.control.fault("files/get_metadata", "error", error={".tag": "something_new"})
    with pytest.raises(fs.errors.OperationFailed, match="something_new") as raised:
        dropbox_fs.getinfo("/file")
    assert isinstance(raised.value.__cause__, ApiError)


def test_an_upload_whose_answer_was_lost_takes_no_credit_for_other_content(client: Client, emulator: Emulator) -> None:
    emulator.control.write("/file", b"old")
    emulator.control.fault("files/upload", "server_error", status=500)
    entry = client.upload(Commit("/file", "overwrite"), b"new")
    assert emulator.control.read("/file") == b"new"
    assert entry.rev == emulator.control.metadata("/file")["rev"]


def test_a_move_that_did_not_take_place_takes_no_credit_for_what_is_there(client: Client, emulator: Emulator) -> None:
    emulator.control.write("/source", b"source")
    emulator.control.write("/target", b"of another")
    emulator.control.fault("files/move_v2", "server_error", status=500)
    with pytest.raises(ApiError) as caught:
        client.move("/source", "/target")
    assert caught.value.tag == ("to", "conflict", "file")
    assert emulator.control.read("/source") == b"source"


@pytest.mark.parametrize("replaces", [True, False], ids=["rename over it", "rename of case"])
@pytest.mark.parametrize("cache", [True, False], ids=["followed", "without cache"])
def test_what_a_rename_goes_through_is_seen_by_nobody_here(
    open_dropbox: Callable[..., DropboxFS],
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    replaces: bool,
    cache: bool,
) -> None:
    """The old file has gone, and the new one is not there yet, whoever tells of that or is asked."""
    monkeypatch.setattr("fs_dropbox.metadata.changes.REST_SECONDS", 0.01)
    account = open_dropbox(cache=cache, change_feed=cache)
    account.writetext("/file", "old")
    account.writetext("/new", "new")
    if cache:
        eventually(lambda: account.feed_is_live)
        account.listdir("/")
    emulator.control.fault("files/move_v2", "stall", after=0 if replaces else 1)
    with ThreadPoolExecutor(1) as pool:
        if replaces:
            moving = pool.submit(account.move, "/new", "/file", overwrite=True)
        else:
            moving = pool.submit(account.move, "/file", "/FILE")
        eventually(lambda: not emulator.control.exists("/file"), "the old file has not gone")
        emulator.control.write("/marker", b"")
        eventually(lambda: account.exists("/marker"), "the feed has not told")
        assert account.exists("/file")
        assert sorted(account.listdir("/")) == ["file", "marker", "new"]
        assert account.readtext("/file") == "old"
        emulator.control.release()
        moving.result(30)
    assert account.readtext("/file") == ("new" if replaces else "old")
    assert sorted(account.listdir("/")) == (["file", "marker"] if replaces else ["FILE", "marker", "new"])


@pytest.mark.parametrize("cache", [True, False])
def test_who_has_looked_before_a_rename_does_not_see_what_it_goes_through(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, monkeypatch: pytest.MonkeyPatch, cache: bool
) -> None:
    """A look that takes its time is answered while the old file has gone, and the new one is not there yet."""
    account = open_dropbox(cache=cache, change_feed=False)
    emulator.control.write("/file", b"old")
    emulator.control.write("/new", b"new")
    client = account._parts.client
    looks, moves = threading.Event(), threading.Event()
    get_metadata, move = client.get_metadata, client.move

    def slow_look(path: str) -> FileEntry | FolderEntry:
        if not looks.is_set():
            looks.set()
            assert moves.wait(30)
        return get_metadata(path)

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(client, "get_metadata", slow_look)
        look = pool.submit(account.exists, "/file")
        assert looks.wait(30)
        account.makedir("/folder")  # from here on, nobody shares that look

        def move_after_the_look(*arguments: Any, **options: Any) -> FileEntry | FolderEntry:
            moves.set()
            assert look.result(30)
            return move(*arguments, **options)

        monkeypatch.setattr(client, "move", move_after_the_look)
        account.move("/new", "/file", overwrite=True)
    assert account.readtext("/file") == "new"


def test_a_removal_that_is_carried_out_late_takes_no_newer_version(client: Client, emulator: Emulator) -> None:
    old = client.upload(Commit("/file", "overwrite"), b"old")
    emulator.control.fault("files/delete_v2", "late", count=None)
    with pytest.raises(TransportError):
        client.delete("/file", parent_rev=old.rev, entry_id=old.id)
    calls = emulator.control.calls()["files/delete_v2"]
    emulator.control.write("/file", b"newer")
    emulator.control.release()
    eventually(lambda: [each.route for each in emulator.control.requests()].count("files/delete_v2") >= calls)
    assert emulator.control.read("/file") == b"newer"


def test_removing_a_file_names_its_revision(open_dropbox: Callable[..., DropboxFS], emulator: Emulator) -> None:
    """Or the call, carried out late, would take a newer version."""
    account = open_dropbox(change_feed=False)
    for path in ("/removed", "/replaced"):
        account.writetext(path, path)
    account.writetext("/new", "new")
    revs = [emulator.control.metadata(path)["rev"] for path in ("/removed", "/replaced")]
    account.remove("/removed")
    account.move("/new", "/replaced", overwrite=True)
    assert [each.get("parent_rev") for each in arguments(emulator, "files/delete_v2")] == revs


def test_a_rename_that_fails_brings_back_what_was_there_last(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    account = open_dropbox(change_feed=False, cache_ttl_seconds=3600)
    account.writetext("/file", "known here")
    account.writetext("/new", "new")
    account.listdir("/")
    emulator.control.write("/file", b"by somebody else since")
    emulator.control.delete("/new")
    with pytest.raises(fs.errors.ResourceNotFound):
        account.move("/new", "/file", overwrite=True)
    assert emulator.control.read("/file") == b"by somebody else since"


def test_what_others_put_into_a_folder_while_it_is_moved_goes_along(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder goes in the end, and what it holds would go with it."""
    account = open_dropbox(change_feed=False, cache_ttl_seconds=3600)
    account.makedirs("/from/empty")
    account.makedir("/to")
    account.writetext("/from/file", "ours")
    move = account._parts.client.move

    def move_amid_others(*arguments: Any, **options: Any) -> Any:
        emulator.control.write("/from/late", b"theirs")
        monkeypatch.undo()
        return move(*arguments, **options)

    monkeypatch.setattr(account._parts.client, "move", move_amid_others)
    account.movedir("/from", "/to")
    assert emulator.control.read("/to/late") == b"theirs"
    assert emulator.control.read("/to/file") == b"ours"
    assert not emulator.control.exists("/from")
