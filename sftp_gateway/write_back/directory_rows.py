"""`DirectoryRows`: which directories of an account were acknowledged and are not made yet; a table of its journal."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fs import errors
from fs.path import dirname, iteratepath, join, recursepath

from sftp_gateway.write_back.arrivals import Arrivals
from sftp_gateway.write_back.journal_file import JournalFile
from sftp_gateway.write_back.journal_rows import AT_OR_BELOW, BELOW, BeingSentError, by_name, span
from sftp_gateway.write_back.refusals import MAX_BACKOFF_SECONDS

_COLUMNS: Final = "path, key, fresh, state, attempts, reason, acknowledged"
_MAKE_AGAIN: Final = "UPDATE folders SET state = 'pending', fresh = 0 WHERE state = 'sending'"  # it may be there


@dataclass(frozen=True, slots=True)
class PendingDirectory:
    """A directory that is acknowledged and not made yet. `fresh`: the storage certainly has nothing there."""

    path: str
    key: str
    fresh: bool
    state: str
    attempts: int
    reason: str
    acknowledged: float


class DirectoryRows:
    """Owned by a `Journal`, with whose file it is thread-safe and shared by processes. Raises sqlite3.Error.

    A directory has a row until it is made, by itself or because a file was delivered into it.
    """

    def __init__(self, file: JournalFile, fold: Callable[[str], str], arrivals: Arrivals) -> None:
        self._file = file
        self.fold = fold
        self._arrivals = arrivals

    def find(self, path: str) -> PendingDirectory | None:
        """Return the pending directory at `path`."""
        return next(iter(self._select("key = ?", self.fold(path))), None)

    def above(self, path: str) -> PendingDirectory | None:
        """Return the deepest pending directory at or above `path`."""
        keys = _with_those_above(self.fold(path))
        deepest = f"key IN ({_places(keys)}) ORDER BY length(key) DESC LIMIT 1"
        return next(iter(self._select(deepest, *keys)), None)

    def spelled(self, path: str) -> str:
        """Return `path` with the pending directories above it spelled as they were created."""
        above = self.above(dirname(path))
        return path if above is None else join(above.path, *iteratepath(path)[len(iteratepath(above.path)) :])

    def children(self, directory: str) -> dict[str, PendingDirectory]:
        """Return the pending directories directly in a directory, by folded name."""
        first, last = self._span(directory)
        return by_name(self._select(f"{BELOW} ORDER BY key", first, last), first)

    def all(self) -> list[PendingDirectory]:
        """Return every pending directory."""
        return self._select("1 ORDER BY key")

    def are_at_or_below(self, path: str) -> bool:
        """Tell whether a directory at or below `path` is pending."""
        return bool(self._select(f"{AT_OR_BELOW} LIMIT 1", self.fold(path), *self._span(path)))

    def trouble(self, path: str) -> str:
        """Return why the last attempt to make a directory at or below `path` failed, else ""."""
        found = self._select(f"{AT_OR_BELOW} AND attempts > 0 LIMIT 1", self.fold(path), *self._span(path))
        return found[0].reason if found else ""

    # -- what users do

    def add(self, path: str) -> None:
        """Record a directory; raises `DirectoryExists` if one is pending there."""
        row = (self.spelled(path), self.fold(path), time.time())
        try:
            self._file.execute("INSERT INTO folders (path, key, acknowledged) VALUES (?, ?, ?)", *row)
        except sqlite3.IntegrityError:
            raise errors.DirectoryExists(path) from None

    def discard(self, path: str) -> bool:
        """Drop the pending directory at `path` if the storage does not have it yet; tell whether.

        Raises `DirectoryNotEmpty` if directories are pending in it, and `BeingSentError`.
        """
        key, span = self.fold(path), self._span(path)

        def work(db: sqlite3.Connection) -> bool:
            if db.execute(f"SELECT 1 FROM folders WHERE {BELOW} LIMIT 1", span).fetchone():
                raise errors.DirectoryNotEmpty(path)
            states = db.execute("SELECT state FROM folders WHERE key = ?", (key,)).fetchall()
            if states == [("sending",)]:
                raise BeingSentError
            return bool(db.execute("DELETE FROM folders WHERE key = ? AND fresh", (key,)).rowcount)

        return self._file.change(work)

    def hurry(self, path: str) -> None:
        """Have everything at or below `path` made without delay, even after failed attempts."""
        if self.are_at_or_below(path):
            hurried = f"UPDATE folders SET hurried = 1, not_before = 0, attempts = 0 WHERE {AT_OR_BELOW}"
            self._file.execute(hurried, self.fold(path), *self._span(path))

    # -- what the delivery does

    def due(self, now: float, *, quiet_seconds: float, limit: int) -> tuple[list[PendingDirectory], float | None]:
        """Return directories to be made now; and when others are due, None if there are none.

        Directories that files are on their way to are left to those; making a directory makes those above it as well.
        """
        leaves = self._file.select(
            f"SELECT {_COLUMNS}, CASE WHEN hurried OR attempts THEN not_before ELSE acknowledged + ? END AS moment"
            " FROM folders WHERE state = 'pending'"
            " AND NOT EXISTS (SELECT 1 FROM files WHERE files.key > folders.key || '/'"
            " AND files.key < folders.key || '0' AND files.state != 'failed')"
            " AND NOT EXISTS (SELECT 1 FROM folders AS inner WHERE inner.key > folders.key || '/'"
            " AND inner.key < folders.key || '0') ORDER BY moment LIMIT ?",
            *(quiet_seconds, limit),
        )
        longest = max(quiet_seconds, MAX_BACKOFF_SECONDS)  # beyond that, its time is from a clock that was ahead
        waiting = [row[-1] for row in leaves if 0 < row[-1] - now <= longest]
        return [_from_row(row[:-1]) for row in leaves if row[-1] not in waiting], min(waiting, default=None)

    def send(self, chosen: Iterable[PendingDirectory]) -> list[PendingDirectory]:
        """Mark these as being made; return those that are still pending."""

        def work(db: sqlite3.Connection) -> list[PendingDirectory]:
            taken = "UPDATE folders SET state = 'sending' WHERE key = ? AND state = 'pending'"
            making = [each for each in chosen if db.execute(taken, (each.key,)).rowcount]
            for each in making:
                _doubt(db, each.key)
            return making

        return self._file.change(work)

    def doubt(self, path: str) -> None:
        """Record, before the storage is asked to make them, that the directories at and above `path` may be there."""
        if self.above(path) is not None:
            key = self.fold(path)
            self._file.change(lambda db: _doubt(db, key))

    def made(self, path: str) -> None:
        """Record that the directory at `path` exists, and with it those above."""
        key = self.fold(path)
        self._file.change(lambda db: self.note_made(db, key))

    def note_made(self, db: sqlite3.Connection, key: str, before: float = math.inf) -> None:
        """Forget the pending directories at and above a key, as something exists there.

        Those that were acknowledged after `before` stay: the directory may have been removed in between.
        """
        _doubt(db, key)
        values = (*_with_those_above(key), before)
        where = f"FROM folders WHERE key IN ({_places(values[:-1])}) AND acknowledged <= ?"
        made = db.execute(f"SELECT path {where}", values).fetchall()
        if made:
            db.execute(f"DELETE {where}", values)
            self._arrivals.note(db, [path for (path,) in made])

    def dropped(self, key: str) -> None:
        """Forget a directory that can never be made."""
        self._file.execute("DELETE FROM folders WHERE key = ?", key)

    def failed(self, key: str, reason: str, retry_at: float) -> None:
        """Record why a directory was not made, and when to try again. It may exist all the same."""
        self._file.execute(
            "UPDATE folders SET state = 'pending', fresh = 0, attempts = attempts + 1, reason = ?,"
            " not_before = ? WHERE key = ?",
            *(reason, retry_at, key),
        )

    def put_back(self, making: Iterable[PendingDirectory]) -> None:
        """Have directories made once more if it is unknown whether they were."""
        self._file.execute_many(f"{_MAKE_AGAIN} AND key = ?", [(each.key,) for each in making])

    def recover(self) -> None:
        """Take over what a delivery that died has left."""
        self._file.execute(_MAKE_AGAIN)

    # -- within

    def _span(self, directory: str) -> tuple[str, str]:
        return span(self.fold(directory))

    def _select(self, where: str, *values: object) -> list[PendingDirectory]:
        return [_from_row(row) for row in self._file.select(f"SELECT {_COLUMNS} FROM folders WHERE {where}", *values)]


def _with_those_above(key: str) -> list[str]:
    return recursepath(key)[1:]


def _doubt(db: sqlite3.Connection, key: str) -> None:
    keys = _with_those_above(key)
    db.execute(f"UPDATE folders SET fresh = 0 WHERE key IN ({_places(keys)})", keys)


def _places(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _from_row(row: tuple[object, ...]) -> PendingDirectory:
    path, key, fresh, state, attempts, reason, acknowledged = row
    return PendingDirectory(path, key, bool(fresh), state, attempts, reason, acknowledged)  # type: ignore[arg-type]
