"""`Process`: one process of a gateway with write-back, without threads, that ends or is killed at any step."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pytest

from sftp_gateway.files.folding import fold_path
from sftp_gateway.files.tree import Tree, TreeLimits
from sftp_gateway.write_back import (
    between,
    delivery,
    directory_rows,
    journal_file,
    journal_rows,
    outgoing,
)
from sftp_gateway.write_back.between import WriteBackLimits
from sftp_gateway.write_back.delivery import Delivery
from sftp_gateway.write_back.filesystem import WriteBackFS
from sftp_gateway.write_back.journal import Journal
from sftp_gateway.write_back.journal_file import JournalFile
from sftp_gateway.write_back.journal_rows import Outcome
from sftp_gateway.write_back.vault import LocalBytes
from tests.sftp_gateway.write_back.delivering_fs import CloudFS

if TYPE_CHECKING:
    from tests.sftp_gateway.write_back.delivering_world import World

LANES = 4


class Killed(BaseException):
    """Its process does nothing more."""

    def __init__(self, process: Process) -> None:
        super().__init__("killed")
        self.process = process


class Wrong(BaseException):
    """Something is wrong, which nobody is to take for an error of the storage."""


class Asleep(BaseException):
    """There is nothing to do for a thread of a delivery but to wait."""


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        self.now += 0.001
        return self.now

    monotonic = time


class Stopping:
    """Stands for a delivery's event: waits for nobody."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._is_set = False
        self._waits = 0

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, seconds: float) -> bool:
        self._clock.now += seconds
        self._waits += 1
        assert self._waits < 10_000
        if seconds == delivery.LOCK_SECONDS:
            raise Asleep
        return self._is_set


class Process:
    """One process of the gateway, until it ends or is killed."""

    def __init__(self, world: World, name: str, limits: WriteBackLimits) -> None:
        self.world = world
        self.name = name
        self.dead = False
        self.leads = False
        self.lanes: list[Callable[[], None]] = []  # what threads of its delivery have begun
        self.locals: list[LocalBytes] = []
        self.journal = Journal(world.folder, fold=fold_path)
        self.client = CloudFS(world.cloud, **world.traits)
        self.client.passes = lambda operation, path: world.hook(self, operation, path)
        self.client.passed = lambda operation, path: world.hook_after(self, operation, path)
        self.client.is_lost = lambda operation, path: world.may(world.late_rate)
        self.client.told = world.everybody_hears_of_sessions
        self._wrap_journal()
        self.fs = WriteBackFS(self.client, self.journal, label=name, limits=limits)
        self.delivery: Any = self.fs._delivery
        self.delivery._stopping = Stopping(world.clock)  # type: ignore[assignment]
        self.tree = Tree(
            self.fs, spool_directory=world.root / f"spool {name}", limits=TreeLimits(commit_wait_seconds=0)
        )
        self.views = [self.tree.view(write_back=True), self.tree.view(write_back=True), self.tree.view()]

    def _wrap_journal(self) -> None:
        world, journal = self.world, self.journal
        change, write = journal._file.change, journal.vault.write

        def changing(work: Callable[[sqlite3.Connection], Any]) -> Any:
            world.hook(self, "journal", "")
            result = change(work)
            world.hook_after(self, "journal", "")
            return result

        def writing(*, memory_limit: int) -> LocalBytes:
            local = write(memory_limit=memory_limit)
            self.locals.append(local)
            add, sync, discard = local.write, local.sync, local.discard

            def adding(data: Any) -> None:
                world.disk(self)
                add(data)

            def syncing() -> None:
                world.disk(self)
                sync()

            local.write, local.sync = adding, syncing
            local.discard = lambda: None if self.dead else discard()
            return local

        settle = journal.settle

        def settling(outcomes: Iterable[Outcome]) -> None:
            outcomes = list(outcomes)
            world.refused_rows |= {each.id for each in outcomes if each.permanent}
            settle(outcomes)

        journal._file.change = changing
        journal.settle = settling
        journal.vault.write = writing
        remove, clear = journal.vault.remove, journal.vault.clear
        journal.vault.remove = lambda names: None if self.dead else remove(names)
        journal.vault.clear = lambda named: None if self.dead else clear(named)  # type: ignore[assignment]
        journal.wait = lambda done, seconds: world.wait(self, done, seconds)
        journal.pause = lambda: world.pause(self)
        journal.bell.wait = self._sleep

    def _sleep(self, seconds: float, *, urgent: bool = False) -> bool:
        raise Asleep

    def lead(self) -> bool:
        """Have a thread of the delivery choose what it does next; tell whether there is something."""
        if self.dead or self.leads or len(self.lanes) >= LANES:
            return False
        self.leads = True
        try:
            work = self.delivery._lead()
        except Asleep:
            return False
        finally:
            self.leads = False
        self.lanes.append(work)
        return True

    def carry(self) -> bool:
        """Have a thread of the delivery do what it has chosen."""
        if self.dead or not self.lanes:
            return False
        work = self.lanes.pop(self.world.chance.randrange(len(self.lanes)))
        with contextlib.suppress(Asleep), self.world.acting("delivery", self):
            work()
        return True

    def kill(self) -> None:
        self.world.say(f"  {self.name} is killed")
        self.dead = True
        self.lanes.clear()

    def bury(self) -> None:
        """Have the system let go of what a killed process had open."""
        for local in self.locals:
            local.release()
        for reader in self.fs._between.readers:
            reader.close()
        self.journal.close()
        if self.delivery.is_mine:
            self.delivery._lock_descriptor = (delivery.os.close(self.delivery._lock_descriptor), -1)[1]  # type: ignore[attr-defined]

    def end(self) -> None:
        """End as SIGTERM has it, what is under way included."""
        while self.carry():
            pass
        if not self.dead:
            self.tree.close()
            self.fs.close()


CLOCK = Clock()


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything happen with a few bytes, and without threads."""
    for module in (between, delivery, directory_rows, journal_rows, outgoing):
        monkeypatch.setattr(module, "time", CLOCK)
    monkeypatch.setattr(Delivery, "start", lambda _: None)
    monkeypatch.setattr(delivery, "SMALL_BYTES", 40)
    monkeypatch.setattr(delivery, "BULK_BYTES", 120)
    monkeypatch.setattr(delivery, "BULK_FILES", 5)
    monkeypatch.setattr(journal_file, "_RESERVED_BYTES", 0)
    monkeypatch.setattr(outgoing, "PIECE_BYTES", 16)
    monkeypatch.setattr("sftp_gateway.write_back.vault.os.fsync", lambda _: None)
    connect = JournalFile._connect

    def connect_without_syncs(self: JournalFile) -> sqlite3.Connection:
        db = connect(self)
        db.execute("PRAGMA synchronous = OFF")
        return db

    monkeypatch.setattr(JournalFile, "_connect", connect_without_syncs)
