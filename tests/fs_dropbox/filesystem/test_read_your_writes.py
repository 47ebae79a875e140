"""Own changes are seen at once: threads share a filesystem, each looks at what it has just done, without waiting.

Calls are answered late and out of their order, and somebody lists everything all the time, so that answers from before
a change come after it. Each thread works in a folder of its own and keeps a plain model of it; what it sees has to be
what the model says, after every operation.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS, paths
from fs_dropbox.emulator import Emulator
from fs_dropbox.emulator.model.errors import CallError
from tests.fs_dropbox.accounts import open_account
from tests.fs_dropbox.filesystem.random_worker import COMMON, Worker
from tests.waiting import eventually

THREADS = 3
JITTER_SECONDS = 0.015
LISTER_REST_SECONDS = 0.01


def list_everything(account: DropboxFS, ended: threading.Event) -> None:
    """List the common tree, folder by folder or as a walk, over and over."""
    for turn in range(1_000_000):
        if ended.wait(LISTER_REST_SECONDS):
            return
        folders = [COMMON]
        while folders and not ended.is_set():
            folder = folders.pop()
            with suppress(fs.errors.ResourceNotFound, fs.errors.DirectoryExpected):
                folders += [f"{folder}/{info.name}" for info in account.scandir(folder) if info.is_dir]
        if turn % 5 == 0:
            with suppress(fs.errors.ResourceNotFound, fs.errors.DirectoryExpected):
                list(account.walk.info(COMMON))


def others_change(emulator: Emulator, seed: int, ended: threading.Event) -> None:
    """Change other folders, as somebody else does."""
    chance = random.Random(seed)
    control = emulator.control
    places = [f"{COMMON}/Others/{first}/{second}" for first in "abc" for second in "abc"]
    while not ended.wait(chance.uniform(0.0, 0.05)):
        place, other = chance.sample(places, 2)
        works: list[Callable[[], object]] = [
            partial(control.write, place, b"theirs"),
            partial(control.seed, place),
            partial(control.delete, paths.parent(place)),
            partial(control.move, place, other),
        ]
        if chance.random() < 0.02:
            control.reset_cursors()  # of the feed: everything is forgotten
        with suppress(CallError):  # not possible as things are
            chance.choice(works)()


@contextmanager
def in_background(*works: Callable[[threading.Event], object]) -> Iterator[None]:
    ended = threading.Event()
    with ThreadPoolExecutor(max(1, len(works))) as pool:
        running = [pool.submit(work, ended) for work in works]
        try:
            yield
        finally:
            ended.set()
    for each in running:
        each.result()


VARIATIONS: dict[str, dict[str, Any]] = {
    "followed": {},
    "others": {"others": True},
    "unfollowed": {"change_feed": False},
}


def read_your_writes(seed: int, operations: int, *, others: bool = False, **arguments: Any) -> None:
    """Let threads work and look at what they did."""
    with Emulator() as emulator:
        account = open_account(
            emulator,
            **arguments,
        )
        with account:
            emulator.control.latency(jitter_seconds=JITTER_SECONDS, chance=random.Random(seed))
            emulator.control.options(case_only_move="rename" if seed % 2 else "keep")
            workers = [Worker(account, number, seed) for number in range(THREADS)]
            if arguments.get("change_feed", True):
                eventually(lambda: account.feed_is_live)
            works: list[Callable[[threading.Event], object]] = [partial(list_everything, account)]
            if others:
                works.append(partial(others_change, emulator, seed))
            with in_background(*works), ThreadPoolExecutor(THREADS) as pool:
                working = [pool.submit(worker.work, operations) for worker in workers]
            for each in working:
                try:
                    each.result()
                except AssertionError as error:
                    pytest.fail(f"seed {seed}, {arguments}, others: {others}, {error}", pytrace=False)


@pytest.fixture(autouse=True)
def busy_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the journal looked at all the time."""
    monkeypatch.setattr("fs_dropbox.metadata.changes.REST_SECONDS", 0.02)


@pytest.mark.parametrize("variation", VARIATIONS)
def test_own_changes_are_seen_at_once(variation: str) -> None:
    read_your_writes(1, 15, **VARIATIONS[variation])


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 32))
@pytest.mark.parametrize("variation", VARIATIONS)
def test_own_changes_are_seen_at_once_for_long(variation: str, seed: int) -> None:
    read_your_writes(seed, 150, **VARIATIONS[variation])
