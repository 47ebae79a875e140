"""Random requests have the outcome that they have with OpenSSH's own server; `oracle.py` says what differs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sftp_gateway.sftp.packets import Kind
from tests.sftp_gateway.raw_client import A, C, R, RawClient, T, W, X, s
from tests.sftp_gateway.sessions.random_places import PLACES, Gateway
from tests.sftp_gateway.sftp.oracle import Oracle
from tests.sftp_gateway.sftp.twins import Opened, Twins

FOLDERS = ("", "", "/one", "/one", "/two", "/one/two", "/missing")
NAMES = 4 * ("a", "b", "one", "two") + ("three", "\u00fc", "...", "a*b", "x" * 200)
SPELLINGS = (".{0}", "/{0}", "{0}/", "{0}/.", "{0}/x/..", "one/..{0}", "missing/..{0}", "{1}")
FLAGS = 2 * (R, R, W | C | T, W | C | T, W | C, W, R | W) + (R | W | C, R | W | C | T, W | C | A, W | C | X, R | W | A)
SIZES = (0, 1, 2, 5, 9, 100, 1000, 33_000, 70_000)
OFFSETS = (0, 0, 0, 1, 3, 50, 999, 40_000, 200_000)
ABOUT = (Kind.STAT, Kind.LSTAT, Kind.MKDIR, Kind.MKDIR, Kind.RMDIR, Kind.REMOVE, Kind.READLINK)
EXTENSIONS = ("statvfs@openssh.com", "limits@openssh.com", "fstatvfs@openssh.com")
HANDLES = 8
KINDS = ("memory", "folder", "dropbox", "write-back")
SHOWN = 40


class Walk:
    """One random sequence of requests to both."""

    def __init__(self, twins: Twins, seed: int) -> None:
        self.twins = twins
        self.chance = random.Random(seed)

    def step(self) -> None:
        chance = self.chance
        ready = [opened for opened in self.twins.opened if opened.ours]
        kind = chance.random()
        if kind < 0.12:
            with self.twins.burst():
                for _ in range(chance.randrange(2, 12)):
                    self._with_a_path(ready)
        elif kind < 0.24 and ready:
            with self.twins.burst():
                chosen = self._different(ready)
                for opened in chosen:
                    for _ in range(chance.randrange(1, 8)):
                        self._with(opened, chosen)
        elif kind < 0.7 and ready:
            self._with(chance.choice(ready), ready)
            if chance.random() < 0.25 or len(ready) > HANDLES:
                self.twins.close(chance.choice(self.twins.opened))
        else:
            self._with_a_path([])

    def _different(self, ready: list[Opened]) -> list[Opened]:
        """Return handles of different files, or of one."""
        found = {opened.id if opened.file >= 0 else opened.name: opened for opened in ready}
        return self.chance.sample(list(found.values()), self.chance.randrange(1, len(found) + 1))

    def _with_a_path(self, ready: list[Opened]) -> None:
        """Do something with paths, or close what is written; `ready` may be closed."""
        twins, chance, path = self.twins, self.chance, self._path()
        kind = chance.random()
        if kind < 0.3:
            self._open(path)
        elif kind < 0.36:
            twins.opendir(path)
        elif kind < 0.5:
            twins.about(Kind.RENAME, path, self._path())
        elif kind < 0.6:
            twins.extended("posix-rename@openssh.com", path, self._path())
        elif kind < 0.65:
            twins.setstat(path, size=chance.choice(SIZES))
        elif kind < 0.68:
            twins.setstat(path, permissions=0o644)
        elif kind < 0.72:
            how = chance.choice((lambda raw, given: raw.path(Kind.REALPATH, given), expand_path))
            twins.realpath(path, how)
        elif kind < 0.73:
            twins.symlink(path, self._path())
        elif kind < 0.75:
            twins.of_no_handle(chance.choice((b"", b"\0\0\0\x7f", b"made up")))
        elif kind < 0.76:
            twins.told(chance.choice(EXTENSIONS), path)
        elif kind < 0.8 and (writers := [opened for opened in ready if opened.writes and opened in twins.opened]):
            twins.close(chance.choice(writers))
        else:
            twins.about(chance.choice(ABOUT), path)

    def _open(self, path: str) -> None:
        flags = self.chance.choice(FLAGS) if self.chance.random() < 0.85 else self.chance.randrange(64)
        if flags & T and self.twins.is_written(path):
            flags &= ~T
        self.twins.open(path, flags)

    def _with(self, opened: Opened, ready: list[Opened]) -> None:
        twins, chance = self.twins, self.chance
        offset, size = chance.choice(OFFSETS), chance.choice(SIZES)
        kind = chance.random()
        if opened.folder:
            if kind < 0.9:
                twins.readdir(opened, chance.randrange(1, 5))
            else:
                twins.wrong(Kind.READ, opened)
        elif kind < 0.35:
            twins.read(opened, offset, size)
        elif kind < 0.7:
            twins.write(opened, offset, chance.randbytes(size))
        elif kind < 0.8:
            twins.fstat(opened)
        elif kind < 0.88:
            twins.fsetstat(opened, size=size)
        elif kind < 0.9 and opened.writes and not opened.is_removed:
            twins.fsetstat(opened, **chance.choice(({"permissions": 0o600}, {"atime": 10**9, "mtime": 10**9})))
        elif kind < 0.93:
            twins.fsync(opened)
        elif kind < 0.95:
            twins.wrong(Kind.READDIR, opened)
        else:
            self._copy(chance.choice(ready), opened)

    def _copy(self, source: Opened, target: Opened) -> None:
        chance = self.chance
        is_shared = source.id == target.id
        if source.file >= 0 and (source.version is None or (source.version == source.content() and not is_shared)):
            size = chance.choice((0, *SIZES))
            self.twins.copy(source, chance.choice(OFFSETS), size, target, chance.choice(OFFSETS))

    def _path(self) -> str:
        folder, name = self.chance.choice(FOLDERS), self.chance.choice(NAMES)
        path = "" if self.chance.random() < 0.02 else f"{folder}/{name}"
        return path if self.chance.random() < 0.7 else self.chance.choice(SPELLINGS).format(path, path[1:])


def expand_path(raw: RawClient, path: str) -> int:
    return raw.extended("expand-path@openssh.com", s(path))


def run(place: Gateway, folder: Path, seed: int, steps: int) -> None:
    """Send one sequence to both; compare each reply, and what is there when all is closed."""
    root = f"/s{seed}"
    place.filesystem.makedir(root)
    oracle = Oracle(folder / f"oracle{seed}")
    session = place.serving.session(root)
    session.view.write_back = session.view.store.has_journal
    twins = Twins(oracle, session.raw(), pins=place.pins)
    walk = Walk(twins, seed)
    try:
        for path in ("/one", "/two", "/one/two"):
            twins.about(Kind.MKDIR, path)
        for _ in range(steps):
            walk.step()
        for opened in list(twins.opened):
            twins.close(opened)
        for path, content in oracle.tree().items():
            assert content is None or twins.ours.get(path) == content, f"{path} has other content"
        place.settle()
        stored = {path: found if found is None else found[0] for path, found in place.stored(root).items()}
        assert stored == oracle.tree(), f"{sorted(stored)} instead of {sorted(oracle.tree())}"
    except AssertionError as error:
        log = "\n".join(twins.log[-SHOWN:])
        raise AssertionError(f"{log}\nseed {seed}, request {len(twins.log)}: {error}") from None
    finally:
        twins.let_go()
        oracle.close()


@pytest.mark.parametrize("kind", KINDS)
def test_requests_have_the_outcome_that_they_have_with_openssh(tmp_path: Path, kind: str) -> None:
    compare(kind, tmp_path, range(4), steps=60)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(1000, 1400, 100))
@pytest.mark.parametrize("kind", KINDS)
def test_many_requests_have_the_outcome_that_they_have_with_openssh(tmp_path: Path, kind: str, first: int) -> None:
    compare(kind, tmp_path, range(first, first + 100), steps=150)


def compare(kind: str, folder: Path, seeds: range, steps: int) -> None:
    place = PLACES[kind](folder)
    try:
        for seed in seeds:
            run(place, folder, seed, steps)
    finally:
        place.close()
