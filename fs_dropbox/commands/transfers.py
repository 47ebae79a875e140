"""Commands that move content between this machine and Dropbox: get, put, mirror."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, TypeVar

import click
from fs import errors
from fs.path import basename

from fs_dropbox import paths
from fs_dropbox.commands.locations import Session, connected, is_remote, local_place, needing_a_folder_for
from fs_dropbox.commands.output import Progress, as_json, at_work, human_size, print_json, summary_json, summary_text
from fs_dropbox.conventions import literal
from fs_dropbox.mirroring.mirror import DEFAULT_WORKERS, FATAL, Mirror
from fs_dropbox.mirroring.steps import Action, Step, Summary
from fs_dropbox.mirroring.transfer import Place, copy_file, holds_the_same, write_stream

_F = TypeVar("_F", bound=Callable[..., object])

quietly = click.option("-q", "--quiet", is_flag=True, help="Show neither progress nor summary.")
# Folders are always copied whole; this is for fingers that are used to cp and scp.
recursively = click.option("-r", "-R", "recursive", is_flag=True, hidden=True, expose_value=False)
no_clobber = click.option("-n", "--no-clobber", is_flag=True, help="Leave files alone that exist.")


excluding = click.option(
    "-x",
    "--exclude",
    metavar="PATTERN",
    multiple=True,
    help="Leave out files and folders of this name, or of this path in SOURCE if it has a slash; * and ? stand for any "
    "characters. What TARGET has of them stays. May be repeated.",
)


def in_parallel(command: _F) -> _F:
    """Give a command the option for the number of files at once."""
    text = f"Files at once; by default {DEFAULT_WORKERS}, and more of small ones."
    return click.option("-w", "--workers", type=click.IntRange(1, 256), help=text)(command)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manner:
    """What get and put have in common: what is copied, how fast, and what is told of it."""

    no_clobber: bool
    exclude: tuple[str, ...]
    workers: int | None
    quiet: bool
    json_: bool


def _transferring(
    metavar: str, *, changes: bool = False
) -> Callable[[Callable[[Session, tuple[str, ...], _Manner], int]], click.Command]:
    """Make a command that copies locations in a manner; `changes` is for `connected`."""

    def decorate(function: Callable[[Session, tuple[str, ...], _Manner], int]) -> click.Command:
        @click.command()
        @click.argument("locations", metavar=metavar, nargs=-1, required=True)
        @recursively
        @no_clobber
        @excluding
        @in_parallel
        @quietly
        @as_json
        @connected(views_everywhere=False, changes=changes)
        @wraps(function)
        def command(session: Session, locations: tuple[str, ...], **manner: Any) -> int:
            return function(session, locations, _Manner(**manner))

        return command

    return decorate


@_transferring("SOURCE... [TARGET]")
def get(session: Session, locations: tuple[str, ...], manner: _Manner) -> int:
    """Download files and folders.

    They go into TARGET, or into the current folder. Each file appears whole or not at all, with the time that
    Dropbox has of it. What is equal is not transferred.
    """
    *sources, target = locations if len(locations) > 1 else (*locations, ".")
    if target == "-":
        raise click.UsageError("for standard output there is fs-dropbox cat; a file of this name is ./-")
    pairs = _pairs([session.place(source) for source in sources], local_place(target), target)
    return _Transfer("get", session, manner).run(pairs)


@_transferring("SOURCE... TARGET", changes=True)
def put(session: Session, locations: tuple[str, ...], manner: _Manner) -> int:
    """Upload files and folders of this machine.

    The source "-" is standard input. A file that is replaced stays in Dropbox as an earlier revision. What is
    equal is not transferred.
    """
    if len(locations) < 2:
        raise click.UsageError("one or several sources and a target are needed; the target can be /")
    *sources, target = locations
    if sources == ["-"]:
        return _put_stream(session.place(target), target, no_clobber=manner.no_clobber, quiet=manner.quiet)
    pairs = _pairs([local_place(source) for source in sources], session.place(target), target)
    return _Transfer("put", session, manner).run(pairs)


def _put_stream(target: Place, text: str, *, no_clobber: bool, quiet: bool) -> int:
    if text.endswith("/") or target.filesystem.isdir(target.path):
        raise click.UsageError("what comes from standard input needs a name: end the target with it")
    if no_clobber and target.filesystem.exists(target.path):
        return 0
    progress = Progress("put", quiet=quiet)
    with needing_a_folder_for(target):
        written = write_stream(sys.stdin.buffer, target, advanced=progress.advanced)
    progress.finish()
    if not quiet:
        click.echo(f"{target.path}: {human_size(written)}")
    return 0


def _pairs(sources: list[Place], target: Place, text: str) -> list[tuple[Place, Place]]:
    """Return each source with its own target: inside the target where that is a folder, else the target itself."""
    into = target.filesystem.isdir(target.path)
    if not into and (len(sources) > 1 or text.endswith("/")):
        raise errors.ResourceNotFound(target.path, msg="there is no folder {path}")
    return [(source, target.at(basename(source.path)) if into else target) for source in sources]


class _Transfer:
    """One get or put: copies each source to its target and adds up what that came to."""

    def __init__(self, label: str, session: Session, manner: _Manner) -> None:
        self._session = session
        self._manner = manner
        self._progress = Progress(label, quiet=manner.quiet or manner.json_)
        self._total = Summary()
        self._taken: dict[str, list[tuple[str, str]]] = {}

    def run(self, pairs: list[tuple[Place, Place]]) -> int:
        """Copy all, and return the exit code; a failure of one of several is told, and the others are copied."""
        for source, target in pairs:
            try:
                self._refuse_what_is_taken(source, target)
                self._copy(source, target)
            except (errors.FSError, OSError) as error:
                if len(pairs) == 1:
                    raise
                step = Step(Action.COPY, source.path)
                self._progress.failed(step, error)
                self._total.failures.append((step, error))
                if isinstance(error, FATAL):
                    self._total.ended_by = error
            if self._total.ended_by is not None:
                break
        return report(self._total, self._progress, quiet=self._manner.quiet, json_=self._manner.json_)

    def _refuse_what_is_taken(self, source: Place, target: Place) -> None:
        """Raise where something else of the same command has gone to the same target."""
        others = self._taken.setdefault(paths.key(target.path), [])
        for other, its_target in others:
            same = its_target == target.path or target.folds_case or target.is_spelled_otherwise
            if same and other != source.path:
                raise errors.ResourceError(source.path, msg=literal(f"{other} has gone to {target.path} already"))
        others.append((source.path, target.path))

    def _copy(self, source: Place, target: Place) -> None:
        info = source.filesystem.getinfo(source.path, ["details"])
        if info.is_dir:
            mirror = Mirror(
                source,
                target,
                exclude=self._manner.exclude,
                replace=not self._manner.no_clobber,
                workers=self._manner.workers,
                observer=self._progress,
                break_off=self._session.close,
            )
            self._total.add(mirror.run())
        elif self._manner.no_clobber and target.filesystem.exists(target.path):
            self._total.skipped += 1
        else:
            self._progress.planned(info.size)
            self._copy_unless_equal(source, target, info.size)

    def _copy_unless_equal(self, source: Place, target: Place, size: int) -> None:
        if holds_the_same(source, target):
            self._progress.advanced(size)
            self._total.skipped += 1
            self._total.skipped_bytes += size
            return
        with needing_a_folder_for(target):
            self._total.copied_bytes += copy_file(source, target, advanced=self._progress.advanced)
        self._total.copied += 1


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--delete", is_flag=True, help="Remove from TARGET what SOURCE does not have.")
@click.option("-n", "--dry-run", is_flag=True, help="Change nothing; print what would be done.")
@click.option("--quick", is_flag=True, help="Trust equal size and time instead of comparing content hashes.")
@click.option("-l", "--list", "list_", is_flag=True, help="Print each step.")
@excluding
@in_parallel
@quietly
@as_json
@connected(follow=True, views_everywhere=False)
def mirror(
    session: Session,
    source: str,
    target: str,
    delete: bool,
    dry_run: bool,
    quick: bool,
    list_: bool,
    exclude: tuple[str, ...],
    workers: int | None,
    quiet: bool,
    json_: bool,
) -> int:
    """Make a folder equal to another one.

    TARGET comes to hold what SOURCE holds; only what differs moves. Here a plain path means this machine: write
    :/folder for the default connection, or name:/folder.
    Broken off, the same command goes on where it stopped: what is equal by content hash is not moved again.
    Nothing is deleted without --delete, nor when a part of SOURCE cannot be listed or copied.
    """
    if not (is_remote(source) or is_remote(target)):
        raise click.UsageError("both are paths of this machine: write :/folder for one in Dropbox")
    places = [session.place(text) if is_remote(text) else local_place(text) for text in (source, target)]
    compare: Literal["content", "quick"] = "quick" if quick else "content"
    steps = list_ or (dry_run and not quiet and not json_)
    with at_work("mirror", quiet=quiet or json_) as listed:
        progress = Progress("mirror", quiet=quiet or json_, steps=steps, listed=listed)
        summary = Mirror(
            *places,
            delete=delete,
            dry_run=dry_run,
            compare=compare,
            exclude=exclude,
            workers=workers,
            observer=progress,
            break_off=session.close,
        ).run()
    return report(summary, progress, quiet=quiet, json_=json_, dry_run=dry_run)


def report(summary: Summary, progress: Progress, *, quiet: bool, json_: bool, dry_run: bool = False) -> int:
    """Print what was done; return the exit code, or raise what ended the run early."""
    seconds = progress.finish()
    if json_:
        print_json(summary_json(summary, seconds))
    elif not quiet:
        click.echo(summary_text(summary, seconds, dry_run=dry_run))
    if summary.ended_by is not None:
        raise summary.ended_by
    return 1 if summary.failures else 0


COMMANDS = (get, put, mirror)
