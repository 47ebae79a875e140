"""How much a user's folder may hold: what is counted, who is refused and who is not."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fs.memoryfs import MemoryFS

from sftp_gateway.files.allowance import DOUBT_SECONDS, REMEASURE_SECONDS, Allowance
from sftp_gateway.sftp.packets import Kind
from sftp_gateway.sftp.status import RefusedError
from tests.sftp_gateway.atomic_fs import AtomicFS, KnownFS
from tests.sftp_gateway.raw_client import C, RawClient, T, W, s
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import eventually


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def may_become(allowance: Allowance, path: str) -> int:
    """Return how large the file at `path` may become."""
    room = allowance.room(path)
    assert room is not None
    return room.size


def test_what_is_there_and_what_is_added_counts() -> None:
    storage, clock = MemoryFS(), Clock()
    storage.makedirs("/home/d")
    storage.writebytes("/home/d/a", b"x" * 60)
    storage.writebytes("/elsewhere", b"x" * 1000)
    allowance = Allowance(storage, "/home", max_bytes=100, max_files=3, clock=clock)
    assert may_become(allowance, "/home/new") == 40
    assert may_become(allowance, "/home/d/a") == 100
    with (
        pytest.raises(RefusedError, match=r"your quota is used up: 60 of 100 bytes and 1 of 3 files"),
        allowance.counting("/home/new", size=41),
    ):
        raise AssertionError("too much")
    with pytest.raises(ZeroDivisionError), allowance.counting("/home/new", size=40):
        raise ZeroDivisionError  # not stored: not counted
    with allowance.counting("/home/new", size=40):
        storage.writebytes("/home/new", b"x" * 40)
    with pytest.raises(RefusedError):
        allowance.room("/home/another")
    with allowance.counting("/home/new", size=10):  # smaller now
        storage.writebytes("/home/new", b"x" * 10)
    with allowance.counting("/home/third", size=0):
        storage.writebytes("/home/third", b"")
    with pytest.raises(RefusedError):
        allowance.room("/home/fourth")
    with allowance.counting("/home/d/a"):
        storage.remove("/home/d/a")
    assert may_become(allowance, "/home/fourth") == 90
    storage.writebytes("/home/foreign", b"x" * 50)
    assert may_become(allowance, "/home/fourth") == 90
    clock.now += REMEASURE_SECONDS
    with pytest.raises(RefusedError, match="3 of 3 files"):
        allowance.room("/home/fourth")


def test_before_somebody_is_refused_it_is_looked_whether_there_is_room_now() -> None:
    storage, clock = MemoryFS(), Clock()
    storage.makedir("/home")
    storage.writebytes("/home/a", b"x" * 100)
    allowance = Allowance(storage, "/home", max_bytes=100, clock=clock)
    with pytest.raises(RefusedError):
        allowance.room("/home/b")
    storage.remove("/home/a")  # by others
    with pytest.raises(RefusedError):  # those who ask without end cost no walk each time
        allowance.room("/home/b")
    clock.now += DOUBT_SECONDS
    assert may_become(allowance, "/home/b") == 100


def test_what_was_stored_although_the_answer_got_lost_counts() -> None:
    storage = MemoryFS()
    storage.makedir("/home")
    allowance = Allowance(storage, "/home", max_bytes=100)
    with contextlib.suppress(ZeroDivisionError), allowance.counting("/home/a", size=40):
        storage.writebytes("/home/a", b"x" * 40)
        raise ZeroDivisionError
    assert allowance.left == 60
    with contextlib.suppress(ZeroDivisionError), allowance.counting("/home/a"):
        storage.remove("/home/a")
        raise ZeroDivisionError
    assert allowance.left == 100


def test_an_empty_directory_that_is_replaced_was_no_file() -> None:
    storage = MemoryFS()
    storage.makedirs("/home/empty")
    storage.writebytes("/home/a", b"")
    allowance = Allowance(storage, "/home", max_files=1)
    with pytest.raises(RefusedError, match="1 of 1 files"):
        allowance.room("/home/b")
    with allowance.counting("/home/empty"):
        storage.removedir("/home/empty")
    with pytest.raises(RefusedError, match="1 of 1 files"):
        allowance.room("/home/b")


def test_what_was_not_stored_before_all_was_measured_anew_is_not_taken_off() -> None:
    storage, clock = MemoryFS(), Clock()
    storage.makedir("/home")
    storage.writebytes("/home/a", b"x" * 60)
    allowance = Allowance(storage, "/home", max_bytes=100, clock=clock)

    def fail_late() -> None:
        with allowance.counting("/home/b", size=40):
            clock.now += REMEASURE_SECONDS
            assert may_become(allowance, "/home/a") == 60  # it may still come
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_late()
    assert may_become(allowance, "/home/c") == 40


@pytest.mark.parametrize("is_seen", [True, False], ids=["stored before", "stored after"])
def test_what_is_stored_while_all_is_measured_counts(is_seen: bool) -> None:
    """Once for certain, and perhaps twice until somebody would be refused for it."""

    class BusyFS(MemoryFS):
        def scandir(self, path: str, namespaces: Any = None, page: Any = None) -> Any:
            while not is_seen and actions:
                actions.pop(0)()
            yield from super().scandir(path, namespaces, page)

    actions: list[Callable[[], None]] = []
    storage, clock = BusyFS(), Clock()
    storage.makedir("/home")
    storage.writebytes("/home/old", b"x" * 30)
    allowance = Allowance(storage, "/home", max_bytes=100, clock=clock)
    with allowance.counting("/home/a", size=20):
        if is_seen:
            storage.writebytes("/home/a", b"x" * 20)
        clock.now += REMEASURE_SECONDS
        allowance.room("/home/b")
        storage.writebytes("/home/a", b"x" * 20)
    with contextlib.ExitStack() as removal:
        removal.enter_context(allowance.counting("/home/old"))
        actions[:] = [lambda: storage.remove("/home/old"), removal.close]
        clock.now += REMEASURE_SECONDS
        allowance.room("/home/b")
        for action in actions:
            action()
    there = sum(storage.getsize(f"/home/{name}") for name in storage.listdir("/home"))
    assert 100 - allowance.left >= there
    clock.now += DOUBT_SECONDS
    with allowance.counting("/home/c", size=100 - there):
        storage.writebytes("/home/c", b"x" * (100 - there))
    assert allowance.left == 0


def test_what_is_there_may_be_changed_although_the_quota_is_used_up() -> None:
    storage = MemoryFS()
    storage.makedir("/home")
    for name in ("a", "b"):  # by others, or before there was a quota
        storage.writebytes(f"/home/{name}", b"x" * 60)
    allowance = Allowance(storage, "/home", max_bytes=100, max_files=1)
    for size in (60, 50):
        with allowance.counting("/home/a", size=size):
            storage.writebytes("/home/a", b"y" * size)
    with pytest.raises(RefusedError), allowance.counting("/home/a", size=51):
        raise AssertionError("too much")


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[tuple[AtomicFS, RawClient, Allowance]]:
    """A storage, a client that may have 100 bytes of it, and what is counted."""
    with AtomicFS() as storage:
        storage.makedir("/home")
        serving = Serving(storage, tmp_path)
        session = serving.session()
        session.view = serving.tree.view("/home", quota=(100, 0))
        allowance = serving.tree.store.allowances.find("/home", (100, 0))
        assert allowance is not None
        yield storage, session.raw(), allowance
        serving.close()


def test_a_session_goes_on_while_its_folder_is_measured(tmp_path: Path) -> None:
    with KnownFS() as storage:
        serving = Serving(storage, tmp_path)
        session = serving.session()
        session.view = serving.tree.view("/", quota=(100, 0))
        client = session.raw()
        with storage.stalled("scandir", "/"):
            asked = client.open("/new", W | C)
            assert client.is_answered(client.path(Kind.REALPATH, "/"), within=10)
        assert client.wait(asked).kind == Kind.HANDLE
        serving.close()


def test_what_is_replaced_counts_until_it_is(limited: tuple[AtomicFS, RawClient, Allowance]) -> None:
    storage, client, allowance = limited
    client.put("/f", b"x" * 60)
    handle = client.opened("/new", W | C)
    client.wait(client.write(handle, 0, b"x" * 10))
    assert client.wait(client.posix_rename("/new", "/f")).ok
    assert allowance.left == 40  # it is there as long as the new one is not
    assert client.wait(client.close(handle)).ok
    assert (storage.getsize("/home/f"), allowance.left) == (10, 90)


def test_a_size_that_is_set_by_name_counts_once_it_is_stored(limited: tuple[AtomicFS, RawClient, Allowance]) -> None:
    storage, client, allowance = limited
    handle = client.opened("/f", W | C)
    assert client.wait(client.setstat("/f", size=60)).ok
    assert client.wait(client.close(handle)).ok
    assert (storage.getsize("/home/f"), allowance.left) == (60, 40)


def test_two_who_store_the_same_path_at_once_are_counted_as_one(
    limited: tuple[AtomicFS, RawClient, Allowance],
) -> None:
    storage, client, allowance = limited
    handles = [client.opened("/f", W | C | T) for _ in range(2)]
    with storage.stalled("commit", "/home/f"):
        closed = [client.close(handle) for handle in handles]
        eventually(lambda: storage.happened("commit"))
    for request in closed:
        client.wait(request)
    assert (allowance._files, len(storage.listdir("/home"))) == (1, 1)


def test_who_goes_on_over_what_another_has_stored_is_not_refused(
    limited: tuple[AtomicFS, RawClient, Allowance],
) -> None:
    storage, client, allowance = limited
    first, second = (client.opened("/f", W | C | T) for _ in range(2))
    for handle in (first, second):
        assert client.wait(client.write(handle, 0, b"x" * 60)).ok
    assert client.wait(client.close(first)).ok
    assert client.wait(client.write(second, 60, b"x" * 10)).ok  # in the place of the 60
    assert client.wait(client.close(second)).ok
    assert (storage.getsize("/home/f"), allowance.left) == (70, 30)


def test_what_is_added_while_a_file_is_stored_is_left_to_who_adds_it(
    limited: tuple[AtomicFS, RawClient, Allowance],
) -> None:
    storage, client, allowance = limited
    first, second = client.opened("/f", W | C), client.opened("/f", W)
    assert client.wait(client.write(first, 0, b"x" * 60)).ok
    before = len(storage.happened("open"))
    with storage.stalled("open", "/home/f"):
        closed = client.close(first)
        eventually(lambda: len(storage.happened("open")) > before)
        assert client.wait(client.write(second, 60, b"x" * 10)).ok
    assert client.wait(closed).ok
    assert (storage.getsize("/home/f"), allowance.left) == (60, 40)
    assert client.wait(client.close(second)).ok
    assert (storage.getsize("/home/f"), allowance.left) == (70, 30)


def test_a_size_that_is_set_by_name_is_not_lost_to_a_close_at_the_same_time(
    limited: tuple[AtomicFS, RawClient, Allowance],
) -> None:
    storage, client, _ = limited
    handle = client.opened("/f", W | C)
    assert client.wait(client.write(handle, 0, b"x" * 60)).ok
    with storage.stalled("commit", "/home/f"):
        closed = client.close(handle)
        eventually(lambda: storage.happened("commit"))
        cut = client.setstat("/f", size=10)
    assert client.wait(closed).ok
    assert client.wait(cut).ok
    assert storage.getsize("/home/f") == 10


@pytest.mark.parametrize(
    ("quota", "used", "told"),
    [
        ((100_000, 0), 50_000, (24, 14)),  # blocks of 4 KiB in all, and free
        ((100_000, 5), 950_000, (24, 12)),  # the storage itself has less left
        ((10_000, 0), 0, (2, 0)),  # lowered below what is there
        ((0, 5), 50_000, (244, 231)),
    ],
)
def test_free_space_is_what_the_quota_leaves(
    tmp_path: Path, quota: tuple[int, int], used: int, told: tuple[int, int]
) -> None:
    with AtomicFS({"total": 1_000_000, "used": used}) as storage:
        storage.makedir("/home")
        storage.writebytes("/home/old", b"x" * 40_000)
        serving = Serving(storage, tmp_path)
        session = serving.session()
        session.view = serving.tree.view("/home", quota=quota)
        client = session.raw()
        values = struct.unpack(">11Q", client.wait(client.extended("statvfs@openssh.com", s("/"))).data)
        assert (values[2], values[3]) == told
        serving.close()


@pytest.mark.parametrize("make", [MemoryFS, AtomicFS, KnownFS], ids=["local", "network", "known"])
def test_a_quota_is_enforced_before_during_and_after_an_upload(tmp_path: Path, make: type[MemoryFS]) -> None:
    storage = make()
    storage.makedir("/home")
    storage.writebytes("/home/old", b"x" * 6000)
    serving = Serving(storage, tmp_path)
    view = serving.tree.view("/home", quota=(10_000, 0))
    session = serving.session(root="/home")
    session.view = view
    client = session.raw()
    handle = client.opened("/new", W | C)
    assert client.wait(client.write(handle, 0, b"x" * 4000)).ok
    refused = client.wait(client.write(handle, 4000, b"x"))
    assert refused.text == "/new: your quota is used up: no more than 4,000 bytes are left for this file"
    assert not client.wait(client.close(handle)).ok  # what could not be written is not committed
    assert not storage.exists("/home/new")
    both = [client.opened(f"/{name}", W | C) for name in "ab"]
    for handle in both:
        assert client.wait(client.write(handle, 0, b"x" * 3000)).ok
    replies = [client.wait(client.close(handle)) for handle in both]
    assert [reply.ok for reply in replies] == [True, False]
    assert replies[1].text == "/b: your quota is used up: 9,000 of 10,000 bytes"
    assert not storage.exists("/home/b")
    assert not client.wait(client.setstat("/a", size=5000)).ok
    client.put("/old", b"y" * 7000)  # over itself
    assert client.wait(client.open("/more", W | C)).text == "/more: your quota is used up: 10,000 of 10,000 bytes"
    assert client.wait(client.remove("/old")).ok
    client.put("/more", b"z" * 7000)
    assert client.wait(client.posix_rename("/more", "/a")).ok  # what it replaces counts no longer
    client.put("/last", b"z" * 3000)
    serving.close()
