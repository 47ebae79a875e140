"""Random steps of sessions with different rights, and what each of them may see."""

from __future__ import annotations

from fs.memoryfs import MemoryFS
from fs.path import dirname

from sftp_gateway.files.content import Content
from sftp_gateway.files.draft import Draft, State
from sftp_gateway.files.handles import ReadHandle, WriteHandle
from sftp_gateway.files.tree import Rights
from sftp_gateway.sftp.packets import Attributes, Extension, Kind, Status
from tests.sftp_gateway.files.rights_world import FILES, FOLDERS, Reader, Session, World
from tests.sftp_gateway.raw_client import A, C, R, T, W, X

FLAGS = (W | C | T, W | C | T, W | C, W, W | C | X, A | W | C, R | W | C, W | T)
STEPS = {
    "open": 10,
    "write": 14,
    "close": 12,
    "resize": 2,
    "open_to_read": 5,
    "read": 16,
    "close_reader": 2,
    "look": 6,
    "list": 4,
    "remove": 4,
    "rename": 6,
    "rename_folder": 2,
    "mkdir": 1,
    "set_size": 1,
    "touch": 2,
    "copy": 2,
    "cut": 1,
    "others": 2,
}


class Steps(World):
    """Each step is one session's."""

    def run(self, steps: int) -> None:
        for number in range(steps):
            self.say(f"{number}")
            self.wait = self.chance.choice((-1, self.chance.randrange(12)))
            self.step(self.sessions)
            self.wait = -1
            self.check()
        while self.sessions:
            self.end(self.sessions[-1])
        self.check()
        assert self.tree.store.quota.used >= 0
        self.tree.close()
        assert self.tree.store.quota.used == 0, "room is still counted"

    def step(self, sessions: list[Session]) -> None:
        session = self.chance.choice(sessions)
        (kind,) = self.chance.choices(list(STEPS), list(STEPS.values()))
        getattr(self, kind)(session)

    def some_path(self, session: Session, paths: tuple[str, ...] = FILES) -> str:
        there = [path[len(session.root) :] for path in paths if path.startswith(session.root + "/")]
        return self.chance.choice(there or ["/x"])

    # -- writing

    def open(self, session: Session) -> None:
        if len(session.writers) > 3:
            return
        path, flags = self.some_path(session), self.chance.choice(FLAGS)
        reply = self.ask(session, Kind.OPEN, path=path, flags=flags)
        if reply.kind != Kind.HANDLE:
            return
        assert session.rights is not Rights.READ_ONLY, "it may only read"
        assert not (session.is_box and flags & R), "it may not read"
        session.writers[reply.handle] = path

    def write(self, session: Session) -> None:
        if not session.writers:
            self.open(session)
            return
        handle = self.chance.choice(list(session.writers))
        size = self.writer(session, handle).draft.size
        offset = self.chance.choice((0, size, size, max(0, size - 5)))
        data = self.chance.randbytes(self.chance.randrange(8, 60))
        self.ask(session, Kind.WRITE, handle=handle, offset=offset, data=data)

    def resize(self, session: Session) -> None:
        if session.writers:
            handle = self.chance.choice(list(session.writers))
            self.ask(session, Kind.FSETSTAT, handle=handle, attributes=Attributes(size=self.chance.randrange(80)))

    def close(self, session: Session) -> None:
        if not session.writers:
            return
        handle = self.chance.choice(list(session.writers))
        del session.writers[handle]
        writer = self.writer(session, handle)
        is_own = writer in writer.draft.handles and writer.draft.is_open
        wanted, path = writer.draft.read(0, 10_000) if is_own else b"", writer.draft.path
        since, is_dirty = len(self.history), writer.draft.dirty
        has_others = len(writer.draft.handles) > 1  # who may write in the middle of this
        reply = self.ask(session, Kind.CLOSE, handle=handle)
        if reply.ok and is_own and is_dirty:
            done = [each for where, each in self.history[since:] if where == writer.draft.path and each is not None]
            assert wanted in done or (has_others and done), f"{path} was not stored as it was written"
            self.stored[writer.draft] = wanted if wanted in done else done[-1]
        elif reply.ok and is_own:
            self.stored.setdefault(writer.draft, wanted)

    def cut(self, session: Session) -> None:
        if session not in self.acting:
            self.end(session)
            view = self.tree.view(session.root or "/", rights=session.rights)
            self.begin(session.root, self.chance.choice((session.view, view)))

    def end(self, session: Session) -> None:
        self.say(f"{session.name} is cut off")
        session.operations.abort_all()
        self.sessions.remove(session)

    @staticmethod
    def writer(session: Session, handle: bytes) -> WriteHandle:
        writer = session.operations.handles[handle]
        assert isinstance(writer, WriteHandle)
        return writer

    # -- reading

    def open_to_read(self, session: Session) -> None:
        path, since = self.some_path(session), len(self.history)
        inner = session.inner(path)
        before = self.storage.content().get(inner)
        reply = self.ask(session, Kind.OPEN, path=path, flags=R)
        if reply.kind != Kind.HANDLE:
            return
        assert not session.is_box, "it may not read"
        handle = session.operations.handles[reply.handle]
        assert isinstance(handle, ReadHandle)
        if isinstance(handle.source, Content):
            meanwhile = [content for where, content in self.history[since:] if where == inner]
            versions = [each for each in (before, *meanwhile) if each is not None]
            session.readers.append(Reader(reply.handle, inner, None, versions))
        else:
            session.readers.append(Reader(reply.handle, inner, handle.source))

    def read(self, session: Session) -> None:
        if not session.readers:
            self.open_to_read(session)
            return
        reader = self.chance.choice(session.readers)
        start, size = self.chance.randrange(0, 100), self.chance.randrange(1, 100)
        versions = reader.versions or self.drafted(reader.draft)
        reply = self.ask(session, Kind.READ, handle=reader.handle, offset=start, size=size)
        if reader.draft is not None:
            versions = [*versions, *self.drafted(reader.draft)]
        if reply.kind == Kind.STATUS and reply.code != Status.EOF:
            assert reader.draft is not None, "what is stored can be read as long as it is open"
            return
        fitting = [each for each in versions if each[start : start + size] == reply.data]
        assert fitting, f"{reply.data!r} at {start} is of none of {versions}"
        if reader.draft is None:
            reader.versions = fitting

    def drafted(self, draft: Draft | None) -> list[bytes]:
        """Return what may be read of what is being written, or was."""
        assert draft is not None
        found = [self.stored[draft]] if draft in self.stored else []
        return found if draft.state is State.ENDED else [*found, draft.read(0, 10_000)]

    def close_reader(self, session: Session) -> None:
        if session.readers:
            reader = session.readers.pop(self.chance.randrange(len(session.readers)))
            assert self.ask(session, Kind.CLOSE, handle=reader.handle).ok

    # -- looking

    def look(self, session: Session) -> None:
        if session.readers and self.chance.random() < 0.4:
            reader = self.chance.choice(session.readers)
            reply = self.ask(session, Kind.FSTAT, handle=reader.handle)
            if reader.draft is None:
                assert reply.attributes.size in {len(each) for each in reader.versions}, "it is of another version"
            return
        path, wait = self.some_path(session), self.wait
        reply = self.ask(session, Kind.STAT, path=path)
        if self.wait < 0 <= wait:  # somebody came in between
            return
        draft = self.current(session.inner(path))
        content = self.storage.content().get(session.inner(path))
        if reply.kind == Kind.ATTRS:
            self.is_shown(session, path)
            is_others = session.is_box and draft is not None and draft.owner is not session.view
            size = draft.size if draft is not None and not is_others else len(content or b"")
            assert reply.attributes.size == size, f"it has {size} bytes"
        elif session.is_box:
            assert self.owners.get(session.inner(path)) is not session.view or content is None, "its own is hidden"
        else:
            assert content is None, "it is there"

    def list(self, session: Session) -> None:
        folder, since = self.chance.choice(("/", "/d", "/e")), len(self.history)
        reply = self.ask(session, Kind.OPENDIR, path=folder)
        if reply.kind != Kind.HANDLE:
            return
        names: list[str] = []
        handle = reply.handle
        while (reply := self.ask(session, Kind.READDIR, handle=handle)).kind == Kind.NAME:
            names += [name for name, _, attributes in reply.names if attributes.permissions == 0o100644]
        self.ask(session, Kind.CLOSE, handle=handle)
        if len(self.history) == since:
            for name in names:
                self.is_shown(session, folder.rstrip("/") + "/" + name)

    def is_shown(self, session: Session, path: str) -> None:
        """Check that a session may see a file, but for the moment in which it is replaced."""
        if self.acting:
            return
        inner = session.inner(path)
        draft = self.tree.store.looking.current(inner)
        is_written = draft is not None and draft.owner is session.view
        is_own = inner in self.storage.content() and self.owners.get(inner) is session.view
        assert not session.is_box or is_written or is_own, f"{session.name} sees {inner}"

    def current(self, path: str) -> Draft | None:
        draft = self.tree.store.looking.current(path)
        is_shown = draft is not None and (draft.is_open or path not in self.storage.content())
        return draft if is_shown else None

    # -- names

    def remove(self, session: Session) -> None:
        self.ask(session, Kind.REMOVE, path=self.some_path(session))

    def rename(self, session: Session) -> None:
        source, target = self.some_path(session), self.some_path(session)
        self.rename_to(session, source, target)

    def rename_to(self, session: Session, source: str, target: str) -> None:
        if self.chance.random() < 0.5:
            self.ask(session, Kind.RENAME, path=source, target=target)
        else:
            self.ask(session, Kind.EXTENDED, extension=Extension.POSIX_RENAME, path=source, target=target)

    def rename_folder(self, session: Session) -> None:
        self.rename_to(session, self.some_path(session, FOLDERS), self.some_path(session, FOLDERS))

    def mkdir(self, session: Session) -> None:
        self.ask(session, self.chance.choice((Kind.MKDIR, Kind.RMDIR)), path=self.some_path(session, FOLDERS))

    def set_size(self, session: Session) -> None:
        wished = Attributes(size=self.chance.randrange(60))
        self.ask(session, Kind.SETSTAT, path=self.some_path(session), attributes=wished)

    def touch(self, session: Session) -> None:
        wished = Attributes(mtime=self.chance.randrange(10**9))
        self.ask(session, Kind.SETSTAT, path=self.some_path(session), attributes=wished)

    def copy(self, session: Session) -> None:
        if session.readers and session.writers:
            reader, writer = self.chance.choice(session.readers), self.chance.choice(list(session.writers))
            self.ask(session, Kind.EXTENDED, extension=Extension.COPY_DATA, handle=reader.handle, target_handle=writer)

    def others(self, _: Session) -> None:
        """Have somebody who knows nothing of the gateway change the storage, but nothing that a drop box has left."""
        path, content = self.chance.choice(FILES), self.chance.randbytes(self.chance.randrange(8, 60))
        owner = self.owners.get(path)
        outer, self.acting = self.acting, []
        wait, self.wait = self.wait, -1
        if path in self.storage.content() and self.chance.random() < 0.5:
            self.storage.remove(path)
        elif (owner is None or owner.rights is not Rights.WRITE_ONLY) and MemoryFS.isdir(self.storage, dirname(path)):
            self.storage.commit(path, content)
        self.acting, self.wait = outer, wait

    def check(self) -> None:
        for session in self.sessions:
            for path in FILES if session.is_box else ():
                if path.startswith(session.root + "/"):
                    seen = session.view._is_own(path[len(session.root) :])
                    if seen and path in self.storage.content():
                        self.is_shown(session, path[len(session.root) :])


def play(world: Steps, seed: int, steps: int) -> None:
    """Do random steps; fail with all of them."""
    try:
        world.run(steps)
    except Exception as error:
        log = "\n".join(world.log[-100:])
        raise AssertionError(f"{log}\nseed {seed}: {type(error).__name__}: {error}") from error
