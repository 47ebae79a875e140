"""A gateway with little room for unfinished uploads, over a storage that tells what it has of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sftp_gateway.files import pace
from sftp_gateway.files.tree import TreeLimits
from tests.sftp_gateway.files.short_of_room.telling_fs import MIB, QUOTA, TellingFS
from tests.sftp_gateway.without_doors import Serving


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "THIN_BYTES", MIB)


@pytest.fixture
def storage() -> TellingFS:
    return TellingFS()


@pytest.fixture
def serving(storage: TellingFS, tmp_path: Path) -> Iterator[Serving]:
    made = Serving(storage, tmp_path, limits=TreeLimits(spool_quota=QUOTA))
    yield made
    made.close()
