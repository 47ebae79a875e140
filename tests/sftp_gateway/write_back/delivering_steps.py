"""Random steps of sessions, of others, of administrators, and of time, over a journal and a cloud."""

from __future__ import annotations

from pathlib import Path

import pytest
from fs import errors
from fs.path import dirname

from tests.sftp_gateway.write_back.delivering_looking import FILES, FOLDERS
from tests.sftp_gateway.write_back.delivering_model import Version
from tests.sftp_gateway.write_back.delivering_process import Killed, Wrong, make_small
from tests.sftp_gateway.write_back.delivering_sessions import Sessions

STEPS = {
    "put": 14,
    "change": 8,
    "remove": 4,
    "rename": 6,
    "rename_directory": 3,
    "mkdir": 4,
    "rmdir": 2,
    "touch": 3,
    "finish": 4,
    "lead": 8,
    "carry": 8,
    "foreign": 3,
    "late": 4,
    "refuse": 1,
    "forget_staged": 1,
    "copy": 1,
    "retry": 1,
    "drop": 1,
    "hours": 2,
    "kill": 1,
    "restart": 1,
}
MEANWHILE = ("lead", "carry", "foreign", "late")


class Delivering(Sessions):
    """Random steps; each is followed by a look at everything."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        self.weights = {kind: weight for kind, weight in STEPS.items() if self.chance.random() < 0.75 or weight > 7}

    def run(self, steps: int) -> None:
        self.is_calm = False
        for number in range(steps):
            kind = self.chance.choices(list(self.weights), list(self.weights.values()))[0]
            self.say(f"{number} {kind}")
            getattr(self, kind)()
            assert not self.actors
            self.revive()
            self.check()
        self.end()

    def meanwhile(self) -> None:
        kind = self.chance.choice((*MEANWHILE, "put", "change", "remove", "rename", "mkdir"))
        if kind != "foreign" or self.may(self.foreign_rate):
            self.say(f"  meanwhile {kind}")
            getattr(self, kind)()

    # -- what else happens

    def lead(self) -> None:
        process = self.chance.choice(self.processes)
        with self.acting("delivery", process):
            process.lead()

    def carry(self) -> None:
        for process in self.chance.sample(self.processes, len(self.processes)):
            if process.carry():
                return

    def hours(self) -> None:
        self.clock.now += self.chance.choice([1.0, 10.0, 400.0])

    def kill(self) -> None:
        self.chance.choice(self.processes).kill()

    def restart(self) -> None:
        process = self.chance.choice(self.processes)
        with self.acting("delivery", process):
            process.end()
        if not process.dead:
            self.processes[self.processes.index(process)] = self.process()

    def late(self) -> None:
        """Have the cloud carry out a call whose client has given up."""
        if self.cloud.late:
            _, call = self.cloud.late.pop(self.chance.randrange(len(self.cloud.late)))
            try:
                self.say(f"  late: {call()}")
            except errors.FSError as error:
                self.say(f"  late: {error}")
            self.everybody_hears()

    def forget_staged(self) -> None:
        for staged in self.cloud.staged.values():
            if self.chance.random() < 0.3 and not staged.stored:
                staged.forgotten = True
        self.cloud.late.clear()

    def refuse(self) -> None:
        """Have the cloud refuse a name for good, or no longer, or be full."""
        if self.chance.random() < 0.5:
            self.cloud.refused.clear()
            self.cloud.full = False
        elif self.chance.random() < 0.3:
            self.cloud.full = True
        else:
            path = self.chance.choice(FILES)
            self.cloud.refused[path] = self.chance.choice([errors.InvalidPath, errors.ResourceReadOnly])(path)

    def foreign(self) -> None:
        """Have others change what is in the cloud."""
        path, content = self.chance.choice(FILES + FOLDERS), self.some_bytes()
        there = self.cloud.find(path)
        kind = self.chance.choice(["write", "write", "remove", "move", "mkdir"])
        self.say(f"  {kind} {path} {content!r} over {there}")
        refused, self.cloud.refused, full, self.cloud.full = self.cloud.refused, {}, self.cloud.full, False
        try:
            if kind == "write":
                self.cloud.commit(path, content, 5, expected=None, by="foreign", parents=True)
                self.others_files.update((path, dirname(path)))
                self.others_contents.add(content)
                self.others_change(path)
            elif kind == "mkdir":
                self.cloud.makedir(path)
                self.others_files.add(path)
                self.others_change(path)
            elif kind == "remove" and there is not None:
                self.cloud.removetree(path)
                self.others_change(path)
            elif kind == "move":
                target = self.chance.choice(FILES)
                self.cloud.move(path, target, overwrite=False)
                self.others_files.add(target)
                moved = (target, *self.cloud.below(target))
                self.others_contents.update(self.cloud.nodes[each].content or b"" for each in moved)
                self.others_change(path)
                self.others_change(target)
        except errors.FSError:
            pass
        finally:
            self.cloud.refused, self.cloud.full = refused, full
        self.everybody_hears()

    def retry(self) -> None:
        for key, rows in self.rows().items():
            for row in rows:
                if row.failed:
                    replace = self.chance.random() < 0.5
                    content = self.content(row)
                    if self.eye.retry(row.id, replace=replace):
                        found = [each for each in self.model.failed if each.content == content][:1]
                        if found:
                            self.model.failed.remove(found[0])
                        # What had arrived, which nobody knew, and was refused as it was sent again, is sent once more.
                        version = found[0] if found else Version(content, None)
                        if replace:
                            version.over = None
                        self.model.pending.setdefault(key, []).append(version)
                    return

    def drop(self) -> None:
        for rows in self.rows().values():
            for row in rows:
                if row.failed:
                    assert self.eye.drop(row.id)
                    self.model.forget_failed()
                    return

    def end(self) -> None:
        """Have nothing fail any more: what waits arrives, or has failed."""
        self.is_calm = True
        self.cloud.refused.clear()
        self.cloud.full = False
        for round_ in range(400):
            if not self.eye.is_live("/"):
                break
            self.clock.now += 100
            self.deliver_some()
            if round_ % 5 == 0:
                self.late()
        self.say("at the end")
        assert not self.eye.is_live("/"), f"what waits is not delivered: {self.rows()}"
        self.check()
        while self.cloud.late:
            self.late()
        self.check()
        assert not any(self.model.pending.values())
        contents = list(self.folder.glob("*.content"))
        named = {row.file for rows in self.rows().values() for row in rows}
        for process in self.processes:
            process.end()
        left = [path.name for path in contents if path.name not in named]
        assert len(left) <= self.count_of_kills(), f"left: {left}"
        self.eye.close()

    def count_of_kills(self) -> int:
        return sum("is killed" in line for line in self.log)


def play(folder: Path, seed: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> Delivering:
    with monkeypatch.context() as small:
        make_small(small)
        world = Delivering(folder, seed)
        try:
            world.run(steps)
        except (Exception, Killed, Wrong) as error:
            text = "\n".join(world.log[-2000:])
            raise AssertionError(f"seed {seed}: {text}\n{type(error).__name__}: {error}") from error
    return world
