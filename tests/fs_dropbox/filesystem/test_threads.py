"""One filesystem, many threads: nothing is lost, nothing is shown that never was, nobody waits for others' calls."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from tests.fs_dropbox.accounts import open_account
from tests.waiting import eventually

DEADLINE_SECONDS = 60.0  # not for one call, but for much work of many threads


def in_threads(*works: Callable[[], Any]) -> list[Any]:
    """Run works at the same time and return what they return."""
    with ThreadPoolExecutor(len(works)) as pool:
        return [work.result(DEADLINE_SECONDS) for work in [pool.submit(work) for work in works]]


def test_writers_of_different_files(dropbox_fs: DropboxFS, emulator: Emulator) -> None:
    def write(number: int) -> None:
        for turn in range(10):
            dropbox_fs.writetext(f"{number}-{turn}", f"{number} {turn}")

    in_threads(*(lambda number=number: write(number) for number in range(12)))
    assert sorted(dropbox_fs.listdir("/")) == sorted(f"{number}-{turn}" for number in range(12) for turn in range(10))
    assert len(emulator.control.tree()) == 120
    assert all(dropbox_fs.readtext(name) == name.replace("-", " ") for name in dropbox_fs.listdir("/"))


def test_writers_of_one_file_leave_one_of_their_contents(dropbox_fs: DropboxFS, emulator: Emulator) -> None:
    contents = [bytes([number]) * 300_000 for number in range(8)]
    in_threads(*(lambda data=data: dropbox_fs.writebytes("file", data) for data in contents))
    assert dropbox_fs.readbytes("file") in contents
    assert dropbox_fs.readbytes("file") == emulator.control.read("/file")


def test_exclusive_creators_of_one_file(dropbox_fs: DropboxFS) -> None:
    together = threading.Barrier(8)

    def create() -> bool:
        together.wait(DEADLINE_SECONDS)
        return dropbox_fs.create("file")

    assert in_threads(*[create] * 8).count(True) == 1


def test_makers_of_one_folder(dropbox_fs: DropboxFS, emulator: Emulator) -> None:
    together = threading.Barrier(8)

    def make(recreate: bool) -> bool:
        together.wait(DEADLINE_SECONDS)
        try:
            dropbox_fs.makedir("folder", recreate=recreate)
        except fs.errors.DirectoryExists:
            return False
        return True

    assert in_threads(*[lambda: make(False)] * 8).count(True) == 1
    assert all(in_threads(*[lambda: make(True)] * 8))
    dropbox_fs.removedir("folder")
    assert all(in_threads(*[lambda: make(True)] * 8))
    assert emulator.control.tree() == {"/folder": None}


def test_one_file_object_in_many_threads(dropbox_fs: DropboxFS) -> None:
    data = random.Random(1).randbytes(12_000_000)
    dropbox_fs.writebytes("file", data)
    reader: Any = dropbox_fs.openbin("file")

    def read(seed: int) -> bool:
        chance = random.Random(seed)
        places = [chance.randrange(len(data)) for _ in range(100)]
        return all(reader.pread(place, 5000) == data[place : place + 5000] for place in places)

    with reader:
        assert all(in_threads(*(lambda seed=seed: read(seed) for seed in range(6))))
        reader.seek(0)
        pieces = in_threads(*[lambda: [reader.read(10_000) for _ in range(200)]] * 6)
    assert sorted(piece for each in pieces for piece in each) == sorted(
        data[start : start + 10_000] for start in range(0, len(data), 10_000)
    )


def test_a_rename_over_a_file_never_shows_absence(
    dropbox_fs: DropboxFS, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The editor's way of saving: write beside, rename over. Readers of the same filesystem always find something."""
    monkeypatch.setattr("fs_dropbox.metadata.changes.REST_SECONDS", 0.01)  # the feed tells of what is in between
    dropbox_fs.writetext("file", "0")
    dropbox_fs.exists("file")
    eventually(lambda: dropbox_fs.feed_is_live)
    emulator.control.latency(delay_seconds=0.02, route_seconds={"files/move_v2": 0.4})
    dropbox_fs.listdir("/")
    done = threading.Event()
    absences = []

    def look() -> int:
        looks = 0
        while not done.is_set():
            looks += 1
            if not dropbox_fs.exists("file") or "file" not in map(str.lower, dropbox_fs.listdir("/")):
                absences.append(looks)
            time.sleep(0.001)
        return looks

    def save() -> None:
        try:
            for turn in range(1, 7):
                dropbox_fs.writetext("beside", str(turn))
                dropbox_fs.move("beside", "file", overwrite=True)
            dropbox_fs.move("file", "FILE")
        finally:
            done.set()

    looks, _ = in_threads(look, save)
    assert isinstance(looks, int)
    assert looks > 10
    assert not absences
    assert dropbox_fs.readtext("file") == "6"
    assert dropbox_fs.listdir("/") == ["FILE"]


def test_a_slow_call_delays_no_other(dropbox_fs: DropboxFS, emulator: Emulator) -> None:
    dropbox_fs.writetext("known", "1")
    emulator.control.seed("/slow")
    dropbox_fs.listdir("/")
    emulator.control.fault("files/get_metadata", "stall", None, path="/slow")
    emulator.control.fault("files/upload", "stall", 1, path="/known")
    with ThreadPoolExecutor(3) as pool:
        slow: list[Future[Any]] = [
            pool.submit(dropbox_fs.exists, "slow/thing"),
            pool.submit(dropbox_fs.appendtext, "known", "2"),
        ]
        eventually(lambda: emulator.control.faults_struck == 2)
        started = time.monotonic()
        assert dropbox_fs.getsize("known") == 1
        assert dropbox_fs.readtext("known") == "1"
        assert "known" in dropbox_fs.listdir("/")
        dropbox_fs.makedir("folder")
        dropbox_fs.writetext("new", "1")
        assert time.monotonic() - started < 20.0  # a call is given up after a minute
        emulator.control.clear_faults()
        for call in slow:
            call.result(DEADLINE_SECONDS)
    assert dropbox_fs.readtext("known") == "12"


def test_random_operations_leave_cache_and_account_the_same(dropbox_fs: DropboxFS, emulator: Emulator) -> None:
    names = [f"{folder}/{name}" for folder in ("a", "b/c", "d") for name in "xyz"]
    for folder in ("a", "b/c", "d"):
        dropbox_fs.makedirs(folder)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            one, other = chance.sample(names, 2)
            overwrite = chance.random() < 0.5
            operations: list[Callable[[], object]] = [
                partial(dropbox_fs.writetext, one, str(chance.random())),
                partial(dropbox_fs.appendtext, one, "more"),
                partial(dropbox_fs.remove, one),
                partial(dropbox_fs.move, one, other, overwrite=overwrite),
                partial(dropbox_fs.copy, one, other, overwrite=overwrite),
                partial(dropbox_fs.readtext, one),
                partial(dropbox_fs.listdir, one.rpartition("/")[0]),
                partial(dropbox_fs.getinfo, one, ["details"]),
            ]
            try:
                chance.choice(operations)()
            except (fs.errors.ResourceError, fs.errors.OperationFailed):
                pass  # somebody else was faster

    in_threads(*(lambda seed=seed: work(seed) for seed in range(6)))
    assert _as_seen(dropbox_fs) == emulator.control.tree()


def _as_seen(dropbox_fs: DropboxFS) -> dict[str, int | None]:
    return {
        path: None if info.is_dir else info.size for path, info in dropbox_fs.walk.info("/", namespaces=["details"])
    }


@pytest.mark.parametrize("closers", [1, 4])
def test_closing_while_others_work(open_dropbox: Callable[..., DropboxFS], emulator: Emulator, closers: int) -> None:
    emulator.control.seed("/file", bytes(1_000_000))
    account = open_dropbox()
    started = threading.Barrier(4 + closers)

    def work() -> bool:
        started.wait(DEADLINE_SECONDS)
        try:
            while True:
                account.readbytes("file")
                account.writetext("other", str(random.random()))
        except (fs.errors.FSError, ValueError):
            return True

    def close() -> float:
        started.wait(DEADLINE_SECONDS)
        time.sleep(0.2)
        before = time.monotonic()
        account.close()
        return time.monotonic() - before

    results = in_threads(*[work] * 4, *[close] * closers)
    assert results[:4] == [True] * 4
    assert max(results[4:]) < 20.0


def test_a_file_may_be_forgotten_in_the_middle_of_anything(dropbox_fs: DropboxFS, emulator: Emulator) -> None:
    """The garbage collector runs finalizers in any thread: in one, too, that has the lock they want."""
    emulator.control.write("/file", bytes(1000))
    emulator.control.fault("files/upload_session/append_v2", "stall", None)

    def forget(lock: str) -> None:
        reader: Any = dropbox_fs.openbin("file")
        assert reader.read(10) == bytes(10)
        struck = emulator.control.faults_struck
        writer: Any = dropbox_fs.openbin("new", "w")
        writer.write(bytes(20_000_000))
        eventually(lambda: emulator.control.faults_struck > struck)
        open_files = dropbox_fs._parts.files
        locks = {
            "open files": open_files._lock,
            "budget": open_files._budget._lock,
            "reader": reader._blocks._lock,
            "memory": open_files._uploader.collected._lock,
            "upload": writer._upload._lock,
            "calls": dropbox_fs._parts.client._caller._lock,
        }
        with locks[lock]:
            del reader, writer
        forgotten.append(lock)

    forgotten: list[str] = []
    names = ["open files", "budget", "reader", "memory", "upload", "calls"]
    for name in names:
        forgetting = threading.Thread(target=forget, args=(name,), daemon=True)
        forgetting.start()
        forgetting.join(DEADLINE_SECONDS)
    assert forgotten == names
    emulator.control.clear_faults()
    assert emulator.control.tree() == {"/file": 1000}


def test_a_forgotten_filesystem_ends_its_threads(emulator: Emulator) -> None:
    """Whichever thread the garbage collector finds it in, and whatever that has locked: the feed's is at the cache."""
    account: Any = open_account(emulator)
    account.writebytes("file", bytes(20_000_000))
    assert len(account.readbytes("file")) == 20_000_000
    assert left()
    cache, account.itself = account._parts.cache, account

    def collect() -> None:
        with cache._lock:
            gc.collect()

    del account
    collecting = threading.Thread(target=collect, daemon=True)
    collecting.start()
    collecting.join(DEADLINE_SECONDS)
    assert not collecting.is_alive()
    eventually(lambda: not left(), lambda: str(left()))


def left() -> list[str]:
    """Return the threads of filesystems that there are."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fs-dropbox")]


def test_where_the_system_has_no_thread_left_it_goes_on_in_those_that_ask(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the change feed, which starts when there is one again."""
    start = threading.Thread.start

    def none_left(thread: threading.Thread) -> None:
        if thread.name.startswith("fs-dropbox"):
            raise RuntimeError("can't start new thread")
        start(thread)

    content = random.Random(1).randbytes(20_000_000)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        dropbox_fs = open_dropbox(api_host=emulator.host.replace("127.0.0.1", "localhost"))
        dropbox_fs.writebytes("small", b"1")
        dropbox_fs.writebytes("large", content)
        assert dropbox_fs.readbytes("large") == content
        assert sorted(dropbox_fs.listdir("/")) == ["large", "small"]
        assert dropbox_fs.readbytes("small") == b"1"
    assert not dropbox_fs.getmeta("state")["followed"]
    dropbox_fs.exists("new")
    eventually(lambda: dropbox_fs.getmeta("state")["followed"])
