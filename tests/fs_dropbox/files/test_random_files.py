"""Files in every mode, written, read, moved, changed by others, through faults: as local files, or an error."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from tests.fs_dropbox.files.random_files import Machine
from tests.fs_dropbox.files.small_blocks import impatient, make_blocks_small

STEPS = 60


class Runs:
    """Runs of machines on one account, by seeds."""

    def __init__(self, emulator: Emulator, open_dropbox: Callable[..., DropboxFS], scratch: Path) -> None:
        self._emulator = emulator
        self._scratch = scratch
        self._accounts = {
            follows: [impatient(open_dropbox(timeout_seconds=5.0, cache=not follows, **feed)) for _ in range(2)]
            for follows, feed in ((True, {}), (False, {"change_feed": False, "cache_ttl_seconds": 3600.0}))
        }

    def machine(self, name: str, *, faults: bool, follows: bool) -> Machine:
        accounts, scratch = self._accounts[follows], self._scratch / name
        return Machine(self._emulator, accounts, f"/{name}", scratch, faults=faults, follows=follows)

    def one_by_one(self, seeds: range) -> None:
        for seed in seeds:
            self.machine(f"one {seed}", faults=seed % 4 != 0, follows=seed % 2 == 1).run(STEPS)

    def at_once(self, seeds: range, *, threads: int = 5) -> None:
        for seed in seeds:
            # The faults of one strike the calls of all.
            machines = [
                self.machine(f"{seed} {number}", faults=seed % 3 != 0 and number == 0, follows=False)
                for number in range(threads)
            ]
            for machine in machines:
                machine.is_corrupting = machines[0].faults
            with ThreadPoolExecutor(threads) as pool:
                for run in [pool.submit(machine.run, STEPS) for machine in machines]:
                    run.result()


@pytest.fixture
def runs(
    monkeypatch: pytest.MonkeyPatch, emulator: Emulator, open_dropbox: Callable[..., DropboxFS], tmp_path: Path
) -> Runs:
    make_blocks_small(monkeypatch)
    return Runs(emulator, open_dropbox, tmp_path)


def test_files_are_as_local_ones_or_fail(runs: Runs) -> None:
    runs.one_by_one(range(8))


def test_files_of_several_threads(runs: Runs) -> None:
    runs.at_once(range(2))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_many_files_are_as_local_ones_or_fail(runs: Runs) -> None:
    runs.one_by_one(range(100, 700))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_many_files_of_several_threads(runs: Runs) -> None:
    runs.at_once(range(100, 200))
