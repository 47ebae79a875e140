"""`SingleFlight`: equal calls that are under way at the same time share one. Knows nothing of the project."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Final, TypeVar

T = TypeVar("T")

WAIT_SECONDS: Final = 300.0  # above every deadline of a call: a bound, not a policy


class SingleFlight:
    """Equal calls that are under way at the same time share one. Thread-safe; one lock over the table, a leaf."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[object, Future[object]] = {}  # guarded by _lock

    def is_under_way(self, key: object) -> bool:
        """Tell whether whoever did this now would share a call."""
        with self._lock:
            return key in self._calls

    def do(self, key: object, work: Callable[[], T]) -> T:
        """Return or raise what `work()` does, or the same call under way; TimeoutError after the bound.

        Where the thread that makes the call is interrupted (KeyboardInterrupt, SystemExit), that is its own affair: one
        of those who wait makes the call anew.
        """
        mine: Future[object] = Future()
        result: object = None
        try:
            with self._lock:
                future = self._calls.setdefault(key, mine)
            if future is mine:
                result = work()
        except Exception as error:
            self._end(key, mine)
            mine.set_exception(error)
            raise
        except BaseException:
            self._end(key, mine)
            mine.cancel()
            raise
        if future is mine:
            self._end(key, mine)
            mine.set_result(result)
            return result  # type: ignore[return-value]
        try:
            return future.result(WAIT_SECONDS)  # type: ignore[return-value]
        except FutureTimeoutError:
            if future.done():
                raise
            raise TimeoutError(f"no answer within {WAIT_SECONDS:g} s") from None
        except CancelledError:
            if not future.cancelled():
                raise
            return self.do(key, work)

    def _end(self, key: object, mine: Future[object]) -> None:
        with self._lock:
            if self._calls.get(key) is mine:
                del self._calls[key]
