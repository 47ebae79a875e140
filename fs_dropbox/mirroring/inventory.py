"""`Inventory`: everything below a folder of any filesystem, with what is needed to compare it. Changes nothing."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import stat
import threading
import unicodedata
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from string import ascii_letters
from typing import Final

from fs import errors
from fs.info import Info
from fs.path import abspath, dirname, frombase, isbase, join, normpath, split

from fs_dropbox import paths
from fs_dropbox.mirroring.transfer import Place, StoppedError, local_error, moment

_SWAPPED: Final = str.maketrans(ascii_letters, ascii_letters.swapcase())
NO_TEXT: Final = "its name is not valid UTF-8"
EXCLUDED: Final = "excluded"
_NAMESPACES: Final = ("basic", "details", "dropbox")


@dataclass(frozen=True, slots=True)
class Node:
    """One file or folder; `path` is relative, without a leading slash."""

    path: str
    is_folder: bool = False
    size: int = 0
    modified: datetime | None = None
    content_hash: str = ""
    """Dropbox's content hash where the filesystem tells it."""
    ignored: str = ""
    """Why this can be neither read nor replaced as a file; empty for what can."""


@dataclass(slots=True)
class Inventory:
    """What was found, folders before what they hold, and what could not be listed."""

    nodes: list[Node] = field(default_factory=list)
    failures: list[tuple[str, Exception]] = field(default_factory=list)
    top: str = ""
    """What Dropbox knows the folder itself by, whichever connection leads there; empty of a root, and elsewhere."""
    uppermost: set[str] = field(default_factory=set)
    """The same of the folders directly in it, but for shared ones, which several accounts have in different places."""
    folders: set[str] = field(default_factory=set)
    """The same of all folders below."""

    def is_inside(self, other: Inventory) -> bool:
        """Tell whether this folder is the other one or inside it, where Dropbox tells: of a root, by what is in it."""
        if self.top:
            return self.top == other.top or self.top in other.folders
        return not self.uppermost.isdisjoint(other.folders)

    def add(self, relative: str, info: Info) -> None:
        """Note by what Dropbox knows an entry, where that is a folder."""
        known = str(info.get("dropbox", "id") or "")
        if not (info.is_dir and known):
            return
        if not relative:
            self.top = known
            return
        self.folders.add(known)
        if "/" not in relative and not (info.get("dropbox", "sharing") or {}).get("shared_folder_id"):
            self.uppermost.add(known)


def exclusion(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return what tells whether a relative path is excluded: by its name, or as a whole where a pattern has a slash."""
    folded = [paths.key(pattern).rstrip("/") for pattern in patterns]
    if not folded:
        return lambda _: False
    names, whole = (
        re.compile("|".join(fnmatch.translate(pattern.lstrip("/")) for pattern in some) or r"(?!)")
        for some in ([each for each in folded if "/" not in each], [each for each in folded if "/" in each])
    )
    return lambda path: bool(names.match(paths.key(path).rpartition("/")[2]) or whole.match(paths.key(path)))


def take_inventory(place: Place, stop: threading.Event, is_excluded: Callable[[str], bool]) -> Inventory:
    """Return everything below a folder: by one recursive listing where the filesystem has that.

    What is excluded is there as `EXCLUDED`, and without what it holds.

    Raises:
        fs.errors.FSError: the folder itself cannot be listed.
        StoppedError: `stop` was set.
    """
    local = place.local_path
    inventory = Inventory()
    walk = _walk(place, inventory, is_excluded) if local is None else _local(local, place.path, inventory, is_excluded)
    with contextlib.closing(walk):  # by the thread that walks: PyFilesystem's own hold their locks while they list
        for node in walk:
            if stop.is_set():
                raise StoppedError
            inventory.nodes.append(node)
    return inventory


def surroundings(place: Place) -> Inventory:
    """Return what Dropbox knows the nearest folder by that there is above a place, without what is deeper in it."""
    inventory, path = Inventory(), place.path
    while path != "/":
        path = dirname(path)
        with contextlib.suppress(errors.ResourceNotFound):
            for info in place.filesystem.scandir(path, _NAMESPACES):
                inventory.add(info.name, info)
            inventory.add("", place.filesystem.getinfo(path, _NAMESPACES))
            break
    return inventory


def node_of(path: str, info: Info, *, exports: bool = False) -> Node:
    """Return the node of an info with the namespaces "details" and "dropbox"; `exports`: documents can be read."""
    if info.is_dir:
        return Node(path, is_folder=True)
    ignored = ""
    if info.get("dropbox", "is_downloadable", True) is False and not (exports and info.get("dropbox", "export")):
        ignored = "an online document, which can only be exported"
    elif info.get("dropbox", "symlink_target"):
        ignored = "a symbolic link"
    return Node(
        path,
        size=int(info.size),
        modified=moment(info.get("details", "modified")),
        content_hash=str(info.get("dropbox", "content_hash") or ""),
        ignored=ignored,
    )


def key_of(place: Place, inventory: Inventory) -> Callable[[str], str]:
    """Return what makes equal of names that mean the same in a folder; a disk tells by what is there."""
    if place.local_path is None:
        return paths.key if place.folds_case else str
    names = [split(node.path) for node in inventory.nodes if not node.ignored]
    for key, respelled in ((paths.key, _in_other_case), (paths.spelling, _in_other_form)):
        respellings = ((folder, respelled(name)) for folder, name in names if name != respelled(name))
        if any(place.at(join(*path)).is_spelled_otherwise for path in islice(respellings, 1)):
            return key
    return str


def _in_other_case(name: str) -> str:
    return name.translate(_SWAPPED)


def _in_other_form(name: str) -> str:
    apart = unicodedata.normalize("NFD", name)
    return apart if apart != name else paths.spelling(name)


def _walk(place: Place, inventory: Inventory, is_excluded: Callable[[str], bool]) -> Generator[Node, None, None]:
    base = abspath(normpath(place.path))
    exports = place.filesystem.getmeta("dropbox").get("documents") == "export"
    excluded: set[str] = set()
    for path, info in place.filesystem.walk.info(base, namespaces=_NAMESPACES):
        relative = (frombase(base, path) if isbase(base, path) else path).lstrip("/")
        inventory.add(relative, info)
        folder = relative.rpartition("/")[0]
        if folder in excluded:
            excluded.add(relative)
        elif is_excluded(relative):
            excluded.add(relative)
            yield Node(relative, ignored=EXCLUDED)
        else:
            yield node_of(relative, info, exports=exports)
    inventory.add("", place.filesystem.getinfo(base, _NAMESPACES))


def _local(
    root: str, shown: str, inventory: Inventory, is_excluded: Callable[[str], bool]
) -> Generator[Node, None, None]:
    """Walk this machine's disks: symbolic links to files are followed, those to folders are not (they can be loops)."""
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            failure = local_error(folder or shown, error)
            if not folder:
                raise failure from error
            inventory.failures.append((folder, failure))
            continue
        below = []
        for entry in found:
            path = f"{folder}/{entry.name}" if folder else entry.name
            try:
                node = Node(path, ignored=EXCLUDED) if is_excluded(path) else _local_node(path, entry)
            except FileNotFoundError:
                continue  # gone since the folder was read
            except OSError as error:
                inventory.failures.append((path, local_error(path, error)))
                continue
            if node.is_folder:
                below.append(path)
            yield node
        pending += reversed(below)


def _local_node(path: str, entry: os.DirEntry[str]) -> Node:
    if not _is_text(entry.name):
        return Node(os.fsencode(path).decode(errors="replace"), ignored=NO_TEXT)
    if entry.is_symlink():
        try:
            status = entry.stat()
        except OSError:
            return Node(path, ignored="a symbolic link to nothing")
        if stat.S_ISDIR(status.st_mode):
            return Node(path, ignored="a symbolic link to a folder")
    status = entry.stat()
    if stat.S_ISDIR(status.st_mode):
        return Node(path, is_folder=True)
    if not stat.S_ISREG(status.st_mode):
        return Node(path, ignored="neither a file nor a folder")
    return Node(path, size=status.st_size, modified=moment(status.st_mtime))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
