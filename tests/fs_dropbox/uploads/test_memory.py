"""Memory that many files share."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fs_dropbox.uploads.memory import Allowance, Buffer
from tests.waiting import eventually

DATA = random.Random(5).randbytes(3_000_000)


def fill(buffer: Buffer, data: bytes, piece: int = 70_000) -> None:
    for start in range(0, len(data), piece):
        buffer.append(memoryview(data)[start : start + piece])


def test_an_allowance_is_kept_to_and_waiters_go_in_turn() -> None:
    allowance = Allowance(100)
    allowance.take(80)
    assert not allowance.try_take(30)
    assert allowance.try_take(20)
    order: list[int] = []

    def take(size: int) -> None:
        allowance.take(size)
        order.append(size)

    threads = []
    for size in (90, 5):
        threads.append(threading.Thread(target=take, args=(size,)))
        threads[-1].start()
        eventually(lambda: len(allowance._queue) == len(threads))
    allowance.give(20)
    assert not allowance.try_take(1)  # others came first
    assert order == []
    allowance.give(80)
    for thread in threads:
        thread.join(30)
    assert sorted(order) == [5, 90]
    assert allowance.taken_bytes == 95


def test_more_than_there_is_at_all_is_given_to_who_is_alone() -> None:
    allowance = Allowance(100)
    allowance.take(1000)
    allowance.give(1000)
    assert allowance.taken_bytes == 0


def test_a_buffer_gives_back_what_it_took() -> None:
    allowance = Allowance(4_000_000)
    buffer = Buffer(allowance)
    for _ in range(2):
        fill(buffer, DATA)
        assert len(DATA) <= allowance.taken_bytes <= 4_000_000
        assert (len(buffer), buffer.is_on_disk) == (len(DATA), False)
        assert buffer.take() == DATA
        assert (len(buffer), allowance.taken_bytes) == (0, 0)


def test_a_part_may_be_taken() -> None:
    for total in (10_000_000, 1000):  # in memory, on disk
        allowance = Allowance(total)
        buffer = Buffer(allowance)
        fill(buffer, DATA)
        assert buffer.is_on_disk == (total == 1000)
        assert buffer.take(1_000_000) == DATA[:1_000_000]
        assert len(buffer) == len(DATA) - 1_000_000
        buffer.append(memoryview(b"more"))
        assert buffer.take(10**8) == DATA[1_000_000:] + b"more"
        assert allowance.taken_bytes == 0


def test_what_does_not_fit_waits_on_disk() -> None:
    allowance = Allowance(4_000_000)
    buffers = [Buffer(allowance) for _ in range(5)]
    for start in range(0, len(DATA), 500_000):
        for buffer in buffers:
            fill(buffer, DATA[start : start + 500_000])
            assert allowance.taken_bytes <= 4_000_000
    assert any(buffer.is_on_disk for buffer in buffers)
    assert all(buffer.take() == DATA for buffer in buffers)
    assert allowance.taken_bytes == 0
    fill(buffers[-1], DATA)
    assert not buffers[-1].is_on_disk  # there is room again
    buffers[-1].close()


def test_closing_while_others_fill_leaves_nothing() -> None:
    allowance = Allowance(2_000_000)
    buffers = [Buffer(allowance) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        fills = [pool.submit(fill, buffer, DATA, 1000) for buffer in buffers]
        closes = [pool.submit(buffer.close) for buffer in buffers]
        for future in (*fills, *closes):
            future.result(30)
    assert allowance.taken_bytes == 0
    assert [len(buffer) for buffer in buffers] == [0] * 4


def test_a_forgotten_buffer_gives_back() -> None:
    allowance = Allowance(2_000_000)
    buffer = Buffer(allowance)
    buffer.append(memoryview(b"x" * 1000))
    assert allowance.taken_bytes == 1000
    del buffer
    assert allowance.taken_bytes == 0


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_buffer_may_be_forgotten_in_the_middle_of_anything(on_disk: bool) -> None:
    """The garbage collector runs finalizers in any thread: in one, too, that has the lock they would want."""
    allowance = Allowance(1000)
    buffers = [Buffer(allowance)]
    for _ in range(2 if on_disk else 1):
        buffers[0].append(memoryview(b"x" * 1000))
    assert buffers[0].is_on_disk == on_disk

    def forget() -> None:
        with allowance._lock:
            buffers.clear()

    forgetting = threading.Thread(target=forget, daemon=True)
    forgetting.start()
    forgetting.join(30)
    assert not forgetting.is_alive()
    assert allowance.taken_bytes == 0
    assert allowance.try_take(1000)
