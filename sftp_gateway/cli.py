"""The command `sftp-gateway`: flags from the table of settings, signals, exit codes. No logic of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from msgspec.structs import FieldInfo

from sftp_gateway.config import (
    GATEWAY_FIELDS,
    TABLES,
    ConfigError,
    GatewayConfig,
    UserConfig,
    default,
    description,
    settings_table,
)
from sftp_gateway.demo import default_folder, run_demo
from sftp_gateway.listening import allow_many_files
from sftp_gateway.loading import ENVIRONMENT_PREFIX, load_config
from sftp_gateway.logs import set_up_logging
from sftp_gateway.server import Crew, GatewayError, SFTPGateway, fingerprints, load_host_keys
from sftp_gateway.supervisor import Supervisor
from sftp_gateway.users import Users, hash_password

EXIT_UNUSABLE = 2
_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_Command = TypeVar("_Command", bound=Callable[..., None])


def main() -> None:
    """Run the command line; a mistake of the user is one line and exit code 2."""
    try:
        cli.main(prog_name="sftp-gateway", standalone_mode=False)
    except (ConfigError, GatewayError) as error:
        _fail(str(error))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)


def _fail(reason: str) -> None:
    click.echo(f"sftp-gateway: {reason}", err=True)
    sys.exit(EXIT_UNUSABLE)


def _settings(command: _Command) -> _Command:
    """Give a command one flag for each setting."""
    for key, field in reversed(list(GATEWAY_FIELDS.items())):
        if key in TABLES:
            continue
        flag = f"--{key.replace('_', '-')}"
        value = default(field)
        shown = (
            ", ".join(value) if isinstance(value, tuple) else str(value).lower() if value in (True, False) else value
        )
        text = f"{description(field)} [default: {'none' if shown == '' else shown}]"
        if isinstance(value, bool):
            option = click.option(f"{flag}/--no-{flag[2:]}", key, default=None, help=text)
        elif isinstance(value, tuple):
            option = click.option(flag, key, multiple=True, metavar="TEXT", help=f"{text} May be repeated.")
        else:
            option = click.option(flag, key, metavar=_kind(field), help=text)
        command = option(command)
    return command


def _kind(field: FieldInfo) -> str:
    """What a flag takes, as --help shows it."""
    kind = get_args(field.type)[0]
    return "|".join(get_args(kind)) if get_origin(kind) is Literal else "TEXT" if kind is str else "NUMBER"


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flags.items() if value is not None and value != ()}


@click.group(context_settings=_HELP)
def cli() -> None:
    """Serve Dropbox, or any other PyFilesystem, over SFTP."""


@cli.command(context_settings=_HELP)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    envvar=f"{ENVIRONMENT_PREFIX}CONFIG",
    help="A TOML file of settings and users.",
)
@_settings
def serve(file: Path | None, **flags: Any) -> None:
    """Serve until SIGTERM or Ctrl-C; a second Ctrl-C ends at once.

    Without a file, people sign in with their own Dropbox app: user APP_KEY~APP_SECRET (APP_KEY~ for an app without a
    secret, APP_KEY~APP_SECRET~MEMBER@COMPANY.COM for a member of a team), password: a refresh token.

    Every flag can also be a key of the TOML file (with underscores) or an environment variable (SFTP_GATEWAY_LISTEN for
    --listen); the flag wins over the variable, the variable over the file.
    """

    def load() -> GatewayConfig:
        return load_config(file, flags=_given(flags))

    config = load()
    set_up_logging(config.log_level, config.log_format)
    allow_many_files()
    if config.processes == 1:
        sys.exit(_serve(config))
    host_keys = load_host_keys(config)
    supervisor = Supervisor(config, serve=_serve, reload=load)
    sys.exit(supervisor.run(lambda address: _say_ready(address, fingerprints(host_keys))))


def _serve(config: GatewayConfig, crew: Crew | None = None) -> int:
    """Serve in this process until a signal ends it; return the exit code."""
    with Signals() as signals:
        gateway = SFTPGateway(config, crew=crew)
        gateway.start()
        if crew is None:
            _say_ready(gateway.address, gateway.fingerprints)
        signals.wait()
        return 0 if gateway.stop() else 1


def _say_ready(address: tuple[str, int], host_keys: list[str]) -> None:
    host, port = address
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"SFTP gateway ready on {shown}:{port}, host key {', '.join(host_keys)}")


@cli.command(context_settings=_HELP)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Where the demo's files live. [default: ~/.local/share/sftp-gateway/demo]",
)
@click.option("--listen", default="127.0.0.1:2222", show_default=True, help="Address and port of the SFTP server.")
def demo(folder: Path | None, listen: str) -> None:
    """Serve a small local Dropbox that needs no account; its files stay in a folder. Ctrl-C ends it."""
    set_up_logging("info", "text")
    with Signals() as signals:
        run_demo((folder or default_folder()).absolute(), listen, tell=click.echo, wait=signals.wait)


@cli.command("check-config", context_settings=_HELP)
@click.argument("file", type=click.Path(path_type=Path))
def check_config(file: Path) -> None:
    """Print what is in effect with this TOML file and the environment, or what is wrong with it."""
    config = load_config(file)
    for key, field in GATEWAY_FIELDS.items():
        if key not in TABLES:
            value = getattr(config, key)
            origin = "  # default" if value == default(field) else ""
            click.echo(f"{key} = {json.dumps(value, ensure_ascii=False)}{origin}")
    for user in config.users:
        click.echo(f"user {user.name}: {user.rights} in {user.root}, signs in with {_ways_in(user)}")
    problems = list(_problems(config))
    for problem in problems:
        click.echo(f"sftp-gateway: {file}: {problem}", err=True)
    sys.exit(EXIT_UNUSABLE if problems else 0)


def _ways_in(user: UserConfig) -> str:
    keys = "public keys" if user.public_keys or user.public_keys_file else ""
    return " and ".join(way for way in ("a password" if user.password_hash else "", keys) if way)


def _problems(config: GatewayConfig) -> Iterable[str]:
    yield from Users(config.users).check_all()
    for path in config.host_keys:
        if not Path(path).expanduser().is_file():
            yield f"host_keys: {path}: there is no such file; remove the setting to have a key made"


@cli.command("hash-password", context_settings=_HELP)
def hash_password_command() -> None:
    """Read a password from a prompt, or a line of standard input, and print its hash for a user's password_hash."""
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        _fail("an empty password lets everybody in; give one")
    click.echo(hash_password(password))


@cli.command(context_settings=_HELP)
def settings() -> None:
    """Print every setting with its default and meaning, as a Markdown table."""
    click.echo(settings_table())


class Signals:
    """Turn SIGTERM and Ctrl-C into the end of `wait`; a second Ctrl-C ends the process on the spot."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        # A signal may reach the process in any thread, and Python runs handlers only once the main one wakes: the
        # number also goes to a socket, from C, where a thread reads it.
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, lambda *_: None)
        threading.Thread(target=self._read, name="sftp-gateway-signals", daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._sender.close()  # ends the thread

    def wait(self) -> None:
        """Return when the process was asked to end."""
        self._asked.wait()

    def _read(self) -> None:
        with self._receiver:
            while numbers := self._receiver.recv(1):
                if self._asked.is_set() and numbers[0] == signal.SIGINT:
                    os._exit(130)
                if numbers[0] in self._before:
                    self._asked.set()
