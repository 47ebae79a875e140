"""Makes the emulator as slow as the real service when asked: delays, bandwidth, the write lock of each namespace."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .errors import RateLimitError
from .options import Options

CATCH_UP_SECONDS = 0.05  # how far a paced transfer may run ahead before it sleeps


@dataclass(slots=True)
class Latency:
    """The model; all zero means as fast as the machine can."""

    delay_seconds: float = 0.0  # of every call, before the work
    route_seconds: dict[str, float] = field(default_factory=dict)  # instead of delay_seconds
    upload_bytes_per_second: float | None = None  # of one connection
    download_bytes_per_second: float | None = None
    commit_seconds: float = 0.0  # a commit holds the write lock of its namespace so long
    commit_entry_seconds: float = 0.0  # and so much longer for each further entry of a batch
    patience_seconds: float = 1.2  # who waits longer for the lock gets 429 too_many_write_operations


class Limits:
    """Delays calls and serialises commits. Thread-safe; `_lock` guards the queues and is never held while waiting."""

    def __init__(self, stopping: threading.Event, options: Options) -> None:
        self.latency = Latency()
        self._stopping = stopping
        self._options = options
        self._lock = threading.Lock()
        self._queues: dict[str, deque[threading.Event]] = {}

    def delay(self, route: str) -> None:
        """Wait as long as a call of this route takes."""
        latency = self.latency
        seconds = latency.route_seconds.get(route, latency.delay_seconds)
        if seconds > 0:
            self._stopping.wait(seconds)

    def upload_pace(self) -> Callable[[int], None] | None:
        """Return what slows a request's body down, or None."""
        return self._pace(self.latency.upload_bytes_per_second)

    def download_pace(self) -> Callable[[int], None] | None:
        """Return what slows an answer's body down, or None."""
        return self._pace(self.latency.download_bytes_per_second)

    def _pace(self, bytes_per_second: float | None) -> Callable[[int], None] | None:
        if not bytes_per_second:
            return None
        begin = time.monotonic()
        passed = 0

        def pace(size: int) -> None:
            nonlocal passed
            passed += size
            ahead = begin + passed / bytes_per_second - time.monotonic()
            if ahead > CATCH_UP_SECONDS:
                self._stopping.wait(ahead)

        return pace

    @contextmanager
    def commit(self, namespace_id: str, entries: int = 1) -> Iterator[None]:
        """Hold the write lock of a namespace for a commit, first come first served, or raise RateLimitError."""
        latency = self.latency
        if latency.commit_seconds <= 0:
            yield
            return
        turn = threading.Event()
        with self._lock:
            queue = self._queues.setdefault(namespace_id, deque())
            queue.append(turn)
            if queue[0] is turn:
                turn.set()
        try:
            if not turn.wait(latency.patience_seconds):
                raise self.too_many_writes()
            self._stopping.wait(latency.commit_seconds + latency.commit_entry_seconds * (entries - 1))
            yield
        finally:
            with self._lock:
                queue.remove(turn)
                if queue:
                    queue[0].set()

    def too_many_writes(self) -> RateLimitError:
        """Return the 429 of a contended namespace."""
        options = self._options
        as_text = options.rate_limit_form == "text"
        return RateLimitError("too_many_write_operations", options.rate_limit_retry_after_seconds, as_text=as_text)
