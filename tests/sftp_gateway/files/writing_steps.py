"""Random steps of everybody who writes files, over a storage that lags, and what a plain model says of each."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

import pytest
from fs.path import dirname

from sftp_gateway.files import spool
from sftp_gateway.files.draft import Draft, State
from sftp_gateway.files.handles import ReadHandle, WriteHandle
from sftp_gateway.sftp.packets import Attributes, OpenFlag
from sftp_gateway.sftp.status import EndOfDataError
from tests.sftp_gateway.files.writing_closing import Closing
from tests.sftp_gateway.files.writing_model import MOMENTS, MOST_BYTES, Model, flag_names, make_small
from tests.sftp_gateway.files.writing_world import PATHS, REFUSALS, Opened, Session

W, R, A, C, T, X = (
    OpenFlag.WRITE,
    OpenFlag.READ,
    OpenFlag.APPEND,
    OpenFlag.CREAT,
    OpenFlag.TRUNC,
    OpenFlag.EXCL,
)
FLAGS = (W | C | T, W | C | T, R | W | C | T, W | C, R | W | C, W, R | W, A | W | C, W | C | X)
STEPS = {
    "open": 6,
    "write": 30,
    "burst": 4,
    "resize": 6,
    "read": 3,
    "close": 4,
    "cut": 2,
    "begin_anew": 2,
    "lag": 3,
    "let_go": 12,
    "rename": 2,
    "rename_directory": 1,
    "remove": 1,
    "look": 3,
    "resize_path": 1,
    "touch": 1,
    "copy": 1,
    "others": 2,
    "restart": 1,
    "kill": 1,
    "kill_within": 1,
    "sync": 1,
}


CALM = ("open", "write", "burst", "resize", "read", "close", "lag", "let_go")


class Writing(Closing):
    """Random steps. Each tells whether it was done, not refused."""

    more_steps: ClassVar[dict[str, int]] = {}

    def run(self, steps: int) -> None:
        few = CALM if self.is_calm else ("open", "write", "close")
        kinds = [kind for kind in STEPS if kind in few or (not self.is_calm and self.chance.random() < 0.6)]
        kinds = list({**dict.fromkeys(kinds), **self.more_steps})
        weights = [{**STEPS, **self.more_steps}[kind] for kind in kinds]
        for number in range(steps):
            kind = self.chance.choices(kinds, weights)[0]
            self.storage.steps += 1
            self.say(f"{number} {kind}")
            done = getattr(self, kind)()
            self.oks[f"{kind} {'ok' if done else 'no'}"] += 1
            self.settle()
            self.check()
        self.end()

    def open(self) -> bool:
        session, path = self.chance.choice(self.sessions), self.chance.choice(PATHS)
        return len(session.opened) <= 4 and self.open_at(session, path, self.chance.choice(FLAGS))

    def open_at(self, session: Session, path: str, flags: int) -> bool:
        self.say(f"  {self.sessions.index(session)} {path} {flag_names(flags)}")
        try:
            handle = session.view.open(path, flags, Attributes())
        except REFUSALS as error:
            return self.refused(error)
        assert isinstance(handle, WriteHandle)
        draft = handle.draft
        is_new = draft not in self.models and (flags & (T | X) or draft.spool.path is None)
        model = None if is_new else self.known(draft)
        if model is None:
            assert draft.state is State.OPEN
            if flags & T or flags & X or path not in self.expected:
                if flags & X:
                    assert path not in self.expected
                assert not draft.base.is_there
                model = Model(path, bytearray(), is_exclusive=bool(flags & X), replaces=self.expected.get(path))
            else:
                assert draft.base.is_there, "it was begun anew"
                model = Model(path, bytearray(self.expected[path]), dirty=False, based=True)
                model.refuses_ends = self.replacing.get(path) is session.tree
            self.models[draft] = model
        else:
            assert not flags & (T | X), "it was gone on with"
            left = self.left_at(path, session.tree) if model.touched >= 0 else []
            assert all(other.touched <= model.touched for other in left), f"others were written later: {left}"
            self.say(f"  joined, {len(model.content)} bytes, {draft.forwarding.resume}")
            model.dirty = model.dirty or model.is_partial
            model.is_partial = False
        assert draft.size == len(model.content), (draft.size, len(model.content))
        session.opened.append(Opened(handle, model, flags))
        return True

    def write(self) -> bool:
        found = self.some()
        return self.open() if found is None else self.write_to(found[1])

    def resize(self) -> bool:
        found = self.some()
        return found is not None and self.resize_of(found[1])

    def burst(self) -> bool:
        """Write ahead of the storage, change the end of that, let the storage go on with it, and go on oneself."""
        found = self.some()
        if found is None:
            return self.open()
        self.storage.lag(True)
        opened = found[1]
        for _ in range(self.chance.randrange(2, 5)):
            self.write_to(opened, in_order=True)
        if self.chance.random() < 0.7:
            self.resize_of(opened, by_few=True)
        else:
            self.write_to(opened)
        if self.chance.random() < 0.7:
            self.storage.lag(False)
            self.settle()
        return self.write_to(opened, in_order=True)

    def read(self) -> bool:
        found = self.some()
        if found is None or not found[1].flags & R:
            return False
        opened = found[1]
        start, size = self.chance.randrange(0, MOST_BYTES), self.chance.randrange(1, 100)
        try:
            data = opened.handle.read(start, size)
            assert opened.handle.attributes().size == len(opened.model.content)
        except EndOfDataError:
            assert start >= len(opened.model.content)
            return True
        except REFUSALS as error:
            return self.refused(error)
        self.compare(opened.model, start, data, size)
        return True

    def touch(self) -> bool:
        found = self.some()
        if found is None:
            return False
        with contextlib.suppress(*REFUSALS):
            found[1].handle.set_modified(float(self.chance.randrange(10**9)))
        return True

    def sync(self) -> bool:
        found = self.some()
        if found is None:
            return False
        with contextlib.suppress(*REFUSALS):
            found[1].handle.sync()
        return True

    def cut(self) -> bool:
        return self.cut_one(self.chance.choice(self.sessions))

    def cut_one(self, session: Session) -> bool:
        self.say(f"  {self.sessions.index(session)} is cut off")
        for opened in session.opened:
            draft = opened.handle.draft
            opened.handle.abort()
            if draft.state is State.ENDED and "cut off" in draft.end_reason:
                self.is_unfinished(opened.model, session.tree)
        self.sessions[self.sessions.index(session)] = self.session(self.chance.choice(self.trees))
        return True

    def begin_anew(self) -> bool:
        """Upload once more what another session still uploads; cut off one or both; go on."""
        found = self.some()
        if found is None:
            return self.open()
        session, opened = found
        other, path = self.chance.choice(self.sessions), opened.handle.draft.path
        if other is session or not self.open_at(other, path, W | C | T):
            return False
        for _ in range(self.chance.randrange(3)):
            self.write_to(other.opened[-1], in_order=True)
        for each in self.chance.sample([other, session], self.chance.randrange(1, 3)):
            self.check()
            self.cut_one(each)
        self.check()
        return self.open_at(self.chance.choice(self.sessions), path, W)

    def lag(self) -> bool:
        self.storage.lag(self.chance.random() < 0.7)
        return True

    def let_go(self) -> bool:
        self.storage.let_go(self.chance.choice([1, 1, 3, 8]))
        return True

    def rename(self) -> bool:
        session = self.chance.choice(self.sessions)
        source, target = self.chance.sample(PATHS, 2)
        replace = self.chance.random() < 0.5
        self.say(f"  {source} {target} {replace}")
        try:
            session.view.rename(source, target, replace=replace)
        except REFUSALS as error:
            return self.refused(error)
        for draft, model in self.models.items():
            if draft.state is State.ENDED and model.path == source:
                model.path = "gone"
        if source in self.expected:
            self.others_change()
        for draft in session.tree.store.overlay.at(target) if source not in self.expected else ():
            if draft.is_open and draft in self.models:
                self.models[draft].is_exclusive = not replace
        self.others_rename(session.tree, source, target)
        return True

    def rename_directory(self) -> bool:
        session = self.chance.choice(self.sessions)
        source, target = self.chance.choice([("/d", "/e"), ("/e", "/d")])
        try:
            session.view.rename(source, target, replace=False)
        except REFUSALS as error:
            return self.refused(error)
        self.others_rename(session.tree, source, target)
        return True

    def remove(self) -> bool:
        session, path = self.chance.choice(self.sessions), self.chance.choice(PATHS)
        self.say(f"  {path}")
        try:
            session.view.remove(path)
        except REFUSALS as error:
            return self.refused(error)
        self.expected.pop(path, None)
        self.others_change()
        return True

    def resize_path(self) -> bool:
        session, path = self.chance.choice(self.sessions), self.chance.choice(PATHS)
        size = self.chance.randrange(0, 100)
        draft = session.tree.store.looking.current(path)
        model = self.known(draft) if draft is not None and draft.state is State.OPEN else None
        self.say(f"  {path} to {size}")
        self.storage.lag(False)
        try:
            session.view.set_attributes(path, Attributes(size=size))
        except REFUSALS as error:
            if not self.traits.atomic:
                self.expected = self.storage.content()
            return self.refused(error)
        if model is not None:
            model.resize(size)
        elif not size or path in self.expected:  # else it is another process's, and has that size
            old = self.expected[path] if size else self.expected.get(path, b"")
            self.expected[path] = old[:size] + bytes(max(0, size - len(old)))
            self.replacing.pop(path, None)
            if len(old) != size:
                self.others_change()
        return True

    def copy(self) -> bool:
        """Have an empty file hold what another one holds."""
        found = self.some()
        if found is None or not self.expected or found[1].model.based:
            return False
        (session, opened), path = found, self.chance.choice(sorted(self.expected))
        self.say(f"  {path} to {opened.model.path}")
        try:
            source = session.view.open(path, R, Attributes())
        except REFUSALS as error:
            return self.refused(error)
        try:
            assert isinstance(source, ReadHandle)
            session.view.copy(source, opened.handle)
        except REFUSALS as error:
            return self.refused(error)
        finally:
            source.close()
        assert not opened.model.content, "it was not empty"
        opened.model.write(0, self.expected[path])
        opened.model.based, opened.model.is_copy, opened.model.sent = True, True, set()
        return True

    def others(self) -> bool:
        """Have somebody who knows nothing of the gateway change the storage."""
        path, content = self.chance.choice(PATHS), self.chance.randbytes(self.chance.randrange(60))
        self.say(f"  {path} {content!r}")
        if self.chance.random() < 0.3:
            if self.expected.pop(path, None) is None:
                return False
            self.storage.change(path, None)
        elif not self.storage.isdir(dirname(path)):
            return False
        else:
            self.storage.change(path, content)
            self.expected[path] = content
        self.others_change()
        self.replacing.pop(path, None)
        for model in self.models.values():
            is_over_it = model.path == path and model.based and not model.is_copy
            model.is_outdated = model.is_outdated or is_over_it
        return True

    def look(self) -> bool:
        session, path = self.chance.choice(self.sessions), self.chance.choice(PATHS)
        draft = session.tree.store.looking.current(path)
        try:
            handle: Any = session.view.open(path, R, Attributes())
        except REFUSALS as error:
            assert path not in self.expected, "it was there"
            return self.refused(error)
        try:
            data = handle.read(0, 2 * MOST_BYTES)
        except EndOfDataError:
            data = b""
        except REFUSALS as error:
            return self.refused(error)
        finally:
            handle.close()
        if isinstance(handle.source, Draft):
            if self.is_elsewhere(handle.source):
                return True
            model = self.known(handle.source)
            assert model is not None
            if handle.source.state is State.PARTIAL:
                assert path not in self.expected
            else:
                assert draft is handle.source
            self.compare(model, 0, data, 2 * MOST_BYTES)
        else:
            assert data == self.expected[path]
        return True

    def restart(self) -> bool:
        tree = self.chance.choice(self.trees)
        self.note_names()
        tree.close()
        self.revive_tree(tree)
        return True

    def kill(self) -> bool:
        self.settle()
        self.note_names()
        self.take_over(self.copied())
        return True

    def kill_within(self) -> bool:
        """Kill the gateway in the middle of another step."""
        self.note_names()
        before = self.names
        self.count_down = self.chance.randrange(6)
        kind = self.chance.choice(["write", "write", "write", "write", "resize", "resize", "cut", "let_go", "rename"])
        self.say(f"  within {kind}")
        getattr(self, kind)()
        self.settle()
        self.count_down = -1
        folder, self.snapshot = self.snapshot, None
        if folder is None:
            return False
        self.note_names(also=before)
        self.take_over(folder)
        if kind == "rename":
            for model in [model for models in self.names.values() for model in models]:
                model.path = "?"
        return True


def play(world: Writing, seed: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do random steps; fail with all of them."""
    with monkeypatch.context() as patched:
        make_small(patched)
        patched.setattr(MOMENTS, "act", world.moment)
        write_all = spool._write_all
        patched.setattr(spool, "_write_all", lambda *args: world.write_all(write_all, *args))
        patched.setattr(spool, "punch", world.punch)
        try:
            world.run(steps)
        except Exception as error:
            world.storage.lag(False)
            for tree in world.trees:
                for draft in tree.store.overlay.all():
                    draft.end("failed")
            log = "\n".join(world.log[-120:])
            raise AssertionError(
                f"{log}\n{world.traits} {world.limits}\nseed {seed}: {type(error).__name__}: {error}"
            ) from error
