"""`Arrivals`: what has arrived in the storage most recently, a table of the journal that all processes read."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable
from typing import Final, NamedTuple

from sftp_gateway.write_back.journal_file import JournalFile

KEPT: Final = 10_000


class Arrival(NamedTuple):
    """Something that was pending and is in the storage now. Numbers have no gaps."""

    number: int
    path: str
    is_foreign: bool  # recorded by another process that has the journal open


class Arrivals:
    """Owned by a `Journal`, with whose file it is thread-safe and shared by processes. Raises sqlite3.Error."""

    def __init__(self, file: JournalFile) -> None:
        self._file = file
        self._origin = secrets.token_hex(8)

    def latest(self) -> int:
        """Return the number of the latest, 0 if there was none."""
        return int(self._file.select("SELECT coalesce(max(id), 0) FROM arrivals")[0][0])

    def since(self, number: int) -> list[Arrival]:
        """Return those after this number, in order, as far as they are still kept."""
        found = "SELECT id, path, origin != ? FROM arrivals WHERE id > ? ORDER BY id"
        return [Arrival(*row) for row in self._file.select(found, self._origin, number)]

    def note(self, db: sqlite3.Connection, paths: Iterable[str]) -> None:
        """Record what has arrived, in the transaction in which it stops being pending."""
        rows = [(path, self._origin) for path in paths]
        db.executemany("INSERT INTO arrivals (path, origin) VALUES (?, ?)", rows)
        db.execute("DELETE FROM arrivals WHERE id <= (SELECT max(id) FROM arrivals) - ?", (KEPT,))
