"""Random steps of sessions of one user within a small quota, over a storage that lags and fails, and what is counted.

What is stored never exceeds the quota; what is counted is what is there; and nobody is refused while there is room.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fs import errors

from sftp_gateway.files.handles import WriteHandle
from sftp_gateway.files.tree import Tree, TreeLimits, TreeView
from sftp_gateway.sftp.packets import Attributes, OpenFlag
from sftp_gateway.sftp.status import RefusedError
from tests.sftp_gateway.atomic_fs import super_read
from tests.sftp_gateway.files.lagging_fs import LaggingFS, Traits
from tests.sftp_gateway.files.writing_model import make_small

W, A, C, T, X = OpenFlag.WRITE, OpenFlag.APPEND, OpenFlag.CREAT, OpenFlag.TRUNC, OpenFlag.EXCL
FLAGS = (W | C | T, W | C | T, W | C, W, A | W | C, W | C | X)
PATHS = ("/a", "/b", "/c", "/d/a", "/e/a")
REFUSALS = (RefusedError, errors.FSError, OSError)
USED_UP = "your quota is used up"
STEPS = {
    "open": 8,
    "write": 16,
    "resize": 4,
    "resize_path": 3,
    "close": 9,
    "cut": 1,
    "remove": 3,
    "rename": 4,
    "rename_directory": 1,
    "let_go": 6,
    "wait": 2,
    "others": 1,
    "restart": 1,
    "kill": 1,
}


class ForgetfulFS(LaggingFS):
    """Its answers hang and get lost, too; without atomic writes, whoever hangs would hold up everybody."""

    def lag(self, lags: bool) -> None:
        super().lag(lags and self.traits.atomic)

    def commit(self, path: str, content: bytes, **options: Any) -> None:
        super().commit(path, content, **options)
        self.passes("commit", path)


@dataclass(eq=False)
class Session:
    view: TreeView
    opened: list[WriteHandle] = field(default_factory=list)


@dataclass(eq=False)
class UnderWay:
    """Something that hangs."""

    thread: threading.Thread
    handle: WriteHandle | None
    said: list[BaseException | None]


class World:
    """A user's sessions and folder. Each step tells whether it was done, not refused."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.log: list[str] = []
        self.now = 0.0
        traits = Traits(atomic=chance.random() < 0.8, versions=chance.random() < 0.7, resumes=False, eager=False)
        self.storage = ForgetfulFS(traits, random.Random(seed + 1))
        self.storage.makedirs("/home/d")
        self.folder = folder
        self.limits = TreeLimits(commit_wait_seconds=0.004, spool_memory=1000, spool_quota=10**6)
        self.quota = chance.choice([(100, 0), (250, 0), (0, 3), (100, 3), (250, 4)])
        self.fault_rate = chance.choice([0, 0, 0.05]) if traits.atomic else 0
        self.has_others = chance.random() < 0.3
        self.under_way: list[UnderWay] = []
        self.is_exact = False  # nothing of what was under way when all was measured may be counted twice
        self.measured_at: float | None = None
        self.was_quiet = True  # before this step: it may have been in its midst that all was measured
        self.tree = self.made()
        self.sessions = [self.session(), self.session()]

    def made(self) -> Tree:
        tree = Tree(self.storage, spool_directory=self.folder, limits=self.limits)
        self.allowance = tree.store.allowances.find("/home", self.quota)
        assert self.allowance is not None
        self.allowance._clock = lambda: self.now
        self.is_exact, self.measured_at = False, None
        return tree

    def session(self) -> Session:
        return Session(self.tree.view("/home", quota=self.quota))

    def run(self, steps: int) -> None:
        self.storage.fault_rate = self.fault_rate
        for number in range(steps):
            kind = self.chance.choices(list(STEPS), list(STEPS.values()))[0]
            self.log.append(f"{number} {kind}")
            self.was_quiet = self.is_quiet()
            getattr(self, kind)()
            self.gather()
            self.check()
        self.all_ends()
        self.check()

    # -- steps

    def open(self) -> None:
        session, path, flags = self.chance.choice(self.sessions), self.path(), self.chance.choice(FLAGS)
        if len(session.opened) > 3:
            return
        self.say(f"{path} {flags}")
        there = self.there()
        try:
            handle = session.view.open(path, flags, Attributes())
        except REFUSALS as error:
            self.refused(error, lambda: "/home" + path not in there and self.is_full(there, 1))
        else:
            assert isinstance(handle, WriteHandle)
            session.opened.append(handle)

    def write(self) -> None:
        handle = self.some()
        if handle is None:
            return self.open()
        draft = handle.draft
        offset = self.chance.choice([draft.size, draft.size, draft.size, self.chance.randrange(200)])
        size = self.chance.choice([1, 10, 40, 90])
        self.say(f"{draft.path} {offset} {size}")
        old = len(self.there().get(draft.path, b""))
        end = size + (draft.size if handle._append else offset)
        try:
            handle.write(offset, bytes(size))
        except REFUSALS as error:
            self.refused(error, lambda: self.total() - old + end > self.quota[0] > 0)

    def resize(self) -> None:
        handle, size = self.some(), self.chance.randrange(150)
        if handle is None:
            return
        self.say(f"{handle.draft.path} {size}")
        old = len(self.there().get(handle.draft.path, b""))
        try:
            handle.truncate(size)
        except REFUSALS as error:
            self.refused(error, lambda: self.total() - old + size > self.quota[0] > 0)

    def resize_path(self) -> None:
        session, path, size = self.chance.choice(self.sessions), self.path(), self.chance.randrange(150)
        self.say(f"{path} {size}")
        there = self.there()
        old = len(there.get("/home" + path, b""))
        self.storage.lag(False)
        try:
            session.view.set_attributes(path, Attributes(size=size))
        except REFUSALS as error:
            self.refused(
                error,
                lambda: (
                    sum(map(len, there.values())) - old + size > self.quota[0] > 0
                    or ("/home" + path not in there and self.is_full(there, 1))  # whose upload was cut off
                ),
            )

    def close(self) -> None:
        handle = self.some()
        if handle is None:
            return
        for session in self.sessions:
            if handle in session.opened:
                session.opened.remove(handle)
        there, was_quiet = self.there(), self.is_quiet()
        path, size = handle.draft.path, handle.draft.size
        self.say(f"{path} {size}")
        under_way = self.begin(handle.close, handle)
        if self.chance.random() < 0.6:
            self.storage.lag(False)
            under_way.thread.join(20)
        more, files = size - len(there.get(path, b"")), int(path not in there)
        if under_way.said and under_way.said[0] is not None:
            self.gather(but=under_way)
            self.refused(
                under_way.said[0],
                lambda: (
                    not was_quiet  # what hung may have been stored before
                    or "for this file" in str(under_way.said[0])  # of a WRITE that was refused earlier
                    or (more > 0 and sum(map(len, there.values())) + more > self.quota[0] > 0)
                    or (bool(files) and len(there) >= self.quota[1] > 0)
                ),
            )

    def cut(self) -> None:
        session = self.chance.choice(self.sessions)
        for handle in session.opened:
            handle.abort()
        self.sessions[self.sessions.index(session)] = self.session()

    def remove(self) -> None:
        session, path = self.chance.choice(self.sessions), self.path()
        self.say(path)
        with contextlib.suppress(*REFUSALS):
            session.view.remove(path)

    def rename(self) -> None:
        session, (source, target) = self.chance.choice(self.sessions), self.chance.sample(PATHS, 2)
        replace = self.chance.random() < 0.7
        self.say(f"{source} {target} {replace}")
        try:
            session.view.rename(source, target, replace=replace)
            self.say("done")
        except REFUSALS as error:
            self.refused(error, lambda: False)

    def rename_directory(self) -> None:
        session = self.chance.choice(self.sessions)
        with contextlib.suppress(*REFUSALS):
            session.view.rename(*self.chance.sample(["/d", "/e"], 2), replace=False)

    def let_go(self) -> None:
        self.storage.lag(True)
        self.storage.let_go(self.chance.choice([1, 1, 2]))
        for each in self.under_way:
            each.thread.join(0.001)

    def wait(self) -> None:
        self.now += self.chance.choice([1, 10, 100, 300])

    def others(self) -> None:
        if not self.has_others:
            return
        path, size = "/home" + self.path(), self.chance.randrange(200)
        self.say(f"{path} {size}")
        with contextlib.suppress(errors.FSError):
            if self.chance.random() < 0.5:
                LaggingFS.commit(self.storage, path, bytes(size))
            else:
                self.storage.remove(path)
            self.is_exact = False
            self.measured_at = -1

    def restart(self) -> None:
        self.tree.close()
        self.all_ends()
        self.tree = self.made()
        self.sessions = [self.session(), self.session()]

    def kill(self) -> None:
        self.storage.generation += 1
        self.restart()

    # -- what is known

    def check(self) -> None:
        before = None
        while before != (before := (self.allowance._bytes, self.allowance._files)):  # type: ignore[union-attr]  # what hangs may just go on
            there = self.there()
        counted, files = before
        total = sum(map(len, there.values()))
        measured_at = self.allowance._measured_at  # type: ignore[union-attr]
        if measured_at is None:
            return
        if measured_at != self.measured_at:
            has_changed = self.measured_at == -1
            was_quiet = self.was_quiet and self.is_quiet()
            self.measured_at, self.is_exact = measured_at, was_quiet and not has_changed
        if self.has_others:
            return
        if self.quota[0]:
            assert total <= self.quota[0], f"{total} of {self.quota[0]} bytes are stored"
        if self.quota[1]:
            assert len(there) <= self.quota[1], f"{len(there)} of {self.quota[1]} files are stored"
        assert counted >= total, f"{counted} bytes are counted, {total} are there"
        assert files >= len(there), f"{files} files are counted, {len(there)} are there"
        if self.is_exact and self.is_quiet():
            assert counted == total, f"{counted} bytes are counted, {total} are there"
            assert files == len(there), f"{files} files are counted, {len(there)} are there"

    def refused(self, error: BaseException, is_right: Callable[[], bool]) -> None:
        self.say(f"refused: {type(error).__name__} {error}")
        assert isinstance(error, REFUSALS), error
        if USED_UP in str(error) and self.is_quiet() and not self.has_others and self.is_exact:
            assert is_right(), "there is room"

    def is_full(self, there: dict[str, bytes], files: int) -> bool:
        total = sum(map(len, there.values()))
        return total >= self.quota[0] > 0 or len(there) + files > self.quota[1] > 0

    def there(self) -> dict[str, bytes]:
        return {path: super_read(self.storage, path) for path in self.storage.walk.files("/home")}

    def total(self) -> int:
        return sum(map(len, self.there().values()))

    def is_quiet(self, but: UnderWay | None = None) -> bool:
        return all(each is but for each in self.under_way)

    def path(self) -> str:
        return self.chance.choice(PATHS)

    def some(self) -> WriteHandle | None:
        busy = [each.handle.draft for each in self.under_way if each.handle is not None]
        opened = [handle for session in self.sessions for handle in session.opened if handle.draft not in busy]
        return self.chance.choice(opened) if opened else None

    def say(self, text: str) -> None:
        self.log.append(f"    {text}")

    # -- what hangs

    def begin(self, action: Callable[[], Any], handle: WriteHandle | None = None) -> UnderWay:
        said: list[BaseException | None] = []

        def act() -> None:
            try:
                action()
            except BaseException as error:  # noqa: BLE001 - who began it looks
                said.append(error)
            else:
                said.append(None)

        self.storage.lag(True)
        hung = self.storage.hanging
        thread = threading.Thread(target=act, daemon=True)
        under_way = UnderWay(thread, handle, said)
        self.under_way.append(under_way)
        thread.start()
        until = time.monotonic() + 0.01
        while thread.is_alive() and self.storage.hanging == hung and time.monotonic() < until:
            time.sleep(0.0002)
        return under_way

    def gather(self, but: UnderWay | None = None) -> None:
        for each in list(self.under_way):
            if each.said:
                each.thread.join(20)
                self.under_way.remove(each)

    def all_ends(self) -> None:
        self.storage.lag(False)
        for each in self.under_way:
            each.thread.join(20)
            assert each.said, "it never ended"
        self.gather()

    def end(self) -> None:
        self.all_ends()
        for session in self.sessions:
            for handle in session.opened:
                handle.abort()
        self.tree.close()


def play(folder: Path, seed: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> World:
    """Do random steps; fail with all of them."""
    logging.getLogger("sftp_gateway").setLevel(logging.ERROR)
    world = World(folder, seed)
    with monkeypatch.context() as patched:
        make_small(patched)
        try:
            world.run(steps)
        except Exception as error:
            log = "\n".join(world.log[-80:])
            raise AssertionError(f"{log}\n{world.quota} {world.storage.traits}\nseed {seed}: {error}") from error
        finally:
            world.end()
    return world


@pytest.mark.parametrize("first", range(0, 12, 3))
def test_what_is_counted_is_what_is_there(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(first, first + 3):
        play(tmp_path / str(seed), seed, 60, monkeypatch)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 3000, 100))
def test_it_is_so_for_long(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(first, first + 100):
        play(tmp_path / str(seed), seed, 200, monkeypatch)
