"""`Bell`: who listens sleeps, and wakes for what is worth it, wherever it was rung."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sftp_gateway.write_back.bell import Bell
from tests.waiting import eventually

LONG_SECONDS = 20.0


@pytest.fixture
def bells(tmp_path: Path) -> Iterator[list[Bell]]:
    """One that is listened to, and another process's (which differs in nothing but its descriptors)."""
    with ExitStack() as stack:
        made = [Bell(tmp_path) for _ in range(2)]
        for bell in made:
            stack.callback(bell.close)
        made[0].listen()
        yield made


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("urgent", [False, True])
def test_it_wakes_who_sleeps(bells: list[Bell], who: int, urgent: bool) -> None:
    heard: list[bool] = []
    sleeper = threading.Thread(target=lambda: heard.append(bells[0].wait(LONG_SECONDS, urgent=urgent)))
    sleeper.start()
    eventually(lambda: bells[0]._wakes <= 2)
    began = time.monotonic()
    bells[who].ring(urgent=urgent)
    sleeper.join()
    assert heard == [True]
    assert time.monotonic() - began < LONG_SECONDS / 2


@pytest.mark.parametrize("who", [0, 1])
def test_what_was_rung_before_is_heard(bells: list[Bell], who: int) -> None:
    bells[who].ring()
    assert bells[0].wait(LONG_SECONDS)
    assert not bells[0].wait(0.01), "once"


@pytest.mark.parametrize("who", [0, 1])
def test_news_wake_nobody_who_waits_for_what_is_urgent(bells: list[Bell], who: int) -> None:
    bells[who].ring()
    began = time.monotonic()
    assert not bells[0].wait(0.2, urgent=True)
    assert time.monotonic() - began >= 0.2


def test_ringing_where_nobody_listens_is_nothing(bells: list[Bell], tmp_path: Path) -> None:
    bells[1].ring()
    bells[0].close()
    bells[1].ring()
    bells[1].ring()
    with ExitStack() as stack:
        successor = Bell(tmp_path)
        stack.callback(successor.close)
        successor.listen()
        assert not successor.wait(0.01)
        bells[1].ring()
        assert successor.wait(LONG_SECONDS), "whoever rang before finds who listens now"
    Bell(tmp_path / "nowhere").ring()


def test_without_named_pipes_it_rings_within_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("mkfifo")

    monkeypatch.setattr("os.mkfifo", refuse)
    with ExitStack() as stack:
        bell = Bell(tmp_path)
        stack.callback(bell.close)
        bell.listen()
        bell.listen()
        sleeper = threading.Thread(target=bell.wait, args=(LONG_SECONDS,))
        began = time.monotonic()
        sleeper.start()
        eventually(lambda: bell._wakes <= 2)
        bell.ring()
        sleeper.join()
        assert time.monotonic() - began < LONG_SECONDS / 2
        bell.close()


def test_it_can_be_rung_without_end(bells: list[Bell]) -> None:
    for _ in range(100_000):  # more than a pipe holds
        bells[1].ring()
    assert bells[0].wait(LONG_SECONDS)


def test_it_wakes_another_process(bells: list[Bell], tmp_path: Path) -> None:
    module = "sftp_gateway.write_back.bell"
    ring = f"import pathlib, sys; from {module} import Bell; Bell(pathlib.Path(sys.argv[1])).ring(urgent=True)"
    subprocess.run([sys.executable, "-c", ring, str(tmp_path)], check=True)
    assert bells[0].wait(LONG_SECONDS, urgent=True)
