"""What changing and transferring costs: calls, counted, with those of opening."""

from __future__ import annotations

import time
from collections.abc import Callable

import fs.copy
import fs.errors
import fs.mirror
import pytest
from fs.memoryfs import MemoryFS

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from tests.fs_dropbox.counting import calls


def test_opening_costs_one_call(open_dropbox: Callable[..., DropboxFS], emulator: Emulator) -> None:
    emulator.control.reset_counts()
    open_dropbox()
    assert emulator.control.calls() == {"oauth2/token": 1, "users/get_current_account": 1}


def test_trees_are_changed_in_one_call(account: DropboxFS, emulator: Emulator) -> None:
    for folder in range(5):
        for name in range(20):
            emulator.control.seed(f"/tree/{folder}/{name}", b"1")
    looks = {"files/get_metadata", "files/list_folder"}
    for change, route in (
        (lambda: account.copydir("tree", "copy", create=True), "files/copy_v2"),
        (lambda: account.movedir("tree", "moved", create=True), "files/move_v2"),
        (lambda: account.move("moved/0/0", "moved/0/renamed"), "files/move_v2"),
        (lambda: account.copy("moved/0/1", "moved/0/copied"), "files/copy_v2"),
        (lambda: account.removetree("copy"), "files/delete_v2"),
        (lambda: account.remove("moved/0/renamed"), "files/delete_v2"),
        (lambda: account.makedirs("one/two/three/four"), "files/create_folder_v2"),
    ):
        with calls(emulator) as counted:
            change()
        assert counted[route] == 1
        assert sum(counted.values()) <= 4
        assert set(counted) <= looks | {route}


def test_trees_that_are_too_large_are_split(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.options(max_subtree_entries=15)
    for folder in range(4):
        for name in range(5):
            emulator.control.seed(f"/tree/{folder}/{name}", b"1")
        emulator.control.seed(f"/tree/{folder}/deep/empty")
    before = emulator.control.tree("/tree")
    account.copydir("tree", "copy", create=True)
    assert {path.removeprefix("/copy"): size for path, size in emulator.control.tree("/copy").items()} == {
        path.removeprefix("/tree"): size for path, size in before.items()
    }
    account.movedir("copy", "moved", create=True)
    assert {path.removeprefix("/moved"): size for path, size in emulator.control.tree("/moved").items()} == {
        path.removeprefix("/tree"): size for path, size in before.items()
    }
    assert not emulator.control.exists("/copy")
    account.removetree("tree")
    account.removetree("moved")
    assert emulator.control.tree() == {}
    assert account.listdir("/") == []


def test_a_split_costs_few_calls(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.options(max_subtree_entries=15)
    for name in range(30):
        emulator.control.seed(f"/flat/{name}", b"1")
    with calls(emulator) as copied:
        account.copydir("flat", "copy", create=True)
    assert copied["files/copy_v2"] == copied["files/copy_batch_v2"] == 1
    assert sum(copied.values()) <= 8
    with calls(emulator) as removed:
        account.removetree("copy")
    assert removed["files/delete_v2"] == 2  # which is too large, and which is empty
    assert removed["files/delete_batch"] == 1
    assert sum(removed.values()) <= 6


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_split_that_was_broken_off_goes_on_when_it_is_repeated(
    account: DropboxFS, emulator: Emulator, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost, nothing is there twice, and what others have added meanwhile comes along."""
    monkeypatch.setattr("fs_dropbox.filesystem.serverside.LEAST_CHILDREN", 100)  # one by one, as where there are few
    emulator.control.options(max_subtree_entries=5)
    for folder in range(3):
        for name in range(4):
            emulator.control.seed(f"/tree/{folder}/{name}", f"{folder}{name}".encode())
    emulator.control.seed("/tree/file", b"1")
    before = {path.removeprefix("/tree"): size for path, size in emulator.control.tree("/tree").items()}
    emulator.control.fault("files/move_v2", "error", error={".tag": "insufficient_quota"}, after=after)
    with pytest.raises(fs.errors.InsufficientStorage):
        account.movedir("tree", "moved", create=True)
    half = [*emulator.control.tree("/tree"), *emulator.control.tree("/moved")]
    assert len([path for path in half if path.endswith(("/0/1", "/2/3", "/file"))]) == 3
    emulator.control.seed("/tree/theirs", b"2")
    account.movedir("tree", "moved", create=True)
    moved = {path.removeprefix("/moved"): size for path, size in emulator.control.tree("/moved").items()}
    assert moved == {**before, "/theirs": 1}
    assert not emulator.control.exists("/tree")
    assert sorted(account.listdir("moved")) == ["0", "1", "2", "file", "theirs"]


@pytest.mark.parametrize("copy", [fs.copy.copy_fs, fs.mirror.mirror], ids=["copy_fs", "mirror"])
def test_copies_by_many_workers_share_their_calls(
    account: DropboxFS, emulator: Emulator, copy: Callable[..., None]
) -> None:
    """PyFilesystem's own functions for whole filesystems: their worker threads commit together."""
    source = MemoryFS()
    source.makedirs("one/two")
    for number in range(80):
        source.writetext(f"one/two/{number}", f"{number}")
    target = account.makedir("target")
    emulator.control.latency(route_seconds={"files/upload_session/finish_batch_v2": 0.05})
    with calls(emulator) as counted:
        copy(source, target, workers=16)
    assert sum(counted.values()) <= 40  # 80 one by one
    assert counted["files/get_metadata"] + counted["files/list_folder"] <= 2
    assert {path: account.readtext(f"target{path}") for path in source.walk.files()} == {
        path: source.readtext(path) for path in source.walk.files()
    }


def test_small_files_are_one_call(account: DropboxFS, emulator: Emulator) -> None:
    account.listdir("/")
    with calls(emulator) as write:
        account.writebytes("file", b"1" * 100_000)
    assert write == {"files/upload": 1}
    with calls(emulator) as read:
        assert len(account.readbytes("file")) == 100_000
    assert read == {"files/download": 1}
    with calls(emulator) as stat:
        assert account.getsize("file") == 100_000
    assert not stat


def test_large_files_go_through_a_session(account: DropboxFS, emulator: Emulator) -> None:
    account.listdir("/")
    with calls(emulator) as write:
        account.writebytes("file", bytes(50_000_000))
    assert write["files/upload_session/start"] == 1
    assert write["files/upload_session/append_v2"] in (6, 7)  # what is whole of the last part may go beside the others
    assert write["files/upload_session/finish"] == 1
    with calls(emulator) as read, account.openbin("file") as file:
        while file.read(65536):
            pass
    assert set(read) == {"files/download"}
    assert read["files/download"] <= 25
    assert emulator.control.bytes_out()["files/download"] == 50_000_000


def test_random_reads_fetch_little(account: DropboxFS, emulator: Emulator) -> None:
    account.writebytes("file", bytes(20_000_000))
    emulator.control.reset_counts()
    with account.openbin("file") as file:
        for place in range(1, 20):
            file.seek(20_000_000 - place * 1_000_000)
            assert len(file.read(4096)) == 4096
    assert emulator.control.bytes_out()["files/download"] < 19 * 2 * 256 * 1024


def test_a_hash_that_dropbox_knows_costs_no_download(account: DropboxFS, emulator: Emulator) -> None:
    account.writebytes("file", b"1")
    with calls(emulator) as known:
        account.hash("file", "content_hash")
        account.hasurl("file")
    assert not known


def test_usage_is_remembered_for_a_minute(
    account: DropboxFS, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, elapsed = time.monotonic(), 0.0
    monkeypatch.setattr(time, "monotonic", lambda: begun + elapsed)
    before = dict(account.getmeta("usage"))
    account.writebytes("file", b"123")
    with calls(emulator) as usage:
        elapsed = 59.0
        assert account.getmeta("usage") == before
        account.getmeta()
    assert usage == {}
    elapsed = 61.0
    assert account.getmeta("usage") == before | {"used": 3}
