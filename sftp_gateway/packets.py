"""SFTP version 3 on the wire: requests parsed, replies built. Pure functions over bytes; no I/O.

Source of the format: draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL file for the extensions.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

VERSION = 3
MAX_PACKET = 2**20  # what is accepted; what is advertised is less
MAX_NAME = 4096 * 4  # longest path in bytes


class Kind(enum.IntEnum):
    """Types of packets."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    SETSTAT = 9
    FSETSTAT = 10
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    REALPATH = 16
    STAT = 17
    RENAME = 18
    READLINK = 19
    SYMLINK = 20
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Status(enum.IntEnum):
    """The status codes of version 3 that this server sends."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    OP_UNSUPPORTED = 8


class OpenFlag(enum.IntFlag):
    """The pflags of OPEN."""

    READ = 1
    WRITE = 2
    APPEND = 4
    CREAT = 8
    TRUNC = 16
    EXCL = 32


ATTR_SIZE = 1
ATTR_UIDGID = 2
ATTR_PERMISSIONS = 4
ATTR_TIMES = 8
ATTR_EXTENDED = 0x80000000


class PacketError(Exception):
    """A packet that does not follow the format; `request_id` is known when its header could be read."""

    def __init__(self, reason: str, request_id: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.request_id = request_id


class UndecodableNameError(PacketError):
    """A well-formed request for a name that is not UTF-8 or holds a NUL."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """ATTRS of a file; None where a field is absent. Times are whole seconds since 1970, sizes bytes."""

    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    permissions: int | None = None
    atime: int | None = None
    mtime: int | None = None


class Name(NamedTuple):
    """One entry of a NAME reply."""

    filename: str
    longname: str
    attributes: Attributes


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
    attributes: Attributes = field(default_factory=Attributes)
    extension: str = ""
    target_handle: bytes = b""  # copy-data
    target_offset: int = 0
    more_data: bytes = b""  # users-groups-by-id


_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_HEAD = struct.Struct(">IBI")  # length, type, request id
_STATUS_HEAD = struct.Struct(">IBII")
_ATTRS_ALL = struct.Struct(">IQIIIII")
ALL_FIELDS = ATTR_SIZE | ATTR_UIDGID | ATTR_PERMISSIONS | ATTR_TIMES


class Cursor:
    """Reads fields off a packet; raises `PacketError` where the packet is too short."""

    __slots__ = ("_data", "_position", "_request_id")

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data = data
        self._position = position
        self._request_id: int | None = None

    def u32(self) -> int:
        """Read a 32-bit number."""
        return int(_U32.unpack(self._take(4))[0])

    def u64(self) -> int:
        """Read a 64-bit number."""
        return int(_U64.unpack(self._take(8))[0])

    def string(self) -> bytes:
        """Read a string as bytes."""
        return self._take(self.u32())

    def request_id(self) -> int:
        """Read the request id, which later errors then carry."""
        self._request_id = self.u32()
        return self._request_id

    def name(self) -> str:
        """Read a path; raises `UndecodableNameError`."""
        raw = self.string()
        if len(raw) > MAX_NAME:
            raise UndecodableNameError("the path is too long", self._request_id)
        if b"\0" in raw:
            raise UndecodableNameError("the path holds a NUL character", self._request_id)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise UndecodableNameError("the path is not valid UTF-8", self._request_id) from None

    def attributes(self) -> Attributes:
        """Read ATTRS."""
        flags = self.u32()
        size = self.u64() if flags & ATTR_SIZE else None
        uid, gid = (self.u32(), self.u32()) if flags & ATTR_UIDGID else (None, None)
        permissions = self.u32() if flags & ATTR_PERMISSIONS else None
        atime, mtime = (self.u32(), self.u32()) if flags & ATTR_TIMES else (None, None)
        if flags & ATTR_EXTENDED:
            for _ in range(self.u32()):
                self.string()
                self.string()
        return Attributes(size, uid, gid, permissions, atime, mtime)

    @property
    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self._position >= len(self._data)

    def _take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._data):
            raise PacketError("the packet is too short", self._request_id)
        piece = self._data[self._position : end]
        self._position = end
        return piece


def parse(packet: bytes) -> Request:
    """Parse a packet without its length; raises `PacketError`. Of unknown types only kind and id are read."""
    if not packet:
        raise PacketError("the packet is empty")
    kind = packet[0]
    cursor = Cursor(packet, 1)
    if kind == Kind.INIT:
        return Request(kind, cursor.u32())
    request = Request(kind, cursor.request_id())
    read_fields = _FIELDS.get(kind)
    if read_fields is not None:
        read_fields(cursor, request)
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
    request.target = cursor.name()


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
    "posix-rename@openssh.com": _two_paths,
    "statvfs@openssh.com": _path,
    "fstatvfs@openssh.com": _handle,
    "fsync@openssh.com": _handle,
    "expand-path@openssh.com": _path,
    "home-directory": _path,
    "copy-data": _copy_data,
    "users-groups-by-id@openssh.com": _two_lists,
}


def string(value: bytes) -> bytes:
    """Encode a string."""
    return _U32.pack(len(value)) + value


def version(extensions: Iterable[tuple[str, str]]) -> bytes:
    """Build the VERSION reply."""
    body = _U32.pack(VERSION) + b"".join(string(name.encode()) + string(data.encode()) for name, data in extensions)
    return _U32.pack(1 + len(body)) + bytes((Kind.VERSION,)) + body


_OK_TAIL = string(b"OK") + string(b"en")


def status(request_id: int, code: int, text: str = "") -> bytes:
    """Build a STATUS reply; `text` is shown to people."""
    tail = _OK_TAIL if not text else string(text.encode("utf-8", "replace")) + string(b"en")
    return _STATUS_HEAD.pack(9 + len(tail), Kind.STATUS, request_id, code) + tail


def handle(request_id: int, value: bytes) -> bytes:
    """Build a HANDLE reply."""
    return _HEAD.pack(9 + len(value), Kind.HANDLE, request_id) + _U32.pack(len(value)) + value


_DATA_HEAD = struct.Struct(">IBII")


def data(request_id: int, content: bytes) -> bytes:
    """Build a DATA reply."""
    return _DATA_HEAD.pack(9 + len(content), Kind.DATA, request_id, len(content)) + content


def attributes(value: Attributes) -> bytes:
    """Encode ATTRS."""
    size, uid, gid, permissions, atime, mtime = (
        value.size,
        value.uid,
        value.gid,
        value.permissions,
        value.atime,
        value.mtime,
    )
    if None not in (size, uid, gid, permissions, atime, mtime):
        return _ATTRS_ALL.pack(ALL_FIELDS, size, uid, gid, permissions, atime, mtime)
    flags = 0
    body = b""
    if size is not None:
        flags |= ATTR_SIZE
        body += _U64.pack(size)
    if uid is not None and gid is not None:
        flags |= ATTR_UIDGID
        body += _U32.pack(uid) + _U32.pack(gid)
    if permissions is not None:
        flags |= ATTR_PERMISSIONS
        body += _U32.pack(permissions)
    if atime is not None and mtime is not None:
        flags |= ATTR_TIMES
        body += _U32.pack(atime) + _U32.pack(mtime)
    return _U32.pack(flags) + body


def attrs(request_id: int, value: Attributes) -> bytes:
    """Build an ATTRS reply."""
    body = attributes(value)
    return _HEAD.pack(5 + len(body), Kind.ATTRS, request_id) + body


def name_entry(entry: Name) -> bytes:
    """Encode one entry of a NAME reply."""
    filename = entry.filename.encode("utf-8", "replace")
    longname = entry.longname.encode("utf-8", "replace")
    return b"".join(
        (_U32.pack(len(filename)), filename, _U32.pack(len(longname)), longname, attributes(entry.attributes))
    )


def names(request_id: int, entries: list[bytes]) -> bytes:
    """Build a NAME reply from encoded entries, of which there must be at least one."""
    body = b"".join(entries)
    return _HEAD.pack(9 + len(body), Kind.NAME, request_id) + _U32.pack(len(entries)) + body


def extended_reply(request_id: int, body: bytes) -> bytes:
    """Build an EXTENDED_REPLY."""
    return _HEAD.pack(5 + len(body), Kind.EXTENDED_REPLY, request_id) + body
