from __future__ import annotations

from collections.abc import Iterator

import pytest

from fs_dropbox.emulator import Emulator
from fs_dropbox.fsspec_adapter.filesystem import DropboxFileSystem
from tests.fs_dropbox.accounts import access_to


@pytest.fixture
def dropbox(emulator: Emulator) -> Iterator[DropboxFileSystem]:
    yield DropboxFileSystem(**access_to(emulator))
    DropboxFileSystem.clear_instance_cache()
