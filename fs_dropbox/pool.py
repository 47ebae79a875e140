"""`Pool`: threads for a while, as many as the machine lets be started. Knows nothing of what they do."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Pool(Executor):
    """As `ThreadPoolExecutor`, but that it makes do with fewer threads where no more can be started.

    Where there can be none at all, whoever submits does the work. One lock over what waits and the threads: a leaf.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._changed = threading.Condition(threading.Lock())
        # guarded by _changed
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._is_over = False

    def submit(self, work: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> Future[T]:
        """Have a work done; raises RuntimeError after the end."""
        future: Future[T] = Future()
        item = future, partial(work, *args, **options)
        with self._changed:
            if self._is_over:
                raise RuntimeError("the pool is over")
            self._waiting.append(item)
            if len(self._waiting) > self._idle and len(self._threads) < self._most:
                self._start_one()
            self._changed.notify()
            if self._threads:
                return future
            self._waiting.clear()
        _carry_out(*item)
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error  # Ctrl-C is for whoever works here
        return future

    def _start_one(self) -> None:
        """Start a thread, if the machine lets one be started; called with the lock held."""
        thread = threading.Thread(target=self._serve, name=f"{self._name}_{len(self._threads)}")
        try:
            thread.start()
        except RuntimeError:  # "can't start new thread"
            return
        self._threads.append(thread)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not (self._waiting or self._is_over):
                    self._changed.wait()
                self._idle -= 1
                if not self._waiting:
                    return
                item = self._waiting.popleft()
            _carry_out(*item)
            del item  # what it holds is not held while nothing comes

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads when all is done, or without what was not begun."""
        with self._changed:
            self._is_over = True
            given_up = list(self._waiting) if cancel_futures else []
            if cancel_futures:
                self._waiting.clear()
            self._changed.notify_all()
            threads = list(self._threads)
        for future, _ in given_up:
            future.cancel()
            future.set_running_or_notify_cancel()  # so that who waits for it hears of it
        for thread in threads if wait else ():
            thread.join()


def _carry_out(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - it is for whoever asks the future
        future.set_exception(error)
    else:
        future.set_result(result)
