"""`Reporting`: assembles metrics, hooks, last logins, the status page and the control socket of a gateway."""

from __future__ import annotations

import logging
import socket
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftp_gateway.config import GatewayConfig, parse_address
from sftp_gateway.network.listening import listen
from sftp_gateway.reports.control import ControlSocket, socket_path
from sftp_gateway.reports.hooks import Hooks
from sftp_gateway.reports.last_logins import FILE_NAME, LastLogins
from sftp_gateway.reports.status_page import StatusPage
from sftp_gateway.sftp.events import Listener, Meter

if TYPE_CHECKING:
    from sftp_gateway.reports.metrics import Metrics

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StatusShare:
    """What the processes of one gateway share to show one status page: its socket, and a directory for their counts."""

    listener: socket.socket
    directory: Path


class Reporting:
    """Metrics, hooks, last logins, the status page and the control socket of one gateway, which owns it. Thread-safe.

    Made before the gateway's services, which take its `listeners` and its `meter`; `open` begins to answer.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        look: Callable[[], Mapping[str, float]],
        process: int = 0,
        shared: StatusShare | None = None,
    ) -> None:
        """`look` returns the gauges. Raises `ConfigError`, and `ListenError` if the status page cannot listen."""
        self._process = process
        self._hooks = Hooks(config.hooks, count=self._count_hook)
        self._metrics: Metrics | None = None
        if config.metrics:
            from sftp_gateway.reports.metrics import Metrics  # only where it is asked for: it loads much

            users = _names(config) if config.metrics_users else None
            directory = shared.directory if shared is not None else None
            self._metrics = Metrics(users=users, look=look, directory=directory, process=process)
        self._listener = shared.listener if shared is not None else listen_for_status(config)
        self._last_logins = LastLogins(config.state_path / FILE_NAME)
        self._page: StatusPage | None = None
        self._control: ControlSocket | None = None

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Functions to be called with every event of every session."""
        metrics = () if self._metrics is None else (self._metrics.on_event,)
        return (*metrics, self._hooks.on_event, self._last_logins.on_event)

    @property
    def meter(self) -> Meter | None:
        """The counter of the requests of every channel, if there are metrics."""
        return self._metrics

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """The address of the status page, if there is one."""
        return self._page.address if self._page is not None else None

    def open(
        self,
        config: GatewayConfig,
        port: int,
        *,
        answer: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        healthy: Callable[[], bool],
    ) -> None:
        """Answer scrapers and `sftp-gateway sessions` from now on."""
        path = socket_path(config.control_path, port, self._process)
        try:
            self._control = ControlSocket(path, answer)
        except OSError as error:
            _logger.error("%s: no control socket, so sessions cannot be shown: %s", path, error.strerror or error)
        if self._metrics is not None and self._listener is not None:
            from sftp_gateway.reports.metrics import CONTENT_TYPE

            self._page = StatusPage(
                self._listener, metrics=self._metrics.render, content_type=CONTENT_TYPE, healthy=healthy
            )

    def refused(self, address: str, reason: str) -> None:
        """Count a connection that was refused before it became a session."""
        if self._metrics is not None:
            self._metrics.on_event("refused", {"from": address, "reason": reason})

    def tick(self) -> None:
        """Do periodic work; called about once a second."""
        if self._metrics is not None:
            self._metrics.refresh()
        self._write_logins()

    def prepare(self, config: GatewayConfig) -> Callable[[], None]:
        """Return a function that switches to another configuration's hooks and users; raises `ConfigError`."""
        replace_hooks = self._hooks.prepare(config.hooks)

        def change() -> None:
            replace_hooks()
            if self._metrics is not None and self._metrics.users is not None:
                self._metrics.users = _names(config)

        return change

    def close(self) -> bool:
        """Stop answering, and deliver what is queued for hooks; return whether all ended well. Idempotent."""
        if self._control is not None:
            self._control.close()
        clean = self._hooks.close()
        self._write_logins()
        if self._page is not None:
            self._page.close()
        elif self._listener is not None:
            self._listener.close()
        return clean

    def _write_logins(self) -> None:
        try:
            self._last_logins.write()
        except (OSError, sqlite3.Error) as error:
            _logger.debug("the last logins could not be written: %s", error)

    def _count_hook(self, hook: str, result: str) -> None:
        if self._metrics is not None:
            self._metrics.on_hook(hook, result)


def _names(config: GatewayConfig) -> frozenset[str]:
    return frozenset(user.name for user in config.users)


def listen_for_status(config: GatewayConfig) -> socket.socket | None:
    """Return the socket of the status page, None if none is configured; raises `ListenError`."""
    return listen(*parse_address(config.metrics), "--metrics") if config.metrics else None
