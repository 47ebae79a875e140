"""Connections: names for FS URLs, in one file that only its owner may read. Knows no network and no command line."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_FORMAT = 1


class ConnectionsError(Exception):
    """The connections cannot be used as asked; the text is one line without secrets, and says what to do."""


class UnknownConnectionError(ConnectionsError):
    """No connection, or more than one, has the name that was given."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One way to open a filesystem."""

    name: str
    url: str = field(repr=False)
    """The FS URL; it holds secrets."""
    account: str = ""
    """The name of the person or team behind it."""
    email: str = ""


class Connections:
    """The stored connections. Each method reads the file anew; changes hold a lock that other processes see."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path if path is not None else default_path()

    def all(self) -> list[Connection]:
        """Return the connections, sorted by name."""
        return sorted(self._load()[0].values(), key=lambda connection: connection.name.casefold())

    def check_writable(self) -> None:
        """Raise `ConnectionsError` where nothing could be stored; leaves nothing behind."""
        self._load()
        folder = next(folder for folder in self.path.parents if folder.exists())
        with self._writing(), tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)  # of which a full disk says so
            file.flush()

    def default(self) -> Connection | None:
        """Return the connection that is meant where none is named: the only one, else the one stored or chosen last."""
        connections, last = self._load()
        if len(connections) == 1:
            return next(iter(connections.values()))
        return connections.get(last)

    def find(self, name: str) -> Connection:
        """Return the connection of this name, in any case, or the only one whose name begins with it.

        Raises:
            UnknownConnectionError: none or several are meant.
        """
        return _find(self._load()[0], name)

    def put(self, connection: Connection) -> None:
        """Store a connection in place of one with the same name, and make it the default."""
        check_name(connection.name)
        with self._change() as (connections, last):
            connections[connection.name] = connection
            last[:] = [connection.name]

    def choose(self, name: str) -> Connection:
        """Make a connection the default."""
        with self._change() as (connections, last):
            chosen = _find(connections, name)
            last[:] = [chosen.name]
            return chosen

    def remove(self, name: str) -> Connection:
        """Forget the connection of exactly this name."""
        with self._change() as (connections, _):
            meant = _find(connections, name).name
            if name != meant:
                raise UnknownConnectionError(f"give the whole name of what is to be forgotten: {meant!r}")
            return connections.pop(name)

    def rename(self, name: str, new_name: str) -> Connection:
        """Give a connection another name, which must be free."""
        check_name(new_name)
        with self._change() as (connections, last):
            found = _find(connections, name)
            if new_name in connections and new_name != found.name:
                raise ConnectionsError(f"there is a connection {new_name!r} already")
            del connections[found.name]
            renamed = Connection(**(asdict(found) | {"name": new_name}))
            connections[new_name] = renamed
            if last == [found.name]:
                last[:] = [new_name]
            return renamed

    def _load(self) -> tuple[dict[str, Connection], str]:
        try:
            with self.path.open("rb") as file:
                self._refuse_readable_by_others(os.fstat(file.fileno()))
                document = json.load(file)
        except FileNotFoundError:
            return {}, ""
        except OSError as error:
            raise ConnectionsError(f"{self.path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ConnectionsError(f"{self.path} is not valid JSON: mend it, or remove it and log in again") from error
        try:
            if document["format"] != _FORMAT:
                raise ConnectionsError(f"{self.path} was written by another version of fs-dropbox: update fs-dropbox")
            rows: dict[str, Any] = document["connections"]
            return {name: Connection(name, **row) for name, row in rows.items()}, str(document["last"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ConnectionsError(f"{self.path} is damaged: mend it, or remove it and log in again") from error

    def _refuse_readable_by_others(self, status: os.stat_result) -> None:
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConnectionsError(f"{self.path} holds secrets and others may read it: run  chmod 600 '{self.path}'")
        if status.st_uid not in (os.geteuid(), 0):
            raise ConnectionsError(f"{self.path} belongs to another user: it is not used")

    @contextlib.contextmanager
    def _change(self) -> Iterator[tuple[dict[str, Connection], list[str]]]:
        """Yield the connections and the name of the last; what the block leaves is stored, unless it raises."""
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            connections, known_last = self._load()
            last = [known_last]
            yield connections, last
            self._store(connections, last[0])
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = "XDG_CONFIG_HOME names another folder to keep it in"
            raise ConnectionsError(f"{self.path} cannot be written: {error.strerror} ({hint})") from error

    def _store(self, connections: dict[str, Connection], last: str) -> None:
        rows = {}
        for name, connection in sorted(connections.items()):
            rows[name] = {key: value for key, value in asdict(connection).items() if key != "name" and value}
        document = {"format": _FORMAT, "last": last if last in connections else "", "connections": rows}
        with self._writing():
            # mkstemp makes the file 0600 from its first moment.
            descriptor, temporary = tempfile.mkstemp(prefix=".connections-", dir=self.path.parent)
            try:
                with open(descriptor, "w", encoding="utf-8") as file:
                    json.dump(document, file, indent=2, ensure_ascii=False)
                    file.write("\n")
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise


def _find(connections: Mapping[str, Connection], name: str) -> Connection:
    if name in connections:
        return connections[name]
    folded = name.casefold()
    same = [known for known in connections.values() if known.name.casefold() == folded]
    close = same or [known for known in connections.values() if known.name.casefold().startswith(folded)]
    if len(close) == 1:
        return close[0]
    if close:
        names = ", ".join(sorted(repr(known.name) for known in close))
        raise UnknownConnectionError(f"{name!r} may mean {names}: give more of the name")
    if not connections:
        raise UnknownConnectionError(f"there is no connection {name!r}, nor any other: make one with fs-dropbox login")
    names = ", ".join(sorted(repr(known) for known in connections))
    raise UnknownConnectionError(f"there is no connection {name!r}; there is {names}")


def default_path() -> Path:
    """Return where the connections of this user are kept: below $XDG_CONFIG_HOME, else below ~/.config."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # The base directory specification: relative paths are invalid and to be ignored.
    try:
        folder = Path(base) if os.path.isabs(base) else Path.home() / ".config"
    except RuntimeError:
        raise ConnectionsError("this user has no home folder, and HOME is not set: set XDG_CONFIG_HOME") from None
    return folder / "fs-dropbox" / "connections.json"


def check_name(name: str) -> None:
    """Raise `ConnectionsError` unless a location such as `name:/path` can be written with this name."""
    if not name.strip() or name != name.strip():
        raise ConnectionsError("the name of a connection may neither be empty nor begin or end with a space")
    if not name.isprintable() or any(character in name for character in ":/"):
        raise ConnectionsError(f"{name!r} cannot name a connection: no colon, no slash, no control characters")
    if name.startswith("-"):
        raise ConnectionsError(f"{name!r} cannot name a connection: it looks like an option")
