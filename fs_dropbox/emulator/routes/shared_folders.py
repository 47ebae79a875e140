"""Shared folders: made, listed, mounted, ended; and single files that others have shared."""

from __future__ import annotations

from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model.accounts import Account
from fs_dropbox.emulator.model.errors import RouteError, union
from fs_dropbox.emulator.model.times import format_time
from fs_dropbox.emulator.model.tree import Namespace
from fs_dropbox.emulator.people import shared_folders
from fs_dropbox.emulator.people.mounting import mount_of
from fs_dropbox.emulator.people.shared_folders import AlreadySharedError
from fs_dropbox.emulator.routes.shared_links import web_url
from fs_dropbox.emulator.web.context import Context
from fs_dropbox.emulator.web.paging import Place, cut, place_of
from fs_dropbox.emulator.web.registry import Table

table = Table()

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


@table.route("sharing/share_folder")
def share_folder(context: Context, arg: Arguments) -> Any:
    """Share a folder, which is created when there is none."""
    path = arg.path("path", "WritePathOrId")
    force = arg.boolean("force_async")
    for name in ("acl_update_policy", "member_policy", "shared_link_policy", "viewer_info_policy"):
        arg.optional_union(name)
    if not context.user.email_verified:
        raise RouteError("email_unverified")
    with context.write(path):
        try:
            namespace = shared_folders.share(context.service, context.view, context.user, path)
        except AlreadySharedError as refusal:
            known = _encode(context, refusal.namespace)
            raise RouteError(union("bad_path", bad_path=union("already_shared", **known))) from refusal
        status = union("complete", **_encode(context, namespace))
    jobs = context.service.jobs
    return jobs.answer("share_folder", context.account_id, status, recorded_as_job=False, force=force)


@table.route("sharing/unshare_folder")
def unshare_folder(context: Context, arg: Arguments) -> Any:
    """End a shared folder: its owner keeps the content."""
    leave_a_copy = arg.boolean("leave_a_copy")
    with context.mutation():
        namespace = _get(context, arg)
        shared_folders.unshare(context.service, context.user, namespace, leave_a_copy=leave_a_copy)
    return context.service.jobs.answer("sharing", context.account_id, union("complete"), recorded_as_job=True)


_JOB_KINDS = {"sharing/check_share_job_status": "share_folder", "sharing/check_job_status": "sharing"}


@table.route(*_JOB_KINDS)
def check_job(context: Context, arg: Arguments) -> Any:
    """Answer how far a job is."""
    job_id = arg.string("async_job_id", min_length=1)
    return context.service.jobs.check(_JOB_KINDS[context.route], context.account_id, job_id)


def _get(context: Context, arg: Arguments) -> Namespace:
    return shared_folders.get(context.service, context.user, arg.string("shared_folder_id"))


@table.route("sharing/get_folder_metadata")
def get_folder_metadata(context: Context, arg: Arguments) -> Any:
    """Answer a shared folder."""
    arg.array("actions", [])
    with context.service.state.lock:
        try:
            return _encode(context, _get(context, arg))
        except RouteError as error:
            raise RouteError(error.error["access_error"]) from error  # here the error is the inner union itself


@table.route("sharing/mount_folder")
def mount_folder(context: Context, arg: Arguments) -> Any:
    """Show a shared folder in the caller's Dropbox."""
    with context.mutation():
        namespace = _get(context, arg)
        shared_folders.mount(context.service, context.user, namespace)
        return _encode(context, namespace)


@table.route("sharing/unmount_folder")
def unmount_folder(context: Context, arg: Arguments) -> Any:
    """Hide a shared folder; the caller stays a member."""
    with context.mutation():
        shared_folders.unmount(context.service, context.user, _get(context, arg))


@table.route("sharing/list_folders", "sharing/list_mountable_folders")
def list_folders(context: Context, arg: Arguments) -> Any:
    """List the shared folders of the caller, or those that it has not mounted."""
    arg.array("actions", [])
    return _list(context, Place(0, arg.integer("limit", 1000, 1, 1000)))


@table.route("sharing/list_folders/continue", "sharing/list_mountable_folders/continue")
def list_folders_continue(context: Context, arg: Arguments) -> Any:
    """List further shared folders."""
    return _list(context, place_of(context, _list_kind(context), arg.string("cursor")))


def _list_kind(context: Context) -> str:
    return "mountable" if "mountable" in context.route else "folders"


def _list(context: Context, place: Place) -> Any:
    service, kind = context.service, _list_kind(context)
    with service.state.lock:
        folders = shared_folders.folders_of(service, context.user)
        if kind == "mountable":
            folders = [n for n in folders if n.kind == "shared_folder" and mount_of(n, context.user) is None]
        page, cursor, has_more = cut(context, kind, folders, place)
        answer: dict[str, Any] = {"entries": [_encode(context, namespace) for namespace in page]}
    return {**answer, "cursor": cursor} if has_more else answer


@table.route("sharing/list_received_files")
def list_received_files(context: Context, arg: Arguments) -> Any:
    """List the single files that others have shared with the caller."""
    arg.array("actions", [])
    return _received(context, Place(0, arg.integer("limit", 100, 1, 300)))


@table.route("sharing/list_received_files/continue")
def list_received_files_continue(context: Context, arg: Arguments) -> Any:
    """List further files."""
    return _received(context, place_of(context, "received", arg.string("cursor")))


def _received(context: Context, place: Place) -> Any:
    service = context.service
    with service.state.lock:
        files = shared_folders.received_files(service, context.user)
        page, cursor, has_more = cut(context, "received", files, place)
        entries = []
        for document, file in page:
            owner: Account = service.accounts.accounts[document["from"]]
            entries.append(
                {
                    "access_type": union("viewer"),
                    "id": file.id,
                    "name": file.name,
                    "owner_display_names": [owner.display_name],
                    "permissions": [],
                    "policy": POLICY,
                    "preview_url": web_url(context) + document["url"],
                    "time_invited": format_time(document["invited"]),
                }
            )
    answer: dict[str, Any] = {"entries": entries}
    return {**answer, "cursor": cursor} if has_more else answer
