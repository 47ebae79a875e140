"""Commands that look and change nothing: ls, tree, cat, versions, link, watch, df."""

from __future__ import annotations

import json
import queue
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click
from fs import errors
from fs.info import Info
from fs.path import basename, dirname

from fs_dropbox import paths
from fs_dropbox.commands.locations import Session, ability, connected
from fs_dropbox.commands.output import (
    as_json,
    at_work,
    each,
    entry_json,
    human_size,
    json_time,
    print_json,
    shown,
    size_text,
    table,
    time_text,
)
from fs_dropbox.entries import DeletedEntry, Entry, FileEntry
from fs_dropbox.mirroring.transfer import CHUNK_BYTES, Place

_NAMESPACES = ("basic", "details", "dropbox")
_LOOK_SECONDS = 0.2
FOLLOWING = "following"


@click.command()
@click.argument("locations", metavar="[LOCATION]...", nargs=-1)
@click.option("-l", "--long", is_flag=True, help="Also sizes and times.")
@click.option("-R", "--recursive", is_flag=True, help="Everything below, by one listing.")
@click.option("-H", "--human", is_flag=True, help="Sizes as people read them.")
@as_json
@connected()
def ls(session: Session, locations: tuple[str, ...], long: bool, recursive: bool, human: bool, json_: bool) -> int:
    """List folders, or the files that are named."""
    rows: list[tuple[str, str, Info]] = []
    with at_work("ls"):
        code = each(locations or ("",), lambda location: rows.extend(_found(session.place(location), recursive)))
    if json_:
        print_json([entry_json(path, info) for path, _, info in rows])
        return code
    names = [shown(name) + "/" * info.is_dir for _, name, info in rows]
    if not long:
        for name in names:
            click.echo(name)
        return code
    sizes = ["-" if info.is_dir else size_text(info.size, human) for _, _, info in rows]
    times = ["-" if info.is_dir else time_text(info.modified) for _, _, info in rows]
    table(list(zip(sizes, times, names, strict=True)), right=frozenset({0}))
    return code


def _found(place: Place, recursive: bool) -> list[tuple[str, str, Info]]:
    """Return path, name to show and info of what a location stands for, sorted."""
    filesystem = place.filesystem
    info = filesystem.getinfo(place.path, _NAMESPACES)
    if not info.is_dir:
        return [(place.path, place.path.lstrip("/"), info)]
    if recursive:
        found = [(path, info) for path, info in filesystem.walk.info(place.path, namespaces=_NAMESPACES)]
    else:
        found = [(place.at(info.name).path, info) for info in filesystem.scandir(place.path, _NAMESPACES)]
    start = len(place.path.rstrip("/")) + 1
    rows = [(path, path[start:], info) for path, info in found]
    return sorted(rows, key=lambda row: [part.casefold() for part in row[1].split("/")])


@click.command()
@click.argument("location", default="")
@click.option("-L", "--level", type=click.IntRange(1), help="Show so many levels only.")
@click.option("-d", "--folders", is_flag=True, help="Show folders only.")
@as_json
@connected()
def tree(session: Session, location: str, level: int | None, folders: bool, json_: bool) -> None:
    """Draw everything below a folder.

    As JSON: one object, folders with their children.
    """
    place = session.place(location)
    children: dict[str, list[Info]] = {}
    with at_work("tree"):
        for path, info in place.filesystem.walk.info(place.path, namespaces=_NAMESPACES, max_depth=level):
            children.setdefault(dirname(path), []).append(info)
    if json_:
        print_json({"path": place.path, "children": _nested(place.path, children, folders)})
        return
    click.echo(shown(place.path))
    files = [info for infos in children.values() for info in infos if not info.is_dir]
    for line in _branches(place.path, children, "", folders):
        click.echo(line)
    count = sum(len(infos) for infos in children.values()) - len(files)
    size = human_size(sum(info.size for info in files))
    click.echo(f"\n{count} folder{'s' * (count != 1)}, {len(files)} file{'s' * (len(files) != 1)}, {size}")


def _sorted(folder: str, children: dict[str, list[Info]], folders: bool) -> list[Info]:
    return sorted(
        (info for info in children.get(folder, ()) if info.is_dir or not folders), key=lambda i: i.name.casefold()
    )


def _nested(folder: str, children: dict[str, list[Info]], folders: bool) -> list[dict[str, Any]]:
    rows = []
    for info in _sorted(folder, children, folders):
        path = f"{folder.rstrip('/')}/{info.name}"
        row = entry_json(path, info)
        rows.append(row | {"children": _nested(path, children, folders)} if info.is_dir else row)
    return rows


def _branches(folder: str, children: dict[str, list[Info]], indent: str, folders: bool) -> Iterator[str]:
    infos = _sorted(folder, children, folders)
    for number, info in enumerate(infos, 1):
        last = number == len(infos)
        yield f"{indent}{'└── ' if last else '├── '}{shown(info.name)}{'/' * info.is_dir}"
        if info.is_dir:
            below = f"{folder.rstrip('/')}/{info.name}"
            yield from _branches(below, children, indent + ("    " if last else "│   "), folders)


@click.command()
@click.argument("locations", metavar="LOCATION...", nargs=-1, required=True)
@click.option("--rev", help="Of one file, this revision: fs-dropbox versions lists them.")
@connected()
def cat(session: Session, locations: tuple[str, ...], rev: str | None) -> int:
    """Write the content of files to standard output."""
    if rev is not None and len(locations) > 1:
        raise click.UsageError("a revision is of one file")

    def write(location: str) -> None:
        place = session.place(location)
        if rev is not None:
            ability(place, "versions")
        options: dict[str, Any] = {} if rev is None else {"version": rev}
        with place.filesystem.openbin(place.path, **options) as file:
            while chunk := file.read(CHUNK_BYTES):
                sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()

    return each(locations, write)


@click.command()
@click.argument("location")
@as_json
@connected()
def versions(session: Session, location: str, json_: bool) -> None:
    """List the revisions of a file.

    The newest comes first; a file that was deleted has them too. Bring one back with: fs-dropbox restore
    LOCATION REV
    """
    place = session.place(location)
    found: list[Info] = ability(place, "versions")(place.path)
    if json_:
        print_json([entry_json(place.path, info) for info in found])
        return
    rows = [(str(info.get("dropbox", "rev")), _stored(info), size_text(info.size, human=True)) for info in found]
    table([("REV", "STORED", "SIZE"), *rows])


def _stored(info: Info) -> str:
    stored = info.get("dropbox", "server_modified")
    return time_text(datetime.fromtimestamp(stored, UTC) if stored else info.modified)


@click.command()
@click.argument("location")
@click.option("--temporary", is_flag=True, help="A direct download link that ends after four hours, of a file.")
@as_json
@connected()
def link(session: Session, location: str, temporary: bool, json_: bool) -> None:
    """Print a link to a file or folder.

    It is Dropbox's shared link, made when there is none, or a temporary one.
    """
    place = session.place(location)
    purpose = "download" if temporary else "share"
    url = place.filesystem.geturl(place.path, purpose=purpose)
    if json_:
        print_json({"path": place.path, "purpose": purpose, "url": url})
    else:
        click.echo(url)


@click.command()
@click.argument("location", default="")
@click.option("-H", "--human", is_flag=True, help="Sizes as people read them.")
@as_json
@connected()
def df(session: Session, location: str, human: bool, json_: bool) -> None:
    """Show how much space is used and left."""
    usage: dict[str, int] = dict(session.place(location).filesystem.getmeta("usage"))  # type: ignore[arg-type]
    if not usage:
        raise errors.Unsupported(msg="this filesystem does not tell its size")
    used, total = usage["used"], usage["total"]
    free = max(0, total - used)
    if json_:
        print_json({"total": total, "used": used, "free": free})
        return
    percent = f"{100 * used / total:.0f}%" if total else "-"
    row = (*(size_text(size, human) for size in (total, used, free)), percent)
    table([("SIZE", "USED", "FREE", "USE%"), row], right=frozenset(range(4)))


@click.command()
@click.argument("location", default="")
@click.option("--json", "json_", is_flag=True, help="Print each change as one line of JSON.")
@click.option("--count", type=click.IntRange(1), help="End after so many changes.")
@click.option("--for", "seconds", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="End after so long.")
@connected(follow=True)
def watch(session: Session, location: str, json_: bool, count: int | None, seconds: float | None) -> None:
    """Print changes as they happen.

    Those below LOCATION, made anywhere; Ctrl-C ends it. A rename appears as a deletion and an addition.
    Standard error says "following" when the watch has begun, or why it cannot.
    """
    place = session.place(location)
    if not place.filesystem.exists(place.path):
        click.echo(f"fs-dropbox: there is no file or folder {shown(place.path, error=True)} yet", err=True)
    batches: queue.SimpleQueue[Sequence[Entry]] = queue.SimpleQueue()
    unsubscribe = ability(place, "subscribe")(batches.put)
    try:
        for entry in islice(_changes(place, batches, seconds), count):
            click.echo(_change_json(entry) if json_ else _change_text(entry))
            sys.stdout.flush()
    finally:
        unsubscribe()


def _changes(place: Place, batches: queue.SimpleQueue[Sequence[Entry]], seconds: float | None) -> Iterator[Entry]:
    """Yield the changes at and below a place, for so long; standard error tells whether they are being followed."""
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    key, told = paths.key(place.path), ""
    while (left := deadline - time.monotonic()) > 0:
        state = _state(place, was_followed=told == FOLLOWING)
        if state not in ("", told):
            told = state
            click.echo(f"fs-dropbox: {state}", err=True)
        try:
            batch = batches.get(timeout=min(left, _LOOK_SECONDS))
        except queue.Empty:
            continue
        if not batch:
            click.echo("fs-dropbox: changes may have been missed: look at everything again", err=True)
        yield from (entry for entry in batch if paths.is_under(paths.key(entry.path_display), key))


def _state(place: Place, *, was_followed: bool) -> str:
    """Say whether changes are being followed, and why not; "" while that is not known yet."""
    if ability(place, "feed_is_live"):
        return FOLLOWING
    problem = getattr(place.filesystem, "feed_problem", None) or ("Dropbox is not answering" if was_followed else "")
    return f"{problem}: changes will be late" if problem else ""


def _change_kind(entry: Entry) -> str:
    if isinstance(entry, DeletedEntry):
        return "deleted"
    return "file" if isinstance(entry, FileEntry) else "folder"


def _change_text(entry: Entry) -> str:
    size = f" ({human_size(entry.size)})" if isinstance(entry, FileEntry) else ""
    return f"{datetime.now().astimezone():%H:%M:%S} {_change_kind(entry):8}{shown(entry.path_display)}{size}"


def _change_json(entry: Entry) -> str:
    row: dict[str, Any] = {
        "change": _change_kind(entry),
        "path": entry.path_display,
        "name": basename(entry.path_display),
    }
    if isinstance(entry, FileEntry):
        row |= {"size": entry.size, "rev": entry.rev, "id": entry.id, "content_hash": entry.content_hash}
        row |= {"modified": json_time(entry.client_modified), "stored": json_time(entry.server_modified)}
    return json.dumps(row, ensure_ascii=False)


COMMANDS = (ls, tree, cat, df, versions, link, watch)
