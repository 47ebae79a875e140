"""Who there is: accounts, teams, apps, grants and their access tokens. Knows no tree beyond namespace ids, no HTTP."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from fs_dropbox.emulator.model.errors import AuthError, union
from fs_dropbox.emulator.model.state import State
from fs_dropbox.emulator.model.storage import Storage
from fs_dropbox.emulator.model.times import format_time

DEFAULT_ALLOCATED_BYTES = 2 * 10**12
BASIC_SCOPES = (
    "account_info.read",
    "account_info.write",
    "files.metadata.read",
    "files.metadata.write",
    "files.content.read",
    "files.content.write",
    "sharing.read",
    "sharing.write",
    "file_requests.read",
    "file_requests.write",
    "contacts.read",
    "contacts.write",
)


class Stored:
    """A record that is stored as a document; `kind` names its table, `key_field` what it is found by there."""

    kind: ClassVar[str]
    key_field: ClassVar[str]

    def document(self) -> dict[str, Any]:
        """Return what is stored."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]


@dataclass(slots=True)
class Account(Stored):
    """A person with a Dropbox."""

    kind, key_field = "account", "account_id"

    account_id: str
    email: str
    given_name: str
    surname: str
    home_namespace_id: str
    root_namespace_id: str  # differs from the home in a team space
    home_path: str | None = None  # the folder of the home in a team space
    account_type: str = "pro"  # basic, pro, business
    allocated_bytes: int = DEFAULT_ALLOCATED_BYTES
    team_id: str | None = None
    team_member_id: str | None = None
    role: str = "member_only"  # team_admin, member_only
    email_verified: bool = True
    status: str = "active"  # active, suspended
    joined: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def display_name(self) -> str:
        """The full name."""
        return f"{self.given_name} {self.surname}"


@dataclass(slots=True)
class Team(Stored):
    """A Dropbox Business team; `root_namespace_id` is set when it has a team space."""

    kind, key_field = "team", "team_id"

    team_id: str
    name: str
    root_namespace_id: str | None = None
    allocated_bytes: int = 10 * 10**12
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class App(Stored):
    """An app of the App Console. Without a secret known to it, a client must use PKCE."""

    kind, key_field = "app", "key"

    key: str
    secret: str
    name: str
    scopes: list[str]
    app_folder: bool = False
    is_team: bool = False
    redirect_uris: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Grant(Stored):
    """What a user or a team admin allowed an app: behind one refresh token, or behind one online token."""

    kind, key_field = "grant", "grant_id"

    grant_id: str
    app_key: str
    scopes: list[str]
    account_id: str | None = None
    team_id: str | None = None
    refresh_token: str | None = None
    pkce: bool = False  # refreshes without the secret
    revoked: bool = False


@dataclass(slots=True)
class AccessToken(Stored):
    """A bearer token; `expires_at` is None for the long-lived ones of former years."""

    kind, key_field = "token", "token"

    token: str
    grant_id: str
    scopes: list[str]
    expires_at: float | None


class Accounts:
    """The tables of the above. Guarded by the State's lock; changes belong inside State.mutation()."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._storage: Storage = state.storage
        self.accounts: dict[str, Account] = {k: Account(**d) for k, d in self._storage.load("account")}
        self.teams: dict[str, Team] = {k: Team(**d) for k, d in self._storage.load("team")}
        self.apps: dict[str, App] = {k: App(**d) for k, d in self._storage.load("app")}
        self.grants: dict[str, Grant] = {k: Grant(**d) for k, d in self._storage.load("grant")}
        self.tokens: dict[str, AccessToken] = {k: AccessToken(**d) for k, d in self._storage.load("token")}
        self._by_refresh_token = {g.refresh_token: g for g in self.grants.values() if g.refresh_token}

    def add_account(self, email: str, given_name: str, surname: str, **fields: Any) -> Account:
        """Create an account with an empty home namespace."""
        account_id = "dbid:" + secrets.token_urlsafe(40)[:35]
        home = self._state.add_namespace("home", given_name, account_id)
        account = Account(account_id, email, given_name, surname, home.id, fields.pop("root_namespace_id", home.id))
        account.joined = format_time(self._state.clock())
        for name, value in fields.items():
            setattr(account, name, value)
        self.accounts[account_id] = account
        self.store(account)
        return account

    def add_app(self, name: str, *, key: str | None = None, secret: str | None = None, **fields: Any) -> App:
        """Register an app."""
        scopes = list(fields.pop("scopes", BASIC_SCOPES))
        app = App(key or secrets.token_hex(8)[:15], secret or secrets.token_hex(8)[:15], name, scopes, **fields)
        self.apps[app.key] = app
        self.store(app)
        return app

    def add_grant(self, app: App, *, account: Account | None = None, team: Team | None = None, **fields: Any) -> Grant:
        """Let an app act for an account or a team, offline unless `offline=False`."""
        offline = fields.pop("offline", True)
        refresh_token = fields.pop("refresh_token", None) or secrets.token_urlsafe(48)
        grant = Grant(
            grant_id=secrets.token_hex(12),
            app_key=app.key,
            scopes=list(fields.pop("scopes", app.scopes)),
            account_id=account.account_id if account is not None else None,
            team_id=team.team_id if team is not None else None,
            refresh_token=refresh_token if offline else None,
            **fields,
        )
        self.grants[grant.grant_id] = grant
        if grant.refresh_token is not None:
            self._by_refresh_token[grant.refresh_token] = grant
        self.store(grant)
        return grant

    def add_token(self, grant: Grant, scopes: list[str] | None = None, *, expires: bool = True) -> AccessToken:
        """Issue an access token; `scopes` may narrow the grant."""
        life = self._state.options.access_token_seconds
        expires_at = self._state.clock() + life if expires else None
        token = AccessToken("sl." + secrets.token_urlsafe(96), grant.grant_id, scopes or list(grant.scopes), expires_at)
        for old in [t for t, known in self.tokens.items() if self._is_long_gone(known)]:
            del self.tokens[old]
            self._storage.delete("token", old)
        self.tokens[token.token] = token
        self.store(token)
        return token

    def _is_long_gone(self, token: AccessToken) -> bool:
        return token.expires_at is not None and token.expires_at < self._state.clock() - 86400

    def store(self, record: Stored) -> None:
        """Store a record after a change."""
        self._storage.put(record.kind, getattr(record, record.key_field), record.document)

    def grant_of(self, refresh_token: str) -> Grant | None:
        """Return the grant behind a refresh token unless it was revoked."""
        grant = self._by_refresh_token.get(refresh_token)
        return None if grant is None or grant.revoked else grant

    def check_token(self, token: str) -> tuple[AccessToken, Grant, App]:
        """Return what a bearer token stands for, or raise AuthError."""
        known = self.tokens.get(token)
        if known is None:
            raise AuthError(union("invalid_access_token"))
        grant = self.grants[known.grant_id]
        if grant.revoked:
            raise AuthError(union("invalid_access_token"))
        if known.expires_at is not None and known.expires_at <= self._state.clock():
            raise AuthError(union("expired_access_token"))
        return known, grant, self.apps[grant.app_key]

    def revoke(self, grant: Grant) -> None:
        """End a grant with its refresh token and all its access tokens."""
        grant.revoked = True
        self.store(grant)

    def expire_tokens(self) -> None:
        """Let every access token expire now."""
        for token in self.tokens.values():
            token.expires_at = self._state.clock()  # not long ago, or it would be forgotten
            self.store(token)

    def by_email(self, email: str) -> Account | None:
        """Return the account with this e-mail address."""
        folded = email.lower()
        return next((account for account in self.accounts.values() if account.email.lower() == folded), None)

    def by_member_id(self, team_id: str, team_member_id: str) -> Account | None:
        """Return the member of a team."""
        return next((known for known in self.members(team_id) if known.team_member_id == team_member_id), None)

    def members(self, team_id: str) -> list[Account]:
        """Return the members of a team."""
        return [account for account in self.accounts.values() if account.team_id == team_id]

    def used_bytes(self, account: Account) -> int:
        """Return the bytes that count against the account: all namespaces that it owns."""
        owned = (n for n in self._state.namespaces.values() if n.owner == account.account_id)
        return sum(namespace.used_bytes for namespace in owned)

    def used_bytes_of_team(self, team: Team) -> int:
        """Return the bytes that count against a team: its members' and its own namespaces."""
        members = sum(self.used_bytes(member) for member in self.members(team.team_id))
        own = (n for n in self._state.namespaces.values() if n.extra.get("team_id") == team.team_id)
        return members + sum(namespace.used_bytes for namespace in own)
