"""The services that all sessions of a gateway share: created from its settings, and updated when these change."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from fs.base import FS

from sftp_gateway.config import GatewayConfig
from sftp_gateway.reports.reporting import Reporting
from sftp_gateway.requests.room import Room
from sftp_gateway.requests.workers import Workers
from sftp_gateway.serving.accounts import Accounts
from sftp_gateway.serving.gatekeeper import Gatekeeper, Register
from sftp_gateway.serving.users import Users
from sftp_gateway.sftp.events import Listener, Meter
from sftp_gateway.ssh.hostkey import create_private_file


@dataclass(frozen=True, slots=True)
class Services:
    """The shared services. Owned by `SFTPGateway`, which closes each of them."""

    users: Users
    accounts: Accounts
    workers: Workers
    room: Room
    gatekeeper: Gatekeeper
    listeners: tuple[Listener, ...]
    meter: Meter | None

    def configure(self, config: GatewayConfig) -> None:
        """Use the users, limits and times of other settings from now on."""
        written_back = {url for _, url in self.users.urls(write_back=True)}
        self.users.configure(config)
        for _, url in self.users.urls(write_back=True):
            if url not in written_back:  # its account has no journal yet
                self.accounts.renew(url)
        self.gatekeeper.configure(config)
        self.accounts.configure(config)


def make_services(
    config: GatewayConfig,
    reporting: Reporting,
    *,
    open_filesystem: Callable[[str], FS],
    secret: bytes,
    wrap: Callable[[str, str, FS], FS],
    register: Register | None,
) -> Services:
    """Return the services of a gateway; with a `register`, of one of several processes."""
    return Services(
        users=Users(config),
        accounts=Accounts(
            config, open_filesystem=open_filesystem, secret=secret, wrap=wrap, shared=register is not None
        ),
        workers=Workers(config.workers),
        room=Room(),
        gatekeeper=Gatekeeper(config, register=register),
        listeners=reporting.listeners,
        meter=reporting.meter,
    )


def load_account_secret(config: GatewayConfig) -> bytes:
    """Return the key of the digests that name accounts; stored, so that partial uploads are found after a restart.

    Raises `HostKeyError` and OSError.
    """
    path = config.state_path / "account_secret"
    if not path.exists():
        create_private_file(path, os.urandom(32))
    return path.read_bytes()
