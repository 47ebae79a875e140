"""The same requests to a gateway and to OpenSSH's server, and what may differ in their replies: see `oracle.py`."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sftp_gateway.files.tree import normal
from sftp_gateway.sftp.packets import Attributes, Kind, OpenFlag, Status
from tests.sftp_gateway.raw_client import RawClient, Reply, s
from tests.sftp_gateway.sftp.oracle import Oracle

WRITES = OpenFlag.WRITE | OpenFlag.APPEND | OpenFlag.CREAT
_OUTCOMES = {Status.OK: "done", Status.EOF: "the end", Status.NO_SUCH_FILE: "no such file"}
Check = Callable[[Reply], str | None]


@dataclass
class Opened:
    """A handle of both."""

    name: str
    theirs: bytes
    flags: int = 0
    spelt: str = ""
    ours: bytes = b""  # when the gateway has answered
    # of a file
    file: int = -1  # what the oracle has open, for looks at it
    version: bytes | None = None  # that a reader sees, if it is not what is being written
    is_loose: bool = False  # another one took its place in a filesystem that keeps none
    # of a folder
    folder: str = ""
    had: list[dict[str, int | None]] = field(default_factory=list)  # what it held since it was opened
    names: dict[str, int | None] = field(default_factory=dict)  # that were listed
    at_end: bool = False

    @property
    def writes(self) -> bool:
        return bool(self.flags & WRITES)

    @property
    def reads(self) -> bool:
        return self.file >= 0 and (bool(self.flags & OpenFlag.READ) or not self.writes)

    @property
    def id(self) -> int:
        return os.fstat(self.file).st_ino if self.file >= 0 else -1

    @property
    def is_removed(self) -> bool:
        return self.file >= 0 and os.fstat(self.file).st_nlink == 0

    def content(self) -> bytes:
        return os.pread(self.file, 2**22, 0)

    def listed(self, reply: Reply) -> str | None:
        """Check a reply to READDIR."""
        if reply.kind == Kind.NAME and not self.at_end:
            names = {name: _shown(value)[1] for name, _, value in reply.names}
            twice = len(names) < len(reply.names) or names.keys() & self.names.keys()
            self.names |= names
            return f"a name is listed twice: {reply.names}" if twice else None
        if reply.code != Status.EOF:
            return f"{reply} instead of the end"
        self.at_end = True
        names = {name: size for name, size in self.names.items() if name not in (".", "..")}
        lasting = {name for name in self.had[0] if all(name in held for held in self.had)}
        if missing := lasting - names.keys():
            return f"{missing} is not listed"
        others = {name for name, size in names.items() if all(held.get(name, -1) != size for held in self.had)}
        if others or len(names) != len(self.names) - 2:
            return f"{self.names} is listed instead of {self.had}"
        return None


class Twins:
    """Sends each request to the oracle at once, and to the gateway one by one or many at once; compares."""

    def __init__(self, oracle: Oracle, ours: RawClient, *, pins: bool) -> None:
        self.oracle = oracle
        self.ours = ours
        self.pins = pins
        self.opened: list[Opened] = []
        self.log: list[str] = []
        self._numbers = 0
        self._gave_up = False  # whether a CLOSE failed
        self._in_burst = False
        self._before: dict[str, dict[str, int | None]] = {}  # what folders held before a burst
        self._waiting: list[tuple[str, int, Check]] = []

    # -- requests with paths

    def open(self, path: str, flags: int) -> None:
        if flags & OpenFlag.TRUNC and not flags & WRITES:
            self._ours(f"open {path!r} {flags:#x}", lambda: self.ours.open(path, flags), _refused)
            return
        wanted = flags | OpenFlag.WRITE if flags & WRITES else flags
        rule = self._rule(path)
        spelt = self.oracle.path(path, made=bool(flags & OpenFlag.CREAT))
        theirs = self._theirs(self.oracle.raw.open(spelt, wanted))
        if theirs.kind != Kind.HANDLE:
            self._ours(f"open {path!r} {flags:#x}", lambda: self.ours.open(path, flags), _same(theirs, rule))
            return
        if os.path.isdir(self.oracle.path(path)):  # which the oracle opens as if it could be read
            self._theirs(self.oracle.raw.close(theirs.handle))
            self._ours(f"open {path!r} {flags:#x}", lambda: self.ours.open(path, flags), _refused)
            return
        opened = Opened(self._name(), theirs.handle, flags, self.oracle.path(path))
        opened.file = os.open(self.oracle.path(path), os.O_RDONLY)
        if not opened.writes and not self._writers(opened.id):
            opened.version = opened.content()
        self._keep(f"{opened.name} = open {path!r} {flags:#x}", lambda: self.ours.open(path, flags), opened)

    def opendir(self, path: str) -> None:
        theirs = self._theirs(self.oracle.raw.path(Kind.OPENDIR, self.oracle.path(path)))
        send = lambda: self.ours.path(Kind.OPENDIR, path)  # noqa: E731
        if theirs.kind != Kind.HANDLE:
            self._ours(f"opendir {path!r}", send, _same(theirs, self._rule(path)))
            return
        opened = Opened(self._name(), theirs.handle, folder=os.path.normpath(self.oracle.path(path)))
        before = [held[opened.folder]] if opened.folder in (held := self._before) else []
        opened.had = [*before, _held(opened.folder)]
        self._keep(f"{opened.name} = opendir {path!r}", send, opened)

    def about(self, kind: Kind, *paths: str) -> None:
        """STAT, LSTAT, REMOVE, RMDIR, MKDIR, RENAME."""
        tail = b"\0\0\0\0" if kind == Kind.MKDIR else b""
        self._with_paths(kind.name.lower(), paths, lambda raw, given: raw.send(kind, *map(s, given), tail))

    def extended(self, extension: str, *paths: str) -> None:
        self._with_paths(extension, paths, lambda raw, given: raw.extended(extension, *map(s, given)))

    def setstat(self, path: str, **fields: int) -> None:
        self._with_paths(f"setstat {fields}", (path,), lambda raw, given: raw.setstat(given[0], **fields))

    def realpath(self, path: str, how: Callable[[RawClient, str], int]) -> None:
        """REALPATH, expand-path: what is there is not looked at."""
        theirs = self._theirs(how(self.oracle.raw, self.oracle.path(path)))
        if theirs.kind == Kind.NAME:
            expected = theirs.names[0][0].removeprefix(str(self.oracle.folder)) or "/"
        else:
            expected = normal(path)

        def check(reply: Reply) -> str | None:
            found = [name for name, _, _ in reply.names]
            return None if found == [expected] else f"{found} instead of {expected!r}"

        self._ours(f"realpath {path!r}", lambda: how(self.ours, path), check)

    def symlink(self, *paths: str) -> None:
        """Links, which the gateway does not make."""
        for send in (
            lambda: self.ours.send(Kind.SYMLINK, *map(s, paths)),
            lambda: self.ours.extended("hardlink@openssh.com", *map(s, paths)),
        ):
            self._ours(f"link {paths}", send, _unsupported)

    def told(self, extension: str, path: str) -> None:
        """What is said of the server itself, where it is offered at all."""
        if extension not in self.ours.extensions:
            self._ours(extension, lambda: self.ours.extended(extension, s(path)), _unsupported)
        elif extension.startswith("f"):
            for opened in self.opened:
                if opened.ours and opened.file >= 0 and not opened.is_removed:
                    self._handles(extension, opened, lambda raw, handle: raw.extended(extension, s(handle)))
        else:
            self._with_paths(extension, (path,), lambda raw, given: raw.extended(extension, s(given[0])))

    def of_no_handle(self, handle: bytes) -> None:
        """Whatever is asked of a handle that is not there fails."""
        for send in (
            lambda: self.ours.read(handle, 0, 10),
            lambda: self.ours.write(handle, 0, b"0123456789"),
            lambda: self.ours.fstat(handle),
            lambda: self.ours.fsetstat(handle, size=1),
            lambda: self.ours.send(Kind.READDIR, s(handle)),
            lambda: self.ours.extended("fsync@openssh.com", s(handle)),
            lambda: self.ours.extended("fstatvfs@openssh.com", s(handle)),
            lambda: self.ours.close(handle),
        ):
            self._ours(f"something of {handle!r}", send, _refused)

    # -- requests with handles

    def read(self, opened: Opened, offset: int, size: int) -> None:
        theirs = self._theirs(self.oracle.raw.read(opened.theirs, offset, size))
        check = self._of_handle(opened, theirs) if opened.reads else _refused
        if opened.version is not None:
            piece = opened.version[offset : offset + size]

            def check(reply: Reply) -> str | None:
                found = reply.data if reply.kind == Kind.DATA else b"" if reply.code == Status.EOF and size else None
                is_right = found is not None if opened.is_loose else found == piece
                return None if is_right else f"{reply} instead of {len(piece)} bytes, or others"

        self._ours(f"read {opened.name} {offset}+{size}", lambda: self.ours.read(opened.ours, offset, size), check)

    def fstat(self, opened: Opened) -> None:
        theirs = self._theirs(self.oracle.raw.fstat(opened.theirs))
        check = self._of_handle(opened, theirs)
        if (version := opened.version) is not None:

            def check(reply: Reply) -> str | None:
                is_right = reply.kind == Kind.ATTRS and (opened.is_loose or reply.attributes.size == len(version))
                return None if is_right else f"{reply} {reply.attributes} instead of {len(version)} bytes"

        self._ours(f"fstat {opened.name}", lambda: self.ours.fstat(opened.ours), check)

    def write(self, opened: Opened, offset: int, data: bytes) -> None:
        self._handles(f"write {offset}+{len(data)}", opened, lambda raw, handle: raw.write(handle, offset, data))

    def fsetstat(self, opened: Opened, **fields: int) -> None:
        self._handles(f"fsetstat {fields}", opened, lambda raw, handle: raw.fsetstat(handle, **fields))

    def fsync(self, opened: Opened) -> None:
        if opened.writes or not opened.is_removed:
            self._handles("fsync", opened, lambda raw, handle: raw.extended("fsync@openssh.com", s(handle)))

    def wrong(self, kind: Kind, opened: Opened) -> None:
        """READDIR of a file, READ of a directory."""
        self._handles(kind.name, opened, lambda raw, handle: raw.send(kind, s(handle), bytes(12)))

    def copy(self, source: Opened, offset: int, size: int, target: Opened, position: int) -> None:
        def send(raw: RawClient, first: bytes, second: bytes) -> int:
            tail = struct.pack(">Q", position)
            return raw.extended("copy-data", s(first), struct.pack(">QQ", offset, size), s(second), tail)

        if source.spelt == target.spelt and source.id != target.id:  # the oracle takes them for one file
            return
        what = f"copy-data {source.name} {offset}+{size} to {target.name} {position}"
        if target.is_removed:  # which is told once there is something to be written
            return
        given_up = source.is_removed and source.version is None
        if given_up or source.id == target.id or not (source.reads and target.writes):
            self._ours(what, lambda: send(self.ours, source.ours, target.ours), _refused)
            return
        theirs = self._theirs(send(self.oracle.raw, source.theirs, target.theirs))
        if theirs.code == Status.EOF:  # which is told now and then, where there was less than it asked for
            theirs.code = Status.OK
        self._ours(what, lambda: send(self.ours, source.ours, target.ours), _same(theirs))

    def readdir(self, opened: Opened, times: int) -> None:
        """Read on, to the end and beyond; what is listed is compared with what the oracle's folder held meanwhile."""
        for _ in range(times):
            send = lambda: self.ours.send(Kind.READDIR, s(opened.ours))  # noqa: E731
            self._ours(f"readdir {opened.name}", send, opened.listed)

    def close(self, opened: Opened) -> None:
        writers = [other for other in self._writers(opened.id) if other is not opened]
        theirs = self._theirs(self.oracle.raw.close(opened.theirs))
        check = self._of_handle(opened, theirs) if opened.writes else _same(theirs)
        self._gave_up |= opened.writes and opened.is_removed
        self._ours(f"close {opened.name}", lambda: self.ours.close(opened.ours), check)
        self.opened.remove(opened)
        if opened.file >= 0:
            content = opened.content()
            if opened.writes and not writers and not opened.is_removed:
                for other in self.opened:
                    if other.id == opened.id and other.version is None:
                        other.version = content
            os.close(opened.file)

    def is_written(self, path: str) -> bool:
        """Tell whether somebody has the file at a path open for writing."""
        try:
            return bool(self._writers(os.stat(self.oracle.path(path)).st_ino))
        except OSError:
            return False

    def let_go(self) -> None:
        for opened in self.opened:
            if opened.file >= 0:
                os.close(opened.file)

    # -- within

    def _with_paths(self, what: str, paths: tuple[str, ...], send: Callable[[RawClient, list[str]], int]) -> None:
        rule = self._rule(*paths) | ({"done"} if what == "remove" and self._gave_up else set())
        spelt = [self.oracle.path(path, made=is_target) for path, is_target in zip(paths, (False, True), strict=False)]
        theirs = self._theirs(send(self.oracle.raw, spelt))
        self._ours(f"{what} {paths}", lambda: send(self.ours, list(paths)), _same(theirs, rule))

    def _handles(self, what: str, opened: Opened, send: Callable[[RawClient, bytes], int]) -> None:
        theirs = self._theirs(send(self.oracle.raw, opened.theirs))
        self._ours(f"{opened.name} {what}", lambda: send(self.ours, opened.ours), self._of_handle(opened, theirs))

    def _rule(self, *paths: str) -> set[str]:
        """Return what may be told in place of "no such file": rule 5."""
        places = [Path(f"{self.oracle.folder}{normal(path)}") for path in paths]
        if all(map(os.path.lexists, places)):
            return {"refused"}
        if paths[-1].endswith(("/", "/.")):
            return {"refused", "no such file"}
        through_a_file = any(parent.is_file() for place in places for parent in place.parents)
        into_itself = len(places) > 1 and (self.oracle.folder in places or places[0] in places[1].parents)
        return {"refused", "no such file"} if through_a_file or into_itself else {"no such file"}

    def _writers(self, file: int) -> list[Opened]:
        return [opened for opened in self.opened if opened.writes and opened.file >= 0 and opened.id == file]

    def _of_handle(self, opened: Opened, theirs: Reply) -> Check:
        if opened.is_removed and opened.version is None:
            return _refused
        return _same(theirs, {"refused"})

    def _name(self) -> str:
        self._numbers += 1
        return f"h{self._numbers}"

    def _keep(self, what: str, send: Callable[[], int], opened: Opened) -> None:
        self.opened.append(opened)

        def check(reply: Reply) -> str | None:
            opened.ours = reply.handle
            return None if reply.kind == Kind.HANDLE else f"{reply} instead of a handle"

        self._ours(what, send, check)

    def _theirs(self, request: int) -> Reply:
        reply = self.oracle.raw.wait(request)
        for opened in self.opened:
            if opened.had and (held := _held(opened.folder)) != opened.had[-1]:
                opened.had.append(held)
            if not self.pins and opened.version is not None and opened.version != opened.content():
                opened.is_loose = True
        return reply

    def _ours(self, what: str, send: Callable[[], int], check: Check) -> None:
        self.log.append(("| " if self._in_burst else "  ") + what)
        self._waiting.append((what, send(), check))
        if not self._in_burst:
            self._compare()

    @contextmanager
    def burst(self) -> Iterator[None]:
        self._in_burst = True
        self._before = {path: _held(path) for path, _, _ in os.walk(self.oracle.folder)}
        yield
        self._in_burst = False
        self._before.clear()
        self._compare()

    def _compare(self) -> None:
        waiting, self._waiting = self._waiting, []
        for what, request, check in waiting:
            wrong = check(self.ours.wait(request))
            assert wrong is None, f"{what}: {wrong}"


def _unsupported(reply: Reply) -> str | None:
    return None if reply.code == Status.OP_UNSUPPORTED else f"{reply} instead of OP_UNSUPPORTED"


def _refused(reply: Reply) -> str | None:
    return None if _outcome(reply) == "refused" else f"{reply} instead of a refusal"


def _same(theirs: Reply, missing: Set[str] = frozenset({"no such file"})) -> Check:
    """`missing`: what may be told where the oracle says that there is no such file."""
    expected = missing if (outcome := _outcome(theirs)) == "no such file" else {outcome}

    def check(reply: Reply) -> str | None:
        if _outcome(reply) not in expected:
            return f"{reply} instead of {expected} ({theirs})"
        if reply.data != theirs.data and theirs.kind == Kind.DATA:
            return f"{len(reply.data)} bytes instead of {len(theirs.data)}, or others"
        if theirs.kind == Kind.ATTRS and _shown(reply.attributes) != _shown(theirs.attributes):
            return f"{_shown(reply.attributes)} instead of {_shown(theirs.attributes)}"
        return None

    return check


def _outcome(reply: Reply) -> str:
    return Kind(reply.kind).name if reply.kind != Kind.STATUS else _OUTCOMES.get(Status(reply.code), "refused")


def _shown(value: Attributes) -> tuple[str, int | None]:
    """What both say of an entry: what it is, and the size of a file."""
    assert value.permissions is not None
    return ("folder", None) if value.permissions & 0o40000 else ("file", value.size)


def _held(folder: str) -> dict[str, int | None]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: None if entry.is_dir() else entry.stat().st_size for entry in entries}
    except OSError:
        return {}
