"""What waits in all journals together, without reading them over and over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sftp_gateway.write_back import journals
from sftp_gateway.write_back.between import WriteBackLimits
from sftp_gateway.write_back.filesystem import WriteBackFS
from sftp_gateway.write_back.journal import Journal
from sftp_gateway.write_back.journal_file import FILE_NAME, JournalError
from sftp_gateway.write_back.journal_rows import NewFile, Totals
from sftp_gateway.write_back.journals import Journals
from tests.sftp_gateway.write_back.remote_fs import RemoteFS
from tests.waiting import eventually


@pytest.fixture
def every(tmp_path: Path) -> Journals:
    return Journals(tmp_path, limits=WriteBackLimits(), users_of=lambda _: [], digest=str)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal(tmp_path / "key")) as opened:
        yield opened


def add(journal: Journal, path: str) -> int:
    data = journal.vault.write(memory_limit=1000)
    data.write(b"content")
    return journal.put(NewFile(path, 0, "replace", fresh=True), data, quota=10**6)


def test_journals_that_do_not_change_are_read_once(
    every: Journals, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    look_into = journals.look_into

    def count(directory: Path) -> Totals | None:
        looked.append(directory)
        return look_into(directory)

    def is_known() -> bool:
        """Tell whether a look costs nothing: once the last change is older than a tick of the file system's clock."""
        looked.clear()
        every.totals()
        return not looked

    monkeypatch.setattr(journals, "look_into", count)
    assert not every.waits("key")
    add(journal, "/one")
    eventually(is_known, "it is read again and again")
    for _ in range(100):
        assert every.totals().waiting == 1
        assert every.waits("key")
    assert not looked


def test_each_change_of_a_journal_is_seen_at_once(every: Journals, journal: Journal) -> None:
    for number in range(50):
        add(journal, f"/{number}")
        assert every.totals().waiting == number + 1
    assert every.waits("key")
    for pending in journal.all():
        assert journal.discard(pending.path, committed=False)
    assert every.totals() == Totals()
    assert not every.waits("key")
    assert not every.waits("another")


def test_what_changes_within_one_tick_of_the_clock_is_seen(
    every: Journals, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes that follow each other at once leave the same time and size."""
    monkeypatch.setattr(journals, "TICK_NANOSECONDS", 3600 * 10**9)
    now = time.time_ns()
    monkeypatch.setattr(journals, "_stamp", lambda _: ((now, 1),))
    assert not every.waits("key")
    add(journal, "/one")
    assert every.waits("key")


class OfAccount(RemoteFS):
    def getmeta(self, namespace: str = "standard") -> Any:
        return {"id": "dbid:one"} if namespace == "account" else super().getmeta(namespace)


@pytest.mark.parametrize("noted", ["", "digest of account dbid:one", "digest of account dbid:another"])
def test_a_journal_is_used_unless_it_is_known_to_be_of_another_account(
    tmp_path: Path, journal: Journal, noted: str
) -> None:
    """A journal of an earlier version does not say whose it is."""
    add(journal, "/waits")
    if noted:
        journal.note("account", noted)
    journals = Journals(
        tmp_path, limits=WriteBackLimits(), users_of=lambda _: ["ann"], digest=lambda text: f"digest of {text}"
    )
    wrapped = journals.wrap("key", "mem://", OfAccount())
    is_anothers = "another" in noted
    assert isinstance(wrapped, WriteBackFS) != is_anothers
    if is_anothers:
        assert not journals.waits("key")
        assert journals.totals().waiting == 1
    assert journal.noted("account") == (noted or "digest of account dbid:one")
    assert bool(journal.noted("held")) == is_anothers
    wrapped.close()


def test_an_empty_journal_is_anybodys(tmp_path: Path, journal: Journal) -> None:
    journal.note("account", "another")
    journals = Journals(tmp_path, limits=WriteBackLimits(), users_of=lambda _: ["ann"], digest=str)
    wrapped = journals.wrap("key", "mem://", OfAccount())
    assert isinstance(wrapped, WriteBackFS)
    assert journal.noted("account") == "account dbid:one"
    wrapped.close()


def test_a_damaged_journal_is_not_used_and_what_waits_in_it_is_counted(tmp_path: Path) -> None:
    """To read all of a journal takes long; how much waits is asked for at each of its changes."""
    with contextlib.closing(Journal(tmp_path / "key")) as journal:
        data = journal.vault.write(memory_limit=100_000)
        data.write(b"Z" * 50_000)
        journal.put(NewFile("/file", 0, "replace", fresh=True), data, quota=10**6)
    file = tmp_path / "key" / FILE_NAME
    content = bytearray(file.read_bytes())
    page = content.index(b"Z" * 4000) // 4096 * 4096 + 4096
    content[page : page + 4096] = b"\xff" * 4096
    file.write_bytes(content)
    with pytest.raises(JournalError, match="is damaged"):
        Journal(tmp_path / "key")
    totals = journals.look_into(tmp_path / "key")
    assert totals is not None
    assert totals.waiting == 1
