"""Settings that let nobody in but those whom a test names, and no storage credentials unless it gives their URL."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sftp_gateway.config import GatewayConfig, UserConfig
from sftp_gateway.serving.users import Users


def config_of(users: Iterable[UserConfig] = (), **settings: Any) -> GatewayConfig:
    return GatewayConfig(users=tuple(users), credential_logins="credential_url" in settings, **settings)


def users_of(users: Iterable[UserConfig] = (), **settings: Any) -> Users:
    return Users(config_of(users, **settings))
