"""How to wait for something to happen to an account, and how that wait ends early. Knows no HTTP."""

from __future__ import annotations

from typing import Final, Protocol

from fs_dropbox.api import results, routes
from fs_dropbox.api.calls import Caller
from fs_dropbox.api.results import Longpoll
from fs_dropbox.errors import TransportError

# The service adds up to 90 s to a longpoll's timeout.
SLACK_SECONDS: Final = 100.0


class Flag(Protocol):
    """What tells, as a threading.Event does, whether something is so."""

    def is_set(self) -> bool: ...


def longpoll(caller: Caller, cursor: str, timeout_seconds: int, stop: Flag) -> Longpoll:
    """Wait until something happens after the cursor, `stop` is set and the thread interrupted, or the time is over."""
    try:
        with caller.waiter():
            if stop.is_set():  # looked at only now: from here on an interruption is not lost
                return Longpoll(False, 0.0)
            return caller.request(
                routes.LONGPOLL,
                {"cursor": cursor, "timeout": timeout_seconds},
                receive=lambda answer: results.decode_longpoll(answer.result),
                seconds=timeout_seconds + SLACK_SECONDS,
            )
    except TransportError as error:
        if error.kind == "interrupted" and stop.is_set():
            return Longpoll(False, 0.0)
        raise
