"""Counts calls, bytes and concurrency per route, and remembers the last requests."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

LOG_RECORDS = 2000


@dataclass(slots=True, frozen=True)
class Record:
    """One answered request."""

    route: str
    argument: Any
    status: int  # 0: dropped without an answer
    bytes_in: int
    bytes_out: int  # of the body that is to be sent; the client may go away before
    seconds: float
    account_id: str | None


class Meter:
    """Thread-safe; `_lock` is a leaf."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # guarded by _lock
        self._calls: Counter[str] = Counter()
        self._bytes_in: Counter[str] = Counter()
        self._bytes_out: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._peaks: Counter[str] = Counter()
        self._records: deque[Record] = deque(maxlen=LOG_RECORDS)

    def begin(self, route: str) -> None:
        """Count a call that starts."""
        with self._lock:
            self._calls[route] += 1
            self._running[route] += 1
            self._running["*"] += 1
            self._peaks[route] = max(self._peaks[route], self._running[route])
            self._peaks["*"] = max(self._peaks["*"], self._running["*"])

    def note(self, record: Record) -> None:
        """Remember a call whose work is done; its answer's body may still have to be sent."""
        with self._lock:
            self._bytes_in[record.route] += record.bytes_in
            self._records.append(record)

    def sent(self, route: str, size: int) -> None:
        """Count bytes of an answer's body that are about to be sent."""
        with self._lock:
            self._bytes_out[route] += size

    def end(self, route: str) -> None:
        """Count a call as over: nothing of its answer is left to be sent but the last block."""
        with self._lock:
            self._running[route] -= 1
            self._running["*"] -= 1

    def calls(self) -> Counter[str]:
        """Return the number of calls by route."""
        with self._lock:
            return Counter(self._calls)

    def bytes_in(self) -> Counter[str]:
        """Return the bytes of request bodies by route."""
        with self._lock:
            return Counter(self._bytes_in)

    def bytes_out(self) -> Counter[str]:
        """Return the bytes of answer bodies by route."""
        with self._lock:
            return Counter(self._bytes_out)

    def peak(self, route: str = "*") -> int:
        """Return the largest number of calls of a route ("*": of all) that ran at once."""
        with self._lock:
            return self._peaks[route]

    def running(self, route: str = "*") -> int:
        """Return the number of calls of a route ("*": of all) that are not over, whether their clients wait or not."""
        with self._lock:
            return self._running[route]

    def records(self) -> list[Record]:
        """Return the last requests, oldest first."""
        with self._lock:
            return list(self._records)

    def reset(self) -> None:
        """Begin to count anew; calls under way stay counted as running."""
        with self._lock:
            for counter in (self._calls, self._bytes_in, self._bytes_out, self._peaks):
                counter.clear()
            self._peaks.update({route: number for route, number in self._running.items() if number > 0})
            self._records.clear()
