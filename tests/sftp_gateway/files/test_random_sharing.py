"""Random steps of clients of three processes that share a spool folder, in the middle of each other's and of kills.

What is continued is what was sent; all processes show the same; what fails prints its steps.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.sftp_gateway.files.sharing_steps import Sharing, play_sharing


@pytest.mark.parametrize("first", range(0, 16, 4))
def test_what_goes_on_elsewhere_is_what_was_sent(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several(range(first, first + 4), tmp_path, monkeypatch, steps=70)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 3000, 100))
def test_it_is_so_for_long(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several(range(first, first + 100), tmp_path, monkeypatch, steps=150)


def several(seeds: range, folder: Path, monkeypatch: pytest.MonkeyPatch, *, steps: int) -> None:
    logging.getLogger("sftp_gateway").setLevel(logging.ERROR)
    for seed in seeds:
        (folder / str(seed)).mkdir()
        play_sharing(Sharing(folder / str(seed), seed), seed, steps, monkeypatch)
