"""Decides who calls: bearer token or app key, scope, selected member or admin, app folder rules, path root."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

from fs_dropbox.emulator.model.accounts import Account, App
from fs_dropbox.emulator.model.errors import AuthError, BadRequestError, PathRootError, union
from fs_dropbox.emulator.model.tree import Namespace
from fs_dropbox.emulator.people.access import check_access
from fs_dropbox.emulator.people.teams import reaches
from fs_dropbox.emulator.web.context import Context

MISSING_AUTHORIZATION = 'Must provide HTTP header "Authorization" or URL parameter "authorization".'
SELECT_NEEDED = (
    "This API function operates on a single Dropbox account, but the OAuth 2 access token you provided is for an "
    "entire Dropbox Business team. Since your API app key has team member file access permissions, you can operate on "
    'a team member\'s Dropbox by providing the "Dropbox-API-Select-User" HTTP header or "select_user" URL parameter to '
    "specify the exact user <https://www.dropbox.com/developers/documentation/http/teams>."
)
TEAM_TOKEN_NEEDED = (
    "This API function is a DfB team management function. The provided OAuth 2 access token is for a single account."
)

MEMBER_SCOPE = "team_data.member"  # what a team token needs to act for somebody


def authorize(context: Context) -> None:
    """Fill in who calls, or raise BadRequestError, AuthError or PathRootError. Needs State.lock."""
    accepted = context.attributes.auth
    header = context.request.headers.get("authorization") or context.request.query.get("authorization")
    if "noauth" in accepted:
        if header is not None:
            raise BadRequestError('Unexpected HTTP header "Authorization": this function takes none.')
        return
    if header is None:
        raise BadRequestError(MISSING_AUTHORIZATION)
    kind, _, value = header.partition(" ")
    if kind.lower() == "basic" and "app" in accepted:
        context.app = _app(context, value.strip())
        return
    if kind.lower() != "bearer" or accepted == {"app"}:
        expected = "Basic" if accepted == {"app"} else "Bearer"
        raise BadRequestError(f'Invalid authorization value in HTTP header "Authorization": expecting "{expected} …".')
    token, grant, app = context.service.accounts.check_token(value.strip())
    context.app, context.grant, context.scopes = app, grant, tuple(token.scopes)
    _check_app(context, app)
    _select(context)
    team_id = context.account.team_id if context.account is not None else grant.team_id
    team = context.service.accounts.teams.get(team_id or "")
    check_access(context.route, context.account, team.extra.get("denials", []) if team is not None else [])
    context.path_root = _path_root(context)


def read_basic(encoded: str) -> tuple[str, str]:
    """Return the key and the secret of an app in an Authorization header, or raise ValueError."""
    key, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    return key, secret


def _app(context: Context, encoded: str) -> App:
    try:
        key, secret = read_basic(encoded)
    except ValueError:
        raise BadRequestError('Invalid authorization value in HTTP header "Authorization".') from None
    app = context.service.accounts.apps.get(key)
    if app is None or not hmac.compare_digest(app.secret.encode(), secret.encode()):
        raise BadRequestError('Invalid app key or secret in HTTP header "Authorization".')
    return app


def _check_app(context: Context, app: App) -> None:
    attributes = context.attributes
    if app.app_folder and not attributes.app_folder:
        raise BadRequestError("Your API app is not allowed to call this function.")
    if attributes.scope is None or attributes.scope in context.scopes:
        return
    if attributes.scope not in app.scopes:
        raise BadRequestError(
            f"Your app (ID: {app.key}) is not permitted to access this endpoint because it does not have the required "
            f"scope '{attributes.scope}'. The owner of the app can enable the scope for the app using the Permissions "
            "tab on the App Console."
        )
    raise AuthError(union("missing_scope", required_scope=attributes.scope))


def _select(context: Context) -> None:
    grant, accounts, headers = context.grant, context.service.accounts, context.request.headers
    assert grant is not None
    wants_team = "user" not in context.attributes.auth
    if grant.team_id is None:
        if wants_team:
            raise BadRequestError(TEAM_TOKEN_NEEDED)
        context.account = accounts.accounts[str(grant.account_id)]
        _check_active(context.account)
        return
    context.team = accounts.teams[grant.team_id]
    if wants_team:
        return
    if MEMBER_SCOPE not in context.scopes:
        raise AuthError(union("missing_scope", required_scope=MEMBER_SCOPE))
    user = headers.get("dropbox-api-select-user") or context.request.query.get("select_user")
    admin = headers.get("dropbox-api-select-admin") or context.request.query.get("select_admin")
    if user is not None:
        context.account = accounts.by_member_id(grant.team_id, user)
        if context.account is None:
            raise AuthError(union("invalid_select_user"))
        _check_active(context.account)
    elif admin is not None:
        context.account = context.admin = accounts.by_member_id(grant.team_id, admin)
        if context.admin is None or context.admin.role != "team_admin" or context.attributes.select_admin is None:
            raise AuthError(union("invalid_select_admin"))
    else:
        raise BadRequestError(SELECT_NEEDED)


def _check_active(account: Account) -> None:
    if account.status == "suspended":
        raise AuthError(union("user_suspended"))


def _path_root(context: Context) -> Namespace | None:
    header = context.request.headers.get("dropbox-api-path-root")
    if header is None or context.account is None:
        return None
    try:
        root: dict[str, Any] = json.loads(header)
        tag = root[".tag"]
    except (ValueError, KeyError, TypeError):
        raise BadRequestError('Invalid HTTP header "Dropbox-API-Path-Root": could not decode input as JSON') from None
    state, account = context.service.state, context.account
    if tag == "home":
        return None
    if tag == "root":
        if root.get("root") != account.root_namespace_id:
            raise PathRootError(union("invalid_root", invalid_root=root_info(account)))
        return _app_root(context, account.root_namespace_id)
    if tag == "namespace_id":
        namespace = state.namespaces.get(str(root.get("namespace_id")))
        if namespace is None or not (account.account_id in namespace.members or _reaches(context, namespace)):
            raise PathRootError(union("no_permission"))
        return _app_root(context, namespace.id)
    raise BadRequestError(f'Invalid HTTP header "Dropbox-API-Path-Root": unknown tag "{tag}"')


def _reaches(context: Context, namespace: Namespace) -> bool:
    if context.admin is None or context.team is None:
        return False
    return reaches(context.service, context.team, namespace, context.attributes.select_admin)


def _app_root(context: Context, namespace_id: str) -> Namespace | None:
    """An app with an app folder never leaves it: naming its user's own root changes nothing."""
    assert context.app is not None
    assert context.account is not None
    if context.app.app_folder:
        if namespace_id not in (context.account.root_namespace_id, context.account.home_namespace_id):
            raise PathRootError(union("no_permission"))
        return None
    return context.service.state.namespaces[namespace_id]


def root_info(account: Account) -> dict[str, Any]:
    """Return common.RootInfo."""
    is_team = account.home_namespace_id != account.root_namespace_id
    info = {
        ".tag": "team" if is_team else "user",
        "root_namespace_id": account.root_namespace_id,
        "home_namespace_id": account.home_namespace_id,
    }
    if account.home_path is not None:
        info["home_path"] = account.home_path
    return info
