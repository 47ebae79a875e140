"""Mirroring at random between folders of every kind, through faults, changes and interruptions: as a model has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from fs_dropbox.mirroring import mirror, transfer
from fs_dropbox.uploads import session_commits
from tests.fs_dropbox.files.small_blocks import impatient, make_blocks_small
from tests.fs_dropbox.mirroring.random_mirrors import Machine
from tests.fs_dropbox.mirroring.random_sides import InAccount, InMemory, OnDisk, Side

STEPS = 12
WAYS = (
    *(("disk", "account"), ("account", "disk"), ("disk", "account"), ("account", "disk")),
    *(("account", "account"), ("account", "other account"), ("memory", "account"), ("account", "memory")),
    *(("disk", "disk"), ("disk", "memory"), ("memory", "disk")),
)


class Runs:
    """Runs of machines on one account, by seeds."""

    def __init__(self, emulator: Emulator, open_dropbox: Callable[..., DropboxFS], scratch: Path) -> None:
        self._control = emulator.control
        self._scratch = scratch
        self._accounts = [
            impatient(open_dropbox(timeout_seconds=5.0)),
            impatient(open_dropbox(timeout_seconds=5.0, change_feed=False, cache_ttl_seconds=3600.0)),
        ]

    def go(self, seeds: range, steps: int = STEPS) -> None:
        for seed in seeds:
            way = WAYS[seed % len(WAYS)]
            sides = [self.side(kind, f"{seed} {number}", seed) for number, kind in enumerate(way)]
            Machine(f"{seed} {way}", self._control, sides[0], sides[1], faults=seed % 3 != 0).run(steps)

    def side(self, kind: str, name: str, seed: int) -> Side:
        if kind == "memory":
            return InMemory()
        if kind == "disk":
            return OnDisk(self._scratch / name)
        account = self._accounts[(seed + (kind == "other account")) % 2]
        return InAccount(self._control, account, f"/{name}")


@pytest.fixture
def runs(
    monkeypatch: pytest.MonkeyPatch, emulator: Emulator, open_dropbox: Callable[..., DropboxFS], tmp_path: Path
) -> Runs:
    make_blocks_small(monkeypatch)
    monkeypatch.setattr(mirror, "SMALL_BYTES", 2000)
    monkeypatch.setattr(transfer, "CHUNK_BYTES", 700)
    monkeypatch.setattr(session_commits, "COMMIT_FILES", 5)
    return Runs(emulator, open_dropbox, tmp_path)


def test_a_mirror_does_what_it_says(runs: Runs) -> None:
    runs.go(range(22))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_many_mirrors_do_what_they_say(runs: Runs) -> None:
    runs.go(range(100, 1000))
