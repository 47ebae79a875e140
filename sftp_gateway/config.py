"""`GatewayConfig` and `UserConfig`: every setting's name, type, default and help, once; and where values come from.

A value is taken from a flag, else the environment (SFTP_GATEWAY_…), else the TOML file, else the default here.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

ENVIRONMENT_PREFIX: Final = "SFTP_GATEWAY_"


class ConfigError(Exception):
    """The configuration cannot be used; the text is one line: where, which key, why, what to do."""


class UserConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One user of the gateway: who it is, what it sees, what it may do."""

    name: Annotated[str, Meta(description="The login name.", min_length=1)]
    password_hash: Annotated[str, Meta(description="What `sftp-gateway hash-password` printed.")] = ""
    public_keys: Annotated[tuple[str, ...], Meta(description="Lines as in authorized_keys.")] = ()
    public_keys_file: Annotated[str, Meta(description="A file of such lines.")] = ""
    url: Annotated[str, Meta(description="The FS URL that the user sees, such as dropbox://KEY~SECRET:TOKEN@/.")] = ""
    url_env: Annotated[str, Meta(description="The environment variable that holds that URL.")] = ""
    url_file: Annotated[str, Meta(description="The file that holds that URL.")] = ""
    root: Annotated[str, Meta(description="The folder that the user sees as /.")] = "/"
    rights: Annotated[
        Literal["read-write", "read-only", "write-only"],
        Meta(description="read-write, read-only, or write-only (a drop box: nothing can be read or removed)."),
    ] = "read-write"
    max_sessions: Annotated[int, Meta(description="Sessions at once; 0 for max_sessions_per_user.", ge=0)] = 0

    def __repr__(self) -> str:
        return f"UserConfig(name={self.name!r}, root={self.root!r}, rights={self.rights!r})"


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a gateway can be told."""

    listen: Annotated[str, Meta(description="Address and port; [::]:2222 for IPv6, port 0 for any free one.")] = (
        "127.0.0.1:2222"
    )
    state_folder: Annotated[
        str, Meta(description="Folder of the host key and of uploads under way; empty for ~/.local/state/sftp-gateway.")
    ] = ""
    host_keys: Annotated[
        tuple[str, ...],
        Meta(description="Host key files; none for host_key_ed25519 in the state folder, made when missing."),
    ] = ()
    compatible_algorithms: Annotated[
        bool, Meta(description="Also offer NIST curves and 2048-bit groups, for older devices.")
    ] = False
    strict_algorithms: Annotated[
        bool, Meta(description="Offer post-quantum key exchange and authenticated encryption alone.")
    ] = False
    credential_logins: Annotated[
        bool, Meta(description="Let people sign in with APP_KEY~APP_SECRET and a refresh token.")
    ] = True
    credential_url: Annotated[str, Meta(description="The FS URL that such a login opens.")] = (
        "dropbox://{user}:{password}@/"
    )
    url_parameters: Annotated[
        str, Meta(description="Added to that URL after ?, such as root=home&timeout_seconds=60.")
    ] = ""
    users: Annotated[
        tuple[UserConfig, ...], Meta(description="The gateway's own users, one [[users]] table each.")
    ] = ()
    max_connections: Annotated[int, Meta(description="Connections at once.", ge=1)] = 500
    max_connections_per_address: Annotated[int, Meta(description="Connections at once from one address.", ge=1)] = 100
    max_sessions_per_user: Annotated[int, Meta(description="Signed-in connections at once of one user.", ge=1)] = 100
    login_seconds: Annotated[float, Meta(description="Time to sign in before the connection is closed.", gt=0)] = 60.0
    open_seconds: Annotated[float, Meta(description="Time for the storage to answer at a login.", gt=0)] = 20.0
    channel_seconds: Annotated[float, Meta(description="Time to ask for SFTP after signing in.", gt=0)] = 60.0
    idle_seconds: Annotated[float, Meta(description="Silence after which a session is closed.", gt=0)] = 1800.0
    keepalive_seconds: Annotated[float, Meta(description="Silence before a keepalive is sent; 0 for none.", ge=0)] = (
        30.0
    )
    drain_seconds: Annotated[float, Meta(description="Time for transfers under way when the server stops.", ge=0)] = (
        30.0
    )
    account_idle_seconds: Annotated[
        float, Meta(description="How long a filesystem stays open after its last session.", ge=0)
    ] = 300.0
    recheck_seconds: Annotated[
        float, Meta(description="How old a login may be before the next one asks the storage again.", ge=0)
    ] = 60.0
    ban_failures: Annotated[
        int, Meta(description="Failed logins from one address within ban_seconds that ban it; 0 for never.", ge=0)
    ] = 20
    ban_seconds: Annotated[float, Meta(description="How long an address stays banned.", gt=0)] = 600.0
    ban_exempt: Annotated[tuple[str, ...], Meta(description="Addresses and networks that are never banned.")] = (
        "127.0.0.0/8",
        "::1/128",
    )
    processes: Annotated[
        int,
        Meta(description="Processes that serve the port together, so that all cores work; 1 for this one alone.", ge=1),
    ] = 1
    workers: Annotated[int, Meta(description="Threads of a process for requests that wait for the storage.", ge=1)] = (
        128
    )
    spool_quota_bytes: Annotated[int, Meta(description="Disk for uploads under way, of one account.", ge=0)] = (
        10 * 2**30
    )
    partial_seconds: Annotated[float, Meta(description="How long a broken upload can be resumed.", ge=0)] = 86400.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least that is logged.")
    ] = "info"
    log_format: Annotated[Literal["text", "json"], Meta(description="Lines for people, or JSON.")] = "text"

    @property
    def state_path(self) -> Path:
        """The state folder; by default in XDG_STATE_HOME."""
        if self.state_folder:
            return Path(self.state_folder).expanduser()
        home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(home).expanduser() / "sftp-gateway"

    @property
    def listen_address(self) -> tuple[str, int]:
        """The host and the port to listen on."""
        return parse_address(self.listen)


_Fields = Mapping[str, msgspec.structs.FieldInfo]
GATEWAY_FIELDS: Final[_Fields] = {field.name: field for field in msgspec.structs.fields(GatewayConfig)}
USER_FIELDS: Final[_Fields] = {field.name: field for field in msgspec.structs.fields(UserConfig)}


def description(field: msgspec.structs.FieldInfo) -> str:
    """The help text of a setting."""
    for meta in field.type.__metadata__:
        if isinstance(meta, Meta) and meta.description:
            return meta.description
    raise LookupError(field.name)


def default(field: msgspec.structs.FieldInfo) -> Any:
    """The default of a setting; `msgspec.NODEFAULT` where it must be given."""
    return field.default


def load_config(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> GatewayConfig:
    """Put the configuration together and check it; raises `ConfigError` with one line about the first mistake."""
    values: dict[str, tuple[Any, str]] = {}
    if file is not None:
        values.update((key, (value, str(file))) for key, value in _read(file).items())
    for key, text in _from_environment(os.environ if environment is None else environment):
        values[key] = (_split(key, text), f"{ENVIRONMENT_PREFIX}{key.upper()}")
    for key, value in (flags or {}).items():
        values[key] = (value, f"--{key.replace('_', '-')}")
    converted = {key: _convert(key, value, source) for key, (value, source) in values.items()}
    config = GatewayConfig(**converted)
    _check(config, {key: source for key, (_, source) in values.items()}, file)
    return config


def parse_address(text: str) -> tuple[str, int]:
    """Split "host:port", "[v6]:port" or ":port"; raises ValueError."""
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]*)):(\d{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{text!r} is not ADDRESS:PORT, such as 0.0.0.0:2222 or [::]:2222")
    return match[1] or match[2] or "0.0.0.0", int(match[3])


def _read(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: is not TOML: {error}") from error
    for key in ("state_folder",):
        if isinstance(values.get(key), str) and values[key]:
            values[key] = _beside(file, values[key])
    if isinstance(values.get("host_keys"), list):
        values["host_keys"] = [_beside(file, key) if isinstance(key, str) else key for key in values["host_keys"]]
    for user in values["users"] if isinstance(values.get("users"), list) else []:
        for key in ("public_keys_file", "url_file"):
            if isinstance(user, dict) and isinstance(user.get(key), str) and user[key]:
                user[key] = _beside(file, user[key])
    return values


def _beside(file: Path, path: str) -> str:
    """A path of the file, relative to the folder of the file."""
    return str(file.absolute().parent / Path(path).expanduser())


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key in GATEWAY_FIELDS:
        name = ENVIRONMENT_PREFIX + key.upper()
        if name in environment and key != "users":
            yield key, environment[name]


def _split(key: str, text: str) -> Any:
    """A value from the environment: lists are separated by commas."""
    if isinstance(default(GATEWAY_FIELDS[key]), tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _convert(key: str, value: Any, source: str) -> Any:
    """Return the value with the type of the setting; texts of flags and variables are read as that type."""
    if key not in GATEWAY_FIELDS:
        raise ConfigError(f"{source}: {_unknown(key, GATEWAY_FIELDS)}")
    if key == "users" and isinstance(value, list):
        for index, user in enumerate(value):
            for name in user if isinstance(user, dict) else ():
                if name not in USER_FIELDS:
                    place = user.get("name") or f"number {index + 1}"
                    raise ConfigError(f"{source}: user {place}: {_unknown(name, USER_FIELDS)}")
    lax = source.startswith((ENVIRONMENT_PREFIX, "--"))
    try:
        return msgspec.convert(value, GATEWAY_FIELDS[key].type, strict=not lax)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        name = source if lax else f"{source}: {key}{place.rstrip('`')}"
        raise ConfigError(
            f"{name}: {reason[0].lower()}{reason[1:]}; it is: {description(GATEWAY_FIELDS[key])}"
        ) from None


def _unknown(key: str, fields: _Fields) -> str:
    near = difflib.get_close_matches(key, fields, 1)
    return f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(fields)}")


def _check(config: GatewayConfig, sources: Mapping[str, str], file: Path | None) -> None:
    """Check what types cannot say."""
    try:
        config.listen_address  # noqa: B018
    except ValueError as error:
        raise ConfigError(f"{sources.get('listen', 'listen')}: listen: {error}") from None
    for network in config.ban_exempt:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            where = sources.get("ban_exempt", "ban_exempt")
            raise ConfigError(f"{where}: ban_exempt: {network!r} is not an address or network") from None
    if config.strict_algorithms and config.compatible_algorithms:
        where = sources.get("strict_algorithms", "strict_algorithms")
        raise ConfigError(f"{where}: strict_algorithms and compatible_algorithms exclude each other; give one of them")
    for placeholder in ("{user}", "{password}"):
        if config.credential_logins and placeholder not in config.credential_url:
            where = sources.get("credential_url", "credential_url")
            raise ConfigError(f"{where}: credential_url: has no {placeholder}: every login would open the same account")
    names: set[str] = set()
    for user in config.users:
        where = f"{file or 'users'}: user {user.name}"
        if user.name in names:
            raise ConfigError(f"{where}: is there twice; remove one of the two")
        names.add(user.name)
        _check_user(user, where)


def _check_user(user: UserConfig, where: str) -> None:
    given = [key for key in ("url", "url_env", "url_file") if getattr(user, key)]
    if len(given) != 1:
        what = " and ".join(given) + " are given" if given else "no url is given"
        raise ConfigError(f"{where}: {what}; give one of url, url_env, url_file")
    if not (user.password_hash or user.public_keys or user.public_keys_file):
        raise ConfigError(f"{where}: cannot sign in; give password_hash, public_keys or public_keys_file")
    if user.password_hash and not user.password_hash.startswith("$argon2"):
        raise ConfigError(f"{where}: password_hash: is not a hash; make one with: sftp-gateway hash-password")


def settings_table() -> str:
    """Return every setting as a Markdown table, for the documentation."""
    lines = ["| setting | default | what it does |", "|---|---|---|"]
    for prefix, fields in (("", GATEWAY_FIELDS), ("users.", USER_FIELDS)):
        for key, field in fields.items():
            value = default(field)
            shown = "" if value is msgspec.NODEFAULT else f"`{_toml(value)}`"
            if prefix + key != "users":
                lines.append(f"| `{prefix}{key}` | {shown} | {description(field)} |")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    return msgspec.json.encode(value).decode()
