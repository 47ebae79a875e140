"""What a commit is, and how to tell afterwards whether a change whose answer was lost took place. Knows no HTTP.

Source of the rules: API facts, section 5, "Ambiguous commit".
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol, TypeAlias

from fs_dropbox import paths
from fs_dropbox.entries import DeletedEntry, FileEntry, FolderEntry
from fs_dropbox.errors import ApiError, TransportError


@dataclass(frozen=True, slots=True)
class Update:
    """Replace this revision and no other."""

    rev: str


# What a change of a file that somebody else has locked is answered with: the documentation does not tell which.
_PERHAPS_LOCKED: Final = frozenset({"access_restricted", "no_write_permission", "locked"})

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

    def tree(self, path: str) -> dict[str, str | None]: ...


def timestamp(moment: datetime) -> str:
    """Return a moment as the API writes it: UTC, whole seconds."""
    return moment.astimezone(UTC).replace(tzinfo=None, microsecond=0).isoformat() + "Z"


def find(lookup: Lookup, path: str) -> FileEntry | FolderEntry | None:
    """Return what is at a path, None where nothing is."""
    try:
        return lookup.get_metadata(path)
    except ApiError as error:
        if error.tag[-1:] == ("not_found",):
            return None
        raise


def settle_commit(lookup: Lookup, commit: Commit, size: int, content_hash: str | None) -> FileEntry | None:
    """Return the committed file where it is there. Exact creation also wants its own client_modified back."""
    entry = find(lookup, commit.path)
    if not isinstance(entry, FileEntry) or entry.size != size or content_hash is None:
        return None
    if entry.content_hash != content_hash:
        return None
    if commit.strict_conflict and commit.client_modified is not None:
        ours = commit.client_modified.astimezone(UTC).replace(microsecond=0)
        return entry if entry.client_modified == ours else None
    return entry


def settle_create_folder(lookup: Lookup, path: str) -> FolderEntry | None:
    """Return the folder where it is there."""
    entry = find(lookup, path)
    return entry if isinstance(entry, FolderEntry) else None


def settle_delete(lookup: Lookup, path: str) -> DeletedEntry | None:
    """Return the absence where there is nothing any more."""
    return None if find(lookup, path) is not None else DeletedEntry(paths.name(path), paths.key(path), path)


def settle_move(lookup: Lookup, source: str, target: str, source_id: str | None) -> FileEntry | FolderEntry | None:
    """Return the target where it is there and the source is not; with the same id where that is known."""
    if find(lookup, source) is not None:
        return None
    entry = find(lookup, target)
    if entry is None:
        return None
    return entry if source_id is None or entry.id == source_id else None


def settle_copy(lookup: Lookup, source: str, target: str) -> FileEntry | FolderEntry | None:
    """Return the target where it holds what the source holds, names and content hashes."""
    entry = find(lookup, target)
    if entry is None:
        return None
    original = find(lookup, source)
    if isinstance(entry, FileEntry):
        same = isinstance(original, FileEntry) and original.content_hash == entry.content_hash
        return entry if same and isinstance(original, FileEntry) and original.size == entry.size else None
    if not isinstance(original, FolderEntry):
        return None
    return entry if lookup.tree(source) == lookup.tree(target) else None


def note_lock(lookup: Lookup, error: ApiError, path: str) -> ApiError:
    """Return the error of a change, with who has locked the file where that may be why: Dropbox itself does not say."""
    if error.status != 409 or not _PERHAPS_LOCKED.intersection(error.tag[-1:]):
        return error
    with suppress(ApiError, TransportError):
        entry = lookup.get_metadata(path)
        if isinstance(entry, FileEntry) and entry.lock is not None and not entry.lock.is_holder:
            error.holder = entry.lock.told()
    return error
