"""`Credentials`, and the access token made from them: refreshed ahead of time, once for all. Knows no route."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fs_dropbox.errors import ApiError, AuthError, TransportError

# Tokens live for 4 hours; a request sent with this much left is over before its token is.
MARGIN_SECONDS: Final = 300.0
TOKEN_SECONDS: Final = 4 * 3600.0  # where the answer does not tell
ROUTE: Final = "oauth2/token"
MEMBER_ID: Final = "dbmid:"  # what the ids of team members begin with

# Sends a form to the token endpoint; returns status and JSON answer, raises ApiError (429) or TransportError.
PostForm = Callable[[Mapping[str, str]], tuple[int, dict[str, Any]]]


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What proves who we are: a refresh token of an app, or an access token.

    `member` is the e-mail address or id of the team member that a team's token acts as, `admin` that of the
    administrator; `email` the address that the account of the token must have. Raises ValueError for what cannot
    sign in. Its repr shows no secret.
    """

    app_key: str | None = None
    app_secret: str | None = None
    refresh_token: str | None = None
    access_token: str | None = None
    member: str | None = None
    email: str | None = None
    admin: str | None = None

    def __post_init__(self) -> None:
        if not (self.refresh_token or self.access_token):
            raise ValueError("a refresh token or an access token is needed")
        if self.refresh_token and not self.app_key:
            raise ValueError("a refresh token needs the app key of the app that it was made for")
        if self.member and self.admin:
            raise ValueError("a team's token acts as a member or as an administrator, not as both")
        # They travel in headers and forms; requests' own complaint would quote them.
        for name in ("app_key", "app_secret", "refresh_token", "access_token", "member", "admin"):
            value = getattr(self, name)
            if value and not (value.isascii() and value.isprintable() and " " not in value):
                raise ValueError(f"the {name.replace('_', ' ')} has characters that none can have")

    def __repr__(self) -> str:
        public = ("app_key", "member", "admin", "email")
        shown = [f"{name}={value!r}" for name in public if (value := getattr(self, name))]
        shown += [f"{name}=…" for name in ("app_secret", "refresh_token", "access_token") if getattr(self, name)]
        return f"Credentials({', '.join(shown)})"

    def fingerprint(self) -> str:
        """Return a value that is equal for equal credentials and tells nothing of them."""
        fields = (self.app_key, self.refresh_token or self.access_token, self.member or self.admin)
        return hashlib.sha256("\0".join(field or "" for field in fields).encode()).hexdigest()


class TokenSource:
    """Hands out the access token. Thread-safe.

    One lock, held during a refresh on purpose: whoever needs the new token waits for the one refresh.
    """

    def __init__(self, credentials: Credentials, post: PostForm, *, now: Callable[[], float] = time.monotonic) -> None:
        self._credentials = credentials
        self._post = post
        self._now = now
        self._lock = threading.Lock()
        # guarded by _lock; an access token that came without its age is used until Dropbox refuses it
        self._token = credentials.access_token
        self._expires_at = float("inf")

    def token(self) -> str:
        """Return a token that is good for minutes; raises AuthError, ApiError (429) or TransportError."""
        with self._lock:
            if self._token is None or (self._can_refresh and self._now() >= self._expires_at - MARGIN_SECONDS):
                self._refresh_locked()
            assert self._token is not None
            return self._token

    def renew(self, refused: str) -> bool:
        """Get a new token in place of one that has expired; False where there is none to get. Once for all who ask."""
        with self._lock:
            if self._token == refused:
                if not self._can_refresh:
                    return False
                self._refresh_locked()
            return True

    @property
    def _can_refresh(self) -> bool:
        return self._credentials.refresh_token is not None

    def _refresh_locked(self) -> None:
        credentials = self._credentials
        form = {
            "grant_type": "refresh_token",
            "refresh_token": credentials.refresh_token or "",
            "client_id": credentials.app_key or "",
        }
        if credentials.app_secret:
            form["client_secret"] = credentials.app_secret
        asked_at = self._now()
        status, answer = self._post(form)
        if status != 200:
            raise _refusal(status, answer)
        try:
            self._token, seconds = str(answer["access_token"]), float(answer.get("expires_in") or TOKEN_SECONDS)
        except (KeyError, ValueError, TypeError):
            raise TransportError("protocol", route=ROUTE, was_sent=False) from None
        # A token that lives no longer than the margin is used for half of its life.
        self._expires_at = asked_at + max(seconds, seconds / 2 + MARGIN_SECONDS)


def _refusal(status: int, answer: Mapping[str, Any]) -> ApiError:
    problem = answer.get("error")
    message = str(answer.get("error_description") or "")
    if problem == "invalid_grant":
        return AuthError(ROUTE, ("invalid_access_token",), message=message, status=status)
    if str(problem).partition(":")[0] in ("invalid_client", "unauthorized_client"):
        return AuthError(ROUTE, ("invalid_client",), message=message, status=status)
    return AuthError(ROUTE, ("bad_request",), message=message or str(problem or ""), status=status)
