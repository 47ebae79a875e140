"""What calls return beside entries, and how all of it comes out of the API's JSON. Knows no HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fs_dropbox import paths
from fs_dropbox.entries import DeletedEntry, Entry, FileEntry, FolderEntry, decode, decode_file
from fs_dropbox.errors import ApiError, TransportError, tags

KINDS: Final = frozenset({"file", "folder", "deleted"})

Placeable = TypeVar("Placeable", FileEntry, FolderEntry, FileEntry | FolderEntry, Entry)


@dataclass(frozen=True, slots=True)
class SpaceUsage:
    """Bytes used and allocated; the team's where the member has no limit of their own."""

    used: int
    allocated: int


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing or of the journal; `cursor` goes on from here, at once where `has_more`."""

    entries: list[Entry]
    cursor: str
    has_more: bool


@dataclass(frozen=True, slots=True)
class Longpoll:
    """Whether there may be changes, and how long to wait before the next longpoll."""

    changes: bool
    backoff_seconds: float


def failure(route: str, entry: dict[str, Any]) -> ApiError | None:
    """Return the error in an entry of a batch's result, None where it succeeded.

    What says neither (`other`) is as good as an internal error: the entry may have been carried out or not.
    """
    if entry[".tag"] == "success":
        return None
    if entry[".tag"] != "failure":
        return ApiError(route, ("internal_error",), details=entry, message=f"what became of it: {entry['.tag']}")
    refused = entry["failure"]
    return ApiError(route, tags(refused), details=refused)


def decode_present(metadata: dict[str, Any]) -> FileEntry | FolderEntry:
    """Return the entry of something that is there."""
    entry = decode(metadata)
    if isinstance(entry, DeletedEntry):
        raise ValueError("a deleted entry")
    return entry


def placed(entry: Placeable, path: str) -> Placeable:
    """Return an entry that is at an API path, with that path where Dropbox tells none: it does not for what is not
    mounted in the root that it takes the paths to begin in."""
    if entry.path_lower or not path.startswith("/"):
        return entry
    return entry._replace(path_lower=paths.key(path), path_display=path)


def all_placed(entries: list[Entry], folder: str, *, recursive: bool = False) -> list[Entry]:
    """Return what a listing of a folder tells, with paths where Dropbox tells none.

    Raises TransportError where they are not to be known: of a recursive listing, which can do without.
    """
    if all(entry.path_lower for entry in entries):
        return entries
    if recursive:
        raise TransportError("protocol", "entries without paths")
    return [placed(entry, paths.join(paths.to_api(folder), entry.name)) for entry in entries]


def decode_result(result: dict[str, Any]) -> FileEntry | FolderEntry:
    """Return the entry that a change's result wraps."""
    return decode_present(result["metadata"])


def decode_page(result: dict[str, Any]) -> Page:
    """Return a page of a listing or of the journal, without kinds of entries that Dropbox may come to have."""
    entries = [decode(entry) for entry in result["entries"] if entry[".tag"] in KINDS]
    return Page(entries, result["cursor"], result["has_more"])


def decode_longpoll(result: dict[str, Any]) -> Longpoll:
    """Return the result of a longpoll."""
    return Longpoll(bool(result["changes"]), float(result.get("backoff") or 0))


def decode_revisions(result: dict[str, Any]) -> tuple[list[FileEntry], bool]:
    """Return revisions, and whether there are more."""
    return [decode_file(entry) for entry in result["entries"]], bool(result.get("has_more"))


def decode_space(result: dict[str, Any]) -> SpaceUsage:
    """Return the space that is in use and allocated."""
    allocation = result["allocation"]
    if allocation[".tag"] != "team":
        return SpaceUsage(result["used"], allocation.get("allocated", 0))
    limit = allocation.get("user_within_team_space_allocated", 0)
    if limit:
        return SpaceUsage(result["used"], limit)
    return SpaceUsage(allocation["used"], allocation["allocated"])
