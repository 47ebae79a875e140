"""What a reader of blocks asks for and keeps: nothing twice, nothing after its end, no more at once than one span."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from fs_dropbox.files.blocks import BLOCK_BYTES, SPAN_BLOCKS, BlockBudget, BlockReader
from tests.waiting import eventually

SIZE = 12 * 2**20 + 345
CONTENT = bytes(range(251)) * (SIZE // 251) + bytes(SIZE % 251)


class Origin:
    """Serves ranges of CONTENT, block by block, and remembers which."""

    def __init__(self) -> None:
        self.blocks: list[range] = []
        self.gate = threading.Event()
        self.gate.set()

    def fetch(self, start: int, end: int) -> list[bytes]:
        self.blocks.append(range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES)))
        assert self.gate.wait(30)
        return [CONTENT[at : min(at + BLOCK_BYTES, end)] for at in range(start, end, BLOCK_BYTES)]

    @property
    def asked(self) -> list[int]:
        return sorted(block for blocks in self.blocks for block in blocks)


def block(reader: BlockReader, first: int, last: int | None = None) -> bytes:
    last = first + 1 if last is None else last
    data = reader.read(first * BLOCK_BYTES, (last - first) * BLOCK_BYTES)
    assert data == CONTENT[first * BLOCK_BYTES : last * BLOCK_BYTES]
    return data


def test_a_large_read_asks_for_no_more_than_a_span_at_once() -> None:
    origin = Origin()
    block(BlockReader(origin.fetch, SIZE), 3, 40)
    assert [(blocks.start, blocks.stop) for blocks in origin.blocks] == [(3, 16), (16, 32), (32, 40)]
    assert max(map(len, origin.blocks)) <= SPAN_BLOCKS


def test_what_is_here_or_on_its_way_is_not_asked_for_again() -> None:
    origin = Origin()
    reader = BlockReader(origin.fetch, SIZE)
    block(reader, 12)
    with ThreadPoolExecutor(1) as pool:
        origin.gate.clear()
        other = pool.submit(block, reader, 14)
        eventually(lambda: len(origin.blocks) == 2)
        threading.Timer(0.2, origin.gate.set).start()
        block(reader, 10, 16)
        other.result(30)
    assert origin.asked == [10, 11, 12, 13, 14, 15]


def test_what_was_read_last_is_kept_longest() -> None:
    origin = Origin()
    reader = BlockReader(origin.fetch, SIZE, limit_bytes=4 * BLOCK_BYTES)
    for number in (40, 30, 20, 10, 40, 0):
        block(reader, number)
    asked = len(origin.blocks)
    block(reader, 40)
    assert len(origin.blocks) == asked, "it was read again, and more lately than others"
    block(reader, 30)
    assert len(origin.blocks) == asked + 1


def test_reads_a_little_out_of_order_are_still_fetched_ahead() -> None:
    origin = Origin()
    waiting: list[Callable[[], None]] = []
    reader = BlockReader(origin.fetch, SIZE, submit=waiting.append)
    size = 32_768
    for offset in range(0, 20 * size, 2 * size):
        for at in (offset + size, offset):  # as pipelined requests arrive
            assert reader.read(at, size) == CONTENT[at : at + size]
    assert waiting


def test_whoever_goes_back_to_the_start_is_read_ahead_for_again() -> None:
    origin = Origin()
    waiting: list[Callable[[], None]] = []
    reader = BlockReader(origin.fetch, SIZE, submit=waiting.append, limit_bytes=8 * BLOCK_BYTES)
    for number in range(40):
        block(reader, number)
    waiting.clear()
    for number in range(8):
        block(reader, number)
    assert waiting


def test_what_nobody_has_begun_to_fetch_is_not_fetched_after_the_end() -> None:
    origin = Origin()
    waiting: list[Callable[[], None]] = []
    reader = BlockReader(origin.fetch, SIZE, submit=waiting.append)
    for number in range(3):
        block(reader, number)
    asked = len(origin.blocks)
    reader.close()
    assert waiting
    for work in waiting:
        work()
    assert len(origin.blocks) == asked
    assert not reader._blocks


def test_what_comes_after_the_end_is_not_kept() -> None:
    origin = Origin()
    reader = BlockReader(origin.fetch, SIZE)
    origin.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(block, reader, 5)
        eventually(lambda: bool(origin.blocks))
        reader.close()
        origin.gate.set()
        reading.result(30)
    assert not reader._blocks


def test_a_reader_that_ends_while_it_gets_its_share_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = BlockBudget(8 * BLOCK_BYTES)
    leaving, staying = (BlockReader(Origin().fetch, SIZE, budget=budget) for _ in range(2))
    join = budget.join

    def late(reader: BlockReader) -> None:
        if reader is leaving:
            leaving.close()
        join(reader)

    monkeypatch.setattr(budget, "join", late)
    block(staying, 0)
    block(leaving, 0)
    assert budget.share_blocks == 8


def test_readers_work_on_when_no_thread_can_be_had_any_more() -> None:
    def ended(work: Callable[[], None]) -> None:
        raise RuntimeError("cannot schedule new futures after shutdown")

    reader = BlockReader(Origin().fetch, SIZE, submit=ended)
    for offset in range(0, SIZE, 100_000):
        assert reader.read(offset, 100_000) == CONTENT[offset : offset + 100_000]


@pytest.mark.parametrize("more", [1, -1])
def test_an_answer_of_another_length_is_an_error(more: int) -> None:
    def fetch(start: int, end: int) -> list[bytes]:
        return [CONTENT[start : end + more]]

    with pytest.raises(OSError, match="bytes came instead of"):
        BlockReader(fetch, 1000).read(0, 10)


def test_one_piece_for_many_blocks_makes_blocks() -> None:
    reader = BlockReader(lambda start, end: [CONTENT[start:end]], SIZE)
    block(reader, 1, 9)
    assert {len(kept) for kept in reader._blocks.values()} == {BLOCK_BYTES}


def test_beyond_the_end_is_nothing() -> None:
    reader = BlockReader(Origin().fetch, SIZE)
    for offset, size in ((SIZE, 1), (SIZE + 5, 10), (0, 0), (5, -1)):
        assert reader.read(offset, size) == reader.cached(offset, size) == b""
    assert reader.read(SIZE - 1, 10) == CONTENT[-1:]


def test_what_is_on_its_way_counts_as_kept() -> None:
    origin = Origin()
    waiting: list[Callable[[], None]] = []
    reader = BlockReader(origin.fetch, SIZE, submit=waiting.append, limit_bytes=16 * BLOCK_BYTES)
    for number in range(30):
        block(reader, number)
        assert len(reader._blocks) + len(reader._spans) <= 16 + 1, "what is read now comes on top"
