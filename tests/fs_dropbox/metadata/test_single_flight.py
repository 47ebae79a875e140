"""Equal calls under way at the same time are one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fs_dropbox.metadata.single_flight import SingleFlight
from tests.waiting import DEADLINE_SECONDS, eventually


def test_equal_calls_in_flight_are_one() -> None:
    flights = SingleFlight()
    gate = threading.Event()
    calls = []

    def work() -> int:
        calls.append(1)
        assert gate.wait(DEADLINE_SECONDS)
        return len(calls)

    with ThreadPoolExecutor(20) as pool:
        asking = [pool.submit(flights.do, "key", work) for _ in range(20)]
        eventually(lambda: len(flights._calls) == 1 and len(flights._calls["key"]._condition._waiters) == 19)  # type: ignore[attr-defined]
        gate.set()
        results = [call.result(DEADLINE_SECONDS) for call in asking]
    assert len(calls) == 1
    assert results == [1] * 20
    assert flights.do("key", lambda: 99) == 99


def test_an_error_is_shared_and_forgotten() -> None:
    flights = SingleFlight()

    def fail() -> None:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        flights.do("key", fail)
    assert flights.do("key", lambda: 1) == 1
