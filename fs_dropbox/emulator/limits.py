"""Makes the emulator as slow as the real service when asked: delays, bandwidth, the write lock of each namespace."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fs_dropbox.emulator.model.errors import RateLimitError
from fs_dropbox.emulator.model.options import Options

CATCH_UP_SECONDS = 0.05  # how far a paced transfer may run ahead before it sleeps


@dataclass(slots=True)
class Latency:
    """The model; all zero means as fast as the machine can."""

    connect_seconds: float = 0.0  # of a new connection: round trips of TCP and TLS
    delay_seconds: float = 0.0  # of every call, before the work
    route_seconds: dict[str, float] = field(default_factory=dict)  # instead of delay_seconds
    jitter_seconds: float = 0.0  # up to so much more before the work, and once more before its answer
    chance: random.Random = field(default_factory=lambda: random.Random(0))  # draws the jitter
    upload_bytes_per_second: float | None = None  # of one connection
    download_bytes_per_second: float | None = None
    commit_seconds: float = 0.0  # a commit holds the write lock of its namespace so long
    commit_entry_seconds: float = 0.0  # and so much longer for each further entry of a batch
    patience_seconds: float = 1.2  # who waits longer for the lock gets 429 too_many_write_operations


# Medians of the server times recorded from the real service, in seconds, less the time that a commit holds its lock.
RECORDED_SECONDS = {
    "files/list_folder": 0.124,
    "files/list_folder/continue": 0.096,
    "files/list_folder/get_latest_cursor": 0.344,
    "files/get_metadata": 0.129,
    "files/list_revisions": 0.092,
    "files/download": 0.227,
    "files/get_temporary_link": 0.161,
    "files/upload": 0.86,
    "files/upload_session/start": 0.382,
    "files/upload_session/start_batch": 0.382,
    "files/upload_session/append_v2": 0.365,
    "files/upload_session/append_batch": 0.365,
    "files/upload_session/finish": 0.68,
    "files/upload_session/finish_batch_v2": 0.41,
    "files/create_folder_v2": 0.07,
    "files/create_folder_batch": 0.05,
    "files/delete_v2": 0.23,
    "files/delete_batch": 0.12,
    "files/move_v2": 0.26,
    "files/copy_v2": 0.24,
    "files/restore": 0.09,
    "files/search_v2": 0.16,
    "files/list_folder/longpoll": 0.0,
    "sharing/create_shared_link_with_settings": 1.131,
    "sharing/list_shared_links": 0.283,
    "sharing/revoke_shared_link": 0.584,
    "sharing/share_folder": 0.9,
    "file_requests/create": 0.59,
    "oauth2/token": 0.035,
    "users/get_current_account": 0.4,
    "users/get_space_usage": 0.077,
}


def recorded_latency(round_trip_seconds: float = 0.05, scale: float = 1.0) -> Latency:
    """Return a model of the real service as recordings show it, for a client this far away; `scale` shrinks it all."""
    trip = round_trip_seconds * scale
    return Latency(
        connect_seconds=2 * trip,
        delay_seconds=0.15 * scale + trip,
        route_seconds={route: seconds * scale + trip for route, seconds in RECORDED_SECONDS.items()},
        upload_bytes_per_second=13.5 * 2**20 / scale,
        download_bytes_per_second=20 * 2**20 / scale,
        commit_seconds=0.16 * scale,
        commit_entry_seconds=0.005 * scale,
        patience_seconds=1.2 * scale,
    )


class Limits:
    """Delays calls and serialises commits. Thread-safe; `_lock` guards the queues and is never held while waiting."""

    def __init__(self, stopping: threading.Event, options: Options) -> None:
        self.latency = Latency()
        self._stopping = stopping
        self._options = options
        self._lock = threading.Lock()
        self._queues: dict[str, deque[threading.Event]] = {}
        self._alone: set[Hashable] = set()
        self._recent: dict[str, deque[float]] = {}  # times of each caller's calls within the last second

    def connect(self) -> None:
        """Wait as long as a new connection takes."""
        if self.latency.connect_seconds > 0:
            self._stopping.wait(self.latency.connect_seconds)

    def delay(self, route: str) -> None:
        """Wait as long as a call of this route takes."""
        latency = self.latency
        self._wait(latency.route_seconds.get(route, latency.delay_seconds))

    def hold_back(self) -> None:
        """Wait before an answer that is ready, where there is jitter: calls are answered out of their order then."""
        self._wait(0.0)

    def _wait(self, seconds: float) -> None:
        most = self.latency.jitter_seconds
        if most > 0:
            seconds += self.latency.chance.uniform(0.0, most)
        if seconds > 0:
            self._stopping.wait(seconds)

    def pace(self, bytes_per_second: float | None) -> Callable[[int], None] | None:
        """Return what slows a body down to a bandwidth, or None."""
        if not bytes_per_second:
            return None
        begin: float | None = None  # set by the first block: what comes before is not transfer
        passed = 0

        def pace(size: int) -> None:
            nonlocal begin, passed
            if begin is None:
                begin = time.monotonic()
            passed += size
            ahead = begin + passed / bytes_per_second - time.monotonic()
            if ahead > CATCH_UP_SECONDS:
                self._stopping.wait(ahead)

        return pace

    def admit(self, caller: str) -> None:
        """Count a call against its caller's rate, or raise RateLimitError; refused calls count, too."""
        rate = self._options.max_calls_per_second
        if rate is None:
            return
        now = time.monotonic()
        with self._lock:
            calls = self._recent.setdefault(caller, deque())
            while calls and calls[0] < now - 1:
                calls.popleft()
            calls.append(now)
            if len(calls) > rate:
                raise self._refusal("too_many_requests")

    def _refusal(self, reason: str) -> RateLimitError:
        options = self._options
        return RateLimitError(reason, options.rate_limit_retry_after_seconds, options.rate_limit_form == "text")

    def stop(self) -> None:
        """Let everybody go on who waits for a write lock."""
        with self._lock:
            for queue in self._queues.values():
                for turn in queue:
                    turn.set()

    @contextmanager
    def alone(self, call: Hashable) -> Iterator[None]:
        """Refuse a call while an equal one runs, if the options say so: the service may do it to equal listings."""
        if not self._options.refuse_equal_listings:
            yield
            return
        with self._lock:
            if call in self._alone:
                raise self._refusal("too_many_requests")
            self._alone.add(call)
        try:
            yield
        finally:
            with self._lock:
                self._alone.discard(call)

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
                raise self._refusal("too_many_write_operations")
            self._stopping.wait(latency.commit_seconds + latency.commit_entry_seconds * (entries - 1))
            yield
        finally:
            with self._lock:
                queue.remove(turn)
                if queue:
                    queue[0].set()
