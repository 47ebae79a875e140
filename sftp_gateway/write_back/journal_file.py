"""`JournalFile`: the SQLite file behind a journal: its format, its connections, commits that share one sync."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from sftp_gateway.private_directories import make_private

FILE_NAME: Final = "journal.sqlite3"
VERSION: Final = 4
_BUSY_SECONDS = 30.0
_LOOK_SECONDS = 0.1  # how often a waiter checks for changes by other processes
_WAL_PAGES = 16384  # 64 MiB: only a bound, `tidy` moves the pages long before that
_RESERVED_BYTES = 8 * 2**20  # of the log: a commit that overwrites takes half as long to sync as one that appends
_CHECKED_BYTES = 64 * 2**20  # a larger file is not read completely when it is opened

_T = TypeVar("_T")

# `turn` is the order of delivery, `key` the path with its case folded. `fresh`: the storage has nothing at the path.
# `hidden`: failed, and something later has its name. `file`: where the content is, if not in `contents`. `staged`: the
# storage has the content under this token, and may have been asked to make it visible.
_DIRECTORIES = """CREATE TABLE folders (
        key TEXT PRIMARY KEY,
        path TEXT NOT NULL,
        fresh INTEGER NOT NULL DEFAULT 1,
        state TEXT NOT NULL DEFAULT 'pending',
        hurried INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        not_before REAL NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '',
        acknowledged REAL NOT NULL
    ) WITHOUT ROWID"""
_ARRIVALS = "CREATE TABLE arrivals (id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL, origin TEXT NOT NULL)"
_SCHEMA = (
    """CREATE TABLE files (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        turn INTEGER NOT NULL,
        key TEXT NOT NULL,
        path TEXT NOT NULL,
        size INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        mode TEXT NOT NULL,
        expected TEXT,
        fresh INTEGER NOT NULL,
        file TEXT,
        state TEXT NOT NULL DEFAULT 'pending',
        hidden INTEGER NOT NULL DEFAULT 0,
        hurried INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        not_before REAL NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '',
        acknowledged REAL NOT NULL,
        staged TEXT
    )""",
    "CREATE INDEX files_by_key ON files (key, turn)",
    "CREATE TABLE contents (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL)",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value)",
    "INSERT INTO facts VALUES ('turn', 0), ('bytes', 0)",
    """CREATE TRIGGER file_added AFTER INSERT ON files BEGIN
        UPDATE facts SET value = value + new.size WHERE name = 'bytes';
    END""",
    """CREATE TRIGGER file_gone AFTER DELETE ON files BEGIN
        UPDATE facts SET value = value - old.size WHERE name = 'bytes';
        DELETE FROM contents WHERE id = old.id;
    END""",
    _DIRECTORIES,
    _ARRIVALS,
    f"PRAGMA user_version = {VERSION}",
)

_FROM_3 = (_ARRIVALS, f"PRAGMA user_version = {VERSION}")
_FROM_2 = (_DIRECTORIES, *_FROM_3)
_FROM_1 = ("ALTER TABLE files ADD COLUMN staged TEXT", *_FROM_2)


class JournalError(Exception):
    """The journal cannot be used as it is; nothing of it was changed. The text is one line."""


class _Change(Generic[_T]):
    """One change that waits for its commit."""

    def __init__(self, work: Callable[[sqlite3.Connection], _T]) -> None:
        self.work = work
        self.done = False
        self.result: _T
        self.error: BaseException | None = None


class JournalFile:
    """One SQLite file in WAL mode that only its owner can read.

    Owned by a journal; several processes may have the same file open. Thread-safe: a lock around the connection that
    writes, held over syncs of the local disk, and one around the connection that reads, which waits for no commit.
    """

    def __init__(self, directory: Path, *, create: bool, check: bool) -> None:
        """Open the file in `directory`, or begin it; with `check` all of it is read. Raises `JournalError`."""
        self.path = directory / FILE_NAME
        self._writing = threading.Lock()
        self._queued = threading.Lock()
        self._queue: list[_Change[Any]] = []  # guarded by _queued
        self._reading = threading.Lock()
        self._changed = threading.Condition()
        self._changes = 0  # guarded by _changed
        try:
            if create:
                make_private(directory)
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with contextlib.ExitStack() as opened:
                self._writer = opened.enter_context(contextlib.closing(self._connect()))
                self._prepare(self._writer, check=check)
                self._reader = opened.enter_context(contextlib.closing(self._connect()))
                if create:
                    self._reserve(self._writer)
                opened.pop_all()
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"{self.path}: cannot be used: {error}") from error

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        with self._writing, self._reading:
            self._writer.close()
            self._reader.close()

    def select(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows as they are committed."""
        with self._reading:
            return self._reader.execute(statement, values).fetchall()

    def change(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Carry out `work` in a transaction; return its result once it is on disk, or raise what it raises.

        Changes that arrive while a commit is under way share the next one.
        """
        change = _Change(work)
        with self._queued:
            self._queue.append(change)
        with self._writing:
            if not change.done:
                with self._queued:
                    batch, self._queue = self._queue, []
                self._commit(batch)
        if change.error is not None:
            raise change.error
        return change.result

    def execute(self, statement: str, *values: object) -> int:
        """Carry out a change that is one statement; return the number of rows it changed."""
        return self.change(lambda db: db.execute(statement, values).rowcount)

    def execute_many(self, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
        """Do what `execute` does with each row of values, in one change."""
        return self.change(lambda db: db.executemany(statement, rows).rowcount)

    def note(self, name: str, value: str) -> None:
        """Keep a fact about the journal as a whole."""
        if self.noted(name) != value:
            self.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", f"note {name}", value)

    def noted(self, name: str) -> str:
        """Return such a fact; "" if it was never noted."""
        rows = self.select("SELECT value FROM facts WHERE name = ?", f"note {name}")
        return str(rows[0][0]) if rows else ""

    def wait(self, done: Callable[[], _T], seconds: float) -> _T:
        """Return what `done` returns once it is true, or after `seconds`; also notices changes by other processes."""
        deadline = time.monotonic() + seconds
        while True:
            with self._changed:
                seen = self._changes
            result = done()
            left = deadline - time.monotonic()
            if result or left <= 0:
                return result
            with self._changed:
                if self._changes == seen:
                    self._changed.wait(min(left, _LOOK_SECONDS))

    def pause(self) -> None:
        """Wait for a moment, or until this process has changed something."""
        with self._changed:
            self._changed.wait(_LOOK_SECONDS)

    def tidy(self, *, is_empty: bool) -> None:
        """Move what was logged to its place, and give disk space back where nothing is left."""
        with contextlib.closing(self._connect()) as db:
            if is_empty:
                db.execute("PRAGMA incremental_vacuum").fetchall()
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # -- within

    def _commit(self, batch: list[_Change[Any]]) -> None:
        try:
            with _transaction(self._writer):
                if len(batch) == 1:
                    batch[0].result = batch[0].work(self._writer)
                else:
                    for change in batch:
                        _carry_out(self._writer, change)
        except BaseException as error:  # noqa: BLE001 - each of them learns that nothing was stored
            for change in batch:
                change.error = change.error or error
        for change in batch:
            change.done = True
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def _connect(self) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode=rw"
        db = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA synchronous = FULL")
        except BaseException:  # it is no database
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection, *, check: bool) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise sqlite3.DatabaseError(f"it was written by a later version of this program (format {version})")
        if version == 0:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            _use_wal(db)
        if version < VERSION:
            with _transaction(db):  # another process may have been quicker
                version = db.execute("PRAGMA user_version").fetchone()[0]
                for statement in {0: _SCHEMA, 1: _FROM_1, 2: _FROM_2, 3: _FROM_3}.get(version, ()):
                    db.execute(statement)
        db.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        db.execute("SELECT count(*) FROM files").fetchone()
        is_checked = check and self.path.stat().st_size <= _CHECKED_BYTES
        if is_checked and db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("it is damaged")

    def _reserve(self, db: sqlite3.Connection) -> None:
        """Have the log take its space on disk now, when nobody waits; SQLite later overwrites it from its start."""
        log = self.path.with_name(f"{FILE_NAME}-wal")
        if log.exists() and log.stat().st_size >= _RESERVED_BYTES:
            return
        db.execute("PRAGMA synchronous = OFF")
        with _transaction(db):
            db.execute("INSERT OR REPLACE INTO contents VALUES (-1, zeroblob(?))", (_RESERVED_BYTES,))
        with _transaction(db):
            db.execute("DELETE FROM contents WHERE id = -1")
        db.execute("PRAGMA synchronous = FULL")
        self.tidy(is_empty=True)


def _use_wal(db: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite itself does not wait if two processes create the same file at once."""
    for attempt in range(100):
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError:
            if attempt == 99:
                raise
            time.sleep(0.02)


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # some failures have rolled back already
            db.execute("ROLLBACK")
        raise


def _carry_out(db: sqlite3.Connection, change: _Change[Any]) -> None:
    """Do one of several changes of a transaction; one that fails is undone and leaves the others alone."""
    db.execute("SAVEPOINT change")
    try:
        change.result = change.work(db)
    except BaseException as error:  # noqa: BLE001 - raised where the change was asked for
        change.error = error
        db.execute("ROLLBACK TO change")
    db.execute("RELEASE change")
