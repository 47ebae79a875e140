"""Random steps of sessions with different rights, in the middle of each other's requests.

Nobody who may only read changes anything; who may only write sees, replaces, renames and removes what it has left
itself and nothing else; and whoever reads a file reads one version, whatever becomes of it meanwhile.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.sftp_gateway.files.rights_steps import Steps, play


def test_everybody_keeps_to_his_rights(tmp_path: Path) -> None:
    several(range(30), tmp_path, steps=100)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 21_000, 1000))
def test_it_is_so_for_long(first: int, tmp_path: Path) -> None:
    several(range(first, first + 1000), tmp_path, steps=150)


def several(seeds: range, folder: Path, *, steps: int) -> None:
    logging.getLogger("sftp_gateway").setLevel(logging.CRITICAL)
    for seed in seeds:
        play(Steps(folder / str(seed), seed), seed, steps)
