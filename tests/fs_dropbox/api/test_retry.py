"""Calls are repeated when it helps and does no harm; a 429 stops everyone whom it concerns. With a clock of our own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

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
from fs_dropbox.errors import ApiError, AuthError, TransportError
from tests.waiting import DEADLINE_SECONDS, eventually


class FakeClock:
    """Waits take no time, and are written down."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> object:
        if not event.is_set():
            self.waits.append(seconds)
            self.now += seconds
        return event.is_set()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Script:
    """An attempt that does what it is told, one thing after the other."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)
        self.tries = 0

    def __call__(self, left: float) -> object:
        self.tries += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def run(clock: FakeClock, attempt: Callable[[float], Any], governor: Governor | None = None, **arguments: Any) -> Any:
    policy = arguments.pop("policy", RetryPolicy(attempts=4, deadline_seconds=60.0))
    retry = Retry(policy, governor or Governor(clock), clock=clock, chance=lambda: 1.0)
    defaults: dict[str, Any] = {"route": "r", "traffic": Traffic.READ, "waiter": Waiter(clock), "repeatable": True}
    return retry.run(attempt, **(defaults | arguments))


def busy(seconds: float | None = None, tag: str = "too_many_requests") -> ApiError:
    return ApiError("r", (tag,), status=429, retry_after=seconds)


def test_transient_failures_are_repeated_with_growing_pauses(clock: FakeClock) -> None:
    attempt = Script(TransportError("reset"), TransportError("server"), TransportError("cut"), "done")
    assert run(clock, attempt) == "done"
    assert clock.waits == [0.5, 1.0, 2.0]


def test_attempts_are_bounded(clock: FakeClock) -> None:
    attempt = Script(*[TransportError("reset")] * 9)
    with pytest.raises(TransportError):
        run(clock, attempt)
    assert attempt.tries == 4


def test_pauses_are_bounded_and_random() -> None:
    policy = RetryPolicy(first_pause_seconds=1.0, longest_pause_seconds=5.0)
    assert policy.pause_seconds(1, 0.0) == 0.5
    assert policy.pause_seconds(1, 1.0) == 1.0
    assert policy.pause_seconds(50, 1.0) == 5.0


@pytest.mark.parametrize(
    "error",
    [
        ApiError("r", ("path", "not_found")),
        TransportError("tls"),
        TransportError("closed"),
        *[TransportError("protocol", f"status {status}", status=status) for status in (403, 404, 413, 418, 451, 501)],
    ],
    ids=str,
)
def test_permanent_failures_are_not_repeated(clock: FakeClock, error: Exception) -> None:
    attempt = Script(error)
    with pytest.raises(type(error)):
        run(clock, attempt)
    assert attempt.tries == 1


@pytest.mark.parametrize("status", [408, 409, 425, 499, 502])
def test_answers_that_may_be_otherwise_next_time_are_asked_for_again(clock: FakeClock, status: int) -> None:
    attempt = Script(TransportError("protocol", f"status {status}", status=status), "done")
    assert run(clock, attempt) == "done"


def test_the_deadline_ends_it(clock: FakeClock) -> None:
    def attempt(left: float) -> object:
        clock.now += 25.0
        raise TransportError("timeout")

    with pytest.raises(TransportError):
        run(clock, attempt, policy=RetryPolicy(attempts=99, deadline_seconds=60.0))
    assert clock.now < 1000 + 60 + 26


def test_retry_after_is_waited_for_whatever_the_number_of_attempts(clock: FakeClock) -> None:
    attempt = Script(*[busy(7.0)] * 6, "done")
    assert run(clock, attempt) == "done"
    assert clock.waits == [7.0] * 6


def test_a_429_without_retry_after_waits_all_the_same(clock: FakeClock) -> None:
    assert run(clock, Script(busy(), "done")) == "done"
    assert clock.waits == [1.0]


def test_a_429_that_asks_for_no_pause_is_not_asked_again_at_once(clock: FakeClock) -> None:
    """Of a server that says `Retry-After: 0` for two minutes, thousands of requests would be made."""
    attempt = Script(*[busy(0.0)] * 99)
    with pytest.raises(ApiError):
        run(clock, attempt)
    assert clock.waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 16.0]


def test_a_wait_beyond_the_deadline_is_refused_at_once(clock: FakeClock) -> None:
    attempt = Script(busy(300.0), "done")
    with pytest.raises(ApiError) as caught:
        run(clock, attempt)
    assert (attempt.tries, clock.waits) == (1, [])
    assert caught.value.retry_after == pytest.approx(300.0)


def test_what_is_not_repeatable_is_never_sent_again_blindly(clock: FakeClock) -> None:
    attempt = Script(TransportError("reset"), "twice")
    with pytest.raises(TransportError):
        run(clock, attempt, repeatable=False)
    assert attempt.tries == 1


def test_what_never_left_is_sent_again(clock: FakeClock) -> None:
    attempt = Script(TransportError("connect", was_sent=False), "done")
    assert run(clock, attempt, repeatable=False, settle=lambda: pytest.fail("there is nothing to settle")) == "done"


def test_a_lost_answer_is_settled_before_it_is_sent_again(clock: FakeClock) -> None:
    attempt = Script(TransportError("reset"), "done")
    assert run(clock, attempt, repeatable=False, settle=lambda: "landed") == "landed"
    assert attempt.tries == 1


def test_what_did_not_take_place_is_sent_again(clock: FakeClock) -> None:
    attempt = Script(TransportError("reset"), "done")
    assert run(clock, attempt, repeatable=False, settle=lambda: None) == "done"


def test_a_refusal_after_doubt_is_settled_too(clock: FakeClock) -> None:
    """The first try may have arrived after we looked: then the second is refused because of our own work."""
    looks = iter([None, "landed"])
    attempt = Script(TransportError("timeout"), ApiError("r", ("path", "conflict", "folder")))
    assert run(clock, attempt, repeatable=False, settle=lambda: next(looks)) == "landed"


def test_a_plain_refusal_is_not_settled(clock: FakeClock) -> None:
    attempt = Script(ApiError("r", ("path", "conflict", "folder")))
    with pytest.raises(ApiError) as caught:
        run(clock, attempt, repeatable=False, settle=lambda: pytest.fail("there is no doubt"))
    assert not caught.value.was_repeated


def test_what_cannot_be_settled_is_not_sent_again(clock: FakeClock) -> None:
    def settle() -> None:
        raise TransportError("connect", was_sent=False)

    attempt = Script(TransportError("reset"), "twice")
    with pytest.raises(TransportError) as caught:
        run(clock, attempt, repeatable=False, settle=settle)
    assert (attempt.tries, caught.value.kind) == (1, "reset")


def test_internal_error_is_doubtful(clock: FakeClock) -> None:
    attempt = Script(ApiError("r", ("internal_error",)), "twice")
    assert run(clock, attempt, repeatable=False, settle=lambda: "landed") == "landed"


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

    slow.wait = wait  # type: ignore[method-assign]
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


@pytest.mark.parametrize("was_sent", [True, False])
def test_a_refusal_tells_whether_an_earlier_try_may_have_been_carried_out(clock: FakeClock, was_sent: bool) -> None:
    with pytest.raises(ApiError) as caught:
        run(clock, Script(TransportError("reset", was_sent=was_sent), ApiError("r", ("closed",))))
    assert caught.value.was_repeated is was_sent


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


@pytest.mark.parametrize("held_up_by", ["pause", "freeze", "slot"])
def test_every_wait_can_be_interrupted(held_up_by: str) -> None:
    governor = Governor()
    retry = Retry(RetryPolicy(first_pause_seconds=60.0, longest_pause_seconds=60.0, deadline_seconds=90.0), governor)
    waiter = Waiter(SystemClock())
    tried = threading.Event()
    if held_up_by == "freeze":
        governor.throttle(Traffic.WRITE, 60.0, lock_contention=False)
    if held_up_by == "slot":
        for _ in range(FIRST_WRITERS):
            governor.admit(Traffic.WRITE, Waiter(SystemClock()), "r", time.monotonic() + 1)

    def attempt(left: float) -> None:
        tried.set()
        raise TransportError("reset")

    def write() -> object:
        try:
            return retry.run(attempt, route="r", traffic=Traffic.WRITE, waiter=waiter, repeatable=True)
        except TransportError as error:
            return error.kind

    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(write)
        if held_up_by == "pause":
            assert tried.wait(30)
        waiter.interrupt(TransportError("closed"))
        assert outcome.result(timeout=30) == "closed"


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


def test_a_server_in_trouble_is_left_alone_as_long_as_it_asks(clock: FakeClock) -> None:
    trouble = TransportError("server", status=503)
    trouble.retry_after = 20.0
    assert run(clock, Script(trouble, "done")) == "done"
    assert clock.waits == [20.0]


def test_where_nobody_is_found_the_policy_decides_how_often_to_look(clock: FakeClock) -> None:
    attempt = Script(*[TransportError("connect", was_sent=False)] * 9)
    with pytest.raises(TransportError):
        run(clock, attempt, policy=RetryPolicy(connect_attempts=2, first_pause_seconds=0.25))
    assert (attempt.tries, clock.waits) == (2, [0.25])


def test_the_waiter_s_policy_comes_first(clock: FakeClock) -> None:
    waiter = Waiter(clock)
    waiter.policy = RetryPolicy(attempts=9, deadline_seconds=3.0)
    attempt = Script(*[TransportError("timeout")] * 9)
    with pytest.raises(TransportError):
        run(clock, attempt, waiter=waiter)
    assert clock.now <= 1003.0


@pytest.mark.parametrize("stopped", [False, True], ids=["not settled", "stopped"])
def test_an_outcome_that_is_not_known_is_marked(clock: FakeClock, stopped: bool) -> None:
    waiter = Waiter(clock)

    def attempt(left: float) -> None:
        if stopped:
            waiter.interrupt(TransportError("closed"))
        raise TransportError("reset")

    def settle() -> None:
        raise TransportError("connect", was_sent=False)

    with pytest.raises(TransportError) as caught:
        run(clock, attempt, waiter=waiter, repeatable=False, settle=settle)
    assert caught.value.is_unsettled
    assert caught.value.kind == ("closed" if stopped else "reset")


@pytest.mark.parametrize(
    ("last", "is_unsettled"),
    [
        (TransportError("timeout"), True),
        (TransportError("reset"), True),
        (TransportError("server", status=504), True),
        (busy(90.0), True),
        (AuthError("r", ("expired_access_token",)), True),
        (TransportError("connect", was_sent=False), True),
        (ApiError("r", ("path", "conflict", "file")), False),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "",
)
def test_what_nobody_has_answered_may_be_carried_out_after_the_last_look(
    clock: FakeClock, last: ApiError | TransportError, is_unsettled: bool
) -> None:
    lost = TransportError("reset")
    with pytest.raises((ApiError, TransportError)) as caught:
        run(clock, Script(lost, *[last] * 9), repeatable=False, settle=lambda: None)
    assert caught.value.is_unsettled == is_unsettled


@pytest.mark.parametrize("answer", [TransportError("server", status=500), TransportError("cut")])
def test_what_was_answered_is_settled_by_a_look(clock: FakeClock, answer: TransportError) -> None:
    with pytest.raises(TransportError) as caught:
        run(clock, Script(*[answer] * 9), repeatable=False, settle=lambda: None)
    assert not caught.value.is_unsettled


@pytest.mark.parametrize("stopped", [False, True], ids=["throttled", "stopped"])
def test_what_nobody_has_answered_and_is_not_asked_again_is_not_known(clock: FakeClock, stopped: bool) -> None:
    governor, waiter = Governor(clock), Waiter(clock)

    def settle() -> None:
        governor.throttle(Traffic.WRITE, 3600.0, lock_contention=False)
        if stopped:
            waiter.interrupt(TransportError("closed"))

    with pytest.raises((ApiError, TransportError)) as caught:
        run(
            clock,
            Script(TransportError("timeout")),
            governor,
            waiter=waiter,
            traffic=Traffic.WRITE,
            repeatable=False,
            settle=settle,
        )
    assert caught.value.is_unsettled
