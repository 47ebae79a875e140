"""The way from an app key to a refresh token through Dropbox's consent page. Knows no terminal and no browser."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from fs_dropbox.api.auth import ROUTE, Credentials
from fs_dropbox.api.client import Account, Client
from fs_dropbox.api.retry import SystemClock, Waiter, opening_policy
from fs_dropbox.api.routes import Route
from fs_dropbox.api.transport import Transport
from fs_dropbox.errors import ApiError, reason

CONSOLE_URL: Final = "https://www.dropbox.com/developers/apps"
TIMEOUT_SECONDS: Final = 30.0

# What the product cannot do without, what only some commands need, and what for.
READ_SCOPES: Final[dict[str, str]] = {
    "account_info.read": "to know whose account it is",
    "files.metadata.read": "to list folders",
    "files.content.read": "to download",
}
NEEDED_SCOPES: Final[dict[str, str]] = READ_SCOPES | {"files.content.write": "to upload, move, copy and remove"}
OPTIONAL_SCOPES: Final[dict[str, str]] = {
    "sharing.read": "to find shared links and folders",
    "sharing.write": "to make shared links",
}
TEAM_SCOPES: Final[dict[str, str]] = {
    "members.read": "to find members by their address",
    "team_data.member": "to act as a member",
}

# The longest authorization code seen has 44 characters, the shortest refresh token 64; keys and secrets have 15.
_LONGEST_CODE: Final = 50
_LONGEST_KEY: Final = 32


class LoginError(Exception):
    """The login cannot go on; the text is for people, and shows no secret."""


@dataclass(frozen=True, slots=True, repr=False)
class Grant:
    """What Dropbox gave for the consent."""

    credentials: Credentials
    scopes: frozenset[str] = field(default_factory=frozenset)
    """Empty where Dropbox does not tell."""
    is_team: bool = False


class Login:
    """One login of one app. Owns its HTTP pool: close it. Not thread-safe."""

    def __init__(self, app_key: str, app_secret: str | None = None, *, scopes: Collection[str] = ()) -> None:
        """Set up; nothing is sent yet.

        Args:
            app_secret: None for PKCE, which needs no secret.
            scopes: ask for these only; by default for all that the app has.
        """
        self.app_key = app_key
        self.app_secret = app_secret or None
        self.state = secrets.token_urlsafe(24)
        self._scopes = scopes
        self._verifier = None if self.app_secret else secrets.token_urlsafe(64)
        self._transport = Transport(api_host=None, ca_certs=None)

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._transport.close()

    def __enter__(self) -> Login:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_app(self) -> None:
        """Raise `LoginError` when Dropbox refuses the app key and secret; without a secret nothing can be checked."""
        if self.app_secret is None or self._is_app(self.app_key, self.app_secret):
            return
        if self._is_app(self.app_secret, self.app_key):
            raise LoginError("the app key and the app secret are swapped")
        raise LoginError(f"Dropbox does not know an app with this key and secret: compare them with {CONSOLE_URL}")

    def _is_app(self, key: str, secret: str) -> bool:
        pair = base64.b64encode(f"{key}:{secret}".encode()).decode()
        try:
            self._transport.exchange(
                Route("check/app"),
                argument=json.dumps({"query": "fs-dropbox"}),
                headers={"Authorization": f"Basic {pair}"},
                waiter=Waiter(SystemClock()),
                data=None,
                seconds=TIMEOUT_SECONDS,
            )
        except ApiError as error:
            if error.status in (400, 401):
                return False
            raise
        return True

    def consent_url(self, redirect_uri: str | None = None) -> str:
        """Return the address of the page to open; without a redirect it ends by showing a code to copy."""
        query = {"response_type": "code", "client_id": self.app_key, "token_access_type": "offline"}
        if redirect_uri is not None:
            query |= {"redirect_uri": redirect_uri, "state": self.state}
        if self._scopes:
            query["scope"] = " ".join(self._scopes)
        if self._verifier is not None:
            digest = hashlib.sha256(self._verifier.encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            query |= {"code_challenge": challenge, "code_challenge_method": "S256"}
        return f"https://{_web_host()}/oauth2/authorize?{urlencode(query)}"

    def exchange(self, code: str, redirect_uri: str | None = None) -> Grant:
        """Return what Dropbox gives for an authorization code.

        Raises:
            LoginError: the code, the key or the secret is refused.
            TransportError: Dropbox cannot be reached.
        """
        form = {"grant_type": "authorization_code", "code": code, "client_id": self.app_key}
        if redirect_uri is not None:
            form["redirect_uri"] = redirect_uri
        answer = self._ask(form)
        token = answer.get("refresh_token")
        if not isinstance(token, str) or not token:
            raise LoginError("Dropbox gave no refresh token, though offline access was asked for: try again")
        return Grant(
            Credentials(app_key=self.app_key, app_secret=self.app_secret, refresh_token=token),
            frozenset(str(answer.get("scope", "")).split()),
            is_team="team_id" in answer,
        )

    def adopt(self, refresh_token: str) -> Grant:
        """Return the grant behind a refresh token that someone has already; raises as exchange() does."""
        self._ask({"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": self.app_key})
        return Grant(Credentials(app_key=self.app_key, app_secret=self.app_secret, refresh_token=refresh_token))

    def _ask(self, form: dict[str, str]) -> dict[str, Any]:
        if self.app_secret is not None:
            form["client_secret"] = self.app_secret
        elif self._verifier is not None and "code" in form:
            form["code_verifier"] = self._verifier
        status, answer = self._transport.post_form(ROUTE, form, Waiter(SystemClock()), TIMEOUT_SECONDS)
        if status == 200:
            return answer
        # Seen as "invalid_client: Invalid client_id or client_secret" too.
        problem = str(answer.get("error", "")).partition(":")[0]
        said = str(answer.get("error_description") or answer.get("error") or f"status {status}")
        if problem in ("invalid_client", "unauthorized_client"):
            self.check_app()
            hint = (
                "" if self.app_secret else "; if the app has a secret and the token was made with it, give the secret"
            )
            raise LoginError(f"Dropbox does not know this app key: compare it with {CONSOLE_URL}{hint}")
        if problem == "invalid_grant" and "code" in form:
            raise LoginError(
                f"Dropbox refuses the code ({said}): each code works once and for some minutes only, and for the app "
                "key that it was made for; run the command again and use the new code at once"
            )
        if problem == "invalid_grant":
            raise LoginError(_refused_token(form["refresh_token"]))
        raise LoginError(f"Dropbox refuses: {said}")


def _refused_token(token: str) -> str:
    if len(token) <= _LONGEST_CODE:
        return (
            "this looks like an authorization code, not a refresh token: the consent page shows codes, and "
            "fs-dropbox login (without --token) turns one into a refresh token"
        )
    return (
        "Dropbox does not accept this refresh token: it was revoked, or made for another app key, or is an old "
        "long-lived access token; fs-dropbox login (without --token) makes a new one"
    )


def verify(credentials: Credentials, *, root: str = "auto") -> Account:
    """Return whose account the credentials open; raises `LoginError` or TransportError."""
    try:
        client = Client(credentials, root=root, timeout_seconds=TIMEOUT_SECONDS, policy=opening_policy())
        try:
            return client.account()
        finally:
            client.close()
    except ApiError as error:
        raise LoginError(f"Dropbox does not let these credentials in: {reason(error)}") from error
    except ValueError as error:
        raise LoginError(str(error)) from error


def missing_scopes(needed: Mapping[str, str], granted: Collection[str]) -> str:
    """Return what to tell about the permissions that are not granted, "" when none is missing."""
    missing = [f"{scope} ({purpose})" for scope, purpose in needed.items() if scope not in granted]
    if not missing:
        return ""
    return (
        f"the app lacks the permission{'s' * (len(missing) > 1)} {', '.join(missing)}: enable in the App Console "
        f"({CONSOLE_URL}, the app's Permissions tab, then Submit), then log in again: permissions count for new logins"
    )


def fs_url(credentials: Credentials, *, root: str = "auto") -> str:
    """Return the FS URL of credentials with a refresh token."""
    query = "" if root == "auto" else f"?root={quote(root, safe='')}"
    user = quote(sftp_user(credentials), safe="~")
    return f"dropbox://{user}:{quote(credentials.refresh_token or '', safe='')}@/{query}"


def sftp_user(credentials: Credentials) -> str:
    """Return the user name of the credential convention; the password is the refresh token."""
    member = f"~{credentials.member}" if credentials.member else ""
    return f"{credentials.app_key}~{credentials.app_secret or ''}{member}"


def key_problem(text: str, what: str = "app key") -> str | None:
    """Return why this cannot be an app key (or secret), None when it may be one."""
    if text.startswith("sl."):
        return f"this is an access token, not the {what}: the app's Settings tab shows the {what}"
    if "~" in text:
        return f"this is more than the {what}: give the part before the ~ as the key, the part after it as the secret"
    if "@" in text:
        return f"this is an e-mail address, not the {what}: the app's Settings tab in the App Console shows it"
    if not re.fullmatch(r"[A-Za-z0-9]+", text):
        return f"an {what} has letters and digits only: the app's Settings tab in the App Console shows it"
    if len(text) > _LONGEST_KEY:
        return f"this is too long for an {what}, and may be a token: the app's Settings tab shows the {what}"
    return None


def code_problem(text: str, login: Login) -> str | None:
    """Return why this cannot be the code that the consent page shows, None when it may be."""
    if text.startswith("sl."):
        return (
            "this is an access token, which expires in four hours: the consent page shows a code that does not begin "
            "with sl."
        )
    own = "this is the app's key or secret, not the code that the consent page shows"
    return _mix_up(text, login, own, "this is no code: copy what the consent page shows at its end, and nothing else")


def token_problem(text: str, login: Login) -> str | None:
    """Return why this cannot be a refresh token, None when it may be one."""
    if text.startswith("sl."):
        return (
            "this is an access token (it begins with sl.), which expires in four hours; the App Console makes those: "
            "fs-dropbox login (without --token) gets a refresh token, which lasts"
        )
    own = "this is the app's key or secret, not a refresh token"
    return _mix_up(text, login, own, "this is no refresh token: it has letters, digits, - and _ only")


def _mix_up(text: str, login: Login, own: str, other: str) -> str | None:
    """Return `own` for the app's own key or secret, `other` for what no code and no token looks like."""
    if text in (login.app_key, login.app_secret):
        return own
    return None if re.fullmatch(r"[\w.~+/=-]+", text) else other


def code_in(text: str, login: Login) -> str:
    """Return the code in what was pasted: the code itself, or the address of the page to which Dropbox sent the
    browser, whose state must then be right."""
    text = text.strip().strip("\"'")
    if not text.startswith(("http://", "https://")):
        return text
    query = {name: values[-1] for name, values in parse_qs(urlsplit(text).query).items()}
    if "code" not in query:
        raise LoginError("this address holds no code: paste the code that the consent page shows at its end")
    if not secrets.compare_digest(query.get("state", login.state).encode(), login.state.encode()):
        raise LoginError("this address belongs to another login: run the command again")
    return query["code"]


def _web_host() -> str:
    """Return the host of the consent page, by the SDK's variables."""
    domain = os.environ.get("DROPBOX_WEB_DOMAIN", os.environ.get("DROPBOX_DOMAIN", ".dropbox.com"))
    return os.environ.get("DROPBOX_WEB_HOST", f"www{domain}")
