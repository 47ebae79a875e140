"""What things cost in calls to Dropbox: round trips are what its users wait for."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import fs.copy
import fs.errors
import fs.mirror
import pytest
from fs.memoryfs import MemoryFS

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator

# Signing in and the change feed are paid once for each filesystem, whatever is done with it.
OVERHEAD = {
    "oauth2/token",
    "users/get_current_account",
    "files/list_folder/get_latest_cursor",
    "files/list_folder/longpoll",
}
DEADLINE_SECONDS = 30.0


@pytest.fixture
def account(open_dropbox: Callable[..., DropboxFS]) -> DropboxFS:
    """The account without the change feed, whose own calls cannot be told from others'."""
    return open_dropbox(change_feed=False, cache_ttl_seconds=3600)


@contextmanager
def calls(emulator: Emulator) -> Iterator[Counter[str]]:
    """Count the calls in a block, without those that are paid once."""
    emulator.control.reset_counts()
    counted: Counter[str] = Counter()
    yield counted
    counted.update({route: count for route, count in emulator.control.calls().items() if route not in OVERHEAD})


def test_opening_costs_one_call(open_dropbox: Callable[..., DropboxFS], emulator: Emulator) -> None:
    emulator.control.reset_counts()
    open_dropbox()
    assert emulator.control.calls() == {"oauth2/token": 1, "users/get_current_account": 1}


def test_a_stat_is_one_call_and_then_none(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.seed("/folder/file", b"1")
    with calls(emulator) as cold:
        assert account.getsize("folder/file") == 1
    assert cold == {"files/get_metadata": 1}
    with calls(emulator) as warm:
        assert account.exists("folder/file")
        assert account.isfile("FOLDER/FILE")
        assert not account.isdir("folder/file")
        account.getinfo("folder/file", ["details", "access", "dropbox"])
        account.getinfo("/")
        account.validatepath("folder/other")
    assert not warm


def test_absence_is_one_call_and_then_none(account: DropboxFS, emulator: Emulator) -> None:
    with calls(emulator) as cold:
        assert not account.exists("missing")
    assert cold == {"files/get_metadata": 1}
    with calls(emulator) as warm:
        assert not account.exists("missing")
        assert not account.exists("missing/below/it")
        with pytest.raises(fs.errors.ResourceNotFound):
            account.openbin("missing")
    assert not warm


def test_a_listing_answers_for_its_children(account: DropboxFS, emulator: Emulator) -> None:
    for name in "abc":
        emulator.control.seed(f"/folder/{name}", b"1")
    emulator.control.seed("/folder/sub")
    with calls(emulator) as listing:
        assert len(account.listdir("folder")) == 4
    assert listing == {"files/list_folder": 1}
    with calls(emulator) as warm:
        assert account.getsize("folder/a") == 1
        assert account.isdir("folder/sub")
        assert not account.exists("folder/missing")
        assert not account.exists("folder/missing/below")
        assert len(list(account.scandir("folder", ["details"]))) == 4
        assert len(list(account.filterdir("folder", files=["*"]))) == 4
    assert not warm


def test_many_lookups_in_one_folder_are_one_listing(account: DropboxFS, emulator: Emulator) -> None:
    for number in range(20):
        emulator.control.seed(f"/folder/{number}", b"1")
    with calls(emulator) as few:
        assert [account.exists(f"folder/{number}") for number in (0, 1, 100)] == [True, True, False]
    assert few == {"files/get_metadata": 3}
    with calls(emulator) as more:
        assert [number for number in range(200) if account.exists(f"folder/{number}")] == list(range(20))
        assert account.getsize("folder/19") == 1
        assert len(account.listdir("folder")) == 20
    assert more == {"files/list_folder": 1}


def test_many_lookups_at_once_are_one_listing(account: DropboxFS, emulator: Emulator) -> None:
    for number in range(50):
        emulator.control.seed(f"/folder/{number}", b"1")
    emulator.control.latency(route_seconds={"files/list_folder": 0.5})
    together = threading.Barrier(40)

    def look(number: int) -> bool:
        together.wait(30)
        return account.exists(f"folder/{number}")

    with calls(emulator) as counted, ThreadPoolExecutor(40) as pool:
        assert list(pool.map(look, range(20, 60))) == [True] * 30 + [False] * 10
    assert counted.pop("files/list_folder") == 1
    assert counted.pop("files/get_metadata") < 20  # that began before the listing did
    assert not counted


def test_a_thousand_files_into_a_folder_that_nobody_has_listed(account: DropboxFS, emulator: Emulator) -> None:
    """What an SFTP client does: it asks for each name before it writes it."""
    emulator.control.seed("/folder/old", b"1")
    with calls(emulator) as counted:
        for number in range(100):
            assert not account.exists(f"folder/{number}")
            account.writebytes(f"folder/{number}", b"1")
            assert account.getsize(f"folder/{number}") == 1
    assert counted.pop("files/upload") == 100
    assert counted == {"files/get_metadata": 4, "files/list_folder": 1}  # of the folder itself as well


def test_lookups_in_a_large_folder_list_little_of_it(
    account: DropboxFS, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fs_dropbox.api.client.PAGE_ENTRIES", 5)
    for number in range(60):
        emulator.control.seed(f"/folder/{number:02}", b"1")
    with calls(emulator) as counted:
        assert not any(account.exists(f"folder/none {number}") for number in range(14))
    # 3 lookups, then a page that does not answer the fourth, then 12 more before the next try
    assert counted == {"files/get_metadata": 14, "files/list_folder": 1}
    with calls(emulator) as known:
        assert account.exists("folder/00")  # the page told of it
    assert not known


def test_without_cache_every_lookup_is_its_own(open_dropbox: Callable[..., DropboxFS], emulator: Emulator) -> None:
    account = open_dropbox(cache=False)
    emulator.control.seed("/folder")
    with calls(emulator) as counted:
        assert not any(account.exists(f"folder/{number}") for number in range(10))
    assert counted == {"files/get_metadata": 10}


def test_lookups_in_a_folder_that_is_not_there(account: DropboxFS, emulator: Emulator) -> None:
    with calls(emulator) as counted:
        assert not any(account.exists(f"folder/{number}") for number in range(10))
    assert sum(counted.values()) <= 11


def test_a_listing_begins_with_its_first_page(
    account: DropboxFS, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fs_dropbox.api.client.PAGE_ENTRIES", 10)
    for number in range(55):
        emulator.control.seed(f"/folder/{number:02}", b"1")
    with calls(emulator) as first:
        listing = account.scandir("folder")
        names = [next(listing).name for _ in range(5)]
    assert first == {"files/list_folder": 1}
    with calls(emulator) as rest:
        names += [info.name for info in listing]
    assert rest == {"files/list_folder/continue": 5}
    assert sorted(names) == [f"{number:02}" for number in range(55)]
    with calls(emulator) as known:
        assert len(account.listdir("folder")) == 55
        assert not account.exists("folder/55")
    assert not known
    with pytest.raises(fs.errors.ResourceNotFound):
        account.scandir("missing")
    with pytest.raises(fs.errors.DirectoryExpected):
        account.scandir("folder/00")


def test_a_listing_that_nobody_reads_to_its_end_is_not_fetched(
    account: DropboxFS, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fs_dropbox.api.client.PAGE_ENTRIES", 10)
    for number in range(55):
        emulator.control.seed(f"/folder/{number:02}", b"1")
    with calls(emulator) as counted:
        listing = account.scandir("folder")
        next(listing)
        del listing
    assert counted == {"files/list_folder": 1}
    assert len(account.listdir("folder")) == 55


@pytest.mark.parametrize("recursive", [False, True], ids=["listing", "walk"])
def test_a_listing_whose_cursor_is_given_up_begins_anew(
    account: DropboxFS, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, recursive: bool
) -> None:
    monkeypatch.setattr("fs_dropbox.api.client.PAGE_ENTRIES", 10)
    for number in range(25):
        emulator.control.seed(f"/folder/{number:02}", b"1")
    emulator.control.fault("files/list_folder/continue", "error", error={".tag": "reset"}, after=1)
    found = list(account.walk.files("folder")) if recursive else account.listdir("folder")
    assert len(found) == len(set(found)) == 25
    assert emulator.control.faults_struck == 1


def test_twenty_threads_share_one_listing(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.seed("/folder/file", b"1")
    emulator.control.latency(delay_seconds=0.3)
    together = threading.Barrier(20)

    def work(_: int) -> list[str]:
        together.wait(DEADLINE_SECONDS)
        return account.listdir("folder")

    with calls(emulator) as shared, ThreadPoolExecutor(20) as pool:
        assert list(pool.map(work, range(20))) == [["file"]] * 20
    assert shared == {"files/list_folder": 1}


def test_a_walk_is_one_recursive_listing(account: DropboxFS, emulator: Emulator) -> None:
    for folder in range(30):
        for name in range(30):
            emulator.control.seed(f"/tree/{folder}/{name}", b"1")
        emulator.control.seed(f"/tree/{folder}/empty")
    with calls(emulator) as walk:
        assert len(list(account.walk.files("tree"))) == 900
    assert sum(walk.values()) <= 3
    with calls(emulator) as warm:
        assert len(list(account.walk.info("tree", namespaces=["details"]))) == 960
        assert account.opendir("tree").glob("**/7").count().files == 30
        assert len(list(account.opendir("tree").walk.dirs())) == 60
        account.opendir("tree").tree(file=io.StringIO())
    assert not warm


def test_a_walk_without_cache_is_one_recursive_listing(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    account = open_dropbox(cache=False)
    for folder in range(30):
        emulator.control.seed(f"/tree/{folder}/file", b"1")
    with calls(emulator) as walk:
        assert len(list(account.walk.files("tree"))) == 30
    assert sum(walk.values()) <= 2


def test_a_glob_in_one_folder_lists_one_folder(account: DropboxFS, emulator: Emulator) -> None:
    for folder in range(10):
        emulator.control.seed(f"/{folder}/file.txt", b"1")
    emulator.control.seed("/file.txt", b"1")
    with calls(emulator) as flat:
        assert [match.path for match in account.glob("*.txt")] == ["/file.txt"]
    assert flat == {"files/list_folder": 1}
    assert not [record for record in emulator.control.requests() if (record.argument or {}).get("recursive")]


def test_a_walk_falls_back_to_single_listings(account: DropboxFS, emulator: Emulator) -> None:
    for folder in range(5):
        emulator.control.seed(f"/tree/{folder}/file", b"1")
    error = {".tag": "path", "path": {".tag": "restricted_content"}}
    emulator.control.fault("files/list_folder", "error", error=error)
    assert len(list(account.walk.files("tree"))) == 5
    assert emulator.control.faults_struck == 1


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


def test_usage_is_remembered_for_a_while(account: DropboxFS, emulator: Emulator) -> None:
    with calls(emulator) as usage:
        account.getmeta("usage")
        account.getmeta("usage")
        account.getmeta()
    assert usage == {"users/get_space_usage": 1}


def test_cached_info_never_asks(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.seed("/file", b"1")
    with calls(emulator) as counted:
        assert account.cached_info("file") is None
        assert account.cached_info("/", ["details"]) is not None
    assert not counted
    account.listdir("/")
    info = account.cached_info("file", ["details"])
    assert info is not None
    assert info.size == 1
    with pytest.raises(fs.errors.ResourceNotFound):
        account.cached_info("missing")


def test_a_cached_listing_never_asks(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.seed("/folder/file", b"1")
    with calls(emulator) as counted:
        for path in ("/", "folder", "missing"):
            assert account.cached_listing(path, ["details"]) is None
    assert not counted
    assert account.listdir("/") == ["folder"]
    assert account.listdir("folder") == ["file"]
    with calls(emulator) as counted:
        assert [(info.name, info.size) for info in account.cached_listing("folder", ["details"]) or ()] == [("file", 1)]
        assert [info.is_dir for info in account.cached_listing("/") or ()] == [True]
        assert account.cached_listing("missing") is None
    assert not counted
