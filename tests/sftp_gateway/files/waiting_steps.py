"""Random steps of those who write files, between which days pass: what is kept for a day, and what is not."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from sftp_gateway.files.draft import Draft, State
from sftp_gateway.files.drafts import _Replacing
from sftp_gateway.files.tree import Tree
from sftp_gateway.sftp.packets import NO_ATTRIBUTES, OpenFlag
from tests.sftp_gateway.files.writing_steps import Writing
from tests.sftp_gateway.files.writing_world import PATHS, REFUSALS

HOUR, DAY = 3600.0, 86400.0


class Waiting(Writing):
    """Adds time, and clients who go on with what they have once seen."""

    more_steps: ClassVar = {"wait": 8, "sweep": 3, "see": 8, "go_on_as_seen": 6, "cut": 6, "restart": 2, "kill": 2}

    def __init__(self, folder: Path, seed: int) -> None:
        self.seen: dict[str, tuple[Tree, bytes, float]] = {}  # what was cut off, by path
        self.now = 0.0
        super().__init__(folder, seed)

    def wait(self) -> bool:
        """Let hours or days pass."""
        seconds = self.chance.choice((HOUR, 6 * HOUR, 20 * HOUR, 30 * HOUR))
        self.say(f"  {seconds / HOUR} hours")
        self.settle()
        self.now += seconds
        self.replacing = {}  # for a day at most
        for model in self.models.values():
            model.refuses_ends = False
        for tree in self.trees:
            drafts = tree.store.drafts
            for draft in tree.store.overlay.all():
                draft.touched -= seconds
            for path, at in drafts._unfinished._last.items():
                drafts._unfinished._last[path] = at - seconds
            for path, (at, user, version) in drafts._replacing._last.items():
                drafts._replacing._last[path] = _Replacing(at - seconds, user, version)
        for left in self.files():
            with contextlib.suppress(FileNotFoundError), left.open("r+b") as file:  # a stream renews its note just then
                if left.suffix == ".json":
                    note = json.load(file)
                    file.seek(0)
                    file.write(json.dumps({**note, "touched": note["touched"] - seconds}).encode())
                    file.truncate()
                there = os.fstat(file.fileno())
                os.utime(file.fileno(), ns=(there.st_atime_ns, there.st_mtime_ns - int(seconds * 1e9)))
        return True

    def sweep(self) -> bool:
        """Begin something new somewhere, as a rule of which the old has to go."""
        tree = self.chance.choice(self.trees)
        before = {draft: draft.touched for draft in tree.store.overlay.partials()}
        now = time.time()
        tree.store.drafts.sweep()
        for draft, touched in before.items():
            is_old = touched < now - DAY
            if draft.state is State.PARTIAL or not self.shared:
                assert (draft.state is State.PARTIAL) != is_old, f"{draft.path} of {(now - touched) / HOUR} hours"
        return True

    def restart(self) -> bool:
        with self.kept():
            return super().restart()

    def kill(self) -> bool:
        with self.kept():
            return super().kill()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Check that what was cut off is kept when a gateway ends and another begins."""
        self.settle()
        before = {(draft.path, draft.size) for draft in self.partials()}
        self.seen.clear()  # its client looks anew
        yield
        if self.limits.spool_quota >= 5000 and self.limits.partials > 1 and not self.disk_fault_rate:
            after = {(draft.path, draft.size) for draft in self.partials()}
            missing = {path for path, _ in before - after} - {path for path, _ in after}  # of several the latest
            assert not missing, f"{missing} was not kept"

    def partials(self) -> list[Draft]:
        return [draft for tree in self.trees for draft in tree.store.overlay.partials() if not self.is_elsewhere(draft)]

    def see(self) -> bool:
        """Have a client look what is left of its upload."""
        session = self.chance.choice(self.sessions)
        paths = [draft.path for draft in session.tree.store.overlay.partials() if draft.path not in self.expected]
        path = self.chance.choice(paths or PATHS)
        draft = session.tree.store.looking.current(path)
        if path in self.expected or draft is None or draft.state is not State.PARTIAL or self.is_elsewhere(draft):
            return False
        self.seen[path] = session.tree, draft.read(0, draft.size), self.now
        return True

    def go_on_as_seen(self) -> bool:
        """Have a client go on where it has seen that its upload ended, whatever has become of that."""
        there = [path for path, (tree, _, at) in self.seen.items() if tree in self.trees and self.now < at + DAY]
        if not there:
            return False
        path = self.chance.choice(there)
        tree, found, _ = self.seen.pop(path)
        session = next((each for each in self.sessions if each.tree is tree), None)
        if session is None or path in self.expected or tree.store.looking.current(path) is not None:
            return False
        self.say(f"  {path} from {len(found)}")
        self.storage.lag(False)
        data = self.chance.randbytes(10)
        try:
            handle: Any = session.view.open(path, OpenFlag.WRITE | OpenFlag.CREAT, NO_ATTRIBUTES)
        except REFUSALS as error:
            return self.refused(error)
        try:
            handle.write(len(found), data)
            handle.close()
        except REFUSALS as error:
            handle.abort()
            return self.refused(error)
        stored = self.storage.content().get(path)
        assert stored == found + data, f"{stored!r} instead of {found!r} and {data!r}"
        self.expected[path] = found + data
        return True

    def remove(self) -> bool:
        self.seen.clear()  # whoever it is that removes or renames, knows what he does
        return super().remove()

    def rename(self) -> bool:
        self.seen.clear()
        return super().rename()

    def rename_directory(self) -> bool:
        self.seen.clear()
        return super().rename_directory()

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.exists() else []

    def check(self) -> None:
        super().check()
        for path in list(self.seen):
            tree = self.seen[path][0]
            has_others = any(draft.path == path and draft.is_open for draft in tree.store.overlay.all())
            if path in self.expected or has_others:
                del self.seen[path]  # whoever looks now sees something else
        live = {draft.spool.path for tree in self.trees for draft in tree.store.overlay.all()}
        left = {file.with_suffix("") for file in self.files()} - {path.with_suffix("") for path in live if path}
        if self.limits.spool_quota >= 5000 and not self.disk_fault_rate:
            assert not left, f"left on disk: {left}"
