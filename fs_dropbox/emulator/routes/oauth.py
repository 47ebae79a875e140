"""The token endpoint and the end of tokens."""

from __future__ import annotations

import hmac
import json
import zlib
from typing import Any
from urllib.parse import parse_qsl

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.http import Request, Response
from fs_dropbox.emulator.model.accounts import App, Grant
from fs_dropbox.emulator.model.errors import PlainError
from fs_dropbox.emulator.people.consent import InvalidGrantError, exchange_code, needs_secret
from fs_dropbox.emulator.service import Service
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.authorize import read_basic
from fs_dropbox.emulator.web.context import Context

MAX_FORM_BYTES = 1 << 16
# The service really answers JSON under this type.
TOKEN_TYPE = "text/javascript"


def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form, and what the URL adds to them, or raise ValueError."""
    return {**request.query, **dict(parse_qsl(request.read(MAX_FORM_BYTES).decode(), keep_blank_values=True))}


def token_error(error: str, description: str) -> PlainError:
    """Return the failure of a token request."""
    text = json.dumps({"error": error, "error_description": description})
    return PlainError(400, text, "application/json")


@registry.page("POST", "/oauth2/token")
def token(service: Service, request: Request) -> Response:
    """Answer a token request by its grant type."""
    try:
        form = read_form(request)
    except ValueError:
        raise token_error("invalid_request", "cannot read the form") from None
    _add_basic(request, form)
    with service.state.mutation():
        grant_type = form.get("grant_type")
        if grant_type == "refresh_token":
            return _answer(refresh(service, form))
        if grant_type == "authorization_code":
            return _answer(exchange(service, form))
        raise token_error("unsupported_grant_type", f'grant type "{grant_type}" is not supported')


def _add_basic(request: Request, form: dict[str, str]) -> None:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            key, secret = read_basic(value)
        except ValueError:
            raise token_error("invalid_client", "cannot read the authorization header") from None
        form.setdefault("client_id", key)
        form.setdefault("client_secret", secret)


def find_app(service: Service, form: dict[str, str], *, needs_secret: bool) -> App:
    """Return the app of a token request after checking its secret."""
    app = service.accounts.apps.get(form.get("client_id", ""))
    if app is None:
        raise token_error("invalid_client", "Invalid client_id or client_secret")
    secret = form.get("client_secret")
    is_right = secret is not None and hmac.compare_digest(secret.encode(), app.secret.encode())
    if not is_right and (needs_secret or secret is not None):
        raise token_error("invalid_client", "Invalid client_id or client_secret")
    return app


def refresh(service: Service, form: dict[str, str]) -> dict[str, Any]:
    """Issue an access token for a refresh token; it is neither rotated nor does it expire."""
    grant = service.accounts.grant_of(form.get("refresh_token", ""))
    app = find_app(service, form, needs_secret=grant is not None and not grant.pkce)
    if grant is None or grant.app_key != app.key:
        raise token_error("invalid_grant", "refresh token is invalid or revoked")
    scopes = form["scope"].split() if form.get("scope") else list(grant.scopes)
    if not set(scopes) <= set(grant.scopes):
        raise token_error("invalid_scope", "the grant does not have all of these scopes")
    fields = token_fields(service, grant, scopes)
    return {**fields, "scope": " ".join(scopes)} if form.get("scope") else fields


def exchange(service: Service, form: dict[str, str]) -> dict[str, Any]:
    """Issue tokens for an authorisation code, which works once."""
    app = find_app(service, form, needs_secret=needs_secret(service, form.get("code", "")))
    try:
        grant, access_type = exchange_code(service, form, app)
    except InvalidGrantError as error:
        raise token_error("invalid_grant", str(error)) from error
    lasting = access_type == "legacy" and not service.options.legacy_tokens_expire
    fields = token_fields(service, grant, list(grant.scopes), expires=not lasting)
    if grant.refresh_token is not None:
        fields["refresh_token"] = grant.refresh_token
    fields["scope"] = " ".join(grant.scopes)
    if grant.team_id is not None:
        return {**fields, "uid": "", "team_id": grant.team_id}
    return {**fields, "uid": uid_of(str(grant.account_id)), "account_id": grant.account_id}


def uid_of(account_id: str) -> str:
    """Return the number that the first API knew an account by."""
    return str(zlib.crc32(account_id.encode()))


def token_fields(service: Service, grant: Grant, scopes: list[str], *, expires: bool = True) -> dict[str, Any]:
    """Issue an access token and return what every token answer says about it."""
    issued = service.accounts.add_token(grant, scopes, expires=expires)
    fields: dict[str, Any] = {"access_token": issued.token, "token_type": "bearer"}
    if expires:
        fields["expires_in"] = service.options.access_token_seconds
    return fields


def _answer(fields: dict[str, Any]) -> Response:
    return Response(200, {"Content-Type": TOKEN_TYPE, "Cache-Control": "no-cache"}, json.dumps(fields).encode())


@registry.route("auth/token/revoke")
def revoke(context: Context, arg: Arguments) -> Any:
    """End the caller's grant: its refresh token and all its access tokens."""
    del arg
    assert context.grant is not None
    with context.mutation():
        context.service.accounts.revoke(context.grant)
