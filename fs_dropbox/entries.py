"""What Dropbox said about a file or folder: immutable values made from the API's JSON, and PyFilesystem's view of them.

The values are named tuples because they decode twice as fast as frozen dataclasses.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

from fs.enums import ResourceType
from fs.info import Info
from fs.permissions import Permissions

from fs_dropbox import paths

# Dropbox keeps no times for folders: they all show this one, which no client takes for "unset".
FOLDER_TIME = datetime(2000, 1, 1, tzinfo=UTC)
OWNER = "dropbox"
OWNER_ID = 1000
_parse_time = datetime.fromisoformat


class Sharing(NamedTuple):
    """What an entry has to do with shared folders."""

    read_only: bool = False
    shared_folder_id: str | None = None  # of a folder that is itself shared; also its namespace id
    parent_shared_folder_id: str | None = None
    modified_by: str | None = None  # account id
    traverse_only: bool = False
    no_access: bool = False


class FileLock(NamedTuple):
    """Who holds the lock of a file."""

    is_holder: bool
    holder_name: str | None
    holder_account_id: str | None
    created: datetime | None

    def told(self) -> str:
        """Say who holds it, and since when: a lock has no end but its holder's."""
        since = f" since {self.created:%Y-%m-%d %H:%M} UTC" if self.created else ""
        return f"locked by {self.holder_name or 'someone else'}{since}"


class Export(NamedTuple):
    """How a file that cannot be downloaded (Paper, Google documents) can be exported."""

    format: str | None
    options: tuple[str, ...]


class FileEntry(NamedTuple):
    """A file; size in bytes, times aware UTC. path_lower is its lookup key, "" when it is not mounted in this root."""

    name: str
    path_lower: str
    path_display: str
    id: str
    rev: str
    size: int
    client_modified: datetime
    server_modified: datetime
    content_hash: str | None = None
    is_downloadable: bool = True
    sharing: Sharing | None = None
    lock: FileLock | None = None
    symlink_target: str | None = None
    export: Export | None = None


class SupersededEntry(FileEntry):
    """A version that an own commit has made, and that someone else's has replaced since: not what is there now."""

    __slots__ = ()


class FolderEntry(NamedTuple):
    """A folder. path_lower is its lookup key, "" when it is not mounted in this root."""

    name: str
    path_lower: str
    path_display: str
    id: str
    sharing: Sharing | None = None


class FoundFolder(FolderEntry):
    """A folder that is there after the answer to its making was lost: perhaps someone else's, and not empty."""

    __slots__ = ()


class DeletedEntry(NamedTuple):
    """A path at which something was deleted: a file, or a folder with all that it held."""

    name: str
    path_lower: str
    path_display: str


Entry: TypeAlias = FileEntry | FolderEntry | DeletedEntry


def decode(metadata: dict[str, Any]) -> Entry:
    """Return the entry of a metadata object whose `.tag` says what it is.

    Raises KeyError, TypeError or ValueError for what is no metadata.
    """
    tag = metadata[".tag"]
    if tag == "file":
        return decode_file(metadata)
    if tag == "folder":
        return decode_folder(metadata)
    if tag == "deleted":
        return DeletedEntry(metadata["name"], *_paths(metadata))
    raise ValueError(f"unknown kind of metadata: {tag!r}")


def decode_file(metadata: dict[str, Any]) -> FileEntry:
    """Return the entry of a file's metadata, with or without `.tag`."""
    get = metadata.get
    path_lower, path_display = _paths(metadata)
    server_modified = metadata["server_modified"]
    client_modified = get("client_modified") or server_modified
    modified = _parse_time(client_modified)
    sharing, lock = get("sharing_info"), get("file_lock_info")
    symlink, export = get("symlink_info"), get("export_info")
    return FileEntry(
        metadata["name"],
        path_lower,
        path_display,
        metadata["id"],
        metadata["rev"],
        metadata["size"],
        modified,
        modified if server_modified == client_modified else _parse_time(server_modified),
        get("content_hash"),
        get("is_downloadable") is not False,
        _sharing(sharing) if sharing else None,
        _lock(lock) if lock else None,
        symlink["target"] if symlink else None,
        Export(export.get("export_as"), tuple(export.get("export_options") or ())) if export else None,
    )


def decode_folder(metadata: dict[str, Any]) -> FolderEntry:
    """Return the entry of a folder's metadata, with or without `.tag`."""
    sharing = metadata.get("sharing_info")
    shared = _sharing(sharing) if sharing else None
    return FolderEntry(metadata["name"], *_paths(metadata), metadata["id"], shared)


def _paths(metadata: dict[str, Any]) -> tuple[str, str]:
    """Return the lookup key of an entry, and its path as shown; both are empty where Dropbox tells none.

    Other scripts than ASCII are lowered here as they are where somebody asks for a path: whatever lowers them in
    another way would not be found by its own name, since nobody knows exactly how Dropbox does it.
    """
    path = metadata.get("path_lower") or ""
    shown = metadata.get("path_display") or path
    if path and not (path.isascii() and shown.isascii()):
        path = paths.key(paths.join(paths.parent(shown), metadata["name"]))
    return path, shown


def _sharing(sharing: dict[str, Any]) -> Sharing:
    get = sharing.get
    return Sharing(
        bool(get("read_only")),
        get("shared_folder_id"),
        get("parent_shared_folder_id"),
        get("modified_by"),
        bool(get("traverse_only")),
        bool(get("no_access")),
    )


def _lock(lock: dict[str, Any]) -> FileLock | None:
    if not (lock.get("lockholder_account_id") or lock.get("lockholder_name") or lock.get("is_lockholder")):
        return None
    created = lock.get("created")
    return FileLock(
        bool(lock.get("is_lockholder")),
        lock.get("lockholder_name"),
        lock.get("lockholder_account_id"),
        _parse_time(created) if created else None,
    )


def to_info(entry: FileEntry | FolderEntry, namespaces: Collection[str] = ()) -> Info:
    """Return PyFilesystem's view of an entry with the namespaces asked for: details, access, link, dropbox."""
    is_file = isinstance(entry, FileEntry)
    raw: dict[str, dict[str, object]] = {"basic": {"name": entry.name, "is_dir": not is_file}}
    if "details" in namespaces:
        raw["details"] = _file_details(entry) if isinstance(entry, FileEntry) else _folder_details()
    if "access" in namespaces:
        raw["access"] = _access(0o644 if is_file else 0o755)
    if "link" in namespaces:
        raw["link"] = {"target": entry.symlink_target if isinstance(entry, FileEntry) else None}
    if "dropbox" in namespaces:
        raw["dropbox"] = _dropbox(entry)
    return Info(raw)


def root_info(namespaces: Collection[str] = ()) -> Info:
    """Return PyFilesystem's view of the root, for which Dropbox has no metadata."""
    return to_info(FolderEntry("", "", "", ""), namespaces)


def _file_details(entry: FileEntry) -> dict[str, object]:
    kind = ResourceType.file if entry.symlink_target is None else ResourceType.symlink
    return {"type": int(kind), "size": entry.size, "modified": entry.client_modified.timestamp(), "_write": []}


def _folder_details() -> dict[str, object]:
    return {"type": int(ResourceType.directory), "size": 0, "modified": FOLDER_TIME.timestamp(), "_write": []}


def _access(mode: int) -> dict[str, object]:
    permissions = Permissions(mode=mode).dump()
    return {"permissions": permissions, "user": OWNER, "group": OWNER, "uid": OWNER_ID, "gid": OWNER_ID}


def _dropbox(entry: FileEntry | FolderEntry) -> dict[str, object]:
    """Return the namespace "dropbox": plain values only, so that it can be written as JSON."""
    raw: dict[str, object] = {
        "id": entry.id,
        "path_display": entry.path_display,
        "sharing": entry.sharing._asdict() if entry.sharing else None,
    }
    if isinstance(entry, FileEntry):
        lock = entry.lock
        raw |= {
            "rev": entry.rev,
            "content_hash": entry.content_hash,
            "client_modified": entry.client_modified.timestamp(),
            "server_modified": entry.server_modified.timestamp(),
            "is_downloadable": entry.is_downloadable,
            "symlink_target": entry.symlink_target,
            "lock": lock._asdict() | {"created": lock.created.timestamp() if lock.created else None} if lock else None,
            "export": {"format": entry.export.format, "options": list(entry.export.options)} if entry.export else None,
        }
    return raw
