"""`Journal`: which files of an account were acknowledged and are not delivered yet. Survives kill -9."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from fs.path import dirname

from sftp_gateway.files.folding import moved
from sftp_gateway.write_back.arrivals import Arrivals
from sftp_gateway.write_back.bell import Bell
from sftp_gateway.write_back.directory_rows import DirectoryRows
from sftp_gateway.write_back.journal_file import JournalFile
from sftp_gateway.write_back.journal_rows import (
    AT_OR_BELOW,
    BELOW,
    COLUMNS,
    LIVE,
    MAY_CHANGE,
    USED,
    ConflictError,
    NewFile,
    NoRoomError,
    Outcome,
    Outlook,
    Pending,
    Totals,
    alone,
    by_name,
    delete,
    fail,
    first_path,
    from_row,
    insert,
    next_turn,
    replaceable,
    select,
    span,
)
from sftp_gateway.write_back.refusals import MAX_BACKOFF_SECONDS
from sftp_gateway.write_back.vault import LocalBytes, Vault

FREE_BYTES = 16 * 2**20  # of the journal's own file, which keeps what arrived last as well
# Parameters: now, twice; the size up to which files are passed over. A file that is to wait longer than any pause got
# its time from a clock that was ahead. (Python before 3.12.4 takes ?1 for a name, and warns.)
_DUE = f"state = 'pending' AND (not_before <= ? OR not_before > ? + {MAX_BACKOFF_SECONDS}) AND size > ?"

_SEND_AGAIN = "UPDATE files SET state = 'pending', fresh = 0 WHERE state = 'sending'"  # it may have arrived, or not


class Journal:
    """The pending files of one account, by path and in order.

    Owned by a `WriteBackFS`, or by the command `pending`; several processes may have the same one open. Thread-safe;
    every change is on disk when its method returns. Raises sqlite3.Error if the disk or the file fails.
    """

    def __init__(
        self, directory: Path, *, fold: Callable[[str], str] = str, create: bool = True, check: bool = True
    ) -> None:
        """Open the journal in `directory`, or begin it; with `check` see that it is whole. Raises `JournalError`."""
        self.vault = Vault(directory)
        self.fold = fold
        self.bell = Bell(directory)  # rings for whoever delivers
        self._file = JournalFile(directory, create=create, check=check)
        self.wait = self._file.wait
        self.pause = self._file.pause
        self.note = self._file.note
        self.noted = self._file.noted
        self.arrivals = Arrivals(self._file)
        self.directories = DirectoryRows(self._file, fold, self.arrivals)

    def close(self) -> None:
        """Let go of the files. Idempotent."""
        self._file.close()
        self.bell.close()

    # -- looking

    def find(self, path: str) -> Pending | None:
        """Return what is shown at `path`: the latest file that waits, else one that has failed there."""
        return next(iter(self._select("key = ? AND hidden = 0 ORDER BY turn DESC LIMIT 1", self.fold(path))), None)

    def children(self, directory: str) -> dict[str, Pending]:
        """Return what is shown directly in a directory, by folded name."""
        first, last = self._span(directory)
        return by_name(self._select(f"{BELOW} AND hidden = 0 ORDER BY turn", first, last), first)

    def is_live(self, path: str) -> bool:
        """Tell whether something at or below `path` is still to be delivered."""
        return self.directories.are_at_or_below(path) or bool(
            self._select(f"{AT_OR_BELOW} AND {LIVE} LIMIT 1", *self._at_or_below(path))
        )

    def is_shown_below(self, directory: str) -> bool:
        """Tell whether a file is shown below `directory`, including those that have failed."""
        return bool(self._select(f"{BELOW} AND hidden = 0 LIMIT 1", *self._span(directory)))

    def trouble(self, path: str) -> str:
        """Return why the last attempt to deliver something at or below `path` failed, else ""."""
        where = f"{AT_OR_BELOW} AND state = 'pending' AND attempts > 0 LIMIT 1"
        found = self._select(where, *self._at_or_below(path))
        return found[0].reason if found else self.directories.trouble(path)

    def get(self, number: int) -> Pending | None:
        """Return the pending file of this id."""
        return next(iter(self._select("id = ?", number)), None)

    def all(self) -> list[Pending]:
        """Return everything, in the order of delivery."""
        return self._select("1 ORDER BY turn")

    def totals(self) -> Totals:
        """Return how much there is."""
        counted = f"SELECT coalesce(sum({LIVE}), 0), coalesce(sum(state = 'failed'), 0)"
        counted += ", (SELECT value FROM facts WHERE name = 'bytes')"
        counted += f", min(CASE WHEN {LIVE} THEN acknowledged END), (SELECT count(*) FROM folders) FROM files"
        return Totals(*self._file.select(counted)[0])

    @property
    def used(self) -> int:
        """What counts towards the quota, in bytes."""
        return int(self._file.select(USED, FREE_BYTES)[0][0])

    def content(self, pending: Pending) -> BinaryIO | bytes:
        """Return the content, as bytes or as an open file; raises FileNotFoundError if it is gone."""
        if pending.file is not None:
            return self.vault.path(pending.file).open("rb")
        rows = self._file.select("SELECT bytes FROM contents WHERE id = ?", pending.id)
        if not rows:
            raise FileNotFoundError(pending.path)
        return bytes(rows[0][0])

    def open(self, pending: Pending) -> BinaryIO:
        """Open the content for reading; raises FileNotFoundError as `content` does."""
        content = self.content(pending)
        return io.BytesIO(content) if isinstance(content, bytes) else content

    def is_whole(self, pending: Pending) -> bool:
        """Tell whether the content is there, in its full size."""
        if pending.file is None:
            return self._file.select("SELECT length(bytes) FROM contents WHERE id = ?", pending.id) == [(pending.size,)]
        try:
            return self.vault.path(pending.file).stat().st_size == pending.size
        except OSError:
            return False

    # -- what users do

    def put(self, new: NewFile, content: LocalBytes, *, quota: int) -> int:
        """Record a file whose content is complete, and return its id; the journal then owns the content.

        Raises `NoRoomError` and `ConflictError`; for a file that `replaces` another also `BeingSentError` and
        `DeliveredError`.
        """
        content.sync()
        key, spelled = self.fold(new.path), self.directories.spelled(new.path)

        def work(db: sqlite3.Connection) -> tuple[int, list[str]]:
            mode, expected, fresh = new.mode, new.expected, new.fresh
            dropped: list[str] = []
            known = select(db, "key = ? ORDER BY turn", key)
            live = [pending for pending in known if not pending.failed]
            if new.replaces is not None:
                old = replaceable(db, new.replaces, key)
                live = [pending for pending in live if pending.id != old.id]
                if old.failed and not new.fresh:  # the storage has something else there by now
                    raise ConflictError
                if not old.is_out:
                    dropped = delete(db, [old])
                if not old.failed:
                    mode, expected, fresh = old.mode, old.expected, old.fresh
            elif live and mode != "replace":
                raise ConflictError
            if db.execute(USED, (FREE_BYTES,)).fetchone()[0] + content.size > quota:
                raise NoRoomError
            if len(live) < len(known):
                db.execute("UPDATE files SET hidden = 1 WHERE key = ? AND state = 'failed'", (key,))
            path = first_path(known, spelled)
            placed = replace(new, path=path, mode=mode, expected=expected, fresh=fresh and not live)
            return insert(db, placed, key, next_turn(db), content), dropped

        number, dropped = self._file.change(work)
        self.bell.ring()
        content.release()
        self.vault.remove(dropped)
        return number

    def rename(self, source: str, target: str, *, replace: bool, occupied: bool, committed: bool) -> bool:
        """Give what is pending at `source` another path if the storage does not have it yet; tell whether it was done.

        `occupied`: the storage has a file at the target; `committed`: it may have one at the source. Raises
        `BeingSentError`, and `ConflictError` if the target exists and must not be replaced.
        """
        old, new, spelled = self.fold(source), self.fold(target), self.directories.spelled(target)

        def work(db: sqlite3.Connection) -> bool:
            moved = alone(db, old, committed=committed)
            if not moved:
                return False
            there = old != new and (occupied or bool(select(db, "key = ? AND hidden = 0 LIMIT 1", new)))
            if there and not replace:
                raise ConflictError
            db.execute("UPDATE files SET hidden = 1 WHERE key = ? AND key != ? AND state = 'failed'", (new, old))
            path = spelled if old == new else first_path(select(db, "key = ? ORDER BY turn", new), spelled)
            for pending in moved:
                mode = "replace" if pending.failed or (replace and old != new) else pending.mode
                fresh = pending is moved[0] and not there and not pending.failed
                db.execute(
                    "UPDATE files SET path = ?, key = ?, turn = ?, fresh = ?, mode = ?, expected = NULL,"
                    " state = 'pending', reason = '', attempts = 0, not_before = 0 WHERE id = ?",
                    (path, new, next_turn(db), fresh, mode, pending.id),
                )
            return True

        done = self._file.change(work)
        self.bell.ring()
        return done

    def set_modified(self, path: str, modified: int) -> None:
        """Give what is pending at `path` another time, unless the storage may have it already."""
        latest = "turn = (SELECT max(turn) FROM files WHERE key = ? AND hidden = 0)"
        self._file.execute(f"UPDATE files SET modified = ? WHERE {latest} AND {MAY_CHANGE}", modified, self.fold(path))

    def discard(self, path: str, *, committed: bool) -> bool:
        """Drop what is pending at `path` if the storage does not have it yet; tell whether. Raises `BeingSentError`."""
        key = self.fold(path)

        def work(db: sqlite3.Connection) -> tuple[bool, list[str]]:
            gone = alone(db, key, committed=committed)
            return bool(gone), delete(db, gone)

        done, dropped = self._file.change(work)
        self.vault.remove(dropped)
        return done

    def hide_failed(self, path: str) -> None:
        """Stop showing what failed at `path`, as the storage has changed there since; it is still reported.

        A file that another process has recorded there meanwhile may now replace something.
        """
        if self.find(path) is not None:
            self._file.execute("UPDATE files SET hidden = (state = 'failed'), fresh = 0 WHERE key = ?", self.fold(path))

    def move_failed(self, source: str, target: str) -> None:
        """Move the failed files below the directory `source` to `target`, where the directory now is."""
        span = self._span(source)

        def work(db: sqlite3.Connection) -> None:
            for pending in select(db, BELOW, *span):
                path = moved(pending.path, source, target)
                db.execute("UPDATE files SET path = ?, key = ? WHERE id = ?", (path, self.fold(path), pending.id))

        if self._select(f"{BELOW} LIMIT 1", *span):
            self._file.change(work)

    def hurry(self, path: str = "/") -> None:
        """Have everything at or below `path` delivered without delay, even after failed attempts."""
        statement = f"UPDATE files SET hurried = 1, not_before = 0, attempts = 0 WHERE {AT_OR_BELOW} AND {LIVE}"
        self._file.execute(statement, *self._at_or_below(path))
        self.directories.hurry(path)
        self.bell.ring(urgent=True)

    # -- what the delivery does, in one process at a time

    def recover(self) -> None:
        """Take over what a delivery that died has left."""
        self._file.execute(_SEND_AGAIN)
        self.directories.recover()
        self.vault.clear(lambda name: bool(self._select("file = ? LIMIT 1", name)))

    def put_back(self, sending: Iterable[Pending]) -> None:
        """Have files that are on their way sent once more."""
        self._file.execute_many(f"{_SEND_AGAIN} AND id = ?", [(pending.id,) for pending in sending])

    def outlook(self, now: float, passed_over: int) -> Outlook:
        """Tell what there is to send, due or queued behind it; files up to `passed_over` bytes do not count."""
        counted = "count(*), coalesce(sum(size), 0), coalesce(min(acknowledged), 0), coalesce(max(acknowledged), 0)"
        counted += ", coalesce(max(attempts), 0), coalesce(max(hurried), 0)"
        retry = "SELECT min(not_before) FROM files WHERE state = 'pending' AND not_before > ?"
        found = f"SELECT {counted}, ({retry}) FROM files WHERE {_DUE}"
        row = self._file.select(found, now, now, now, passed_over)[0]
        count, size, oldest, latest, attempts, hurried, retry_at = row
        return Outlook(count, size, oldest, latest, attempts, bool(hurried), retry_at)

    def due(self, now: float, passed_over: int, *, limit: int) -> list[Pending]:
        """Return the first file of each path that may be sent now, in order, except those that `outlook` ignores."""
        return self._select(
            f"{_DUE} AND NOT EXISTS (SELECT 1 FROM files AS earlier"
            f" WHERE earlier.key = files.key AND earlier.turn < files.turn AND earlier.{LIVE})"
            " ORDER BY turn LIMIT ?",
            *(now, now, passed_over, limit),
        )

    def send(self, chosen: Sequence[Pending]) -> list[Pending]:
        """Mark these as on their way; return those that are still there, unchanged."""

        def work(db: sqlite3.Connection) -> list[Pending]:
            still = [pending for pending in chosen if select(db, "id = ?", pending.id) == [pending]]
            db.executemany("UPDATE files SET state = 'sending' WHERE id = ?", [(pending.id,) for pending in still])
            return still

        return self._file.change(work)

    def note_staged(self, tokens: Mapping[int, str | None]) -> None:
        """Record the tokens under which the storage has contents, before it is asked to commit them; None for none."""
        rows = [(token, number) for number, token in tokens.items()]
        noted = "UPDATE files SET staged = ?, fresh = 0 WHERE id = ?"
        self._file.execute_many(noted, rows)

    def settle(self, outcomes: Iterable[Outcome]) -> None:
        """Record which files have arrived, which are then forgotten, and which have not."""
        outcomes = list(outcomes)

        def work(db: sqlite3.Connection) -> list[str]:
            dropped, arrived = [], []
            for outcome in outcomes:
                for pending in select(db, "id = ?", outcome.id):
                    if outcome.reason:
                        fail(db, pending, outcome)
                    else:
                        dropped += delete(db, [pending])
                        arrived.append(pending.path)
                        self.directories.note_made(db, dirname(pending.key), pending.acknowledged)
            self.arrivals.note(db, arrived)
            return dropped

        self.vault.remove(self._file.change(work))

    def tidy(self) -> None:
        """Give disk space back where possible; takes a moment."""
        self._file.tidy(is_empty=not self._select("1 LIMIT 1"))

    # -- what administrators do

    def retry(self, number: int, *, replace: bool) -> bool:
        """Deliver a failed file once more; with `replace`, over whatever is there. False if that is not allowed."""

        def work(db: sqlite3.Connection) -> bool:
            failed = select(db, "id = ? AND state = 'failed'", number)
            if not failed or (failed[0].hidden and not replace):
                return False
            mode, expected = ("replace", None) if replace else (failed[0].mode, failed[0].expected)
            db.execute(
                "UPDATE files SET state = 'pending', hidden = 0, hurried = 1, attempts = 0, not_before = 0, fresh = 0,"
                " turn = ?, mode = ?, expected = ? WHERE id = ?",
                (next_turn(db), mode, expected, number),
            )
            return True

        done = self._file.change(work)
        self.bell.ring(urgent=True)
        return done

    def drop(self, number: int) -> bool:
        """Forget a failed file and its content; tell whether there was one."""

        def work(db: sqlite3.Connection) -> tuple[bool, list[str]]:
            failed = select(db, "id = ? AND state = 'failed'", number)
            return bool(failed), delete(db, failed)

        done, dropped = self._file.change(work)
        self.vault.remove(dropped)
        return done

    # -- within

    def _span(self, directory: str) -> tuple[str, str]:
        return span(self.fold(directory))

    def _at_or_below(self, path: str) -> tuple[str, str, str]:
        return (self.fold(path), *self._span(path))

    def _select(self, where: str, *values: object) -> list[Pending]:
        return [from_row(row) for row in self._file.select(f"SELECT {COLUMNS} FROM files WHERE {where}", *values)]
