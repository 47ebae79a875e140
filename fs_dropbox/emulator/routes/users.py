"""Who is asking and how much room is left: users/*, check/*."""

from __future__ import annotations

from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model.accounts import Account
from fs_dropbox.emulator.model.errors import RouteError, union
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.authorize import root_info
from fs_dropbox.emulator.web.context import Context

MAX_ACCOUNTS = 300  # in one call; the specification says so in words only


def name_of(account: Account) -> dict[str, str]:
    """Return users.Name."""
    return {
        "given_name": account.given_name,
        "surname": account.surname,
        "familiar_name": account.given_name,
        "display_name": account.display_name,
        "abbreviated_name": (account.given_name[:1] + account.surname[:1]).upper(),
    }


@registry.route("users/get_current_account")
def get_current_account(context: Context, arg: Arguments) -> Any:
    """Answer the account of the caller."""
    del arg
    account = context.user
    result = {
        "account_id": account.account_id,
        "name": name_of(account),
        "email": account.email,
        "email_verified": account.email_verified,
        "disabled": account.status != "active",
        "country": "DE",
        "locale": "en",
        "referral_link": f"https://www.dropbox.com/referrals/{account.account_id[5:21]}",
        "is_paired": False,
        "account_type": union(account.account_type),
        "root_info": root_info(account),
    }
    if account.team_id is not None:
        result["team"] = team_of(context, account.team_id)
        result["team_member_id"] = account.team_member_id
    return result


def team_of(context: Context, team_id: str) -> dict[str, Any]:
    """Return users.FullTeam."""
    team = context.service.accounts.teams[team_id]
    return {
        "id": team.team_id,
        "name": team.name,
        "sharing_policies": {
            "shared_folder_member_policy": union("anyone"),
            "shared_folder_join_policy": union("from_anyone"),
            "shared_link_create_policy": union("default_public"),
            "group_creation_policy": union("admins_and_members"),
            "shared_folder_link_restriction_policy": union("anyone"),
            "enforce_link_password_policy": union("optional"),
            "default_link_expiration_days_policy": union("none"),
            "shared_link_default_permissions_policy": union("default"),
        },
        "office_addin_policy": union("disabled"),
        "top_level_content_policy": union(team.extra.get("top_level_content_policy", "admin_only")),
    }


@registry.route("users/get_account")
def get_account(context: Context, arg: Arguments) -> Any:
    """Answer another account."""
    account = context.service.accounts.accounts.get(arg.get("account_id"))
    if account is None:
        raise RouteError("no_account")
    return _basic_account(context, account)


@registry.route("users/get_account_batch")
def get_account_batch(context: Context, arg: Arguments) -> Any:
    """Answer other accounts."""
    accounts = context.service.accounts.accounts
    result = []
    if len(arg.get("account_ids")) > MAX_ACCOUNTS:
        raise arg.error("account_ids", f"more than {MAX_ACCOUNTS} items")
    for account_id in arg.get("account_ids"):
        if account_id not in accounts:
            raise RouteError(union("no_account", no_account=account_id))
        result.append(_basic_account(context, accounts[account_id]))
    return result


def _basic_account(context: Context, account: Account) -> dict[str, Any]:
    mine = context.account is not None and account.account_id == context.account.account_id
    return {
        "account_id": account.account_id,
        "name": name_of(account),
        "email": account.email,
        "email_verified": account.email_verified,
        "disabled": account.status != "active",
        "is_teammate": mine or (context.user.team_id is not None and context.user.team_id == account.team_id),
    }


@registry.route("users/get_space_usage")
def get_space_usage(context: Context, arg: Arguments) -> Any:
    """Answer the bytes used and allocated."""
    del arg
    account, accounts = context.user, context.service.accounts
    with context.service.state.lock:
        used = accounts.used_bytes(account)
        if account.team_id is None:
            allocation = union("individual", allocated=account.allocated_bytes)
        else:
            team = accounts.teams[account.team_id]
            allocation = union(
                "team",
                used=accounts.used_bytes_of_team(team),
                allocated=team.allocated_bytes,
                user_within_team_space_allocated=0,
                user_within_team_space_limit_type=union("off"),
                user_within_team_space_used_cached=0,
            )
    return {"used": used, "allocation": allocation}


@registry.route("users/features/get_values")
def get_feature_values(context: Context, arg: Arguments) -> Any:
    """Answer which features the account has."""
    account = context.user
    team_space = account.home_namespace_id != account.root_namespace_id
    enabled = {
        "paper_as_files": True,
        "file_locking": account.team_id is not None,
        "team_shared_dropbox": team_space,
        "distinct_member_home": team_space,
    }
    tags = [feature.tag for feature in arg.unions("features")]
    if not tags:
        raise RouteError("empty_features_list")
    return {"values": [union(tag, **{tag: union("enabled", enabled=enabled[tag])}) for tag in tags]}


@registry.route("check/user", "check/app")
def check(context: Context, arg: Arguments) -> Any:
    """Echo."""
    del context
    return {"result": arg.get("query", "")}
