"""Stores of two processes that share a storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sftp_gateway.files.store import Store
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.files.sharing.shared_stores import sharing


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(sharing(AtomicFS(), tmp_path)) as store:
        yield store


@pytest.fixture
def other(store: Store, tmp_path: Path) -> Iterator[Store]:
    """Another process with the same storage."""
    with closing(sharing(store.filesystem, tmp_path)) as other:
        yield other
