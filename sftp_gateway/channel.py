"""`SFTPChannel`: one SFTP channel of a session: reads requests, keeps their order, answers them."""

from __future__ import annotations

from dataclasses import dataclass

import paramiko

from sftp_gateway.events import Events
from sftp_gateway.tree import TreeView
from sftp_gateway.workers import Workers


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """Bounds of one channel."""

    handles: int = 1024  # open at once
    in_flight: int = 256  # requests that are not answered yet; parsing stops above
    running: int = 16  # of them in worker threads at once
    output_bytes: int = 4 * 2**20  # replies that the client has not taken yet; parsing stops above


class SFTPChannel:
    """Serves one channel of a `GatewayTransport` until the client, the transport or `stop()` ends it."""

    def __init__(
        self,
        channel: paramiko.Channel,
        view: TreeView,
        *,
        events: Events,
        workers: Workers,
        limits: ChannelLimits = ChannelLimits(),
    ) -> None:
        self.channel = channel

    def start(self) -> None:
        """Serve from now on in the transport's own thread and in `workers`; returns at once.

        Call it inside `check_channel_subsystem_request`, before it returns True.
        """
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the channel has ended and everything of it is cleaned up; tell whether it has."""
        raise NotImplementedError

    def run(self) -> None:
        """Start, and return when the channel has ended and left nothing: no handle, no thread, no spool file."""
        self.start()
        self.wait()

    def stop(self, deadline: float = 0.0) -> bool:
        """Take no new request, give running ones `deadline` seconds, abort the rest; tell whether all could end."""
        raise NotImplementedError

    @property
    def last_activity(self) -> float:
        """The `time.monotonic()` of the last request or reply."""
        raise NotImplementedError
