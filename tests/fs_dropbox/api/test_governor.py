"""What one call is told of the account holds back all whom it concerns, and commits take their turns."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fs_dropbox.api.retry import (
    FIRST_WRITERS,
    LONGEST_FREEZE_SECONDS,
    MOST_WRITERS,
    SUCCESSES_FOR_ANOTHER_WRITER,
    Governor,
    Retry,
    RetryPolicy,
    SystemClock,
    Traffic,
    Waiter,
)
from fs_dropbox.errors import ApiError, TransportError
from tests.fs_dropbox.api.scripted_calls import FakeClock, Script, busy, run
from tests.waiting import DEADLINE_SECONDS, eventually


def test_a_throttled_writer_stops_writers_and_no_reader(clock: FakeClock) -> None:
    governor = Governor(clock)
    with pytest.raises(ApiError):
        run(clock, Script(busy(100.0)), governor, traffic=Traffic.WRITE)
    assert governor.throttled_until == 1100.0
    assert run(clock, Script("read"), governor, traffic=Traffic.READ) == "read"
    assert clock.waits == []
    for traffic in (Traffic.WRITE, Traffic.DATA):
        with pytest.raises(ApiError):
            run(clock, Script("never"), governor, traffic=traffic)
    clock.now += 100.0
    assert governor.throttled_until is None
    assert run(clock, Script("written"), governor, traffic=Traffic.WRITE) == "written"


def test_a_shorter_wait_ends_no_longer_one(clock: FakeClock) -> None:
    governor = Governor(clock)
    for seconds in (60.0, 1.0):
        governor.throttle(Traffic.DATA, seconds, lock_contention=False)
    governor.throttle(Traffic.WRITE, 2.0, lock_contention=True)
    assert governor.throttled_until == 1060.0
    governor.throttle(Traffic.READ, 500.0, lock_contention=False)
    assert governor.throttled_until == 1060.0, "readers that are held up hold up no writer"


def test_contention_stops_commits_only_and_makes_them_fewer(clock: FakeClock) -> None:
    governor = Governor(clock)
    run(clock, Script(busy(1.0, "too_many_write_operations"), "done"), governor, traffic=Traffic.WRITE)
    assert clock.waits == [1.0]
    assert governor.writers == FIRST_WRITERS // 2
    governor.throttle(Traffic.WRITE, 5.0, lock_contention=True)
    assert run(clock, Script("data"), governor, traffic=Traffic.DATA) == "data"
    assert clock.waits == [1.0]


def test_writers_become_more_again(clock: FakeClock) -> None:
    governor = Governor(clock)
    for _ in range(3):
        governor.throttle(Traffic.WRITE, 0.0, lock_contention=True)
    assert governor.writers == 1
    for _ in range(1000):
        run(clock, Script("done"), governor, traffic=Traffic.WRITE)
    assert governor.writers == MOST_WRITERS


def test_contention_takes_all_that_has_gone_well_before_back(clock: FakeClock) -> None:
    governor = Governor(clock)
    for _ in range(SUCCESSES_FOR_ANOTHER_WRITER - 1):
        run(clock, Script("done"), governor, traffic=Traffic.WRITE)
    governor.throttle(Traffic.WRITE, 0.0, lock_contention=True)
    run(clock, Script("done"), governor, traffic=Traffic.WRITE)
    assert governor.writers == FIRST_WRITERS // 2


@pytest.mark.parametrize("gives_up", [True, False])
def test_where_two_turns_come_free_at_once_the_second_is_woken_too(gives_up: bool) -> None:
    """By the first, which has not woken up by then: whether it takes its turn or is interrupted."""
    governor, deadline = Governor(), time.monotonic() + 2 * DEADLINE_SECONDS
    slow, other, are_free = Waiter(SystemClock()), Waiter(SystemClock()), threading.Event()

    def wait(seconds: float) -> None:
        assert are_free.wait(DEADLINE_SECONDS)
        if gives_up:
            raise TransportError("interrupted")

    slow.wait = wait
    writing = [Waiter(SystemClock()) for _ in range(FIRST_WRITERS)]
    for each in writing:
        governor.admit(Traffic.WRITE, each, "r", deadline)
    with ThreadPoolExecutor(2) as pool:
        for waiting, waiter in enumerate((slow, other), start=1):
            admitted = pool.submit(governor.admit, Traffic.WRITE, waiter, "r", deadline)
            eventually(lambda waiting=waiting: len(governor._queue) == waiting)  # type: ignore[misc]
        for each in writing[:2]:
            governor.release(Traffic.WRITE, each)
        are_free.set()
        admitted.result(DEADLINE_SECONDS)


@pytest.mark.parametrize(
    "failure", [ApiError("r", ("path", "conflict")), TransportError("reset"), busy(1.0), ZeroDivisionError()], ids=str
)
def test_a_commit_that_fails_gives_its_turn_back(clock: FakeClock, failure: Exception) -> None:
    governor = Governor(clock)
    for _ in range(2 * MOST_WRITERS):
        with pytest.raises(type(failure)):
            run(clock, Script(failure), governor, traffic=Traffic.WRITE, policy=RetryPolicy(1, deadline_seconds=0.5))
        clock.now += 1.0
    assert run(clock, Script("done"), governor, traffic=Traffic.WRITE) == "done"


def test_a_throttled_reader_stops_readers(clock: FakeClock) -> None:
    governor = Governor(clock)
    governor.throttle(Traffic.READ, 3.0, lock_contention=False)
    assert run(clock, Script("written"), governor, traffic=Traffic.WRITE) == "written"
    assert run(clock, Script("read"), governor, traffic=Traffic.READ) == "read"
    assert clock.waits == [3.0]


def test_commits_at_the_same_time_are_bounded_and_all_get_their_turn() -> None:
    governor = Governor()
    retry = Retry(RetryPolicy(deadline_seconds=60.0), governor)
    lock = threading.Lock()
    now, most = 0, 0
    all_that_may = threading.Event()

    def attempt(left: float) -> str:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if most >= FIRST_WRITERS:
                all_that_may.set()
        assert all_that_may.wait(DEADLINE_SECONDS)
        with lock:
            now -= 1
        return "done"

    def write(_: int) -> str:
        return retry.run(attempt, route="r", traffic=Traffic.WRITE, waiter=Waiter(SystemClock()), repeatable=True)

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(write, range(72))) == ["done"] * 72
    assert most <= MOST_WRITERS


def test_who_waits_for_a_commit_is_not_overtaken(clock: FakeClock) -> None:
    governor = Governor(clock)
    writing = [Waiter(clock) for _ in range(FIRST_WRITERS)]
    for each in writing:
        governor.admit(Traffic.WRITE, each, "r", 2000.0)

    class First(Waiter):
        def wait(self, seconds: float) -> None:
            governor.release(Traffic.WRITE, writing[0])
            with pytest.raises(ApiError):
                governor.admit(Traffic.WRITE, Waiter(clock), "r", clock.now)

    governor.admit(Traffic.WRITE, First(clock), "r", 2000.0)


def test_a_writer_that_gives_up_does_not_block_the_next() -> None:
    governor = Governor()
    first = [Waiter(SystemClock()) for _ in range(FIRST_WRITERS)]
    for each in first:
        governor.admit(Traffic.WRITE, each, "r", time.monotonic() + 1)
    with pytest.raises(ApiError):
        governor.admit(Traffic.WRITE, Waiter(SystemClock()), "r", time.monotonic() + 0.01)
    with ThreadPoolExecutor(1) as pool:
        admitted = pool.submit(governor.admit, Traffic.WRITE, Waiter(SystemClock()), "r", time.monotonic() + 20)
        governor.release(Traffic.WRITE, first[0], success=True)
        admitted.result(timeout=30)


def test_nobody_stays_frozen_for_ever(clock: FakeClock) -> None:
    """Whatever answers in Dropbox's place may ask for a week: the account goes on after ten minutes."""
    governor = Governor(clock)
    with pytest.raises(ApiError) as caught:
        run(clock, Script(busy(7 * 86400.0)), governor, traffic=Traffic.WRITE)
    assert caught.value.retry_after == pytest.approx(LONGEST_FREEZE_SECONDS)
    clock.now += LONGEST_FREEZE_SECONDS
    assert run(clock, Script("written"), governor, traffic=Traffic.WRITE) == "written"
