"""The command `sftp-gateway`: flags from the table of settings, signals, exit codes. No logic of its own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from msgspec.structs import FieldInfo, replace

from sftp_gateway.commands.administration import COMMANDS, EXIT_FAILED, EXIT_UNUSABLE, config_file
from sftp_gateway.commands.demo import default_directory, run_demo
from sftp_gateway.commands.means import allow_many_files, keep_loaded, share_free_memory
from sftp_gateway.commands.pending import pending
from sftp_gateway.commands.signals import Signals
from sftp_gateway.config import (
    GATEWAY_FIELDS,
    TABLES,
    ConfigError,
    GatewayConfig,
    description,
    settings_table,
)
from sftp_gateway.loading import load_config
from sftp_gateway.logs import log_event, set_up_logging
from sftp_gateway.passwords import hash_password
from sftp_gateway.reports.hooks import read_secret
from sftp_gateway.server import Crew, GatewayError, SFTPGateway, fingerprints, load_host_keys
from sftp_gateway.serving.users import Users
from sftp_gateway.ssh.hostkey import HostKeyError
from sftp_gateway.supervisor import Supervisor
from sftp_gateway.write_back.journal_file import JournalError

_Command = TypeVar("_Command", bound=Callable[..., None])


def main() -> None:
    """Run the command line; a failure is one line on standard error and an exit code."""
    try:
        cli.main(prog_name="sftp-gateway", standalone_mode=False)
    except (ConfigError, JournalError) as error:
        _fail(str(error))
    except GatewayError as error:  # such as a port in use: another time it may start
        is_mistake = isinstance(error.__cause__, (ConfigError, HostKeyError))
        _fail(str(error), EXIT_UNUSABLE if is_mistake else EXIT_FAILED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_UNUSABLE)
    except click.ClickException as error:
        hint = f" (see {error.ctx.command_path} --help)" if isinstance(error, click.UsageError) and error.ctx else ""
        _fail(f"{error.format_message()}{hint}", error.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)


def _fail(reason: str, code: int = EXIT_UNUSABLE) -> None:
    click.echo(f"sftp-gateway: {reason}", err=True)
    sys.exit(code)


def _settings(command: _Command) -> _Command:
    """Give a command one flag for each setting."""
    for key, field in reversed(list(GATEWAY_FIELDS.items())):
        if key in TABLES:
            continue
        flag = f"--{key.replace('_', '-')}"
        value = field.default
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


_EXIT_CODES = """
\b
Exit codes
  0    done; of serve and demo: everybody was served to the end
  1    something failed; or sessions had to be cut off at the end
  2    a mistake in the command or the settings
  130  ended at once with Ctrl-C
"""


@click.group(epilog=_EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="fs-dropbox", message="%(prog)s %(version)s")
def cli() -> None:
    """Serve Dropbox, or any other PyFilesystem, over SFTP."""


@cli.command()
@config_file
@_settings
def serve(file: Path | None, **flags: Any) -> None:
    """Serve until SIGTERM or Ctrl-C.

    A second Ctrl-C ends at once. SIGHUP reads the settings again.

    Without a file, people sign in with their own Dropbox app: user APP_KEY~APP_SECRET (APP_KEY~ for an app without a
    secret, APP_KEY~APP_SECRET~MEMBER@COMPANY.COM for a member of a team), password: a refresh token.

    Every flag can also be a key of the TOML file (with underscores) or an environment variable (SFTP_GATEWAY_LISTEN for
    --listen); the flag wins over the variable, the variable over the file.
    """

    def load() -> GatewayConfig:
        return load_config(file, flags=_given(flags))

    config = load()
    _set_up_logging(config)
    allow_many_files()
    share_free_memory()
    if config.processes == 1:
        sys.exit(_serve(config, load=load))
    host_keys = load_host_keys(config)
    _check_hooks(config)
    _look_at_users(config)
    keep_loaded()
    supervisor = Supervisor(config, serve=partial(_serve, load=load), reload=partial(_reload_for_others, load))
    sys.exit(supervisor.run(lambda address: _say_ready(address, fingerprints(host_keys))))


def _serve(config: GatewayConfig, crew: Crew | None = None, *, load: Callable[[], GatewayConfig]) -> int:
    """Serve in this process until a signal ends it; return the exit code."""
    with Signals(hangup=True) as signals:
        gateway = SFTPGateway(config, crew=crew)
        gateway.start()
        signals.on_hangup(lambda: _reload(gateway, load, look=_look_at_users if crew is None else lambda _: None))
        if crew is None:
            _say_ready(gateway.address, gateway.fingerprints)
            _look_at_users(config)
            keep_loaded()
        else:
            crew.begun()
        signals.wait()
        return 0 if gateway.stop() else 1


def _look_at_users(config: GatewayConfig) -> None:
    """Log what keeps users from signing in, before they run into it.

    This loads the code that opens their URLs, so that the first login is fast, and forked processes share it.
    """
    own = replace(config, credential_logins=config.credential_logins and not config.users)
    for problem in Users(own).check_all():
        log_event("misconfigured", level=logging.WARNING, reason=problem)


def _reload(gateway: SFTPGateway, load: Callable[[], GatewayConfig], *, look: Callable[[GatewayConfig], None]) -> None:
    """Apply changed settings, or log what is wrong with them."""
    try:
        config = load()
        gateway.reload(config, first=partial(_set_up_logging, config))
        look(config)
    except ConfigError as error:
        log_event("reload_failed", level=logging.ERROR, reason=f"{error}; everything stays as it was")


def _reload_for_others(load: Callable[[], GatewayConfig]) -> GatewayConfig:
    """Return changed settings for processes that start later, and apply their logging here.

    Raises `ConfigError`; all processes stay as they are then.
    """
    config = load()
    _check_hooks(config)
    _set_up_logging(config)
    _look_at_users(config)
    return config


def _check_hooks(config: GatewayConfig) -> None:
    """Raise `ConfigError` for hooks that every process would refuse."""
    for hook in config.hooks:
        read_secret(hook)


def _set_up_logging(config: GatewayConfig) -> None:
    try:
        set_up_logging(config.log_level, config.log_format, file=config.log_file)
    except OSError as error:
        raise ConfigError(f"log_file: {config.log_file}: {error.strerror or error}") from error


def _say_ready(address: tuple[str, int], host_keys: list[str]) -> None:
    host, port = address
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"SFTP gateway ready on {shown}:{port}, host key {', '.join(host_keys)}")


@cli.command()
@click.option(
    "--folder",
    "directory",
    type=click.Path(path_type=Path),
    help="Where the demo's files live. [default: ~/.local/share/sftp-gateway/demo]",
)
@click.option("--listen", default="127.0.0.1:2222", show_default=True, help="Address and port of the SFTP server.")
def demo(directory: Path | None, listen: str) -> None:
    """Serve a small local Dropbox that needs no account.

    Its files stay in a folder. Ctrl-C ends it.
    """
    set_up_logging("info", "text")
    with Signals() as signals:
        run_demo((directory or default_directory()).absolute(), listen, tell=click.echo, wait=signals.wait)


@cli.command("hash-password")
def hash_password_command() -> None:
    """Print the hash of a password, for a user's password_hash.

    The password is asked for, or is the first line of standard input.
    """
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        _fail("an empty password lets everybody in; give one")
    click.echo(hash_password(password))


@cli.command()
def settings() -> None:
    """Print every setting with its default, as a Markdown table."""
    click.echo(settings_table())


for _administrative in (*COMMANDS, pending):
    cli.add_command(_administrative)
