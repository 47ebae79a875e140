"""The extended requests that this server supports: their advertised names, and their implementations."""

from __future__ import annotations

import struct
from collections.abc import Callable

from fs.errors import FSError

from sftp_gateway.files.handles import MAX_READ, Handle, ReadHandle, WriteHandle
from sftp_gateway.files.tree import Rights, TreeView, normal
from sftp_gateway.sftp import packets
from sftp_gateway.sftp.attributes import GROUP_ID, GROUP_NAME, OWNER_ID, OWNER_NAME, line
from sftp_gateway.sftp.packets import NO_ATTRIBUTES, Extension, Status
from sftp_gateway.sftp.parsing import Request
from sftp_gateway.sftp.status import EndOfDataError, RefusedError

_SECOND_VERSIONS = (Extension.STATVFS, Extension.FSTATVFS)  # all others are the first

ADVERTISED_PACKET = 256 * 1024
ADVERTISED_DATA = ADVERTISED_PACKET - 1024  # what OpenSSH takes off for the rest of the packet
BLOCK_BYTES = 4096
_READ_ONLY_FLAG = 1
_MAX_NAME = 255
_LINE = line(NO_ATTRIBUTES, 0)  # what stands before a path alone in its long form


class Extensions:
    """Carries out extended requests for one channel. Owned by its `Operations`; raises what they map to a status."""

    def __init__(self, view: TreeView, find: Callable[[bytes], Handle], *, max_handles: int) -> None:
        self._view = view
        self._find = find
        self._max_handles = max_handles
        self._methods: dict[str, Callable[[Request], bytes]] = {
            Extension.POSIX_RENAME: self._posix_rename,
            Extension.STATVFS: self._statvfs,
            Extension.FSTATVFS: self._statvfs,
            Extension.LIMITS: self._limits,
            Extension.FSYNC: self._fsync,
            Extension.EXPAND_PATH: self._expand_path,
            Extension.HOME_DIRECTORY: self._home_directory,
            Extension.COPY_DATA: self._copy_data,
            Extension.USERS_GROUPS: self._users_groups,
        }

    def version(self) -> bytes:
        """Build the VERSION reply; may ask the filesystem for its abilities."""
        tells_usage = self._view.store.looking.has_usage()
        offered = (name for name in Extension if tells_usage or name not in _SECOND_VERSIONS)
        return packets.version((name, "2" if name in _SECOND_VERSIONS else "1") for name in offered)

    def perform(self, request: Request) -> bytes:
        """Carry out an extended request."""
        method = self._methods.get(request.extension)
        if method is None:
            raise RefusedError(f"extension {request.extension!r} is not supported", Status.OP_UNSUPPORTED)
        return method(request)

    def _posix_rename(self, request: Request) -> bytes:
        self._view.rename(request.path, request.target, replace=True)
        return packets.ok(request.id)

    def _statvfs(self, request: Request) -> bytes:
        if not self._view.store.looking.has_usage():
            raise RefusedError("the filesystem does not tell how full it is", Status.OP_UNSUPPORTED)
        if request.extension == Extension.FSTATVFS:
            self._find(request.handle)
        else:
            self._view.stat(request.path)
        total, used = self._view.usage()
        free = max(0, total - used) // BLOCK_BYTES
        is_read_only = self._view.rights is Rights.READ_ONLY or self._view.store.read_only
        flag = _READ_ONLY_FLAG if is_read_only else 0
        values = (BLOCK_BYTES, BLOCK_BYTES, total // BLOCK_BYTES, free, free, 0, 0, 0, 0, flag, _MAX_NAME)
        return packets.extended_reply(request.id, struct.pack(">11Q", *values))

    def _limits(self, request: Request) -> bytes:
        values = (ADVERTISED_PACKET, ADVERTISED_DATA, ADVERTISED_DATA, self._max_handles)
        return packets.extended_reply(request.id, struct.pack(">4Q", *values))

    def _fsync(self, request: Request) -> bytes:
        handle = self._find(request.handle)
        if isinstance(handle, WriteHandle):
            handle.sync()
        return packets.ok(request.id)

    def _expand_path(self, request: Request) -> bytes:
        path = request.path
        if path == "~" or path.startswith("~/"):
            path = path[1:]
        elif path.startswith("~"):
            raise RefusedError("other users' homes are not known", Status.NO_SUCH_FILE)
        return self.one_name(request.id, normal(path))

    def _home_directory(self, request: Request) -> bytes:
        return self.one_name(request.id, "/")

    def _users_groups(self, request: Request) -> bytes:
        users = _names_of(request.data, OWNER_ID, OWNER_NAME)
        groups = _names_of(request.more_data, GROUP_ID, GROUP_NAME)
        return packets.extended_reply(request.id, packets.string(users) + packets.string(groups))

    def _copy_data(self, request: Request) -> bytes:
        source, target = self._find(request.handle), self._find(request.target_handle)
        if not isinstance(target, WriteHandle) or not isinstance(source, (ReadHandle, WriteHandle)):
            raise RefusedError("not handles of files")
        if (source.draft if isinstance(source, WriteHandle) else source.source) is target.draft:  # it would never end
            raise RefusedError("a file cannot be copied onto itself")
        if isinstance(source, ReadHandle) and not (request.offset or request.target_offset or target.draft.size):
            try:
                if request.size == 0 or request.size >= source.size:
                    self._view.copy(source, target)
                    return packets.ok(request.id)
            except (RefusedError, FSError):
                pass  # changed, renamed or removed: copy the version that the handle has open, through the spool
        self._copy_through(source, target, request)
        return packets.ok(request.id)

    @staticmethod
    def _copy_through(source: ReadHandle | WriteHandle, target: WriteHandle, request: Request) -> None:
        offset, position, left = request.offset, request.target_offset, request.size or 2**63
        while left > 0:
            try:
                piece = source.read(offset, min(left, MAX_READ))
            except EndOfDataError:
                break
            target.write(position, piece)
            offset += len(piece)
            position += len(piece)
            left -= len(piece)

    @staticmethod
    def one_name(request_id: int, path: str) -> bytes:
        """Build the NAME reply that carries one path."""
        return packets.names(request_id, [packets.name_entry(path, _LINE, NO_ATTRIBUTES)])


def _names_of(ids: bytes, known: int, name: str) -> bytes:
    """Return the name of each id of a packed list, empty for those that are not `known`."""
    wanted = struct.unpack(f">{len(ids) // 4}I", ids[: len(ids) // 4 * 4])
    return b"".join(packets.string(name.encode() if number == known else b"") for number in wanted)
