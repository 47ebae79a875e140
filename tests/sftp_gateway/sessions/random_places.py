"""Where sessions do things at random: gateways that end and begin anew, with and without write-back."""

from __future__ import annotations

import random
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import fs
import paramiko
from fs.base import FS
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS

from fs_dropbox.emulator import Emulator
from sftp_gateway.files.folding import fold_path
from sftp_gateway.write_back.between import WriteBackLimits
from sftp_gateway.write_back.filesystem import WriteBackFS
from sftp_gateway.write_back.journal import Journal
from tests.sftp_gateway.conftest import PASSWORD
from tests.sftp_gateway.connections import sftp
from tests.sftp_gateway.raw_client import RawClient
from tests.sftp_gateway.without_doors import Serving
from tests.sftp_gateway.write_back.write_back_gateway import WriteBackGateway, settle
from tests.waiting import eventually

ROUTES = ("*", "files/upload", "files/upload_session/finish_batch_v2", "files/move_v2", "files/delete_v2")
FAULTS = ("server_error", "reset", "cut_request", "cut_body", "ambiguous")  # those that nobody notices


Times = Literal["at CLOSE", "until sent", "always"]


class Connection(Protocol):
    """A session's connection."""

    def raw(self) -> RawClient:
        """Open a channel."""

    def sftp(self) -> paramiko.SFTPClient:
        """Open a channel for paramiko's client."""

    def cut(self) -> None:
        """Lose the connection; return when the gateway has noticed."""


class Place(Protocol):
    """A filesystem behind a gateway."""

    folds: bool  # names of different case are one
    pins: bool  # who reads a file reads one version
    times: Times  # when they can be set

    may_cut: bool  # sessions lose their connections

    def connect(self) -> Connection:
        """Begin a session."""

    def stir(self, chance: random.Random) -> None:
        """Do something that no session may notice."""


class Gateway:
    """A gateway over a filesystem; it can end and begin again."""

    folds = False
    pins = False
    may_cut = True
    times: Times = "always"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.filesystem = self.open()
        self.serving = self.serve()

    def open(self) -> FS:
        return MemoryFS()

    def serve(self) -> Serving:
        return Serving(self.filesystem, self.folder / "spool")

    def connect(self) -> Connection:
        session = self.serving.session()
        session.view.write_back = session.view.store.has_journal
        return session

    def stir(self, chance: random.Random) -> None:
        """Do something that no session may notice."""

    def restart(self) -> None:
        self.serving.close()
        self.serving = self.serve()

    def settle(self) -> int:
        """Wait until the storage has everything; return how much it has refused for good, which is forgotten."""
        return 0

    def close(self) -> None:
        self.serving.close()
        self.filesystem.close()

    def make(self, root: str) -> None:
        """Make a folder in the storage."""
        self.filesystem.makedir(root)

    def stored(self, root: str) -> dict[str, tuple[bytes, int] | None]:
        """Return what the storage has below a folder: contents with their times, None for folders."""
        home = self.filesystem.opendir(root)
        found: dict[str, tuple[bytes, int] | None] = dict.fromkeys(home.walk.dirs("/"))
        for path in home.walk.files("/"):
            found[path] = home.readbytes(path), int(home.getinfo(path, ["details"]).get("details", "modified"))
        return found


class OverAFolder(Gateway):
    def open(self) -> FS:
        return OSFS(str(self.folder / "files"), create=True)


class OverDropbox(Gateway):
    """DropboxFS on the emulator, over HTTP; how long calls take changes all the time, and some may fail at first."""

    faults: tuple[str, ...] = ()
    folds = True
    pins = True
    times: Times = "at CLOSE"

    def __init__(self, folder: Path) -> None:
        self.emulator = Emulator().start()
        super().__init__(folder)

    def open(self) -> FS:
        return fs.open_fs(self.emulator.fs_url)

    def stir(self, chance: random.Random) -> None:
        self.emulator.control.latency(
            delay_seconds=chance.choice((0.0, 0.0, 0.002, 0.01)), commit_seconds=chance.choice((0.0, 0.005))
        )
        if self.faults and chance.random() < 0.3:
            self.emulator.control.fault(chance.choice(ROUTES), chance.choice(self.faults))

    def close(self) -> None:
        super().close()
        self.emulator.stop()

    def make(self, root: str) -> None:
        self.emulator.control.seed(root)

    def stored(self, root: str) -> dict[str, tuple[bytes, int] | None]:
        control = self.emulator.control
        found: dict[str, tuple[bytes, int] | None] = {}
        for path, size in control.tree(root).items():
            found[path[len(root) :].lower()] = None if size is None else (control.read(path), self._time(path))
        return found

    def _time(self, path: str) -> int:
        return int(datetime.fromisoformat(self.emulator.control.metadata(path)["client_modified"]).timestamp())


class WrittenBack(OverDropbox):
    """The same with write-back; files leave a moment after they were acknowledged."""

    times = "until sent"

    def open(self) -> FS:
        self.journal = Journal(self.folder / "journal", fold=fold_path)
        limits = WriteBackLimits(delay_seconds=0.1)
        return WriteBackFS(super().open(), self.journal, label="ann", limits=limits)

    def stir(self, chance: random.Random) -> None:
        super().stir(chance)
        if chance.random() < 0.3:
            self.journal.hurry("/")

    def restart(self) -> None:
        self.serving.close()
        self.filesystem.close()  # files are left in the middle of their delivery
        self.filesystem = self.open()
        self.serving = self.serve()

    def settle(self) -> int:
        self.journal.hurry("/")
        eventually(lambda: not self.journal.is_live("/"), lambda: f"not delivered: {self.journal.all()}")
        return sum(self.journal.drop(pending.id) for pending in self.journal.all())


class OverFaultyDropbox(OverDropbox):
    faults = FAULTS


class FaultyWrittenBack(WrittenBack):
    faults = FAULTS

    def stir(self, chance: random.Random) -> None:
        super().stir(chance)
        if chance.random() < 0.1:  # what was asked for happens when it was asked for again, or is over
            late = chance.choice((0.05, 0.5, 2.0))
            self.emulator.control.fault("files/upload_session/finish_batch_v2", "late", seconds=late)


class Killed(OverDropbox):
    """A gateway process with write-back, that is killed between two rounds, while it delivers."""

    settings = ""
    may_cut = False
    times = "until sent"

    def __init__(self, folder: Path) -> None:
        self.emulator = Emulator().start()
        self.process = WriteBackGateway(self.emulator, folder, settings=self.settings)
        self.process.start()
        self._transports: list[paramiko.Transport] = []

    def connect(self) -> Connection:
        connection = Remote(self.process.port)
        self._transports.append(connection.transport)
        return connection

    def restart(self) -> None:
        self.process.kill()
        self._disconnect()
        self.process.start()

    def settle(self) -> int:
        settle(self.emulator, self.process)
        return 0

    def close(self) -> None:
        self._disconnect()
        self.process.kill()
        self.emulator.stop()

    def _disconnect(self) -> None:
        while self._transports:
            transport = self._transports.pop()
            transport.close()
            transport.join(30)


class Processes(Killed):
    """Two processes, of which one delivers what is acknowledged in both."""

    settings = "processes = 2"


class Remote:
    """A connection to another process."""

    def __init__(self, port: int) -> None:
        self.transport = paramiko.Transport(("127.0.0.1", port))
        self.transport.connect(username="ann", password=PASSWORD)

    def raw(self) -> RawClient:
        channel = self.transport.open_session(timeout=30)
        channel.invoke_subsystem("sftp")
        return RawClient(channel).init()

    def sftp(self) -> paramiko.SFTPClient:
        return sftp(self.transport)

    def cut(self) -> None:
        raise NotImplementedError


PLACES = {
    "memory": Gateway,
    "folder": OverAFolder,
    "dropbox": OverDropbox,
    "write-back": WrittenBack,
    "dropbox, faulty": OverFaultyDropbox,
    "write-back, faulty": FaultyWrittenBack,
    "write-back, killed": Killed,
    "write-back, processes": Processes,
}
