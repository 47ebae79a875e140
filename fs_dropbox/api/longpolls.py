"""How to wait for something to happen to an account, and how that wait ends early. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fs_dropbox.api import results, routes
from fs_dropbox.api.calls import Caller
from fs_dropbox.api.results import Longpoll
from fs_dropbox.errors import TransportError

# The service adds up to 90 s to a longpoll's timeout.
SLACK_SECONDS: Final = 100.0


def longpoll(caller: Caller, cursor: str, timeout_seconds: int, is_over: Callable[[], bool]) -> Longpoll:
    """Wait until something happens after the cursor, `is_over` and the thread is interrupted, or the time has come."""
    try:
        with caller.waiter():
            if is_over():  # looked at only now: from here on an interruption is not lost
                return Longpoll(False, 0.0)
            return caller.request(
                routes.LONGPOLL,
                {"cursor": cursor, "timeout": timeout_seconds},
                receive=lambda answer: results.decode_longpoll(answer.result),
                seconds=timeout_seconds + SLACK_SECONDS,
            )
    except TransportError as error:
        if error.kind == "interrupted" and is_over():
            return Longpoll(False, 0.0)
        raise
