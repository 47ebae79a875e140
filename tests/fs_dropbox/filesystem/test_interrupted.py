"""Whoever is interrupted (Ctrl-C raises KeyboardInterrupt wherever the thread is) harms neither others nor himself."""

from __future__ import annotations

import io
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.api.retry import Traffic
from fs_dropbox.content_hash import BLOCK_SIZE
from fs_dropbox.emulator import Emulator
from fs_dropbox.files.blocks import BLOCK_BYTES, BlockReader
from fs_dropbox.metadata.single_flight import SingleFlight
from fs_dropbox.uploads.memory import Allowance
from tests.waiting import DEADLINE_SECONDS, eventually

pytestmark = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread alone"
)


@contextmanager
def interrupted_when(condition: Callable[[], object]) -> Iterator[None]:
    """Interrupt the block, once a condition holds, as Ctrl-C does; it has to raise KeyboardInterrupt."""
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        eventually(condition)
        signal.pthread_kill(main, signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        interruption = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            yield
        interruption.result()


def raise_once(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, *, call: int = 1, is_done: bool = False
) -> None:
    """Let one call of a method end with KeyboardInterrupt, before or after it is carried out."""
    original = getattr(owner, name)
    calls = 0

    def method(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        result = None if calls == call and not is_done else original(*arguments, **options)
        if calls == call:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(owner, name, method)


def test_what_was_being_read_can_be_read_again_at_once() -> None:
    content = bytes(range(256)) * (3 * BLOCK_BYTES // 256)
    fetches: list[int] = []

    def fetch(start: int, end: int) -> list[bytes]:
        fetches.append(start)
        if len(fetches) == 1:
            raise KeyboardInterrupt
        return [content[start:end]]

    reader = BlockReader(fetch, len(content))
    with pytest.raises(KeyboardInterrupt):
        reader.read(0, 1000)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(reader.read, 0, 1000).result(10) == content[:1000]


def test_others_who_wait_for_the_same_call_make_it_anew() -> None:
    flights, entered = SingleFlight(), threading.Event()
    made: list[int] = []

    def never() -> int:
        entered.set()
        threading.Event().wait()
        return 0

    def make() -> int:
        made.append(1)
        return 42

    def follow() -> int:
        assert entered.wait(10)
        return flights.do("key", make)

    with ThreadPoolExecutor(3) as pool:
        followers = [pool.submit(follow) for _ in range(2)]
        with interrupted_when(lambda: entered.is_set() and len(flights._calls["key"]._condition._waiters) == 2):  # type: ignore[attr-defined]
            flights.do("key", never)
        assert [each.result(10) for each in followers] == [42, 42]
    assert made
    assert flights._calls == {}


def test_who_is_interrupted_as_a_call_begins_keeps_nobody_waiting_for_its_answer() -> None:
    flights = SingleFlight()

    class Lock:
        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            flights._lock = threading.Lock()
            raise KeyboardInterrupt

    flights._lock = Lock()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        flights.do("key", int)
    assert not flights.is_under_way("key")


def test_who_waits_for_memory_takes_none() -> None:
    allowance = Allowance(100)
    allowance.take(60)
    with ThreadPoolExecutor(1) as pool:
        with interrupted_when(lambda: len(allowance._queue) == 2):
            behind = pool.submit(lambda: (eventually(lambda: bool(allowance._queue)), allowance.take(30)))
            allowance.take(90)
        behind.result(10)  # there was room for it all the time
    allowance.give(90)
    assert allowance.taken_bytes == 0


def test_memory_that_came_at_that_very_moment_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    allowance = Allowance(100)
    allowance.take(60)

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            allowance.give(60)
            raise KeyboardInterrupt

    monkeypatch.setattr("fs_dropbox.uploads.memory.threading.Event", Event)
    with pytest.raises(KeyboardInterrupt):
        allowance.take(90)
    assert allowance.taken_bytes == 0


def test_who_is_interrupted_as_his_turn_comes_keeps_nobody_waiting(
    emulator: Emulator, dropbox_fs: DropboxFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    governor = dropbox_fs._parts.client.governor
    admit = governor.admit

    def admit_and_raise(traffic: Traffic, *others: Any) -> None:
        admit(traffic, *others)
        if traffic is Traffic.WRITE:
            raise KeyboardInterrupt

    emulator.control.write("/file", b"content")
    with monkeypatch.context() as interrupted:
        interrupted.setattr(governor, "admit", admit_and_raise)
        for _ in range(governor.writers):
            with pytest.raises(KeyboardInterrupt):
                dropbox_fs.remove("file")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(dropbox_fs.remove, "file").result(DEADLINE_SECONDS)


def test_a_small_file_that_is_interrupted_as_it_begins_to_be_stored_is_not_stored_later(
    emulator: Emulator, dropbox_fs: DropboxFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as once:
        raise_once(once, dropbox_fs._parts.uploader.small_files._arrived, "notify_all")
        with pytest.raises(KeyboardInterrupt):
            dropbox_fs.writebytes("given up", b"content")
    dropbox_fs.writebytes("other", b"content")
    assert emulator.control.tree() == {"/other": 7}


@pytest.mark.parametrize("seekable", [True, False])
def test_half_a_file_is_not_stored_by_closing_it(
    emulator: Emulator, dropbox_fs: DropboxFS, monkeypatch: pytest.MonkeyPatch, seekable: bool
) -> None:
    emulator.control.write("/file", b"old")
    file: Any = dropbox_fs.openbin("file", "w", seekable=seekable)
    file.write(b"x" * 100)
    raise_once(monkeypatch, file._upload._block, "append", call=2)
    with pytest.raises(KeyboardInterrupt):
        file.write(b"y" * (3 * BLOCK_SIZE))
    with pytest.raises(fs.errors.OperationFailed, match=r"'/file': writing was broken off; nothing was stored"):
        file.close()
    assert emulator.control.read("/file") == b"old"


def test_half_of_an_old_content_is_not_taken_for_the_whole(
    emulator: Emulator, dropbox_fs: DropboxFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.control.write("/file", b"old" * 3_000_000)
    file: Any = dropbox_fs.openbin("file", "r+")
    raise_once(monkeypatch, file._spool, "write", call=2)
    with pytest.raises(KeyboardInterrupt):
        file.read(3)
    with pytest.raises(fs.errors.OperationFailed, match="nothing was stored"):
        file.write(b"new")
    with pytest.raises(fs.errors.OperationFailed, match="nothing was stored"):
        file.close()
    assert emulator.control.read("/file") == b"old" * 3_000_000


def test_text_that_was_held_back_is_no_end_of_a_file(
    emulator: Emulator, dropbox_fs: DropboxFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.control.write("/file", b"old")
    file: Any = dropbox_fs.open("file", "w")
    file.write("x" * 20_000)
    file.write("held back")
    raise_once(monkeypatch, file.buffer.raw, "_check_writing")
    with pytest.raises(KeyboardInterrupt):
        file.close()
    file.close()
    assert emulator.control.read("/file") == b"old"


@pytest.mark.parametrize("is_done", [True, False])
def test_after_a_commit_that_was_broken_off_dropbox_is_asked(
    emulator: Emulator, account: DropboxFS, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    emulator.control.write("/file", b"old")
    assert account.getsize("file") == 3
    file: Any = account.openbin("file", "w")
    file.write(b"newer")
    raise_once(monkeypatch, account._parts.client, "upload", is_done=is_done)
    with pytest.raises(KeyboardInterrupt):
        file.close()
    assert account.getsize("file") == (5 if is_done else 3)


def test_after_commits_of_staged_files_that_were_broken_off_dropbox_is_asked(
    account: DropboxFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.writetext("file", "old")
    ((_, token),) = account.stage_files([(lambda: io.BytesIO(b"newer"), 5)])
    raise_once(monkeypatch, account._parts.client, "session_finish_batch", is_done=True)
    with pytest.raises(KeyboardInterrupt):
        list(account.commit_files([("file", str(token), datetime.now(UTC), None)]))
    assert account.getsize("file") == 5


@pytest.mark.parametrize(
    ("change", "taken_over"),
    [
        (lambda account: account.writetext("file", "newer"), "applied"),
        (lambda account: list(account.upload_files([("file", lambda: io.BytesIO(b"newer"), 5, None)])), "applied"),
        (lambda account: account.copy("file", "other"), "copied"),
        (lambda account: account.move("file", "other"), "removed"),
        (lambda account: account.move("file", "FILE"), "moved"),
        (lambda account: account.remove("file"), "removed"),
        (lambda account: account.removetree("folder"), "removed"),
        (lambda account: account.makedir("other"), "created"),
    ],
)
def test_what_was_done_and_not_taken_over_is_seen(
    emulator: Emulator,
    account: DropboxFS,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[DropboxFS], object],
    taken_over: str,
) -> None:
    account.writetext("file", "old")
    account.makedir("folder")
    assert not account.exists("other")
    assert sorted(account.listdir("/")) == ["file", "folder"]
    before = emulator.control.tree()
    raise_once(monkeypatch, account._parts.catalog, taken_over)
    with pytest.raises(KeyboardInterrupt):
        change(account)
    after = emulator.control.tree()
    assert after != before
    seen = {info.make_path("/"): None if info.is_dir else info.size for info in account.scandir("/", ["details"])}
    assert seen == after
    for name in ("file", "folder", "other"):
        assert account.exists(name) == (name in {path[1:].lower() for path in after})


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("is_done", [True, False])
def test_a_rename_of_case_leaves_a_file_where_people_look_for_it(
    emulator: Emulator, dropbox_fs: DropboxFS, monkeypatch: pytest.MonkeyPatch, call: int, is_done: bool
) -> None:
    """Two moves make it; between them it has a name that nobody would look for."""
    emulator.control.write("/name", b"data")
    raise_once(monkeypatch, dropbox_fs._parts.client, "move", call=call, is_done=is_done)
    with pytest.raises(KeyboardInterrupt):
        dropbox_fs.move("name", "NAME", overwrite=True)
    name = "NAME" if call == 2 and is_done else "name"
    assert emulator.control.tree() == {f"/{name}": 4}
    assert dropbox_fs.listdir("/") == [name]


@pytest.mark.parametrize("method", ["delete", "move"])
def test_what_was_to_be_replaced_comes_back(
    emulator: Emulator, dropbox_fs: DropboxFS, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    for name in ("source", "target"):
        emulator.control.write(f"/{name}", name.encode())
    raise_once(monkeypatch, dropbox_fs._parts.client, method, is_done=method == "delete")
    with pytest.raises(KeyboardInterrupt):
        dropbox_fs.move("source", "target", overwrite=True)
    assert [emulator.control.read(f"/{name}") for name in ("source", "target")] == [b"source", b"target"]
    assert dropbox_fs.readtext("target") == "target"
