"""Teams: their two layouts, members who join and leave, team folders. Knows no HTTP. Needs State.mutation().

A team space has a root namespace in which the members' homes are folders; in the legacy layout every home is a root
of its own, and team folders are mounted in it.
"""

from __future__ import annotations

import secrets

from fs_dropbox.emulator.model.accounts import Account, Team
from fs_dropbox.emulator.model.tree import Namespace
from fs_dropbox.emulator.people.mounting import DISSOLVED, free_name, mount_at_home, set_access
from fs_dropbox.emulator.service import Service


def add_team(service: Service, name: str, *, team_space: bool, top_level_content_policy: str) -> Team:
    """Found a team without members. The policy (admin_only, everyone) is about the top level of a team space."""
    team = Team("dbtid:" + secrets.token_urlsafe(40)[:34], name)
    team.extra["top_level_content_policy"] = top_level_content_policy
    if team_space:
        root = service.state.add_namespace("team_root", name, None)
        _give_to_team(service, root, team)
        team.root_namespace_id = root.id
    service.accounts.teams[team.team_id] = team
    service.accounts.store(team)
    return team


def _give_to_team(service: Service, namespace: Namespace, team: Team) -> None:
    namespace.extra["team_id"] = team.team_id
    service.state.store_namespace(namespace)


def join(service: Service, team: Team, account: Account, role: str) -> None:
    """Make an account a member of a team, "team_admin" or "member_only"; its content comes with it."""
    account.team_id = team.team_id
    account.team_member_id = "dbmid:" + secrets.token_urlsafe(40)[:34]
    account.role = role
    account.account_type = "business"
    state = service.state
    if team.root_namespace_id is not None:
        root, home = state.namespaces[team.root_namespace_id], state.namespaces[account.home_namespace_id]
        set_access(state, root, account, _root_access(team, role))
        mount = state.mount(home, root.root, free_name(root.root, account.given_name))
        account.root_namespace_id = root.id
        account.home_path = "/" + mount.name
    service.accounts.store(account)
    for folder in team_folders(service, team):
        default = "editor" if role == "team_admin" else folder.extra.get("default_access")
        if default is not None:
            _let_in(service, team, folder, account, default)


def _root_access(team: Team, role: str) -> str:
    everyone = team.extra.get("top_level_content_policy") == "everyone"
    return "editor" if everyone or role == "team_admin" else "viewer"


def leave(service: Service, account: Account) -> None:
    """Take an account out of its team; its home becomes its own root again, team content is gone from it."""
    assert account.team_id is not None
    state, team = service.state, service.accounts.teams[account.team_id]
    for namespace in owned_namespaces(service, team):
        if account.account_id in namespace.members:
            set_access(state, namespace, account, None)
    if team.root_namespace_id is not None:
        home = state.namespaces[account.home_namespace_id]
        for mount in [mount for mount in home.mounts if mount.namespace.id == team.root_namespace_id]:
            state.remove(mount)
    account.team_id = account.team_member_id = account.home_path = None
    account.root_namespace_id = account.home_namespace_id
    account.role = "member_only"
    account.account_type = "pro"
    service.accounts.store(account)


def owned_namespaces(service: Service, team: Team) -> list[Namespace]:
    """Return the team's own namespaces: its root and its team folders."""
    namespaces = service.state.namespaces.values()
    return [n for n in namespaces if n.extra.get("team_id") == team.team_id and n.kind != DISSOLVED]


def team_folders(service: Service, team: Team) -> list[Namespace]:
    """Return the team folders."""
    return [namespace for namespace in owned_namespaces(service, team) if namespace.kind == "team_folder"]


def add_team_folder(service: Service, team: Team, name: str, access: dict[str, str], default: str | None) -> Namespace:
    """Make a team folder. `access` is by account id; other members have the default, admins may always write."""
    state = service.state
    namespace = state.add_namespace("team_folder", name, None)
    if default is not None:
        namespace.extra["default_access"] = default
    _give_to_team(service, namespace, team)
    if team.root_namespace_id is not None:
        root = state.namespaces[team.root_namespace_id].root
        state.mount(namespace, root, free_name(root, name))
    for account in service.accounts.members(team.team_id):
        level = "editor" if account.role == "team_admin" else access.get(account.account_id, default)
        if level is not None:
            _let_in(service, team, namespace, account, level)
    return namespace


def _let_in(service: Service, team: Team, namespace: Namespace, account: Account, access: str) -> None:
    set_access(service.state, namespace, account, access)
    if team.root_namespace_id is None:
        mount_at_home(service, namespace, account)


def reaches(service: Service, team: Team, namespace: Namespace, mode: str | None) -> bool:
    """Tell whether Select-Admin lets a team admin into a namespace: mode team_admin for what belongs to the team,
    whole_team for the members' content, too."""
    if namespace.extra.get("team_id") == team.team_id:
        return mode is not None
    owner = service.accounts.accounts.get(namespace.owner or "")
    return mode == "whole_team" and owner is not None and owner.team_id == team.team_id
