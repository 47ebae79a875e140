"""The events of a session: what the SFTP protocol reports to logs, metrics and hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

Listener = Callable[[str, Mapping[str, Any]], None]
"""Called with each event of a session and the fields that the log shows of it, without secrets; from several threads,
also from the transport's: it must be quick and must not raise."""


class Transfer(NamedTuple):
    """One finished upload or download: the path as the client named it, bytes that were moved, wall-clock seconds.

    `result` is "ok", "aborted" (the connection ended first; nothing was stored) or "failed" (with a `reason`).
    """

    direction: Literal["upload", "download"]
    path: str
    size: int
    seconds: float
    result: Literal["ok", "aborted", "failed"]
    reason: str = ""


class Events(Protocol):
    """Receiver of one call for each event of a session.

    Calls come from several threads, also from the transport's: they must be quick and must not raise.
    Paths are the client's.
    """

    def on_transfer(self, transfer: Transfer) -> None:
        """Note a finished, failed or aborted upload or download."""

    def on_rename(self, source: str, target: str) -> None:
        """Note that a file or a directory has a new path."""

    def on_remove(self, path: str, *, directory: bool) -> None:
        """Note that a file or an empty directory was removed."""

    def on_mkdir(self, path: str) -> None:
        """Note that a directory was made."""

    def on_failure(
        self, operation: str, path: str, reason: str, *, is_expected: bool = False, trace: str | None = None
    ) -> None:
        """Note a request that was answered with an error other than "no such file" and "end of file".

        Expected failures are those of requests that clients make just in case: MKDIR of an existing directory.
        `trace` is the traceback of an error that nobody expected.
        """


class Meter(Protocol):
    """Counts what goes through the channels; called for every request, so it must be quick and must not raise."""

    def received(self, amount: float, /) -> None:
        """Note bytes that came in."""

    def answered(self, kind: int, seconds: float, size: int, /) -> None:
        """Note that a request of this kind was answered with so many bytes."""
