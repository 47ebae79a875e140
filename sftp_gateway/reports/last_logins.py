"""`LastLogins`: when each configured user last signed in, and from where; kept over restarts, in SQLite."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE_NAME: Final = "logins.sqlite3"
_BUSY_SECONDS: Final = 5.0
_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS logins (name TEXT PRIMARY KEY, at REAL, address TEXT, method TEXT)"


@dataclass(frozen=True, slots=True)
class LastLogin:
    """A login: seconds since 1970, the address it came from, and how it was proven."""

    at: float
    address: str
    method: str


class LastLogins:
    """Takes note of logins at once, and writes them when asked to. Thread-safe: one leaf lock over what is not written.

    Owned by `SFTPGateway`; several processes may share the file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._unwritten: dict[str, LastLogin] = {}  # guarded by _lock

    def on_event(self, event: str, fields: Mapping[str, Any]) -> None:
        """Note a login; ignore what else happens. Storage credentials are no users of the gateway."""
        if event == "login" and "~" not in fields["user"]:
            with self._lock:
                self._unwritten[fields["user"]] = LastLogin(time.time(), fields["from"], fields["method"])

    def write(self) -> None:
        """Write what was noted since the last time; raises OSError or `sqlite3.Error`, and then tries again later."""
        with self._lock:
            unwritten, self._unwritten = self._unwritten, {}
        if not unwritten:
            return
        try:
            os.close(os.open(self._file, os.O_CREAT | os.O_RDWR, 0o600))
            with contextlib.closing(sqlite3.connect(self._file, timeout=_BUSY_SECONDS)) as table, table:
                table.execute(_SCHEMA)
                table.executemany(
                    "INSERT OR REPLACE INTO logins VALUES (?, ?, ?, ?)",
                    [(name, login.at, login.address, login.method) for name, login in unwritten.items()],
                )
        except (OSError, sqlite3.Error):
            with self._lock:
                self._unwritten = unwritten | self._unwritten
            raise


def read_last_logins(file: Path) -> dict[str, LastLogin]:
    """Return the last login of each user by name; none where nothing was written yet or it cannot be read."""
    if not file.exists():
        return {}
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=_BUSY_SECONDS)) as table:
            rows = table.execute("SELECT name, at, address, method FROM logins").fetchall()
    except sqlite3.Error:
        return {}
    return {name: LastLogin(at, address, method) for name, at, address, method in rows}
