"""`close()` of the filesystem ends every thread and request within two seconds, whatever they are waiting for."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.api import dialing
from fs_dropbox.emulator import Emulator
from fs_dropbox.files.blocks import BlockBudget, BlockReader
from fs_dropbox.files.read_file import ReadFile
from fs_dropbox.files.write_file import WriteFile
from fs_dropbox.filesystem.open_files import OpenFiles
from fs_dropbox.uploads.memory import Allowance, Buffer
from tests.fs_dropbox.api.dead_hosts import silent, swallowing, unresolved
from tests.waiting import eventually

CLOSE_SECONDS = 10.0  # two where nothing else runs; what is waited for here takes a minute and more
DEADLINE_SECONDS = 20.0
LARGE = bytes(20_000_000)
OURS = "fs-dropbox"
State = Callable[[DropboxFS, Emulator], list[Callable[[], object]]]


def struck_by(route: str, kind: str, **parameters: Any) -> Callable[[Emulator], None]:
    return lambda emulator: emulator.control.fault(route, kind, None, **parameters)


def listing(account: DropboxFS, emulator: Emulator) -> object:
    return account.listdir("/")


def reading(account: DropboxFS, emulator: Emulator) -> object:
    with account.openbin("large") as file:
        return file.read()


def writing(account: DropboxFS, emulator: Emulator) -> object:
    return account.writebytes("new", LARGE)


def committing(account: DropboxFS, emulator: Emulator) -> object:
    return account.writebytes("new", b"small")


def opening(account: DropboxFS, emulator: Emulator) -> object:
    return account.openbin("unknown").read()


def appending(account: DropboxFS, emulator: Emulator) -> object:
    return account.appendbytes("small", b"+")


def renaming(account: DropboxFS, emulator: Emulator) -> object:
    return account.move("small", "moved")


STATES: dict[str, tuple[Callable[[Emulator], None], Callable[[DropboxFS, Emulator], object], int]] = {
    "a listing stalls": (struck_by("files/list_folder", "stall"), listing, 1),
    "a download stalls": (struck_by("files/download", "stall"), reading, 4),
    "the body of a download stalls": (struck_by("files/download", "stall", at="body"), reading, 4),
    "the body of a download dribbles": (struck_by("files/download", "slow_body", pieces=100, seconds=1), reading, 4),
    "the start of an upload stalls": (struck_by("files/upload_session/start", "stall"), writing, 1),
    "an upload stalls": (struck_by("files/upload_session/append_v2", "stall"), writing, 4),
    "the end of an upload stalls": (struck_by("files/upload_session/finish", "stall", at="answer"), writing, 1),
    "commits stall": (struck_by("files/upload", "stall"), committing, 12),
    "an opening stalls": (struck_by("files/get_metadata", "stall"), opening, 1),
    "the base of an append stalls": (struck_by("files/download", "stall"), appending, 1),
    "a move stalls": (struck_by("files/move_v2", "stall"), renaming, 1),
    "writers wait after a 429": (struck_by("files/upload", "rate_limit", retry_after=60), committing, 8),
    "readers wait after a 429": (struck_by("files/download", "rate_limit", retry_after=60), reading, 2),
    "a call waits to be tried again": (struck_by("files/list_folder", "server_error", retry_after=60), listing, 1),
    "the look at what became of a move stalls": (
        lambda emulator: (
            emulator.control.fault("files/move_v2", "ambiguous", None),
            emulator.control.fault("files/get_metadata", "stall", None),
        )[0],
        renaming,
        1,
    ),
    "a refresh of the token stalls": (
        lambda emulator: (emulator.control.expire_tokens(), emulator.control.fault("oauth2/token", "stall", None))[0],
        listing,
        3,
    ),
}


def close_in_time(account: DropboxFS, working: list[Future[object]]) -> None:
    """Close, and check that everybody who waited has an error and every thread has ended."""
    began = time.monotonic()
    account.close()
    assert time.monotonic() - began < CLOSE_SECONDS
    for each in working:
        with pytest.raises((fs.errors.FSError, ValueError)):
            each.result(CLOSE_SECONDS)
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith(OURS)]
    assert [name for name in left if name != "fs-dropbox-names"] == []


@pytest.fixture
def account(emulator: Emulator, open_dropbox: Callable[..., DropboxFS]) -> Iterator[DropboxFS]:
    """An account with files, whose brake is its own: it would stay on for the tests that follow."""
    emulator.control.write("/large", LARGE)
    emulator.control.write("/small", b"small")
    account = open_dropbox(timeout_seconds=120)
    assert account.isfile("small")
    assert account.isfile("large")
    yield account
    emulator.control.clear_faults()


@pytest.mark.parametrize("state", STATES)
def test_close_while(account: DropboxFS, emulator: Emulator, state: str) -> None:
    arrange, work, count = STATES[state]
    eventually(lambda: account.feed_is_live)
    account._parts.catalog.forget("/")
    before = emulator.control.faults_struck
    arrange(emulator)
    with ThreadPoolExecutor(count) as pool:
        working = [pool.submit(work, account, emulator) for _ in range(count)]
        eventually(lambda: emulator.control.faults_struck > before)
        close_in_time(account, working)
    emulator.control.clear_faults()
    assert set(emulator.control.tree()) <= {"/large", "/small", "/moved", "/new"}
    assert emulator.control.read("/large") == LARGE


def test_close_while_the_feed_polls(account: DropboxFS, emulator: Emulator) -> None:
    eventually(lambda: account.feed_is_live and emulator.control.peak_concurrency("files/list_folder/longpoll"))
    close_in_time(account, [])
    emulator.control.write("/wake", b"")  # ends the longpoll in the emulator


@pytest.mark.parametrize("route", ["longpoll", "get_latest_cursor", "continue"])
@pytest.mark.parametrize("kind", ["stall", "server_error", "reset"])
def test_close_while_the_feed_reconnects(account: DropboxFS, emulator: Emulator, route: str, kind: str) -> None:
    eventually(lambda: account.feed_is_live)
    struck = emulator.control.faults_struck
    emulator.control.fault(f"files/list_folder/{route}", kind, None)
    if route == "get_latest_cursor":
        emulator.control.fault("files/list_folder/longpoll", "cursor_reset", None)
    emulator.control.write("/change", b"")  # wakes it
    eventually(lambda: emulator.control.faults_struck > struck)
    close_in_time(account, [])


def test_what_has_not_begun_when_it_is_closed_is_an_error_like_any_other(
    account: DropboxFS, emulator: Emulator
) -> None:
    pool, free = account._parts.uploader._pool, threading.Event()
    with ThreadPoolExecutor(2) as executor:
        for _ in range(pool._max_workers):
            pool.submit(free.wait)
        working = executor.submit(writing, account, emulator)
        eventually(lambda: pool._work_queue.qsize() >= 2)
        closing = executor.submit(account.close)
        eventually(working.done)
        free.set()
        closing.result(CLOSE_SECONDS)
        with pytest.raises(fs.errors.FSError):
            working.result()


@pytest.mark.parametrize("way", ["silent", "swallowing", "unresolved", "proxy"])
def test_close_while_connecting(
    account: DropboxFS, emulator: Emulator, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as stack:
        if way == "unresolved":
            host = stack.enter_context(unresolved(monkeypatch))
        else:
            host = stack.enter_context(swallowing() if way == "swallowing" else silent())
        if way == "proxy":
            monkeypatch.setenv("HTTPS_PROXY", f"http://{host}")
            monkeypatch.setenv("NO_PROXY", "")
            host = "api.dropboxapi.com"
        transport = account._parts.client._caller._transport
        transport._sdk._host_map = dict.fromkeys(transport._sdk._host_map, host)
        transport.api_host = host
        dials: list[dialing.Dial] = []
        connect = dialing.Dial.connect
        monkeypatch.setattr(
            dialing.Dial, "connect", lambda dial, *where: (dials.append(dial), connect(dial, *where))[1]
        )
        account._parts.catalog.forget("/")
        with ThreadPoolExecutor(3) as executor:
            working = [executor.submit(work, account, emulator) for work in (listing, reading, committing)]
            eventually(lambda: len(dials) >= 2)
            close_in_time(account, working)
    emulator.control.write("/wake", b"")


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # that is what this is about
def test_a_forked_process_that_closes_it_breaks_nothing_off(account: DropboxFS, emulator: Emulator) -> None:
    """As the garbage collector does in each process that a program forks: PyFilesystem closes what is forgotten."""
    struck, uploads = emulator.control.faults_struck, emulator.control.calls()["files/upload"]
    emulator.control.fault("files/upload", "stall", at="answer")
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(committing, account, emulator)
        eventually(lambda: emulator.control.faults_struck > struck)
        forked(account.close)
        emulator.control.release()
        working.result(DEADLINE_SECONDS)
    assert emulator.control.read("/new") == b"small"
    assert emulator.control.calls()["files/upload"] == uploads + 1
    assert account.readbytes("new") == b"small"


def forked(work: Callable[[], object]) -> None:
    """Do something in a forked process; it ends well, and in time."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(DEADLINE_SECONDS)
    child.kill()  # if it hangs: on what only its parent can let go of
    child.join()
    assert child.exitcode == 0


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_that_opens_its_own_waits_for_no_writer_of_its_parent(
    account: DropboxFS, emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    def work() -> None:
        with open_dropbox() as own:
            own.writebytes("new", b"of the child")

    writers = account._parts.client.governor.writers
    for number in range(writers):
        account.writebytes(f"{number}", b"")
    struck = emulator.control.faults_struck
    emulator.control.fault("files/delete_v2", "stall", writers)
    with ThreadPoolExecutor(writers) as pool:
        removals = [pool.submit(account.remove, f"{number}") for number in range(writers)]
        eventually(lambda: emulator.control.faults_struck == struck + writers)
        try:
            forked(work)
        finally:
            emulator.control.release()
        for removal in removals:
            removal.result(DEADLINE_SECONDS)
    assert emulator.control.read("/new") == b"of the child"


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_what_was_opened_before_a_fork_is_closed_in_the_child(account: DropboxFS) -> None:
    """No thread of it is there, so that it would tell for ever what was true then; and its connections are in use."""

    def work() -> None:
        with pytest.raises(fs.errors.FilesystemClosed):
            account.exists("small")
        with pytest.raises(fs.errors.FSError):
            file.read()

    assert account.exists("small")
    with account.openbin("large") as file:
        forked(work)
        assert file.read() == LARGE


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("mode", ["rb", "w"])
@pytest.mark.parametrize("way", ["closed", "aborted", "forgotten"])
def test_a_forked_process_waits_for_no_lock_of_its_parent(account: DropboxFS, mode: str, way: str) -> None:
    """Whatever a thread had locked when it was forked is locked there for ever."""
    files: list[Any] = [account.open("large", mode)]
    if mode != "rb":
        files[0].write("x" if mode == "w" else b"x")
        files[0].flush()

    def work() -> None:
        file = files.pop()
        if way == "closed":
            with contextlib.suppress(fs.errors.FilesystemClosed):
                file.close()
        elif way == "aborted":
            file.abort()

    kinds = {ReadFile, WriteFile, OpenFiles, BlockReader, BlockBudget, Buffer, Allowance}
    locks = [each._lock for each in gc.get_objects() if type(each) in kinds]
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as locked:
        for lock in locks:
            pool.submit(locked.enter_context, lock).result()
        try:
            forked(work)
        finally:
            pool.submit(locked.close).result()
    files.pop().close()


def test_a_thread_that_outlives_the_main_thread_still_writes_and_reads_large_files(emulator: Emulator) -> None:
    """Python lets no executor start threads then."""
    program = f"""
import fs, threading
account = fs.open_fs({emulator.plain_fs_url!r})
def work():
    threading.main_thread().join()
    account.writebytes("late", bytes(20_000_000))
    print(len(account.readbytes("late")))
threading.Thread(target=work).start()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("20000000\n", "")
    assert emulator.control.metadata("/late")["size"] == 20_000_000
