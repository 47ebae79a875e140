"""Metadata and changes of single entries: get_metadata, create_folder, delete, move, copy, revisions, restore."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fs_dropbox.emulator.arguments import ROOT_UNSUPPORTED, Arguments
from fs_dropbox.emulator.model import metadata, mutations
from fs_dropbox.emulator.model.errors import (
    BadArgumentError,
    BadRequestError,
    PathLookupError,
    RouteError,
    WriteError,
    nested,
    union,
)
from fs_dropbox.emulator.model.names import fold
from fs_dropbox.emulator.model.times import format_time
from fs_dropbox.emulator.model.tree import File, Revision
from fs_dropbox.emulator.model.view import View
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.context import ContentionError, Context


def write_path(context: Context, arg: Arguments, name: str) -> str:
    """Return the path of something to change; the root is refused as the options say."""
    try:
        return arg.path(name)
    except BadArgumentError as error:
        if error.detail.endswith(ROOT_UNSUPPORTED) and context.service.options.root_refusal == "malformed_path":
            return "//"  # malformed wherever it is looked up
        raise


@registry.route("files/get_metadata")
def get_metadata(context: Context, arg: Arguments) -> Any:
    """Answer what is at a path."""
    path = arg.path("path")
    with context.service.state.lock, nested():
        view = context.view
        try:
            if path.startswith("rev:"):
                file, revision = view.find_file(path)
                return metadata.of_revision(view, revision, file=file, tagged=True)
            return metadata.of_entry(view, view.find(path))
        except PathLookupError:
            deleted = _deleted(view, path) if arg.get("include_deleted", False) else None
            if deleted is None:
                raise
            return deleted


def _deleted(view: View, path: str) -> metadata.Metadata | None:
    try:
        target = view.target(path)
    except WriteError:
        return None
    grave = target.namespace.tombstone(target.key_path)
    prefix = view.prefix_of(target.namespace)
    if grave is None or prefix is None:
        return None
    return metadata.of_tombstone(grave, (prefix[0] + fold(grave.display_path), prefix[1] + grave.display_path))


@registry.route("files/create_folder_v2", "files/create_folder")
def create_folder(context: Context, arg: Arguments) -> Any:
    """Create a folder."""
    path = write_path(context, arg, "path")
    autorename = arg.get("autorename", False)
    with nested(), context.write(path):
        folder = mutations.create_folder(context.view, path, autorename=autorename)
        result = metadata.of_entry(context.view, folder, tagged=False)
    return {"metadata": result} if context.route.endswith("_v2") else result


@contextmanager
def deletion_errors() -> Iterator[None]:
    """Wrap failures into files.DeleteError."""
    with nested("path_lookup", "path_write"):
        try:
            yield
        except ContentionError as error:
            raise RouteError(error.union) from error


def delete_entry(context: Context, path: str, parent_rev: str | None) -> metadata.Metadata:
    """Delete an entry and return its metadata as of deletion."""
    entry = mutations.delete(context.view, path, parent_rev=parent_rev)
    result = metadata.of_entry(context.view, entry)
    context.service.state.remove(entry)
    return result


@registry.route("files/delete_v2", "files/delete")
def delete(context: Context, arg: Arguments) -> Any:
    """Delete a file, or a folder with everything below."""
    path = write_path(context, arg, "path")
    parent_rev = arg.get("parent_rev")
    with deletion_errors(), context.write(path):
        result = delete_entry(context, path, parent_rev)
    return {"metadata": result} if context.route.endswith("_v2") else result


@contextmanager
def relocation_errors() -> Iterator[None]:
    """Wrap failures into files.RelocationError."""
    try:
        yield
    except PathLookupError as error:
        raise RouteError(union("from_lookup", from_lookup=error.union)) from error
    except mutations.SourceError as error:
        raise RouteError(union("from_write", from_write=error.union)) from error
    except ContentionError as error:
        raise RouteError(error.union) from error
    except WriteError as error:
        raise RouteError(union("to", to=error.union)) from error


@registry.route("files/move_v2", "files/move", "files/copy_v2", "files/copy")
def relocate(context: Context, arg: Arguments) -> Any:
    """Move or copy an entry with everything below; never overwrites."""
    source = write_path(context, arg, "from_path")
    target = write_path(context, arg, "to_path")
    autorename = arg.get("autorename", False)
    move = context.route.startswith("files/move")
    transfer = arg.get("allow_ownership_transfer", False)
    with relocation_errors(), context.write(*((source, target) if move else (target,))):
        entry = mutations.relocate(
            context.view, source, target, move=move, autorename=autorename, may_change_owner=transfer
        )
        result = metadata.of_entry(context.view, entry)
    return {"metadata": result} if context.route.endswith("_v2") else result


@registry.route("files/list_revisions")
def list_revisions(context: Context, arg: Arguments) -> Any:
    """List the revisions of a path or of a file's id, newest first."""
    path = arg.path("path")
    mode = arg.choice("mode", "path")
    limit = arg.get("limit", 10)
    before_rev = arg.get("before_rev")
    with context.service.state.lock, nested():
        view = context.view
        file, history, grave_time = _history(view, path, mode)
        history = [revision for revision in reversed(history) if view.state.is_kept(revision)]
        if before_rev is not None:
            if mode == "id":
                raise RouteError("before_rev_not_supported")
            revs = [revision.rev for revision in history]
            if before_rev not in revs:
                raise RouteError("invalid_before_rev")
            history = history[revs.index(before_rev) + 1 :]
        entries = [
            metadata.of_revision(view, r, file=file if file is not None and file.revision is r else None)
            for r in history[:limit]
        ]
    result: dict[str, Any] = {"is_deleted": file is None, "entries": entries, "has_more": len(history) > limit}
    if grave_time is not None:
        result["server_deleted"] = format_time(grave_time)
    return result


def _history(view: View, path: str, mode: str) -> tuple[File | None, list[Revision], int | None]:
    try:
        entry = view.find(path)
    except PathLookupError:
        if mode == "id" or not path.startswith("/"):
            raise
        return _deleted_history(view, path)
    if not isinstance(entry, File):
        raise PathLookupError("not_file")
    if mode == "id":
        return entry, view.state.file_history[entry.id], None
    return entry, view.state.path_history[entry.namespace.id, entry.key_path()], None


def _deleted_history(view: View, path: str) -> tuple[None, list[Revision], int]:
    try:
        target = view.target(path)
    except WriteError as error:
        raise PathLookupError("malformed_path" if error.union[".tag"] == "malformed_path" else "not_found") from error
    grave = target.namespace.tombstone(target.key_path)
    if grave is None:
        raise PathLookupError("not_found")
    history = view.state.path_history.get((target.namespace.id, target.key_path))
    if grave.rev is None or history is None:
        raise PathLookupError("not_file")
    return None, history, grave.deleted_at


@registry.route("files/restore")
def restore(context: Context, arg: Arguments) -> Any:
    """Bring back a revision of a file."""
    path = write_path(context, arg, "path")
    rev = arg.get("rev")
    with nested("path_lookup", "path_write"), context.write(path):
        file = mutations.restore(context.view, path, rev)
        return metadata.of_entry(context.view, file, tagged=False)


@registry.route("files/permanently_delete")
def permanently_delete(context: Context, arg: Arguments) -> Any:
    """Delete an entry beyond recovery; apps of a Business team only."""
    path = write_path(context, arg, "path")
    parent_rev = arg.get("parent_rev")
    if context.team is None and (context.account is None or context.account.team_id is None):
        raise BadRequestError("Your API app is not allowed to call this function.")
    with nested("path_lookup", "path_write"), context.write(path):
        mutations.permanently_delete(context.view, path, parent_rev=parent_rev)
    return None
