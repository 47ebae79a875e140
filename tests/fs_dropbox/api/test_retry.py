"""Calls are repeated when it helps and does no harm. With a clock of our own."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fs_dropbox.api.retry import (
    FIRST_WRITERS,
    Governor,
    Retry,
    RetryPolicy,
    SystemClock,
    Traffic,
    Waiter,
)
from fs_dropbox.errors import ApiError, AuthError, DropboxError, TransportError
from tests.fs_dropbox.api.scripted_calls import FakeClock, Script, busy, run


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


@pytest.mark.parametrize("was_sent", [True, False])
def test_a_refusal_tells_whether_an_earlier_try_may_have_been_carried_out(clock: FakeClock, was_sent: bool) -> None:
    with pytest.raises(ApiError) as caught:
        run(clock, Script(TransportError("reset", was_sent=was_sent), ApiError("r", ("closed",))))
    assert caught.value.was_repeated is was_sent


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
    clock: FakeClock, last: DropboxError, is_unsettled: bool
) -> None:
    lost = TransportError("reset")
    with pytest.raises(DropboxError) as caught:
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

    with pytest.raises(DropboxError) as caught:
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
