"""What works in a configuration and may still be unwise: one line for each."""

from __future__ import annotations

import ipaddress
import os
import resource
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sftp_gateway.config import GatewayConfig, HookConfig, UserConfig, parse_address

_FILES_OF_A_SESSION: Final = 4
_FEWEST_BITS: Final = {4: 8, 6: 16}  # of a network: shorter ones are most of the world


def risks(config: GatewayConfig, file: Path | None = None) -> Iterator[str]:
    """Yield what an administrator should know; reads modes of files, and no more of them."""
    if file is not None and _holds_secrets(config) and _others_may_read(str(file)):
        yield "holds secrets and can be read by other users of this machine; chmod 600, or keep them in files (…_file)"
    if _others_may_write(str(config.state_path)):
        yield f"state_folder: {config.state_path} can be changed by every user of this machine; chmod 700"
    if not config.users and not config.credential_logins:
        yield "users: there are none, and credential_logins is off: nobody can sign in"
    for user in config.users:
        yield from _of_user(user)
    for hook in config.hooks:
        yield from _of_hook(hook)
    if config.metrics and not _is_local(parse_address(config.metrics)[0]):
        yield f"metrics: {config.metrics} can be read by everybody who reaches it; there is no password"
    if not config.ban_failures:
        yield "ban_failures: 0 lets everybody guess passwords for ever"
    if not config.connections_per_minute:
        yield "connections_per_minute: 0 lets everybody ask for key exchanges, which cost the server most, without end"
    for key, networks, meaning in (
        ("ban_exempt", config.ban_exempt, "is never banned"),
        ("rate_exempt", config.rate_exempt, "may connect at any rate"),
        ("proxy_protocol", config.proxy_protocol, "may claim to be any address"),
    ):
        for network in _vast(networks):
            yield f"{key}: {network} is most of the world, and {meaning}"
    if config.compatible_algorithms:
        yield "compatible_algorithms: offers NIST curves and 2048-bit groups to every client; keep it to old devices"
    yield from _of_limits(config)


def _of_user(user: UserConfig) -> Iterator[str]:
    for key in ("url_file", "password_hash_file"):
        path = getattr(user, key)
        if path and _others_may_read(path):
            yield f"user {user.name}: {key}: {path} can be read by other users of this machine; chmod 600"
    if user.public_keys_file and _others_may_write(user.public_keys_file):
        path = user.public_keys_file
        yield f"user {user.name}: public_keys_file: every user of this machine can add a key to {path}; chmod 644"
    if user.write_back and user.rights == "read-only":
        yield f"user {user.name}: write_back: does nothing for who may only read; take one of the two out"
    if user.url.startswith("http://"):
        yield f"user {user.name}: url: goes over the network unencrypted"


def _of_hook(hook: HookConfig) -> Iterator[str]:
    if hook.secret_file and _others_may_read(hook.secret_file):
        yield f"hook {hook.target}: secret_file: can be read by other users of this machine; chmod 600"
    if hook.url and not (hook.secret or hook.secret_file):
        yield f"hook {hook.target}: no secret: the receiver cannot know who sent an event"
    if hook.url.startswith("http://") and not _is_local(urlsplit(hook.url).hostname or ""):
        yield f"hook {hook.target}: url: names and paths go over the network unencrypted"


def _of_limits(config: GatewayConfig) -> Iterator[str]:
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and config.max_connections * _FILES_OF_A_SESSION > files:
        yield f"max_connections: so many sessions can need more than the {files} files that may be open"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if config.processes > 2 * cores:
        yield f"processes: {config.processes} processes share {cores} cores; more than one for each core gains little"


def _holds_secrets(config: GatewayConfig) -> bool:
    return any(user.url or user.password_hash for user in config.users) or any(hook.secret for hook in config.hooks)


def _others_may_read(path: str) -> bool:
    return _others_may(stat.S_IROTH, path)


def _others_may_write(path: str) -> bool:
    return _others_may(stat.S_IWOTH, path)


def _others_may(what: int, path: str) -> bool:
    try:
        return bool(Path(path).stat().st_mode & what)
    except OSError:
        return False  # that it is missing is said elsewhere


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _vast(networks: Iterable[str]) -> Iterator[str]:
    for text in networks:
        network = ipaddress.ip_network(text, strict=False)
        if network.prefixlen < _FEWEST_BITS[network.version]:
            yield text
