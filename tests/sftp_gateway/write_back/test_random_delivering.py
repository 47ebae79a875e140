"""Random steps of those who use write-back over a storage that lags, fails, refuses and forgets, against a model.

What was acknowledged arrives once, whole and in order, or is kept as refused, whatever is killed at whatever moment;
nothing else arrives; a change in place replaces what it was made of and nothing else; and every process shows what is
to be seen at each step. What fails prints its steps.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.sftp_gateway.write_back.delivering_steps import play

SEEDS = 16
SOAK_SEEDS = 3000


@pytest.mark.parametrize("first", range(0, SEEDS, 8))
def test_what_was_acknowledged_arrives_once_and_in_order(
    first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several(range(first, first + 8), tmp_path, monkeypatch, steps=60)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 1000 + SOAK_SEEDS, 100))
def test_it_does_so_for_long(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several(range(first, first + 100), tmp_path, monkeypatch, steps=120)


def several(seeds: range, folder: Path, monkeypatch: pytest.MonkeyPatch, *, steps: int) -> None:
    logging.getLogger("sftp_gateway").setLevel(logging.CRITICAL)
    for seed in seeds:
        (folder / str(seed)).mkdir()
        play(folder / str(seed), seed, steps, monkeypatch)
