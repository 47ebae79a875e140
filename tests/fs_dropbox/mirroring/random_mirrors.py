"""`Machine`: mirrors one folder to another, again and again, through whatever may happen, and compares with a model."""

from __future__ import annotations

import posixpath
import random
import threading
from collections.abc import Callable
from typing import Any, Final

from fs import errors

from fs_dropbox import paths
from fs_dropbox.emulator.control.control import Control
from fs_dropbox.emulator.model.errors import CallError
from fs_dropbox.errors import UNSETTLED
from fs_dropbox.mirroring.mirror import Mirror
from fs_dropbox.mirroring.steps import Action, Observer, Step, Summary
from fs_dropbox.mirroring.transfer import PART_SUFFIX, StoppedError
from tests.fs_dropbox.files import random_faults
from tests.fs_dropbox.files.small_blocks import UNIT
from tests.fs_dropbox.mirroring.random_sides import UNREADABLE, OnDisk, Side

NAMES: Final = (
    *("a.txt", "A.TXT", "b", "B", "sub", "Sub", "sub.txt", "\u00e9", "e\u0301", "\U0001f600.bin", "\u0130", "x" * 200),
    *("desktop.ini", "ends ", "ends.", "back\\slash", "{b}", "\U0001f600" * 70, f"{UNREADABLE}.txt", "new\nline"),
)
SIZES: Final = (0, 1, 10, 255, 700, 1023, 1024, 1025, 2048, 4096, 5000, 9000, 14 * UNIT)
LINKS: Final = ("a.txt", "../beside", "../beside/below/a.txt", "nowhere", ".", "sub")
LISTING: Final = "files/list_folder"
ROUTES: Final = (LISTING, f"{LISTING}/continue", "files/delete_v2", "files/create_folder_v2", "files/copy_v2")
FAULTS: Final = ("server_error", "cut_body", "ambiguous", "cut_request")
EARLIEST: Final = 1_000_000_000


class Told(Observer):
    """Remembers what was told, and lets something happen meanwhile."""

    def __init__(self, happen: Callable[[], None]) -> None:
        self.happen = happen
        self.steps: list[Step] = []
        self.failures: list[tuple[Step, Exception]] = []
        self.plan = self.bytes = 0

    def planned(self, size: int) -> None:
        self.plan = size
        self.happen()

    def advanced(self, size: int) -> None:
        self.bytes += size
        self.happen()

    def done(self, step: Step) -> None:
        self.steps.append(step)
        self.happen()

    def failed(self, step: Step, error: Exception) -> None:
        self.failures.append((step, error))


class Machine:
    """Owns the two sides. For one thread; whoever mirrors has threads of its own."""

    def __init__(self, name: str, control: Control, source: Side, target: Side, *, faults: bool) -> None:
        self.name = name
        self.control = control
        self.source = source
        self.target = target
        self.faults = faults
        self.chance = random.Random(name)
        self.log: list[str] = []
        self.lock = threading.Lock()
        self.foreign: dict[str, list[bytes]] = {}
        self.is_changed = False

    def run(self, steps: int) -> None:
        """Mirror so often; raises AssertionError with what was done."""
        try:
            for _ in range(steps):
                self.step()
        except Exception as error:
            done = "\n".join(self.log[-80:])
            raise AssertionError(f"{self.name}: {type(error).__name__}: {error}\nafter\n{done}") from error
        finally:
            self.control.clear_faults()

    def note(self, text: object) -> None:
        self.log.append(str(text))

    def step(self) -> None:
        for _ in range(self.chance.choice((0, 1, 3, 8))):
            self.change(self.source if self.chance.random() < 0.6 else self.target)
        options: dict[str, Any] = {
            "delete": self.chance.random() < 0.5,
            "dry_run": self.chance.random() < 0.15,
            "replace": self.chance.random() < 0.85,
            "compare": self.chance.choice(("content", "content", "quick")),
            "workers": self.chance.choice((None, 1, 2, 5)),
        }
        OneRun(self, options).go()

    # Others

    def some_path(self, side: Side) -> str:
        there = sorted(path for path in side.tree() if not path.endswith(PART_SUFFIX))
        roll = self.chance.random()
        if there and roll < 0.4:
            return self.chance.choice(there)
        folders = [path for path in there if side.tree()[path] is None]
        name = self.chance.choice(NAMES)
        if folders and roll < 0.8:
            return f"{self.chance.choice(folders)}/{name}"
        return name

    def some_bytes(self) -> bytes:
        size = min(self.chance.choice(SIZES), self.chance.choice((14 * UNIT, 600)))
        return self.chance.randbytes(max(1, size // 4)).hex().encode()[:size].ljust(size, b"-")

    def change(self, side: Side) -> None:
        """Change something on a side, as far as it can be done there."""
        path, roll = self.some_path(side), self.chance.random()
        which = "source" if side is self.source else "target"
        seconds = EARLIEST + self.chance.randrange(10**8) + self.chance.choice((0, 0.25, 0.9999996))
        there = side.tree()
        try:
            if roll < 0.5:
                data = self.some_bytes()
                old = there.get(path)
                if isinstance(old, bytes) and self.chance.random() < 0.3:
                    data = old[:-1] + b"+" if old else b""
                self.note(f"{which}: {path!r} becomes {len(data)} {data[:12]!r} at {seconds}")
                with self.lock:
                    self.foreign.setdefault(paths.key(path), []).append(data)
                side.write(path, data, seconds)
            elif roll < 0.7:
                self.note(f"{which}: {path!r} becomes a folder")
                side.make_folder(path)
            elif roll < 0.8 and isinstance(side, OnDisk):
                target = self.chance.choice(LINKS)
                self.note(f"{which}: {path!r} becomes a link to {target}")
                side.link(path, target)
            elif there:
                self.note(f"{which}: {path!r} is removed")
                side.remove(path)
        except (OSError, errors.FSError, CallError) as error:
            self.note(f"  {type(error).__name__}")

    def declare_fault(self) -> None:
        if self.chance.random() < 0.35:
            kind, route, count = self.chance.choice(FAULTS), self.chance.choice(ROUTES), self.chance.choice((1, 2, 8))
            self.control.fault(route, kind, count, self.chance.choice((0, 1)))
            self.note(f"fault {route} {kind} x{count}")
        else:
            self.note(random_faults.declare(self.control, self.chance))


class OneRun:
    """One run of mirroring, and what has to be true after it."""

    def __init__(self, machine: Machine, options: dict[str, Any]) -> None:
        self.machine = machine
        self.options = options
        self.source, self.target = machine.source, machine.target
        self.chance = machine.chance
        self.amid = self.chance.choice((None, None, None, "change", "stop", "interrupt"))
        self.countdown = self.chance.randrange(12)
        self.happened = False
        self.told = Told(self.happen)
        self.mirror = Mirror(self.source.place, self.target.place, observer=self.told, **options)

    def happen(self) -> None:
        """What happens amid the run: in one of its threads, which holds its lock."""
        self.countdown -= 1
        if self.amid is None or self.happened or self.countdown > 0:
            return
        self.happened = True
        self.machine.note(f"amid the run: {self.amid}")
        if self.amid == "stop":
            self.mirror.stop.set()
        elif self.amid == "interrupt":
            raise KeyboardInterrupt
        else:
            self.machine.change(self.chance.choice((self.source, self.target)))

    def go(self) -> None:
        machine = self.machine
        machine.foreign = {}
        self.sources, self.before = self.source.read(), self.target.tree()
        self.links = {path for path, value in self.source.tree().items() if isinstance(value, str)}
        struck = machine.control.faults_struck
        if machine.faults and self.chance.random() < 0.6:
            for _ in range(self.chance.choice((1, 1, 2, 4))):
                machine.declare_fault()
        machine.note(f"mirror {self.options} amid={self.amid}")
        summary: Summary | None = None
        self.error: BaseException | None = None
        try:
            summary = self.mirror.run()
        except (KeyboardInterrupt, StoppedError) as error:
            self.error = error
        except errors.FSError as error:
            self.error = error
        machine.note(f"  {summary or self.error!r}")
        machine.control.clear_faults()
        self.has_struck = machine.control.faults_struck != struck
        self.after = self.target.tree()
        if isinstance(self.error, errors.FSError):
            assert self.has_struck or self.happened, f"without a fault: {self.error!r}"
        elif self.error is not None:
            assert self.happened, repr(self.error)
        self.check_always()
        if not (self.happened and self.amid == "change"):
            self.check_undisturbed()
        if summary is not None:
            self.check_summary(summary)
            if not (summary.failures or summary.ended_by or self.happened or self.options["dry_run"]):
                self.check_complete(summary)
        for side in (self.source, self.target):
            assert not side.leftovers(), side.leftovers()

    # What is true of each run

    def key(self, path: str) -> str:
        return self.target.key(path)

    @property
    def compares(self) -> bool:
        """Whether contents are compared; times alone where neither side tells a hash."""
        has_hash = self.target.folds or self.source.folds
        return has_hash and self.options["compare"] == "content" and bool(self.options["replace"])

    def wanted(self) -> dict[str, list[tuple[str, bytes | str | None]]]:
        """Return what the source has by the target's keys."""
        found: dict[str, list[tuple[str, bytes | str | None]]] = {}
        for path, value in self.sources.items():
            found.setdefault(self.key(path), []).append((path, value))
        return found

    def check_always(self) -> None:
        """Whole files only; nothing is gone that should not be."""
        wanted, foreign = self.wanted(), self.machine.foreign  # where one side folds case, so do its changes
        before = {self.key(path): value for path, value in self.before.items()}
        for path, value in self.after.items():
            key = self.key(path)
            known: list[Any] = [value for _, value in wanted.get(key, [])] + list(foreign.get(paths.key(path), []))
            known += [before[key]] if key in before else []
            if value is None:
                is_known = (
                    None in known or any(name.startswith(paths.key(path) + "/") for name in foreign) or self.happened
                )
            else:
                is_known = value in known or (isinstance(value, str) and self.happened)
                # Two who write one file at once mix it up, where files are not whole.
                is_known |= not self.target.is_atomic and paths.key(path) in foreign
            assert is_known, f"{path!r} holds {short(value)}, which is none of {[short(each) for each in known]}"
        if self.happened and self.amid == "change":
            return
        there = {self.key(path) for path in self.after}
        broken = [self.key(step.path) for step, _ in self.told.failures if not self.target.is_atomic]
        is_broken_off = not self.target.is_atomic and self.error is not None
        for key in set(before) - there:
            if key in broken or (is_broken_off and key in wanted):
                continue
            assert self.options["delete"], f"{key!r} is gone"
            assert not self.options["dry_run"], f"{key!r} is gone"
            kinds = {value is None for _, value in wanted.get(key, [])}
            is_in_the_way = kinds == {before[key] is not None} or isinstance(before[key], str)
            above = {value is None for way in ancestors(key) for _, value in wanted.get(way, [])}
            assert not kinds or is_in_the_way or False in above, f"{key!r} is gone, which the source has"

    def check_undisturbed(self) -> None:
        """What it says it did is what it did, where nobody else did anything."""
        assert self.source.read() == self.sources, "the source has changed"
        after = {self.key(path): value for path, value in self.after.items()}
        before = {self.key(path): value for path, value in self.before.items()}
        if self.options["dry_run"]:
            assert after == before, "a dry run has changed something"
            return
        told: set[str] = set()
        for step in self.told.steps:
            key = self.key(step.path)
            if step.action is Action.COPY:
                told.add(key)
                assert after.get(key) == self.sources[step.path], f"{step} has {short(after.get(key))}"
                assert step.size == len(self.sources[step.path] or b"")
                self.check_time(step.path, next(path for path in self.after if self.key(path) == key))
            elif step.action is Action.FOLDER:
                told.add(key)
                assert after.get(key, "-") is None, step
            elif step.action is Action.DELETE:
                told.add(key)
                assert key not in after or key in self.wanted(), step
            elif not step.reason and self.compares:
                assert after[key] == self.sources[step.path], f"{step} is not equal"
        uncertain = {self.key(step.path) for step, error in self.told.failures if UNSETTLED in str(error)}
        if not self.target.is_atomic:
            uncertain = {self.key(step.path) for step, _ in self.told.failures}
        if isinstance(self.error, KeyboardInterrupt) or (self.error is not None and self.amid == "stop"):
            return
        for key in {key for key in {*before, *after} if before.get(key, "-") != after.get(key, "-")}:
            is_told = any(way in told | uncertain for way in [key, *ancestors(key)])
            assert is_told, f"{key!r} was {short(before.get(key))} and is {short(after.get(key))}, which was not told"
        for step, error in self.told.failures:
            assert self.is_excused(step.path), f"without a reason: {step} {error!r}"

    def check_time(self, path: str, shown: str) -> None:
        ours, theirs = self.source.seconds(path), self.target.seconds(shown)
        if self.target.folds:
            assert theirs in (int(ours), int(ours + 0.00001)), (path, ours, theirs)
        elif isinstance(self.target, OnDisk):
            assert abs(theirs - ours) < 0.00001, (path, ours, theirs)

    def is_excused(self, path: str) -> bool:
        """Whether there is a reason for the failure of a path of the source."""
        if self.has_struck or path not in self.sources:
            return True
        wanted = self.wanted()
        before = {self.key(each): value for each, value in self.before.items()}
        for way in (path, *ancestors(path)):
            key, value = self.key(way), self.sources.get(way)
            if self.target.refuses(way) or UNREADABLE in way or len(wanted.get(key, [])) > 1:
                return True
            if key in before and (before[key] is None) != (value is None) and not self.options["delete"]:
                return True
            if isinstance(before.get(key), str):
                return True
        return False

    def check_summary(self, summary: Summary) -> None:
        done = [step.action for step in self.told.steps]
        assert done.count(Action.COPY) == summary.copied
        assert done.count(Action.FOLDER) == summary.folders
        assert done.count(Action.DELETE) == summary.deleted
        assert summary.failures == self.told.failures

    def check_complete(self, summary: Summary) -> None:
        """Nothing failed, and nobody was in the way: one is like the other, and a second run does nothing."""
        after = {self.key(path): value for path, value in self.after.items()}
        ignored = {self.key(path) for path in self.links if isinstance(self.sources[path], str)}
        assert summary.ignored == len(ignored), summary
        before = {self.key(path): value for path, value in self.before.items()}
        for path, value in self.sources.items():
            key = self.key(path)
            if key in ignored:
                continue
            assert key in after, f"{path!r} is missing"
            if self.compares or key not in before:
                assert after[key] == value, f"{path!r} holds {short(after[key])}, not {short(value)}"
        if self.options["delete"]:
            keys = {self.key(path) for path in self.sources}
            more = {key for key in after if key not in keys and not any(way in ignored for way in ancestors(key))}
            assert not more, f"not deleted: {more}"
        again = Told(lambda: None)
        options = self.options | {"compare": self.chance.choice(("quick", "content"))}
        second = Mirror(self.source.place, self.target.place, observer=again, **options).run()
        moved = [step for step in again.steps if step.action is not Action.SKIP]
        if options["compare"] == self.options["compare"] and self.options["replace"]:
            failures = [step for step, _ in second.failures if UNREADABLE not in step.path]
            assert not moved + failures


def ancestors(path: str) -> list[str]:
    found = []
    while path := posixpath.dirname(path):
        found.append(path)
    return found


def short(value: Any) -> str:
    return f"{len(value)} of {value[:30]!r}" if isinstance(value, bytes) else repr(value)
