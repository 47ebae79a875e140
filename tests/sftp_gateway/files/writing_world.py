"""Gateways over a storage that lags, fails and forgets: what is known of them, and is compared after each step."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fs import errors
from fs.path import dirname, join

from sftp_gateway.files.draft import Draft, State
from sftp_gateway.files.handles import WriteHandle
from sftp_gateway.files.tree import Tree, TreeLimits, TreeView
from sftp_gateway.sftp.status import RefusedError
from tests.sftp_gateway.files.lagging_fs import LaggingFS, Traits
from tests.sftp_gateway.files.writing_model import MOMENTS, MOST_BYTES, Model, torn
from tests.waiting import eventually

PATHS = ("/a", "/b", "/d/a", "/e/a")
REFUSALS = (RefusedError, errors.FSError, OSError)
SECONDS = 20.0


@dataclass(eq=False)
class Opened:
    handle: WriteHandle
    model: Model
    flags: int


@dataclass(eq=False)
class Session:
    tree: Tree
    view: TreeView
    opened: list[Opened] = field(default_factory=list)


class World:
    """Trees, sessions and a storage, with their models."""

    processes = 2  # where there are several
    always_shared = False

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.log: list[str] = []
        self.traits = Traits(
            atomic=chance.random() < 0.85,
            versions=chance.random() < 0.7,
            resumes=chance.random() < 0.7,
            eager=chance.random() < 0.6,
        )
        self.storage = self.storage_in(folder / "storage", random.Random(seed + 1))
        self.storage.makedir("/d")
        self.is_calm = chance.random() < 0.4  # nothing fails, and nobody is in the way
        self.fault_rate = chance.choice([0, 0, 0.01, 0.05]) if self.traits.atomic and not self.is_calm else 0
        self.disk_fault_rate = chance.choice([0, 0, 0, 0 if self.is_calm else 0.01])
        self.can_punch = chance.random() < 0.8
        self.shared = chance.random() < 0.3 or self.always_shared
        self.limits = TreeLimits(
            spool_quota=10**6 if self.is_calm else chance.choice([120, 250, 600, 5000]),
            spool_memory=chance.choice([1, 24, 60, 1000]),
            commit_wait_seconds=2,
            shared=self.shared,
            streams=chance.choice([1, 2, 32]),
            partials=chance.choice([1, 1000]),
        )
        self.root = folder
        self.generation = 0
        self.folder = folder / "0"
        self.expected: dict[str, bytes] = {}
        self.models: dict[Draft, Model] = {}
        self.names: dict[str, list[Model]] = {}  # what the spool file of a name may hold
        self.waiting: list[tuple[Draft, threading.Event]] = []
        self.trees: list[Tree] = []
        self.sessions: list[Session] = []
        self.oks = Counter[str]()
        self.replacing: dict[str, Tree] = {}  # where an upload was cut off that was to replace what is still there
        self.start()
        self.storage.fault_rate = self.fault_rate
        self.snapshot: Path | None = None
        self.count_down = -1

    def storage_in(self, folder: Path, chance: random.Random) -> Any:
        return LaggingFS(self.traits, chance)

    def start(self) -> None:
        self.trees = [self.tree() for _ in range(self.processes if self.shared else 1)]
        self.sessions = [self.session(self.chance.choice(self.trees)) for _ in range(2)]

    def tree(self) -> Tree:
        return Tree(self.storage, spool_directory=self.folder, limits=self.limits)

    def session(self, tree: Tree) -> Session:
        return Session(tree, tree.view())

    def write_all(self, write: Callable[..., None], fd: int, data: Any, offset: int) -> None:
        MOMENTS.act()
        half = len(data) // 2
        if self.chance.random() < self.disk_fault_rate:
            write(fd, memoryview(data)[:half], offset)
            raise OSError(errno.ENOSPC, "no space left")
        if self.count_down >= 0:
            write(fd, memoryview(data)[:half], offset)
            MOMENTS.act()
        write(fd, data, offset)
        MOMENTS.act()

    def punch(self, fd: int, start: int, end: int) -> bool:
        if not self.can_punch:
            return False
        MOMENTS.act()
        os.pwrite(fd, bytes(end - start), start)
        MOMENTS.act()
        return True

    def moment(self) -> None:
        if self.count_down > 0:
            self.count_down -= 1
            return
        if self.count_down == 0:
            self.count_down = -1
            self.snapshot = self.copied()

    def copied(self) -> Path:
        self.generation += 1
        target = self.root / str(self.generation)
        target.mkdir()
        if self.folder.exists():
            for file in sorted(self.folder.iterdir(), key=lambda file: file.suffix != ".json"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy(file, target / file.name)
        return target

    def say(self, text: str) -> None:
        self.log.append(text)

    def refused(self, error: BaseException) -> bool:
        self.say(f"  refused: {type(error).__name__} {error}")
        assert "again and again" not in str(error)
        return False

    def some(self) -> tuple[Session, Opened] | None:
        all_opened = [(session, opened) for session in self.sessions for opened in session.opened]
        return self.chance.choice(all_opened) if all_opened else None

    def known(self, draft: Draft) -> Model | None:
        """Return the model of a draft: of a partial what is left of it, or what others have made of that."""
        model = self.models.get(draft)
        if model is not None and model.is_partial and draft.state is State.PARTIAL and not self.is_elsewhere(draft):
            found = draft.read(0, draft.size)
            if len(found) != len(model.content) or not model.holds(found):
                assert self.shared, "nobody has gone on with it"
                model = None
        if model is not None:
            if draft.state is State.PARTIAL and not model.is_partial:
                self.shrink(model, draft)
            return model
        name = draft.spool.path.name if draft.spool.path is not None else ""
        candidates = self.names.get(name, []) or self.names.get("memory " + draft.path, [])
        if not candidates:
            return None
        found = draft.read(0, draft.size)
        fitting = [each for each in candidates if self.is_prefix(each, found)]
        assert fitting, (
            f"{draft.path} shows {len(found)} bytes {found!r}, none of which is a prefix of"
            f" {[(bytes(each.content), sorted(each.sent)[-1:]) for each in candidates]}"
        )
        model = fitting[-1].copy()
        self.models[draft] = model
        self.shrink(model, draft)
        assert model.path in (draft.path, "?") or self.shared, (draft.path, model.path)
        return model

    def is_prefix(self, model: Model, found: bytes) -> bool:
        size = len(found)
        return (
            size <= len(model.content)
            and all(at in model.sent or at in model.doubtful for at in range(size))
            and model.holds(found)
        )

    def shrink(self, model: Model, draft: Draft) -> None:
        found = draft.read(0, draft.size)
        assert self.is_prefix(model, found), (found, bytes(model.content), sorted(model.sent))
        self.say(f"  {model.path} is partial of {len(found)}")
        model.content[:] = found
        model.sent = set(range(len(found)))
        model.doubtful = set()
        model.is_partial = True

    def compare(self, model: Model, start: int, data: bytes, size: int) -> None:
        assert len(data) == len(model.content[start : start + size])
        if model.vague:
            return
        for at, byte in enumerate(data, start):
            assert byte == model.content[at] or at in model.doubtful, (
                f"{model.path}: byte {at} is {byte}, not {model.content[at]}"
            )

    def is_unfinished(self, model: Model, tree: Tree) -> None:
        """Know that a process is not to take what is there for the beginning of an upload without an end."""
        if model.replaces is not None and model.replaces is self.expected.get(model.path):
            self.replacing[model.path] = tree

    def left_at(self, path: str, tree: Tree) -> list[Model]:
        """Return what a process has left alone of uploads of a file that were cut off."""
        drafts = [draft for draft in tree.store.overlay.at(path) if not self.is_elsewhere(draft)]
        return [self.models[draft] for draft in drafts if draft.state is State.PARTIAL and draft in self.models]

    def others_change(self, but: Model | None = None) -> None:
        if not self.traits.atomic:
            for model in self.models.values():
                if model is not but and model.based:
                    model.vague = True

    def others_rename(self, tree: Tree, source: str, target: str) -> None:
        there = tree.store.overlay.all()
        self.replacing = {}
        for path in list(self.expected):
            if path == source or path.startswith(source + "/"):
                self.expected[target + path[len(source) :]] = self.expected.pop(path)
        for draft, model in self.models.items():
            is_moved = draft in there or draft.state is State.PARTIAL
            if is_moved and (model.path == source or model.path.startswith(source + "/")):
                model.path = target + model.path[len(source) :]
        if self.shared:
            self.note_names()

    def note_names(self, *, also: dict[str, list[Model]] | None = None) -> None:
        live: dict[str, list[Model]] = {}
        for draft, model in self.models.items():
            if draft.state is not State.ENDED:
                name = draft.spool.path.name if draft.spool.path is not None else "memory " + draft.path
                live.setdefault(name, []).append(model.copy())
        unseen = {key: models for key, models in self.names.items() if not key.startswith("memory")}
        self.names = {**unseen, **live}
        for key, models in (also or {}).items():
            now = live.get(key, [])
            self.names[key] = models + now + [torn(old, new) for old in models for new in now]

    def revive_tree(self, tree: Tree) -> None:
        at = self.trees.index(tree)
        assert tree.store.quota.used == 0, f"{tree.store.quota.used} bytes are still counted"
        assert not tree.store.overlay.all()
        self.trees[at] = self.tree()
        for number, session in enumerate(self.sessions):
            if session.tree is tree:
                for opened in session.opened:
                    opened.handle.abort()
                self.sessions[number] = self.session(self.trees[at])

    def forget_times(self, tree: Tree) -> None:
        """Know that a note which a killed process has left may be older than what was written last."""
        for draft in tree.store.overlay.all():
            for model in self.names.get(draft.spool.path.name, []) if draft.spool.path is not None else []:
                model.touched = -1

    def take_over(self, folder: Path) -> None:
        self.storage.generation += 1
        old = self.trees
        self.storage.lag(False)
        for tree in old:
            self.forget_times(tree)
            for draft in tree.store.overlay.all():
                draft.end("killed")
        self.models = {}
        self.folder = folder
        self.start()

    def settle(self) -> None:
        """Wait until the streams have nothing to do, or hang."""
        until = time.monotonic() + 0.03
        while time.monotonic() < until:
            alive = sum(thread.name == "sftp-stream" for thread in threading.enumerate())
            idle = 0
            for tree in self.trees:
                for draft in tree.store.overlay.all():
                    one = draft.forwarding._stream
                    if one is not None and one._thread.is_alive() and one._file is not None:
                        idle += one._taken == one._done == one._end and not one._cancelled
            if alive <= idle + self.storage.hanging:
                return
            time.sleep(0.0001)

    def check(self) -> None:
        found = self.storage.content()
        assert found == self.expected, f"the storage has {found}, not {self.expected}"
        for tree in self.trees:
            tree.store.drafts.follow(at_once=True)
        for tree in self.trees:
            for draft in tree.store.overlay.all():
                if self.is_elsewhere(draft):
                    continue
                model = self.known(draft)
                assert model is not None, f"nobody knows {draft.path} {draft.state} {draft.spool.path}"
                assert draft.path == model.path or model.path == "?" or self.shared, (draft.path, model.path)
                model.path = draft.path
                assert draft.size == len(model.content), (model.path, draft.size, len(model.content))
                try:
                    data = draft.read(0, 2 * MOST_BYTES)
                except REFUSALS:
                    continue
                self.compare(model, 0, data, 2 * MOST_BYTES)
        for tree in self.trees:
            self.check_seen(tree)
        if self.shared:
            self.note_names()

    def check_seen(self, tree: Tree) -> None:
        """Check that a process shows what is stored and what is being written, to whoever looks and whoever lists."""
        for _ in range(10):
            there = tree.store.overlay.all()
            found = {path: size for folder in ("/", "/d", "/e") for path, size in self.listed(tree, folder).items()}
            stats = {path: self.size_of(tree, path) for path in found}
            if tree.store.overlay.all() == there:
                break  # else what others have left was found, or there was room for it, in between
        else:
            raise AssertionError(f"what is shown never settles: {there}")
        assert stats == found
        for path in PATHS:
            drafts = [draft for draft in tree.store.overlay.at(path) if draft.state is not State.ENDED]
            sizes: set[int | None] = {draft.size for draft in drafts if draft.is_open or path not in self.expected}
            if path in self.expected and (not drafts or not all(draft.is_open for draft in drafts)):
                sizes.add(len(self.expected[path]))
            if not sizes or not self.storage.isdir(dirname(path)):
                sizes.add(None)
            assert found.get(path) in sizes, f"{path} is listed with {found.get(path)} bytes, not {sizes}"

    def size_of(self, tree: Tree, path: str) -> int | None:
        with contextlib.suppress(errors.ResourceNotFound):
            return tree.store.looking.stat(path).size
        return None

    def listed(self, tree: Tree, folder: str) -> dict[str, int]:
        with contextlib.suppress(errors.ResourceNotFound):
            return {join(folder, name): value.size or 0 for name, value in tree.store.looking.scan(folder)}
        return {}

    def is_elsewhere(self, draft: Draft) -> bool:
        """Tell whether another process goes on with a partial, which this one does not know yet."""
        others = [other for tree in self.trees for other in tree.store.overlay.all() if other is not draft]
        return draft.state is State.PARTIAL and any(
            other.state is State.OPEN and other.spool.path == draft.spool.path for other in others
        )

    def end(self) -> None:
        self.storage.fault_rate = self.disk_fault_rate = 0
        self.storage.lag(False)
        self.settle()
        for draft, event in self.waiting:
            if draft.state is State.OPEN and not draft.spool.quota.is_short:  # else others have to make room, too
                assert event.wait(5), "nobody said that the storage has caught up"
        for session in self.sessions:
            for opened in session.opened:
                opened.handle.abort()
        self.check()
        for tree in self.trees * len(PATHS):  # for some of what was cut off there is room once others are gone
            view = tree.view()
            for path in PATHS:
                with contextlib.suppress(*REFUSALS):
                    view.remove(path)
            tree.store.drafts.follow(at_once=True)
        for tree in self.trees:
            assert tree.store.overlay.all() == []
            assert tree.store.quota.used == 0, f"{tree.store.quota.used} bytes are still counted"
        eventually(lambda: all(streams_left(tree) == self.limits.streams for tree in self.trees), "a stream is left")
        left = list(self.folder.iterdir()) if self.folder.exists() else []
        assert left == [], left
        for tree in self.trees:
            tree.close()
        eventually(lambda: not threads(), lambda: f"left: {threads()}")


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sftp-")]


def streams_left(tree: Tree) -> int:
    return tree.store.drafts._streams._value
