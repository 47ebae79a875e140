"""What the parts of Control have in common: finding accounts and apps."""

from __future__ import annotations

from fs_dropbox.emulator.model.accounts import Account, App
from fs_dropbox.emulator.model.tree import File
from fs_dropbox.emulator.model.view import View
from fs_dropbox.emulator.service import Service


class ControlPart:
    """A group of abilities of Control. Accounts are named by e-mail address, the first one is the default."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def _account(self, email: str | None) -> Account:
        accounts = self._service.accounts
        account: Account | None = next(iter(accounts.accounts.values())) if email is None else accounts.by_email(email)
        if account is None:
            raise KeyError(f"no account {email}")
        return account

    def _app(self, key: str | None) -> App:
        apps = self._service.accounts.apps
        return next(iter(apps.values())) if key is None else apps[key]

    def _view(self, email: str | None) -> View:
        """Return an account's look from its root: the team's root in a team space."""
        account = self._account(email)
        return self._service.view(account, self._service.state.namespaces[account.root_namespace_id])

    def _file(self, view: View, path: str) -> File:
        file, _ = view.find_file(path)
        if file is None:
            raise KeyError(f"{path} is not the current revision of a file")
        return file
