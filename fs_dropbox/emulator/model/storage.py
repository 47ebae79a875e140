"""Keeps the emulator's documents in SQLite, so that they survive a restart and kill -9. Knows no meaning of them."""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from fs_dropbox.emulator.model.tree import Change

Document = dict[str, Any]

# WAL: what is committed is in the system's hands, so it survives the death of the process at any moment.
SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS documents (kind TEXT, key TEXT, value TEXT, PRIMARY KEY (kind, key));
CREATE TABLE IF NOT EXISTS changes (sequence INTEGER, namespace TEXT, path TEXT, deleted TEXT);
CREATE INDEX IF NOT EXISTS changes_order ON changes (namespace, sequence);
"""

# For what was kept before the order in which documents are made was.
IN_ORDER = """
BEGIN;
CREATE TABLE ordered (kind TEXT, key TEXT, value TEXT, PRIMARY KEY (kind, key));
INSERT INTO ordered SELECT kind, key, value FROM documents;
DROP TABLE documents;
ALTER TABLE ordered RENAME TO documents;
COMMIT;
"""

PUT = "INSERT INTO documents VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
FORGET = "DELETE FROM changes WHERE namespace = ? AND sequence <= ?"


class Storage:
    """Collects writes until flush(), which makes them durable together. Guarded by the State's lock.

    Without a path nothing is stored: put() and the others cost next to nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._database: sqlite3.Connection | None = None
        self._puts: dict[tuple[str, str], Callable[[], Document] | None] = {}
        self._changes: list[tuple[int, str, str, str | None]] = []
        self._forgotten: dict[str, int] = {}
        if path is not None:
            try:
                self._database = _open(path)
            except sqlite3.Error as error:
                raise OSError(errno.EIO, f"cannot use the database: {error}", str(path)) from error

    @property
    def is_durable(self) -> bool:
        """Tell whether anything is stored at all."""
        return self._database is not None

    def put(self, kind: str, key: str, document: Callable[[], Document]) -> None:
        """Store a document with the next flush; it is asked for its contents only then."""
        if self._database is not None:
            self._puts[kind, key] = document

    def delete(self, kind: str, key: str) -> None:
        """Remove a document with the next flush."""
        if self._database is not None:
            self._puts[kind, key] = None

    def append_change(self, namespace_id: str, change: Change) -> None:
        """Store a journal record with the next flush."""
        if self._database is not None:
            self._changes.append((change.sequence, namespace_id, change.key_path, change.deleted_display))

    def forget_changes(self, namespace_id: str, sequence: int) -> None:
        """Remove the journal records up to this one with the next flush."""
        if self._database is not None:
            self._forgotten[namespace_id] = sequence

    def flush(self) -> None:
        """Write what was collected, all of it or nothing."""
        if self._database is None or not (self._puts or self._changes):
            return
        rows = []
        gone = []
        for (kind, key), document in self._puts.items():
            if document is None:
                gone.append((kind, key))
            else:
                rows.append((kind, key, json.dumps(document(), separators=(",", ":"))))
        with self._database:  # rolled back where it fails, so that the next flush can write it all
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(PUT, rows)
            self._database.executemany("DELETE FROM documents WHERE kind = ? AND key = ?", gone)
            self._database.executemany("INSERT INTO changes VALUES (?, ?, ?, ?)", self._changes)
            self._database.executemany(FORGET, self._forgotten.items())
        self._puts.clear()
        self._changes.clear()
        self._forgotten.clear()

    def load(self, kind: str) -> Iterator[tuple[str, Document]]:
        """Yield all documents of a kind, in the order in which they were made: the first account stays the first."""
        if self._database is not None:
            query = "SELECT key, value FROM documents WHERE kind = ? ORDER BY rowid"
            for key, value in self._database.execute(query, (kind,)):
                yield key, json.loads(value)

    def load_changes(self) -> Iterator[tuple[str, Change]]:
        """Yield all journal records with their namespaces, in order."""
        if self._database is not None:
            query = "SELECT namespace, sequence, path, deleted FROM changes ORDER BY sequence"
            for namespace_id, sequence, path, deleted in self._database.execute(query):
                yield namespace_id, Change(sequence, path, deleted)

    def close(self) -> None:
        """Write the rest and close the database."""
        if self._database is not None:
            self.flush()
            self._database.close()
            self._database = None


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        database.executescript(SCHEMA)
        (made_by,) = database.execute("SELECT sql FROM sqlite_master WHERE name = 'documents'").fetchone()
        if "WITHOUT ROWID" in made_by:
            database.executescript(IN_ORDER)
    except sqlite3.Error:
        database.close()
        raise
    return database


class Collection(MutableMapping[str, Document]):
    """A table of JSON documents that is stored as it changes: for what further modules keep (links, requests…).

    Use it inside State.mutation(). A document is replaced as a whole: assign it again after changing it.
    """

    def __init__(self, storage: Storage, kind: str) -> None:
        self._storage = storage
        self._kind = kind
        self._documents = dict(storage.load(kind))

    def __getitem__(self, key: str) -> Document:
        return self._documents[key]

    def __setitem__(self, key: str, document: Document) -> None:
        self._documents[key] = document
        self._storage.put(self._kind, key, lambda: document)

    def __delitem__(self, key: str) -> None:
        del self._documents[key]
        self._storage.delete(self._kind, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._documents)

    def __len__(self) -> int:
        return len(self._documents)
