"""Who may connect now: limits on number and rate, in total, per address and per user; bans."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import ipaddress
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sftp_gateway.config import GatewayConfig
from sftp_gateway.network.addresses import Host, Network, host_of, is_in, networks_of
from sftp_gateway.private_directories import make_private

_MAX_REMEMBERED = 10_000
_BUSY_SECONDS = 10.0
_ROUNDING = 1e-6
_ROOM_BYTES = 4 * 2**20  # on disk: for the most rows remembered, and the size to which SQLite lets its log grow
_SCHEMA = """
CREATE TABLE IF NOT EXISTS connections (
    process INTEGER, place TEXT, area TEXT, number INTEGER, strangers INTEGER, PRIMARY KEY (process, place)
);
CREATE TABLE IF NOT EXISTS rates (place TEXT PRIMARY KEY, settled REAL);
CREATE TABLE IF NOT EXISTS sessions (process INTEGER, user TEXT, number INTEGER, PRIMARY KEY (process, user));
CREATE TABLE IF NOT EXISTS failures (place TEXT, user TEXT, attempt BLOB, at REAL, PRIMARY KEY (place, attempt));
CREATE TABLE IF NOT EXISTS bans (place TEXT PRIMARY KEY, until REAL);
"""


@dataclass(frozen=True, slots=True)
class Register:
    """Where the counts are kept: in memory, or in a file that all processes of one gateway share."""

    file: Path | None = None  # of this gateway alone; created by `prepare`
    process: int = 0  # the number of this process
    processes: int = 1
    pepper: bytes = field(default_factory=lambda: os.urandom(32), repr=False)  # equal in all processes, never on disk

    def prepare(self) -> None:
        """Create the file anew, readable only by its owner, before any process uses it. Raises OSError."""
        if self.file is not None:
            self.remove()
            make_private(self.file.parent)
            os.close(os.open(self.file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            try:
                with contextlib.closing(sqlite3.connect(self.file)) as table:
                    _begin(table)  # here, as processes that do it at the same time would not wait for each other
            except sqlite3.Error as error:
                raise OSError(errno.EIO, str(error), str(self.file)) from error

    def remove(self) -> None:
        """Remove the file."""
        if self.file is not None:
            for suffix in ("", "-wal", "-shm"):
                self.file.with_name(self.file.name + suffix).unlink(missing_ok=True)


class Gatekeeper:
    """Counts connections, sessions and failed logins. Thread-safe: one leaf lock; owned by `SFTPGateway`.

    Only different failures count towards a ban: a scanner that repeats one outdated password is a nuisance, not an
    attack. A successful login clears the failures of its user from its address, so parallel logins of a good client
    never add up, and somebody who guesses others' passwords gains nothing by a login of their own. A login also gives
    back what its connection took from the rate of its address: the rate limits only connections without a login.
    Processes that share a register share limits, failures and bans; the counts of a process that died are removed when
    its successor starts.
    """

    def __init__(
        self, config: GatewayConfig, *, register: Register | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.configure(config)
        self._clock = clock
        self._register = register or Register()
        self._lock = threading.Lock()
        # guarded by _lock
        self._owed: list[tuple[str, tuple[object, ...]]] = []
        self._table = sqlite3.connect(
            self._register.file or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._table.execute("PRAGMA synchronous = OFF")  # it has to outlive processes, not the machine
        _begin(self._table)
        if self._register.file is not None:
            self._reserve()
        self._forget_own()

    def _forget_own(self) -> None:
        with self._change() as table:
            for name in ("connections", "sessions"):
                table.execute(f"DELETE FROM {name} WHERE process = ?", (self._register.process,))

    def _reserve(self) -> None:
        """Reserve the disk space that the counts need, so that nobody is refused if something else fills the disk."""
        with contextlib.suppress(sqlite3.OperationalError):  # it is full already, or another process has just done it
            self._table.executescript(
                "CREATE TABLE IF NOT EXISTS room (bytes BLOB);"
                f"INSERT INTO room VALUES (zeroblob({_ROOM_BYTES}));"
                "DROP TABLE IF EXISTS room;"
                "PRAGMA wal_checkpoint;"
            )

    def configure(self, config: GatewayConfig) -> None:
        """Apply the limits in these settings to all new connections; those that are open stay."""
        self._config = config
        self._ban_exempt = networks_of(config.ban_exempt)
        self._rate_exempt = networks_of(config.rate_exempt)
        self._seconds_each = 60.0 / config.connections_per_minute if config.connections_per_minute else 0.0
        self._burst_seconds = self._seconds_each * config.connection_burst

    @property
    def bans(self) -> int:
        """The number of addresses that are currently banned."""
        with self._lock:
            return _sum(self._table, "SELECT count(*) FROM bans WHERE until > ?", self._clock())

    def close(self) -> None:
        """Forget what this process has counted. Idempotent; nothing else may be called afterwards."""
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed already
            self._forget_own()
            self._table.close()

    def connect(self, address: str) -> str | None:
        """Count a new connection and return None, or return why it is refused."""
        place = _place(address)
        with self._change() as table:
            refusal = self._refusal(table, address, place)
            if refusal is None:
                table.execute(
                    "INSERT INTO connections VALUES (?, ?, ?, 1, 1)"
                    " ON CONFLICT DO UPDATE SET number = number + 1, strangers = strangers + 1",
                    (self._register.process, place, _area(address)),
                )
        return refusal

    def disconnect(self, address: str, *, signed_in: bool = False) -> None:
        """Stop counting a connection that `connect` has counted; `signed_in`: whether `sign_in` has accepted it."""
        mine = (self._register.process, _place(address))
        self._settle(
            (
                "UPDATE connections SET number = number - 1, strangers = strangers - ? WHERE process = ? AND place = ?",
                (not signed_in, *mine),
            ),
            ("DELETE FROM connections WHERE process = ? AND place = ? AND number <= 0", mine),
        )

    def sign_in(self, user: str, address: str, *, maximum: int = 0) -> bool:
        """Count a session of this user, up to `maximum` if that is not 0; forgive its failures from this address."""
        place = _place(address)
        with self._change() as table:
            known = self._hidden(user)
            table.execute("DELETE FROM failures WHERE place = ? AND user = ?", (place, known))
            sessions = _sum(table, "SELECT sum(number) FROM sessions WHERE user = ?", known)
            if sessions >= (maximum or self._config.max_sessions_per_user):
                return False
            table.execute(
                "INSERT INTO sessions VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET number = number + 1",
                (self._register.process, known),
            )
            table.execute(
                "UPDATE connections SET strangers = strangers - 1 WHERE process = ? AND place = ?",
                (self._register.process, place),
            )
            table.execute("UPDATE rates SET settled = settled - ? WHERE place = ?", (self._seconds_each, place))
        return True

    def sign_out(self, user: str) -> None:
        """Stop counting a session that `sign_in` counted."""
        mine = (self._register.process, self._hidden(user))
        self._settle(
            ("UPDATE sessions SET number = number - 1 WHERE process = ? AND user = ?", mine),
            ("DELETE FROM sessions WHERE process = ? AND user = ? AND number <= 0", mine),
        )

    def fail(self, user: str, address: str, attempt: bytes) -> bool:
        """Record a failed login, identified by a digest of the attempt; return True if it bans the address."""
        if not self._config.ban_failures or is_in(self._ban_exempt, address):
            return False
        place, now = _place(address), self._clock()
        with self._change() as table:
            table.execute("DELETE FROM failures WHERE place = ? AND at <= ?", (place, now - self._config.ban_seconds))
            tried = hmac.digest(self._register.pepper, attempt, "sha256")
            table.execute(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", (place, self._hidden(user), tried, now)
            )
            failures = _sum(table, "SELECT count(*) FROM failures WHERE place = ?", place)
            if failures >= self._config.ban_failures:
                table.execute("DELETE FROM failures WHERE place = ?", (place,))
                table.execute("INSERT OR REPLACE INTO bans VALUES (?, ?)", (place, now + self._config.ban_seconds))
            self._forget_oldest(table, "failures", "at", 0.0)
            self._forget_oldest(table, "bans", "until", now)
        return failures >= self._config.ban_failures

    def _refusal(self, table: sqlite3.Connection, address: str, place: str) -> str | None:
        """Return why a connection from here is refused; or None, after counting it towards the rate."""
        now = self._clock()
        if table.execute("SELECT 1 FROM bans WHERE place = ? AND until > ?", (place, now)).fetchone():
            return "banned after failed logins"
        count = "SELECT total(number), total(strangers) FROM connections"
        everybody, strangers = table.execute(count).fetchone()
        here, strangers_here = table.execute(f"{count} WHERE place = ?", (place,)).fetchone()
        if everybody >= self._config.max_connections:
            return "too many connections"
        if here >= self._config.max_connections_per_address:
            return "too many connections from one address"
        is_exempt = is_in(self._rate_exempt, address)
        (near,) = table.execute("SELECT total(strangers) FROM connections WHERE area = ?", (_area(address),)).fetchone()
        room, room_near = (self._config.max_unauthenticated - (strangers - some) for some in (strangers_here, near))
        # One address gets at most half of the room that the others leave, so there always is some for one more address.
        too_many_here = strangers_here and 2 * strangers_here >= room
        too_many_near = near and 4 * near >= 3 * room_near
        if strangers >= self._config.max_unauthenticated or (not is_exempt and (too_many_here or too_many_near)):
            return "too many connections that have not signed in"
        return None if is_exempt else self._slow_down(table, place, now)

    def _slow_down(self, table: sqlite3.Connection, place: str, now: float) -> str | None:
        """Count one connection towards the rate of a place: a row holds the time when its debt is paid off."""
        if not self._seconds_each:
            return None
        (known,) = table.execute("SELECT total(settled) FROM rates WHERE place = ?", (place,)).fetchone()
        settled = max(now, known) + self._seconds_each
        if settled - now > self._burst_seconds + _ROUNDING:
            return "too many connections in a short time"
        table.execute("INSERT OR REPLACE INTO rates VALUES (?, ?)", (place, settled))
        self._forget_oldest(table, "rates", "settled", now)
        return None

    def is_ahead(self) -> bool:
        """Return whether another process has clearly fewer connections, so that it should accept the next one."""
        if self._register.processes == 1:
            return False
        try:
            with self._lock:
                rows = self._table.execute("SELECT process, sum(number) FROM connections GROUP BY process").fetchall()
        except sqlite3.OperationalError:  # the process that takes the connection reports the problem
            return False
        counts = dict(rows)
        least = min(counts.get(number, 0) for number in range(self._register.processes))
        return bool(counts.get(self._register.process, 0) > least + least // 8)

    def _forget_oldest(self, table: sqlite3.Connection, name: str, column: str, past: float) -> None:
        """Make room if there are too many rows: drop those up to `past`, and keep only half of the maximum."""
        if _sum(table, f"SELECT count(*) FROM {name}") < _MAX_REMEMBERED:
            return
        table.execute(f"DELETE FROM {name} WHERE {column} <= ?", (past,))
        table.execute(
            f"DELETE FROM {name} WHERE rowid NOT IN (SELECT rowid FROM {name} ORDER BY {column} DESC LIMIT ?)",
            (_MAX_REMEMBERED // 2,),
        )

    def _hidden(self, user: str) -> str:
        """Return a name as it may be stored on disk: an app's secret can be part of it."""
        return hmac.digest(self._register.pepper, user.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()

    def _settle(self, *statements: tuple[str, tuple[object, ...]]) -> None:
        """Reduce counts; if that cannot be written because the disk is full, do it with the next change."""
        with self._lock:
            self._owed += statements
        with contextlib.suppress(sqlite3.OperationalError), self._change():
            pass

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """Read and change in one transaction, isolated from other processes; a failure changes nothing."""
        with self._lock:
            self._table.execute("BEGIN IMMEDIATE")
            try:
                for statement, values in self._owed:
                    self._table.execute(statement, values)
                yield self._table
                self._table.execute("COMMIT")
                self._owed.clear()
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # some failures have rolled back already
                    self._table.execute("ROLLBACK")
                raise


def _begin(table: sqlite3.Connection) -> None:
    """Create missing tables; if none is missing, nothing is locked."""
    table.execute("PRAGMA journal_mode = WAL")
    table.executescript(_SCHEMA)


def _place(address: str) -> str:
    """Return what identifies one peer: an IPv4 address, or the /64 that an IPv6 peer has to itself."""
    host = host_of(address)
    return str(host) if isinstance(host, ipaddress.IPv4Address) else str(_network(host, 64))


def _area(address: str) -> str:
    """Return the largest network that one peer may have: an IPv4 address, or an IPv6 /48, as some providers assign."""
    host = host_of(address)
    return _place(address) if isinstance(host, ipaddress.IPv4Address) else str(_network(host, 48))


def _network(host: Host, bits: int) -> Network:
    return ipaddress.ip_network(f"{host}/{bits}", strict=False)


def _sum(table: sqlite3.Connection, query: str, *values: object) -> int:
    return int(table.execute(query, values).fetchone()[0] or 0)
