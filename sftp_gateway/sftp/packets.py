"""SFTP version 3 on the wire: its numbers, attributes, and replies. Pure functions over bytes; no I/O.

Source of the format: draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL file for the extensions.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from typing import NamedTuple

VERSION = 3
MAX_PACKET = 260 * 1024  # what is accepted; OpenSSH takes 256 KiB, which is advertised, and some count content alone
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


class Extension(enum.StrEnum):
    """The extended requests that this server knows."""

    POSIX_RENAME = "posix-rename@openssh.com"
    STATVFS = "statvfs@openssh.com"
    FSTATVFS = "fstatvfs@openssh.com"
    LIMITS = "limits@openssh.com"
    FSYNC = "fsync@openssh.com"
    EXPAND_PATH = "expand-path@openssh.com"
    HOME_DIRECTORY = "home-directory"
    COPY_DATA = "copy-data"
    USERS_GROUPS = "users-groups-by-id@openssh.com"


class Status(enum.IntEnum):
    """The status codes of version 3 that this server sends."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    OP_UNSUPPORTED = 8


class OpenFlag(enum.IntEnum):
    """The pflags of OPEN; their unions are plain numbers."""

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


class Attributes(NamedTuple):
    """ATTRS of a file; None where a field is absent. Times are whole seconds since 1970, sizes bytes."""

    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    permissions: int | None = None
    atime: int | None = None
    mtime: int | None = None


NO_ATTRIBUTES = Attributes()


ALL_FIELDS = ATTR_SIZE | ATTR_UIDGID | ATTR_PERMISSIONS | ATTR_TIMES

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_HEAD = struct.Struct(">IBI")  # length, type, request id
_HEAD_NUMBER = struct.Struct(">IBII")  # and what a STATUS, DATA, HANDLE or NAME begins with
_ALL_ATTRIBUTES = struct.Struct(">IQIIIII")
_ATTRS = struct.Struct(">IBI IQIIIII")

_STATUS_KIND, _HANDLE_KIND, _DATA_KIND = int(Kind.STATUS), int(Kind.HANDLE), int(Kind.DATA)
_NAME_KIND, _ATTRS_KIND = int(Kind.NAME), int(Kind.ATTRS)


def string(value: bytes) -> bytes:
    """Encode a string."""
    return _U32.pack(len(value)) + value


def version(extensions: Iterable[tuple[str, str]]) -> bytes:
    """Build the VERSION reply."""
    body = _U32.pack(VERSION) + b"".join(string(name.encode()) + string(data.encode()) for name, data in extensions)
    return _U32.pack(1 + len(body)) + bytes((Kind.VERSION,)) + body


_OK_TAIL = string(b"OK") + string(b"en")


def ok(request_id: int) -> bytes:
    """Build the STATUS reply of success."""
    return _HEAD_NUMBER.pack(9 + len(_OK_TAIL), _STATUS_KIND, request_id, 0) + _OK_TAIL


def status(request_id: int, code: int, text: str) -> bytes:
    """Build a STATUS reply; `text` is shown to people."""
    tail = string(text.encode("utf-8", "replace")) + string(b"en")
    return _HEAD_NUMBER.pack(9 + len(tail), _STATUS_KIND, request_id, code) + tail


def handle(request_id: int, value: bytes) -> bytes:
    """Build a HANDLE reply."""
    return _HEAD_NUMBER.pack(9 + len(value), _HANDLE_KIND, request_id, len(value)) + value


def data_head(request_id: int, size: int) -> bytes:
    """Build what stands before the content of a DATA reply, so that large contents need not be copied."""
    return _HEAD_NUMBER.pack(9 + size, _DATA_KIND, request_id, size)


def data(request_id: int, content: bytes) -> bytes:
    """Build a DATA reply."""
    return data_head(request_id, len(content)) + content


def attributes(value: Attributes) -> bytes:
    """Encode ATTRS."""
    if None not in value:
        return _ALL_ATTRIBUTES.pack(ALL_FIELDS, *value)
    size, uid, gid, permissions, atime, mtime = value
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
    if None not in value:
        return _ATTRS.pack(37, _ATTRS_KIND, request_id, ALL_FIELDS, *value)
    body = attributes(value)
    return _HEAD.pack(5 + len(body), _ATTRS_KIND, request_id) + body


def name_entry(name: str, line: bytes, value: Attributes) -> bytes:
    """Encode one entry of a NAME reply; its longname is `line` and then the name."""
    try:
        filename = name.encode("utf-8", "surrogateescape")  # the very bytes that a disk has
    except UnicodeEncodeError:
        filename = name.encode("utf-8", "replace")
    size = len(filename)
    return b"".join(
        (_U32.pack(size), filename, _U32.pack(len(line) + size), line, filename, attributes(value)),
    )


def names(request_id: int, entries: list[bytes]) -> bytes:
    """Build a NAME reply from encoded entries, of which there must be at least one."""
    size = 9 + sum(map(len, entries))
    return b"".join((_HEAD_NUMBER.pack(size, _NAME_KIND, request_id, len(entries)), *entries))


def extended_reply(request_id: int, body: bytes) -> bytes:
    """Build an EXTENDED_REPLY."""
    return _HEAD.pack(5 + len(body), Kind.EXTENDED_REPLY, request_id) + body
