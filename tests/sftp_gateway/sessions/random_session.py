"""`Actor`: an SFTP session that does things at random in its folder, and compares all that it sees with a model."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sftp_gateway.sftp.packets import Kind, Status
from tests.sftp_gateway.raw_client import A, C, R, RawClient, Reply, T, X, s
from tests.sftp_gateway.sessions import random_checks as checks
from tests.sftp_gateway.sessions.random_choices import Choices
from tests.sftp_gateway.sessions.random_model import Writer
from tests.sftp_gateway.sessions.random_places import Place


@dataclass
class Reader:
    """A file that is read: one version, or what the session itself is writing."""

    handle: bytes
    content: bytes
    writer: Writer | None = None


class Actor(Choices):
    """One session. Its requests are answered before it sends the next, but for those of a `burst`.

    `root` is its folder; where sessions share one, all names in it begin with `prefix`.
    """

    def __init__(self, place: Place, root: str, *, prefix: str, seed: str) -> None:
        super().__init__(root, prefix=prefix, seed=seed, folds=place.folds)
        self.place = place
        self.readers: list[Reader] = []
        self.lost: set[str] = set()  # where a CLOSE has failed, REMOVE is no error
        self.cut_off: set[str] = set()
        self.log: list[str] = []
        self._later: list[tuple[int, Callable[[Reply], None]]] | None = None
        self.session = place.connect()
        self.raw: RawClient = self.session.raw()

    # -- asking

    def ask(self, what: str, request: int, check: Callable[[Reply], None]) -> None:
        """Check the reply to a request: now, or at the end of a burst."""
        self.log.append(what)
        if self._later is None:
            self._check(len(self.log) - 1, request, check)
        else:
            number = len(self.log) - 1
            self._later.append((request, lambda reply: self._judge(number, reply, check)))

    def _check(self, number: int, request: int, check: Callable[[Reply], None]) -> None:
        self._judge(number, self.raw.wait(request), check)

    def _judge(self, number: int, reply: Reply, check: Callable[[Reply], None]) -> None:
        self.log[number] += f" -> {reply}"
        try:
            check(reply)
        except AssertionError as error:
            raise AssertionError(f"step {number}: {self.log[number]}: {error}") from None

    @contextmanager
    def burst(self) -> Iterator[None]:
        """Send what follows without waiting for replies."""
        self.log.append("burst {")
        self._later = []
        try:
            yield
            later, self._later = self._later, None
            for request, check in later:
                check(self.raw.wait(request))
        finally:
            self._later = None
            self.log.append("}")

    # -- files that are written

    def open(self, key: str, flags: int, why: str = "open") -> Writer | None:
        """Open for writing; return the file unless that is to be refused."""
        model, path = self.model, self.path(key)
        committed, partial = model.files.get(key), model.partials.get(key)
        there = committed is not None or partial is not None
        refused = key in model.folders or not model.can_hold(key)
        refused |= there if flags & C and flags & X else not there and not flags & C
        request = self.raw.open(path, flags)
        self.log.append(f"{why} {path} {checks.shown(flags)}")
        reply = self.raw.wait(request)
        self.log[-1] += f" -> {reply}"
        if refused:
            assert reply.kind == Kind.STATUS, f"{self.log[-1]}: was not refused"
            return None
        assert reply.kind == Kind.HANDLE, f"{self.log[-1]}: was refused"
        name = path.rpartition("/")[2]
        writer = Writer(reply.handle, key, name, bytearray(), flags, committed is None, dirty=True)
        if not flags & T and not flags & X:
            writer.has_gaps = partial is None and key not in self.cut_off
            if committed is not None:
                writer.content[:], writer.dirty, writer.based = committed.content, False, True
                writer.goes_on = len(writer.content) if model.to_go.get(key) is committed else None
            elif partial is not None:
                writer.name = partial.name
                writer.write(0, partial.content)
        if committed is None:
            writer.may_be_kept = True
        model.partials.pop(key, None)
        model.writers[key] = writer
        return writer

    def write(self, writer: Writer, data: bytes, offset: int) -> None:
        at = len(writer.content) if writer.flags & A else offset
        request = self.raw.write(writer.handle, offset, data)
        writer.write(at, data)
        self.ask(f"write {writer.key} {len(data)} bytes at {at}", request, checks.ok)

    def write_somewhere(self, writer: Writer) -> None:
        size = len(writer.content)
        far = size + 100 if writer.has_gaps else size
        offset = self.chance.choice((size, size, size, self.chance.randrange(size + 1), far))
        self.write(writer, self.some_bytes(), offset)

    def resize(self, writer: Writer) -> None:
        size = self.chance.choice((0, self.chance.randrange(len(writer.content) + 1), len(writer.content) + 500))
        request = self.raw.fsetstat(writer.handle, size=size)
        writer.truncate(size)
        self.ask(f"fsetstat {writer.key} size={size}", request, checks.ok)

    def set_time(self, writer: Writer) -> None:
        writer.time = time = self.some_time()
        request = self.raw.fsetstat(writer.handle, atime=time, mtime=time)
        self.ask(f"fsetstat {writer.key} mtime={time}", request, checks.ok)

    def sync(self, writer: Writer) -> None:
        self.ask(f"fsync {writer.key}", self.raw.extended("fsync@openssh.com", s(writer.handle)), checks.ok)

    def look(self, writer: Writer) -> None:
        expected = len(writer.content), writer.time
        self.ask(
            f"fstat {writer.key}", self.raw.fstat(writer.handle), lambda reply: checks.attributes(reply, *expected)
        )

    def read_back(self, writer: Writer) -> None:
        if writer.flags & R:
            self._read_at(writer.handle, bytes(writer.content), f"read {writer.key}, being written,")

    def _read_at(self, handle: bytes, content: bytes, what: str) -> None:
        offset = self.chance.randrange(len(content) + 2)
        size = self.chance.choice((1, 100, 20_000, 200_000))
        expected = content[offset : offset + size]
        request = self.raw.read(handle, offset, size)
        self.ask(f"{what} {size} bytes at {offset}", request, lambda reply: checks.data(reply, expected))

    def close(self, writer: Writer) -> None:
        request = self.raw.close(writer.handle)
        what = f"close {writer.key}, {len(writer.content)} bytes"
        if writer.may_be_refused:
            self.log.append(what)
            if self.raw.wait(request).code != Status.OK:
                del self.model.writers[writer.key]
                return
        before = self.model.files.get(writer.key)
        if not self.model.close(writer) and before is not None and writer.time is not None:
            self.time_is_set(writer.key, writer.time)
        if not writer.may_be_refused:
            self.ask(what, request, checks.ok)

    def _ended(self, writer: Writer | None) -> None:
        """Close a file that was removed or replaced while it was being written."""
        if writer is None:
            return
        self.lost.add(writer.key)
        for reader in [reader for reader in self.readers if reader.writer is writer]:
            self.readers.remove(reader)
            self.close_reader(reader.handle)
        request = self.raw.close(writer.handle)
        self.ask(f"close {writer.key}, which is gone", request, checks.refused)

    def time_is_set(self, key: str, time: int) -> None:
        """Note that a committed file's time was set after its CLOSE."""
        if self.place.times == "always":
            self.model.files[key].time = time
        elif self.place.times == "until sent":
            self.model.files[key].time = None  # the next STAT tells whether it was sent already

    # -- looking

    def stat(self, key: str) -> None:
        path = self.path(key)
        kind = self.chance.choice((Kind.STAT, Kind.LSTAT))
        request = self.raw.path(kind, path)
        model = self.model
        size, is_folder = model.size(key), key in model.folders
        writer, file = model.writers.get(key), model.files.get(key)

        def check(reply: Reply) -> None:
            if is_folder:
                assert reply.kind == Kind.ATTRS, "is a folder"
                assert reply.attributes.permissions == 0o40755
            elif size is None:
                assert (reply.kind, reply.code) == (Kind.STATUS, Status.NO_SUCH_FILE), "is not there"
            elif writer is not None:
                checks.attributes(reply, size, writer.time)
            elif file is None or file.is_loose:
                checks.attributes(reply, size, None)
            else:
                checks.attributes(reply, size, file.time)
                if model.files.get(key) is file and file.time is None:
                    file.time = reply.attributes.mtime  # it is to stay so

        self.ask(f"{kind.name.lower()} {path}", request, check)

    def list(self, folder: str) -> None:
        path = self.path(folder)
        self.log.append(f"list {path}")
        found = {
            name: None if value.permissions == 0o40755 else value.size
            for name, value in self.raw.list(path).items()
            if name not in (".", "..") and (folder != "/" or self.fold(name).startswith(self.fold(self.prefix)))
        }
        self.model.learn_names(folder, found)
        expected = self.model.names(folder)
        assert found == expected, f"{self.log[-1]}: there is {found} instead of {expected}"

    def read(self, key: str, *, whole: bool = True) -> None:
        """Open a file for reading, and read it, or keep it open."""
        path, content = self.path(key), self.model.content(key)
        request = self.raw.open(path, R)
        self.log.append(f"open {path} to read")
        reply = self.raw.wait(request)
        self.log[-1] += f" -> {reply}"
        if content is None:
            assert reply.kind == Kind.STATUS, f"{self.log[-1]}: was not refused"
            return
        assert reply.kind == Kind.HANDLE, f"{self.log[-1]}: was refused"
        writer = self.model.writers.get(key)
        if not whole and self.place.pins and (writer is not None or key in self.model.files):
            self.readers.append(Reader(reply.handle, content, writer))
            return
        for offset in range(0, len(content) + 1, 65536):
            expected = content[offset : offset + 65536]
            request = self.raw.read(reply.handle, offset, 65536)
            self.ask(f"read {key} at {offset}", request, lambda reply, expected=expected: checks.data(reply, expected))  # type: ignore[misc]
        self.close_reader(reply.handle)

    def read_on(self, reader: Reader) -> None:
        if self.chance.random() < 0.3:
            self.readers.remove(reader)
            self.ask("close a reader", self.raw.close(reader.handle), checks.ok)
        else:
            content = reader.content if reader.writer is None else bytes(reader.writer.content)
            self._read_at(reader.handle, content, "read a version,")

    def copy_data(self, handle: bytes, content: bytes, writer: Writer) -> None:
        """Copy a whole file that is open for reading onto an empty one."""
        whole = struct.pack(">QQ", 0, 0) + s(writer.handle) + struct.pack(">Q", 0)
        request = self.raw.extended("copy-data", s(handle), whole)
        writer.content[:], writer.dirty, writer.may_be_kept = content, True, None
        if writer.key in self.model.files:
            self.model.unnamed.add(writer.key)
        writer.received.add(0, len(content))
        self.ask(f"copy {len(content)} bytes to {writer.key}", request, checks.ok)

    def close_reader(self, handle: bytes) -> None:
        self.ask("close what was read", self.raw.close(handle), checks.ok)

    # -- names

    def rename(self, source: str, target: str, *, replace: bool) -> bool:
        """Rename as plain or posix-rename; tell whether that succeeds."""
        model = self.model
        old, new = self.path(source), self.path(target)
        send = self.raw.posix_rename if replace else self.raw.rename
        request = send(old, new)
        what = f"{'posix-rename' if replace else 'rename'} {old} {new}"
        if not model.may_rename(source, target, replace=replace, is_same=old == new):
            self.ask(what, request, checks.refused)
            return False
        if old == new:
            self.ask(what, request, checks.ok)
            return True
        writer = model.writers.get(source)
        if writer is not None and replace:
            writer.may_be_kept = None
        ended = model.rename(source, target, new.rpartition("/")[2])
        if self.place.times == "always" and target in model.files:
            model.files[target].time = None
        self.ask(what, request, checks.ok)
        self._ended(ended)
        return True

    def remove(self, key: str) -> bool:
        path = self.path(key)
        request = self.raw.remove(path)
        is_there = self.model.size(key) is not None
        if is_there:
            ended = self.model.remove(key)
            self.ask(f"remove {path}", request, checks.ok)
            self._ended(ended)
        elif key not in self.lost:
            self.ask(f"remove {path}", request, checks.refused)
        else:
            self.lost.discard(key)
            self.ask(f"remove {path}, which failed", request, lambda reply: None)
        return is_there

    def mkdir(self, key: str) -> None:
        path = self.path(key)
        request = self.raw.mkdir(path)
        if self.model.is_there(key) or not self.model.can_hold(key):
            self.ask(f"mkdir {path}", request, checks.refused)
        else:
            self.model.folders[key] = path.rpartition("/")[2]
            self.ask(f"mkdir {path}", request, checks.ok)

    def rmdir(self, key: str) -> None:
        path = self.path(key)
        request = self.raw.rmdir(path)
        if key not in self.model.folders or self.model.below(key):
            self.ask(f"rmdir {path}", request, checks.refused)
        else:
            del self.model.folders[key]
            self.ask(f"rmdir {path}", request, checks.ok)

    # -- attributes of what is closed

    def set_size(self, key: str) -> None:
        size, path = self.model.size(key), self.path(key)
        new = self.chance.choice((0, self.chance.randrange((size or 0) + 1), (size or 0) + 300))
        request = self.raw.setstat(path, size=new)
        what = f"setstat {path} size={new}"
        writer, file = self.model.writers.get(key), self.model.files.get(key)
        if size is None or (writer is None and file is None and new not in (0, size)):
            self.ask(what, request, checks.refused)
            return
        if writer is not None:
            writer.truncate(new)
        elif new != size:
            old = self.model.content(key) or b""
            content = old[:new] + bytes(max(0, new - len(old)))
            self.model.commit(key, self.model.name(key) if file else path.rpartition("/")[2], content, None)
        self.ask(what, request, checks.ok)

    def set_committed_time(self, key: str) -> None:
        time, path = self.some_time(), self.path(key)
        request = self.raw.setstat(path, atime=time, mtime=time)
        what = f"setstat {path} mtime={time}"
        if not self.model.is_there(key):
            self.ask(what, request, checks.refused)
            return
        writer, file = self.model.writers.get(key), self.model.files.get(key)
        if writer is not None:
            writer.time = time
        elif file is not None:
            self.time_is_set(key, time)
        self.ask(what, request, checks.ok)

    # -- the connection

    def cut(self) -> None:
        """Lose the connection, come again, and see what was kept."""
        if not self.place.may_cut:
            return
        self.log.append("cut")
        self.session.cut()
        self.come_again()

    def come_again(self) -> None:
        """Begin a new session, where the last has ended however."""
        self.cut_off.update(self.model.writers)
        unclear = self.model.cut()
        self.readers.clear()
        self.lost.clear()
        self.session = self.place.connect()
        self.raw = self.session.raw()
        for key in unclear:
            reply = self.raw.wait(self.raw.stat(self.root.rstrip("/") + key))
            if reply.kind != Kind.ATTRS:
                del self.model.partials[key]

    def check_all(self) -> None:
        """Compare everything."""
        for folder in list(self.model.folders):
            self.list(folder)
        for key in list(self.model.visible()):
            self.stat(key)
            self.read(key)

    def close_all(self) -> None:
        for writer in list(self.model.writers.values()):
            self.close(writer)
