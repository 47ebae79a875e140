"""Trees that are changed in every way, by several, through lost and late answers: as a plain model, or an error."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.api import batch_calls, fresh
from fs_dropbox.emulator import Emulator
from fs_dropbox.filesystem import batches, serverside
from fs_dropbox.metadata import changes
from fs_dropbox.uploads import session_contents
from tests.fs_dropbox.files.small_blocks import impatient, make_blocks_small
from tests.fs_dropbox.filesystem.random_trees import EMAIL, HOME, Machine
from tests.fs_dropbox.filesystem.tree_faults import Watch
from tests.waiting import eventually

STEPS: Final = 40
FEW_STEPS: Final = 20
THREADS: Final = 4
CONSTANTS: Final[tuple[tuple[Any, str, Any], ...]] = (
    (changes, "REST_SECONDS", 0.0),
    (changes, "PAUSES_SECONDS", (0.01,) * 5),
    (batch_calls, "FIRST_POLL_SECONDS", 0.001),
    (fresh, "FRESH_PAUSES_SECONDS", (0.001, 0.002)),
    (batches, "LEAST_CHILDREN", 2),
    (serverside, "LEAST_CHILDREN", 2),
    (session_contents, "LEAST_FILES", 2),
)


class Runs:
    """Runs of machines on one account, by seeds; faults strike in most of them."""

    def __init__(self, emulator: Emulator, open_dropbox: Callable[..., DropboxFS]) -> None:
        self._emulator = emulator
        self._open_dropbox = open_dropbox
        self._watch = Watch(emulator)
        self.steps = STEPS

    def alone(self, seeds: range) -> None:
        """One whom nobody tells anything: what it believes comes from its own calls, and nobody else makes any."""
        accounts = self._unfollowed(1)
        for seed in seeds:
            self._machine(accounts, f"/alone {seed}", seed).run(self.steps)

    def stale(self, seeds: range) -> None:
        """Two that believe for ever what they once knew, and others."""
        accounts = self._unfollowed(2)
        for seed in seeds:
            self._machine(accounts, f"/stale {seed}", seed, stale=True).run(self.steps)

    def follow(self, seeds: range) -> None:
        """Two, and others of whom they hear; some calls are carried out late."""
        accounts = self._followed(2)
        for seed in seeds:
            self._machine(accounts, f"/follow {seed}", seed, follows=True).run(self.steps)

    def races(self, seeds: range) -> None:
        """Several threads that do things in the same places."""
        unfollowed, followed = self._unfollowed(1), self._followed(2)
        for seed in seeds:
            accounts = followed if seed % 2 else unfollowed
            self._machine(accounts, f"/race {seed}", seed // 2, follows=accounts is followed).run(
                STEPS // 4, races=True
            )

    def apart(self, seeds: range) -> None:
        """Several threads that do things in places of their own; faults strike any of them."""
        accounts = self._unfollowed(1)
        for seed in seeds:
            machines = [self._machine(accounts, f"/apart {seed} {number}", seed) for number in range(THREADS)]
            with ThreadPoolExecutor(THREADS) as pool:
                for run in [pool.submit(machine.run, self.steps) for machine in machines]:
                    run.result()

    def moving_house(self, seeds: range) -> None:
        """Two whose root is another one now and then."""
        self._emulator.control.add_team("Acme")
        self._emulator.control.add_member(EMAIL, admin=True)
        accounts = self._followed(2)
        for seed in seeds:
            machine = self._machine(accounts, f"{HOME}/moving {seed}", seed, follows=True, moves_house=True)
            machine.run(self.steps)
            machine.come_home()

    def _machine(self, accounts: list[DropboxFS], folder: str, seed: int, **kind: bool) -> Machine:
        return Machine(self._emulator, self._watch, accounts, folder, faults=seed % 4 != 0, **kind)

    def _unfollowed(self, count: int) -> list[DropboxFS]:
        return [self._open(change_feed=False, cache_ttl_seconds=3600.0) for _ in range(count)]

    def _followed(self, count: int) -> list[DropboxFS]:
        accounts = [self._open() for _ in range(count)]
        for account in accounts:
            account.listdir("/")
            eventually(lambda account=account: account.feed_is_live)  # type: ignore[misc]
        return accounts

    def _open(self, **arguments: Any) -> DropboxFS:
        plain = self._emulator.http_url  # without TLS, which takes longer than all else
        return impatient(self._open_dropbox(api_host=plain, timeout_seconds=5.0, **arguments))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, emulator: Emulator, open_dropbox: Callable[..., DropboxFS]) -> Runs:
    make_blocks_small(monkeypatch)
    for owner, name, value in CONSTANTS:
        monkeypatch.setattr(owner, name, value)
    return Runs(emulator, open_dropbox)


KINDS: Final = ("alone", "stale", "follow", "races", "apart", "moving_house")


@pytest.mark.parametrize("kind", KINDS)
def test_trees_are_as_a_model_says_or_fail(runs: Runs, kind: str) -> None:
    runs.steps = FEW_STEPS
    getattr(runs, kind)(range(1, 2))


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", KINDS)
def test_many_trees_are_as_a_model_says_or_fail(runs: Runs, kind: str) -> None:
    getattr(runs, kind)(range(100, 250))
