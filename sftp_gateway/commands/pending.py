"""The command `pending`: files that were acknowledged and are not in the storage: list, retry, export, drop."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from sftp_gateway.commands.administration import ASK_WITH_CONFIG, config_file, config_file_behind, print_json
from sftp_gateway.loading import load_config
from sftp_gateway.logs import printable
from sftp_gateway.write_back.directory_rows import PendingDirectory
from sftp_gateway.write_back.journal import Journal
from sftp_gateway.write_back.journal_file import FILE_NAME, JournalError
from sftp_gateway.write_back.journal_rows import Pending

_SHORT = 8  # characters of a journal's name in what names a file


@click.group(invoke_without_command=True)
@config_file
@click.pass_context
def pending(context: click.Context, file: Path | None) -> None:
    """List or retry what write-back has not delivered.

    Works beside a running gateway and without one. Files are named as `list` shows them, such as in

        sftp-gateway pending retry 1f0c22ab-17 --config gateway.toml
    """
    if context.invoked_subcommand is None:
        context.invoke(list_files, file=file)


@pending.command("list")
@click.option("--failed", is_flag=True, help="Only what the storage has refused for good.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_file_behind
def list_files(file: Path | None, failed: bool, as_json: bool) -> None:
    """List what is not delivered yet, and why.

    The exit code is 1 where a journal cannot be read.
    """
    found: list[dict[str, Any]] = []
    unreadable = []
    directory = _journals(file)
    for place in _directories(directory):
        try:
            with _opened(place) as journal:
                users, held = journal.noted("users"), journal.noted("held")
                for each in journal.all():
                    if each.failed or not failed:
                        found.append(_shown(_name(place, each.id), users, each, each.path, each.size, held))
                for made in () if failed else journal.directories.all():  # there is nothing to do but to wait
                    found.append(_shown("-", users, made, made.path + "/", 0, held))
        except JournalError as error:
            unreadable.append(str(error))
    if as_json:
        print_json({"files": found, "unreadable": unreadable})
    else:
        for row in found:
            reason = f"  {row['reason']}" if row["reason"] else ""
            path = json.dumps(row["path"], ensure_ascii=False)
            start = f"{row['name']:<11}  {row['state']:7}  {row['acknowledged']}  {row['bytes']:>12}"
            click.echo(printable(f"{start}  {row['users']}  {path}{reason}"))
        if not found and not unreadable:
            click.echo(f"Nothing is pending in {directory}{ASK_WITH_CONFIG if file is None else ''}.")
    for text in unreadable:
        click.echo(f"sftp-gateway: {text}; it is kept as it is", err=True)
    if unreadable:
        sys.exit(1)


@pending.command()
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that have failed.")
@click.option("--replace", is_flag=True, help="Over whatever the storage has at that path by now.")
@config_file_behind
def retry(file: Path | None, names: tuple[str, ...], every: bool, replace: bool) -> None:
    """Deliver once more what has failed."""
    if not names and not every:
        raise click.UsageError("Name files, as `sftp-gateway pending` lists them, or give --all.")
    tried = False
    for place, name in _named(_journals(file), names, every=every):
        with _opened(place) as journal:
            for number in _numbers(journal, name):
                if journal.retry(number, replace=replace):
                    tried = True
                    click.echo(f"{_name(place, number)}: is tried again{_unless_held(journal)}")
                elif not every:
                    raise click.ClickException(
                        f"{_name(place, number)}: has not failed, or a later version has taken its place: "
                        "export it, or retry it with --replace"
                    )
    if not tried:
        click.echo("Nothing has failed that could be tried again.")


@pending.command()
@click.argument("name")
@click.argument("target", type=click.Path(path_type=Path))
@config_file_behind
def export(file: Path | None, name: str, target: Path) -> None:
    """Copy the content of a pending file to a new local file."""
    for place, text in _named(_journals(file), (name,), every=False):
        with _opened(place) as journal:
            found = journal.get(_numbers(journal, text)[0])
            if found is None or not journal.is_whole(found):
                raise click.ClickException(f"{name}: its content is damaged")
            try:
                _copy(journal, found, target)
            except OSError as error:
                raise click.ClickException(f"{target}: {error.strerror or error}") from error
            click.echo(printable(f"{found.path}: {found.size} bytes are in {target}"))


@pending.command()
@click.argument("names", nargs=-1, required=True)
@config_file_behind
def drop(file: Path | None, names: tuple[str, ...]) -> None:
    """Forget what has failed, content and all."""
    for place, name in _named(_journals(file), names, every=False):
        with _opened(place) as journal:
            for number in _numbers(journal, name):
                if not journal.drop(number):
                    reason = f"has not failed; it will be delivered{_unless_held(journal)}"
                    raise click.ClickException(f"{_name(place, number)}: {reason}")
                click.echo(f"{_name(place, number)}: dropped")


def _journals(file: Path | None) -> Path:
    """Return the directory of the journals of the gateway that has these settings."""
    return load_config(file).state_path / "journal"


def _directories(directory: Path) -> list[Path]:
    return sorted(file.parent for file in directory.glob(f"*/{FILE_NAME}"))


@contextlib.contextmanager
def _opened(place: Path) -> Iterator[Journal]:
    journal = Journal(place, create=False)
    try:
        yield journal
    except sqlite3.Error as error:
        raise JournalError(f"{place / FILE_NAME}: {error}") from error
    finally:
        journal.close()


def _name(place: Path, number: int) -> str:
    return f"{place.name[:_SHORT]}-{number}"


def _named(directory: Path, names: tuple[str, ...], *, every: bool) -> Iterator[tuple[Path, str]]:
    """Yield the journal of each name; with `every`, all journals."""
    places = _directories(directory)
    if every:
        yield from ((place, "") for place in places)
    for name in names:
        short, _, number = name.rpartition("-")
        fitting = [place for place in places if short and place.name.startswith(short)]
        if len(fitting) != 1 or not number.isdecimal():
            raise click.ClickException(f"{name}: there is no such file; `sftp-gateway pending` lists them")
        yield fitting[0], number


def _numbers(journal: Journal, name: str) -> list[int]:
    if not name:
        return [each.id for each in journal.all() if each.failed]
    if journal.get(int(name)) is None:
        raise click.ClickException(f"{name}: there is no such file any more")
    return [int(name)]


def _unless_held(journal: Journal) -> str:
    held = journal.noted("held")
    return f", but not before this is settled: {held}" if held else ""


def _shown(name: str, users: str, each: Pending | PendingDirectory, path: str, size: int, held: str) -> dict[str, Any]:
    return {
        "name": name,
        "state": each.state,
        "acknowledged": datetime.fromtimestamp(each.acknowledged, UTC).isoformat(timespec="seconds"),
        "bytes": size,
        "users": users,
        "path": path,
        "reason": held or each.reason,
        "attempts": each.attempts,
    }


def _copy(journal: Journal, found: Pending, target: Path) -> None:
    new = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(new, "wb") as file, journal.open(found) as content:
        shutil.copyfileobj(content, file)
