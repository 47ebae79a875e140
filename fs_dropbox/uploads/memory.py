"""`Allowance`: how many bytes may be in memory at once, for all who share it; `Buffer`, which keeps to one. Leaves."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections import deque
from typing import IO, Final

_AMPLE_BYTES: Final = 2**20


class Allowance:
    """So many bytes of memory for many users. Thread-safe: one leaf lock. Whoever takes gives back.

    The lock is reentrant: the garbage collector may run the finalizer of who gives back in the thread that has it.
    """

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._lock = threading.RLock()
        # guarded by _lock
        self._taken_bytes = 0
        self._queue: deque[tuple[int, threading.Event]] = deque()  # those that wait, in the order in which they came

    @property
    def taken_bytes(self) -> int:
        """Bytes in use now."""
        return self._taken_bytes

    def try_take(self, size: int) -> bool:
        """Take so many bytes if they are there; never waits, nor overtakes those who do."""
        with self._lock:
            return not self._queue and self._take_locked(size)

    def take(self, size: int) -> None:
        """Take so many bytes, and wait for them; more than there are in all are given to who is alone.

        For users that give back what they have without taking more: those never wait for each other.
        """
        with self._lock:
            if not self._queue and self._take_locked(size):
                return
            waiter = size, threading.Event()
            self._queue.append(waiter)
        try:
            waiter[1].wait()
        except BaseException:
            self._give_up(waiter)
            raise

    def _give_up(self, waiter: tuple[int, threading.Event]) -> None:
        """Leave the queue, or give back what has come meanwhile: whoever is interrupted takes nothing."""
        with self._lock:
            has_come = waiter not in self._queue
            if not has_come:
                self._queue.remove(waiter)
            self.give(waiter[0] if has_come else 0)

    def give(self, size: int) -> None:
        """Give so many bytes back."""
        with self._lock:
            self._taken_bytes -= size
            while self._queue:
                wanted, turn = self._queue.popleft()
                if not self._take_locked(wanted):
                    self._queue.appendleft((wanted, turn))
                    break
                turn.set()

    def _take_locked(self, size: int) -> bool:
        if self._taken_bytes and self._taken_bytes + size > self._total_bytes:
            return False
        self._taken_bytes += size
        return True


class Buffer:
    """Bytes that are collected and then taken as a whole: in memory while the allowance lasts, else on local disk.

    Filled and taken by one thread at a time; any thread may close it. One lock, held over the allowance's and over
    local disk. What is on disk is gone with the process.
    """

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._process = os.getpid()
        self._lock = threading.Lock()
        # guarded by _lock
        self._memory = io.BytesIO()  # gives out what it holds without a copy
        self._allowed_bytes = 0
        self._file: IO[bytes] | None = None
        self._length = 0
        self._closed = False

    def __len__(self) -> int:
        return self._length

    def __del__(self) -> None:
        if os.getpid() == self._process:  # one that was forked may never get the lock
            self.close()

    @property
    def is_on_disk(self) -> bool:
        """Whether there was no memory for it."""
        return self._file is not None

    def append(self, data: memoryview) -> None:
        """Add bytes at the end; drops them once closed. Raises OSError where they have to go to a full disk."""
        with self._lock:
            if self._closed:
                return
            if self._file is None and not self._fits_locked(self._length + len(data)):
                self._file = tempfile.TemporaryFile(prefix="fs-dropbox-", buffering=0)  # noqa: SIM115 - see close
                _write(self._file, self._memory.getbuffer())
                self._forget_memory_locked()
            if self._file is None:
                self._memory.write(data)
            else:
                _write(self._file, data)
            self._length += len(data)

    def take(self, size: int | None = None) -> bytes:
        """Return everything, or the first bytes, and hold them no more."""
        with self._lock:
            if self._file is None:
                data = self._memory.getvalue()
            else:
                self._file.seek(0)
                data = self._file.read(self._length)
            self._clear_locked()
        if size is not None and size < len(data):
            self.append(memoryview(data)[size:])
            data = data[:size]
        return data

    def close(self) -> None:
        """Forget everything, and whatever is added later. Idempotent."""
        with self._lock:
            self._closed = True
            self._clear_locked()

    def _clear_locked(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._forget_memory_locked()
        self._length = 0

    def _fits_locked(self, size: int) -> bool:
        """Tell whether so many bytes may be in memory; takes more than that, so as not to ask for every few bytes."""
        if size <= self._allowed_bytes:
            return True
        ample = max(size, min(2 * self._allowed_bytes, size + _AMPLE_BYTES))
        for wanted in (ample, size):
            if self._allowance.try_take(wanted - self._allowed_bytes):
                self._allowed_bytes = wanted
                return True
        return False

    def _forget_memory_locked(self) -> None:
        self._memory = io.BytesIO()
        allowed, self._allowed_bytes = self._allowed_bytes, 0
        self._allowance.give(allowed)


def _write(file: IO[bytes], data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]
