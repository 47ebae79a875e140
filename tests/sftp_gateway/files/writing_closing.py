"""Random CLOSEs, in the middle of which other things happen, and what may be in the storage then."""

from __future__ import annotations

import threading
import time

from sftp_gateway.files.draft import State
from sftp_gateway.files.handles import WriteHandle
from sftp_gateway.files.spool import SpoolFullError
from sftp_gateway.files.tree import Tree
from sftp_gateway.sftp.packets import OpenFlag
from tests.sftp_gateway.files.writing_model import MOST_BYTES
from tests.sftp_gateway.files.writing_world import REFUSALS, SECONDS, Opened, World


class Closing(World):
    """Closes files, and changes them meanwhile through others' handles."""

    def write_to(self, opened: Opened, *, in_order: bool = False) -> bool:
        model, size = opened.model, len(opened.model.content)
        offset = (
            self.chance.choice([size] * 6 + [max(0, size - self.chance.randrange(1, 20)), size + 7, 0]) if size else 0
        )
        if self.chance.random() < 0.08:
            offset = self.chance.randrange(0, MOST_BYTES)
        if in_order:
            offset = size
        if offset > MOST_BYTES:
            return False
        data = self.chance.randbytes(self.chance.choice([1, 7, 16, 20, 50]))
        at = size if opened.flags & OpenFlag.APPEND else offset
        self.say(f"  {model.path} {at} {len(data)} (of {size})")
        try:
            keeps_up = opened.handle.write(offset, data)
        except REFUSALS as error:
            if opened.handle in opened.handle.draft.handles:
                model.doubtful.update(range(at, at + len(data)))
                model.refused.update(range(at, at + len(data)))
            return self.refused(error)
        model.write(at, data)
        if not keeps_up:
            event = threading.Event()
            opened.handle.draft.pace.when_caught_up(event.set)
            self.waiting.append((opened.handle.draft, event))
        return True

    def resize_of(self, opened: Opened, *, by_few: bool = False) -> bool:
        model = opened.model
        fewer = max(0, len(model.content) - self.chance.randrange(0, 30))
        size = fewer if by_few else self.chance.choice([self.chance.randrange(0, MOST_BYTES), fewer, 0])
        self.say(f"  {model.path} to {size} (of {len(model.content)})")
        try:
            opened.handle.truncate(size)
        except REFUSALS as error:
            return self.refused(error)
        model.resize(size)
        return True

    def close(self) -> bool:
        found = self.some()
        if found is None:
            return False
        session, opened = found
        session.opened.remove(opened)
        model, draft, handle = opened.model, opened.handle.draft, opened.handle
        is_own = handle in draft.handles and draft.state is State.OPEN
        others = [
            each for one in self.sessions for each in one.opened if each.model is model and each.handle in draft.handles
        ]
        before, was_dirty = bytes(model.content), model.dirty
        self.say(f"  {model.path} {len(before)} bytes, {'' if is_own else 'not '}own, {len(others)} others")
        if self.chance.random() < 0.5 or not (self.storage.lags or self.chance.random() < 0.2):
            self.storage.lag(False)
            error, changed, ended = close(handle), False, False
        else:
            error, changed, ended = self.close_meanwhile(opened, others, session.tree)
        if error is not None and not isinstance(error, REFUSALS):
            raise error
        now = self.storage.content().get(draft.path)
        if error is None:
            if not is_own:
                assert not handle._has_changed, "a handle that was overtaken was closed"
                return True
            assert draft.path == model.path, (draft.path, model.path)
            if changed:
                assert now is not None
                model.is_outdated = model.is_exclusive = model.is_copy = False
                model.replaces = None
                self.expected[model.path] = now
                self.replacing.pop(model.path, None)
                model.dirty = True
                self.others_change(model)
                model.based = True
            elif was_dirty:
                assert not {at for at in model.doubtful if at < len(before)}, "what was refused was forgotten"
                assert now == before, (
                    f"{model.path}: {now and len(now)} bytes {now!r}, not {len(before)} bytes {before!r}"
                )
                assert not model.is_outdated, "what others have stored is lost"
                assert not (model.is_exclusive and model.path in self.expected), "it was to replace nothing"
                model.is_exclusive, model.is_copy, model.replaces = False, False, None
                old = range(len(self.expected.get(model.path, b"")))
                assert not (model.refuses_ends and len(before) > len(old) and set(old) - model.sent), "it is a mix"
                self.replacing.pop(model.path, None)
                self.expected[model.path] = before
                model.dirty = model.refuses_ends = False
                model.doubtful = set()
                model.based = True
                self.others_change(model)
        else:
            self.refused(error)
            is_of_write = self.traits.atomic and isinstance(error, SpoolFullError | OSError)
            assert model.refused or not is_of_write, "all that was refused has come since"
            if draft.state is State.ENDED:
                self.is_unfinished(model, session.tree)
            if not self.traits.atomic and now is not None:
                self.expected[model.path] = now
        if ended:
            self.revive_tree(session.tree)
        return error is None

    def close_meanwhile(
        self, opened: Opened, others: list[Opened], tree: Tree
    ) -> tuple[BaseException | None, bool, bool]:
        """Return what CLOSE failed with, whether the file was changed meanwhile, and whether its gateway has ended."""
        said: list[BaseException | None] = []
        changed = ended = False
        doubtful = set(opened.model.doubtful)
        self.storage.lag(True)
        hung = self.storage.hanging
        thread = threading.Thread(target=lambda: said.append(close(opened.handle)), daemon=True)
        thread.start()
        until = time.monotonic() + 0.005
        while thread.is_alive() and self.storage.hanging == hung and time.monotonic() < until:
            time.sleep(0.0002)
        for _ in range(self.chance.randrange(4)):
            what = self.chance.choice(["let_go", "let_go", "write", "resize", "leave", "end"])
            self.say(f"  meanwhile {what}")
            if what == "let_go":
                self.storage.let_go()
                time.sleep(0.0005)  # enough in most cases for what hung to hang again
            elif others and what == "write":
                changed = self.write_to(self.chance.choice(others)) or changed
            elif others and what == "resize":
                changed = self.resize_of(self.chance.choice(others)) or changed
            elif others and what == "leave":
                one = others.pop()
                one.handle.abort()
                for session in self.sessions:
                    session.opened = [each for each in session.opened if each is not one]
            elif what == "end" and self.chance.random() < 0.2 and thread.is_alive():
                self.note_names()
                tree.close()
                ended = True
                break
        self.storage.lag(False)
        thread.join(SECONDS)
        assert said, "CLOSE never ended"
        return said[0], changed or opened.model.doubtful != doubtful, ended  # a refused WRITE may be there in part


def close(handle: WriteHandle) -> BaseException | None:
    """Return what CLOSE fails with."""
    try:
        handle.close()
    except BaseException as error:  # noqa: BLE001 - whoever called this tells
        return error
    return None
