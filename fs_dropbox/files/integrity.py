"""`CheckedFetch`: content that comes in ranges, in any order, and its check against Dropbox's content hash."""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections.abc import Callable, Sequence
from typing import Final

import fs.errors

from fs_dropbox.content_hash import BLOCK_SIZE

# What has come ahead of its turn is kept until it can be hashed, up to here; beyond, the oldest has to come once more.
PENDING_BYTES: Final = 16 * 2**20
# What comes a second time, since there was no memory to keep it, is compared with the first in pieces of this size.
PIECE_BYTES: Final = 256 * 1024


class _Block:
    """One of the blocks that Dropbox hashes, hashed from its start on."""

    __slots__ = ("hash", "length", "pending", "position")

    def __init__(self, length: int) -> None:
        self.hash = hashlib.sha256()
        self.length = length
        self.position = 0
        self.pending: dict[int, memoryview] = {}


class CheckedFetch:
    """Wraps the `fetch(start, end)` of one content, which brings it in pieces; owned by a file. Thread-safe: one leaf
    lock; fetches run unlocked, and so does the hashing of whole blocks.

    Once every byte has been fetched, whoever fetches last, and everyone after that, gets an error where the whole is
    not what Dropbox has stored; so does whoever gets a piece for the second time that is not what came first. Content
    of which parts are never fetched stays unchecked, and where too much came out of order, until it comes again.
    """

    def __init__(self, fetch: Callable[[int, int], Sequence[bytes]], path: str, size: int, content_hash: str) -> None:
        self._fetch = fetch
        self._path = path
        self._size = size
        self._content_hash = content_hash
        self._lock = threading.Lock()
        # guarded by _lock
        self._blocks: dict[int, _Block] = {}  # those that have begun
        self._waiting: dict[int, _Block] = {}  # those that may have pending parts, the oldest first
        self._digests: dict[int, bytes] = {}  # those that are complete
        self._pieces = array("q")  # their hashes, which differ from process to process; 0 of those that have not come
        self._pending_bytes = 0
        self._is_wrong = False

    def __call__(self, start: int, end: int) -> Sequence[bytes]:
        """Return bytes [start, end) in pieces; raises what the fetch raises, or OperationFailed."""
        pieces = self._fetch(start, end)
        self._compare(start, pieces)
        if len(self._digests) < self._count:
            self._take(start, pieces)
        if self._is_wrong:
            raise fs.errors.OperationFailed(
                self._path, msg="{path}: the content that came is not what Dropbox has stored; read it again"
            )
        return pieces

    def _compare(self, start: int, pieces: Sequence[bytes]) -> None:
        """Note what comes for the first time, and compare what came before."""
        for piece in pieces:
            index, offset = divmod(start, PIECE_BYTES)
            start += len(piece)
            if offset or (len(piece) != PIECE_BYTES and start != self._size):
                continue
            hashed = hash(piece)
            with self._lock:
                self._pieces.extend([0] * (index + 1 - len(self._pieces)))
                known = self._pieces[index]
                self._pieces[index] = known or hashed
                self._is_wrong |= known not in (0, hashed)

    @property
    def _count(self) -> int:
        return -(-self._size // BLOCK_SIZE)

    def _length(self, index: int) -> int:
        return min(BLOCK_SIZE, self._size - index * BLOCK_SIZE)

    def _take(self, start: int, pieces: Sequence[bytes]) -> None:
        """Hash pieces that follow each other: of each of Dropbox's blocks what is here of it."""
        parts: list[memoryview] = []  # of the block at hand
        index, offset = divmod(start, BLOCK_SIZE)
        length = 0
        for piece in pieces:
            view = memoryview(piece)
            while view:
                part = view[: BLOCK_SIZE - offset - length]
                parts.append(part)
                length += len(part)
                view = view[len(part) :]
                if offset + length == BLOCK_SIZE:
                    self._take_block(index, offset, parts)
                    index, offset, length, parts = index + 1, 0, 0, []
        if parts:
            self._take_block(index, offset, parts)

    def _take_block(self, index: int, offset: int, parts: list[memoryview]) -> None:
        digest = None
        if index in self._digests:
            return
        if offset == 0 and sum(map(len, parts)) == self._length(index):
            whole = hashlib.sha256()
            for part in parts:
                whole.update(part)
            digest = whole.digest()
        with self._lock:
            if index in self._digests:
                return
            if digest is None:
                self._hash_locked(index, offset, parts)
            else:
                self._complete_locked(index, digest)

    def _complete_locked(self, index: int, digest: bytes) -> None:
        begun = self._blocks.pop(index, None)
        self._waiting.pop(index, None)
        if begun is not None:
            self._pending_bytes -= sum(map(len, begun.pending.values()))
        self._digests[index] = digest
        if len(self._digests) == self._count:
            whole = hashlib.sha256(b"".join(self._digests[index] for index in range(self._count)))
            self._is_wrong |= whole.hexdigest() != self._content_hash

    def _hash_locked(self, index: int, offset: int, parts: list[memoryview]) -> None:
        """Hash a part of a block as far as all before it is here, and keep what is not to be hashed yet."""
        block = self._blocks.get(index)
        if block is None:
            block = self._blocks[index] = _Block(self._length(index))
        for part in parts:
            if offset > block.position:
                self._keep_locked(index, offset, part)
            elif offset + len(part) > block.position:
                block.hash.update(part[block.position - offset :])
                block.position = offset + len(part)
            offset += len(part)
        while following := [at for at in block.pending if at <= block.position]:
            at = min(following)
            part = block.pending.pop(at)
            self._pending_bytes -= len(part)
            if at + len(part) > block.position:
                block.hash.update(part[block.position - at :])
                block.position = at + len(part)
        if block.position == block.length:
            self._complete_locked(index, block.hash.digest())

    def _keep_locked(self, index: int, offset: int, piece: memoryview) -> None:
        block = self._blocks[index]
        replaced = block.pending.get(offset)
        if replaced is not None and len(replaced) >= len(piece):
            return
        block.pending[offset] = piece
        self._pending_bytes += len(piece) - (len(replaced) if replaced is not None else 0)
        self._waiting.setdefault(index, block)
        while self._pending_bytes > PENDING_BYTES:
            oldest = self._waiting.pop(next(iter(self._waiting)))
            self._pending_bytes -= sum(map(len, oldest.pending.values()))
            oldest.pending.clear()
