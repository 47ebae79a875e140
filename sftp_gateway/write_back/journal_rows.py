"""Rows of a journal: what they hold, and how they are found, ordered and removed within a transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from sftp_gateway.write_back.vault import LocalBytes

Mode = Literal["replace", "create", "update"]
State = Literal["pending", "sending", "failed"]


class BeingSentError(Exception):
    """The file is on its way to the storage: try again when that is over."""


class DeliveredError(Exception):
    """The pending file that was to be replaced is no longer pending."""


class ConflictError(Exception):
    """The file that was to be replaced is another one by now, or there is a file where none was expected."""


class NoRoomError(Exception):
    """The bytes would exceed the quota."""


@dataclass(frozen=True, slots=True)
class Pending:
    """One acknowledged version of a file. `modified` and `acknowledged` are in seconds since 1970.

    `mode`: "replace" whatever is there, "create" only if nothing is there, "update" only the version `expected`.
    `staged`: the token under which the storage has the content already, and may make it visible at any moment.
    """

    id: int
    path: str
    key: str
    size: int
    modified: int
    mode: Mode
    expected: str | None
    fresh: bool
    file: str | None
    state: State
    attempts: int
    reason: str
    acknowledged: float
    hidden: bool
    staged: str | None

    @property
    def failed(self) -> bool:
        """Whether the storage has refused it permanently."""
        return self.state == "failed"

    @property
    def may_change(self) -> bool:
        """Whether the storage does not have it yet, so that its time can still be changed."""
        return self.state == "pending" and self.staged is None

    @property
    def is_out(self) -> bool:
        """Whether the storage may still make it visible, because of an earlier request."""
        return self.staged is not None and not self.failed


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to be recorded.

    `replaces` is the id of the pending file of which this is a changed copy; `fresh`: the storage has nothing there.
    """

    path: str
    modified: int
    mode: Mode
    expected: str | None = None
    fresh: bool = False
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an attempt to deliver a file; an empty reason means that it arrived."""

    id: int
    reason: str = ""
    permanent: bool = False
    retry_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What may be sent now, in total; and when the next file that could not be sent may be tried again."""

    count: int
    size: int
    oldest: float  # when it was acknowledged
    latest: float
    attempts: int
    is_hurried: bool  # somebody waits for one of them
    retry: float | None


@dataclass(frozen=True, slots=True)
class Totals:
    """How much is in a journal; `oldest` is when the oldest waiting file was acknowledged."""

    waiting: int = 0
    failed: int = 0
    bytes: int = 0
    oldest: float | None = None
    directories: int = 0  # directories that wait

    @property
    def is_anything_waiting(self) -> bool:
        """Whether there is something to deliver."""
        return bool(self.waiting or self.directories)


LIVE = "state != 'failed'"
MAY_CHANGE = "state = 'pending' AND staged IS NULL"  # as `Pending.may_change`
_NAMES = tuple(field.name for field in fields(Pending))
COLUMNS = ", ".join(_NAMES)
BELOW = "(key > ? AND key < ?)"  # values: `span`
AT_OR_BELOW = f"(key = ? OR {BELOW})"  # values: a key, and its `span`
# What counts towards the quota: the contents, or what the file holds beyond so many bytes, where that is more: names.
USED = (
    "SELECT max(value, (page_count - freelist_count) * page_size - ?)"
    " FROM facts, pragma_page_count, pragma_freelist_count, pragma_page_size WHERE name = 'bytes'"
)


def span(key: str) -> tuple[str, str]:
    """Return the bounds between which all keys below a directory's lie."""
    prefix = key.rstrip("/")
    return prefix + "/", prefix + "0"  # the character after "/"


def by_name(rows: Iterable[Any], prefix: str) -> dict[str, Any]:
    """Return those of rows below a directory that are directly in it, by folded name; the last of each name counts."""
    return {row.key[len(prefix) :]: row for row in rows if "/" not in row.key[len(prefix) :]}


def from_row(row: Sequence[object]) -> Pending:
    """Return a row of COLUMNS as a `Pending`."""
    values: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    return Pending(**values | {"fresh": bool(values["fresh"]), "hidden": bool(values["hidden"])})


def select(db: sqlite3.Connection, where: str, *values: object) -> list[Pending]:
    """Return the rows that match a condition."""
    return [from_row(row) for row in db.execute(f"SELECT {COLUMNS} FROM files WHERE {where}", values)]


def insert(db: sqlite3.Connection, new: NewFile, key: str, turn: int, content: LocalBytes) -> int:
    """Add a file in its place; return its id."""
    cursor = db.execute(
        "INSERT INTO files (turn, key, path, size, modified, mode, expected, fresh, file, acknowledged)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(turn, key, new.path, content.size, new.modified),
            *(new.mode, new.expected, new.fresh, content.name, time.time()),
        ),
    )
    if content.name is None:
        db.execute("INSERT INTO contents VALUES (?, ?)", (cursor.lastrowid, content.memory))
    return int(cursor.lastrowid or 0)


def next_turn(db: sqlite3.Connection) -> int:
    """Return the next place in the order of delivery, behind all others."""
    db.execute("UPDATE facts SET value = value + 1 WHERE name = 'turn'")
    return int(db.execute("SELECT value FROM facts WHERE name = 'turn'").fetchone()[0])


def replaceable(db: sqlite3.Connection, number: int, key: str) -> Pending:
    """Return the pending file that a changed copy replaces; raises if it cannot be replaced now."""
    found = select(db, "id = ?", number)
    if not found:
        raise DeliveredError
    if found[0].state == "sending" or (found[0].is_out and found[0].mode != "replace"):
        raise BeingSentError
    if select(db, "key = ? AND hidden = 0 ORDER BY turn DESC LIMIT 1", key) != found:
        raise ConflictError
    return found[0]


def alone(db: sqlite3.Connection, key: str, *, committed: bool) -> list[Pending]:
    """Return what is shown at a path if the storage has nothing there, else nothing; raises `BeingSentError`."""
    shown = select(db, "key = ? AND hidden = 0 ORDER BY turn", key)
    if any(pending.state == "sending" for pending in shown):
        raise BeingSentError
    if not shown or (committed if shown[0].failed else not shown[0].fresh):
        return []
    return shown


def first_path(known: Sequence[Pending], path: str) -> str:
    """Return `path` in the case in which it will be shown: that of the first of `known` that is to be delivered."""
    return next((pending.path for pending in known if not pending.failed), path)


def delete(db: sqlite3.Connection, gone: Sequence[Pending]) -> list[str]:
    """Delete rows; return the content files to be removed once this is committed."""
    db.executemany("DELETE FROM files WHERE id = ?", [(pending.id,) for pending in gone])
    return [pending.file for pending in gone if pending.file is not None]


def fail(db: sqlite3.Connection, pending: Pending, outcome: Outcome) -> None:
    """Record why a file was not delivered, and whether to try again."""
    if outcome.permanent:
        later = select(db, "key = ? AND turn > (SELECT turn FROM files WHERE id = ?) LIMIT 1", pending.key, pending.id)
        db.execute(
            "UPDATE files SET state = 'failed', hidden = ?, attempts = attempts + 1, reason = ? WHERE id = ?",
            (bool(later), outcome.reason, pending.id),
        )
        return
    db.execute(
        "UPDATE files SET state = 'pending', fresh = 0, attempts = attempts + 1, reason = ?,"
        " not_before = ? WHERE id = ?",
        (outcome.reason, outcome.retry_at, pending.id),
    )
