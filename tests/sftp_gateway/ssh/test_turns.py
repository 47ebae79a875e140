"""Turns save time and cost none: who waits gets the turn soon, or goes on without."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from sftp_gateway.ssh import turns
from sftp_gateway.ssh.turns import Turn
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def no_truce(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(turns, "_lock", threading.Lock())
    monkeypatch.setattr(turns, "_nobody_waits_until", 0.0)
    yield
    assert turns._lock.acquire(blocking=False), "a turn was kept"


def in_thread(work: object) -> None:
    thread = threading.Thread(target=work)  # type: ignore[arg-type]
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


def test_one_has_the_turn() -> None:
    first = Turn()
    first.take()
    first.take()
    assert not turns._lock.acquire(blocking=False)
    first.give()
    first.give()


def test_who_waits_gets_it_when_it_is_given() -> None:
    first, second = Turn(), Turn()
    first.take()
    had: list[bool] = []

    def follow() -> None:
        second.take()
        had.append(second._mine)
        second.give()

    thread = threading.Thread(target=follow)
    thread.start()
    first.give()
    thread.join(30)
    assert had == [True]


def test_another_thread_gives_nothing_away() -> None:
    turn = Turn()
    turn.take()
    in_thread(turn.give)
    assert not turns._lock.acquire(blocking=False)
    turn.give()


def test_nobody_waits_for_one_that_is_stuck() -> None:
    stuck = Turn()
    stuck.take()

    def work() -> None:
        turn = Turn()
        begun = time.monotonic()
        for _ in range(1000):
            turn.take()
            turn.give()
        assert time.monotonic() - begun < 10
        waited.append(time.monotonic() - begun)

    waited: list[float] = []
    in_thread(work)
    assert len(waited) == 1
    assert waited[0] >= turns.STUCK_SECONDS
    stuck.give()


def test_it_is_worth_waiting_for_those_who_take_turns() -> None:
    """Many who each have it for a moment: nobody is stuck, and all get it."""
    stop = threading.Event()
    counts = [0] * 6

    def work(number: int) -> None:
        turn = Turn()
        while not stop.is_set():
            turn.take()
            if turn._mine:
                counts[number] += 1
                time.sleep(0.001)
            turn.give()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: min(counts) >= 5, lambda: f"some have it too seldom: {counts}")
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
