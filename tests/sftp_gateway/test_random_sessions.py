"""Sessions that do things at random, compared with a plain model after each step, and with the storage in the end.

What fails prints its seed and all that its session did. The same seed does the same again, but for the threads' timing.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import fs
import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS

from fs_dropbox.emulator import Emulator
from sftp_gateway.folding import fold_path
from sftp_gateway.journal import Journal
from sftp_gateway.write_back import WriteBackFS, WriteBackLimits
from tests.waiting import eventually

from . import random_steps
from .random_session import Actor
from .serving import Serving, Session

SHOWN_STEPS = 150


class Gateway:
    """A gateway over a filesystem; it can end and begin again."""

    folds = False
    pins = False
    times: Literal["at CLOSE", "until sent", "always"] = "always"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.filesystem = self.open()
        self.serving = self.serve()

    def open(self) -> FS:
        return MemoryFS()

    def serve(self) -> Serving:
        return Serving(self.filesystem, self.folder / "spool")

    def connect(self) -> Session:
        session = self.serving.session()
        session.view.write_back = True
        return session

    def stir(self, chance: random.Random) -> None:
        """Do something that no session may notice."""

    def restart(self) -> None:
        self.serving.close()
        self.serving = self.serve()

    def settle(self) -> None:
        """Wait until the storage has everything."""

    def close(self) -> None:
        self.serving.close()
        self.filesystem.close()

    def make(self, root: str) -> None:
        """Make a folder in the storage."""
        self.filesystem.makedir(root)

    def stored(self, root: str) -> dict[str, tuple[bytes, int] | None]:
        """Return what the storage has below a folder: contents with their times, None for folders."""
        home = self.filesystem.opendir(root)
        found: dict[str, tuple[bytes, int] | None] = dict.fromkeys(home.walk.dirs("/"))
        for path in home.walk.files("/"):
            found[path] = home.readbytes(path), int(home.getinfo(path, ["details"]).raw["details"]["modified"])
        return found


class OverAFolder(Gateway):
    def open(self) -> FS:
        return OSFS(str(self.folder / "files"), create=True)


class OverDropbox(Gateway):
    """DropboxFS on the emulator, over HTTP; how long calls take changes all the time."""

    folds = True
    pins = True
    times = "at CLOSE"

    def __init__(self, folder: Path) -> None:
        self.emulator = Emulator().start()
        super().__init__(folder)

    def open(self) -> FS:
        return fs.open_fs(self.emulator.fs_url)

    def stir(self, chance: random.Random) -> None:
        self.emulator.control.latency(
            delay_seconds=chance.choice((0.0, 0.0, 0.002, 0.01)), commit_seconds=chance.choice((0.0, 0.005))
        )

    def close(self) -> None:
        super().close()
        self.emulator.stop()

    def make(self, root: str) -> None:
        self.emulator.control.seed(root)

    def stored(self, root: str) -> dict[str, tuple[bytes, int] | None]:
        control = self.emulator.control
        found: dict[str, tuple[bytes, int] | None] = {}
        for path, size in control.tree(root).items():
            found[path[len(root) :].lower()] = None if size is None else (control.read(path), self._time(path))
        return found

    def _time(self, path: str) -> int:
        return int(datetime.fromisoformat(self.emulator.control.metadata(path)["client_modified"]).timestamp())


class WrittenBack(OverDropbox):
    """The same with write-back; files leave a moment after they were acknowledged."""

    times = "until sent"

    def open(self) -> FS:
        self.journal = Journal(self.folder / "journal", fold=fold_path)
        limits = WriteBackLimits(delay_seconds=0.1)
        return WriteBackFS(super().open(), self.journal, label="ann", limits=limits)

    def stir(self, chance: random.Random) -> None:
        super().stir(chance)
        if chance.random() < 0.3:
            self.journal.hurry("/")

    def restart(self) -> None:
        self.serving.close()
        self.filesystem.close()  # files are left in the middle of their delivery
        self.filesystem = self.open()
        self.serving = self.serve()

    def settle(self) -> None:
        self.journal.hurry("/")
        eventually(lambda: not self.journal.is_live("/"), lambda: f"not delivered: {self.journal.all()}")
        assert not self.journal.all(), "something was refused"


def run(place: Gateway, seed: int, *, steps: int, rounds: int = 2, sessions: int = 2, shared: bool = False) -> None:
    """Have sessions do things at the same time, and compare; between two rounds the gateway starts anew."""
    roots = ["/shared"] * sessions if shared else [f"/s{number}" for number in range(sessions)]
    for root in dict.fromkeys(roots):
        place.make(root)
    actors = [
        Actor(place, root, prefix=f"{number}-" if shared else "", seed=f"{seed} {number}")
        for number, root in enumerate(roots)
    ]
    failures: list[str] = []

    def guarded(actor: Actor, work: Callable[[], Any]) -> None:
        try:
            if not failures:
                work()
        except Exception as error:  # noqa: BLE001 - whatever it is, its session and steps are told
            number = actors.index(actor)
            log = "\n".join(actor.log[-SHOWN_STEPS:])
            failures.append(f"{log}\nseed {seed}, session {number}: {type(error).__name__}: {error}")

    def each(work: Callable[[Actor], None]) -> None:
        threads = [threading.Thread(target=guarded, args=(actor, lambda a=actor: work(a))) for actor in actors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, "\n\n".join(failures)

    for number in range(rounds):
        if number:
            place.restart()
            each(Actor.come_again)
            each(Actor.check_all)
        each(lambda actor: random_steps.run(actor, steps))
        each(Actor.check_all)
    each(Actor.close_all)
    place.settle()
    each(lambda actor: check_stored(place, actor))


def check_stored(place: Gateway, actor: Actor) -> None:
    """Check that the storage has what the session's model has, and nothing else."""
    model, stored = actor.model, place.stored(actor.root)
    stored = {key: found for key, found in stored.items() if key.startswith(f"/{actor.prefix}")}
    expected = {key for key in (*model.files, *model.folders) if key != "/"}
    assert stored.keys() == expected, f"too much: {stored.keys() - expected}, missing: {expected - stored.keys()}"
    for key, file in model.files.items():
        found = stored[key]
        assert found is not None
        assert found[0] == file.content, f"{key} has {len(found[0])} other bytes"
        if file.time is not None and not file.is_loose:
            assert found[1] == file.time, f"{key} has the time {found[1]} instead of {file.time}"


PLACES = {"memory": Gateway, "folder": OverAFolder, "dropbox": OverDropbox, "write-back": WrittenBack}


@pytest.mark.parametrize(("kind", "steps"), [("memory", 300), ("folder", 200), ("dropbox", 60), ("write-back", 80)])
def test_sessions_see_what_they_did(tmp_path: Path, kind: str, steps: int) -> None:
    place = PLACES[kind](tmp_path)
    try:
        run(place, 1, steps=steps)
    finally:
        place.close()


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(100, 120))
@pytest.mark.parametrize("kind", PLACES)
def test_many_sessions_see_what_they_did(tmp_path: Path, kind: str, seed: int) -> None:
    place = PLACES[kind](tmp_path)
    try:
        run(place, seed, steps=400, rounds=3, sessions=3, shared=bool(seed % 2))
    finally:
        place.close()
