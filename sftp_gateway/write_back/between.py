"""`Between`: what needs the journal and the storage: waiting for deliveries, recording files, writing through."""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fs import errors

from sftp_gateway.sftp.status import NotAtOnceError, RefusedError
from sftp_gateway.write_back.delivery import same_content
from sftp_gateway.write_back.elsewhere import Elsewhere
from sftp_gateway.write_back.journal import Journal
from sftp_gateway.write_back.journal_rows import BeingSentError, ConflictError, NewFile, Pending
from sftp_gateway.write_back.pending_directories import PendingDirectories
from sftp_gateway.write_back.pending_files import PendingReader
from sftp_gateway.write_back.vault import LocalBytes

_CHANGED = "the file was changed by someone else meanwhile"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class WriteBackLimits:
    """Bounds of one account; sizes are bytes."""

    quota: int = 10 * 2**30  # of what waits for its delivery; beyond, files go through to the storage
    delay_seconds: float = 10.0  # how long a file waits for others that could go along
    inline: int = 64 * 2**10  # files up to this size are kept in the journal itself
    wait_seconds: float = 120.0  # how long a request waits for the delivery of what it depends on


class Between:
    """Does what neither can do alone. Owned by a `WriteBackFS`; its files use it as well.

    Thread-safe: one leaf lock over what is being read and written. Raises `RefusedError` as well as `fs.errors`.
    """

    def __init__(
        self, storage: PendingDirectories, journal: Journal, elsewhere: Elsewhere, limits: WriteBackLimits
    ) -> None:
        self.inline = limits.inline
        self._quota = limits.quota
        self._wait_seconds = limits.wait_seconds
        self._journal = journal
        self.storage = storage
        self._elsewhere = elsewhere
        self._lock = threading.Lock()
        # guarded by _lock
        self._readers: weakref.WeakSet[PendingReader] = weakref.WeakSet()
        self._written: weakref.WeakSet[LocalBytes] = weakref.WeakSet()  # what is not in the journal yet

    def deliver(self, path: str) -> None:
        """Wait until what is at or below `path` has been delivered, or refused for good.

        Raises `RefusedError` where it cannot be delivered now.
        """
        if self._journal.is_live(path):
            self._journal.hurry(path)
            done = self._journal.wait(
                lambda: not self._journal.is_live(path) or self._journal.trouble(path), self._wait_seconds
            )
            if self._journal.is_live(path):
                reason = f": {done}" if isinstance(done, str) else ""
                raise RefusedError(f"what was uploaded there before cannot be delivered yet{reason}")
        self._elsewhere.find_below(path)

    def new_bytes(self) -> LocalBytes:
        """Return a place on local disk for a file that is being written."""
        content = self._journal.vault.write(memory_limit=self.inline)
        with self._lock:
            self._written.add(content)
        return content

    def reader(self, pending: Pending) -> PendingReader:
        """Open a pending file; raises FileNotFoundError if it is no longer pending."""
        reader = PendingReader(self._journal.content(pending), pending)
        with self._lock:
            self._readers.add(reader)
        return reader

    @property
    def readers(self) -> list[PendingReader]:
        """What is being read."""
        with self._lock:
            return list(self._readers)

    def record(self, new: NewFile, content: LocalBytes) -> None:
        """Put a finished file into the journal; raises `NoRoomError`, `DeliveredError`, and errors for the client."""
        try:
            if new.mode != "replace":
                self._refuse_outdated(new)
            self.once_settled(lambda: self._journal.put(new, content, quota=self._quota_left() + content.size))
        except ConflictError:
            if new.mode == "create":
                raise errors.FileExists(new.path) from None
            raise RefusedError(_CHANGED) from None
        except sqlite3.Error as error:
            raise RefusedError(f"the gateway's journal cannot be written ({error})") from error

    def _refuse_outdated(self, new: NewFile) -> None:
        """Raise `ConflictError` if it is known already that the delivery would be refused."""
        if self.is_pending(new.path):  # first: the storage has it before it stops being pending
            raise ConflictError
        try:
            with self.storage.openbin(new.path, "r") as there:
                version = there.version
        except errors.ResourceNotFound:
            version = None
        except errors.FSError:
            return
        if version != new.expected:
            raise ConflictError

    def is_absent(self, path: str, *, at_once: bool = False) -> bool:
        """Tell whether the storage certainly has nothing at `path`; a pending file may arrive there at any moment.

        With `at_once`, raises `NotAtOnceError` if the storage would have to be asked.
        """
        pending = self._elsewhere.find(path)
        if pending is not None and not pending.failed:
            return False
        try:
            there = self.storage.cached_info(path) if at_once else self.storage.getinfo(path)
        except errors.FSError as error:
            return isinstance(error, errors.ResourceNotFound)
        if there is None:
            raise NotAtOnceError
        return False

    def delivered_version(self, path: str, version: str) -> str:
        """Return the storage's version of what was read as `version` when it was pending.

        Waits for its delivery; raises `RefusedError` where the storage has something else now.
        """
        self.deliver(path)
        base = next((reader for reader in self.readers if reader.version == version and not reader.closed), None)
        try:
            if base is not None:
                with base.again() as ours, self.storage.openbin(path, "r") as there:
                    if same_content(there, ours):
                        return str(there.version)
        except errors.ResourceNotFound:
            pass
        raise RefusedError(_CHANGED)

    def is_pending(self, path: str) -> bool:
        """Tell whether a pending file is at `path`."""
        return self._journal.is_live(path)

    def stored(self, path: str) -> None:
        """Note that the storage has a new version at `path`: a file that failed there is no longer shown."""
        self._journal.hide_failed(path)

    def has_room(self, size: int) -> bool:
        """Tell whether `size` more bytes may wait for their delivery."""
        return self._journal.used + size <= self._quota_left()

    def _quota_left(self) -> int:
        """Return how many bytes the journal may hold in addition to the files that are being written."""
        with self._lock:
            return self._quota - sum(content.size for content in self._written)

    def once_settled(self, attempt: Callable[[], _T]) -> _T:
        """Return what `attempt` returns; repeat it while the file is on its way to the storage."""
        deadline = time.monotonic() + self._wait_seconds
        while True:
            try:
                return attempt()
            except BeingSentError:
                if time.monotonic() > deadline:
                    raise RefusedError("the file is still on its way to the storage; try again later") from None
            self._journal.pause()
