"""A local folder, and a store over it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fs.base import FS
from fs.osfs import OSFS

from sftp_gateway.files.store import Store, TreeLimits
from tests.sftp_gateway.files.local.uploading import OLD


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with one file, `f`."""
    home = tmp_path / "home"
    home.mkdir()
    try:
        os.close(os.open(home, os.O_TMPFILE | os.O_WRONLY))
    except OSError as error:
        pytest.skip(f"this disk has no files without a name: {error}")
    (home / "f").write_bytes(OLD)
    return home


@pytest.fixture(params=[2**30, 0], ids=["copied", "moved"])
def limits(request: pytest.FixtureRequest) -> TreeLimits:
    """Files are stored from memory, or have a file on the same disk already."""
    return TreeLimits(spool_memory=request.param)


@pytest.fixture
def filesystem(home: Path) -> FS:
    return OSFS(str(home))


@pytest.fixture
def store(filesystem: FS, tmp_path: Path, limits: TreeLimits) -> Iterator[Store]:
    store = Store(filesystem, spool_directory=tmp_path / "spool", limits=limits)
    yield store
    store.close()
    assert not [file for file in (tmp_path / "spool").glob("*") if file.is_file()]
