"""Uploads into a local folder without a session, and what happens amid them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

from sftp_gateway.files.draft import Draft
from sftp_gateway.files.store import Store
from sftp_gateway.files.storing import Storing
from sftp_gateway.files.stream import PIECE_BYTES
from tests.sftp_gateway.raw_client import C, T, W

OLD, NEW = b"old" * 100, bytes(range(256)) * (PIECE_BYTES // 128)
KILLED = """
import os, signal, sys
from fs.osfs import OSFS
from sftp_gateway.files.store import TreeLimits
from tests.sftp_gateway.files.local.uploading import *
from tests.sftp_gateway.raw_client import X
home, limits = Path(sys.argv[1]), TreeLimits(spool_memory=int(sys.argv[2]))
store = Store(OSFS(str(home)), spool_directory=home.parent / "killed", limits=limits)
with amid_each_close(lambda: os.kill(os.getpid(), signal.SIGKILL)):
    put(store, "/f", NEW)
"""


def put(store: Store, path: str, content: bytes, flags: int = W | C | T, *, modified: float | None = None) -> None:
    handle = object()
    draft = store.open_for_writing(path, flags, None, handle)
    draft.write(0, content)
    draft.modified = modified
    store.commit(draft, handle)


@contextlib.contextmanager
def amid_each_close(act: Callable[[], object]) -> Iterator[None]:
    """Do something before the second piece of a file is stored, or the file is moved."""
    piece, give = Storing._piece, Draft.give

    def acting(storing: Storing, offset: int, size: int) -> bytes:
        if offset:
            act()
        return piece(storing, offset, size)

    def giving(draft: Draft, size: int, move: Callable[[int, Path], bool]) -> bool:
        return give(draft, size, lambda descriptor, path: (act(), move(descriptor, path))[1])

    with patch.object(Storing, "_piece", acting), patch.object(Draft, "give", giving):
        yield


@contextlib.contextmanager
def after_each_move(act: Callable[[], object]) -> Iterator[None]:
    """Do something as soon as a file was moved."""
    give = Draft.give

    def giving(draft: Draft, size: int, move: Callable[[int, Path], bool]) -> bool:
        return give(draft, size, lambda descriptor, path: (move(descriptor, path), act())[0])

    with patch.object(Draft, "give", giving):
        yield


def run_and_kill(script: str, home: Path, *, spool_memory: int) -> None:
    """Run a script that ends itself with `kill -9`."""
    command = [sys.executable, "-c", script, str(home), str(spool_memory)]
    done = subprocess.run(command, cwd=Path.cwd(), timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


def contents(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.iterdir()}
