"""Processes of a gateway with write-back over one journal and a cloud, where everything may happen at each step.

No threads: whoever waits has time pass and the delivery go on, and whatever else may happen meanwhile happens then.
"""

from __future__ import annotations

import contextlib
import errno
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fs import errors

from sftp_gateway.files.folding import fold_path
from sftp_gateway.write_back.between import WriteBackLimits
from sftp_gateway.write_back.journal import Journal
from sftp_gateway.write_back.journal_rows import Pending
from tests.sftp_gateway.write_back.delivering_cloud import Cloud, Node
from tests.sftp_gateway.write_back.delivering_model import Model, Operation
from tests.sftp_gateway.write_back.delivering_process import CLOCK, Killed, Process, Wrong

INLINE_BYTES = 24


class World:
    """Processes, the cloud, a model, and all that may go wrong."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.root = folder
        self.folder = folder / "journal"
        self.clock = CLOCK
        self.log: list[str] = []
        staging = chance.random() < 0.85
        self.traits: dict[str, bool] = {
            "staging": staging,
            "remembers": chance.random() < 0.4,
        }
        self.is_calm = True
        self.kill_rate = chance.choice([0, 0, 0.01, 0.03])
        self.fault_rate = chance.choice([0, 0.02, 0.1])
        self.lost_rate = chance.choice([0, 0.05, 0.2])
        self.late_rate = chance.choice([0, 0.05, 0.2]) if staging else 0
        self.disk_fault_rate = chance.choice([0, 0, 0.02])
        self.nested_rate = chance.choice([0, 0.1, 0.3])
        self.foreign_rate = chance.choice([0, 0.2, 0.5])
        self.limits = WriteBackLimits(
            quota=chance.choice([60, 10**6, 10**6]),
            delay_seconds=chance.choice([0.0, 5.0]),
            inline=INLINE_BYTES,
            wait_seconds=20.0,
        )
        self.cloud = Cloud()
        self.cloud.on_commit = self.on_commit
        for path in ("/d/s", "/e"):
            if chance.random() < 0.6:
                self.cloud.makedirs(path)
        self.eye = Journal(self.folder, fold=fold_path)  # looks on, and does nothing
        self.model = Model(self)
        self.cloud.on_make = self.model.directories.discard
        self.actors: list[tuple[str, Process | None]] = []
        self.in_progress: list[Operation] = []
        self.overs: dict[bytes, str | bytes | None] = {}  # what contents may replace that are being closed
        self.disturbed: set[str] = set()  # those that others have changed during the operation that ended last
        self.touched: set[str] = set()  # keys that others have changed while an operation was under way
        self.others_files: set[str] = set()  # keys where others have ever put files
        self.others_contents: set[bytes] = set()
        self.refused_rows: set[int] = set()  # also those that are gone since
        self._count = 0
        self.processes = [self.process() for _ in range(chance.choice([1, 2]))]

    def process(self) -> Process:
        self._count += 1
        return Process(self, f"p{self._count}", self.limits)

    def say(self, text: str) -> None:
        self.log.append("  " * len(self.actors) + text)

    def may(self, rate: float) -> bool:
        return not self.is_calm and self.chance.random() < rate

    # -- what may happen at each step

    def hook(self, process: Process, operation: str, path: str) -> None:
        if process.dead:
            raise Killed(process)
        actor = self.actors[-1][0] if self.actors else ""
        is_change = operation in ("remove", "move", "movedir", "removedir", "copy")
        if is_change and actor == "delivery":
            raise Wrong(f"the delivery does {operation} {path}")
        self._anything(process)
        if operation == "journal":
            if self.may(self.disk_fault_rate):
                self.say("  the disk is full")
                raise sqlite3.OperationalError("database or disk is full")
        elif self.may(self.fault_rate):
            kind = self.chance.choice([errors.RemoteConnectionError, errors.OperationTimeout, errors.OperationFailed])
            self.everybody_hears()  # of what was made above a directory that is not
            self.say(f"  {operation} {path} fails")
            raise kind(path or "/", msg="failed")

    def hook_after(self, process: Process, operation: str, path: str) -> None:
        if operation != "journal":
            self.say(f"  {operation} {path} is done")
        self._anything(process)
        if operation != "journal" and self.may(self.lost_rate):
            self.everybody_hears()
            self.say("  its answer is lost")
            raise errors.RemoteConnectionError(path or "/", msg="the answer was lost")

    def everybody_hears(self) -> None:
        """Have all processes forget what was, as the storage's feed tells them."""
        for process in self.processes:
            process.client.forget("/")

    def everybody_hears_of_sessions(self) -> None:
        """Have them forget what sessions have changed; of deliveries the journal tells them."""
        if self.actors and self.actors[-1][0] == "session":
            self.everybody_hears()

    def disk(self, process: Process) -> None:
        if process.dead:
            raise Killed(process)
        if self.may(self.disk_fault_rate):
            self.say("  the disk is full")
            raise OSError(errno.ENOSPC, "no space left")

    def _anything(self, process: Process) -> None:
        if self.may(self.kill_rate):
            process.kill()
            self.everybody_hears()  # of what it had just changed
            raise Killed(process)
        if len(self.actors) < 3 and self.may(self.nested_rate):
            self.meanwhile()
            if process.dead:
                raise Killed(process)

    def meanwhile(self) -> None:
        """Do something else while somebody waits."""

    @contextlib.contextmanager
    def acting(self, kind: str, process: Process | None) -> Iterator[None]:
        """Note who acts; a process that is killed then has only that to end."""
        self.actors.append((kind, process))
        try:
            yield
        except Killed as killed:
            if killed.process is not process:
                raise
        finally:
            self.actors.pop()

    # -- waiting

    def wait(self, process: Process, done: Callable[[], Any], seconds: float) -> Any:
        deadline = self.clock.now + seconds
        while True:
            result = done()
            if result or self.clock.now >= deadline:
                return result
            self.pause(process)

    def pause(self, process: Process) -> None:
        self.clock.now += self.chance.choice([0.1, 1.0, 3.0])
        if len(self.actors) < 4:
            self.deliver_some()
        if process.dead:
            raise Killed(process)

    def deliver_some(self) -> None:
        for process in list(self.processes):
            if self.chance.random() < 0.7:
                with self.acting("delivery", process):
                    process.lead()
            if self.chance.random() < 0.7:
                process.carry()

    def revive(self) -> None:
        for number, process in enumerate(self.processes):
            if process.dead:
                process.bury()
                self.processes[number] = self.process()

    # -- what the cloud tells

    def on_commit(self, path: str, content: bytes, there: Node | None, modified: int, by: str) -> None:
        if by == "foreign":
            return
        actor = self.actors[-1][0] if self.actors else ""
        self.say(f"  {by} commit of {content!r} at {path} over {there}")
        try:
            if by == "copy" or (by == "plain" and actor == "session"):
                self.model.through(fold_path(path), content, there, by)
            else:
                self.model.delivered(fold_path(path), content, there, modified)
        except AssertionError as error:
            raise Wrong(error) from error

    # -- looking

    def rows(self) -> dict[str, list[Pending]]:
        """Return what is in the journal, by key, in order."""
        found: dict[str, list[Pending]] = {}
        for pending in self.eye.all():
            found.setdefault(pending.key, []).append(pending)
        return found

    def content(self, pending: Pending) -> bytes:
        with self.eye.open(pending) as file:
            return file.read()
