"""`BlockReader`: random access to one immutable content through `fetch(start, end)`. Knows nothing else of the project.

Content is kept in blocks of 256 KiB. A read fetches what it lacks in its own thread, so that nobody's read waits for
another file's; sequential reads have growing spans fetched ahead in other threads; random reads fetch little.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

BLOCK_BYTES: Final = 256 * 1024
SPAN_BLOCKS: Final = 16  # 4 MiB: the most that one fetch asks for, and what Dropbox's content hash is made of
AHEAD_BYTES: Final = 44 * 2**20  # the most that is fetched ahead of a sequential reader
SMALL_BYTES: Final = 2**20  # contents up to this size are fetched in one piece
NEAR_BYTES: Final = 2 * 2**20  # pipelined clients read a little out of order; that is still sequential
READER_BYTES: Final = 60 * 2**20  # the most that one reader keeps: under 64 MB
ALL_BYTES: Final = 192 * 2**20  # the most that all readers of a filesystem keep, or one block each
IDLE_SECONDS: Final = 30.0  # who has not read for so long loses its blocks when others need the room
WAIT_SECONDS: Final = 900.0  # above every deadline of a fetch: a bound, not a policy

# Returns bytes [start, end); pieces of BLOCK_BYTES (but for the last) are kept as they are, others are cut anew.
Fetch = Callable[[int, int], Sequence[bytes]]
Submit = Callable[[Callable[[], None]], object]


class _Span:
    """Neighbouring blocks that one fetch brings; whoever claims it runs the fetch, the others wait."""

    __slots__ = ("_claim", "done", "error", "first", "last")

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last  # exclusive
        self.done = threading.Event()
        self.error: Exception | None = None
        self._claim = threading.Lock()  # taken once and for all by the claimer

    def claim(self) -> bool:
        return self._claim.acquire(blocking=False)


class BlockBudget:
    """The memory for the blocks of many readers: equal shares for those that hold any and read. Thread-safe.

    Owned by a filesystem. One lock over the table of readers, never held over a reader's.
    """

    def __init__(self, total_bytes: int = ALL_BYTES, *, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._total_blocks = total_bytes // BLOCK_BYTES
        self._lock = threading.RLock()  # the garbage collector may close a reader in the thread that has it
        self._readers: weakref.WeakSet[BlockReader] = weakref.WeakSet()  # guarded by _lock
        self.share_blocks = self._total_blocks  # an int is read without the lock

    def join(self, reader: BlockReader) -> None:
        """Give a reader its share, which the others lose of theirs; idle ones lose all until they read again."""
        with self._lock:
            idle = [each for each in self._readers if self.now() - each.used > IDLE_SECONDS]
            self._readers.difference_update(idle)
            self._readers.add(reader)
            self._divide_locked()
            others = list(self._readers)
        for each in idle:
            each.forget()
        for each in others:
            each.trim()

    def leave(self, reader: BlockReader) -> None:
        """Divide a reader's share among the others. Idempotent."""
        with self._lock:
            self._readers.discard(reader)
            self._divide_locked()

    def _divide_locked(self) -> None:
        self.share_blocks = max(1, self._total_blocks // max(1, len(self._readers)))


class BlockReader:
    """Reads ranges of one content. Thread-safe; owned by a file object.

    One lock over the tables, a leaf: fetches run unlocked, waiters wait for the span. What it holds, and what is on
    its way ahead of the reader, is bounded by `limit_bytes` and by its share of the budget; three quarters of that at
    most are ahead, and no more than `AHEAD_BYTES`. Without a budget it has one of its own.
    """

    def __init__(
        self,
        fetch: Fetch,
        size: int,
        *,
        submit: Submit | None = None,
        limit_bytes: int = READER_BYTES,
        budget: BlockBudget | None = None,
    ) -> None:
        self._fetch = fetch
        self._size = size
        self._submit = submit
        self._most_blocks = limit_bytes // BLOCK_BYTES
        self._budget = budget or BlockBudget()
        self._end = -(-size // BLOCK_BYTES)  # one past the last block
        self.used = 0.0  # when it was last read, on the budget's clock
        self._lock = threading.RLock()  # as the budget's
        # guarded by _lock
        self._blocks: OrderedDict[int, bytes] = OrderedDict()  # oldest use first
        self._spans: dict[int, _Span] = {}  # block -> the fetch under way that brings it
        self._expected = 0  # where a sequential reader goes on
        self._run = 0  # bytes read sequentially so far
        self._planned = 0  # one past the last block that was fetched ahead in this run
        self._has_share = False
        self._closed = False

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on, fewer only at the end of the content; raises what `fetch` raises."""
        size = max(0, min(size, self._size - offset))
        if not size:
            return b""
        first, last = offset // BLOCK_BYTES, (offset + size - 1) // BLOCK_BYTES + 1
        with self._lock:
            self._check_open_locked()
            self._note_locked(offset, size)
            pieces = self._take_locked(first, last)
            needed = self._needed_locked(first, last)
            ahead = self._plan_ahead_locked(last)
        for span in ahead:
            self._run_elsewhere(span)
        for span in needed:
            pieces.update(self._await(span))
        while len(missing := [index for index in range(first, last) if index not in pieces]):
            # Another thread has fetched them: they are here now, or were dropped again, which is rare.
            with self._lock:
                self._check_open_locked()
                pieces.update(self._take_locked(first, last))
            if missing[0] not in pieces:
                pieces.update(self._await(_Span(missing[0], missing[0] + 1)))
        return _join(pieces, first, last, offset, size)

    def cached(self, offset: int, size: int) -> bytes | None:
        """Return what `read` would, if that needs no waiting, else None. Fetches ahead as `read` does."""
        size = max(0, min(size, self._size - offset))
        if not size:
            return b""
        first, last = offset // BLOCK_BYTES, (offset + size - 1) // BLOCK_BYTES + 1
        with self._lock:
            if any(index not in self._blocks for index in range(first, last)):
                return None
            self._note_locked(offset, size)
            pieces = self._take_locked(first, last)
            ahead = self._plan_ahead_locked(last)
        for span in ahead:
            self._run_elsewhere(span)
        return _join(pieces, first, last, offset, size)

    def close(self) -> None:
        """Forget every block; fetches under way end unheard. Idempotent."""
        with self._lock:
            self._closed = True
            self._blocks.clear()
            self._spans.clear()
        self._budget.leave(self)

    def trim(self) -> None:
        """Drop what is more than this reader may hold now."""
        with self._lock:
            self._trim_locked()

    def forget(self) -> None:
        """Drop every block, and the claim to a share until there are some again."""
        with self._lock:
            self._blocks.clear()
            self._has_share = False

    @property
    def _limit_blocks(self) -> int:
        return min(self._most_blocks, self._budget.share_blocks)

    def _check_open_locked(self) -> None:
        if self._closed:
            raise ValueError("read of closed file")

    def _trim_locked(self) -> None:
        """Drop blocks, those of the oldest use first; what a sequential reader has not reached yet goes last."""
        excess = len(self._blocks) + len(self._spans) - self._limit_blocks
        if excess <= 0:
            return
        ahead = range(self._expected // BLOCK_BYTES, self._planned)
        for index in sorted(self._blocks, key=ahead.__contains__)[:excess]:  # stable: the order of use is kept
            del self._blocks[index]

    def _note_locked(self, offset: int, size: int) -> None:
        self.used = self._budget.now()
        if -NEAR_BYTES <= offset - self._expected <= NEAR_BYTES:
            self._run += size
            self._expected = max(self._expected, offset + size)
        else:
            self._run = self._planned = 0
            self._expected = offset + size

    def _take_locked(self, first: int, last: int) -> dict[int, bytes]:
        """Return what is here of the blocks [first, last)."""
        pieces = {}
        for index in range(first, last):
            block = self._blocks.get(index)
            if block is not None:
                pieces[index] = block
                self._blocks.move_to_end(index)
        return pieces

    def _needed_locked(self, first: int, last: int) -> list[_Span]:
        """Return the spans that bring what is not here of the blocks [first, last); new ones are registered."""
        needed: list[_Span] = []
        index = first
        while index < last:
            span = self._spans.get(index)
            if span is None and index not in self._blocks:
                end = index + 1
                while end < last and end % SPAN_BLOCKS and end not in self._blocks and end not in self._spans:
                    end += 1
                if self._size <= SMALL_BYTES:
                    index, end = 0, self._end
                span = self._register_locked(index, end)
            if span is not None:
                needed.append(span)
                index = span.last
            else:
                index += 1
        return needed

    def _plan_ahead_locked(self, last: int) -> list[_Span]:
        """Return new spans to fetch ahead of a sequential reader: a multiple of what it has read, up to the bound.

        Soon these are whole spans at multiples of their size, each asked for as soon as there is room for it.
        """
        if self._submit is None or not self._run:
            return []
        room = self._limit_blocks * 3 // 4
        most = max(1, min(SPAN_BLOCKS, (room + 1) // 2))
        growth = 2 if self._run < SMALL_BYTES else 4  # many look at the beginning of a file only
        window = min(AHEAD_BYTES // BLOCK_BYTES, room, growth * self._run // BLOCK_BYTES)
        end = min(self._end, last + window)
        if window >= most:
            end -= end % most if end < self._end else 0
        elif self._planned - last > window // 2:
            return []  # wait until a larger piece is due rather than creep on in small fetches
        planned: list[_Span] = []
        index = max(last, self._planned)
        while index < end:
            stop = index
            while (
                stop < end and (stop == index or stop % most) and stop not in self._blocks and stop not in self._spans
            ):
                stop += 1
            if stop > index:
                planned.append(self._register_locked(index, stop))
            index = max(stop, index + 1)
        self._planned = max(self._planned, end)
        if planned:
            self._trim_locked()
        return planned

    def _register_locked(self, first: int, last: int) -> _Span:
        span = _Span(first, last)
        for index in range(first, last):
            self._spans[index] = span
        return span

    def _run_elsewhere(self, span: _Span) -> None:
        def work() -> None:
            if span.claim():
                self._run_span(span)

        assert self._submit is not None
        with contextlib.suppress(RuntimeError):  # there is no thread, or none any more: whoever reads it fetches it
            self._submit(work)

    def _await(self, span: _Span) -> dict[int, bytes]:
        """Return the blocks of a span: fetched here unless another thread is at it already."""
        if span.claim():
            blocks = self._run_span(span)
        else:
            if not span.done.wait(WAIT_SECONDS):
                raise TimeoutError(f"no answer within {WAIT_SECONDS:g} s")
            blocks = {}
        if span.error is not None:
            raise span.error
        return blocks

    def _run_span(self, span: _Span) -> dict[int, bytes]:
        start, end = span.first * BLOCK_BYTES, min(self._size, span.last * BLOCK_BYTES)
        blocks: dict[int, bytes] = {}
        error: Exception | None = None
        try:
            if not self._closed:
                pieces = _as_blocks(self._fetch(start, end))
                came = sum(map(len, pieces))
                if came != end - start:
                    raise OSError(errno.EIO, f"{came} bytes came instead of {end - start}")
                blocks.update(zip(range(span.first, span.last), pieces, strict=True))
        except Exception as caught:  # noqa: BLE001 - handed to every reader that waits for the span
            error = caught
        finally:  # also where its thread is interrupted: whoever waits then fetches for itself
            self._settle(span, blocks, error)
        return blocks

    def _settle(self, span: _Span, blocks: dict[int, bytes], error: Exception | None) -> None:
        span.error = error
        with self._lock:
            for index in range(span.first, span.last):
                if self._spans.get(index) is span:
                    del self._spans[index]
            if not self._closed:
                self._blocks.update(blocks)
                self._trim_locked()
            is_new = not self._has_share and bool(self._blocks)
            self._has_share = self._has_share or is_new
        span.done.set()
        if is_new:
            self._budget.join(self)
            if self._closed:  # meanwhile
                self._budget.leave(self)


def _as_blocks(pieces: Sequence[bytes]) -> Sequence[bytes]:
    if all(len(piece) == BLOCK_BYTES for piece in pieces[:-1]) and len(pieces[-1]) <= BLOCK_BYTES:
        return pieces
    whole = b"".join(pieces)
    return [whole[at : at + BLOCK_BYTES] for at in range(0, len(whole), BLOCK_BYTES)]


def _join(blocks: dict[int, bytes], first: int, last: int, offset: int, size: int) -> bytes:
    start = offset - first * BLOCK_BYTES
    if last - first == 1:
        return blocks[first][start : start + size]
    joined = b"".join(blocks[index] for index in range(first, last))
    return joined[start : start + size] if start or len(joined) != size else joined
