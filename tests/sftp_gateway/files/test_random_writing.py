"""Random steps of those who write files over a storage that lags, fails and forgets, compared with a plain model.

Whenever CLOSE succeeds the storage has exactly what was written; what is read, also of an upload that was cut off, is
what was sent; and in the end no byte is counted, and no file, thread or stream is left. What fails prints its steps.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.sftp_gateway.files.writing_steps import Writing, play

SEEDS = 60
SOAK_SEEDS = 2000


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_what_is_stored_is_what_was_written(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several(range(first, first + 10), tmp_path, monkeypatch, steps=80)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 1000 + SOAK_SEEDS, 100))
def test_it_is_so_for_long(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several(range(first, first + 100), tmp_path, monkeypatch, steps=150)


def several(seeds: range, folder: Path, monkeypatch: pytest.MonkeyPatch, *, steps: int) -> None:
    logging.getLogger("sftp_gateway").setLevel(logging.ERROR)
    for seed in seeds:
        (folder / str(seed)).mkdir()
        play(Writing(folder / str(seed), seed), seed, steps, monkeypatch)
