"""`Workers`: the threads of a gateway in which requests that may block are carried out."""

from __future__ import annotations

from collections.abc import Callable


class Workers:
    """A pool of daemon threads, grown on demand up to `limit`, shrunk when idle; one for all sessions of a gateway.

    Thread-safe. `close()` ends the threads after their present work.
    """

    def __init__(self, limit: int = 128, *, idle_seconds: float = 10.0) -> None:
        self.limit = limit
        self.idle_seconds = idle_seconds

    def submit(self, work: Callable[[], None]) -> None:
        """Carry out `work` in a thread of the pool; it must not raise."""
        raise NotImplementedError

    def close(self, timeout: float = 10.0) -> bool:
        """Let the threads end; tell whether all did within `timeout` seconds. Idempotent."""
        raise NotImplementedError
