"""Entries, revisions and tombstones to the API's metadata dicts."""

from __future__ import annotations

from typing import Any

from fs_dropbox.emulator.model.times import format_time
from fs_dropbox.emulator.model.tree import Entry, File, Folder, Revision, Tombstone
from fs_dropbox.emulator.model.view import View

Metadata = dict[str, Any]


def of_entry(view: View, entry: Entry, *, tagged: bool = True, path: tuple[str, str] | None = None) -> Metadata:
    """Return FileMetadata or FolderMetadata; `tagged` where the declared type is the polymorphic Metadata."""
    path = path or view.path_of(entry)
    if isinstance(entry, File):
        return of_revision(view, entry.revision, file=entry, tagged=tagged, path=path)
    assert isinstance(entry, Folder)
    metadata: Metadata = {".tag": "folder"} if tagged else {}
    metadata.update(_names(entry.name, path), id=entry.id)
    sharing = _folder_sharing(view, entry)
    if sharing is not None:
        metadata["sharing_info"] = sharing
        if "shared_folder_id" in sharing:
            metadata["shared_folder_id"] = sharing["shared_folder_id"]
    return metadata


def of_revision(
    view: View, revision: Revision, *, file: File | None, tagged: bool = False, path: tuple[str, str] | None = None
) -> Metadata:
    """Return the FileMetadata of one revision; `file` is the live file when this is its current revision."""
    if path is None:
        path = view.path_of(file) if file is not None else _old_path(view, revision)
    metadata: Metadata = {".tag": "file"} if tagged else {}
    metadata.update(_names(file.name if file is not None else revision.name, path))
    metadata.update(
        id=revision.file_id,
        client_modified=format_time(revision.client_modified),
        server_modified=format_time(revision.server_modified),
        rev=revision.rev,
        size=revision.size,
        is_downloadable=True,
        content_hash=revision.content_hash,
    )
    namespace = view.state.namespaces[revision.namespace_id]
    if namespace.is_shared:
        sharing: Metadata = {"read_only": not view.can_write(namespace), "parent_shared_folder_id": namespace.id}
        if file is not None and "modified_by" in file.extra:
            sharing["modified_by"] = file.extra["modified_by"]
        metadata["sharing_info"] = sharing
    if file is not None:
        # Whatever a further module says about this file: is_downloadable, export_info, symlink_info…
        metadata.update(file.extra.get("metadata", {}))
        if "lock" in file.extra:
            metadata["file_lock_info"] = _lock_info(view, file.extra["lock"])
    return metadata


def _lock_info(view: View, lock: dict[str, Any]) -> Metadata:
    """Return files.FileLockMetadata, in which is_lockholder depends on who looks."""
    return {
        "is_lockholder": view.account is not None and view.account.account_id == lock["account_id"],
        "lockholder_name": lock["name"],
        "lockholder_account_id": lock["account_id"],
        "created": format_time(lock["created"]),
    }


def of_tombstone(tombstone: Tombstone, path: tuple[str, str]) -> Metadata:
    """Return DeletedMetadata."""
    return {".tag": "deleted", "name": tombstone.name, "path_lower": path[0], "path_display": path[1]}


def _names(name: str, path: tuple[str, str] | None) -> Metadata:
    names: Metadata = {"name": name}
    if path is not None:
        names["path_lower"], names["path_display"] = path
    return names


def _old_path(view: View, revision: Revision) -> tuple[str, str] | None:
    prefix = view.prefix_of(view.state.namespaces[revision.namespace_id])
    if prefix is None:
        return None
    parent = revision.key_path.rpartition("/")[0]
    return prefix[0] + revision.key_path, f"{prefix[1]}{parent}/{revision.name}"


def _folder_sharing(view: View, folder: Folder) -> Metadata | None:
    is_root = folder.mount is not None and folder.mount.is_shared
    namespace = folder.inner.namespace if is_root else folder.namespace
    if not namespace.is_shared:
        return None
    return {
        "read_only": not view.can_write(namespace),
        "shared_folder_id" if is_root else "parent_shared_folder_id": namespace.id,
        "traverse_only": False,
        "no_access": False,
    }
