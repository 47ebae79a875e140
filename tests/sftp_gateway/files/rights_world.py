"""Sessions with different rights over one storage, in the middle of whose calls other sessions do something."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fs.memoryfs import MemoryFS
from fs.path import dirname

from sftp_gateway.files.draft import Draft
from sftp_gateway.files.tree import Rights, Tree, TreeLimits, TreeView
from sftp_gateway.requests.at_once import AtOnce
from sftp_gateway.requests.operations import Operations
from sftp_gateway.sftp.packets import Kind
from sftp_gateway.sftp.parsing import Request
from tests.sftp_gateway.atomic_fs import AtomicFS, PinnedFile, super_read
from tests.sftp_gateway.raw_client import Reply, parsed
from tests.sftp_gateway.without_doors import operations_on

FILES = ("/a", "/b", "/d/a", "/e/a")
FOLDERS = ("/d", "/e")


class Watched(AtomicFS):
    """Tells before and after each call, and before each change."""

    def __init__(self, *, versions: bool, local: bool) -> None:
        super().__init__()
        self.moment: Callable[[], None] = lambda: None
        self.changes: Callable[[str, bytes | None], None] = lambda path, content: None
        self._has_versions = versions
        self._is_changing = False
        self._meta = {**self._meta, "network": not local, "atomic_writes": not local}

    def passes(self, operation: str, path: str) -> None:
        super().passes(operation, path)
        if not self._is_changing:
            self.moment()

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Have nothing happen in the middle of a change, but afterwards."""
        self._is_changing = True
        try:
            yield
        finally:
            self._is_changing = False
        self.moment()

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        file = super().openbin(path, mode, buffering, **options)
        if isinstance(file, PinnedFile) and not self._has_versions:
            del file.version
        self.moment()
        return file

    def upload(self, path: str, file: Any, chunk_size: int | None = None, **options: Any) -> None:
        self.passes("upload", path)
        content = bytearray()
        while piece := file.read(64):
            content += piece
        self.commit(path, bytes(content))

    def commit(self, path: str, content: bytes, **options: Any) -> None:
        with self.change():
            exists = MemoryFS.exists(self, path)
            if not (options.get("exclusive") and exists):
                expected = options.get("expected_version")
                if expected is None or (exists and self.version(path) == expected):
                    self.changes(path, content)
            super().commit(path, content, **options)

    def remove(self, path: str) -> None:
        self.passes("remove", path)
        with self.change():
            if MemoryFS.isfile(self, path):
                self.changes(path, None)
            MemoryFS.remove(self, path)

    def move(self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False) -> None:
        self.passes("move", src_path)
        with self.change():
            is_free = MemoryFS.isdir(self, dirname(dst_path)) and (overwrite or not MemoryFS.exists(self, dst_path))
            if MemoryFS.isfile(self, src_path) and is_free:
                content = super_read(self, src_path)
                self.changes(src_path, None)
                self.changes(dst_path, content)
            super().move(src_path, dst_path, overwrite, preserve_time)

    def movedir(self, src_path: str, dst_path: str, create: bool = False, preserve_time: bool = False) -> None:
        self.passes("movedir", src_path)
        with self.change():
            for path, content in self.content().items():
                if path.startswith(src_path + "/"):
                    self.changes(path, None)
                    self.changes(dst_path + path[len(src_path) :], content)
            super().movedir(src_path, dst_path, create, preserve_time)

    def content(self) -> dict[str, bytes]:
        paths = [path for path in FILES if MemoryFS.isfile(self, path)]
        return {path: super_read(self, path) for path in paths}


class Known(Watched):
    """Everything in it is known without waiting."""

    def cached_info(self, path: str, namespaces: Any = None) -> Any:
        return MemoryFS.getinfo(self, path, namespaces)


@dataclass(eq=False)
class Reader:
    """A file that is read: of the versions that it may be, those that what was read fits."""

    handle: bytes
    path: str
    draft: Draft | None  # what is just being written
    versions: list[bytes] = field(default_factory=list)


@dataclass(eq=False)
class Session:
    """A session, and what it does."""

    name: str
    root: str
    view: TreeView
    operations: Operations
    at_once: AtOnce
    writers: dict[bytes, str] = field(default_factory=dict)
    readers: list[Reader] = field(default_factory=list)

    @property
    def rights(self) -> Rights:
        return self.view.rights

    @property
    def is_box(self) -> bool:
        return self.rights is Rights.WRITE_ONLY

    def inner(self, path: str) -> str:
        return self.root + path


class World:
    """The storage, and whose each file in it is: theirs who have left it last."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.log: list[str] = []
        kind = chance.choice((Watched, Watched, Known))
        self.local = kind is Watched and chance.random() < 0.3
        self.storage = kind(versions=chance.random() < 0.7 and not self.local, local=self.local)
        self.storage.makedir("/d")
        limits = TreeLimits(commit_wait_seconds=0)  # all of this is in one thread
        self.tree = Tree(self.storage, spool_directory=folder, limits=limits)
        self.owners: dict[str, TreeView | None] = {}
        self.history: list[tuple[str, bytes | None]] = []
        self.stored: dict[Draft, bytes] = {}
        self.acting: list[Session] = []
        self.wait = -1  # so many moments until another session gets in between
        self.sessions: list[Session] = []
        self.number = 0
        self.problems: list[str] = []
        self.storage.moment, self.storage.changes = self.moment, self.changes
        rights = [Rights.READ_WRITE, Rights.WRITE_ONLY, Rights.WRITE_ONLY, Rights.READ_ONLY]
        for one in [*rights[: chance.choice((2, 4))], chance.choice(rights)]:
            root = chance.choice(("", "", "", "/d"))
            self.begin(root, self.tree.view(root or "/", rights=one))
        if chance.random() < 0.5:
            self.begin(self.sessions[0].root, self.sessions[0].view)  # another channel

    def begin(self, root: str, view: TreeView) -> None:
        self.number += 1
        operations = operations_on(view)
        name = f"{view.rights.value} {self.number}{root}"
        self.sessions.append(Session(name, root, view, operations, AtOnce(operations, view)))

    def say(self, text: str) -> None:
        self.log.append("  " * len(self.acting) + text)

    def ask(self, session: Session, kind: int, **fields: Any) -> Reply:
        """Have a session's request answered, as its channel would."""
        request = Request(kind, 1, **fields)
        self.acting.append(session)
        try:
            body = session.at_once.answer(request)
            if body is None:
                body = session.operations.answer(request)
        finally:
            self.acting.pop()
        reply = parsed(body[4:])
        told = {name: value for name, value in fields.items() if name != "data"}
        if "handle" in told:
            told["handle"] = told["handle"].hex()
        self.say(f"{session.name}: {Kind(kind).name} {told} -> {reply}")
        assert "internal error" not in reply.text, reply.text
        assert not self.problems, self.problems
        return reply

    def changes(self, path: str, content: bytes | None) -> None:
        """Know of a change of the storage, which whoever asked for it must be allowed to make."""
        session = self.acting[-1] if self.acting else None
        if session is not None:
            owner = self.owners.get(path)
            is_theirs = MemoryFS.exists(self.storage, path) and owner is not session.view
            if session.rights is Rights.READ_ONLY or (session.is_box and is_theirs):
                self.problems.append(f"{session.name} changes {path}, which is not its own")
        self.say(f"({path} is {'gone' if content is None else f'{len(content)} bytes'})")
        self.history.append((path, content))
        if content is not None or session is not None:
            self.owners[path] = session.view if session is not None else None

    def moment(self) -> None:
        """Have another session do something in the middle of a request."""
        if self.wait < 0 or len(self.acting) != 1:
            return
        self.wait -= 1
        if self.wait < 0:
            self.say("in between:")
            try:
                self.step([session for session in self.sessions if session is not self.acting[-1]])
            except AssertionError as problem:  # else whoever is in the middle of a request would be told
                self.problems.append(str(problem))
            self.say("and on")

    def step(self, sessions: list[Session]) -> None:
        raise NotImplementedError
