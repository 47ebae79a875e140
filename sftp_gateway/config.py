"""`GatewayConfig`, `UserConfig` and `HookConfig`: every setting's name, type, default and help, once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

HookEvent = Literal[
    "login", "login_failed", "upload", "upload_failed", "download", "remove", "rename", "mkdir", "rmdir"
]


class ConfigError(Exception):
    """The configuration cannot be used; the text is one line: where, which key, why, what to do."""


class HookConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to tell about events, and how: a command that is started, or a URL that is sent to."""

    events: Annotated[
        tuple[HookEvent, ...], Meta(description="Events that trigger the hook, such as upload and upload_failed.")
    ]
    command: Annotated[tuple[str, ...], Meta(description="A program and its arguments; no shell reads them.")] = ()
    url: Annotated[str, Meta(description="Where the event is posted as JSON.")] = ""
    secret: Annotated[str, Meta(description="Key that signs each post with HMAC-SHA256.")] = ""
    secret_file: Annotated[str, Meta(description="The file that holds that secret.")] = ""
    users: Annotated[tuple[str, ...], Meta(description="Only events of these users; empty for all users.")] = ()
    timeout_seconds: Annotated[float, Meta(description="Time for one attempt.", gt=0)] = 10.0
    attempts: Annotated[
        int, Meta(description="Attempts in all; 0 for the default: 5 for a URL, 1 for a command.", ge=0)
    ] = 0
    queue: Annotated[int, Meta(description="Events that may wait; more are dropped and counted.", ge=1)] = 1000

    @property
    def target(self) -> str:
        """What is told, as logs may show it: without arguments, path and query, which can hold secrets."""
        if self.command:
            return Path(self.command[0]).name
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{rest.partition('/')[0].partition('?')[0].rpartition('@')[2]}"

    def __repr__(self) -> str:
        return f"HookConfig(events={self.events!r}, target={self.target!r})"


class UserConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One user of the gateway: who it is, what it sees, what it may do."""

    name: Annotated[str, Meta(description="The login name.", min_length=1)]
    password_hash: Annotated[str, Meta(description="What `sftp-gateway hash-password` printed, or a bcrypt hash.")] = ""
    password_hash_file: Annotated[str, Meta(description="The file that holds it.")] = ""
    public_keys: Annotated[tuple[str, ...], Meta(description="Lines as in authorized_keys.")] = ()
    public_keys_file: Annotated[str, Meta(description="A file of such lines.")] = ""
    url: Annotated[str, Meta(description="The FS URL that the user sees, such as dropbox://KEY~SECRET:TOKEN@/.")] = ""
    url_env: Annotated[str, Meta(description="The environment variable that holds that URL.")] = ""
    url_file: Annotated[str, Meta(description="The file that holds that URL.")] = ""
    root: Annotated[str, Meta(description="The folder that the user sees as /.")] = "/"
    create_root: Annotated[bool, Meta(description="Make that folder at a login when it is missing.")] = False
    rights: Annotated[
        Literal["read-write", "read-only", "write-only"],
        Meta(description="read-write, read-only, or write-only (a drop box: uploads only, other files stay hidden)."),
    ] = "read-write"
    networks: Annotated[
        tuple[str, ...], Meta(description="Addresses and networks that the user may sign in from; empty for all.")
    ] = ()
    max_sessions: Annotated[int, Meta(description="Sessions at once; 0 for max_sessions_per_user.", ge=0)] = 0
    quota_bytes: Annotated[int, Meta(description="Bytes that root may hold; 0 for no limit.", ge=0)] = 0
    quota_files: Annotated[int, Meta(description="Files that root may hold; 0 for no limit.", ge=0)] = 0
    write_back: Annotated[
        bool, Meta(description="Answer when a file is on the gateway's own disk, and deliver it in the background.")
    ] = False

    def __repr__(self) -> str:
        return f"UserConfig(name={self.name!r}, root={self.root!r}, rights={self.rights!r})"


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a gateway can be told."""

    listen: Annotated[
        str, Meta(description="Address and port to listen on; [::]:2222 for IPv4 and IPv6, port 0 for any free port.")
    ] = "127.0.0.1:2222"
    state_folder: Annotated[
        str, Meta(description="Folder for host keys and unfinished uploads; empty for ~/.local/state/sftp-gateway.")
    ] = ""
    host_keys: Annotated[
        tuple[str, ...],
        Meta(description="Host key files; empty for keys in the state folder, created if missing."),
    ] = ()
    compatible_algorithms: Annotated[
        bool, Meta(description="Also offer NIST curves, 2048-bit groups, ECDSA and RSA host keys, for older clients.")
    ] = False
    strict_algorithms: Annotated[
        bool, Meta(description="Offer only post-quantum key exchange and authenticated encryption.")
    ] = False
    credential_logins: Annotated[
        bool, Meta(description="Allow logins with APP_KEY~APP_SECRET and a refresh token.")
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
    max_unauthenticated: Annotated[
        int,
        Meta(
            description="Connections at once that have not signed in; one address may take half of the free ones.", ge=1
        ),
    ] = 300
    connections_per_minute: Annotated[
        float,
        Meta(description="Connections a minute from one address that do not sign in; 0 for no limit.", ge=0),
    ] = 120.0
    connection_burst: Annotated[
        int, Meta(description="How many of them are accepted in a burst before that rate applies.", ge=1)
    ] = 100
    rate_exempt: Annotated[
        tuple[str, ...], Meta(description="Addresses and networks without a limit on this rate.")
    ] = (
        "127.0.0.0/8",
        "::1/128",
    )
    login_seconds: Annotated[float, Meta(description="Time to sign in before the connection is closed.", gt=0)] = 60.0
    open_seconds: Annotated[float, Meta(description="Time for the storage to answer at a login.", gt=0)] = 20.0
    channel_seconds: Annotated[float, Meta(description="Time to ask for SFTP after signing in.", gt=0)] = 60.0
    idle_seconds: Annotated[float, Meta(description="Silence after which a session is closed.", gt=0)] = 1800.0
    keepalive_seconds: Annotated[float, Meta(description="Silence before a keepalive is sent; 0 for none.", ge=0)] = (
        30.0
    )
    busy_poll_seconds: Annotated[
        float,
        Meta(description="How long a session looks for the next request before it sleeps; 0 for never.", ge=0, le=0.1),
    ] = 0.0003
    drain_seconds: Annotated[
        float, Meta(description="Time for running transfers to finish when the server stops.", ge=0)
    ] = 30.0
    account_idle_seconds: Annotated[
        float, Meta(description="How long a filesystem stays open after its last session.", ge=0)
    ] = 300.0
    recheck_seconds: Annotated[
        float, Meta(description="How old a login may be before the next one asks the storage again.", ge=0)
    ] = 60.0
    ban_failures: Annotated[
        int, Meta(description="Failed logins within ban_seconds that ban an address; 0 for never.", ge=0)
    ] = 20
    ban_seconds: Annotated[float, Meta(description="How long an address stays banned.", gt=0)] = 600.0
    ban_exempt: Annotated[tuple[str, ...], Meta(description="Addresses and networks that are never banned.")] = (
        "127.0.0.0/8",
        "::1/128",
    )
    processes: Annotated[
        int,
        Meta(description="Processes that share the port, so that all cores are used.", ge=1),
    ] = 1
    workers: Annotated[int, Meta(description="Threads of a process for requests that wait for the storage.", ge=1)] = (
        128
    )
    spool_quota_bytes: Annotated[
        int, Meta(description="Disk space for unfinished uploads of one account; a single file may be larger.", ge=0)
    ] = 10 * 2**30
    partial_seconds: Annotated[float, Meta(description="How long a broken upload can be resumed.", ge=0)] = 86400.0
    write_back_quota_bytes: Annotated[
        int, Meta(description="Disk space for files of one account that wait for delivery.", ge=0)
    ] = 10 * 2**30
    write_back_delay_seconds: Annotated[
        float, Meta(description="How long a file may wait for others to be delivered together.", ge=0)
    ] = 10.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Lowest level that is logged.")
    ] = "info"
    log_format: Annotated[Literal["text", "json"], Meta(description="Lines for people, or JSON.")] = "text"
    log_file: Annotated[
        str, Meta(description="File for log lines, reopened after rotation; empty for standard error.")
    ] = ""
    metrics: Annotated[
        str, Meta(description="Address and port of /metrics (Prometheus) and /healthz over HTTP; empty for none.")
    ] = ""
    metrics_users: Annotated[
        bool, Meta(description="Label the metrics of logins and transfers with the configured user.")
    ] = False
    control_folder: Annotated[
        str,
        Meta(description="Folder of the sockets that `sftp-gateway sessions` asks; empty for the state folder."),
    ] = ""
    proxy_protocol: Annotated[
        tuple[str, ...],
        Meta(description="Addresses and networks of proxies, which must send a PROXY header (v1 or v2)."),
    ] = ()
    hooks: Annotated[
        tuple[HookConfig, ...], Meta(description="Whom to tell about events, one [[hooks]] table each.")
    ] = ()

    @property
    def state_path(self) -> Path:
        """The state directory; by default in XDG_STATE_HOME. Raises `ConfigError` where there is no home for it."""
        if self.state_folder:
            return Path(self.state_folder).expanduser()
        return in_home("XDG_STATE_HOME", ".local/state", "--state-folder") / "sftp-gateway"

    @property
    def control_path(self) -> Path:
        """The directory of the control sockets."""
        return Path(self.control_folder).expanduser() if self.control_folder else self.state_path

    @property
    def listen_address(self) -> tuple[str, int]:
        """The host and the port to listen on."""
        return parse_address(self.listen)


_Fields = Mapping[str, msgspec.structs.FieldInfo]
GATEWAY_FIELDS: Final[_Fields] = {field.name: field for field in msgspec.structs.fields(GatewayConfig)}
USER_FIELDS: Final[_Fields] = {field.name: field for field in msgspec.structs.fields(UserConfig)}
HOOK_FIELDS: Final[_Fields] = {field.name: field for field in msgspec.structs.fields(HookConfig)}
TABLES: Final[Mapping[str, _Fields]] = {"users": USER_FIELDS, "hooks": HOOK_FIELDS}
"""The settings of the file alone: lists of tables, and what each table may hold."""


def description(field: msgspec.structs.FieldInfo) -> str:
    """The help text of a setting."""
    for meta in field.type.__metadata__:
        if isinstance(meta, Meta) and meta.description:
            return meta.description
    raise LookupError(field.name)


def scheme_of(url: str) -> str:
    """Return the scheme of an FS URL; "" where what stands there is none, and may hold the secrets of the rest."""
    scheme, separator, _ = url.partition("://")
    return scheme if separator and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,30}", scheme) else ""


def parse_address(text: str) -> tuple[str, int]:
    """Split "host:port", "[v6]:port" or ":port"; raises ValueError."""
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]*)):(\d{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{text!r} is not ADDRESS:PORT, such as 0.0.0.0:2222 or [::]:2222")
    return match[1] or match[2] or "0.0.0.0", int(match[3])


def in_home(variable: str, folder: str, option: str) -> Path:
    """Return what the variable names, else a folder of the user's home; raises `ConfigError` where there is none."""
    try:
        return Path(os.environ.get(variable) or f"~/{folder}").expanduser()
    except RuntimeError:  # a container that runs as a number, without HOME
        raise ConfigError(f"this user has no home folder, and HOME is not set: choose a folder with {option}") from None


def read_text(file: Path) -> str:
    """Return the text of a file that people write; Windows' editors put a mark in front of UTF-8, which is left out."""
    return file.read_text(encoding="utf-8-sig")


def why_unreadable(path: str, error: OSError | UnicodeDecodeError) -> str:
    """Return why a file that a setting names cannot be read, in a few words."""
    reason = str(error.strerror or error) if isinstance(error, OSError) else "is not UTF-8 text"
    return f"{reason} (no such variable is set here)" if "$" in path else reason


def settings_table() -> str:
    """Return every setting as a Markdown table, for the documentation."""
    lines = ["| setting | default | what it does |", "|---|---|---|"]
    for prefix, fields in (("", GATEWAY_FIELDS), *((f"{table}.", fields) for table, fields in TABLES.items())):
        for key, field in fields.items():
            value = field.default
            shown = "" if value is msgspec.NODEFAULT else f"`{msgspec.json.encode(value).decode()}`"
            if prefix + key not in TABLES:
                lines.append(f"| `{prefix}{key}` | {shown} | {description(field)} |")
    return "\n".join(lines)
