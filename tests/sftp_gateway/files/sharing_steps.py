"""Random steps of clients of several processes that share a spool folder, in the middle of each other and of kills."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sftp_gateway.files import drafts, partials, spool
from sftp_gateway.files.draft import State
from sftp_gateway.files.tree import Tree
from sftp_gateway.sftp.packets import OpenFlag
from tests.sftp_gateway.files.writing_model import around
from tests.sftp_gateway.files.writing_steps import Writing, play

INTRUDED = ("write", "write", "burst", "resize", "cut", "cut", "open", "open", "look", "follow")
INTRUDING = ("write", "resize", "cut", "cut", "open", "open", "look", "follow", "die", "end_one")
ROOM = 5000  # for whatever is written
KILLED = ("write", "write", "write", "resize", "resize", "cut", "open", "follow")


class Sharing(Writing):
    """Adds what happens to one of several processes while the others go on."""

    processes = 3
    always_shared = True
    more_steps: ClassVar = {
        "open": 10,
        "cut": 6,
        "close": 4,
        "kill_one": 2,
        "kill_one_within": 4,
        "intrude": 25,
        "follow": 4,
        "rest": 1,
        "die_going_on": 3,
    }

    def __init__(self, folder: Path, seed: int) -> None:
        self.busy: Tree | None = None
        self.wait = -1  # so many moments until another process gets in between
        self.quiet = 0
        self.stems: set[str] = set()
        self.hidden: list[Any] = []
        super().__init__(folder, seed)
        self.sessions += [self.session(tree) for tree in self.trees]

    # -- steps

    def follow(self) -> bool:
        """Have a process look what others have left."""
        tree = self.sessions[0].tree
        tree.store.drafts.follow(at_once=True)
        return True

    def rest(self) -> bool:
        """Let so much time pass that what is known counts until the directory itself has changed."""
        time.sleep(1.2e-9 * partials.TICK_NANOSECONDS)
        for tree in self.trees:
            tree.store.drafts.follow()
        return True

    def die_going_on(self) -> bool:
        """Kill a process whose client has just gone on with what was cut off; go on with it elsewhere."""
        self.rest()
        session, other = self.chance.sample(self.sessions, 2)
        paths = [draft.path for draft in session.tree.store.overlay.partials()]
        if not paths or session.tree is other.tree:
            return False
        path = self.chance.choice(paths)
        if self.open_at(session, path, OpenFlag.WRITE):
            self.write_to(session.opened[-1], in_order=True)
        self.note_names()
        self.end_process(session.tree)
        done = self.open_at(other, path, OpenFlag.WRITE)
        self.begin_process(session.tree)
        return done

    def kill_one(self) -> bool:
        self.settle()
        self.kill_tree(self.chance.choice(self.trees))
        return True

    def kill_one_within(self) -> bool:
        """Kill a process in the middle of a step of its own."""
        tree = self.chance.choice(self.sessions).tree
        self.note_names()
        before = self.names
        self.settle()
        self.stems = stems(tree)
        kind = self.chance.choice(KILLED)
        self.say(f"  {self.trees.index(tree)} within {kind}")
        self.count_down = self.chance.randrange(6)
        with self.among(tree):
            getattr(self, kind)()
        self.settle()
        self.count_down = -1
        folder, self.snapshot = self.snapshot, None
        if folder is None:
            return False
        self.note_names(also=before)
        mine = self.stems | stems(tree)
        self.kill_tree(tree, note=False)
        for stem in mine:
            for suffix in (".json", ".new", ".spool"):
                restore(folder / (stem + suffix), self.folder / (stem + suffix))
        return True

    def intrude(self) -> bool:
        """Have another process do something in the middle of a step."""
        tree = self.chance.choice(self.sessions).tree
        kind = self.chance.choice(INTRUDED)
        self.say(f"  {self.trees.index(tree)} {kind}")
        self.busy, self.wait = tree, self.chance.randrange(6)
        try:
            with self.among(tree):
                return bool(getattr(self, kind)())
        finally:
            self.busy, self.wait = None, -1

    def check(self) -> None:
        super().check()
        if self.limits.spool_quota >= ROOM and not self.disk_fault_rate:
            opened = {draft.spool.path for tree in self.trees for draft in tree.store.overlay.all() if draft.is_open}
            seen = [{each for each in partials_of(tree) if each[0] not in opened} for tree in self.trees]
            assert all(each == seen[0] for each in seen), f"processes show different partials: {seen}"

    # -- in between

    def moment(self) -> None:
        super().moment()
        if self.wait < 0 or self.quiet or threading.current_thread() is not threading.main_thread():
            return
        self.wait -= 1
        if self.wait >= 0:
            return
        others = [session.tree for session in self.hidden if session.tree is not self.busy]
        if not others:
            return
        tree, kind = self.chance.choice(others), self.chance.choice(INTRUDING)
        self.say(f"    in between {self.trees.index(tree)} {kind}")
        own, self.sessions = self.sessions, self.hidden
        try:
            self.note_names()
            if kind == "die":
                self.kill_tree(tree)
            elif kind == "end_one":
                tree.close()
                self.revive_tree(tree)
            else:
                with self.among(tree):
                    getattr(self, kind)()
                self.note_names()
        finally:
            self.hidden, self.sessions = self.sessions, own
        self.say("    and on")

    @contextlib.contextmanager
    def among(self, tree: Tree) -> Iterator[None]:
        """Have only clients of one process do something."""
        hidden = [session for session in self.sessions if session.tree is not tree]
        self.sessions = [session for session in self.sessions if session.tree is tree]
        outer, self.hidden = self.hidden, hidden
        try:
            yield
        finally:
            self.sessions, self.hidden = self.sessions + self.hidden, outer

    def kill_tree(self, tree: Tree, *, note: bool = True) -> None:
        """Leave everything on disk as it is, and unlocked."""
        if note:
            self.note_names()
        self.end_process(tree)
        self.begin_process(tree)

    def end_process(self, tree: Tree) -> None:
        self.forget_times(tree)
        for draft in tree.store.overlay.all():
            with draft._lock:
                draft.state, draft.end_reason = State.ENDED, "its process was killed"
                draft.forwarding.cancel()
                draft.base.close()
                one = draft.spool
                fd, one._fd, one.path, one._closed = one._fd, -1, None, True
                if fd >= 0:
                    os.close(fd)

    def begin_process(self, tree: Tree) -> None:
        at = self.trees.index(tree)
        self.trees[at] = self.tree()
        for number, session in enumerate(self.sessions):
            if session.tree is tree:
                self.sessions[number] = self.session(self.trees[at])


def partials_of(tree: Tree) -> set[tuple[Path | None, str, int]]:
    return {(draft.spool.path, draft.path, draft.size) for draft in tree.store.overlay.partials()}


def stems(tree: Tree) -> set[str]:
    return {draft.spool.path.stem for draft in tree.store.overlay.all() if draft.spool.path and draft.is_open}


def restore(source: Path, target: Path) -> None:
    if not source.exists():
        target.unlink(missing_ok=True)
    else:
        target.write_bytes(source.read_bytes())  # into the same file where it is still there: others may have it open


def play_sharing(world: Sharing, seed: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do random steps of several processes."""
    with monkeypatch.context() as patched:
        for owner, names in (
            (partials.Partials, ("noted", "checkpoint", "clear")),
            (spool.Spool, ("adopt", "share", "reclaim", "release", "close", "to_disk")),
        ):
            for name in names:
                around(patched, owner, name)
        for name in ("_revive", "note_again"):  # which hold a lock that others wait for
            quietly(patched, world, drafts.Drafts, name)
        patched.setattr(spool, "_LOCK_PAUSE_SECONDS", 0)
        play(world, seed, steps, monkeypatch)


def quietly(monkeypatch: pytest.MonkeyPatch, world: Sharing, owner: Any, name: str) -> None:
    method = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        world.quiet += 1
        try:
            return method(*args, **options)
        finally:
            world.quiet -= 1

    monkeypatch.setattr(owner, name, wrapped)
