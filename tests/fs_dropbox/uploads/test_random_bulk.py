"""Many files at once, uploaded or staged and committed, while calls fail at random: what is told of each is so."""

from __future__ import annotations

import io
import random
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from tests.fs_dropbox.accounts import open_account
from tests.fs_dropbox.files.small_blocks import impatient

PATHS = [f"/in/{number}" for number in range(12)]
WHEN = datetime(2020, 1, 1, tzinfo=UTC)
SESSIONS = ["start", "append_v2", "finish", "start_batch", "append_batch", "finish_batch_v2", "finish_batch_v2"]
ROUTES = ["files/upload", "files/get_metadata", *(f"files/upload_session/{name}" for name in SESSIONS)]
FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("server_error", {}),
    ("server_error", {"status": 400, "text": "did not match pattern"}),
    ("ambiguous", {}),
    ("ambiguous", {"status": 500}),
    ("cut_body", {}),
    ("cut_request", {}),
    ("too_many_write_operations", {}),
    ("rate_limit", {"retry_after": 0}),
]


class Run:
    """An account, and what somebody does there; every content is unlike all others, also in its size."""

    def __init__(self, emulator: Emulator, account: DropboxFS, seed: int) -> None:
        self.emulator = emulator
        self.account: Any = account
        self.chance = random.Random(seed)
        self.size = 0

    def step(self) -> None:
        for _ in range(self.chance.choice([0, 1, 1, 2])):
            kind, parameters = self.chance.choice(FAULTS)
            count = self.chance.choice([1, 2, 4, 8])
            self.emulator.control.fault(self.chance.choice(ROUTES), kind, count, **parameters)
        files = []
        for path in self.chance.choices(PATHS, k=self.chance.choice([1, 3, 6, 9])):
            self.size += 1
            files.append((path, b"x" * self.size))
        self.chance.choice([self.upload, self.stage])(files)
        for path in PATHS:
            there = self.emulator.control.read(path) if self.emulator.control.exists(path) else None
            assert self.account.exists(path) == (there is not None), path
            assert there is None or self.account.readbytes(path) == there, path

    def upload(self, files: list[tuple[str, bytes]]) -> None:
        sent = [(path, partial(io.BytesIO, content), len(content), None) for path, content in files]
        told = self.told(self.account.upload_files(sent), len(files))
        self.compare(files, told)
        for path, index in {path: index for index, (path, _) in enumerate(files)}.items():  # the last of each
            assert told[index] is not None or self.emulator.control.read(path) == files[index][1], path

    def stage(self, files: list[tuple[str, bytes]]) -> None:
        sources = [(partial(io.BytesIO, content), len(content)) for _, content in files]
        tokens = self.told(self.account.stage_files(sources), len(files))
        left = [(file, token) for file, token in zip(files, tokens, strict=True) if isinstance(token, str)]
        moment = WHEN + timedelta(seconds=self.size)
        while left:
            wanted = [(path, token, moment, None) for (path, _), token in left]
            told = self.told(self.account.commit_files(wanted), len(wanted))
            self.compare([file for file, _ in left], told)
            left = [each for each, outcome in zip(left, told, strict=True) if isinstance(outcome, Exception)]

    def compare(self, files: list[tuple[str, bytes]], told: list[Any]) -> None:
        """Each content is there as often as was told; of what failed, nobody need know."""
        self.emulator.control.clear_faults()
        for (path, content), outcome in zip(files, told, strict=True):
            versions = self.account.versions(path) if self.emulator.control.exists(path) else []
            count = [info.get("details", "size") for info in versions].count(len(content))
            assert count in {None: [1], True: [1], False: [0]}.get(outcome, [0, 1]), (path, outcome)

    def told(self, outcomes: Any, count: int) -> list[Any]:
        found = dict(outcomes)
        assert sorted(found) == list(range(count))
        assert all(isinstance(each, fs.errors.FSError) for each in found.values() if isinstance(each, Exception)), found
        return [found[index] for index in range(count)]


def run(seed: int) -> None:
    with Emulator() as emulator, open_account(emulator, change_feed=False, cache_ttl_seconds=1000.0) as account:
        account.makedir("in")
        account.listdir("in")
        one = Run(emulator, impatient(account), seed)
        for number in range(12):
            try:
                one.step()
            except AssertionError as error:
                pytest.fail(f"seed {seed}, step {number}: {error}", pytrace=False)


@pytest.mark.parametrize("seed", [1, 14, 20, 48])
def test_what_is_told_of_each_of_many_files_is_so(seed: int) -> None:
    run(seed)


@pytest.mark.soak
def test_what_is_told_of_each_of_many_files_is_so_for_long() -> None:
    for seed in range(100, 250):
        run(seed)
