"""An SFTP server over any PyFilesystem: `SFTPGateway(GatewayConfig(…))`, or the command `sftp-gateway`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

with warnings.catch_warnings():
    # fs 2.4.16 declares its namespace through pkg_resources, which warns; imported here once, it warns nobody.
    warnings.simplefilter("ignore")
    import fs  # noqa: F401

if TYPE_CHECKING:
    from sftp_gateway.config import ConfigError, GatewayConfig, UserConfig
    from sftp_gateway.server import GatewayError, SFTPGateway

__all__ = ["ConfigError", "GatewayConfig", "GatewayError", "SFTPGateway", "UserConfig"]

_HOMES = {
    "ConfigError": "config",
    "GatewayConfig": "config",
    "UserConfig": "config",
    "GatewayError": "server",
    "SFTPGateway": "server",
}


def __getattr__(name: str) -> Any:
    """Import what is exported when it is asked for: the command can then say which extra is missing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
