"""Calls that do what a test says, by a clock of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fs_dropbox.api.retry import Governor, Retry, RetryPolicy, Traffic, Waiter
from fs_dropbox.errors import ApiError


class FakeClock:
    """Waits take no time, and are written down."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> object:
        if not event.is_set():
            self.waits.append(seconds)
            self.now += seconds
        return event.is_set()


class Script:
    """An attempt that does what it is told, one thing after the other."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)
        self.tries = 0

    def __call__(self, left: float) -> object:
        self.tries += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def run(clock: FakeClock, attempt: Callable[[float], Any], governor: Governor | None = None, **arguments: Any) -> Any:
    policy = arguments.pop("policy", RetryPolicy(attempts=4, deadline_seconds=60.0))
    retry = Retry(policy, governor or Governor(clock), clock=clock, chance=lambda: 1.0)
    defaults: dict[str, Any] = {"route": "r", "traffic": Traffic.READ, "waiter": Waiter(clock), "repeatable": True}
    return retry.run(attempt, **(defaults | arguments))


def busy(seconds: float | None = None, tag: str = "too_many_requests") -> ApiError:
    return ApiError("r", (tag,), status=429, retry_after=seconds)
