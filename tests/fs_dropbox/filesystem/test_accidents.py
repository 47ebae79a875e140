"""Accidents on the way: processes that are killed or compete, tokens that expire, brakes, roots that change."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.api.retry import SystemClock
from fs_dropbox.emulator import Emulator
from tests.root import ROOT
from tests.waiting import eventually

DEADLINE_SECONDS = 30.0
LARGE = bytes(range(256)) * 160_000


def python(emulator: Emulator, program: str) -> subprocess.Popen[str]:
    """Start a process that runs a program with `account`, a filesystem over the emulator."""
    head = "import os, sys, fs\naccount = fs.open_fs(os.environ['DROPBOX_URL'])\n"
    environment = {**os.environ, "DROPBOX_URL": emulator.fs_url, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", head + program],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("size", [3, len(LARGE)], ids=["small", "large"])
@pytest.mark.parametrize("moment", ["it sends", "it is about to close"])
def test_a_process_that_is_killed_leaves_the_old_version(emulator: Emulator, size: int, moment: str) -> None:
    emulator.control.write("/file", b"old")
    if moment == "it sends":
        route = "files/upload" if size == 3 else "files/upload_session/append_v2"
        emulator.control.fault(route, "cut_request", None, at_byte=1)  # never whole: it tries until it is killed
    program = f"file = account.openbin('file', 'w')\nfile.write(bytes({size}))\nprint('written', flush=True)\n"
    process = python(emulator, program + ("file.close()" if moment == "it sends" else "sys.stdin.readline()"))
    with process:
        if moment == "it sends":
            eventually(lambda: emulator.control.faults_struck)
        else:
            assert said(process) == "written"
        process.send_signal(signal.SIGKILL)
        assert process.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    emulator.control.clear_faults()
    assert emulator.control.tree() == {"/file": 3}
    assert emulator.control.read("/file") == b"old"
    with fs.open_fs(emulator.fs_url) as account:
        assert isinstance(account, DropboxFS)
        assert len(account.versions("file")) == 1
        account.writebytes("file", b"new")  # nothing of the dead one is in the way
    assert emulator.control.read("/file") == b"new"


def test_two_processes_that_append_to_one_file_make_one_conflict(emulator: Emulator) -> None:
    emulator.control.write("/log", b"begin\n")
    program = """
file = account.openbin('log', 'a')
file.write(sys.argv[0].encode() + b'line\\n')
print('ready', flush=True)
sys.stdin.readline()
try:
    file.close()
    print('done', flush=True)
except Exception as error:
    print(type(error).__name__, flush=True)
account.close()
"""
    processes = [python(emulator, program) for _ in range(2)]
    try:
        assert [said(process) for process in processes] == ["ready", "ready"]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert sorted(said(process) for process in processes) == ["VersionConflict", "done"]
    finally:
        for process in processes:
            process.communicate(timeout=DEADLINE_SECONDS)
    assert emulator.control.read("/log") == b"begin\n-cline\n"


class RunningClock(SystemClock):
    """The computer's time, with hours that go by at once."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.mark.parametrize("known", [True, False], ids=["refreshed ahead", "refused"])
def test_tokens_that_expire_during_transfers_go_unnoticed(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS], monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Hours pass in the middle of an upload and a download; with a clock that shows it, and with one that does not."""
    clock = RunningClock()
    monkeypatch.setattr("fs_dropbox.api.calls.SystemClock", lambda: clock)
    emulator.control.write("/down", LARGE)
    account = open_dropbox(change_feed=False)
    emulator.control.reset_counts()

    def hours_pass() -> None:
        if known:
            clock.ahead += 5 * 3600
        emulator.control.advance(5 * 3600)

    with account.openbin("up", "w") as target, account.openbin("down") as source:
        received = [source.read(1000)]
        for start in range(0, len(LARGE), 8_000_000):
            target.write(LARGE[start : start + 8_000_000])
            if start in (16_000_000, 32_000_000):
                hours_pass()
            received.append(source.read(8_000_000))
        received.append(source.read())
    assert b"".join(received) == LARGE
    assert emulator.control.read("/up") == LARGE
    # Not one for each of the calls under way; a single one where the last call had begun when the hours passed.
    assert 1 <= emulator.control.calls()["oauth2/token"] <= 4
    if not known:
        assert [record for record in emulator.control.requests() if record.status == 401]


def test_sixteen_threads_whose_token_expires_refresh_it_once(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    account = open_dropbox(cache=False)
    emulator.control.write("/file", b"1")
    emulator.control.expire_tokens()
    emulator.control.reset_counts()
    together = threading.Barrier(16)

    def look(_: int) -> bool:
        together.wait(DEADLINE_SECONDS)
        return account.isfile("file")

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(look, range(16)))
    assert emulator.control.calls()["oauth2/token"] == 1


def test_a_429_freezes_writers_of_the_account_and_no_readers(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    first, second = open_dropbox(cache=False), open_dropbox(cache=False)
    emulator.control.write("/file", b"content")
    emulator.control.fault("files/upload", "rate_limit", retry_after=6)
    with ThreadPoolExecutor(6) as pool:
        throttled = pool.submit(first.writebytes, "0", b"0")
        frozen_until = eventually(lambda: first._parts.client.governor.throttled_until)
        emulator.control.reset_counts()
        writing = [
            pool.submit(account.writebytes, f"{number}", b"1")
            for number, account in enumerate((first, second, first, second), start=1)
        ]
        assert second.readbytes("file") == b"content"
        assert first.listdir("/") == ["file"]
        assert time.monotonic() < frozen_until, "the machine is too slow for this test"
        assert emulator.control.calls()["files/upload"] == 0
        for each in (throttled, *writing):
            each.result(DEADLINE_SECONDS)
    assert len(emulator.control.tree()) == 6
    assert first._parts.client.governor.throttled_until is None


def test_a_revoked_token_says_what_to_do(emulator: Emulator, open_dropbox: Callable[..., DropboxFS]) -> None:
    account = open_dropbox()
    file = account.openbin("new", "w")
    file.write(b"x")
    emulator.control.revoke_tokens()
    for work in (lambda: account.listdir("/"), file.close):
        with pytest.raises(fs.errors.PermissionDenied, match="fs-dropbox login"):
            work()
    with pytest.raises(fs.errors.CreateFailed, match="fs-dropbox login"):
        open_dropbox()
    assert emulator.control.tree() == {}


def test_a_root_that_changes_is_followed_by_what_is_known(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    """Paths mean something else then: nothing that was known of them holds any more."""
    emulator.control.add_team("Acme")
    emulator.control.add_member("ann@example.com", admin=True)
    emulator.control.write("/Ann/report", b"of the team")
    account = open_dropbox(cache_ttl_seconds=1000)
    assert account.readbytes("Ann/report") == b"of the team"
    eventually(lambda: account.feed_is_live)
    heard = threading.Event()
    account.subscribe(lambda entries: None if entries else heard.set())
    emulator.control.remove_member("ann@example.com")
    emulator.control.write("/mine", b"my own")
    assert account.exists("not known yet") is False  # this call learns of it
    assert not account.exists("Ann/report")
    assert "mine" in account.listdir("/")
    assert heard.wait(DEADLINE_SECONDS)
    eventually(lambda: account.feed_is_live)
    emulator.control.write("/later", b"1")
    eventually(lambda: "later" in account.listdir("/"))


def test_what_is_closed_after_the_root_has_changed_goes_where_its_path_leads_then(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    emulator.control.add_team("Acme")
    emulator.control.add_member("ann@example.com", admin=True)
    account = open_dropbox(cache=False)
    with account.open("/late", "wb") as late:
        late.write(b"begun in the team's folder")
        with pytest.raises(fs.errors.OperationFailed, match="another root folder now"), account.open("/early", "wb"):
            emulator.control.remove_member("ann@example.com")
    assert emulator.control.tree() == {"/late": 26}


def test_who_joins_a_team_stays_in_the_own_folder_until_the_account_is_opened_anew(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    emulator.control.write("/mine", b"my own")
    account = open_dropbox(cache=False)
    emulator.control.add_team("Acme")
    emulator.control.add_member("ann@example.com", admin=True)
    account.writebytes("later", b"my own")
    assert sorted(account.listdir("/")) == ["later", "mine"]
    assert open_dropbox().listdir("/Ann") == ["later", "mine"]


def test_a_long_life_leaves_nothing_behind(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever succeeds, fails, is refused or is aborted a thousand times: no table grows with it."""
    caplog.set_level(logging.ERROR)
    account = open_dropbox(cache_ttl_seconds=0.001, timeout_seconds=5)
    emulator.control.write("/file", b"content")
    caller, parts = account._parts.client._caller, account._parts

    def round_of_work(number: int) -> None:
        assert account.readbytes("file") == b"content"
        assert not account.exists(f"nothing {number}")
        account.writebytes(f"written {number % 3}", b"%d" % number)
        aborted: Any = account.openbin("aborted", "w")
        aborted.abort()
        with pytest.raises(fs.errors.ResourceNotFound):
            account.remove("absent")
        if number % 5 == 0:
            emulator.control.fault("files/upload", "ambiguous")
            emulator.control.fault("files/upload", "rate_limit", retry_after=0)
            emulator.control.fault("files/download", "cut_body")

    def sizes() -> dict[str, int]:
        gc.collect()
        return {
            "waiters": len(caller._waiters),
            "files": len(parts.files._files),
            "connections": len(caller._transport._session.connections._open),
            "resolving": len(caller._transport._session.connections.resolver._under_way),
            "siblings": len(parts.files._siblings._runs),
            "threads": threading.active_count(),
            "writers": len(caller.governor._writing),
            "queue": len(caller.governor._queue),
        }

    def objects() -> int:
        gc.collect()
        modules = [str(type(each).__module__) for each in gc.get_objects()]
        return sum(name.startswith("fs_dropbox.") and "emulator" not in name for name in modules)

    for number in range(15):
        round_of_work(number)
    before, alive = sizes(), objects()
    for number in range(15, 90):
        round_of_work(number)
    after = sizes()
    assert after["waiters"] <= 1  # the feed's longpoll
    assert (after["files"], after["resolving"], after["writers"], after["queue"]) == (0, 0, 0, 0)
    assert after["connections"] <= before["connections"] + 2
    assert after["siblings"] <= before["siblings"] + 1
    assert objects() < alive + 50
