"""`CheckedFetch`: content that comes in ranges, in any order, and its check against Dropbox's content hash."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Final

import fs.errors

from fs_dropbox.content_hash import BLOCK_SIZE

# What has come ahead of its turn is kept until it can be hashed, up to here; beyond, the content goes unchecked.
PENDING_BYTES: Final = 32 * 2**20


class _Block:
    """One of the blocks that Dropbox hashes, hashed from its start on."""

    __slots__ = ("hash", "length", "pending", "position")

    def __init__(self, length: int) -> None:
        self.hash = hashlib.sha256()
        self.length = length
        self.position = 0
        self.pending: dict[int, memoryview] = {}


class CheckedFetch:
    """Wraps the `fetch(start, end)` of one content; owned by a file. Thread-safe: one leaf lock, fetches run unlocked.

    Once every byte has been fetched, whoever fetches last, and everyone after that, gets an error where the whole is
    not what Dropbox has stored. Content of which parts are never fetched stays unchecked.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], path: str, size: int, content_hash: str) -> None:
        self._fetch = fetch
        self._path = path
        self._size = size
        self._content_hash = content_hash
        self._lock = threading.Lock()
        # guarded by _lock
        self._blocks: dict[int, _Block] = {}  # those that have begun
        self._digests: dict[int, bytes] = {}  # those that are complete
        self._pending_bytes = 0
        self._gave_up = False
        self._is_wrong = False

    def __call__(self, start: int, end: int) -> bytes:
        """Return bytes [start, end); raises what the fetch raises, or OperationFailed."""
        data = self._fetch(start, end)
        with self._lock:
            if not self._gave_up and len(self._digests) < self._count:
                self._take_locked(start, memoryview(data))
            if self._is_wrong:
                raise fs.errors.OperationFailed(
                    self._path, msg="{path}: the content that came is not what Dropbox has stored; read it again"
                )
        return data

    @property
    def _count(self) -> int:
        return -(-self._size // BLOCK_SIZE)

    def _take_locked(self, start: int, data: memoryview) -> None:
        while data:
            index, offset = divmod(start, BLOCK_SIZE)
            piece = data[: BLOCK_SIZE - offset]
            if index not in self._digests:
                self._hash_locked(index, offset, piece)
            start += len(piece)
            data = data[len(piece) :]
        if len(self._digests) == self._count:
            whole = hashlib.sha256(b"".join(self._digests[index] for index in range(self._count)))
            self._is_wrong = whole.hexdigest() != self._content_hash

    def _hash_locked(self, index: int, offset: int, piece: memoryview) -> None:
        block = self._blocks.get(index)
        if block is None:
            block = self._blocks[index] = _Block(min(BLOCK_SIZE, self._size - index * BLOCK_SIZE))
        if offset > block.position:
            self._keep_locked(block, offset, piece)
            return
        while True:
            if offset + len(piece) > block.position:
                block.hash.update(piece[block.position - offset :])
                block.position = offset + len(piece)
            following = [at for at in block.pending if at <= block.position]
            if not following:
                break
            offset = following[0]
            piece = block.pending.pop(offset)
            self._pending_bytes -= len(piece)
        if block.position == block.length:
            self._digests[index] = block.hash.digest()
            del self._blocks[index]

    def _keep_locked(self, block: _Block, offset: int, piece: memoryview) -> None:
        replaced = block.pending.get(offset)
        if replaced is not None and len(replaced) >= len(piece):
            return
        block.pending[offset] = piece
        self._pending_bytes += len(piece) - (len(replaced) if replaced is not None else 0)
        if self._pending_bytes > PENDING_BYTES:
            self._gave_up = True
            self._blocks.clear()
