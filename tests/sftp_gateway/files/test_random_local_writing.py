"""The random steps of `writing_steps` and `sharing_steps` over a local folder, into which files are moved at CLOSE."""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from fs.osfs import OSFS

from sftp_gateway.files.tree import Tree
from tests.sftp_gateway.files.lagging_fs import Traits
from tests.sftp_gateway.files.sharing_steps import Sharing, play_sharing
from tests.sftp_gateway.files.writing_steps import Writing, play


class _LocalFS(OSFS):
    """A folder as what a `World` stores in; it never lags."""

    generation = steps = hanging = 0
    fault_rate = 0.0
    lags = False

    def lag(self, lags: bool) -> None:
        pass

    def let_go(self, count: int = 1) -> None:
        pass

    def content(self) -> dict[str, bytes]:
        return {path: self.readbytes(path) for path in self.walk.files()}

    def change(self, path: str, content: bytes | None) -> None:
        if content is None:
            self.remove(path)
        else:
            self.writebytes(path, content)


class _Writing(Writing):
    """Stores in a local folder, and has all that is written in a file."""

    more_steps: ClassVar = {"open": 15, "write": 25, "close": 20}

    def storage_in(self, folder: Path, chance: random.Random) -> _LocalFS:
        self.traits = Traits(atomic=False, versions=False, resumes=False, eager=False)
        return _LocalFS(str(folder), create=True)

    def tree(self) -> Tree:
        self.limits = replace(self.limits, spool_memory=0)
        return super().tree()


class _Sharing(_Writing, Sharing):
    more_steps: ClassVar = {**Sharing.more_steps, **_Writing.more_steps}


@pytest.mark.parametrize("kind", [_Writing, _Sharing])
def test_what_is_stored_in_a_local_folder_is_what_was_written(
    kind: type[Writing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several(kind, range(15), tmp_path, monkeypatch, steps=70)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 3000, 100))
@pytest.mark.parametrize("kind", [_Writing, _Sharing])
def test_it_is_so_for_long(kind: type[Writing], first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several(kind, range(first, first + 100), tmp_path, monkeypatch, steps=150)


def several(kind: type[Writing], seeds: range, folder: Path, monkeypatch: pytest.MonkeyPatch, *, steps: int) -> None:
    logging.getLogger("sftp_gateway").setLevel(logging.ERROR)
    for seed in seeds:
        (folder / str(seed)).mkdir()
        world = kind(folder / str(seed), seed)
        if isinstance(world, Sharing):
            play_sharing(world, seed, steps, monkeypatch)
        else:
            play(world, seed, steps, monkeypatch)
