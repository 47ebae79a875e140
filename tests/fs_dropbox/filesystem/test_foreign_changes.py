"""What others change: seen within seconds while the feed is live, within the TTL otherwise.

The filesystem under test changes nothing of what it watches here; the emulator's control does.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from fs_dropbox.emulator.model.errors import CallError
from fs_dropbox.entries import DeletedEntry, Entry
from tests.fs_dropbox.accounts import live
from tests.waiting import eventually

DEADLINE_SECONDS = 20.0


@pytest.fixture
def account(dropbox_fs: DropboxFS) -> DropboxFS:
    return live(dropbox_fs)


def test_foreign_changes_are_seen_within_seconds(account: DropboxFS, emulator: Emulator) -> None:
    assert account.listdir("/") == []
    assert not account.exists("folder/file")
    emulator.control.write("/folder/file", b"one")
    eventually(lambda: account.listdir("/") == ["folder"])
    assert account.readbytes("folder/file") == b"one"
    assert account.getsize("folder/file") == 3
    emulator.control.write("/folder/file", b"three")
    eventually(lambda: account.getsize("folder/file") == 5)
    assert account.readbytes("folder/file") == b"three"
    emulator.control.move("/folder", "/elsewhere")
    eventually(lambda: account.listdir("/") == ["elsewhere"])
    assert not account.exists("folder/file")
    assert account.readbytes("elsewhere/file") == b"three"
    emulator.control.delete("/elsewhere")
    eventually(lambda: account.listdir("/") == [])
    assert not account.exists("elsewhere/file")


def test_a_warm_cache_costs_no_calls_while_the_feed_is_live(account: DropboxFS, emulator: Emulator) -> None:
    def looks() -> list[int]:
        return [emulator.control.calls()[route] for route in ("files/list_folder", "files/get_metadata")]

    def costs_nothing() -> bool:
        before = looks()
        for _ in range(100):
            assert account.listdir("/") == ["file"]
            assert account.getsize("file") == 1
        return looks() == before

    emulator.control.seed("/file", b"1")
    eventually(lambda: account.listdir("/") == ["file"])
    eventually(costs_nothing)
    assert costs_nothing()


def test_a_change_of_case_alone_is_shown_once_a_listing_is_asked_for_again(
    account: DropboxFS, emulator: Emulator
) -> None:
    emulator.control.options(case_only_move="rename", report_case_changes=False)
    emulator.control.write("/file", b"1")
    eventually(lambda: account.listdir("/") == ["file"])
    emulator.control.move("/file", "/FILE")
    assert account.readbytes("file") == account.readbytes("FILE") == b"1"
    account.forget("/")
    assert account.listdir("/") == ["FILE"]


def test_a_file_that_becomes_a_folder_and_the_reverse(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.seed("/thing/below", b"1")
    eventually(lambda: account.isdir("thing"))
    assert account.listdir("thing") == ["below"]
    emulator.control.delete("/thing")
    emulator.control.write("/thing", b"22")
    eventually(lambda: account.isfile("thing"))
    assert not account.exists("thing/below")
    emulator.control.delete("/thing")
    emulator.control.seed("/thing")
    eventually(lambda: account.isdir("thing"))
    assert account.listdir("thing") == []


def test_without_the_feed_the_ttl_bounds_staleness(open_dropbox: Callable[..., DropboxFS], emulator: Emulator) -> None:
    account = open_dropbox(change_feed=False, cache_ttl_seconds=0.5)
    assert account.listdir("/") == []
    emulator.control.write("/file", b"one")
    eventually(lambda: account.listdir("/") == ["file"])
    slow = open_dropbox(change_feed=False, cache_ttl_seconds=3600)
    assert slow.listdir("/") == ["file"]
    emulator.control.delete("/file")
    eventually(lambda: account.listdir("/") == [])
    assert slow.listdir("/") == ["file"]


def test_without_a_cache_foreign_changes_are_seen_at_once(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    account = open_dropbox(cache=False)
    assert account.listdir("/") == []
    emulator.control.write("/file", b"one")
    assert account.listdir("/") == ["file"]
    assert account.getsize("file") == 3
    emulator.control.delete("/file")
    assert not account.exists("file")


def test_subscribers_hear_of_changes_in_order(account: DropboxFS, emulator: Emulator) -> None:
    heard: list[Entry] = []
    changed = threading.Condition()

    def listen(entries: Sequence[Entry]) -> None:
        with changed:
            heard.extend(entries)
            changed.notify_all()

    def wait_for(text: str) -> None:
        with changed:
            assert changed.wait_for(
                lambda: any(text == f"{type(entry).__name__} {entry.path_lower}" for entry in heard), DEADLINE_SECONDS
            ), heard

    unsubscribe = account.subscribe(listen)
    emulator.control.write("/a", b"1")
    wait_for("FileEntry /a")
    emulator.control.seed("/folder")
    wait_for("FolderEntry /folder")
    emulator.control.delete("/a")
    wait_for("DeletedEntry /a")
    assert isinstance(heard[-1], DeletedEntry)
    unsubscribe()
    unsubscribe()
    count = len(heard)
    emulator.control.write("/b", b"1")
    eventually(lambda: account.exists("b"))
    assert len(heard) == count


def test_a_subscriber_that_fails_harms_nobody(
    account: DropboxFS, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(entries: Sequence[Entry]) -> None:
        raise RuntimeError("broken subscriber")

    account.subscribe(fail)
    emulator.control.write("/a", b"1")
    eventually(lambda: account.exists("a"))
    emulator.control.delete("/a")
    eventually(lambda: not account.exists("a"))
    eventually(lambda: "a subscriber of the change feed failed" in caplog.text)  # it is told after the cache


def test_two_filesystems_see_each_other(open_dropbox: Callable[..., DropboxFS]) -> None:
    one, two = live(open_dropbox()), live(open_dropbox())
    assert one.listdir("/") == two.listdir("/") == []
    one.writetext("from one", "1")
    eventually(lambda: two.listdir("/") == ["from one"])
    two.move("from one", "from two")
    eventually(lambda: one.listdir("/") == ["from two"])
    assert one.readtext("from two") == "1"


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_cache_and_account_agree_in_the_end(
    account: DropboxFS, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Own and foreign changes at random, at once; nothing stale may stay in the cache while the feed is live."""
    monkeypatch.setattr("fs_dropbox.metadata.changes.REST_SECONDS", 0.02)
    emulator.control.options(delete_lists_children=bool(seed % 2))
    names = [f"/{folder}/{name}" for folder in "abc" for name in "xyz"] + ["/a", "/b", "/a/x/deep", "/b/x/deep"]
    control = emulator.control

    def change(seed: int, operations: Callable[[str, str, bytes], list[Callable[[], object]]]) -> None:
        chance = random.Random(seed)
        for _ in range(100):
            path, other = chance.sample(names, 2)
            try:
                chance.choice(operations(path, other, b"x" * chance.randrange(9)))()
            except (fs.errors.FSError, CallError):
                pass  # not possible as things are

    def foreign(path: str, other: str, data: bytes) -> list[Callable[[], object]]:
        return [
            partial(control.write, path, data),
            partial(control.seed, path),
            partial(control.delete, path),
            partial(control.move, path, other),
            partial(time.sleep, 0.01),
        ]

    def own(path: str, other: str, data: bytes) -> list[Callable[[], object]]:
        return [
            partial(account.writebytes, path, data),
            partial(account.appendbytes, path, data),
            partial(account.makedirs, path, recreate=True),
            partial(account.remove, path),
            partial(account.removetree, path),
            partial(account.move, path, other, overwrite=True),
            partial(account.copy, path, other, overwrite=True),
            partial(account.movedir, path, other, create=True),
            partial(account.copydir, path, other, create=True),
            partial(account.listdir, path),
            partial(account.getsize, path),
            partial(_as_seen, account),
        ]

    with ThreadPoolExecutor(3) as pool:
        works = [pool.submit(change, seed + turn, kind) for turn, kind in ((0, foreign), (10, own), (20, own))]
        for work in works:
            work.result(4 * DEADLINE_SECONDS)

    def agree() -> bool:
        try:
            return _as_seen(account) == control.tree()
        except fs.errors.FSError:  # the feed told of a change between two looks
            return False

    eventually(agree)
    assert [account.exists(name) for name in names] == [control.exists(name) for name in names]


def _as_seen(account: DropboxFS, folder: str = "/") -> dict[str, int | None]:
    """Return everything below a folder, looked at folder by folder."""
    found: dict[str, int | None] = {}
    for info in account.scandir(folder, ["details"]):
        path = f"{folder.rstrip('/')}/{info.name}"
        found[path] = None if info.is_dir else info.size
        if info.is_dir:
            found |= _as_seen(account, path)
    return found
