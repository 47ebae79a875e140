"""The parts of a running emulator in one object, which routes, pages and the control share. Decides nothing."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from pathlib import Path

from fs_dropbox.emulator.faults import Faults
from fs_dropbox.emulator.limits import Limits
from fs_dropbox.emulator.meter import Meter
from fs_dropbox.emulator.model.accounts import Account, Accounts, App
from fs_dropbox.emulator.model.cursors import Cursors
from fs_dropbox.emulator.model.jobs import Jobs
from fs_dropbox.emulator.model.load import load
from fs_dropbox.emulator.model.mutations import make_parents, name_for
from fs_dropbox.emulator.model.options import Options
from fs_dropbox.emulator.model.sessions import Sessions
from fs_dropbox.emulator.model.state import State
from fs_dropbox.emulator.model.tree import Namespace
from fs_dropbox.emulator.model.view import View


class Service:
    """Owner: Emulator. `stopping` is set when every wait has to end."""

    def __init__(self, folder: Path | None, clock: Callable[[], float], options: Options) -> None:
        self.options = options
        self.ahead_seconds = 0.0  # how far the emulator's time runs ahead of the clock
        self.stopping = threading.Event()
        self.drop_connections: Callable[[], object] = lambda: None  # set by who owns the server
        self.state = State(folder, lambda: clock() + self.ahead_seconds, options)
        load(self.state)
        with self.state.mutation():
            self.state.forget_older(self.state.clock() - options.history_seconds)
        self.accounts = Accounts(self.state)
        self.sessions = Sessions(self.state)
        self.state.contents.sweep(self.sessions.spool_names())
        self.faults = Faults()
        self.jobs = Jobs(options)
        self.meter = Meter()
        self.limits = Limits(self.stopping, options)
        settings = self.state.collection("settings")
        with self.state.mutation():
            settings.setdefault("secret", {"value": secrets.token_hex(32)})
            settings.setdefault("cursors", {"epoch": 0})
        self.cursors = Cursors(str(settings["secret"]["value"]).encode(), int(settings["cursors"]["epoch"]))

    def view(self, account: Account | None, root: Namespace | None = None, *, everything: bool = False) -> View:
        """Return an account's look at its home, or at another root."""
        if root is None:
            assert account is not None
            root = self.state.namespaces[account.home_namespace_id]
        return View(self.state, account, root, everything=everything, quota_left=self.quota_left)

    def quota_left(self, namespace: Namespace) -> int | None:
        """Return how many bytes the owner of a namespace, an account or a team, may still store."""
        account = self.accounts.accounts.get(namespace.owner or "")
        team_id = account.team_id if account is not None else namespace.extra.get("team_id")
        team = self.accounts.teams.get(team_id or "")
        left = []
        if account is not None:
            left.append(account.allocated_bytes - self.accounts.used_bytes(account))
        if team is not None:
            left.append(team.allocated_bytes - self.accounts.used_bytes_of_team(team))
        return min(left, default=None)

    def app_folder(self, account: Account, app: App) -> Namespace:
        """Return the namespace of an app with an app folder, made at /Apps/<name> on first use."""
        state = self.state
        with state.mutation():
            for namespace in state.namespaces.values():
                if (namespace.kind, namespace.owner, namespace.name) == ("app_folder", account.account_id, app.name):
                    if not namespace.mounts:
                        self._mount_app_folder(account, namespace)
                    return namespace
            namespace = state.add_namespace("app_folder", app.name, account.account_id)
            self._mount_app_folder(account, namespace)
            return namespace

    def _mount_app_folder(self, account: Account, namespace: Namespace) -> None:
        view = self.view(account)
        target = view.target(f"/Apps/{namespace.name}")
        self.state.mount(namespace, make_parents(view, target), name_for(target, autorename=True))

    def stop(self) -> None:
        """End every wait."""
        self.stopping.set()
        self.faults.release()
        self.limits.stop()
        with self.state.changed:
            self.state.changed.notify_all()

    def close(self) -> None:
        """Store the rest and release disk and memory."""
        self.state.close()
