"""What looking costs: stats, listings and walks, alone and of many at once."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

import fs.copy
import fs.errors
import fs.mirror
import pytest
from fs.info import Info

from fs_dropbox import DropboxFS
from fs_dropbox.api.retry import RetryPolicy
from fs_dropbox.emulator import Emulator
from fs_dropbox.entries import FileEntry, to_info
from tests.fs_dropbox.counting import DEADLINE_SECONDS, calls


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


def test_a_lookup_that_fails_by_a_listing_names_what_was_asked_for(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.seed("/folder")
    assert not any(account.exists(f"folder/{number}") for number in range(3))
    emulator.control.fault("files/list_folder", "server_error", None, status=404, text="nobody here")
    with pytest.raises(fs.errors.FSError, match="folder/3"):
        account.exists("folder/3")


def test_a_lookup_that_is_held_up_waits_no_longer_than_one_call(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.seed("/folder")
    assert not any(account.exists(f"folder/{number}") for number in range(3))
    emulator.control.fault("files/list_folder", "rate_limit", None, retry_after=0)
    account._parts.client._caller._retry.policy = RetryPolicy(deadline_seconds=1.0, longest_pause_seconds=0.1)
    with pytest.raises(fs.errors.OperationFailed, match=r"folder/3.*rate of requests"):
        account.exists("folder/3")


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


def test_a_cached_listing_is_made_as_it_is_read(
    account: DropboxFS, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each SFTP client may have a thousand directories open, of a hundred thousand files each."""
    for number in range(3):
        emulator.control.seed(f"/folder/{number}", b"1")
    assert len(account.listdir("folder")) == 3
    made: list[str] = []

    def noted(entry: FileEntry, namespaces: Collection[str]) -> Info:
        made.append(entry.name)
        return to_info(entry, namespaces)

    monkeypatch.setattr("fs_dropbox.views.shown.to_info", noted)
    listing = account.cached_listing("folder", ["details"])
    assert listing is not None
    assert made == []
    assert [info.name for info in listing] == made == ["0", "1", "2"]
