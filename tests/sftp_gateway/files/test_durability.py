"""What is acknowledged is synced first: it survives a crash of the machine, as far as its disk keeps what is synced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sftp_gateway.files.spool import Quota, Spool
from sftp_gateway.ssh.hostkey import create_private_file
from sftp_gateway.write_back.journal import Journal
from sftp_gateway.write_back.journal_rows import NewFile

FULL = 2  # of SQLite's `synchronous`: a transaction is on the disk before it counts as committed

Syncs = list[tuple[Path, int]]


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    """What was synced since, in order: files with the size that they had, folders with 0."""
    synced: Syncs = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append((path, 0 if path.is_dir() else os.fstat(descriptor).st_size))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return synced


def _begun(folder: Path) -> Journal:
    return Journal(folder)


def _taken_up(folder: Path) -> Journal:
    Journal(folder).close()
    return Journal(folder)


def _looked_into(folder: Path) -> Journal:
    Journal(folder).close()
    return Journal(folder, create=False)


@pytest.mark.parametrize("opened", [_begun, _taken_up, _looked_into])
def test_the_journal_syncs_what_it_commits(tmp_path: Path, opened: Callable[[Path], Journal]) -> None:
    journal = opened(tmp_path / "journal")
    try:
        for connection in (journal._file._writer, journal._file._reader):
            assert connection.execute("PRAGMA synchronous").fetchone() == (FULL,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        journal.close()


def test_a_large_content_is_synced_before_the_journal_names_it(tmp_path: Path, syncs: Syncs) -> None:
    journal = Journal(tmp_path / "journal")
    try:
        content = journal.vault.write(memory_limit=100)
        content.write(bytes(60))
        content.write(bytes(60))
        change = journal._file.change
        before: list[Syncs] = []
        journal._file.change = lambda work: (before.append(list(syncs)), change(work))[1]
        journal.put(NewFile("/f", 0, "replace"), content, quota=1000)
        folder = journal.vault.directory
        assert content.name is not None
        assert (folder / content.name, 120) in before[0]
        assert (folder, 0) in before[0], "its name may be lost"
        assert journal.all()[0].file == content.name
    finally:
        journal.close()


def test_fsync_of_an_upload_syncs_all_that_has_come(tmp_path: Path, syncs: Syncs) -> None:
    spool = Spool(tmp_path, Quota(1000), memory_limit=100)
    spool.write(0, b"in memory so far")
    spool.sync()
    assert spool.path is not None
    assert syncs == [(spool.path, 16)]
    spool.write(16, b", and on disk")
    spool.sync()
    assert syncs[1:] == [(spool.path, 29)]
    spool.close()


def test_a_host_key_has_its_name_once_it_is_on_the_disk(
    tmp_path: Path, syncs: Syncs, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link
    before: list[Syncs] = []
    monkeypatch.setattr(os, "link", lambda *names: (before.append(list(syncs)), link(*names)))
    create_private_file(tmp_path / "key", b"a key")
    assert [size for _, size in before[0]] == [5]
    assert (tmp_path / "key").read_bytes() == b"a key"
