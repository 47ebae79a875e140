"""Whose turn it is to commit for all who wait, whoever is interrupted, stalls, or has just been served."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fs_dropbox import paths
from fs_dropbox.api.client import Commit
from fs_dropbox.errors import TransportError
from fs_dropbox.uploads import group_commit
from fs_dropbox.uploads.group_commit import GroupCommit
from tests.fs_dropbox.uploads.grouping import Account, hold_first
from tests.waiting import DEADLINE_SECONDS, eventually


@pytest.fixture
def account() -> Account:
    return Account()


def test_whoever_leads_and_is_interrupted_leaves_nobody_waiting(account: Account) -> None:
    class Interruption(BaseException):
        """As Ctrl-C is one."""

    gate = hold_first(account)
    hold = account.before

    def before(call: str) -> None:
        hold(call)
        if call == "finish_batch":
            raise Interruption

    account.before = before
    grouped = GroupCommit(account)
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(grouped.commit, Commit("/first", "add"), b"1")]
        eventually(lambda: account.calls)
        calls += [pool.submit(grouped.commit, Commit(f"/{number}", "add"), b"1") for number in range(4)]
        eventually(lambda: len(grouped._queue) == 4)
        gate.set()
        errors = [call.exception(DEADLINE_SECONDS) for call in calls]
    assert errors[0] is None
    assert sorted(type(error).__name__ for error in errors[1:]) == ["Interruption", *["TransportError"] * 3]
    assert all(
        error.kind == "interrupted" and error.is_unsettled for error in errors if isinstance(error, TransportError)
    )
    account.before = lambda call: None
    assert grouped.commit(Commit("/next", "add"), b"1")


@pytest.mark.parametrize("others", [0, 1])
def test_whoever_waits_and_is_interrupted_leaves_nothing_to_be_committed_later(account: Account, others: int) -> None:
    class Interruption(BaseException):
        """As Ctrl-C is one."""

    grouped = GroupCommit(account)
    gate = hold_first(account)
    wait, waiting = grouped._changed.wait, threading.Event()

    def interrupted(seconds: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread():
            raise Interruption
        waiting.set()
        return wait(seconds)

    grouped._changed.wait = interrupted  # type: ignore[assignment]
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(grouped.commit, Commit("/first", "overwrite"), b"1")]
        eventually(lambda: account.calls)
        with pytest.raises(Interruption):
            grouped.commit(Commit("/file", "overwrite"), b"old")
        calls += [pool.submit(grouped.commit, Commit("/other", "overwrite"), b"1") for _ in range(others)]
        assert not others or waiting.wait(DEADLINE_SECONDS)
        gate.set()
        for call in calls:
            call.result(DEADLINE_SECONDS)
        account.files["/file"] = b"new"
        pool.submit(grouped.commit, Commit("/next", "overwrite"), b"1").result(DEADLINE_SECONDS)
    assert account.files["/file"] == b"new"


def test_who_is_interrupted_as_he_gathers_a_group_leaves_it_to_the_next(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold_first(account)
    grouped = GroupCommit(account)
    keys: list[str] = []

    def key(path: str) -> str:
        keys.append(path)
        if len(keys) == 4:  # after that of the first, which is held up, and of two others
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(paths, "key", key)
    with ThreadPoolExecutor(5) as pool:
        calls = []
        for number in range(5):
            calls.append(pool.submit(grouped.commit, Commit(f"/{number}", "add"), b"x"))
            eventually(lambda: account.calls and len(grouped._queue) == len(calls) - 1)
        gate.set()
        with pytest.raises(KeyboardInterrupt):
            calls.pop(1).result(DEADLINE_SECONDS)
        for call in calls:
            assert call.result(DEADLINE_SECONDS)
    assert set(account.files) == {"/0", "/2", "/3", "/4"}


def test_a_stalled_commit_does_not_hold_up_the_others(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "PATIENCE_SECONDS", 0.05)
    gate = hold_first(account)
    grouped = GroupCommit(account)
    with ThreadPoolExecutor(4) as pool:
        stalled = pool.submit(grouped.commit, Commit("/stalled", "add"), b"x")
        eventually(lambda: account.calls)
        others = [pool.submit(grouped.commit, Commit(f"/{number}", "add"), b"y") for number in range(3)]
        for other in others:
            other.result(DEADLINE_SECONDS)
        assert not stalled.done()
        gate.set()
        stalled.result(DEADLINE_SECONDS)
    assert set(account.files) == {"/stalled", "/0", "/1", "/2"}


def test_a_group_waits_a_moment_for_those_just_served(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers that each wait for their own commit come back one after the other; still they stay together."""
    monkeypatch.setattr(group_commit, "GATHER_SECONDS", 2.0)
    monkeypatch.setattr(group_commit, "LONGEST_GATHER_SECONDS", 2.0)
    grouped = GroupCommit(account)
    gate = hold_first(account)

    def write(writer: int) -> None:
        for number in range(10):
            grouped.commit(Commit(f"/{writer}-{number}", "add"), b"x")

    with ThreadPoolExecutor(8) as pool:
        writers = [pool.submit(write, writer) for writer in range(8)]
        eventually(lambda: len(grouped._queue) == 7)
        gate.set()
        for each in writers:
            each.result(20)
    assert len(account.files) == 80
    assert account.calls["upload"] + account.calls["finish_batch"] <= 13


def test_a_lone_writer_waits_for_nobody(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "GATHER_SECONDS", 100.0)
    monkeypatch.setattr(group_commit, "LONGEST_GATHER_SECONDS", 100.0)
    grouped = GroupCommit(account)
    for number in range(5):
        grouped.commit(Commit(f"/{number}", "add"), b"x")
    assert account.calls == {"upload": 5}
