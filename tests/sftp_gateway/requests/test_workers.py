"""The pool grows, shrinks, keeps its limit, and never lets one session starve another."""

from __future__ import annotations

import threading

import pytest

from sftp_gateway.requests.workers import Workers
from tests.waiting import eventually

DEADLINE = 10.0


def test_work_is_done_by_few_threads_that_go_away() -> None:
    workers = Workers(4, idle_seconds=0.05)
    names: set[str] = set()
    done = threading.Semaphore(0)

    def work() -> None:
        names.add(threading.current_thread().name)
        done.release()

    for _ in range(100):
        workers.submit(work)
    for _ in range(100):
        assert done.acquire(timeout=DEADLINE)
    assert 1 <= len(names) <= 4
    eventually(lambda: not workers._threads)
    assert workers.close()


def test_urgent_work_does_not_wait_for_stuck_threads() -> None:
    workers = Workers(2)
    let_go, urgent, patient = threading.Event(), threading.Event(), threading.Event()
    for _ in range(2):
        workers.submit(lambda: let_go.wait(5 * DEADLINE))
    workers.submit(patient.set)
    workers.submit(urgent.set, urgent=True)
    assert urgent.wait(DEADLINE)
    let_go.set()
    assert patient.wait(DEADLINE)
    assert workers.close()


def test_work_that_raises_ends_nothing(caplog: object) -> None:
    workers = Workers(1)
    done = threading.Event()

    def fail() -> None:
        raise RuntimeError("no")

    workers.submit(fail)
    workers.submit(done.set)
    assert done.wait(DEADLINE)
    assert workers.close()
    late = threading.Event()
    workers.submit(late.set)
    assert late.wait(DEADLINE)


def refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_where_there_are_no_more_threads_those_that_are_there_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(2)
    let_go, done = threading.Event(), threading.Event()
    workers.submit(lambda: let_go.wait(5 * DEADLINE))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        workers.submit(done.set, urgent=True)
    let_go.set()
    assert done.wait(DEADLINE)
    assert workers.close()


def test_where_there_are_no_threads_at_all_work_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(2)
    first, next_one = threading.Event(), threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        workers.submit(first.set)
    assert workers.load == (0, 0, 1)
    workers.submit(next_one.set)
    assert first.wait(DEADLINE)
    assert next_one.wait(DEADLINE)
    assert workers.close()
