"""An SFTP client that speaks packets: whatever order, whatever flags, as many requests in flight as a test wants."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import paramiko

from sftp_gateway.sftp.packets import Attributes, Kind, OpenFlag, attributes
from sftp_gateway.sftp.parsing import Cursor

DEADLINE_SECONDS = 30.0

W = OpenFlag.WRITE
R = OpenFlag.READ
C = OpenFlag.CREAT
T = OpenFlag.TRUNC
X = OpenFlag.EXCL
A = OpenFlag.APPEND


@dataclass
class Reply:
    """One reply, parsed by its type."""

    kind: int
    id: int
    arrived: float
    code: int = -1
    text: str = ""
    handle: bytes = b""
    data: bytes = b""
    names: list[tuple[str, str, Attributes]] = field(default_factory=list)
    attributes: Attributes = field(default_factory=Attributes)

    @property
    def ok(self) -> bool:
        return self.kind == Kind.STATUS and self.code == 0

    def __repr__(self) -> str:
        shown = {Kind.STATUS: f"{self.code} {self.text!r}", Kind.DATA: f"{len(self.data)} bytes"}.get(
            Kind(self.kind), ""
        )
        return f"<{Kind(self.kind).name} {self.id} {shown}>"


def s(value: str | bytes) -> bytes:
    """Encode a string."""
    raw = value.encode(errors="surrogateescape") if isinstance(value, str) else value
    return struct.pack(">I", len(raw)) + raw


def a(**fields: int) -> bytes:
    """Encode ATTRS."""
    return attributes(Attributes(**fields))


def parsed(body: bytes) -> Reply:
    """Parse a reply, but for its length."""
    cursor = Cursor(body, 1)
    reply = Reply(body[0], cursor.u32(), time.monotonic())
    if reply.kind == Kind.STATUS:
        reply.code, reply.text = cursor.u32(), cursor.string().decode()
    elif reply.kind == Kind.HANDLE:
        reply.handle = cursor.string()
    elif reply.kind == Kind.DATA:
        reply.data = cursor.string()
    elif reply.kind == Kind.ATTRS:
        reply.attributes = cursor.attributes()
    elif reply.kind == Kind.NAME:
        count = cursor.u32()
        assert count > 0, "an empty NAME"
        reply.names = [(_name(cursor), _name(cursor), cursor.attributes()) for _ in range(count)]
    else:
        reply.data = body[5:]
    return reply


def _name(cursor: Cursor) -> str:
    return cursor.string().decode(errors="surrogateescape")


class RawClient:
    """Sends requests and collects replies in the order of their arrival."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self.channel = channel
        channel.settimeout(DEADLINE_SECONDS)
        self._ids = 0
        self._buffer = b""
        self._lock = threading.Lock()
        self.replies: dict[int, Reply] = {}
        self.order: list[int] = []
        self.version = 0
        self.extensions: dict[str, str] = {}

    def init(self, version: int = 3) -> RawClient:
        self.send_packet(bytes([Kind.INIT]) + struct.pack(">I", version))
        body = self._packet()
        assert body[0] == Kind.VERSION
        cursor = Cursor(body, 1)
        self.version = cursor.u32()
        while not cursor.at_end:
            name = cursor.string().decode()
            self.extensions[name] = cursor.string().decode()
        return self

    # -- sending

    def send_packet(self, body: bytes) -> None:
        self.channel.sendall(struct.pack(">I", len(body)) + body)

    def send(self, kind: int, *fields: bytes) -> int:
        """Send a request without waiting; return its id."""
        self._ids += 1
        self.send_packet(bytes([kind]) + struct.pack(">I", self._ids) + b"".join(fields))
        return self._ids

    def open(self, path: str | bytes, flags: int, attrs: bytes = b"\0\0\0\0") -> int:
        return self.send(Kind.OPEN, s(path), struct.pack(">I", flags), attrs)

    def close(self, handle: bytes) -> int:
        return self.send(Kind.CLOSE, s(handle))

    def read(self, handle: bytes, offset: int, size: int) -> int:
        return self.send(Kind.READ, s(handle), struct.pack(">QI", offset, size))

    def write(self, handle: bytes, offset: int, data: bytes) -> int:
        return self.send(Kind.WRITE, s(handle), struct.pack(">Q", offset), s(data))

    def path(self, kind: int, path: str | bytes) -> int:
        return self.send(kind, s(path))

    def lstat(self, path: str) -> int:
        return self.send(Kind.LSTAT, s(path))

    def stat(self, path: str) -> int:
        return self.send(Kind.STAT, s(path))

    def fstat(self, handle: bytes) -> int:
        return self.send(Kind.FSTAT, s(handle))

    def setstat(self, path: str, **fields: int) -> int:
        return self.send(Kind.SETSTAT, s(path), a(**fields))

    def fsetstat(self, handle: bytes, **fields: int) -> int:
        return self.send(Kind.FSETSTAT, s(handle), a(**fields))

    def mkdir(self, path: str) -> int:
        return self.send(Kind.MKDIR, s(path), b"\0\0\0\0")

    def remove(self, path: str) -> int:
        return self.send(Kind.REMOVE, s(path))

    def rmdir(self, path: str) -> int:
        return self.send(Kind.RMDIR, s(path))

    def rename(self, source: str, target: str) -> int:
        return self.send(Kind.RENAME, s(source), s(target))

    def extended(self, name: str, *fields: bytes) -> int:
        return self.send(Kind.EXTENDED, s(name), *fields)

    def posix_rename(self, source: str, target: str) -> int:
        return self.extended("posix-rename@openssh.com", s(source), s(target))

    # -- receiving

    def wait(self, request: int, *, seconds: float = DEADLINE_SECONDS) -> Reply:
        """Return the reply to a request."""
        until = time.monotonic() + seconds
        while request not in self.replies:
            self._receive(max(0.001, until - time.monotonic()))
        return self.replies[request]

    def all(self, requests: list[int]) -> list[Reply]:
        return [self.wait(request) for request in requests]

    def is_answered(self, request: int, *, within: float) -> bool:
        """Tell whether a reply comes in time."""
        try:
            self.wait(request, seconds=within)
        except TimeoutError:
            return False
        return True

    def _receive(self, seconds: float) -> None:
        body = self._packet(seconds)
        reply = parsed(body)
        assert reply.id not in self.replies, f"two replies to {reply.id}"
        self.replies[reply.id] = reply
        self.order.append(reply.id)

    def _packet(self, seconds: float = DEADLINE_SECONDS) -> bytes:
        head = self._exactly(4, seconds)
        return self._exactly(struct.unpack(">I", head)[0], DEADLINE_SECONDS)

    def _exactly(self, count: int, seconds: float) -> bytes:
        self.channel.settimeout(seconds)
        while len(self._buffer) < count:
            piece = self.channel.recv(2**20)
            if not piece:
                raise EOFError("the channel was closed")
            self._buffer += piece
        piece, self._buffer = self._buffer[:count], self._buffer[count:]
        return piece

    # -- several steps at once

    def opened(self, path: str | bytes, flags: int, attrs: bytes = b"\0\0\0\0") -> bytes:
        """Open and return the handle."""
        reply = self.wait(self.open(path, flags, attrs))
        assert reply.kind == Kind.HANDLE, reply
        return reply.handle

    def writes(self, handle: bytes, offset: int, content: bytes, *, piece: int = 32768) -> list[int]:
        """Write from an offset on, in pieces, without waiting; return the requests."""
        starts = range(0, len(content), piece)
        return [self.write(handle, offset + start, content[start : start + piece]) for start in starts]

    def put(self, path: str, content: bytes, flags: int = W | C | T, *, piece: int = 32768) -> None:
        """Write a whole file, pipelined, and close it."""
        handle = self.opened(path, flags)
        for reply in self.all([*self.writes(handle, 0, content, piece=piece), self.close(handle)]):
            assert reply.ok, reply

    def get(self, path: str, *, piece: int = 32768) -> bytes:
        """Read a whole file, one request after the other."""
        handle = self.opened(path, R)
        content = b""
        while True:
            reply = self.wait(self.read(handle, len(content), piece))
            if reply.kind == Kind.STATUS:
                assert reply.code == 1, reply
                break
            assert reply.data
            content += reply.data
        assert self.wait(self.close(handle)).ok
        return content

    def list(self, path: str) -> dict[str, Attributes]:
        """List a directory."""
        return {name: attrs for name, _, attrs in self.listing(path)}

    def listing(self, path: str) -> Iterator[tuple[str, str, Attributes]]:
        reply = self.wait(self.path(Kind.OPENDIR, path))
        assert reply.kind == Kind.HANDLE, reply
        while True:
            batch = self.wait(self.send(Kind.READDIR, s(reply.handle)))
            if batch.kind == Kind.STATUS:
                assert batch.code == 1, batch
                break
            yield from batch.names
        assert self.wait(self.close(reply.handle)).ok
