"""Checking content that comes in pieces, in any order."""

from __future__ import annotations

import random
from collections.abc import Callable

import fs.errors
import pytest

from fs_dropbox.content_hash import BLOCK_SIZE, ContentHash
from fs_dropbox.files.blocks import BLOCK_BYTES, BlockReader
from fs_dropbox.files.integrity import PENDING_BYTES, CheckedFetch

CONTENT = random.Random(3).randbytes(3 * BLOCK_SIZE + 12_345)
PIECE_BYTES = 256 * 1024
HASH = ContentHash(CONTENT).hexdigest()


def checked(content: bytes = CONTENT, content_hash: str = HASH) -> CheckedFetch:
    def fetch(start: int, end: int) -> list[bytes]:
        return [content[at : min(at + PIECE_BYTES, end)] for at in range(start, end, PIECE_BYTES)]

    return CheckedFetch(fetch, "/file", len(content), content_hash)


def ranges(size: int, *, step: int = 1_000_000) -> list[tuple[int, int]]:
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def in_order(pieces: list[tuple[int, int]]) -> None:
    """Leave the pieces as they are."""


@pytest.mark.parametrize("order", [in_order, list.reverse, random.Random(1).shuffle, random.Random(2).shuffle])
@pytest.mark.parametrize("step", [100_000, 1_000_000, BLOCK_SIZE, 5_000_000, len(CONTENT)])
def test_right_content_passes_and_wrong_content_does_not(
    order: Callable[[list[tuple[int, int]]], None], step: int
) -> None:
    pieces = ranges(len(CONTENT), step=step)
    order(pieces)
    right = checked()
    for start, end in pieces:
        assert b"".join(right(start, end)) == CONTENT[start:end]
    damaged = bytearray(CONTENT)
    damaged[9_000_000] ^= 1
    wrong = checked(bytes(damaged))
    for start, end in pieces[:-1]:
        wrong(start, end)
    with pytest.raises(fs.errors.OperationFailed, match="not what Dropbox has stored"):
        wrong(*pieces[-1])
    with pytest.raises(fs.errors.OperationFailed):
        wrong(0, 10)


@pytest.mark.parametrize("damaged", [1, 2], ids=["the first", "the second"])
def test_what_comes_twice_is_compared(damaged: int) -> None:
    came = 0

    def fetch(start: int, end: int) -> list[bytes]:
        nonlocal came
        came += start == 0
        content = bytearray(CONTENT[start:end])
        content[100] ^= start == 0 and came == damaged
        return [bytes(content[at : at + BLOCK_BYTES]) for at in range(0, len(content), BLOCK_BYTES)]

    reader = BlockReader(CheckedFetch(fetch, "/file", len(CONTENT), HASH), len(CONTENT), limit_bytes=BLOCK_BYTES)
    reader.read(0, 10)
    reader.read(len(CONTENT) - 10, 10)  # there is no memory for what was read first
    with pytest.raises(fs.errors.OperationFailed, match="not what Dropbox has stored"):
        reader.read(0, 10)


def test_pieces_that_overlap_or_come_twice() -> None:
    right = checked()
    for start, end in [(10, 5_000_000), (0, 100), (3_000_000, 9_000_000), (0, 100), (8_000_000, len(CONTENT))]:
        assert b"".join(right(start, end)) == CONTENT[start:end]
    wrong = checked(content_hash="0" * 64)
    wrong(5_000_000, len(CONTENT))
    wrong(0, 4_000_000)
    with pytest.raises(fs.errors.OperationFailed):
        wrong(3_000_000, 6_000_000)


def test_parts_alone_are_never_wrong() -> None:
    wrong = checked(content_hash="0" * 64)
    for _ in range(3):
        wrong(0, 10)
        wrong(BLOCK_SIZE, 2 * BLOCK_SIZE)


def test_what_waits_to_be_hashed_is_bounded() -> None:
    size = PENDING_BYTES + 10 * BLOCK_SIZE
    zeros = bytes(BLOCK_SIZE - 1)
    wrong = CheckedFetch(lambda start, end: [zeros[: end - start]], "/file", size, "0" * 64)
    for start in range(0, size - BLOCK_SIZE, BLOCK_SIZE):
        wrong(start + 1, start + BLOCK_SIZE)
        assert wrong._pending_bytes == sum(
            len(part) for each in wrong._blocks.values() for part in each.pending.values()
        )
        assert wrong._pending_bytes <= PENDING_BYTES
    # Who has looked at it here and there reads it from start to end: that is checked all the same.
    pieces = ranges(size, step=BLOCK_SIZE // 2)
    for start, end in pieces[:-1]:
        wrong(start, end)
    with pytest.raises(fs.errors.OperationFailed, match="not what Dropbox has stored"):
        wrong(*pieces[-1])
    assert not wrong._pending_bytes


@pytest.mark.parametrize("order", ["behind", "overtaken", "again"])
def test_what_was_hashed_waits_no_more(order: str) -> None:
    """Content that comes a little out of order, as pipelined clients read, is checked however long it is."""
    ahead = BLOCK_SIZE // 2
    blocks = PENDING_BYTES // ahead + 4
    zeros = bytes(BLOCK_SIZE)
    wrong = CheckedFetch(lambda start, end: [zeros[: end - start]], "/file", blocks * BLOCK_SIZE, "0" * 64)

    def read(start: int) -> None:
        wrong(start + ahead, start + BLOCK_SIZE)
        if order == "behind":  # what is missing before it
            wrong(start, start + ahead)
        elif order == "overtaken":  # the whole, before that has come
            wrong(start, start + BLOCK_SIZE)
        else:  # a part, the same once more, and then what is missing
            wrong(start + ahead, start + BLOCK_SIZE - 10)
            wrong(start + ahead, start + BLOCK_SIZE)
            wrong(start, start + ahead)

    for block in range(blocks - 1):
        read(block * BLOCK_SIZE)
    with pytest.raises(fs.errors.OperationFailed):
        read((blocks - 1) * BLOCK_SIZE)


def test_a_longer_piece_takes_the_place_of_a_shorter_one_that_waits() -> None:
    right = checked()
    for start, end in ((1000, 2000), (1000, 3_000_000), (0, 1000), (3_000_000, len(CONTENT))):
        right(start, end)
    assert not right._blocks, "a block was not hashed to its end"
    wrong = checked(content_hash="0" * 64)
    wrong(1000, 2000)
    wrong(1000, 3_000_000)
    wrong(0, 1000)
    with pytest.raises(fs.errors.OperationFailed):
        wrong(3_000_000, len(CONTENT))
