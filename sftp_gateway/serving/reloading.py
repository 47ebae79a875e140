"""What SIGHUP changes: which settings take effect at once, and whose sessions end. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from sftp_gateway.config import GATEWAY_FIELDS, GatewayConfig, UserConfig
from sftp_gateway.serving.users import Login

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
"""The settings that a running gateway takes over; `proxy_protocol` too, unless that turns it on."""

_HARMLESS: Final = frozenset({"max_sessions"})  # of a user: what changes nothing for who is here


def merged(old: GatewayConfig, new: GatewayConfig) -> GatewayConfig:
    """Return the new configuration as far as it can take effect at once."""
    changes = {key: getattr(new, key) for key in AT_ONCE}
    if old.proxy_protocol:
        changes["proxy_protocol"] = new.proxy_protocol
    return msgspec.structs.replace(old, **changes)


def needing_restart(old: GatewayConfig, new: GatewayConfig) -> Iterator[str]:
    """Yield the settings whose change takes effect only after a restart."""
    taken = merged(old, new)
    yield from (key for key in GATEWAY_FIELDS if getattr(taken, key) != getattr(new, key))


def loses_its_place(login: Login, old: GatewayConfig, new: GatewayConfig) -> bool:
    """Tell whether a session that signed in under `old` may not go on under `new`.

    That of a user who is there no more, or who signs in, sees or may do something else now.
    """
    before, after = _user(old, login.name), _user(new, login.name)
    if before is None and after is None:
        return not new.credential_logins
    return before is None or after is None or _binding(before) != _binding(after)


def _user(config: GatewayConfig, name: str) -> UserConfig | None:
    return next((user for user in config.users if user.name == name), None)


def _binding(user: UserConfig) -> dict[str, object]:
    return {key: value for key, value in msgspec.structs.asdict(user).items() if key not in _HARMLESS}
