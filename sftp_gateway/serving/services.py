"""What all sessions of a gateway share, put together from its settings, and changed with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from fs.base import FS

from sftp_gateway.config import GatewayConfig
from sftp_gateway.files.tree import TreeLimits
from sftp_gateway.reports.reporting import Reporting
from sftp_gateway.requests.room import Room
from sftp_gateway.requests.workers import Workers
from sftp_gateway.serving.accounts import Accounts
from sftp_gateway.serving.gatekeeper import Gatekeeper, GateLimits, Register
from sftp_gateway.serving.session import Services
from sftp_gateway.serving.users import Users
from sftp_gateway.ssh.hostkey import create_private_file


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
        users=Users(config.users, **credential_logins(config)),
        accounts=Accounts(
            open_filesystem=open_filesystem,
            spool_directory=config.state_path / "spool",
            secret=secret,
            tree_limits=TreeLimits(
                spool_quota=config.spool_quota_bytes,
                partial_seconds=config.partial_seconds,
                shared=register is not None,
            ),
            wrap=wrap,
            **_times(config),
        ),
        workers=Workers(config.workers),
        room=Room(),
        gatekeeper=Gatekeeper(_limits(config), register=register),
        listeners=reporting.listeners,
        meter=reporting.meter,
    )


def change_services(services: Services, config: GatewayConfig) -> None:
    """Use the users, limits and times of another configuration from now on."""
    written_back = {url for _, url in services.users.urls(write_back=True)}
    services.users.replace(config.users, **credential_logins(config))
    for _, url in services.users.urls(write_back=True):
        if url not in written_back:  # its account has no journal yet
            services.accounts.renew(url)
    services.gatekeeper.limit(_limits(config))
    services.accounts.set_times(**_times(config))


def load_account_secret(config: GatewayConfig) -> bytes:
    """Return the key of the digests that name accounts: kept, so that partial uploads are found after a restart.

    Raises `HostKeyError` and OSError.
    """
    path = config.state_path / "account_secret"
    if not path.exists():
        create_private_file(path, os.urandom(32))
    return path.read_bytes()


def credential_logins(config: GatewayConfig) -> dict[str, Any]:
    """Return what `Users` needs to know of logins with storage credentials."""
    return {
        "credential_url": config.credential_url if config.credential_logins else None,
        "url_parameters": config.url_parameters,
    }


def _limits(config: GatewayConfig) -> GateLimits:
    return GateLimits(**{each.name: getattr(config, each.name) for each in fields(GateLimits)})


def _times(config: GatewayConfig) -> dict[str, Any]:
    return {
        "open_seconds": config.open_seconds,
        "idle_seconds": config.account_idle_seconds,
        "recheck_seconds": config.recheck_seconds,
    }
