"""`Operations`: one short method for each SFTP request."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator

from sftp_gateway.files.directory_handle import DirectoryHandle
from sftp_gateway.files.folding import moved, related
from sftp_gateway.files.handles import Handle, ReadHandle, WriteHandle
from sftp_gateway.files.tree import TreeView, normal
from sftp_gateway.requests.extensions import Extensions
from sftp_gateway.requests.failures import Failures
from sftp_gateway.requests.ordering import Claims, Level
from sftp_gateway.sftp import packets
from sftp_gateway.sftp.events import Events, Transfer
from sftp_gateway.sftp.packets import Attributes, Extension, Kind, OpenFlag, Status
from sftp_gateway.sftp.parsing import Request
from sftp_gateway.sftp.status import NotAtOnceError, RefusedError, status_of

logger = logging.getLogger(__name__)

_LOOKING = {Kind.STAT, Kind.LSTAT, Kind.OPENDIR, Kind.READLINK}
_NAMING = {Kind.MKDIR, Kind.RMDIR, Kind.REMOVE, Kind.RENAME}
SETTLED = {Kind.OPEN, Kind.OPENDIR, Kind.SETSTAT, *_NAMING}


class Operations:
    """Carries out the requests of one channel and builds their replies.

    Owned by an `SFTPChannel`, which keeps the order. Thread-safe as far as that lets requests run at once.
    """

    def __init__(
        self,
        view: TreeView,
        events: Events,
        failures: Failures,
        *,
        max_handles: int,
        count_handles: Callable[[], int] | None = None,
    ) -> None:
        """`count_handles` counts the handles of all channels that share `max_handles`; None: only this channel's."""
        self._failures = failures
        self._view = view
        self._events = events
        self._max_handles = max_handles
        self._count_handles = count_handles or (lambda: len(self.handles))
        self._numbers = itertools.count(1)
        self.handles: dict[bytes, Handle] = {}
        self._extensions = Extensions(view, self.find, max_handles=max_handles)
        self._methods = self._table()

    def claims(self, request: Request) -> Claims:
        """Return the handles and paths that a request needs to itself."""
        kind, key = request.kind, self._view.key
        if kind in _LOOKING or request.extension == Extension.STATVFS:
            return Claims(paths=((key(request.path), Level.LOOK),))
        if kind == Kind.OPEN:
            writes = request.flags & ~OpenFlag.READ
            return Claims(paths=((key(request.path), Level.WRITE if writes else Level.LOOK),))
        if kind == Kind.SETSTAT:
            return Claims(paths=((key(request.path), Level.WRITE),))
        if kind == Kind.RENAME or request.extension == Extension.POSIX_RENAME:
            for renamed, path in self._renamed(request):
                renamed.expect(path)  # its CLOSE is ordered before later requests for that path
            return Claims(paths=((key(request.path), Level.NAME), (key(request.target), Level.NAME)))
        if kind in _NAMING:
            return Claims(paths=((key(request.path), Level.NAME),))
        if request.extension == Extension.COPY_DATA:
            return Claims(handles=tuple({request.handle, request.target_handle}))
        if not request.handle:
            return Claims()
        handle = self.handles.get(request.handle)
        if kind == Kind.CLOSE and isinstance(handle, WriteHandle):
            paths = tuple((path, Level.WRITE) for path in {key(path) for path in handle.paths})
            return Claims(handles=(request.handle,), paths=paths)
        if kind == Kind.READ:
            reads_ahead = isinstance(handle, ReadHandle) and handle.reads_ahead
            return Claims(handles=(request.handle,), shared=True, in_turn=reads_ahead)
        return Claims(handles=(request.handle,))

    def answer(self, request: Request) -> bytes:
        """Carry out a request, however long it takes, and return the reply."""
        try:
            try:
                return self.carry_out(request)
            except Exception as error:
                if not self._may_be_there(request, error):
                    raise
            return self.carry_out(request)
        except Exception as error:  # noqa: BLE001 - whatever fails, the client gets a status, and the session lives on
            return self.failure(request, error)

    def carry_out(self, request: Request) -> bytes:
        """Do what `answer` does, but raise errors."""
        return self._methods.get(request.kind, self._unknown)(request)

    def _may_be_there(self, request: Request, error: Exception) -> bool:
        """Return whether another process of the gateway may just have created what a request did not find."""
        if request.kind not in SETTLED and request.extension != Extension.POSIX_RENAME:
            return False
        is_missing = status_of(error)[0] == Status.NO_SUCH_FILE
        return is_missing and self._view.doubt(*filter(None, (request.path, request.target)))

    def failure(self, request: Request, error: BaseException) -> bytes:
        """Return the STATUS reply for an error, and note it."""
        handle = self.handles.get(request.handle)
        path = request.path or (handle.path if handle is not None else "")
        return self._failures.reply(request, path, error, handle)

    def abort_all(self) -> None:
        """Abort every handle that is still open: nothing is committed."""
        while self.handles:
            with contextlib.suppress(KeyError):
                _, handle = self.handles.popitem()
                try:
                    self._log(handle.abort())
                except Exception:
                    logger.exception("a handle could not be let go")

    # -- one method for each request

    def _table(self) -> dict[int, Callable[[Request], bytes]]:
        return {
            Kind.INIT: self._init,
            Kind.OPEN: self._open,
            Kind.CLOSE: self._close,
            Kind.READ: self._read,
            Kind.WRITE: self._write,
            Kind.STAT: self._stat,
            Kind.LSTAT: self._stat,
            Kind.FSTAT: self._fstat,
            Kind.SETSTAT: self._setstat,
            Kind.FSETSTAT: self._fsetstat,
            Kind.OPENDIR: self._opendir,
            Kind.READDIR: self._readdir,
            Kind.REMOVE: self._remove,
            Kind.MKDIR: self._mkdir,
            Kind.RMDIR: self._rmdir,
            Kind.REALPATH: self._realpath,
            Kind.RENAME: self._rename,
            Kind.READLINK: self._readlink,
            Kind.SYMLINK: self._symlink,
            Kind.EXTENDED: self._extended,
        }

    def _init(self, _request: Request) -> bytes:
        return self._extensions.version()

    def _unknown(self, request: Request) -> bytes:
        raise RefusedError(f"request type {request.kind} is not supported", Status.OP_UNSUPPORTED)

    def _open(self, request: Request) -> bytes:
        self.check_room()
        return self.keep(request.id, self._view.open(request.path, request.flags, request.attributes))

    def _opendir(self, request: Request) -> bytes:
        self.check_room()
        return self.keep(request.id, self._view.open_directory(request.path))

    def _close(self, request: Request) -> bytes:
        return self.close(request, self.find(request.handle).close)

    def close(self, request: Request, close: Callable[[], Transfer | None]) -> bytes:
        """Carry out a CLOSE by calling `close`. Passes its `NotAtOnceError` on; nothing has changed then."""
        handle = self.handles.pop(request.handle)  # the handle ends, whatever happens
        try:
            transfer = close()
        except NotAtOnceError:
            self.handles[request.handle] = handle
            raise
        except Exception as error:  # noqa: BLE001 - as in `answer`
            if isinstance(handle, WriteHandle):
                self._view.lost(handle)
                self._log(handle.failed(status_of(error)[1]))
            return self._failures.reply(request, handle.path, error, handle)
        self._log(transfer)
        return packets.ok(request.id)

    def _read(self, request: Request) -> bytes:
        return packets.data(request.id, self.readable(request.handle).read(request.offset, request.size))

    def _write(self, request: Request) -> bytes:
        handle = self.find(request.handle)
        if not isinstance(handle, WriteHandle):
            raise RefusedError("the file is open for reading only", Status.PERMISSION_DENIED)
        handle.write(request.offset, request.data)
        return packets.ok(request.id)

    def _stat(self, request: Request) -> bytes:
        return packets.attrs(request.id, self._view.stat(request.path))

    def _fstat(self, request: Request) -> bytes:
        return packets.attrs(request.id, self.find(request.handle).attributes())

    def _setstat(self, request: Request) -> bytes:
        self._view.set_attributes(request.path, request.attributes)
        return packets.ok(request.id)

    def _fsetstat(self, request: Request) -> bytes:
        handle = self.find(request.handle)
        wished = request.attributes
        if isinstance(handle, WriteHandle):
            if wished.size is not None:
                handle.truncate(wished.size)
            if wished.mtime is not None:
                handle.set_modified(wished.mtime)
        elif wished.size is not None:
            raise RefusedError("the file is open for reading only")
        elif wished.mtime is not None:
            self._view.set_attributes(handle.path, Attributes(mtime=wished.mtime))
        return packets.ok(request.id)

    def _readdir(self, request: Request) -> bytes:
        handle = self.find(request.handle)
        if not isinstance(handle, DirectoryHandle):
            raise RefusedError("not a handle of a directory")
        return packets.names(request.id, handle.next_batch())

    def _remove(self, request: Request) -> bytes:
        self._view.remove(request.path)
        self._events.on_remove(normal(request.path), directory=False)
        return packets.ok(request.id)

    def _mkdir(self, request: Request) -> bytes:
        self._view.mkdir(request.path)
        self._events.on_mkdir(normal(request.path))
        return packets.ok(request.id)

    def _rmdir(self, request: Request) -> bytes:
        self._view.rmdir(request.path)
        self._events.on_remove(normal(request.path), directory=True)
        return packets.ok(request.id)

    def _realpath(self, request: Request) -> bytes:
        return self._extensions.one_name(request.id, normal(request.path))

    def _rename(self, request: Request) -> bytes:
        self._view.rename(request.path, request.target, replace=False)
        self._note_rename(request)
        return packets.ok(request.id)

    def _readlink(self, request: Request) -> bytes:
        self._view.stat(request.path)
        raise RefusedError("is no symbolic link")

    def _symlink(self, _request: Request) -> bytes:
        raise RefusedError("the storage has no symbolic links", Status.OP_UNSUPPORTED)

    def _extended(self, request: Request) -> bytes:
        reply = self._extensions.perform(request)
        if request.extension == Extension.POSIX_RENAME:
            self._note_rename(request)
        return reply

    # -- within

    def readable(self, handle_id: bytes) -> ReadHandle | WriteHandle:
        """Return the handle of a file."""
        handle = self.find(handle_id)
        if not isinstance(handle, (ReadHandle, WriteHandle)):
            raise RefusedError("not a handle of a file")
        return handle

    def find(self, handle_id: bytes) -> Handle:
        handle = self.handles.get(handle_id)
        if handle is None:
            raise RefusedError("no such handle")
        return handle

    def keep(self, request_id: int, handle: Handle) -> bytes:
        number = next(self._numbers)  # sent as four ASCII bytes: russh (Tabby) loses handles that are not UTF-8
        handle.id = bytes((number >> 21 & 127, number >> 14 & 127, number >> 7 & 127, number & 127))
        self.handles[handle.id] = handle
        return packets.handle(request_id, handle.id)

    def _note_rename(self, request: Request) -> None:
        for handle, path in self._renamed(request):
            handle.path = path
            handle.expect(path)
        self._events.on_rename(normal(request.path), normal(request.target))

    def _renamed(self, request: Request) -> Iterator[tuple[WriteHandle, str]]:
        """Yield the handles that write at or below the source of a rename, each with its new path."""
        source, target, key = normal(request.path), normal(request.target), self._view.key
        for handle in list(self.handles.values()):
            if isinstance(handle, WriteHandle) and related(key(handle.path), key(source)):
                yield handle, moved(handle.path, source, target)

    def check_room(self) -> None:
        if self._count_handles() >= self._max_handles:
            raise RefusedError(f"more than {self._max_handles} handles are open")

    def _log(self, transfer: Transfer | None) -> None:
        if transfer is not None:
            self._events.on_transfer(transfer)
