"""Waiting in tests: for a condition, with a deadline, never for a time that seems long enough."""

from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE_SECONDS = 30.0  # the machine may be busy with other tests


def eventually(
    condition: Callable[[], object], what: str = "it did not come true in time", seconds: float = DEADLINE_SECONDS
) -> None:
    """Wait until a condition holds; fail with `what` where it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)
