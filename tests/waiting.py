"""Waiting in tests: for a condition, with a deadline, never for a time that seems long enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

DEADLINE_SECONDS = 25.0  # the machine may be busy with other tests; below the 30 s for which the cache believes itself
PAUSES_SECONDS = 0.002, 0.05

Result = TypeVar("Result")


def eventually(
    condition: Callable[[], Result | None],
    what: str | Callable[[], str] = "it did not come true in time",
    seconds: float = DEADLINE_SECONDS,
) -> Result:
    """Wait until a condition holds and return what it came to; fail with `what` where it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    pause, longest = PAUSES_SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(pause)
        pause = min(1.5 * pause, longest)
    return result
