"""Shared folders: made, listed, mounted, ended; and single files that others have shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model.errors import RouteError, union
from fs_dropbox.emulator.model.times import format_time
from fs_dropbox.emulator.model.tree import Entry, Namespace
from fs_dropbox.emulator.people import shared_folders
from fs_dropbox.emulator.people.mounting import mount_of
from fs_dropbox.emulator.people.shared_folders import AlreadySharedError
from fs_dropbox.emulator.routes.shared_links import web_url
from fs_dropbox.emulator.web import paging, registry
from fs_dropbox.emulator.web.context import Context

T = TypeVar("T")

POLICY = {
    "member_policy": union("anyone"),
    "resolved_member_policy": union("anyone"),
    "acl_update_policy": union("owner"),
    "shared_link_policy": union("anyone"),
}


def _encode(context: Context, namespace: Namespace) -> dict[str, Any]:
    """Return sharing.SharedFolderMetadata; without paths when the folder is not mounted."""
    account = context.user
    path = context.view.prefix_of(namespace)
    owner = context.service.accounts.accounts.get(namespace.owner or "")
    shown: dict[str, Any] = {
        "access_type": union(namespace.members[account.account_id]),
        "is_inside_team_folder": False,
        "is_team_folder": namespace.kind == "team_folder",
        "name": namespace.name,
        "policy": POLICY,
        "preview_url": f"{web_url(context)}/scl/fo/{namespace.id}/home",
        "shared_folder_id": namespace.id,
        "folder_id": namespace.root.id,
        "time_invited": format_time(namespace.extra.get("invited", {}).get(account.account_id, 0)),
        "access_inheritance": union("inherit"),
        "permissions": [],
    }
    if owner is not None:
        shown["owner_display_names"] = [owner.display_name]
    team = context.service.accounts.teams.get((owner or account).team_id or "")
    if team is not None:
        shown["owner_team"] = {"id": team.team_id, "name": team.name}
    if path:
        mount = mount_of(namespace, account)
        shown["path_lower"], shown["path_display"] = path
        shown["name"] = mount.name if mount is not None else namespace.name
    return shown


@registry.route("sharing/share_folder")
def share_folder(context: Context, arg: Arguments) -> Any:
    """Share a folder, which is created when there is none."""
    path = arg.path("path")
    force = arg.get("force_async", False)
    if not context.user.email_verified:
        raise RouteError("email_unverified")
    with context.write(path):
        try:
            namespace = shared_folders.share(context.service, context.view, context.user, path)
        except AlreadySharedError as refusal:
            known = _encode(context, refusal.namespace)
            raise RouteError(union("bad_path", bad_path=union("already_shared", **known))) from refusal
        status = union("complete", **_encode(context, namespace))
    return context.launch("share_folder", status, as_job=False, force=force)


@registry.route("sharing/unshare_folder")
def unshare_folder(context: Context, arg: Arguments) -> Any:
    """End a shared folder: its owner keeps the content."""
    leave_a_copy = arg.get("leave_a_copy", False)
    with context.mutation():
        namespace = _get(context, arg)
        shared_folders.unshare(context.service, context.user, namespace, leave_a_copy=leave_a_copy)
    return context.launch("sharing", union("complete"), as_job=True)


def _get(context: Context, arg: Arguments) -> Namespace:
    return shared_folders.get(context.service, context.user, arg.get("shared_folder_id"))


@registry.route("sharing/get_folder_metadata")
def get_folder_metadata(context: Context, arg: Arguments) -> Any:
    """Answer a shared folder."""
    with context.service.state.lock:
        try:
            return _encode(context, _get(context, arg))
        except RouteError as error:
            raise RouteError(error.error["access_error"]) from error  # here the error is the inner union itself


@registry.route("sharing/mount_folder")
def mount_folder(context: Context, arg: Arguments) -> Any:
    """Show a shared folder in the caller's Dropbox."""
    with context.mutation():
        namespace = _get(context, arg)
        shared_folders.mount(context.service, context.user, namespace)
        return _encode(context, namespace)


@registry.route("sharing/unmount_folder")
def unmount_folder(context: Context, arg: Arguments) -> Any:
    """Hide a shared folder; the caller stays a member."""
    with context.mutation():
        shared_folders.unmount(context.service, context.user, _get(context, arg))


@registry.route("sharing/list_folders", "sharing/list_folders/continue")
def list_folders(context: Context, arg: Arguments) -> Any:
    """List the shared folders of the caller."""
    with context.service.state.lock:
        return _listed(context, arg, "folders", shared_folders.folders_of(context.service, context.user), _encode)


@registry.route("sharing/list_mountable_folders", "sharing/list_mountable_folders/continue")
def list_mountable_folders(context: Context, arg: Arguments) -> Any:
    """List the shared folders that the caller has not mounted."""
    with context.service.state.lock:
        folders = shared_folders.folders_of(context.service, context.user)
        mountable = [n for n in folders if n.kind == "shared_folder" and mount_of(n, context.user) is None]
        return _listed(context, arg, "mountable", mountable, _encode)


@registry.route("sharing/list_received_files", "sharing/list_received_files/continue")
def list_received_files(context: Context, arg: Arguments) -> Any:
    """List the single files that others have shared with the caller."""
    with context.service.state.lock:
        files = shared_folders.received_files(context.service, context.user)
        return _listed(context, arg, "received", files, _encode_received, limit=100)


def _encode_received(context: Context, received: tuple[dict[str, Any], Entry]) -> dict[str, Any]:
    """Return sharing.SharedFileMetadata."""
    document, file = received
    return {
        "access_type": union("viewer"),
        "id": file.id,
        "name": file.name,
        "owner_display_names": [context.service.accounts.accounts[document["from"]].display_name],
        "permissions": [],
        "policy": POLICY,
        "preview_url": web_url(context) + document["url"],
        "time_invited": format_time(document["invited"]),
    }


def _listed(
    context: Context, arg: Arguments, kind: str, items: Sequence[T], encode: Callable[[Context, T], Any], **limits: int
) -> Any:
    """Answer a page: here the end of a list is told by the missing cursor."""
    answer = paging.answer(context, arg, kind, items, lambda item: encode(context, item), field="entries", **limits)
    if not answer.pop("has_more"):
        del answer["cursor"]
    return answer
