"""Random steps of those who write files, with hours and days in between.

What was cut off is kept for a day, through restarts and kills, and no longer; who goes on with what is not kept any
more is refused; and nothing is left on disk of which nobody knows. What fails prints its steps.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.sftp_gateway.files.waiting_steps import Waiting
from tests.sftp_gateway.files.writing_steps import play


@pytest.mark.parametrize("first", range(0, 20, 10))
def test_what_was_cut_off_is_kept_for_a_day(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several(range(first, first + 10), tmp_path, monkeypatch, steps=70)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 3000, 100))
def test_it_is_so_for_long(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several(range(first, first + 100), tmp_path, monkeypatch, steps=150)


def several(seeds: range, folder: Path, monkeypatch: pytest.MonkeyPatch, *, steps: int) -> None:
    logging.getLogger("sftp_gateway").setLevel(logging.ERROR)
    for seed in seeds:
        (folder / str(seed)).mkdir()
        play(Waiting(folder / str(seed), seed), seed, steps, monkeypatch)
