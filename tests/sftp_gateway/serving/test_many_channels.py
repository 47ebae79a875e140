"""Connections with more channels than anybody needs: what they have together is bounded, and so are they."""

from __future__ import annotations

import socket

import paramiko
import pytest

from sftp_gateway.config import UserConfig
from sftp_gateway.requests.room import LEAST_WINDOW_BYTES
from sftp_gateway.serving.session import MAX_CHANNELS
from sftp_gateway.sftp.packets import Kind
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, Connect, StartGateway
from tests.sftp_gateway.raw_client import RawClient
from tests.waiting import eventually


def test_channels_share_the_handles_of_a_connection(start_gateway: StartGateway, connect: Connect) -> None:
    """Sixteen times as many files would be open else, of which each may take a descriptor of all that there are."""
    transport = connect(start_gateway(), "ann", PASSWORD)
    clients = []
    for _ in range(3):
        channel = transport.open_session(timeout=30)
        channel.invoke_subsystem("sftp")
        clients.append(RawClient(channel).init())
    for client, count in zip(clients, (500, 500, 24), strict=True):
        replies = client.all([client.path(Kind.OPENDIR, "/") for _ in range(count)])
        assert all(reply.kind == Kind.HANDLE for reply in replies)
    for client in clients:
        assert client.wait(client.path(Kind.OPENDIR, "/")).code == 4
    assert clients[2].wait(clients[2].close(replies[0].handle)).ok
    assert clients[0].wait(clients[0].path(Kind.OPENDIR, "/")).kind == Kind.HANDLE


def test_channels_are_bounded_and_not_remembered(
    start_gateway: StartGateway, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftp_gateway.ssh.transport._CHANNELS_REMEMBERED", 100)
    gateway = start_gateway()
    transport = connect(gateway, "ann", PASSWORD)
    transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # type: ignore[union-attr]
    channels = [transport.open_session(timeout=30) for _ in range(MAX_CHANNELS)]
    with caplog.at_level("ERROR", "paramiko"), pytest.raises(paramiko.ChannelException, match="Resource shortage"):
        transport.open_session(timeout=30)
    assert "too many channels" in caplog.text
    for channel in channels:
        channel.close()
    for _ in range(200):
        transport.open_session(timeout=30).close()
    ((session, served),) = gateway._connections.items()
    eventually(lambda: served.open_channels == 0, "channels stay open")
    assert len(served.server_accepts) <= MAX_CHANNELS + 1
    assert len(served.channels_seen) <= 101
    for number in range(4):
        channel = transport.open_session(timeout=30)
        channel.invoke_subsystem("sftp")
        assert len(session.channels) == 1, f"channel {number} is remembered"
        channel.close()
        eventually(lambda: session.channels[0].wait(0), "its SFTP does not end")


def test_a_user_leaves_channels_for_others(start_gateway: StartGateway, connect: Connect) -> None:
    """A user's hundred sessions with sixteen channels each could have gigabytes kept for them else.

    Whoever has none any more has one for each connection all the same.
    """
    users = [UserConfig(name=name, password_hash=PASSWORD_HASH, url="mem://") for name in ("ann", "bob")]
    gateway = start_gateway(users=tuple(users))
    room = gateway._services.room
    room._total = 8 * LEAST_WINDOW_BYTES
    greedy = connect(gateway, "ann", PASSWORD)
    channels = [greedy.open_session(timeout=30) for _ in range(5)]
    for channel in channels[:4]:
        channel.invoke_subsystem("sftp")
    with pytest.raises(paramiko.SSHException):
        channels[4].invoke_subsystem("sftp")
    modest = connect(gateway, "ann", PASSWORD)
    channel = modest.open_session(timeout=30)
    channel.invoke_subsystem("sftp")
    client = RawClient(channel).init()
    with pytest.raises(paramiko.ChannelException, match="Resource shortage"):
        modest.open_session(timeout=30)
    assert client.wait(client.stat("/")).kind == Kind.ATTRS
    other = connect(gateway, "bob", PASSWORD)
    others = [other.open_session(timeout=30) for _ in range(2)]
    for channel in others:
        channel.invoke_subsystem("sftp")
    with pytest.raises(paramiko.ChannelException, match="Resource shortage"):
        other.open_session(timeout=30)
    for channel in channels:
        channel.close()
    eventually(lambda: not room.is_full("ann"))
    modest.open_session(timeout=30).invoke_subsystem("sftp")


def test_channels_that_are_closed_count_while_they_have_work(start_gateway: StartGateway, connect: Connect) -> None:
    """Who closed a channel behind requests that hang could have another one, without an end."""
    filesystem = AtomicFS()
    gateway = start_gateway(open_filesystem=lambda _: filesystem)
    transport = connect(gateway, "ann", PASSWORD)
    (session,) = gateway._connections
    with filesystem.stalled("getinfo", "/slow"):
        for _ in range(MAX_CHANNELS):
            channel = transport.open_session(timeout=30)
            channel.invoke_subsystem("sftp")
            RawClient(channel).init().stat("/slow")
            eventually(lambda: session.channels[-1].unanswered == 1)
            channel.close()
        channel = transport.open_session(timeout=30)
        with pytest.raises(paramiko.SSHException):
            channel.invoke_subsystem("sftp")
    eventually(lambda: all(known.wait(0) for known in session.channels))
    transport.open_session(timeout=30).invoke_subsystem("sftp")
