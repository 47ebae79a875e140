"""Fetching small files ahead of whoever reads a folder in order."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from fs_dropbox.entries import FileEntry, FolderEntry
from fs_dropbox.files.siblings import (
    IDLE_SECONDS,
    LATE_FILES,
    LEFT_SECONDS,
    RUN_BYTES,
    RUN_FILES,
    RUNS,
    SMALL_BYTES,
    TOTAL_BYTES,
    Siblings,
)
from tests.waiting import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def file(name: str, size: int = 10, *, folder: str = "/f", rev: str = "") -> FileEntry:
    path = f"{folder}/{name}"
    return FileEntry(name, path, path, f"id:{path}", rev or f"rev{path}", size, NOW, NOW)


class Folder:
    """A folder and its reader; fetches are remembered and carried out when told to."""

    def __init__(self, entries: Sequence[FileEntry | FolderEntry], path: str = "/f") -> None:
        self.entries = entries
        self.path = path
        self.fetched: list[str] = []
        self.waiting: list[tuple[Future[bytes], Callable[[], bytes]]] = []
        self.now = 0.0
        self.siblings = Siblings(self.fetch, self.submit, now=lambda: self.now)

    def fetch(self, entry: FileEntry) -> bytes:
        self.fetched.append(entry.name)
        return entry.name.encode()

    def submit(self, work: Callable[[], bytes]) -> Future[bytes]:
        future: Future[bytes] = Future()
        self.waiting.append((future, work))
        return future

    def work(self) -> None:
        waiting, self.waiting = self.waiting, []
        for future, work in waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(work())

    def read(self, entry: FileEntry) -> bytes | None:
        """Read as a file object does: note the opening, let fetches be made, take what was fetched ahead."""
        self.siblings.opened(entry, self.path, lambda: self.entries)
        self.work()
        return self.siblings.take(entry, self.path)


def files(count: int, size: int = 10) -> list[FileEntry]:
    return [file(f"{number:04}", size) for number in range(count)]


def test_what_is_numbered_without_zeros_is_fetched_in_the_order_of_its_numbers_and_nothing_twice() -> None:
    """As dask, zarr and cameras name files."""
    entries = [file(f"part.{number}.parquet") for number in range(300)]
    folder = Folder(sorted(entries, key=lambda each: each.name))
    answers = [folder.read(entry) for entry in entries]
    assert answers[2:] == [entry.name.encode() for entry in entries[2:]]
    assert folder.fetched == [entry.name for entry in entries[2:]]


@pytest.mark.parametrize("order", ["listed", "by name"])
def test_files_read_in_order_are_fetched_ahead(order: str) -> None:
    entries = files(300)
    listed = list(entries)
    if order == "by name":
        random.Random(1).shuffle(listed)
    folder = Folder([FolderEntry("sub", "/f/sub", "/f/sub", "id:x"), *listed, file("huge", SMALL_BYTES + 1)])
    answers = [folder.read(entry) for entry in entries]
    assert answers[:2] == [None, None]
    assert answers[2:] == [entry.name.encode() for entry in entries[2:]]
    assert sorted(folder.fetched) == [entry.name for entry in entries[2:]]


def test_files_read_at_random_fetch_nothing_ahead() -> None:
    entries = files(1000)
    folder = Folder(entries)
    chance = random.Random(2)
    for _ in range(100):
        folder.read(entries[chance.randrange(0, 1000, 10)])
    assert not folder.fetched


def test_threads_that_share_a_folder_are_in_order_enough() -> None:
    entries = files(100)
    folder = Folder(entries)
    for start in range(0, 100, 4):
        for entry in random.Random(start).sample(entries[start : start + 4], 4):
            folder.read(entry)
    assert len(folder.fetched) > 90
    assert len(folder.fetched) == len(set(folder.fetched))


def test_threads_that_are_far_apart_have_nothing_fetched_twice() -> None:
    entries = files(600)
    folder = Folder(entries)
    for entry in entries[:20]:
        folder.read(entry)
    for start in range(20, 580, 40):  # the last of forty is opened first
        for entry in reversed(entries[start : start + 40]):
            folder.siblings.opened(entry, folder.path, lambda: entries)
        folder.work()
        assert all(folder.siblings.take(entry, folder.path) for entry in entries[start : start + 40])
    assert len(folder.fetched) == len(set(folder.fetched))


@pytest.mark.parametrize("seed", range(8))
def test_threads_that_begin_together_have_nothing_fetched_twice(seed: int) -> None:
    """Forty of them take files in order, and each comes a little later than others to open the one that it has."""
    chance, entries = random.Random(seed), files(400)
    folder = Folder(entries)
    late = {entry: number + chance.uniform(0, 30) for number, entry in enumerate(entries)}
    left = sorted(entries, key=lambda entry: late[entry])
    being_read: list[FileEntry] = []
    fetched_by_readers = 0
    while left or being_read:
        while left and len(being_read) < 40:
            being_read.append(left.pop(0))
            folder.siblings.opened(being_read[-1], folder.path, lambda: entries)
        if chance.random() < 0.3:
            folder.work()
        entry = being_read.pop(chance.randrange(min(8, len(being_read))))
        fetched_by_readers += folder.siblings.take(entry, folder.path) is None
    assert len(folder.fetched) + fetched_by_readers == 400


def test_what_was_passed_over_makes_room() -> None:
    entries = files(600)
    folder = Folder(entries)
    for entry in entries[::3]:  # in order enough, but two of three are not wanted
        folder.read(entry)
    assert sum(folder.siblings.take(entry, folder.path) is not None for entry in entries) <= LATE_FILES + RUN_FILES


def test_a_folder_that_gives_way_while_it_is_looked_at_holds_nothing() -> None:
    """What is fetched ahead for nobody would count for ever, until there is no room for what is."""
    entries = files(10)
    folder = Folder(entries)
    folder.read(entries[0])

    def listing() -> Sequence[FileEntry]:
        for number in range(RUNS):
            folder.siblings.opened(file("other", folder=f"/{number}"), f"/{number}", lambda: None)
        return entries

    folder.siblings.opened(entries[1], "/f", listing)
    assert not folder.waiting


def test_what_is_wasted_is_bounded() -> None:
    folder = Folder(files(500))
    for entry in folder.entries[:100]:
        assert isinstance(entry, FileEntry)
        folder.read(entry)
    assert len(folder.fetched) <= 100 + RUN_FILES
    large = Folder(files(500, 900_000))
    for entry in large.entries[:20]:
        assert isinstance(entry, FileEntry)
        large.read(entry)
    assert len(large.fetched) <= 20 + RUN_BYTES // 900_000
    held = sum(each.entry.size for run in large.siblings._runs.values() for each in run.held.values())
    assert 0 < held <= RUN_BYTES


def test_folders_that_are_read_at_the_same_time_do_not_disturb_each_other() -> None:
    entries = {f"/{path}": [file(f"{number}", folder=f"/{path}") for number in range(50)] for path in range(16)}
    folder = Folder([])
    answers = []
    for number in range(50):
        for path, listed in entries.items():
            folder.siblings.opened(listed[number], path, lambda listed=listed: listed)  # type: ignore[misc]
            folder.work()
            answers.append(folder.siblings.take(listed[number], path))
    assert sum(answer is not None for answer in answers) == 16 * 48
    assert len(folder.fetched) == 16 * 48


def test_all_folders_together_are_bounded_and_those_that_were_left_make_room() -> None:
    folder = Folder([])

    def read(path: int) -> int:
        listed = [file(f"{number}", 900_000, folder=f"/{path}") for number in range(100)]
        for entry in listed[:10]:
            folder.siblings.opened(entry, f"/{path}", lambda: listed)
            folder.siblings.take(entry, f"/{path}")
        return len(folder.siblings._runs[f"/{path}"].held)

    held = [read(path) for path in range(10)]
    total = sum(each.entry.size for run in folder.siblings._runs.values() for each in run.held.values())
    assert 0.8 * TOTAL_BYTES < total <= TOTAL_BYTES
    assert held[0] > 0
    assert held[-1] == 0
    folder.now += LEFT_SECONDS + 1
    assert read(11) == held[0]


def test_only_a_few_folders_are_watched_and_only_for_a_while() -> None:
    entries = files(100)
    folder = Folder(entries)
    for path in range(RUNS + 3):
        for entry in entries[:5]:
            folder.siblings.opened(entry, f"/{path}", lambda: entries)
    assert len(folder.siblings._runs) == RUNS
    folder.now += IDLE_SECONDS + 1
    folder.siblings.opened(entries[0], "/other", lambda: entries)
    assert list(folder.siblings._runs) == ["/other"]


def test_a_new_version_is_not_answered_with_the_old_one() -> None:
    entries = files(10)
    folder = Folder(entries)
    for entry in entries[:5]:
        folder.read(entry)
    assert folder.siblings.take(file(entries[5].name, rev="another"), "/f") is None


def test_what_has_not_begun_is_not_waited_for() -> None:
    entries = files(10)
    folder = Folder(entries)
    for entry in entries[:3]:
        folder.siblings.opened(entry, "/f", lambda: entries)
    assert folder.waiting
    assert folder.siblings.take(entries[3], "/f") is None
    folder.work()
    assert entries[3].name not in folder.fetched


def test_a_fetch_that_fails_is_as_if_it_had_not_been() -> None:
    entries = files(10)
    folder = Folder(entries)

    def fail(entry: FileEntry) -> bytes:
        raise OSError("broken")

    with ThreadPoolExecutor(1) as pool:
        siblings = Siblings(fail, pool.submit)
        for entry in entries[:3]:
            siblings.opened(entry, "/f", lambda: entries)
        assert siblings.take(entries[3], "/f") is None
    siblings.opened(entries[4], "/f", lambda: entries)
    siblings.opened(entries[5], "/f", lambda: entries)
    siblings.close()
    siblings.close()
    assert not folder.fetched


def test_a_fetch_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fs_dropbox.files.siblings.WAIT_SECONDS", 0.05)
    entries = files(10)
    folder = Folder(entries)
    for entry in entries[:3]:
        folder.siblings.opened(entry, "/f", lambda: entries)
    for future, _ in folder.waiting:
        assert future.set_running_or_notify_cancel()
    assert folder.siblings.take(entries[3], "/f") is None


def test_a_folder_whose_listing_is_not_known_is_left_alone() -> None:
    folder = Folder(files(10))
    for entry in files(5):
        folder.siblings.opened(entry, "/f", lambda: None)
    assert not folder.waiting


def test_a_folder_is_read_many_times_faster(open_dropbox: Callable[..., DropboxFS], emulator: Emulator) -> None:
    """Through the filesystem: each file's content once, and right, most of them at the same time as others."""
    contents = {f"{number:03}": bytes([number]) * (1000 + number) for number in range(120)}
    for name, content in contents.items():
        emulator.control.write(f"/folder/{name}", content)
    emulator.control.write("/folder/empty", b"")
    account = open_dropbox()
    names = account.listdir("folder")
    eventually(lambda: account.feed_is_live)
    names = account.listdir("folder")
    emulator.control.latency(route_seconds={"files/download": 0.1})
    emulator.control.reset_counts()
    assert {name: account.readbytes(f"folder/{name}") for name in names} == {**contents, "empty": b""}
    assert emulator.control.calls()["files/download"] == 120
    assert emulator.control.peak_concurrency("files/download") >= 8
