"""What a team's admin asks about it: members, team folders, namespaces, features."""

from __future__ import annotations

from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model.accounts import Account, Team
from fs_dropbox.emulator.model.errors import RouteError, union
from fs_dropbox.emulator.model.tree import Namespace
from fs_dropbox.emulator.people import teams
from fs_dropbox.emulator.people.mounting import DISSOLVED
from fs_dropbox.emulator.routes.users import name_of, team_of
from fs_dropbox.emulator.web import paging, registry
from fs_dropbox.emulator.web.context import Context

ADMIN_ROLE = {
    "role_id": "pid_dbtmr:AAAAAMtlHxh7cQm7Jx1Vq3A",
    "name": "Team",
    "description": "Manage everything and access all permissions",
}
NAMESPACE_TYPES = {"home": "team_member_folder", "team_root": "team_folder"}


def _team(context: Context) -> Team:
    assert context.team is not None
    return context.team


def _profile(context: Context, account: Account) -> dict[str, Any]:
    """Return team.TeamMemberProfile."""
    return {
        "team_member_id": account.team_member_id,
        "account_id": account.account_id,
        "email": account.email,
        "email_verified": account.email_verified,
        "secondary_emails": [],
        "status": {".tag": account.status},
        "name": name_of(account),
        "membership_type": {".tag": "full"},
        "joined_on": account.joined,
        "groups": [],
        "member_folder_id": account.home_namespace_id,
        "root_folder_id": _team(context).root_namespace_id or account.root_namespace_id,
    }


def _member(context: Context, account: Account) -> dict[str, Any]:
    """Return team.TeamMemberInfo, or team.TeamMemberInfoV2."""
    roles = [ADMIN_ROLE] if account.role == "team_admin" else []
    role = {"roles": roles} if context.route.endswith("_v2") else {"role": union(account.role)}
    return {"profile": _profile(context, account), **role}


@registry.route(
    "team/members/list_v2", "team/members/list", "team/members/list/continue_v2", "team/members/list/continue"
)
def list_members(context: Context, arg: Arguments) -> Any:
    """List the members."""
    with context.service.state.lock:
        members = context.service.accounts.members(_team(context).team_id)
        return paging.answer(context, arg, "members", members, lambda member: _member(context, member))


@registry.route("team/members/get_info_v2", "team/members/get_info")
def get_member_info(context: Context, arg: Arguments) -> Any:
    """Answer members by their ids or e-mail addresses."""
    found = []
    with context.service.state.lock:
        for selector in arg.unions("members"):
            value = selector.get(selector.tag)
            member = _find_member(context, selector.tag, value)
            if member is None:
                found.append(union("id_not_found", id_not_found=value))
            else:
                found.append(union("member_info", **_member(context, member)))
    return {"members_info": found} if context.route.endswith("_v2") else found


def _find_member(context: Context, kind: str, value: str) -> Account | None:
    accounts, team_id = context.service.accounts, _team(context).team_id
    if kind == "team_member_id":
        return accounts.by_member_id(team_id, value)
    account = accounts.by_email(value) if kind == "email" else None
    return account if account is not None and account.team_id == team_id else None


@registry.route("team/token/get_authenticated_admin")
def get_authenticated_admin(context: Context, arg: Arguments) -> Any:
    """Answer the admin who let the app in; the emulator takes the first one."""
    del arg
    with context.service.state.lock:
        members = context.service.accounts.members(_team(context).team_id)
        admin = next((member for member in members if member.role == "team_admin"), None)
        if admin is None:
            raise RouteError("mapping_not_found")
        if admin.status != "active":
            raise RouteError("admin_not_active")
        return {"admin_profile": _profile(context, admin)}


@registry.route("team/get_info")
def get_info(context: Context, arg: Arguments) -> Any:
    """Answer name, size and policies of the team."""
    del arg
    team = _team(context)
    with context.service.state.lock:
        number = len(context.service.accounts.members(team.team_id))
        full = team_of(context, team.team_id)
    return {
        "name": team.name,
        "team_id": team.team_id,
        "num_licensed_users": max(number, 3),
        "num_provisioned_users": number,
        "num_used_licenses": number,
        "policies": {
            "sharing": full["sharing_policies"],
            "emm_state": union("disabled"),
            "office_addin": full["office_addin_policy"],
            "suggest_members_policy": union("enabled"),
            "top_level_content_policy": full["top_level_content_policy"],
        },
    }


@registry.route("team/namespaces/list", "team/namespaces/list/continue")
def list_namespaces(context: Context, arg: Arguments) -> Any:
    """List every namespace of the team and its members."""
    service, team = context.service, _team(context)
    with service.state.lock:
        members = {account.account_id: account for account in service.accounts.members(team.team_id)}
        own = teams.owned_namespaces(service, team)
        living = (namespace for namespace in service.state.namespaces.values() if namespace.kind != DISSOLVED)
        known = [n for n in living if n in own or n.owner in members]
        return paging.answer(context, arg, "namespaces", known, lambda namespace: _namespace(namespace, members))


def _namespace(namespace: Namespace, members: dict[str, Account]) -> dict[str, Any]:
    member = members.get(namespace.owner or "")
    kind = NAMESPACE_TYPES.get(namespace.kind, namespace.kind)
    shown: dict[str, Any] = {"name": namespace.name, "namespace_id": namespace.id, "namespace_type": union(kind)}
    if member is not None and kind in ("app_folder", "team_member_folder"):
        shown["team_member_id"] = member.team_member_id
    return shown


@registry.route("team/team_folder/list", "team/team_folder/list/continue")
def list_team_folders(context: Context, arg: Arguments) -> Any:
    """List the team folders; the root of a team space counts as one."""
    with context.service.state.lock:
        folders = teams.owned_namespaces(context.service, _team(context))
        return paging.answer(context, arg, "team_folders", folders, _team_folder)


def _team_folder(namespace: Namespace) -> dict[str, Any]:
    return {
        "team_folder_id": namespace.id,
        "name": namespace.name,
        "status": union("active"),
        "is_team_shared_dropbox": namespace.kind == "team_root",
        "sync_setting": union("default"),
        "content_sync_settings": [],
    }
