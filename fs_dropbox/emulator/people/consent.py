"""What a user's consent leads to: authorisation codes, and the grants that they are exchanged for. Knows no HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from fs_dropbox.emulator.model.accounts import Account, App, Grant
from fs_dropbox.emulator.service import Service

LOOPBACK = ("localhost", "127.0.0.1", "::1")
ACCESS_TYPES = ("offline", "online", "legacy")
MAX_STATE_BYTES = 500
CHALLENGE = re.compile(r"[A-Za-z0-9._~-]{43,128}")


class RefusedConsentError(Exception):
    """The request for consent is wrong; the page says why instead of asking."""


class InvalidGrantError(Exception):
    """The code is not good for a token."""


@dataclass(slots=True, frozen=True)
class Wish:
    """What an app asks a user for: the parameters of the authorisation page, checked."""

    app_key: str
    redirect_uri: str | None
    state: str | None
    access_type: str
    scopes: list[str]
    challenge: str | None
    challenge_method: str
    force_reapprove: bool


def read_wish(service: Service, parameters: Mapping[str, str]) -> Wish:
    """Check the parameters of the authorisation page, or raise RefusedConsentError."""
    app = service.accounts.apps.get(parameters.get("client_id", ""))
    if app is None:
        raise RefusedConsentError('Invalid client_id: "client_id" must be the key of an app.')
    if parameters.get("response_type") != "code":
        raise RefusedConsentError('Invalid response_type: this service supports "code".')
    redirect_uri = parameters.get("redirect_uri") or None
    if redirect_uri is not None and redirect_uri not in app.redirect_uris:
        raise RefusedConsentError(f'Invalid redirect_uri: "{redirect_uri}" must exactly match one pre-configured.')
    if len(parameters.get("state", "").encode()) > MAX_STATE_BYTES:
        raise RefusedConsentError(f"Invalid state: more than {MAX_STATE_BYTES} bytes.")
    access_type = parameters.get("token_access_type") or "legacy"
    if access_type not in ACCESS_TYPES:
        raise RefusedConsentError(f'Invalid token_access_type: "{access_type}".')
    scopes = parameters.get("scope", "").split() or list(app.scopes)
    unknown = [scope for scope in scopes if scope not in app.scopes]
    if unknown:
        raise RefusedConsentError(f'Invalid scope: this app is not configured for "{unknown[0]}".')
    challenge = parameters.get("code_challenge") or None
    method = parameters.get("code_challenge_method") or "plain"
    if challenge is not None and (method not in ("S256", "plain") or not CHALLENGE.fullmatch(challenge)):
        raise RefusedConsentError("Invalid code_challenge: 43 to 128 letters, digits, -._~, by S256 or plain.")
    return Wish(
        app_key=app.key,
        redirect_uri=redirect_uri,
        state=parameters.get("state"),
        access_type=access_type,
        scopes=scopes,
        challenge=challenge,
        challenge_method=method,
        force_reapprove=parameters.get("force_reapprove", "").lower() == "true",
    )


def checked_redirect_uris(redirect_uris: Iterable[str]) -> list[str]:
    """Return the addresses to which an app may send browsers, as its page in the App Console takes them.

    Raises ValueError for one that is neither https:// nor on the local host.
    """
    given = list(redirect_uris)
    for uri in given:
        parts = urlsplit(uri)
        schemes = ("https", "http") if parts.hostname in LOOPBACK else ("https",)
        if not parts.hostname or parts.scheme not in schemes:
            raise ValueError(f"{uri!r} cannot be a redirect URI: it must be https://, or http:// on the local host")
    return given


def is_approved(service: Service, wish: Wish, account: Account) -> bool:
    """Tell whether the account has allowed the app all of this before, so that nobody needs to be asked."""
    if wish.force_reapprove:
        return False
    return any(set(wish.scopes) <= set(grant.scopes) for grant in _grants(service, wish.app_key, account))


def _grants(service: Service, app_key: str, account: Account) -> list[Grant]:
    grants = service.accounts.grants.values()
    mine = (account.account_id, None) if not service.accounts.apps[app_key].is_team else (None, account.team_id)
    return [
        grant
        for grant in grants
        if grant.app_key == app_key and not grant.revoked and (grant.account_id, grant.team_id) == mine
    ]


def issue_code(service: Service, wish: Wish, account: Account, granted: str = "") -> str:
    """Return a code for what the account allows. Raises RefusedConsentError when it may not. Needs mutation().

    `granted` ("user" or "team") adds the scopes that the account has granted to the app before.
    """
    app = service.accounts.apps[wish.app_key]
    if app.is_team and (account.team_id is None or account.role != "team_admin"):
        raise RefusedConsentError("Only a team admin can connect this app to the team.")
    scopes = list(wish.scopes)
    if granted:
        for grant in _grants(service, app.key, account):
            scopes.extend(scope for scope in grant.scopes if scope not in scopes and scope in app.scopes)
    codes = service.state.collection("authorization_code")
    for old in [known for known, document in codes.items() if document["expires"] <= service.state.clock()]:
        del codes[old]
    code = secrets.token_urlsafe(32)
    expires = service.state.clock() + service.options.authorization_code_seconds
    codes[code] = {**asdict(wish), "scopes": scopes, "account_id": account.account_id, "expires": expires}
    return code


def needs_secret(service: Service, code: str) -> bool:
    """Tell whether a client must show the app's secret to exchange this code."""
    document = service.state.collection("authorization_code").get(code)
    return document is not None and document["challenge"] is None


def exchange_code(service: Service, form: Mapping[str, str], app: App) -> tuple[Grant, str]:
    """Use up a code: return the grant that it stands for and its access type, or raise InvalidGrantError."""
    codes = service.state.collection("authorization_code")
    document = codes.get(form.get("code", ""))
    if document is None or document["app_key"] != app.key or document["expires"] <= service.state.clock():
        raise InvalidGrantError("code doesn't exist or has expired")
    if document.get("used"):
        raise InvalidGrantError("code has already been used")
    if (form.get("redirect_uri") or None) != document["redirect_uri"]:
        raise InvalidGrantError("redirect_uri mismatch")
    if document["challenge"] is not None:
        _check_verifier(form.get("code_verifier", ""), document["challenge"], document["challenge_method"])
    codes[form["code"]] = {**document, "used": True}
    account = service.accounts.accounts[document["account_id"]]
    grant = service.accounts.add_grant(
        app,
        account=None if app.is_team else account,
        team=service.accounts.teams[str(account.team_id)] if app.is_team else None,
        scopes=document["scopes"],
        offline=document["access_type"] == "offline",
        pkce="client_secret" not in form,
    )
    return grant, str(document["access_type"])


def _check_verifier(verifier: str, challenge: str, method: str) -> None:
    if not CHALLENGE.fullmatch(verifier):
        raise InvalidGrantError("invalid code verifier")
    given = verifier
    if method == "S256":
        given = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    if not hmac.compare_digest(given, challenge):
        raise InvalidGrantError("invalid code verifier")
