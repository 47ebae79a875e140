"""`Pool`: threads for a while, as many as the machine lets be started. Knows nothing of what they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


class Pool(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` that makes do with fewer threads where no more can be started.

    Whoever submits what a new thread was to do then does it himself. As with that, threads that nobody has ended end
    with the interpreter.
    """

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most, thread_name_prefix=name)
        self._is_over = False

    def submit(self, work: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> Future[T]:
        """Have a work done; raises RuntimeError after the end."""
        task = _Task(partial(work, *args, **options))
        try:
            queued = super().submit(task)
        except RuntimeError:
            if self._is_over and task.give_up():
                raise
            task()
        else:
            queued.add_done_callback(lambda queued: queued.cancelled() and task.give_up())
        return task.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads when all is done, or without what was not begun."""
        self._is_over = True
        super().shutdown(wait=wait, cancel_futures=cancel_futures)


def map_in(executor: Executor, work: Callable[[S], T], items: Sequence[S]) -> list[T]:
    """Return what a work makes of each item, of several at once as far as there are threads."""
    if len(items) > 1:
        with suppress(RuntimeError):  # none can be started, or not any more
            return list(executor.map(work, items))
    return [work(item) for item in items]


class _Task(Generic[T]):
    """Work that is done once, by whoever calls it first, or given up before.

    An executor that can start no thread raises, and has queued what it was given all the same.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self.future: Future[T] = Future()
        self._works = [work]  # popped in a single step; what is left in a queue holds no data

    def __call__(self) -> None:
        work = self._take()
        if work is None or not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(work())
        except BaseException as error:  # told by the future, as the executor does
            self.future.set_exception(error)
            if not isinstance(error, Exception):
                raise  # Ctrl-C is for whoever works here

    def give_up(self) -> bool:
        """Have nobody do it any more, and tell whoever waits; False where somebody has begun."""
        if self._take() is None:
            return False
        self.future.cancel()
        self.future.set_running_or_notify_cancel()
        return True

    def _take(self) -> Callable[[], T] | None:
        try:
            return self._works.pop()
        except IndexError:
            return None
