"""`Content`: one version of a committed file, open for reading at any position."""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
import threading
from typing import Any

from fs.base import FS
from fs.info import Info

from sftp_gateway.files.spool import Quota, SpoolFullError
from sftp_gateway.sftp.status import RefusedError

Fingerprint = tuple[int, object]
_COPY_MEMORY_BYTES = 2**20
_NO_ROOM = "the storage gives files from their beginning to their end alone: the gateway has no room for a copy of it"
_MAX_OFFSET = 2**63 - 1  # Python's own files know no larger one


class Content:
    """The bytes of a committed file as they were when it was opened.

    Owned by a handle or a draft; who `share`s it gives another owner one of its own. Thread-safe: files without
    positioned reads are read under a lock. `version` is None if the filesystem has no versions; then `fingerprint`
    (size and time) tells versions apart.
    """

    def __init__(self, filesystem: FS, path: str, *, local: bool, quota: Quota) -> None:
        """Open `path`; if `local`, its reads never wait for a network. Raises `fs.errors`, `RefusedError`.

        A file that is not seekable is copied, which counts against the `quota` until this is closed.
        """
        self.quota = quota
        self._counted: list[int] = []  # what counts against it
        self._mark = object()
        self._owners = {self._mark}  # the marks of those that have not closed it yet
        self._local = local
        self._lock = threading.Lock()
        self._file: Any = filesystem.openbin(path, "r")
        try:
            if hasattr(self._file, "seekable") and not self._file.seekable():
                self._copy()
            self._pread = getattr(self._file, "pread", None)
            self._cached = getattr(self._file, "cached", None)
            self.version: str | None = getattr(self._file, "version", None)
            self.size: int = self._file.seek(0, io.SEEK_END)
            self.fingerprint = None if self.version is not None else fingerprint(filesystem, path)
        except BaseException:
            self.close()
            raise

    @property
    def reads_ahead(self) -> bool:
        """Whether the file fetches ahead what is likely to be read next (`cached`)."""
        return self._cached is not None

    def pread(self, offset: int, size: int) -> bytes:
        """Return the bytes at `offset`: `size` of them, fewer only at the end. Raises `fs.errors`, OSError."""
        piece = self._read_once(offset, size)
        if len(piece) == size or not piece:
            return piece
        pieces = [piece]
        got = len(piece)
        while got < size:
            piece = self._read_once(offset + got, size - got)
            if not piece:
                break
            pieces.append(piece)
            got += len(piece)
        return b"".join(pieces)

    def cached(self, offset: int, size: int) -> bytes | None:
        """Return what `pread` would, if that is possible without waiting."""
        if self._local:
            return self.pread(offset, size)
        if self._cached is None:
            return None
        wanted = max(0, min(size, self.size - offset))
        piece: bytes | None = self._cached(offset, wanted) if wanted else b""
        return piece if piece is not None and len(piece) == wanted else None

    def is_same(self, other: Content) -> bool:
        """Tell whether both are the same version of the same file."""
        return (self.version, self.fingerprint) == (other.version, other.fingerprint)

    def share(self) -> Content:
        """Return the same open file for another owner; it is closed when each owner has closed it."""
        other = copy.copy(self)
        other._mark = object()
        self._owners.add(other._mark)
        return other

    def close(self) -> None:
        """Close the file; errors do not matter for a file that was only read. Idempotent."""
        self._owners.discard(self._mark)
        if self._owners:
            return
        with contextlib.suppress(Exception):
            self._file.close()
        while self._counted:
            with contextlib.suppress(IndexError):  # another thread closes it, too
                self.quota.give(self._counted.pop())

    def _read_once(self, offset: int, size: int) -> bytes:
        if offset > _MAX_OFFSET:
            return b""
        try:
            return self._read_at(offset, size)
        except OSError:
            if offset < self.size:
                raise
            return b""  # a local disk may refuse such large offsets

    def _read_at(self, offset: int, size: int) -> bytes:
        if self._pread is not None:
            return bytes(self._pread(offset, size))
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size) or b""

    def _copy(self) -> None:
        file = self._file
        self._file = tempfile.SpooledTemporaryFile(max_size=_COPY_MEMORY_BYTES)  # noqa: SIM115 - `close` closes it
        with contextlib.closing(file):
            while piece := file.read(_COPY_MEMORY_BYTES):
                try:
                    self.quota.take(len(piece))
                except SpoolFullError:
                    raise RefusedError(_NO_ROOM) from None
                self._counted.append(len(piece))
                self._file.write(piece)


def fingerprint(filesystem: FS, path: str) -> Fingerprint:
    """Return what tells versions of a file apart if the filesystem has none. Raises `fs.errors`."""
    return fingerprint_of(filesystem.getinfo(path, ["details"]))


def fingerprint_of(info: Info) -> Fingerprint:
    """Return the fingerprint in the details of an `Info`."""
    details: Any = info.raw.get("details") or {}
    return int(details.get("size") or 0), details.get("modified")
