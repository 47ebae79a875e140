"""`Workers`: the threads of a gateway in which requests that may block are carried out."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Workers:
    """A pool of daemon threads, grown on demand up to `limit`, shrunk when idle; one for all sessions of a gateway.

    Thread-safe. Owned by the gateway, which calls `close()`.
    """

    def __init__(self, limit: int = 128, *, idle_seconds: float = 10.0) -> None:
        self.limit = limit
        self.idle_seconds = idle_seconds
        self._condition = threading.Condition()
        # guarded by _condition
        self._queue: deque[Callable[[], object]] = deque()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._closed = False
        self._count = 0

    @property
    def load(self) -> tuple[int, int, int]:
        """The number of threads, how many of them are at work, and how many pieces of work wait for one."""
        with self._condition:
            return len(self._threads), len(self._threads) - self._idle, len(self._queue)

    def submit(self, work: Callable[[], object], *, urgent: bool = False) -> None:
        """Carry out `work` in a thread of the pool; `urgent` work gets one at once, beyond the limit if need be.

        If the system has no more threads, the work waits for an existing thread, or for the next one that can start.
        After `close()` each piece of work still gets a thread of its own.
        """
        with self._condition:
            if self._closed:
                threading.Thread(target=self._carry_out, args=(work,), name="sftp-late-worker", daemon=True).start()
                return
            if urgent:
                self._queue.appendleft(work)
            else:
                self._queue.append(work)
            if self._idle >= len(self._queue):
                self._condition.notify()
            elif urgent or len(self._threads) < self.limit:
                self._add_thread()

    def _add_thread(self) -> None:
        self._count += 1
        thread = threading.Thread(target=self._serve, name=f"sftp-worker-{self._count}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            logger.error("a request has to wait: %s", error)
        else:  # it waits for the lock that is held here
            self._threads.add(thread)

    def close(self, timeout: float = 10.0) -> bool:
        """Finish what is queued, end the threads; return whether all ended within `timeout` seconds. Idempotent."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
            threads = list(self._threads)
        deadline = time.monotonic() + timeout
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _serve(self) -> None:
        while True:
            with self._condition:
                self._idle += 1
                try:
                    until = time.monotonic() + self.idle_seconds
                    # It may be woken for work that a busier thread has taken already: then it waits on.
                    while not self._queue and not self._closed and (left := until - time.monotonic()) > 0:
                        self._condition.wait(left)
                finally:
                    self._idle -= 1
                if not self._queue:
                    self._threads.discard(threading.current_thread())
                    return
                work = self._queue.popleft()
            self._carry_out(work)
            del work  # what it refers to must not live on in an idle thread

    @staticmethod
    def _carry_out(work: Callable[[], object]) -> None:
        try:
            work()
        except Exception:
            logger.exception("a request could not be carried out")
