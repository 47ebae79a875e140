"""`AtOnce`: answers requests in the thread that receives them, which must not wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from sftp_gateway.files.directory_handle import DirectoryHandle
from sftp_gateway.files.handles import Handle, WriteHandle
from sftp_gateway.files.tree import TreeView
from sftp_gateway.requests.operations import SETTLED, Operations
from sftp_gateway.sftp import packets
from sftp_gateway.sftp.packets import Kind
from sftp_gateway.sftp.parsing import Request
from sftp_gateway.sftp.status import NotAtOnceError

SMALL_COMMIT_BYTES: Final = 2**20
SLOW_SECONDS: Final = 0.02
"""How long a session may block for its local disk; after a slower commit, workers commit for a while."""
_CAUTIOUS_SECONDS: Final = 1.0


class AtOnce:
    """Answers those requests of one channel that need only what is in memory, or a local disk.

    Owned by an `SFTPChannel`; called only by the thread that receives requests.
    """

    def __init__(self, operations: Operations, view: TreeView, *, give_way: Callable[[], None] = lambda: None) -> None:
        """`give_way` is called before waiting for the disk."""
        self._operations = operations
        self._view = view
        self._give_way = give_way
        self._handles = operations.handles
        self._listed: Handle | None = None  # what was listed last
        self._cautious_until = 0.0
        carry_out = operations.carry_out
        self._methods: dict[int, Callable[[Request], bytes | None]] = {
            Kind.REALPATH: carry_out,
            Kind.WRITE: carry_out,
            Kind.STAT: self._stat,
            Kind.LSTAT: self._stat,
            Kind.READ: self._read,
            Kind.FSTAT: self._fstat,
            Kind.FSETSTAT: self._fsetstat,
            Kind.READDIR: self._readdir,
            Kind.CLOSE: self._close,
        }
        if view.store.local:
            self._methods |= dict.fromkeys(SETTLED, self._settled)
        else:
            self._methods |= {Kind.OPEN: self._open_new, Kind.OPENDIR: self._opendir}

    def answer(self, request: Request) -> bytes | None:
        """Return the reply if that is possible without waiting, else None."""
        method = self._methods.get(request.kind)
        if method is None:
            return None
        try:
            return method(request)
        except Exception as error:  # noqa: BLE001 - whatever fails, the client gets a status, and the session lives on
            return self._operations.failure(request, error)

    def content(self, handle_id: bytes, offset: int, size: int) -> bytes | None:
        """Return the bytes that a READ asks for if they are in memory, else None; raises as the handle's `read`."""
        return self._operations.readable(handle_id).read_now(offset, size)

    def look_ahead(self) -> None:
        """Prepare the client's next request while it is busy with the last reply."""
        listed, self._listed = self._listed, None
        if isinstance(listed, DirectoryHandle):
            listed.look_ahead()

    # -- one method for each request

    def _stat(self, request: Request) -> bytes | None:
        found = self._view.quick_stat(request.path)
        return None if found is None else packets.attrs(request.id, found)

    def _read(self, request: Request) -> bytes | None:
        content = self.content(request.handle, request.offset, request.size)
        return None if content is None else packets.data(request.id, content)

    def _open_new(self, request: Request) -> bytes | None:
        self._operations.check_room()
        handle = self._view.open_new_at_once(request.path, request.flags, request.attributes)
        return None if handle is None else self._operations.keep(request.id, handle)

    def _opendir(self, request: Request) -> bytes | None:
        self._operations.check_room()
        handle = self._view.open_directory_at_once(request.path)
        return None if handle is None else self._operations.keep(request.id, handle)

    def _fstat(self, request: Request) -> bytes | None:
        found = self._operations.find(request.handle).attributes_now()
        return None if found is None else packets.attrs(request.id, found)

    def _fsetstat(self, request: Request) -> bytes | None:
        is_written = isinstance(self._handles.get(request.handle), WriteHandle)
        return self._operations.carry_out(request) if is_written else None

    def _readdir(self, request: Request) -> bytes | None:
        handle = self._handles.get(request.handle)
        if isinstance(handle, DirectoryHandle) and not (handle.at_hand or handle.at_end):
            return None
        self._listed = handle
        return self._operations.carry_out(request)

    def _close(self, request: Request) -> bytes | None:
        handle = self._handles.get(request.handle)
        if not isinstance(handle, DirectoryHandle):
            if not self._view.store.local:
                return self._acknowledge(request, handle) if isinstance(handle, WriteHandle) else None
            if isinstance(handle, WriteHandle) and handle.draft.size > SMALL_COMMIT_BYTES:
                return None
            if handle is not None and not self._view.is_settled(handle.path):
                return None
        return self._operations.carry_out(request)

    def _acknowledge(self, request: Request, handle: WriteHandle) -> bytes | None:
        """Commit a file to the journal on local disk, unless the disk has been slow lately."""
        begun = time.monotonic()
        if not self._view.acknowledges_at_once or begun < self._cautious_until:
            return None
        self._give_way()
        try:
            return self._operations.close(request, partial(handle.close, at_once=True))
        except NotAtOnceError:
            return None
        finally:
            if time.monotonic() - begun > SLOW_SECONDS:
                self._cautious_until = time.monotonic() + _CAUTIOUS_SECONDS

    def _settled(self, request: Request) -> bytes | None:
        """Answer unless another request is changing one of the paths."""
        if not self._view.is_settled(request.path) or (request.target and not self._view.is_settled(request.target)):
            return None
        return self._operations.carry_out(request)
