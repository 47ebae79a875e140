"""Commands that change what is in Dropbox without moving content: mkdir, rm, mv, cp, restore."""

from __future__ import annotations

import click
from fs import errors
from fs.path import basename, isparent, normpath

from fs_dropbox import paths
from fs_dropbox.commands.locations import Session, ability, connected, needing_a_folder_for
from fs_dropbox.commands.output import Progress, at_work, each, human_size
from fs_dropbox.commands.transfers import report
from fs_dropbox.conventions import literal
from fs_dropbox.mirroring.mirror import Mirror
from fs_dropbox.mirroring.steps import Summary
from fs_dropbox.mirroring.transfer import Place, copy_file


@click.command()
@click.argument("locations", metavar="LOCATION...", nargs=-1, required=True)
@click.option("-p", "--parents", is_flag=True, help="Make the folders above too; no error where it exists.")
@connected(changes=True)
def mkdir(session: Session, locations: tuple[str, ...], parents: bool) -> int:
    """Make folders."""

    def make(location: str) -> None:
        place = session.place(location)
        with needing_a_folder_for(place, ": -p makes it too"):
            if parents:
                place.filesystem.makedirs(place.path, recreate=True)
            else:
                place.filesystem.makedir(place.path)

    return each(locations, make)


@click.command()
@click.argument("locations", metavar="LOCATION...", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="Remove folders with all that they hold.")
@click.option("-f", "--force", is_flag=True, help="No error where nothing is.")
@connected(changes=True)
def rm(session: Session, locations: tuple[str, ...], recursive: bool, force: bool) -> int:
    """Remove files. Dropbox keeps them restorable for a while: see versions and restore."""

    def remove(location: str) -> None:
        place = session.place(location)
        try:
            is_folder = place.filesystem.getinfo(place.path).is_dir
            if is_folder and place.path == "/":
                raise click.UsageError("the root is not removed")
            if is_folder and not recursive:
                raise errors.FileExpected(place.path, msg="{path} is a folder: use -r to remove it")
            with at_work("rm"):
                if is_folder:
                    place.filesystem.removetree(place.path)
                else:
                    place.filesystem.remove(place.path)
        except errors.ResourceNotFound:
            if not force:
                raise

    return each(locations, remove)


@click.command()
@click.argument("locations", metavar="SOURCE... TARGET", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Replace a file that is there.")
@connected(changes=True)
def mv(session: Session, locations: tuple[str, ...], force: bool) -> int:
    """Move or rename files and folders.

    They go into TARGET where that is a folder.
    """

    def move(pair: tuple[Place, Place]) -> None:
        source, target = pair
        if source.filesystem is not target.filesystem:
            raise click.UsageError("mv stays within one connection; use cp, then rm")
        if paths.key(source.path) != paths.key(target.path):
            _refuse_existing(target, force)
        with needing_a_folder_for(target), at_work("mv"):
            if source.filesystem.getinfo(source.path).is_dir:
                source.filesystem.movedir(source.path, target.path, create=True)
            else:
                source.filesystem.move(source.path, target.path, overwrite=force)

    return each(_pairs(session, locations), move)


@click.command()
@click.argument("locations", metavar="SOURCE... TARGET", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="Copy folders with all that they hold.")
@click.option("-f", "--force", is_flag=True, help="Replace a file that is there.")
@connected(changes=True)
def cp(session: Session, locations: tuple[str, ...], recursive: bool, force: bool) -> int:
    """Copy files and folders.

    They go into TARGET where that is a folder. Within one connection Dropbox copies by itself; between two the
    content passes through this machine.
    For files of this machine there are get, put and mirror.
    """
    codes = [0]

    def copy(pair: tuple[Place, Place]) -> None:
        source, target = pair
        _refuse_existing(target, force)
        info = source.filesystem.getinfo(source.path, ["details"])
        if info.is_dir and not recursive:
            raise errors.FileExpected(source.path, msg="{path} is a folder: use -r to copy it")
        within = source.filesystem is target.filesystem
        progress, summary = Progress("cp", quiet=within), Summary()
        with needing_a_folder_for(target):
            if not info.is_dir:
                progress.planned(info.size)
                copy_file(source, target, advanced=progress.advanced)
            elif within:
                with at_work("cp"):
                    source.filesystem.copydir(source.path, target.path, create=True)
            else:
                summary = Mirror(source, target, observer=progress, break_off=session.close).run()
        codes.append(report(summary, progress, quiet=True, json_=False))

    return max(each(_pairs(session, locations), copy), *codes)


@click.command()
@click.argument("location")
@click.argument("rev", required=False)
@connected(changes=True)
def restore(session: Session, location: str, rev: str | None) -> None:
    """Bring back a revision of a file, or what was deleted.

    REV, as versions lists it, becomes the present one; the present one stays a revision. Without REV, a file that was
    deleted comes back as it was last, and so does all that was deleted in a folder, deleted itself or not.
    """
    place = session.place(location)
    with at_work("restore"):
        count = ability(place, "restore")(place.path, rev)
    if place.filesystem.isfile(place.path):
        click.echo(f"restored {place.path} ({human_size(place.filesystem.getsize(place.path))})")
    else:
        click.echo(f"restored {count} file{'s' * (count != 1)} in {place.path}")


def _pairs(session: Session, locations: tuple[str, ...]) -> list[tuple[Place, Place]]:
    """Return each source with its own target: inside the last location where that is a folder."""
    if len(locations) < 2:
        raise click.UsageError("one or several sources and a target are needed")
    *sources, last = [session.place(location) for location in locations]
    renames = len(sources) == 1 and paths.key(sources[0].path) == paths.key(last.path)
    into = not renames and last.filesystem.isdir(last.path)
    if not into and (len(sources) > 1 or locations[-1].endswith("/")):
        raise errors.ResourceNotFound(last.path, msg="there is no folder {path}")
    pairs = []
    for source in sources:
        if source.path == "/":
            raise click.UsageError("the root itself is neither moved nor copied: name what is in it")
        target = last.at(basename(source.path)) if into else last
        same = source.filesystem is target.filesystem
        if same and isparent(normpath(source.path), normpath(target.path)) and source.path != target.path:
            raise errors.OperationFailed(target.path, msg=literal(f"{target.path} is inside {source.path}"))
        pairs.append((source, target))
    return pairs


def _refuse_existing(target: Place, force: bool) -> None:
    if not target.filesystem.exists(target.path):
        return
    if target.filesystem.isdir(target.path):
        raise errors.DestinationExists(target.path, msg="there is a folder {path} already")
    if not force:
        raise errors.DestinationExists(target.path, msg="there is a file {path} already: -f replaces it")


COMMANDS = (mkdir, rm, mv, cp, restore)
