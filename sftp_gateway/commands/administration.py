"""The commands that look at a gateway's settings, users and sessions: `check-config`, `users`, `sessions`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from sftp_gateway.commands.risks import risks
from sftp_gateway.config import GATEWAY_FIELDS, TABLES, ConfigError, GatewayConfig, UserConfig
from sftp_gateway.loading import ENVIRONMENT_PREFIX, Problem, examine, load_config, unknown_variables
from sftp_gateway.logs import printable, printable_json
from sftp_gateway.reports.control import ask_all
from sftp_gateway.reports.hooks import read_secret
from sftp_gateway.reports.last_logins import FILE_NAME, read_last_logins
from sftp_gateway.serving.users import Users

EXIT_FAILED: Final = 1
EXIT_UNUSABLE: Final = 2

ASK_WITH_CONFIG: Final = "; name the gateway's file with --config, if it has one"

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_config = partial(
    click.option, "--config", "file", type=click.Path(path_type=Path), help="The TOML file of settings and users."
)
config_file = _config(envvar=f"{ENVIRONMENT_PREFIX}CONFIG")
config_file_behind = _config(default=lambda: _group().params["file"])
"""Of the commands of a group that has `config_file`: there most people write it last."""


def _group() -> click.Context:
    """Return the context of the group whose command is being read."""
    group = click.get_current_context().parent
    assert group is not None
    return group


@click.command("check-config")
@click.argument("file", type=click.Path(path_type=Path), envvar=f"{ENVIRONMENT_PREFIX}CONFIG")
@click.option("-q", "--quiet", is_flag=True, help="Print only what is wrong or risky.")
@_json
def check_config(file: Path, quiet: bool, as_json: bool) -> None:
    """Tell what is in effect, what is wrong, what is risky.

    With this TOML file, the files that it names, and the environment. No storage is asked: whether Dropbox takes a
    user's token shows at the login. The exit code is 2 when something is wrong, 0 otherwise.
    """
    config, problems = examine(file)
    warnings: list[str] = []
    if config is not None:
        if not problems:
            warnings = [*risks(config, file), *unknown_variables(os.environ)]
        flawed = {problem.about for problem in problems}
        problems += [Problem(str(file), text) for text in _problems(config, flawed)]
    if as_json:
        _print_check_as_json(config, problems, warnings)
    else:
        if config is not None and not problems and not quiet:
            _print_settings(config)
        for problem in problems:
            click.echo(f"sftp-gateway: {problem}", err=True)
        for warning in warnings:
            click.echo(f"sftp-gateway: {file}: warning: {warning}", err=True)
    sys.exit(EXIT_UNUSABLE if problems else 0)


def _problems(config: GatewayConfig, flawed: Container[str]) -> Iterator[str]:
    """Yield what only the files and variables tell that the settings name; nothing more about what is flawed anyway."""
    sound = tuple(user for user in config.users if f"user {user.name}" not in flawed)
    yield from Users(msgspec.structs.replace(config, users=sound)).check_all()
    for hook in config.hooks:
        try:
            read_secret(hook)
        except ConfigError as error:
            yield str(error)
    for path in config.host_keys:
        if not Path(path).expanduser().is_file():
            yield f"host_keys: {path}: there is no such file; remove the setting to have a key made"


def _print_settings(config: GatewayConfig) -> None:
    for key, value, is_default in _effective(config):
        click.echo(f"{key} = {json.dumps(value, ensure_ascii=False)}{'  # default' if is_default else ''}")
    for user in config.users:
        rights = user.rights + (", write-back," if user.write_back else "")
        click.echo(f"user {user.name}: {rights} in {user.root}, signs in with {' and '.join(_ways_in(user))}")
    for hook in config.hooks:
        signed = ", signed" if hook.secret or hook.secret_file else ""
        click.echo(f"hook {hook.target}: {', '.join(hook.events)}{signed}")


def _print_check_as_json(config: GatewayConfig | None, problems: Sequence[Problem], warnings: Sequence[str]) -> None:
    print_json(
        {
            "problems": [asdict(problem) for problem in problems],
            "warnings": warnings,
            "settings": {key: value for key, value, _ in _effective(config)} if config is not None else None,
            "users": [_user(user) for user in config.users] if config is not None else None,
        }
    )


def _effective(config: GatewayConfig) -> Iterator[tuple[str, Any, bool]]:
    for key, field in GATEWAY_FIELDS.items():
        if key not in TABLES:
            value = getattr(config, key)
            yield key, value, value == field.default


def _ways_in(user: UserConfig) -> list[str]:
    ways = {
        "a password": user.password_hash or user.password_hash_file,
        "public keys": user.public_keys or user.public_keys_file,
    }
    return [way for way, given in ways.items() if given]


def _user(user: UserConfig) -> dict[str, Any]:
    return {
        "name": user.name,
        "root": user.root,
        "rights": user.rights,
        "write_back": user.write_back,
        "max_sessions": user.max_sessions,
        "signs_in_with": _ways_in(user),
    }


@click.command("users")
@config_file
@_json
def show_users(file: Path | None, as_json: bool) -> None:
    """List the configured users and their last logins.

    With their folder and their rights.
    """
    config = load_config(file)
    logins = read_last_logins(config.state_path / FILE_NAME)
    rows = []
    for user in config.users:
        last = logins.get(user.name)
        when = datetime.fromtimestamp(last.at, UTC).isoformat(timespec="seconds") if last is not None else None
        login = {"at": when, "from": last.address, "method": last.method} if last is not None else None
        rows.append(_user(user) | {"last_login": login})
    if as_json:
        print_json(rows)
        return
    shown = [
        {
            "user": row["name"],
            "root": row["root"],
            "rights": row["rights"] + (", write-back" if row["write_back"] else ""),
            "signs in with": ", ".join(row["signs_in_with"]),
            "last login": "{at} from {from}".format(**row["last_login"]) if row["last_login"] else "never",
        }
        for row in rows
    ]
    _print_table(shown, f"no users are configured{ASK_WITH_CONFIG if file is None else ''}")


@click.command("sessions")
@config_file
@click.option("--state-folder", type=click.Path(path_type=Path), help="The gateway's state folder, without a file.")
@click.option("--kick", metavar="SESSION|USER", help="End this session, or all sessions of this user, at once.")
@_json
def sessions(file: Path | None, state_folder: Path | None, kick: str | None, as_json: bool) -> None:
    """List or end the sessions of the running gateway.

    Who is signed in, from where, and what they have open.

    Works for the user that the gateway runs as, and for root.
    """
    config = load_config(file, flags={"state_folder": str(state_folder)} if state_folder is not None else None)
    request = {"command": "kick", "session": kick, "user": kick} if kick else {"command": "sessions"}
    try:
        answers = ask_all(config.control_path, request)
    except PermissionError:
        raise ConfigError(f"{config.control_path}: only the user that runs the gateway, and root, may ask it") from None
    if not answers:
        hint = ASK_WITH_CONFIG if file is state_folder is None else ""
        raise ConfigError(f"{config.control_path}: no gateway that runs has its control socket here{hint}")
    for answer in answers:
        if "error" in answer:
            raise ConfigError(f"{config.control_path}: a gateway was asked and said: {answer['error']}")
    if kick:
        _say_ended([name for answer in answers for name in answer["ended"]], kick, as_json=as_json)
        return
    rows = sorted((row for answer in answers for row in answer["sessions"]), key=lambda row: str(row["since"]))
    if as_json:
        print_json(rows)
        return
    shown = [
        {
            **{key: row[key] for key in ("session", "user", "from", "since")},
            "idle": f"{row['idle_seconds']}s",
            "client": row["client"],
            "open": ", ".join(f"{file['path']} ({file['open_for']})" for file in row["files"]),
        }
        for row in rows
    ]
    _print_table(shown, "nobody is signed in")


def _say_ended(ended: Sequence[str], meant: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"ended": ended})
    elif ended:
        click.echo(f"ended: {', '.join(ended)}")
    else:
        raise ConfigError(f"there is no session and no signed-in user {meant!r}")


def print_json(value: Any) -> None:
    """Print JSON; what clients chose themselves cannot steer the terminal."""
    for line in msgspec.json.format(msgspec.json.encode(value), indent=2).decode().split("\n"):
        click.echo(printable_json(line))


def _print_table(rows: Sequence[Mapping[str, str]], nothing: str) -> None:
    """Print columns; as `print_json`, nothing that steers the terminal."""
    if not rows:
        click.echo(nothing)
        return
    cells = [list(rows[0])] + [[printable(cell) for cell in row.values()] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


COMMANDS: Final = (check_config, show_users, sessions)
