"""File objects of a filesystem with pending files: `PendingReader`, `Outgoing`."""

from __future__ import annotations

import io
import os
import time
from datetime import datetime
from types import TracebackType
from typing import Any, BinaryIO, Protocol

from fs.enums import ResourceType
from fs.errors import FileExists
from fs.info import Info

from sftp_gateway.files.folding import shown_name
from sftp_gateway.files.stream import PIECE_BYTES, abort
from sftp_gateway.write_back.journal_rows import DeliveredError, Mode, NewFile, NoRoomError, Pending
from sftp_gateway.write_back.vault import LocalBytes

VERSION_PREFIX = "pending:"


class Owner(Protocol):
    """What an outgoing file needs of its filesystem, `WriteBackFS`."""

    def new_bytes(self) -> LocalBytes:
        """Return a place on local disk."""

    def has_room(self, size: int) -> bool:
        """Tell whether `size` more bytes may wait for their delivery."""

    def is_pending(self, path: str) -> bool:
        """Tell whether a pending file is at `path`."""

    def is_absent(self, path: str) -> bool:
        """Tell whether the storage certainly has nothing at `path`."""

    def record(self, new: NewFile, content: LocalBytes) -> None:
        """Put a finished file into the journal; raises `NoRoomError`, `DeliveredError`, and what the client is told."""

    def deliver(self, path: str) -> None:
        """Wait until what is pending at `path` has been delivered."""

    def delivered_version(self, path: str, version: str) -> str:
        """Return the storage's version of what was read as `version` when it was pending."""

    def open_through(self, path: str, options: dict[str, Any], *, exclusive: bool) -> Any:
        """Open the storage's own file."""

    def stored(self, path: str) -> None:
        """Note that the storage has a new version at `path`."""


class PendingReader(io.RawIOBase):
    """The content of a pending file as it was when it was opened; it can be read on after the delivery.

    Owned by who opened it. `pread` and `cached` are safe from many threads.
    """

    def __init__(self, content: BinaryIO | bytes, pending: Pending) -> None:
        super().__init__()
        self.size = pending.size
        self.version = f"{VERSION_PREFIX}{pending.id}"
        self._content = content
        self._position = 0

    def pread(self, offset: int, size: int) -> bytes:
        """Return the bytes at `offset`, fewer than `size` only at the end."""
        if isinstance(self._content, bytes):
            return self._content[offset : offset + size]
        return os.pread(self._content.fileno(), size, offset)

    cached = pread

    def again(self) -> BinaryIO:
        """Return a reader of the same content that begins at its start; it ends with this one."""
        return _From(self)  # type: ignore[return-value]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        piece = self.pread(self._position, len(buffer))
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        if not self.closed and not isinstance(self._content, bytes):
            self._content.close()
        super().close()


class _From(io.RawIOBase):
    def __init__(self, reader: PendingReader) -> None:
        super().__init__()
        self._reader = reader
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._reader.pread(self._position, len(buffer))
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


class Outgoing(io.RawIOBase):
    """A file that is written from start to end: to local disk and into the journal, or through to the storage.

    `close()` returns when the file is where it is to be; `abort()` discards, as do an exception in the `with` block and
    forgetting the file. `modified` is the time to store, settable until then. Owned by who opened it; not thread-safe.
    """

    def __init__(self, owner: Owner, path: str, options: dict[str, Any], *, exclusive: bool, local: bool) -> None:
        super().__init__()
        self._over = False
        self._through: Any = None
        self.modified: datetime | None = options.pop("modified", None)
        self._owner = owner
        self._path = path
        self._options = options
        self._exclusive = exclusive
        self._looked_at = 0  # up to which size the quota was seen to suffice
        self._local = owner.new_bytes()
        if exclusive and owner.is_pending(path):
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

    @property
    def local_size(self) -> int:
        """How many bytes are on local disk, or in memory, without being in the journal."""
        return 0 if self._over or self._through is not None else self._local.size

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
        """Write if nothing has to be waited for but the local disk; tell whether."""
        if self._through is not None:
            write_now = getattr(self._through, "write_now", None)
            return write_now is not None and bool(write_now(data))
        if self._over or not self._has_room(len(data)):
            return False
        self._local.write(data)
        return True

    def checkpoint(self) -> tuple[str, int] | None:
        """Tell what the storage has for certain of a file that goes through to it, where it tells. Never waits."""
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
        """Commit. Idempotent; raises why that cannot be."""
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
            if not self._owner.has_room(size):
                return False
            self._looked_at = self._local.size + size + PIECE_BYTES
        return True

    def _record(self) -> None:
        """Put the file into the journal, or what of it can only go through."""
        expected: str | None = self._options.get("expected_version")
        moment = int(self.modified.timestamp() if self.modified is not None else time.time())
        fresh = self._owner.is_absent(self._path)
        try:
            if expected is not None and expected.startswith(VERSION_PREFIX):
                replaces = int(expected.removeprefix(VERSION_PREFIX))
                try:
                    self._owner.record(NewFile(self._path, moment, "replace", None, fresh, replaces), self._local)
                    return
                except DeliveredError:
                    expected = self._owner.delivered_version(self._path, expected)
            mode: Mode = "create" if self._exclusive else "replace" if expected is None else "update"
            self._owner.record(NewFile(self._path, moment, mode, expected, fresh), self._local)
        except NoRoomError:
            self._go_through()

    def _go_through(self) -> None:
        """Write to the storage from now on, beginning with what is on local disk."""
        expected = self._options.get("expected_version")
        if expected is not None and expected.startswith(VERSION_PREFIX):
            self._options["expected_version"] = self._owner.delivered_version(self._path, expected)
        through = self._owner.open_through(self._path, self._options, exclusive=self._exclusive)
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
            self._owner.deliver(self._path)
            if self.modified is not None:
                self._through.modified = self.modified
        except BaseException:
            abort(self._through)
            raise
        self._through.close()
        self._owner.stored(self._path)


def info_of(pending: Pending, name: str | None = None) -> Info:
    """Return the Info of a pending file, under the name in which its directory lists it if that is given."""
    return Info(
        {
            "basic": {"name": name or shown_name(pending.path), "is_dir": False},
            "details": {
                "type": int(ResourceType.file),
                "size": pending.size,
                "modified": pending.modified,
                "_write": ["modified"] if pending.may_change else [],
            },
        }
    )
