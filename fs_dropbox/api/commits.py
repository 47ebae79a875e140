"""What a commit is, and how to tell afterwards whether a change whose answer was lost took place. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final, Literal, Protocol, TypeAlias

from fs_dropbox import paths
from fs_dropbox.api.results import Page
from fs_dropbox.entries import DeletedEntry, FileEntry, FolderEntry, FoundFolder, SupersededEntry
from fs_dropbox.errors import ApiError, DropboxError


@dataclass(frozen=True, slots=True)
class Update:
    """Replace this revision and no other."""

    rev: str


# What a change of a file that somebody else has locked is answered with: the documentation does not tell which.
_PERHAPS_LOCKED: Final = frozenset({"access_restricted", "no_write_permission", "locked"})

# Changes of others between a lost answer and the look at what became of the call: they are seldom many.
REVISIONS_LOOKED_AT: Final = 20

Mode: TypeAlias = Literal["add", "overwrite"] | Update


@dataclass(frozen=True, slots=True)
class Commit:
    """Where and how content becomes visible. `client_modified` is an aware datetime, kept in whole seconds.

    `add` is refused where other content is; with `strict_conflict` where anything is, equal content too. An update is
    refused where another revision is, or none any more, which Dropbox does only under `strict_conflict`.
    """

    path: str
    mode: Mode
    client_modified: datetime | None = None
    strict_conflict: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether the commit depends on what is there, so that repeating it does not settle a lost answer."""
        return self.strict_conflict or isinstance(self.mode, Update)

    def marked(self) -> Commit:
        """Return the same commit; an exact one with a time, which tells what it has made from equal content."""
        if not self.is_exact or self.client_modified is not None:
            return self
        return replace(self, client_modified=datetime.now(UTC))

    def argument(self) -> dict[str, Any]:
        """Return the API's CommitInfo."""
        mode = {".tag": "update", "update": self.mode.rev} if isinstance(self.mode, Update) else {".tag": self.mode}
        argument: dict[str, Any] = {"path": self.path, "mode": mode, "autorename": False}
        if self.client_modified is not None:
            argument["client_modified"] = timestamp(self.client_modified)
        if self.is_exact:
            argument["strict_conflict"] = True
        return argument

    def blame(self, error: ApiError) -> ApiError:
        """Return the error of this commit with its path, marked where someone else's version was in the way."""
        error.path = self.path
        error.lost_update = isinstance(self.mode, Update) and error.tag == ("path", "conflict", "file")
        return error


class Lookup(Protocol):
    """The calls that settle outcomes."""

    def get_metadata(self, path: str) -> FileEntry | FolderEntry: ...

    def list_revisions(self, path: str, *, limit: int = ...) -> list[FileEntry]: ...

    def pages(self, path: str, *, recursive: bool = ...) -> Iterator[Page]: ...


def timestamp(moment: datetime) -> str:
    """Return a moment as the API writes it: UTC, whole seconds."""
    return _utc(moment).replace(tzinfo=None).isoformat() + "Z"


def _utc(moment: datetime) -> datetime:
    with suppress(OverflowError):  # the first hours of year 1, east of Greenwich, and the last ones of 9999, west of it
        moment = moment.astimezone(UTC)
    return moment.replace(tzinfo=UTC, microsecond=0)


def find(lookup: Lookup, path: str) -> FileEntry | FolderEntry | None:
    """Return what is at a path, None where nothing is."""
    try:
        return lookup.get_metadata(path)
    except ApiError as error:
        if error.is_not_found:
            return None
        raise


def settle_commit(lookup: Lookup, commit: Commit, size: int, content_hash: str) -> FileEntry | None:
    """Return the committed file where it is there. Exact commits also want their own client_modified back.

    One of these that someone else's version has replaced since is found among the revisions.
    """
    entry = find(lookup, commit.path)
    if isinstance(entry, FileEntry) and _is_made_by(commit, entry, size, content_hash):
        return entry
    return find_superseded(lookup, commit, size, content_hash) if commit.is_exact else None


def find_superseded(lookup: Lookup, commit: Commit, size: int, content_hash: str) -> FileEntry | None:
    """Return what a commit has made where it is a revision now; an update took place right upon its base or nowhere."""
    try:
        revisions = lookup.list_revisions(commit.path, limit=REVISIONS_LOOKED_AT)
    except ApiError as error:
        if error.is_not_found:
            return None
        raise
    if isinstance(commit.mode, Update):
        revisions = [newer for newer, older in pairwise(revisions) if older.rev == commit.mode.rev]
    made = next((each for each in revisions if _is_made_by(commit, each, size, content_hash)), None)
    return None if made is None else SupersededEntry(*made)


def _is_made_by(commit: Commit, entry: FileEntry, size: int, content_hash: str) -> bool:
    if (entry.size, entry.content_hash) != (size, content_hash):
        return False
    if isinstance(commit.mode, Update) and entry.rev == commit.mode.rev:
        return False  # equal content, but it was there before
    if not commit.is_exact or commit.client_modified is None:
        return True
    return entry.client_modified == _utc(commit.client_modified)


def unchanged(lookup: Lookup, commit: Commit, size: int, content_hash: str) -> FileEntry | None:
    """Return the version that an update was to replace, where it is there and holds the very same content.

    Dropbox calls that a conflict, since it makes no new version of equal content.
    """
    entry = find(lookup, commit.path)
    if not isinstance(entry, FileEntry) or not isinstance(commit.mode, Update) or entry.rev != commit.mode.rev:
        return None
    return entry if (entry.size, entry.content_hash) == (size, content_hash) else None


def settle_create_folder(lookup: Lookup, path: str) -> FolderEntry | None:
    """Return the folder where it is there, whoever made it."""
    entry = find(lookup, path)
    return FoundFolder(*entry) if isinstance(entry, FolderEntry) else None


def settle_delete(lookup: Lookup, path: str, entry_id: str | None) -> DeletedEntry | None:
    """Return the absence where there is nothing any more, or something else than what was to go.

    What somebody has moved away is not gone: the next try finds nothing, and says so.
    """
    entry = find(lookup, path)
    if entry is not None and (entry_id is None or entry.id == entry_id):
        return None
    if entry is None and entry_id is not None:
        with suppress(ApiError):  # of stand-ins that do not know of ids
            if find(lookup, entry_id) is not None:
                return None
    return DeletedEntry(paths.name(path), paths.key(path), path)


def settle_move(lookup: Lookup, source: str, target: str, source_id: str | None) -> FileEntry | FolderEntry | None:
    """Return the target where it has the source's id; without an id, where it is there and the source is not."""
    entry = find(lookup, target)
    if entry is None:
        return None
    if source_id is not None:
        return entry if entry.id == source_id else None
    return entry if find(lookup, source) is None else None


def settle_restore(lookup: Lookup, path: str, rev: str) -> FileEntry | None:
    """Return the file where it holds what the revision holds."""
    entry = find(lookup, path)
    if not isinstance(entry, FileEntry):
        return None
    original = lookup.get_metadata(f"rev:{rev}")
    return entry if isinstance(original, FileEntry) and _hold_the_same(original, entry) else None


def _hold_the_same(one: FileEntry, other: FileEntry) -> bool:
    return (one.size, one.content_hash) == (other.size, other.content_hash)


def has_gone(lookup: Lookup, path: str, entry_id: str | None) -> bool:
    """Tell whether what was at a path is there no more."""
    entry = find(lookup, path)
    return entry is None or (entry_id is not None and entry.id != entry_id)


def tree(lookup: Lookup, path: str) -> dict[str, str | None]:
    """Return all that is below a folder: keys relative to it, content hashes of files, None for folders."""
    key = paths.key(path)
    found: dict[str, str | None] = {}
    for page in lookup.pages(path, recursive=True):
        for entry in page.entries:
            name = entry.path_lower[len(key) :]
            if isinstance(entry, DeletedEntry):  # a listing goes on with what happens meanwhile
                found = {other: known for other, known in found.items() if not paths.is_under(other, name)}
            elif name:
                found[name] = entry.content_hash if isinstance(entry, FileEntry) else None
    return found


def settle_copy(lookup: Lookup, source: str, target: str) -> FileEntry | FolderEntry | None:
    """Return the target where it holds what the source holds, names and content hashes."""
    entry = find(lookup, target)
    if entry is None:
        return None
    original = find(lookup, source)
    if isinstance(original, FileEntry) and isinstance(entry, FileEntry):
        is_same = _hold_the_same(original, entry)
    elif isinstance(original, FolderEntry) and isinstance(entry, FolderEntry):
        is_same = tree(lookup, source) == tree(lookup, target)
    else:
        is_same = False
    return entry if is_same else None


def note_lock(lookup: Lookup, error: ApiError, path: str) -> ApiError:
    """Return the error of a change, with who has locked the file where that may be why: Dropbox itself does not say."""
    if error.status != 409 or not _PERHAPS_LOCKED.intersection(error.tag[-1:]):
        return error
    with suppress(DropboxError):
        entry = lookup.get_metadata(path)
        if isinstance(entry, FileEntry) and entry.lock is not None and not entry.lock.is_holder:
            error.holder = entry.lock.told()
    return error
