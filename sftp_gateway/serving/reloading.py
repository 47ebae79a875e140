"""What SIGHUP changes: which settings take effect at once. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from sftp_gateway.config import GATEWAY_FIELDS, GatewayConfig

AT_ONCE: Final = frozenset(
    {
        "credential_logins",
        "credential_url",
        "url_parameters",
        "users",
        "max_connections",
        "max_connections_per_address",
        "max_sessions_per_user",
        "max_unauthenticated",
        "connections_per_minute",
        "connection_burst",
        "rate_exempt",
        "login_seconds",
        "open_seconds",
        "channel_seconds",
        "idle_seconds",
        "keepalive_seconds",
        "busy_poll_seconds",
        "drain_seconds",
        "account_idle_seconds",
        "recheck_seconds",
        "ban_failures",
        "ban_seconds",
        "ban_exempt",
        "log_level",
        "log_format",
        "log_file",
        "hooks",
        "compatible_algorithms",
        "strict_algorithms",
    }
)
"""The settings that a running gateway can change; also `proxy_protocol`, unless the change turns it on."""


def merged(old: GatewayConfig, new: GatewayConfig) -> GatewayConfig:
    """Return the old configuration with all new settings that can take effect at once."""
    changes = {key: getattr(new, key) for key in AT_ONCE}
    if old.proxy_protocol:
        changes["proxy_protocol"] = new.proxy_protocol
    return msgspec.structs.replace(old, **changes)


def needing_restart(old: GatewayConfig, new: GatewayConfig) -> Iterator[str]:
    """Yield the settings whose change takes effect only after a restart."""
    taken = merged(old, new)
    yield from (key for key in GATEWAY_FIELDS if getattr(taken, key) != getattr(new, key))
