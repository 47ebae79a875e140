"""The journal's own rules: what is staged keeps its place, and journals of the previous version are taken over."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from fs import errors

from sftp_gateway.files.folding import fold_path
from sftp_gateway.write_back.journal import Journal
from sftp_gateway.write_back.journal_file import FILE_NAME, VERSION, _Change
from sftp_gateway.write_back.journal_rows import BeingSentError, ConflictError, Mode, NewFile, Outcome
from tests.sftp_gateway.write_back.remote_fs import RemoteFS, WriteBack

# What the first version wrote; its columns are those of `files` before `staged`.
FIRST_VERSION = (
    "PRAGMA auto_vacuum = INCREMENTAL",
    "PRAGMA journal_mode = WAL",
    """CREATE TABLE files (id INTEGER PRIMARY KEY AUTOINCREMENT, turn INTEGER NOT NULL, key TEXT NOT NULL,
        path TEXT NOT NULL, size INTEGER NOT NULL, modified INTEGER NOT NULL, mode TEXT NOT NULL, expected TEXT,
        fresh INTEGER NOT NULL, file TEXT, state TEXT NOT NULL DEFAULT 'pending', hidden INTEGER NOT NULL DEFAULT 0,
        hurried INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, not_before REAL NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '', acknowledged REAL NOT NULL)""",
    "CREATE INDEX files_by_key ON files (key, turn)",
    "CREATE TABLE contents (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL)",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value)",
    "INSERT INTO facts VALUES ('turn', 2), ('bytes', 0), ('note users', 'ann')",
    """CREATE TRIGGER file_added AFTER INSERT ON files BEGIN
        UPDATE facts SET value = value + new.size WHERE name = 'bytes'; END""",
    """CREATE TRIGGER file_gone AFTER DELETE ON files BEGIN
        UPDATE facts SET value = value - old.size WHERE name = 'bytes'; DELETE FROM contents WHERE id = old.id; END""",
    "PRAGMA user_version = 1",
    """INSERT INTO files (turn, key, path, size, modified, mode, fresh, state, acknowledged) VALUES
        (1, '/waits', '/Waits', 3, 1600000000, 'replace', 1, 'pending', 1600000000.5),
        (2, '/sent', '/sent', 4, 1600000000, 'create', 1, 'sending', 1600000000.5)""",
    "INSERT INTO contents VALUES (1, x'313233'), (2, x'73656E74')",
)

# What the second one added.
SECOND_VERSION = ("ALTER TABLE files ADD COLUMN staged TEXT", "PRAGMA user_version = 2")

# What the third one added.
THIRD_VERSION = (
    """CREATE TABLE folders (key TEXT PRIMARY KEY, path TEXT NOT NULL, fresh INTEGER NOT NULL DEFAULT 1,
        state TEXT NOT NULL DEFAULT 'pending', hurried INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,
        not_before REAL NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '', acknowledged REAL NOT NULL
        ) WITHOUT ROWID""",
    "PRAGMA user_version = 3",
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal(tmp_path, fold=fold_path)) as opened:
        yield opened


def add(
    journal: Journal, content: bytes, mode: Mode = "replace", *, path: str = "/f", replaces: int | None = None
) -> int:
    data = journal.vault.write(memory_limit=1000)
    data.write(content)
    expected = "rev" if mode == "update" else None
    return journal.put(NewFile(path, 1_600_000_000, mode, expected, True, replaces), data, quota=10**6)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_journal_of_an_earlier_version_is_delivered(tmp_path: Path, version: int) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as db:
        for statements in (FIRST_VERSION, SECOND_VERSION, THIRD_VERSION)[:version]:
            for statement in statements:
                db.execute(statement)
    with contextlib.closing(Journal(folder)) as first, contextlib.closing(Journal(folder)) as second:
        assert [(each.path, each.state, each.staged) for each in second.all()] == [
            ("/Waits", "pending", None),
            ("/sent", "sending", None),
        ]
        assert first.noted("users") == "ann"
        assert first.used == 7
        first.note_staged({1: "token"})
        assert [each.staged for each in second.all()] == ["token", None]
        first.note_staged({1: None})
    with contextlib.closing(sqlite3.connect(folder / FILE_NAME)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
    filesystem = RemoteFS()
    serving = WriteBack(filesystem, tmp_path)
    try:
        serving.settled()
    finally:
        serving.close()
    assert (filesystem.readbytes("/Waits"), filesystem.readbytes("/sent")) == (b"123", b"sent")


def test_what_is_staged_stays_so_until_its_outcome_is_known(journal: Journal) -> None:
    number = add(journal, b"1")
    (sent,) = journal.send(journal.all())
    journal.note_staged({number: "token"})
    journal.recover()
    (found,) = journal.all()
    assert (found.id, found.state, found.staged, found.fresh) == (sent.id, "pending", "token", False)
    assert not journal.discard("/f", committed=False), "the storage may have it at any moment"
    assert not journal.rename("/f", "/g", replace=True, occupied=False, committed=False)
    journal.settle([Outcome(number, "no network", retry_at=0.0)])
    assert [each.staged for each in journal.all()] == ["token"]
    journal.settle([Outcome(number)])
    assert journal.all() == []


def test_what_may_be_stored_at_any_moment_is_not_replaced_in_the_journal(journal: Journal) -> None:
    """It would come after its successor, should it be stored late."""
    number = add(journal, b"1")
    journal.note_staged({number: "token"})
    later = add(journal, b"1 and more", replaces=number)
    assert [(each.id, each.staged) for each in journal.all()] == [(number, "token"), (later, None)]
    assert [each.id for each in journal.due(1e12, -1, limit=10)] == [number]
    assert add(journal, b"again", replaces=later) > later, "this one has not left"
    assert len(journal.all()) == 2


@pytest.mark.parametrize("mode", ["create", "update"])
def test_a_change_of_what_may_be_stored_over_one_version_waits(journal: Journal, mode: Mode) -> None:
    number = add(journal, b"1", mode)
    journal.note_staged({number: "token"})
    with pytest.raises(BeingSentError):
        add(journal, b"2", mode, replaces=number)


@pytest.mark.parametrize("mode", ["create", "update"])
def test_what_was_acknowledged_a_moment_ago_is_not_overwritten(journal: Journal, mode: Mode) -> None:
    """Another process may have done so since somebody looked."""
    add(journal, b"1")
    with pytest.raises(ConflictError):
        add(journal, b"2", mode)
    assert [each.size for each in journal.all()] == [1]
    assert journal.used == 1


@pytest.mark.parametrize("part", ["staged", "sending"])
def test_a_time_comes_too_late_once_the_storage_has_a_part_in_it(journal: Journal, part: str) -> None:
    number = add(journal, b"1")
    journal.set_modified("/f", 1_500_000_000)
    if part == "staged":
        journal.note_staged({number: "token"})
    else:
        journal.send(journal.all())
    journal.set_modified("/f", 1_400_000_000)
    assert [each.modified for each in journal.all()] == [1_500_000_000]


@pytest.mark.parametrize("how", ["failed", "put_back", "recover"])
def test_a_directory_that_may_be_there_is_not_dropped_in_the_journal_alone(journal: Journal, how: str) -> None:
    """What was asked for may have been done, although the answer was an error, or nobody heard it."""
    journal.directories.add("/d")
    (making,) = journal.directories.send(journal.directories.all())
    with pytest.raises(BeingSentError):
        journal.directories.discard("/d")
    if how == "failed":
        journal.directories.failed(making.key, "no network", 0.0)
    elif how == "put_back":
        journal.directories.put_back([making])
    else:
        journal.directories.recover()
    assert not journal.directories.discard("/d")
    assert [each.path for each in journal.directories.all()] == ["/d"]


def test_a_directory_is_left_to_the_files_on_their_way_into_it(journal: Journal) -> None:
    journal.directories.add("/d")
    data = journal.vault.write(memory_limit=1000)
    number = journal.put(NewFile("/d/f", 1_600_000_000, "replace"), data, quota=10**6)
    assert journal.directories.due(1e12, quiet_seconds=0.0, limit=10) == ([], None)
    journal.settle([Outcome(number, "refused", permanent=True)])
    (due,), _ = journal.directories.due(1e12, quiet_seconds=0.0, limit=10)
    assert due.path == "/d"


def test_what_waits_where_something_was_stored_meanwhile_is_not_dropped_in_the_journal_alone(journal: Journal) -> None:
    """Another process has recorded it while a file that waits for nothing was being stored there."""
    add(journal, b"content")
    journal.hide_failed("/f")
    assert [(pending.hidden, pending.fresh) for pending in journal.all()] == [(False, False)]
    assert not journal.discard("/f", committed=False), "what was stored would be there still"


def test_an_exclusive_creation_stays_one_with_its_name_in_another_case(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path, fold=str.lower)) as journal:
        add(journal, b"content", "create")
        assert journal.rename("/f", "/F", replace=True, occupied=False, committed=False)
        assert [(pending.path, pending.mode) for pending in journal.all()] == [("/F", "create")]


def test_a_directory_above_one_that_is_being_made_may_be_there_too(journal: Journal) -> None:
    for path in ("/d", "/d/e"):
        journal.directories.add(path)
    (inner,) = journal.directories.send(journal.directories.all()[1:])
    assert [each.fresh for each in journal.directories.all()] == [False, False]
    journal.directories.dropped(inner.key)
    assert not journal.directories.discard("/d"), "it would stay in the storage"


def test_a_directory_that_is_newer_than_what_arrived_in_one_of_its_name_is_still_made(journal: Journal) -> None:
    """Others may have removed that one since, with all that was in it."""
    data = journal.vault.write(memory_limit=1000)
    number = journal.put(NewFile("/d/f", 1, "replace"), data, quota=10**6)
    journal.directories.add("/d")
    journal.settle([Outcome(number)])
    assert journal.directories.find("/d") is not None


def test_what_has_failed_overtakes_nothing_when_it_is_tried_again(journal: Journal) -> None:
    """Over what has its name by now it is delivered on demand alone, and then as the latest."""
    first = add(journal, b"1")
    journal.settle([Outcome(first, "refused", permanent=True)])
    second = add(journal, b"2")
    assert not journal.retry(first, replace=False)
    assert [(each.id, each.state) for each in journal.all()] == [(first, "failed"), (second, "pending")]
    assert journal.retry(first, replace=True)
    assert [(each.id, each.state, each.fresh) for each in journal.all()] == [
        (second, "pending", True),
        (first, "pending", False),  # the storage may have something there by now
    ]
    assert [each.id for each in journal.due(1e12, -1, limit=10)] == [second]


def test_of_versions_that_were_renamed_the_later_ones_come_over_what_the_first_has_left(journal: Journal) -> None:
    first, later = add(journal, b"1"), add(journal, b"2")
    assert journal.rename("/f", "/g", replace=False, occupied=False, committed=False)
    assert [(each.id, each.path, each.fresh) for each in journal.all()] == [(first, "/g", True), (later, "/g", False)]
    journal.settle([Outcome(first)])
    assert not journal.discard("/g", committed=False), "the storage has the first"
    assert not journal.rename("/g", "/h", replace=True, occupied=False, committed=False)


@pytest.mark.parametrize("change", ["rename", "time", "discard"])
def test_what_has_changed_since_it_was_chosen_is_not_sent_as_it_was(journal: Journal, change: str) -> None:
    number = add(journal, b"1")
    chosen = journal.due(1e12, -1, limit=10)
    if change == "rename":
        assert journal.rename("/f", "/g", replace=False, occupied=False, committed=False)
    elif change == "time":
        journal.set_modified("/f", 1_700_000_000)
    else:
        assert journal.discard("/f", committed=False)
    assert journal.send(chosen) == []
    assert [(each.id, each.state) for each in journal.all()] == ([] if change == "discard" else [(number, "pending")])


def test_a_changed_copy_does_not_replace_what_came_after_its_original(journal: Journal) -> None:
    original, later = add(journal, b"1"), add(journal, b"2")
    assert [each.fresh for each in journal.all()] == [True, False], "the storage may have the first by then"
    with pytest.raises(ConflictError):
        add(journal, b"1 and more", replaces=original)
    assert [each.id for each in journal.all()] == [original, later]


def test_the_case_of_what_has_failed_counts_no_more(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path, fold=str.lower)) as journal:
        for path, shown in (("/Name", "/Name"), ("/NAME", "/Name"), ("/name", "/name")):
            data = journal.vault.write(memory_limit=1000)
            number = journal.put(NewFile(path, 1_600_000_000, "replace"), data, quota=10**6)
            assert journal.get(number).path == shown  # type: ignore[union-attr]
            if path != "/Name":
                journal.settle([Outcome(each.id, "refused", permanent=True) for each in journal.all()])


def test_what_fails_while_something_later_has_its_name_is_not_shown(journal: Journal) -> None:
    first, later = add(journal, b"1"), add(journal, b"2")
    journal.settle([Outcome(first, "refused", permanent=True)])
    journal.settle([Outcome(later)])
    assert journal.find("/f") is None
    assert [(each.id, each.failed) for each in journal.all()] == [(first, True)], "it is reported all the same"


def test_a_recorded_content_is_let_go_of(journal: Journal) -> None:
    content = journal.vault.write(memory_limit=10)
    content.write(bytes(100))
    descriptor = content._descriptor
    assert descriptor >= 0
    journal.put(NewFile("/f", 0, "replace"), content, quota=1000)
    assert content._descriptor == -1
    assert content.memory is None


@pytest.mark.parametrize("there", ["pending", "stored"])
def test_a_rename_that_replaces_nothing_is_exact(journal: Journal, there: str) -> None:
    """Whoever asked for it has looked before; meanwhile something may have come."""
    add(journal, b"content")
    if there == "pending":
        add(journal, b"content", path="/G")
    before = journal.all()
    with pytest.raises(ConflictError):
        journal.rename("/f", "/g", replace=False, occupied=there == "stored", committed=False)
    assert journal.all() == before
    assert journal.rename("/f", "/F", replace=False, occupied=False, committed=False)
    assert journal.rename("/f", "/g", replace=True, occupied=there == "stored", committed=False)


@pytest.mark.parametrize("how", ["put_back", "recover", "staged"])
def test_what_was_on_its_way_may_have_arrived(journal: Journal, how: str) -> None:
    """So a rename or removal of it is the storage's, too."""
    number = add(journal, b"content")
    assert journal.all()[0].fresh
    sending = journal.send(journal.all())
    if how == "put_back":
        journal.put_back(sending)
    elif how == "recover":
        journal.recover()
    else:
        journal.note_staged({number: "token"})
    (pending,) = journal.all()
    assert not pending.fresh
    assert pending.state == ("sending" if how == "staged" else "pending")


@pytest.mark.parametrize("how", ["put_back", "recover"])
def test_a_directory_that_was_being_made_may_be_there(journal: Journal, how: str) -> None:
    journal.directories.add("/d")
    sending = journal.directories.send(journal.directories.all())
    assert [each.state for each in journal.directories.all()] == ["sending"]
    if how == "put_back":
        journal.directories.put_back(sending)
    else:
        journal.recover()
    (folder,) = journal.directories.all()
    assert (folder.state, folder.fresh) == ("pending", False)
    assert not journal.directories.discard("/d"), "it would stay in the storage"


def test_a_change_that_fails_takes_no_other_with_it(journal: Journal) -> None:
    """Several changes share a commit: each is done as a whole or not at all."""

    def note(name: str, *, fails: bool = False) -> _Change[int]:
        def work(db: sqlite3.Connection) -> int:
            db.execute("INSERT INTO facts VALUES (?, 1)", (name,))
            if fails:
                raise errors.ResourceError("/f")
            return 7

        return _Change(work)

    changes = [note("first"), note("second", fails=True), note("third")]
    journal._file._commit(list(changes))
    assert [type(each.error) for each in changes] == [type(None), errors.ResourceError, type(None)]
    assert [each.done for each in changes] == [True] * 3
    noted = journal._file.select("SELECT name FROM facts WHERE name IN ('first', 'second', 'third') ORDER BY name")
    assert noted == [("first",), ("third",)]
