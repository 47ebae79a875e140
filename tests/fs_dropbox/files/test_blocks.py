"""Reading one content in blocks."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fs_dropbox.files.blocks import ALL_BYTES, BLOCK_BYTES, IDLE_SECONDS, SPAN_BLOCKS, BlockBudget, BlockReader
from tests.waiting import eventually

CONTENT = random.Random(1).randbytes(20 * 2**20 + 12_345)


def pieces(data: bytes) -> list[bytes]:
    return [data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)]


class Origin:
    """Serves ranges of CONTENT and remembers them."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.ranges: list[tuple[int, int]] = []
        self.failures: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()

    def fetch(self, start: int, end: int) -> list[bytes]:
        self.ranges.append((start, end))
        assert self.gate.wait(30)
        if self.failures:
            raise self.failures.pop()
        return pieces(self.content[start:end])

    @property
    def fetched(self) -> int:
        return sum(end - start for start, end in self.ranges)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def read_all(reader: BlockReader, size: int) -> bytes:
    read, offset = [], 0
    while piece := reader.read(offset, size):
        read.append(piece)
        offset += len(piece)
    return b"".join(read)


@pytest.mark.parametrize("size", [1000, 32_768, 261_120, 3_000_000])
def test_sequential_read_fetches_every_byte_once_in_growing_pieces(executor: ThreadPoolExecutor, size: int) -> None:
    origin = Origin(CONTENT if size > 1000 else CONTENT[:2_000_000])
    reader = BlockReader(origin.fetch, len(origin.content), submit=executor.submit)
    assert hashlib.sha256(read_all(reader, size)).digest() == hashlib.sha256(origin.content).digest()
    assert origin.fetched == len(origin.content)
    assert len(origin.ranges) < 40
    assert max(end - start for start, end in origin.ranges) <= 16 * BLOCK_BYTES


def test_small_content_is_one_fetch() -> None:
    origin = Origin(CONTENT[:900_000])
    reader = BlockReader(origin.fetch, 900_000)
    assert reader.read(500_000, 10) == CONTENT[500_000:500_010]
    assert reader.read(0, 900_000) == CONTENT[:900_000]
    assert origin.ranges == [(0, 900_000)]


def test_random_reads_fetch_little_and_backward_seeks_nothing(executor: ThreadPoolExecutor) -> None:
    origin = Origin()
    reader = BlockReader(origin.fetch, len(CONTENT), submit=executor.submit)
    places = random.Random(2).sample(range(0, len(CONTENT) - 4096, 4096), 60)
    for place in places:
        assert reader.read(place, 4096) == CONTENT[place : place + 4096]
    fetched = origin.fetched
    assert fetched <= 62 * 2 * BLOCK_BYTES
    for place in places:
        assert reader.read(place, 4096) == CONTENT[place : place + 4096]
    assert origin.fetched == fetched


def test_memory_is_bounded() -> None:
    origin = Origin()
    reader = BlockReader(origin.fetch, len(CONTENT), limit_bytes=8 * 2**20)
    read_all(reader, 100_000)
    assert len(reader._blocks) * BLOCK_BYTES <= 8 * 2**20


def test_readers_of_the_same_block_share_one_fetch() -> None:
    origin = Origin()
    origin.gate.clear()
    reader = BlockReader(origin.fetch, len(CONTENT))
    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(reader.read, 5_000_000, 100) for _ in range(8)]
        origin.gate.set()
        assert {read.result(30) for read in reads} == {CONTENT[5_000_000:5_000_100]}
    assert len(origin.ranges) == 1


def test_a_failed_fetch_is_raised_and_tried_again_by_the_next_read() -> None:
    origin = Origin()
    origin.failures.append(OSError("broken"))
    reader = BlockReader(origin.fetch, len(CONTENT))
    with pytest.raises(OSError, match="broken"):
        reader.read(0, 10)
    assert reader.read(0, 10) == CONTENT[:10]


@pytest.mark.parametrize("cut", [700_000, 100_000, BLOCK_BYTES + 1])
def test_pieces_of_any_size_make_blocks(cut: int) -> None:
    def fetch(start: int, end: int) -> list[bytes]:
        return [CONTENT[at : min(at + cut, end)] for at in range(start, end, cut)]

    reader = BlockReader(fetch, len(CONTENT))
    assert reader.read(1_000_001, 900_000) == CONTENT[1_000_001:1_900_001]
    assert {len(block) for block in reader._blocks.values()} == {BLOCK_BYTES}


def test_a_short_answer_is_an_error() -> None:
    reader = BlockReader(lambda start, end: pieces(CONTENT[start : end - 1]), len(CONTENT))
    with pytest.raises(OSError, match="bytes came instead of"):  # many callers take EOFError for the end of the content
        reader.read(0, 10)


def test_cached_never_fetches_and_agrees_with_read() -> None:
    origin = Origin()
    reader = BlockReader(origin.fetch, len(CONTENT))
    assert reader.cached(0, 10) is None
    assert origin.ranges == []
    reader.read(0, 10)
    assert reader.cached(5, 20) == CONTENT[5:25]
    assert reader.cached(len(CONTENT), 5) == b""


def test_a_demand_does_not_wait_for_a_busy_pool() -> None:
    """Read-ahead that never gets a thread leaves the reader to fetch for itself."""
    origin = Origin()
    waiting: list[Callable[[], None]] = []
    reader = BlockReader(origin.fetch, len(CONTENT), submit=waiting.append)
    assert read_all(reader, 200_000) == CONTENT
    assert waiting


def test_closed_reader_refuses() -> None:
    reader = BlockReader(Origin().fetch, len(CONTENT))
    reader.close()
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read(0, 1)


def test_threads_reading_everywhere_get_the_right_bytes(executor: ThreadPoolExecutor) -> None:
    origin = Origin()
    reader = BlockReader(origin.fetch, len(CONTENT), submit=executor.submit, limit_bytes=8 * 2**20)

    def work(seed: int) -> bool:
        chance = random.Random(seed)
        offsets = [chance.randrange(len(CONTENT)) for _ in range(150)]
        return all(
            reader.read(offset, length) == CONTENT[offset : offset + length]
            for offset in offsets
            for length in (1, 70_000)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def held(*readers: BlockReader) -> int:
    """Return the blocks that readers hold."""
    return sum(len(reader._blocks) for reader in readers)


def test_readers_share_what_memory_there_is() -> None:
    budget = BlockBudget(80 * BLOCK_BYTES)
    origin = Origin()
    alone = BlockReader(origin.fetch, len(CONTENT), budget=budget)
    read_all(alone, 2**20)
    assert held(alone) == 80
    others = [BlockReader(origin.fetch, len(CONTENT), budget=budget) for _ in range(9)]
    assert held(alone) == 80  # the others have read nothing yet
    read_all(others[0], 2**20)
    assert held(alone) == held(others[0]) == 40
    for other in others[1:]:
        assert read_all(other, 2**20) == CONTENT
    assert {held(reader) for reader in [alone, *others]} == {8}
    for other in others:
        other.close()
    read_all(alone, 2**20)
    assert held(alone) == 80


def test_hundreds_of_readers_keep_within_the_budget(executor: ThreadPoolExecutor) -> None:
    budget = BlockBudget()
    origin = Origin()
    readers = [BlockReader(origin.fetch, len(CONTENT), submit=executor.submit, budget=budget) for _ in range(200)]
    for offset in range(0, 12 * BLOCK_BYTES, 5 * BLOCK_BYTES // 2):
        for reader in readers:
            assert reader.read(offset, 600_000) == CONTENT[offset : offset + 600_000]
    eventually(lambda: not any(reader._spans for reader in readers))
    assert 0 < held(*readers) * BLOCK_BYTES <= ALL_BYTES
    for reader in readers:
        reader.close()


def test_with_a_block_each_readers_still_read_what_is_there(executor: ThreadPoolExecutor) -> None:
    budget = BlockBudget(4 * BLOCK_BYTES)
    origin = Origin()
    readers = [BlockReader(origin.fetch, len(CONTENT), submit=executor.submit, budget=budget) for _ in range(9)]
    assert all(read_all(reader, 700_001) == CONTENT for reader in readers)
    assert held(*readers) == 9


def test_who_has_not_read_for_long_gives_way() -> None:
    clock = [0.0]
    budget = BlockBudget(80 * BLOCK_BYTES, now=lambda: clock[0])
    origin = Origin()
    idle, busy = (BlockReader(origin.fetch, len(CONTENT), budget=budget) for _ in range(2))
    read_all(idle, 2**20)
    clock[0] += IDLE_SECONDS + 1
    read_all(busy, 2**20)
    assert (held(idle), held(busy)) == (0, 80)
    assert read_all(idle, 2**20) == CONTENT
    assert (held(idle), held(busy)) == (40, 40)


def test_what_was_fetched_ahead_is_not_dropped_before_it_is_read(executor: ThreadPoolExecutor) -> None:
    """Blocks that came early are older than those just read, and yet worth more."""
    origin = Origin()
    reader = BlockReader(origin.fetch, len(CONTENT), submit=executor.submit, limit_bytes=8 * 2**20)
    for offset in range(0, len(CONTENT), 100_000):
        eventually(lambda: not reader._spans)  # whatever is asked for is here before the next read
        assert reader.read(offset, 100_000) == CONTENT[offset : offset + 100_000]
        assert held(reader) * BLOCK_BYTES <= 8 * 2**20
    assert origin.fetched == len(CONTENT)


def test_read_ahead_asks_for_whole_spans(executor: ThreadPoolExecutor) -> None:
    """Soon every fetch brings what Dropbox hashes as one: 4 MiB at a multiple of 4 MiB."""
    origin = Origin()
    reader = BlockReader(origin.fetch, len(CONTENT), submit=executor.submit)
    read_all(reader, 32_768)
    span = SPAN_BLOCKS * BLOCK_BYTES
    late = [bounds for bounds in origin.ranges if bounds[0] >= span]
    assert sorted(late) == [(at, min(at + span, len(CONTENT))) for at in range(span, len(CONTENT), span)]


def test_with_little_memory_pieces_are_small_and_yet_not_single_blocks(executor: ThreadPoolExecutor) -> None:
    origin = Origin()
    reader = BlockReader(origin.fetch, len(CONTENT), submit=executor.submit, limit_bytes=8 * BLOCK_BYTES)
    for offset in range(0, len(CONTENT), 100_000):
        eventually(lambda: not reader._spans)
        assert reader.read(offset, 100_000) == CONTENT[offset : offset + 100_000]
        assert held(reader) <= 8
    assert origin.fetched == len(CONTENT)
    assert len(origin.ranges) * BLOCK_BYTES < len(CONTENT) / 2


def test_a_reader_that_is_closed_while_others_wait_for_its_blocks(executor: ThreadPoolExecutor) -> None:
    origin = Origin()
    origin.gate.clear()
    reader = BlockReader(origin.fetch, len(CONTENT), submit=executor.submit)
    reads = [executor.submit(reader.read, 0, 100) for _ in range(3)]
    eventually(lambda: bool(origin.ranges))
    reader.close()
    origin.gate.set()
    outcomes = [read.exception(30) for read in reads]
    assert all(isinstance(error, ValueError) or error is None for error in outcomes)
    assert any(outcomes)
