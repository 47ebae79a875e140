"""`Outgoing`: a file that is written to a filesystem with pending files: to the journal, or through to the storage."""

from __future__ import annotations

import io
import time
from datetime import datetime
from types import TracebackType
from typing import Any

from fs.errors import FileExists

from sftp_gateway.files.stream import PIECE_BYTES, abort
from sftp_gateway.sftp.status import NotAtOnceError
from sftp_gateway.write_back.between import Between
from sftp_gateway.write_back.journal_rows import DeliveredError, Mode, NewFile, NoRoomError
from sftp_gateway.write_back.pending_files import VERSION_PREFIX


class Outgoing(io.RawIOBase):
    """A file that is written from start to end: to local disk and into the journal, or through to the storage.

    `close()` returns when the file has reached its destination; `abort()`, an exception in the `with` block and garbage
    collection discard it. `modified` is the time to store, settable until `close()`. Owned by its opener; not
    thread-safe.
    """

    def __init__(
        self,
        between: Between,
        path: str,
        options: dict[str, Any],
        *,
        exclusive: bool,
        local: bool,
        at_once: bool = False,
    ) -> None:
        super().__init__()
        self._over = False
        self._through: Any = None
        self.modified: datetime | None = options.pop("modified", None)
        self._between = between
        self._path = path
        self._options = options
        self._exclusive = exclusive
        self._at_once = at_once
        self._looked_at = between.inline  # up to this size the quota is known to suffice, or is checked in `close`
        self._local = between.new_bytes()
        if exclusive and between.is_pending(path):
            raise FileExists(path)
        if not local:
            self._go_through()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_local"):
            self.abort()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = len(data)
        if self._through is None and not self._has_room(size):
            self._go_through()
        if self._through is not None:
            self._through.write(data)
        else:
            self._local.write(data)
        return size

    def write_now(self, data: Any) -> bool:
        """Write if only the local disk has to be waited for; tell whether it was written."""
        if self._through is not None:
            write_now = getattr(self._through, "write_now", None)
            return write_now is not None and bool(write_now(data))
        if self._over or not self._has_room(len(data)):
            return False
        self._local.write(data)
        return True

    def checkpoint(self) -> tuple[str, int] | None:
        """Return what the storage certainly has of a file that is written through, if it tells. Never waits."""
        tell = getattr(self._through, "checkpoint", None)
        known: tuple[str, int] | None = tell() if tell is not None else None
        return known

    def abort(self) -> None:
        """Discard what was written. Idempotent."""
        if not self._over:
            self._over = True
            self._local.discard()
            abort(self._through)
            super().close()

    def close(self) -> None:
        """Commit. Idempotent; raises the reason if that is impossible."""
        if self._over:
            return
        self._over = True
        super().close()
        try:
            if self._through is None:
                self._record()
            if self._through is not None:
                self._commit_through()
        except BaseException:
            self._local.discard()
            raise

    def _has_room(self, size: int) -> bool:
        """Tell whether `size` more bytes may wait on local disk."""
        if self._local.size + size > self._looked_at:
            if not self._between.has_room(size):
                return False
            self._looked_at = self._local.size + size + PIECE_BYTES
        return True

    def _record(self) -> None:
        """Put the file into the journal, or write it through if there is no room."""
        expected: str | None = self._options.get("expected_version")
        moment = int(self.modified.timestamp() if self.modified is not None else time.time())
        fresh = self._between.is_absent(self._path, at_once=self._at_once)
        try:
            if expected is not None and expected.startswith(VERSION_PREFIX):
                replaces = int(expected.removeprefix(VERSION_PREFIX))
                try:
                    self._between.record(NewFile(self._path, moment, "replace", None, fresh, replaces), self._local)
                    return
                except DeliveredError:
                    expected = self._between.delivered_version(self._path, expected)
            mode: Mode = "create" if self._exclusive else "replace" if expected is None else "update"
            self._between.record(NewFile(self._path, moment, mode, expected, fresh), self._local)
        except NoRoomError:
            self._go_through()

    def _go_through(self) -> None:
        """Write to the storage from now on, starting with what is on local disk."""
        if self._at_once:
            raise NotAtOnceError
        expected = self._options.get("expected_version")
        if expected is not None and expected.startswith(VERSION_PREFIX):
            self._options["expected_version"] = self._between.delivered_version(self._path, expected)
        through = self._between.storage.openbin(self._path, "xb" if self._exclusive else "wb", **self._options)
        try:
            for offset in range(0, self._local.size, PIECE_BYTES):
                through.write(self._local.read(offset, PIECE_BYTES))
        except BaseException:
            abort(through)
            raise
        self._through = through
        self._local.discard()

    def _commit_through(self) -> None:
        try:
            self._between.deliver(self._path)
            if self.modified is not None:
                self._through.modified = self.modified
        except BaseException:
            abort(self._through)
            raise
        self._through.close()
        self._between.stored(self._path)
