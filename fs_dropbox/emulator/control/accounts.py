"""Control over who there is: accounts, apps, grants, teams, and what they may do."""

from __future__ import annotations

from typing import Any

from fs_dropbox.emulator.control.parts import ControlPart
from fs_dropbox.emulator.model.accounts import BASIC_SCOPES, Account, Grant, Team
from fs_dropbox.emulator.people import teams
from fs_dropbox.emulator.people.access import DENIALS
from fs_dropbox.emulator.people.consent import checked_redirect_uris
from fs_dropbox.emulator.web.authorize import root_info

TEAM_SCOPES = (
    *BASIC_SCOPES,
    "files.permanent_delete",
    "members.read",
    "team_info.read",
    "team_data.member",
    "team_data.team_space",
    "team_data.content.read",
    "team_data.content.write",
)


class AccountControl(ControlPart):
    """Accounts, apps, grants and teams. Every method is a change of its own."""

    # Accounts ---------------------------------------------------------------

    def add_account(self, email: str, given_name: str = "", surname: str = "Example", **fields: Any) -> dict[str, Any]:
        """Create an account; `fields` are those of accounts.Account, such as account_type or email_verified."""
        with self._service.state.mutation():
            account = self._new_account(email, given_name, surname)
            self._set_fields(account, fields)
            return self._describe(account)

    def set_account(self, email: str | None = None, **fields: Any) -> dict[str, Any]:
        """Change fields of an account: account_type, email_verified, allocated_bytes…"""
        with self._service.state.mutation():
            account = self._account(email)
            self._set_fields(account, fields)
            return self._describe(account)

    def _new_account(self, email: str, given_name: str, surname: str) -> Account:
        if self._service.accounts.by_email(email) is not None:
            raise ValueError(f"there is an account {email} already")
        name = given_name or email.partition("@")[0].capitalize()
        return self._service.accounts.add_account(email, name, surname)

    def _set_fields(self, account: Account, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            if not hasattr(account, name):
                raise TypeError(f"an account has no {name!r}")
            setattr(account, name, value)
        self._service.accounts.store(account)

    def suspend(self, email: str | None = None, suspended: bool = True) -> None:
        """Suspend a user: every call answers 401 user_suspended."""
        with self._service.state.mutation():
            self._set_fields(self._account(email), {"status": "suspended" if suspended else "active"})

    def account(self, email: str | None = None) -> dict[str, Any]:
        """Return the ids of an account and its root info."""
        with self._service.state.lock:
            return self._describe(self._account(email))

    @staticmethod
    def _describe(account: Account) -> dict[str, Any]:
        return {
            "email": account.email,
            "account_id": account.account_id,
            "team_id": account.team_id,
            "team_member_id": account.team_member_id,
            "root_info": root_info(account),
        }

    # Apps and grants --------------------------------------------------------

    def add_app(
        self,
        name: str,
        scopes: list[str] | None = None,
        *,
        app_folder: bool = False,
        is_team: bool = False,
        redirect_uris: list[str] | None = None,
    ) -> dict[str, Any]:
        """Register an app; one for teams has the team scopes, too, unless others are named.

        Browsers come back to its `redirect_uris` alone.
        """
        given = scopes if scopes is not None else list(TEAM_SCOPES if is_team else BASIC_SCOPES)
        uris = checked_redirect_uris(redirect_uris or [])
        with self._service.state.mutation():
            app = self._service.accounts.add_app(
                name, scopes=given, app_folder=app_folder, is_team=is_team, redirect_uris=uris
            )
            return {"app_key": app.key, "app_secret": app.secret, "scopes": app.scopes}

    def set_redirect_uris(self, redirect_uris: list[str], *, app: str | None = None) -> None:
        """Set where an app (named by its key) may send browsers: these addresses, character for character."""
        with self._service.state.mutation():
            changed = self._app(app)
            changed.redirect_uris = checked_redirect_uris(redirect_uris)
            self._service.accounts.store(changed)

    def set_scopes(self, scopes: list[str], *, app: str | None = None, grants: bool = False) -> None:
        """Set what an app (named by its key) may ask for; with `grants` also what it was allowed already.

        Otherwise a newly allowed scope holds for new grants only, as on the real service.
        """
        accounts = self._service.accounts
        with self._service.state.mutation():
            changed = self._app(app)
            changed.scopes = list(scopes)
            accounts.store(changed)
            for grant in accounts.grants.values():
                if grants and grant.app_key == changed.key:
                    self._narrow(grant, scopes)

    def _narrow(self, grant: Grant, scopes: list[str]) -> None:
        accounts = self._service.accounts
        grant.scopes = list(scopes)
        accounts.store(grant)
        for token in accounts.tokens.values():
            if token.grant_id == grant.grant_id:
                token.scopes = list(scopes)
                accounts.store(token)

    def set_app_folder(self, enabled: bool = True, *, app: str | None = None) -> None:
        """Make an app see /Apps/<its name> only, or all."""
        with self._service.state.mutation():
            changed = self._app(app)
            changed.app_folder = enabled
            self._service.accounts.store(changed)

    def sign_in(
        self, account: str | None = None, *, app: str | None = None, scopes: list[str] | None = None, pkce: bool = False
    ) -> dict[str, Any]:
        """Let an app in without a consent page: its key, its secret, a refresh token and an access token.

        For a team app `account` is any member: the grant is for the whole team.
        """
        accounts = self._service.accounts
        with self._service.state.mutation():
            entered, person = self._app(app), self._account(account)
            team = accounts.teams[str(person.team_id)] if entered.is_team else None
            grant = accounts.add_grant(
                entered,
                account=None if team is not None else person,
                team=team,
                scopes=entered.scopes if scopes is None else scopes,
                pkce=pkce,
            )
            return {
                "app_key": entered.key,
                "app_secret": entered.secret,
                "refresh_token": grant.refresh_token,
                "access_token": accounts.add_token(grant).token,
            }

    def unlink(self, account: str | None = None, *, app: str | None = None) -> None:
        """End everything that an account has allowed an app, as the user does on the web site."""
        accounts = self._service.accounts
        with self._service.state.mutation():
            key, account_id = self._app(app).key, self._account(account).account_id
            for grant in accounts.grants.values():
                if (grant.app_key, grant.account_id) == (key, account_id):
                    accounts.revoke(grant)

    # Teams ------------------------------------------------------------------

    def add_team(
        self, name: str = "Example Team", *, team_space: bool = True, top_level_content_policy: str = "admin_only"
    ) -> str:
        """Found a team in the team space or in the legacy layout; return its id."""
        with self._service.state.mutation():
            policy = top_level_content_policy
            return teams.add_team(self._service, name, team_space=team_space, top_level_content_policy=policy).team_id

    def add_member(
        self, email: str, given_name: str = "", *, team: str | None = None, admin: bool = False
    ) -> dict[str, Any]:
        """Let an account join a team (the first, unless an id is given); it is created when there is none yet."""
        with self._service.state.mutation():
            account = self._service.accounts.by_email(email) or self._new_account(email, given_name, "Example")
            if account.team_id is not None:
                raise ValueError(f"{email} is in a team already")
            teams.join(self._service, self._team(team), account, "team_admin" if admin else "member_only")
            return self._describe(account)

    def remove_member(self, email: str) -> None:
        """Let an account leave its team: its root is its home again."""
        with self._service.state.mutation():
            account = self._account(email)
            if account.team_id is None:
                raise ValueError(f"{email} is in no team")
            teams.leave(self._service, account)

    def add_team_folder(
        self,
        name: str,
        *,
        team: str | None = None,
        access: dict[str, str] | None = None,
        default: str | None = "editor",
    ) -> str:
        """Make a team folder and return its namespace id.

        `access` is editor, viewer… by e-mail address, everybody else has the default (None: no access).
        """
        with self._service.state.mutation():
            by_id = {self._account(email).account_id: level for email, level in (access or {}).items()}
            return teams.add_team_folder(self._service, self._team(team), name, by_id, default).id

    def _team(self, team_id: str | None) -> Team:
        known = self._service.accounts.teams
        if not known:
            raise KeyError("there is no team: call add_team first")
        return next(iter(known.values())) if team_id is None else known[team_id]

    # Refusals ---------------------------------------------------------------

    def deny(self, what: str, denied: bool = True, *, account: str | None = None, team: str | None = None) -> None:
        """Answer 403 to an account, or to a team: paper_disabled, not_paper_user, data_transport, sharing_endpoint,
        team_access."""
        if what not in DENIALS:
            raise ValueError(f"cannot deny {what!r}, only {', '.join(DENIALS)}")
        with self._service.state.mutation():
            record: Account | Team = self._account(account) if team is None else self._team(team)
            others = [name for name in record.extra.get("denials", []) if name != what]
            record.extra["denials"] = [*others, what] if denied else others
            self._service.accounts.store(record)
