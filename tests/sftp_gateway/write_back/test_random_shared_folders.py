"""Random steps of clients of an account whose folders others share, move and take away, with write-back.

Names are spelled in every case and with accents composed and apart. What was acknowledged is somewhere in the end,
once, or is kept as refused with its reason; and the own folder shows what it has at each step.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.sftp_gateway.write_back.sharing_steps import play


def test_whatever_becomes_of_shared_folders_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several(range(2), tmp_path, monkeypatch, steps=40)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(1000, 1400, 20))
def test_it_is_so_for_long(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several(range(first, first + 20), tmp_path, monkeypatch, steps=100)


def several(seeds: range, folder: Path, monkeypatch: pytest.MonkeyPatch, *, steps: int) -> None:
    for name in ("sftp_gateway", "fs_dropbox"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for seed in seeds:
        (folder / str(seed)).mkdir()
        play(folder / str(seed), seed, steps, monkeypatch)
