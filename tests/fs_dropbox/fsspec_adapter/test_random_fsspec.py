"""What fsspec can do, at random, through faults and changes by others: as in a local folder, or an error."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.asyn import get_loop

from fs_dropbox.emulator import Emulator
from fs_dropbox.fsspec_adapter.filesystem import DropboxFileSystem
from fs_dropbox.uploads import session_commits
from tests.fs_dropbox.accounts import access_to
from tests.fs_dropbox.files.small_blocks import impatient, make_blocks_small
from tests.fs_dropbox.fsspec_adapter.random_fsspec import Machine

STEPS = 40

get_loop()  # the thread of what fsspec wraps filesystems in, which it never ends


class Runs:
    """Runs of machines on one account, by seeds."""

    def __init__(self, emulator: Emulator, scratch: Path) -> None:
        self._control = emulator.control
        self._scratch = scratch
        self._dropbox = DropboxFileSystem(**access_to(emulator), timeout_seconds=5.0)
        impatient(self._dropbox.filesystem)  # type: ignore[arg-type]

    def machine(self, name: str, *, faults: bool) -> Machine:
        return Machine(name, self._control, self._dropbox, self._scratch / name, faults=faults)

    def one_by_one(self, seeds: range) -> None:
        for seed in seeds:
            self.machine(f"one {seed}", faults=seed % 3 == 0).run(STEPS)

    def at_once(self, seeds: range, *, threads: int = 5) -> None:
        for seed in seeds:
            machines = [self.machine(f"{seed} {number}", faults=False) for number in range(threads)]
            with ThreadPoolExecutor(threads) as pool:
                for run in [pool.submit(machine.run, STEPS) for machine in machines]:
                    run.result()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, emulator: Emulator, tmp_path: Path) -> Iterator[Runs]:
    make_blocks_small(monkeypatch)
    monkeypatch.setattr(session_commits, "COMMIT_FILES", 5)
    yield Runs(emulator, tmp_path)
    DropboxFileSystem.clear_instance_cache()


def test_it_is_as_a_local_folder_or_fails(runs: Runs) -> None:
    runs.one_by_one(range(5))
    runs.at_once(range(1))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_it_is_long_as_a_local_folder_or_fails(runs: Runs) -> None:
    runs.one_by_one(range(100, 500))
    runs.at_once(range(20))
