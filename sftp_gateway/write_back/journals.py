"""`Journals`: the journals of all accounts, in one directory; which filesystems get one, and what waits in them."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from fs.base import FS
from fs.errors import FSError
from fs.opener.parse import parse_fs_url

from sftp_gateway.files.folding import fold_path
from sftp_gateway.files.locked_files import is_locked
from sftp_gateway.files.partials import TICK_NANOSECONDS
from sftp_gateway.logs import log_event
from sftp_gateway.write_back.between import WriteBackLimits
from sftp_gateway.write_back.delivery import LOCK_NAME
from sftp_gateway.write_back.filesystem import WriteBackFS
from sftp_gateway.write_back.journal import Journal
from sftp_gateway.write_back.journal_file import FILE_NAME, JournalError
from sftp_gateway.write_back.journal_rows import Totals

_T = TypeVar("_T")
_Stamp = tuple[tuple[int, int], ...]
_HELD = (
    "they were acknowledged for another account than the one that the URL opens now: configure the credentials of that"
    " one again, or export them (`sftp-gateway pending export`)"
)


class Journals:
    """Puts a journal before the filesystems of users with write-back. Owned by the gateway. Thread-safe.

    Each account has a directory under its key, a keyed digest of its FS URL: no secret is in a journal or in its name.
    """

    def __init__(
        self,
        directory: Path,
        *,
        limits: WriteBackLimits,
        users_of: Callable[[str], list[str]],
        digest: Callable[[str], str],
    ) -> None:
        """`users_of` names the users with write-back whose FS URL is the given one; `digest` hides what it is given."""
        self._directory = directory
        self._limits = limits
        self._users_of = users_of
        self._digest = digest
        self._left_alone: set[str] = set()  # journals without a URL, as far as they were looked at
        self._held: set[tuple[str, str]] = set()  # journals with files of another account than the URL of a key opens
        self._known: dict[str, tuple[_Stamp, Totals]] = {}  # what was in journals, by key; changes in single steps

    def wrap(self, key: str, url: str, filesystem: FS) -> FS:
        """Return the filesystem with its journal if a user wants one or files wait in one; else as it is.

        Raises sqlite3.Error if a journal can be read but not written: later files must not overtake those in it.
        """
        users = self._users_of(url)
        directory = self._directory / key
        self._held.discard((key, key))  # the account that was opened before may have been another one
        if not users and not self.waits(key):
            return filesystem
        account = self._account(filesystem)
        if users:
            self._take_over(key, url, users, account)
        label = ", ".join(users) or "?"
        if not filesystem.getmeta().get("atomic_writes"):
            reason = "this kind of storage has no atomic writes"
            log_event("write_through", level=logging.WARNING, user=label, reason=reason)
            return filesystem
        fold = fold_path if filesystem.getmeta().get("case_insensitive") else str
        try:
            journal = Journal(directory, fold=fold)
        except JournalError as error:
            # Kept as it is, for somebody to look at. Until then CLOSE waits for the storage.
            log_event("write_through", level=logging.ERROR, user=label, reason=str(error))
            return filesystem
        with contextlib.ExitStack() as opened:
            opened.callback(journal.close)
            if _is_anothers(journal, account):
                self._hold(journal, key, key)
                log_event("write_through", level=logging.ERROR, user=label, journal=key, reason=_HELD)
                return filesystem
            journal.note("held", "")
            if account:
                journal.note("account", account)
            if users:
                journal.note("users", label)
                journal.note("kind", self._kind(url, users))
            wrapped = WriteBackFS(filesystem, journal, label=label, limits=self._limits)
            opened.pop_all()
        return wrapped

    def waits(self, key: str) -> bool:
        """Tell whether files in a journal wait for their delivery, and it is possible as far as is known."""
        totals = self._look(self._directory / key)
        return totals is not None and totals.is_anything_waiting and (key, key) not in self._held

    def is_attended(self, key: str) -> bool:
        """Tell whether a process delivers from this journal."""
        try:
            return is_locked(self._directory / key / LOCK_NAME)
        except FileNotFoundError:
            return False

    def adopt(self, urls: dict[str, str]) -> set[str]:
        """Return the keys of those URLs that must be opened to take over the journal of another token; `urls` by key.

        Files that wait in journals without a URL are logged.
        """
        orphans = {directory.name for directory in self._directories()} - urls.keys()
        if orphans <= self._left_alone:
            return set()
        heirs = {
            self._kind(url, users): key
            for key, url in urls.items()
            if (users := self._users_of(url)) and not (self._directory / key).exists()
        }
        wanted: dict[str, str] = {}
        for key in orphans - self._left_alone:
            totals = self._look(self._directory / key)
            if totals is None or not totals.is_anything_waiting:
                continue
            heir = heirs.get(_kind_of(self._directory / key), "")
            if heir and not self.is_attended(key) and (key, heir) not in self._held:
                wanted[key] = heir
            elif (key, heir) not in self._held:
                reason = "no user has the URL any more under which they were acknowledged"
                log_event("delayed", level=logging.WARNING, journal=key, files=totals.waiting, reason=reason)
        self._left_alone = orphans - wanted.keys()
        return set(wanted.values())

    def _take_over(self, key: str, url: str, users: list[str], account: str) -> None:
        """Use the journal of the same users, account and URL with another token, if this URL has none yet."""
        if (self._directory / key).exists():
            return
        kind = self._kind(url, users)
        for directory in sorted(self._directories(), key=lambda each: not self.waits(each.name)):
            if self.is_attended(directory.name) or _kind_of(directory) != kind:
                continue
            if self._is_held(directory, key, account):
                continue
            with contextlib.suppress(OSError):  # another process was quicker
                directory.rename(self._directory / key)
            return

    def _is_held(self, directory: Path, heir: str, account: str) -> bool:
        """Tell whether a journal without a URL belongs to another account; if so, record and log that."""
        try:
            journal = Journal(directory, create=False)
        except JournalError:
            return True
        with contextlib.closing(journal):
            if not _is_anothers(journal, account):
                return False
            self._hold(journal, directory.name, heir)
            files, users = journal.totals().waiting, journal.noted("users")
        log_event("delayed", level=logging.ERROR, user=users, journal=directory.name, files=files, reason=_HELD)
        return True

    def _hold(self, journal: Journal, key: str, heir: str) -> None:
        """Deliver nothing from a journal until its account is back; `sftp-gateway pending` tells why."""
        self._held.add((key, heir))
        journal.note("held", _HELD)

    def _account(self, filesystem: FS) -> str:
        """Return what identifies a filesystem's account, whatever its credentials; "" if it does not tell."""
        try:
            told = filesystem.getmeta("account").get("id")
        except FSError:
            return ""
        return self._digest(f"account {told}") if told else ""

    def _kind(self, url: str, users: list[str]) -> str:
        """Return what stays the same when a URL gets another token."""
        parts = parse_fs_url(url)
        return self._digest(repr((users, parts.protocol, parts.username, parts.resource, parts.path, parts.params)))

    def exist(self) -> bool:
        """Tell whether there is any journal."""
        return next(self._directories(), None) is not None

    def totals(self) -> Totals:
        """Return how much is in all journals together."""
        every = [totals for directory in self._directories() if (totals := self._look(directory)) is not None]
        oldest = [totals.oldest for totals in every if totals.oldest is not None]
        return Totals(
            sum(totals.waiting for totals in every),
            sum(totals.failed for totals in every),
            sum(totals.bytes for totals in every),
            min(oldest, default=None),
            sum(totals.directories for totals in every),
        )

    def _look(self, directory: Path) -> Totals | None:
        """Return how much is in a journal, None if it cannot be read; it is read once for each of its changes."""
        stamp = _stamp(directory)
        known = self._known.get(directory.name)
        if known is not None and known[0] == stamp:
            return known[1]
        # Changes within one tick of the file system's clock leave the same time.
        is_settled = all(abs(time.time_ns() - changed) > TICK_NANOSECONDS for changed, _ in stamp)
        totals = look_into(directory) if stamp else None
        if totals is not None and is_settled:
            self._known[directory.name] = stamp, totals
        return totals

    def _directories(self) -> Iterator[Path]:
        for file in self._directory.glob(f"*/{FILE_NAME}"):
            yield file.parent


def _is_anothers(journal: Journal, account: str) -> bool:
    """Tell whether a journal holds files of another account, as far as both accounts are known."""
    noted = journal.noted("account")
    if not account or not noted or noted == account:
        return False
    totals = journal.totals()
    return totals.is_anything_waiting or bool(totals.failed)


def look_into(directory: Path) -> Totals | None:
    """Return how much is in the journal of a directory; None if it cannot be read."""
    return _ask(directory, Journal.totals, None)


def _kind_of(directory: Path) -> str:
    return _ask(directory, lambda journal: journal.noted("kind"), "")


def _ask(directory: Path, question: Callable[[Journal], _T], otherwise: _T) -> _T:
    """Ask a journal that others may have in use; return `otherwise` if it cannot be read."""
    try:
        with contextlib.closing(Journal(directory, create=False, check=False)) as journal:
            return question(journal)
    except (JournalError, sqlite3.Error):
        return otherwise


def _stamp(directory: Path) -> _Stamp:
    """Return the times and sizes of a journal's files, which change whenever it does; nothing if there is none."""
    stamp = []
    for name in (FILE_NAME, f"{FILE_NAME}-wal"):
        with contextlib.suppress(OSError):
            status = (directory / name).stat()
            stamp.append((status.st_mtime_ns, status.st_size))
    return tuple(stamp)
