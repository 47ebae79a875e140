"""What tests of stores have in common whose folder other processes share."""

from __future__ import annotations

from pathlib import Path

from fs.base import FS

from sftp_gateway.files.draft import Draft
from sftp_gateway.files.store import Store
from sftp_gateway.files.tree import TreeLimits
from tests.sftp_gateway.raw_client import C, T, W

CONTENT = bytes(range(256)) * 400


def sharing(storage: FS, folder: Path) -> Store:
    """Return a process's store over a storage, whose folder other processes share."""
    return Store(storage, spool_directory=folder, limits=TreeLimits(shared=True))


def written(store: Store, path: str, session: object, handle: object) -> Draft:
    draft = store.open_for_writing(path, W | C | T, session, handle)
    draft.write(0, CONTENT[:1001])
    return draft
