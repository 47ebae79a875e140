"""SFTP requests, parsed. Pure functions over bytes; no I/O.

Source of the format: draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL file for the extensions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from sftp_gateway.sftp.packets import (
    ATTR_EXTENDED,
    ATTR_PERMISSIONS,
    ATTR_SIZE,
    ATTR_TIMES,
    ATTR_UIDGID,
    MAX_NAME,
    NO_ATTRIBUTES,
    Attributes,
    Extension,
    Kind,
)


class PacketError(Exception):
    """A packet that does not follow the format; `request_id` is known when its header could be read."""

    def __init__(self, reason: str, request_id: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.request_id = request_id


@dataclass(slots=True)
class Request:
    """One parsed request; which fields count depends on its kind."""

    kind: int
    id: int
    handle: bytes = b""
    path: str = ""
    target: str = ""  # RENAME, extensions with two paths
    offset: int = 0
    size: int = 0
    data: bytes = b""
    flags: int = 0
    attributes: Attributes = NO_ATTRIBUTES
    extension: str = ""
    target_handle: bytes = b""  # copy-data
    target_offset: int = 0
    more_data: bytes = b""  # users-groups-by-id
    wrong_name: str = ""  # what is wrong with a path, which is then only fit to be shown


_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_HEAD = struct.Struct(">BI")  # kind, request id
_SHOWN = 100  # bytes of a path that is too long


class Cursor:
    """Reads fields off a packet; raises `PacketError` where the packet is too short."""

    __slots__ = ("_data", "_position", "_request_id", "wrong_name")
    takes_any_bytes = False

    def __init__(self, data: bytes, position: int = 0, request_id: int | None = None) -> None:
        """Begin at `position`; errors carry the `request_id`."""
        self._data = data
        self._position = position
        self._request_id = request_id
        self.wrong_name = ""

    def u32(self) -> int:
        """Read a 32-bit number."""
        return self._number(_U32)

    def u64(self) -> int:
        """Read a 64-bit number."""
        return self._number(_U64)

    def string(self) -> bytes:
        """Read a string as bytes."""
        start = self._position + 4
        end = start + self._number(_U32)
        if end > len(self._data):
            raise self._too_short()
        self._position = end
        return self._data[start:end]

    def name(self) -> str:
        """Read a path. If it is invalid, `wrong_name` tells why, and the result is only fit to be shown."""
        raw = self.string()
        if len(raw) > MAX_NAME:
            self.wrong_name, raw = "the path is too long", raw[:_SHOWN] + b"..."
        elif 0 in raw:
            self.wrong_name, raw = "the path holds a NUL character", raw.replace(b"\0", b"\\0")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            if self.takes_any_bytes and not self.wrong_name:
                return raw.decode("utf-8", "surrogateescape")
            self.wrong_name = self.wrong_name or "the path is not valid UTF-8"
            return raw.decode("utf-8", "backslashreplace")

    def attributes(self) -> Attributes:
        """Read ATTRS."""
        flags = self._number(_U32)
        if not flags:
            return NO_ATTRIBUTES
        size = self._number(_U64) if flags & ATTR_SIZE else None
        uid, gid = (self._number(_U32), self._number(_U32)) if flags & ATTR_UIDGID else (None, None)
        permissions = self._number(_U32) if flags & ATTR_PERMISSIONS else None
        atime, mtime = (self._number(_U32), self._number(_U32)) if flags & ATTR_TIMES else (None, None)
        if flags & ATTR_EXTENDED:
            for _ in range(self._number(_U32)):
                self.string()
                self.string()
        return Attributes(size, uid, gid, permissions, atime, mtime)

    @property
    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self._position >= len(self._data)

    def _number(self, layout: struct.Struct) -> int:
        try:
            number: int = layout.unpack_from(self._data, self._position)[0]
        except struct.error:
            raise self._too_short() from None
        self._position += layout.size
        return number

    def _too_short(self) -> PacketError:
        return PacketError("the packet is too short", self._request_id)


class ByteCursor(Cursor):
    """Reads paths that are not UTF-8, too, as Python has those of a disk."""

    __slots__ = ()
    takes_any_bytes = True


def parse(packet: bytes, make_cursor: type[Cursor] = Cursor) -> Request:
    """Parse a packet without its length; raises `PacketError`. Of unknown types only kind and id are read."""
    try:
        kind, request_id = _HEAD.unpack_from(packet)
    except struct.error:
        raise PacketError("the packet is too short" if packet else "the packet is empty") from None
    request = Request(kind, request_id)
    read_fields = _FIELDS.get(kind)
    if read_fields is not None:
        cursor = make_cursor(packet, _HEAD.size, request_id)
        read_fields(cursor, request)
        request.wrong_name = cursor.wrong_name
    return request


def _handle(cursor: Cursor, request: Request) -> None:
    request.handle = cursor.string()


def _path(cursor: Cursor, request: Request) -> None:
    request.path = cursor.name()


def _open(cursor: Cursor, request: Request) -> None:
    request.path = cursor.name()
    request.flags = cursor.u32()
    request.attributes = cursor.attributes()


def _read(cursor: Cursor, request: Request) -> None:
    request.handle = cursor.string()
    request.offset = cursor.u64()
    request.size = cursor.u32()


def _write(cursor: Cursor, request: Request) -> None:
    request.handle = cursor.string()
    request.offset = cursor.u64()
    request.data = cursor.string()


def _path_attributes(cursor: Cursor, request: Request) -> None:
    request.path = cursor.name()
    request.attributes = cursor.attributes()


def _mkdir(cursor: Cursor, request: Request) -> None:
    request.path = cursor.name()
    if not cursor.at_end:  # some clients leave the attributes out
        request.attributes = cursor.attributes()


def _handle_attributes(cursor: Cursor, request: Request) -> None:
    request.handle = cursor.string()
    request.attributes = cursor.attributes()


def _two_paths(cursor: Cursor, request: Request) -> None:
    request.path = cursor.name()
    if not cursor.wrong_name:
        _target(cursor, request)


def _target(cursor: Cursor, request: Request) -> None:
    request.target = cursor.name()
    if cursor.wrong_name:
        cursor.wrong_name = f"to {request.target}: {cursor.wrong_name}"


def _copy_data(cursor: Cursor, request: Request) -> None:
    request.handle = cursor.string()
    request.offset = cursor.u64()
    request.size = cursor.u64()
    request.target_handle = cursor.string()
    request.target_offset = cursor.u64()


def _two_lists(cursor: Cursor, request: Request) -> None:
    request.data = cursor.string()
    request.more_data = cursor.string()


def _extended(cursor: Cursor, request: Request) -> None:
    request.extension = cursor.string().decode("ascii", "replace")
    read_fields = _EXTENSION_FIELDS.get(request.extension)
    if read_fields is not None:
        read_fields(cursor, request)


_FIELDS: dict[int, Callable[[Cursor, Request], None]] = {
    Kind.OPEN: _open,
    Kind.CLOSE: _handle,
    Kind.READ: _read,
    Kind.WRITE: _write,
    Kind.LSTAT: _path,
    Kind.FSTAT: _handle,
    Kind.SETSTAT: _path_attributes,
    Kind.FSETSTAT: _handle_attributes,
    Kind.OPENDIR: _path,
    Kind.READDIR: _handle,
    Kind.REMOVE: _path,
    Kind.MKDIR: _mkdir,
    Kind.RMDIR: _path,
    Kind.REALPATH: _path,
    Kind.STAT: _path,
    Kind.RENAME: _two_paths,
    Kind.READLINK: _path,
    Kind.SYMLINK: _two_paths,
    Kind.EXTENDED: _extended,
}

_EXTENSION_FIELDS: dict[str, Callable[[Cursor, Request], None]] = {
    Extension.POSIX_RENAME: _two_paths,
    Extension.STATVFS: _path,
    Extension.FSTATVFS: _handle,
    Extension.FSYNC: _handle,
    Extension.EXPAND_PATH: _path,
    Extension.HOME_DIRECTORY: _path,
    Extension.COPY_DATA: _copy_data,
    Extension.USERS_GROUPS: _two_lists,
}
