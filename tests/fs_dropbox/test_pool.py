"""`Pool`: what is submitted is done, whatever number of threads the machine has for it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

from fs_dropbox.pool import Pool
from tests.fs_dropbox.scarce_threads import allow_threads
from tests.root import ROOT


def test_what_is_submitted_is_done_by_as_many_threads_as_are_needed() -> None:
    together = threading.Barrier(4)
    with Pool(4, "test") as pool:
        assert pool.submit(lambda: 1).result() == 1
        assert sorted(pool.map(lambda _: together.wait(20), range(4))) == [0, 1, 2, 3]
        assert list(pool.map(lambda number: number * 2, range(100))) == list(range(0, 200, 2))
    with pytest.raises(RuntimeError):
        pool.submit(print)


@pytest.mark.parametrize("most", [0, 1, 2])
def test_it_makes_do_with_fewer(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    allow_threads(monkeypatch, "test", most)
    used = set()

    def work(number: int) -> int:
        used.add(threading.current_thread())
        return number

    with Pool(5, "test") as pool:
        assert list(pool.map(work, range(50))) == list(range(50))
        with pytest.raises(ZeroDivisionError):
            pool.submit(lambda: 1 // 0).result()
    assert len(used) <= most + 1, "and whoever submits"


def test_an_interruption_is_for_whoever_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def press() -> None:
        raise KeyboardInterrupt

    with Pool(1, "test") as pool:
        assert isinstance(pool.submit(press).exception(), KeyboardInterrupt)
    allow_threads(monkeypatch, "test", 0)
    with Pool(1, "test") as pool, pytest.raises(KeyboardInterrupt):
        pool.submit(press)


def test_what_was_not_begun_can_be_given_up() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        assert may_end.wait(20)
        return "done"

    with Pool(1, "test") as pool:
        futures: list[Any] = [pool.submit(work) for work in (first, _never)]
        assert begun.wait(20)
        pool.shutdown(wait=False, cancel_futures=True)
        may_end.set()
        assert futures[0].result() == "done"
        with pytest.raises(CancelledError):
            futures[1].result(20)


def test_a_pool_that_nobody_has_ended_ends_with_its_process() -> None:
    program = "from fs_dropbox.pool import Pool; pool = Pool(2, 'test'); print(pool.submit(abs, -1).result())"
    command = (sys.executable, "-W", "ignore", "-c", program)
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True).stdout == b"1\n"


_never: Callable[[], str] = lambda: "never"  # noqa: E731
