"""What was once stored wrongly, or could not be read as it was written, whatever else happened at that moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fs.memoryfs import MemoryFS

from sftp_gateway.files import draft as drafts
from sftp_gateway.files import forwarding, plain_upload, stream
from sftp_gateway.files.store import Store, TreeLimits
from sftp_gateway.sftp.packets import OpenFlag
from sftp_gateway.sftp.status import RefusedError
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.waiting import eventually

NEW = OpenFlag.WRITE | OpenFlag.CREAT | OpenFlag.TRUNC


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "STREAM_FROM_BYTES", 20)
    for module in (drafts, stream, plain_upload):
        monkeypatch.setattr(module, "PIECE_BYTES", 10)


@pytest.fixture
def filesystem() -> AtomicFS:
    return AtomicFS()


@pytest.fixture
def store(filesystem: AtomicFS, tmp_path: Path) -> Iterator[Store]:
    store = Store(filesystem, spool_directory=tmp_path / "spool", limits=TreeLimits())
    yield store
    store.close()
    assert store.quota.used == 0


def test_who_ends_amid_a_commit_stores_no_part(store: Store, filesystem: AtomicFS) -> None:
    """What is kept to be continued is less than what is being stored."""
    handle, told = object(), list[Exception]()
    draft = store.open_for_writing("/f", NEW, "session", handle)
    draft.write(0, b"x" * 7)
    draft.truncate(50)

    def commit() -> None:
        try:
            store.commit(draft, handle)
        except RefusedError as error:
            told.append(error)

    thread = threading.Thread(target=commit)
    with filesystem.stalled("write", "/f"):
        thread.start()
        eventually(lambda: filesystem.happened("write"))
        store.close()
    thread.join()
    assert told
    assert not filesystem.exists("/f")


def test_who_ends_amid_a_plain_commit_tells_of_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(MemoryFS(), spool_directory=tmp_path, limits=TreeLimits())
    handle = object()
    draft = store.open_for_writing("/f", NEW, "session", handle)
    draft.write(0, b"x" * 50)
    read = draft.read

    def ends(offset: int, size: int) -> bytes:
        if offset == 30:
            assert draft.keep()
        return read(offset, size)

    monkeypatch.setattr(draft, "read", ends)
    with pytest.raises(RefusedError):
        store.commit(draft, handle)
    store.close()
