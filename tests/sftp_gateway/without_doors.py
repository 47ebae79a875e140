"""A gateway without its doors: SFTP channels over a real SSH connection, for tests of the protocol."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import paramiko
from fs.base import FS
from paramiko import common

from sftp_gateway.files.tree import Rights, Tree, TreeLimits, TreeView
from sftp_gateway.requests.channel import SFTPChannel
from sftp_gateway.requests.failures import Failures
from sftp_gateway.requests.operations import Operations
from sftp_gateway.requests.room import ChannelLimits, Room
from sftp_gateway.requests.workers import Workers
from sftp_gateway.sftp.events import Transfer
from sftp_gateway.ssh.transport import FIRST_WINDOW_BYTES
from sftp_gateway.ssh.wire import GatewayTransport
from tests.sftp_gateway.raw_client import RawClient

HOST_KEY = paramiko.ECDSAKey.generate()


class RecordedEvents:
    """Events as a list that tests look at."""

    def __init__(self) -> None:
        self.transfers: list[Transfer] = []
        self.others: list[tuple[str, ...]] = []
        self.traces: list[str] = []

    def on_transfer(self, transfer: Transfer) -> None:
        self.transfers.append(transfer)

    def on_rename(self, source: str, target: str) -> None:
        self.others.append(("rename", source, target))

    def on_remove(self, path: str, *, directory: bool) -> None:
        self.others.append(("rmdir" if directory else "remove", path))

    def on_mkdir(self, path: str) -> None:
        self.others.append(("mkdir", path))

    def on_failure(
        self, operation: str, path: str, reason: str, *, is_expected: bool = False, trace: str | None = None
    ) -> None:
        self.traces += [trace] if trace else []
        self.others.append(("failure", operation, path, reason))


def operations_on(view: TreeView) -> Operations:
    """Requests on a view, with no channel around them."""
    events = RecordedEvents()
    return Operations(view, events, Failures(events, tell=lambda _: None, reads_texts=False), max_handles=100)


class _Everyone(paramiko.ServerInterface):
    def __init__(self, session: Session) -> None:
        self._session = session

    def check_auth_password(self, username: str, password: str) -> int:
        return common.AUTH_SUCCESSFUL

    def check_auth_none(self, username: str) -> int:
        return common.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return common.OPEN_SUCCEEDED

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        self._session.begin(channel)
        return True


class Session:
    """One SSH connection: our transport at one end, paramiko's client at the other."""

    def __init__(self, serving: Serving, root: str, rights: Rights, peer: socket.socket | None = None) -> None:
        self.serving = serving
        self.events = RecordedEvents()
        self.channels: list[SFTPChannel] = []
        self.view = serving.tree.view(root, rights=rights)
        if peer is None:
            ours, theirs = socket.socketpair()
        else:
            ours, theirs = peer, None
        self.socket = theirs
        self.server = GatewayTransport(ours, default_window_size=FIRST_WINDOW_BYTES)
        self.server.add_server_key(HOST_KEY)
        self.server.start_server(event=threading.Event(), server=_Everyone(self))
        self.client: paramiko.Transport | None = None
        if theirs is not None:
            self.client = paramiko.Transport(theirs)
            self.client.start_client(timeout=30)
            self.client.auth_password("someone", "secret")

    def begin(self, channel: paramiko.Channel) -> None:
        sftp = SFTPChannel(
            channel,
            self.view,
            events=self.events,
            workers=self.serving.workers,
            room=self.serving.room,
        )
        self.channels.append(sftp)
        sftp.start()

    def raw(self) -> RawClient:
        """Open a channel and do INIT."""
        return self.bare().init()

    def bare(self) -> RawClient:
        assert self.client is not None
        channel = self.client.open_session(timeout=30)
        channel.invoke_subsystem("sftp")
        return RawClient(channel)

    def sftp(self) -> paramiko.SFTPClient:
        assert self.client is not None
        client = paramiko.SFTPClient.from_transport(self.client)
        assert client is not None
        return client

    def cut(self) -> None:
        """Lose the connection, as a pulled cable does."""
        assert self.socket is not None
        self.socket.shutdown(socket.SHUT_RDWR)
        for channel in self.channels:
            assert channel.wait(20), "the channel did not end"

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
        self.server.close()
        for channel in self.channels:
            assert channel.wait(20), "the channel did not end"
        self.server.join(30)
        if self.client is not None:
            self.client.join(30)


class Serving:
    """A tree over `filesystem`, and sessions on it."""

    def __init__(
        self,
        filesystem: FS,
        spool_directory: Path,
        *,
        limits: TreeLimits | None = None,
        channel_limits: ChannelLimits | None = None,
        room: Room | None = None,
    ) -> None:
        self.filesystem = filesystem
        self.room = room or Room(channel_limits or ChannelLimits())
        self.workers = Workers(64, idle_seconds=1.0)
        self.tree = Tree(filesystem, spool_directory=spool_directory, limits=limits or TreeLimits())
        self.sessions: list[Session] = []
        self._listener: socket.socket | None = None

    def session(self, root: str = "/", *, rights: Rights = Rights.READ_WRITE) -> Session:
        session = Session(self, root, rights)
        self.sessions.append(session)
        return session

    def raw(self) -> RawClient:
        return self.session().raw()

    def listen(self) -> int:
        """Accept connections of foreign clients on a port of the loopback; returns it."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return int(self._listener.getsockname()[1])

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sessions.append(Session(self, "/", Rights.READ_WRITE, connection))

    def close(self) -> None:
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for session in self.sessions:
            session.close()
        self.tree.close()
        assert self.workers.close()


def spool_files(serving: Serving) -> list[Path]:
    folder = serving.tree.store.drafts._spool_directory
    return sorted(folder.glob("*.spool")) if folder.exists() else []
