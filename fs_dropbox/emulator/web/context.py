"""What a route function gets: who calls, in which view, with which request; and the write lock of a namespace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fs_dropbox.emulator.faults import Fault
from fs_dropbox.emulator.http import ClosableBlocks, Request
from fs_dropbox.emulator.model.accounts import Account, App, Grant, Team
from fs_dropbox.emulator.model.contents import ContentReader
from fs_dropbox.emulator.model.errors import BadArgumentError, RouteError, WriteError
from fs_dropbox.emulator.model.tree import Namespace
from fs_dropbox.emulator.model.view import View
from fs_dropbox.emulator.service import Service
from fs_dropbox.emulator.web.registry import Attributes


@dataclass(slots=True)
class Download:
    """The result of a download-style route, JSON for the header, and the bytes of the body; a link has no result."""

    result: Any
    reader: ContentReader | ClosableBlocks | bytes
    size: int | None  # of the whole content; None for a body that is made on the way
    start: int = 0
    end: int | None = None
    is_partial: bool = False
    etag: str | None = None
    content_type: str = "application/octet-stream"


@dataclass
class Context:
    """One call. `account` is None for team calls, app calls and calls without authentication."""

    service: Service
    route: str
    attributes: Attributes
    request: Request
    app: App | None = None
    grant: Grant | None = None
    scopes: tuple[str, ...] = ()
    account: Account | None = None
    team: Team | None = None
    admin: Account | None = None  # the team admin of Dropbox-API-Select-Admin
    path_root: Namespace | None = None
    fault: Fault | None = None
    entries_begun: int = 0  # of a batch

    @cached_property
    def view(self) -> View:
        """The caller's look at the tree: path root, app folder or home."""
        everything = self.admin is not None and self.attributes.select_admin == "whole_team"
        if self.path_root is not None:
            return self.service.view(self.account, self.path_root, everything=everything)
        if self.app is not None and self.app.app_folder and self.account is not None:
            return self.service.view(self.account, self.service.app_folder(self.account, self.app))
        if self.account is None:
            raise BadArgumentError("path: this function needs a user")
        return self.service.view(self.account, everything=everything)

    @property
    def user(self) -> Account:
        """The account that acts; routes of users only."""
        assert self.account is not None
        return self.account

    @property
    def account_id(self) -> str | None:
        """The account that acts."""
        return self.account.account_id if self.account is not None else None

    @contextmanager
    def write(self, *paths: str) -> Iterator[None]:
        """Make a change: hold the write lock of each path's namespace, then the state, durable at the end.

        Raises RateLimitError when others hold a lock for too long.
        """
        with self._locks(dict.fromkeys(map(self._namespace_id, paths), 1)):
            self.check_declared_contention()
            yield

    @contextmanager
    def write_batch(self, entries: Sequence[Sequence[str]]) -> Iterator[None]:
        """Make a change of many entries, each with its paths: like write(), with the lock of every namespace of any."""
        with self._locks(Counter(place for paths in entries for place in set(map(self._namespace_id, paths)))):
            yield

    @contextmanager
    def _locks(self, entries: Mapping[str, int]) -> Iterator[None]:
        with ExitStack() as stack:
            # Always in the same order, so that two calls cannot block each other.
            for namespace_id in sorted(entries):
                stack.enter_context(self.service.limits.commit(namespace_id, entries[namespace_id]))
            stack.enter_context(self.service.state.mutation())
            yield

    def mutation(self) -> AbstractContextManager[None]:
        """Make a change that takes no namespace's write lock."""
        return self.service.state.mutation()

    def launch(self, kind: str, status: dict[str, Any], *, as_job: bool, force: bool = False) -> dict[str, Any]:
        """Return the answer to the launch of a job whose status is this; routes/jobs.py tells how far it is."""
        return self.service.jobs.answer(kind, self.account_id, status, as_job=as_job, force=force)

    def check_declared_contention(self) -> None:
        """Fail as the declared fault says: the tag too_many_write_operations inside the route's own error."""
        fault, begun = self.fault, self.entries_begun
        self.entries_begun += 1
        if fault is None:
            return
        if fault.kind == "too_many_write_operations":
            left = fault.parameters.setdefault("entries", 1)
            if left > 0:
                fault.parameters["entries"] = left - 1
                raise ContentionError("too_many_write_operations")
        if fault.kind == "ambiguous" and begun >= fault.get("done", begun + 1):
            raise ContentionError("too_many_write_operations")

    def _namespace_id(self, path: str) -> str:
        if self.service.limits.latency.commit_seconds <= 0:
            return ""
        with self.service.state.lock:
            try:
                return self.view.target(path).namespace.id
            except (WriteError, RouteError):
                return self.view.root.id


class ContentionError(WriteError):
    """Contention reported with 409 instead of 429; relocation, deletion and finish have a tag of their own for it."""
