"""Who is in a shared folder: let in, changed, sent away, gone by themselves."""

from __future__ import annotations

from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model.accounts import Account
from fs_dropbox.emulator.model.errors import RouteError, union
from fs_dropbox.emulator.model.tree import Namespace
from fs_dropbox.emulator.people import shared_folders
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.context import Context
from fs_dropbox.emulator.web.paging import Place, cut, place_of, valid

LEVELS = ("editor", "viewer", "viewer_no_comment")


def _managed(context: Context, arg: Arguments) -> Namespace:
    """Return the folder whose members the caller may change."""
    namespace = shared_folders.get(context.service, context.user, arg.get("shared_folder_id"))
    if namespace.kind == "team_folder":
        raise RouteError("no_permission" if context.route.endswith("update_folder_member") else "team_folder")
    if namespace.members[context.user.account_id] not in ("owner", "editor"):
        raise RouteError("no_permission")
    return namespace


def _level(arg: Arguments, default: str = "") -> str:
    level = arg.choice("access_level", default)
    if level not in LEVELS:
        raise arg.error("access_level", f"'{level}' cannot be given to a member")
    return level


def _find(context: Context, selector: Arguments) -> Account | None:
    accounts, value = context.service.accounts, selector.get(selector.tag)
    return accounts.by_email(value) if selector.tag == "email" else accounts.accounts.get(value)


@registry.route("sharing/add_folder_member")
def add_members(context: Context, arg: Arguments) -> Any:
    """Let others in; they find the folder among the mountable ones. Unknown addresses stay invited."""
    members = arg.structs("members")
    with context.mutation():
        namespace = _managed(context, arg)
        for member in members:
            selector = member.union("member")
            level = _level(member, "viewer")
            account = _find(context, selector)
            if account is None and selector.tag == "dropbox_id":
                bad = union("invalid_dropbox_id", invalid_dropbox_id=selector.get("dropbox_id"))
                raise RouteError(union("bad_member", bad_member=bad))
            if account is None:
                namespace.extra.setdefault("invitees", {})[selector.get("email")] = level
                context.service.state.store_namespace(namespace)
            elif account.account_id != namespace.owner:
                shared_folders.add_member(context.service, namespace, account, level)


@registry.route("sharing/list_folder_members")
def list_members(context: Context, arg: Arguments) -> Any:
    """List the members and who is invited."""
    return _page(context, Place(0, arg.get("limit", 1000), about=arg.get("shared_folder_id")))


@registry.route("sharing/list_folder_members/continue")
def list_members_continue(context: Context, arg: Arguments) -> Any:
    """List further members."""
    return _page(context, valid(place_of(context, "folder_members", arg.get("cursor"))))


def _readable(context: Context, folder_id: str) -> Namespace:
    try:
        return shared_folders.get(context.service, context.user, folder_id)
    except RouteError as error:
        inner = error.error["access_error"]
        raise RouteError(inner if context.route == "sharing/list_folder_members" else error.error) from error


def _page(context: Context, place: Place) -> Any:
    with context.service.state.lock:
        namespace = _readable(context, place.about)
        users, cursor, has_more = cut(context, "folder_members", list(namespace.members.items()), place)
        answer: dict[str, Any] = {
            "users": [_user(context, account_id, level) for account_id, level in users],
            "groups": [],
            "invitees": [
                {"access_type": union(level), "invitee": union("email", email=email), "is_inherited": False}
                for email, level in namespace.extra.get("invitees", {}).items()
            ],
        }
        return {**answer, "cursor": cursor} if has_more else answer


def _user(context: Context, account_id: str, level: str) -> dict[str, Any]:
    account = context.service.accounts.accounts[account_id]
    user = {
        "account_id": account_id,
        "email": account.email,
        "display_name": account.display_name,
        "same_team": account.team_id is not None and account.team_id == context.user.team_id,
    }
    if account.team_member_id is not None:
        user["team_member_id"] = account.team_member_id
    return {"access_type": union(level), "user": user, "permissions": [], "is_inherited": False}


@registry.route("sharing/update_folder_member")
def update_member(context: Context, arg: Arguments) -> Any:
    """Change what a member may do."""
    level = _level(arg)
    with context.mutation():
        namespace = _managed(context, arg)
        account = _member(context, namespace, arg)
        shared_folders.add_member(context.service, namespace, account, level)
    return {"access_level": union(level)}


@registry.route("sharing/remove_folder_member")
def remove_member(context: Context, arg: Arguments) -> Any:
    """Send a member away, with a copy or without."""
    leave_a_copy = arg.get("leave_a_copy", False)
    with context.mutation():
        namespace = _managed(context, arg)
        account = _member(context, namespace, arg)
        if account.account_id == namespace.owner:
            raise RouteError("folder_owner")
        shared_folders.remove_member(context.service, namespace, account, leave_a_copy=leave_a_copy)
    return context.launch("remove_member", union("complete"), as_job=True, force=True)


def _member(context: Context, namespace: Namespace, arg: Arguments) -> Account:
    account = _find(context, arg.union("member"))
    if account is None or account.account_id not in namespace.members:
        tag = "invalid_dropbox_id" if account is None else "not_a_member"
        raise RouteError(union("member_error", member_error=union(tag)))
    return account


@registry.route("sharing/relinquish_folder_membership")
def relinquish(context: Context, arg: Arguments) -> Any:
    """Leave a shared folder for good."""
    leave_a_copy = arg.get("leave_a_copy", False)
    with context.mutation():
        namespace = shared_folders.get(context.service, context.user, arg.get("shared_folder_id"))
        if namespace.kind == "team_folder":
            raise RouteError("team_folder")
        if namespace.owner == context.account_id:
            raise RouteError("folder_owner")
        shared_folders.remove_member(context.service, namespace, context.user, leave_a_copy=leave_a_copy)
    return context.launch("sharing", union("complete"), as_job=leave_a_copy)
