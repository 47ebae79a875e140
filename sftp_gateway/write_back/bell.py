"""`Bell`: wakes the process that delivers an account's files, from any thread of any process."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from pathlib import Path
from typing import Final

FILE_NAME: Final = "delivery.bell"
_SILENCE, _NEWS, _URGENT = range(3)
_READ_BYTES = 4096


class Bell:
    """A named pipe in a journal's directory; the listener sleeps until it rings, however long that takes.

    Owned by a journal. One process listens, with one thread at a time. Ringing costs next to nothing if the listener is
    awake or sleeps through it, and if nobody listens: a new listener looks for work before it waits. On a disk without
    named pipes it rings only within one process: the listener should look now and then. Thread-safe: one lock, a leaf.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._lock = threading.Lock()
        # guarded by _lock
        self._listening = -1  # read end, if this process listens
        self._within = -1  # write end of that
        self._elsewhere = -1  # write end, if another process listens
        self._rung = _SILENCE  # the loudest ring that the listener of this process has not heard yet
        self._wakes = _URGENT + 1  # the least loud ring that wakes the listener of this process
        self._closed = False

    def listen(self) -> None:
        """Begin to listen in this process. Raises OSError."""
        with self._lock:
            if self._listening >= 0 or self._closed:
                return
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkfifo(self._path, 0o600)
                # Both ends: without a writer, a pipe is always at its end.
                self._listening = self._within = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                self._listening, self._within = os.pipe()
                os.set_blocking(self._listening, False)
                os.set_blocking(self._within, False)

    def ring(self, *, urgent: bool = False) -> None:
        """Have the listener look for new work, at once if `urgent`. Never waits, never fails."""
        sound = _URGENT if urgent else _NEWS
        with self._lock:
            if self._closed:
                return
            if self._listening < 0:
                self._ring_elsewhere(sound)
                return
            self._rung = max(self._rung, sound)
            if sound >= self._wakes:
                self._wakes = _URGENT + 1
                _write(self._within, sound)

    def wait(self, seconds: float, *, urgent: bool = False) -> bool:
        """Sleep until it rings, for so long at most; with `urgent`, only urgent rings count. Tell whether it rang."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            with self._lock:
                rung, self._rung = self._rung, _SILENCE
                is_over = rung >= (_URGENT if urgent else _NEWS) or left <= 0 or self._listening < 0
                self._wakes = _URGENT + 1 if is_over else _URGENT if urgent else _NEWS
                descriptor = self._listening
            if is_over:
                return rung > _SILENCE
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            if poller.poll(left * 1000):
                self._hear(descriptor)

    def close(self) -> None:
        """Close the pipe; nobody may be waiting any more. Idempotent."""
        with self._lock:
            self._closed = True
            for descriptor in {self._listening, self._within, self._elsewhere} - {-1}:
                os.close(descriptor)
            self._listening = self._within = self._elsewhere = -1

    def _hear(self, descriptor: int) -> None:
        with contextlib.suppress(BlockingIOError):
            sounds = os.read(descriptor, _READ_BYTES)
            with self._lock:
                self._rung = max(self._rung, *sounds)

    def _ring_elsewhere(self, sound: int) -> None:
        """Ring in another process, if one listens."""
        for _ in range(2):
            try:
                if self._elsewhere < 0:
                    self._elsewhere = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                _write(self._elsewhere, sound)
            except BrokenPipeError:  # the listener is gone; perhaps another one listens by now
                os.close(self._elsewhere)
                self._elsewhere = -1
            except OSError:
                return  # nobody listens
            else:
                return


def _write(descriptor: int, sound: int) -> None:
    with contextlib.suppress(BlockingIOError):  # it is full: the bell rings already
        os.write(descriptor, bytes([sound]))
