"""How many connections, sessions and channels a gateway takes, and how long it waits for each."""

from __future__ import annotations

import contextlib
import errno
import socket
import sqlite3
import struct
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import paramiko
import pytest
from paramiko.message import Message

from sftp_gateway import UserConfig
from sftp_gateway.serving.gatekeeper import Gatekeeper
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, Connect, LogLines, StartGateway
from tests.sftp_gateway.connections import first_line, seconds_until_closed, sftp
from tests.waiting import eventually


def test_connections_of_one_address(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway(max_connections_per_address=2)
    first = connect(gateway)
    connect(gateway)
    assert first_line(gateway) == b"too many connections from one address\r\n"
    first.close()
    eventually(lambda: gateway.connections <= 1)
    assert first_line(gateway).startswith(b"SSH-2.0-")


def test_connections_in_all(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway(max_connections=1)
    connect(gateway)
    assert first_line(gateway) == b"too many connections\r\n"


def test_connections_without_a_login_have_a_rate(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    gateway = start_gateway(rate_exempt=(), connections_per_minute=1, connection_burst=3)
    for number in range(6):
        connect(gateway, "ann", PASSWORD)
        log_lines("login", number + 1)
    greetings = [first_line(gateway) for _ in range(5)]
    assert [greeting[:8] for greeting in greetings[:3]] == [b"SSH-2.0-"] * 3
    assert greetings[3:] == [b"too many connections in a short time\r\n"] * 2
    assert log_lines("refused", 2)[0] == {"from": "127.0.0.1", "reason": "too many connections in a short time"}
    with socket.create_connection(gateway.address, timeout=20, source_address=("127.0.0.2", 0)) as other:
        assert other.recv(8) == b"SSH-2.0-"


def test_a_flood_of_dear_key_exchanges_is_cut_short(start_gateway: StartGateway, connect: Connect) -> None:
    """CVE-2002-20001: clients that compute nothing and let the server compute, one connection after the other."""
    gateway = start_gateway(rate_exempt=("127.0.0.1",), connections_per_minute=1, connection_burst=10)
    lists = Message()
    lists.add_bytes(b"\x14" + bytes(16))
    for names in (
        ["diffie-hellman-group16-sha512"], ["ssh-ed25519"], *[["aes256-ctr"]] * 2, *[["hmac-sha2-256"]] * 2,
        *[["none"]] * 2, [], [],
    ):  # fmt: skip
        lists.add_list(names)
    lists.add_bytes(bytes(5))
    share = Message()
    share.add_byte(b"\x1e")
    share.add_mpint(2**4000 + 1)
    hello = b"SSH-2.0-flood\r\n" + b"".join(map(packet, (lists.asbytes(), share.asbytes())))
    client = sftp(connect(gateway, "ann", PASSWORD))
    served = 0
    for _ in range(30):
        with socket.create_connection(gateway.address, timeout=20, source_address=("127.0.0.2", 0)) as flood:
            flood.sendall(hello)
            served += flood.makefile("rb").readline().startswith(b"SSH-2.0-")
            assert client.listdir("/") == []
    assert 10 <= served <= 12
    assert connect(gateway, "ann", PASSWORD).is_authenticated()


def packet(payload: bytes) -> bytes:
    """Wrap a payload as it travels before there are keys."""
    padding = 12 - (len(payload) + 1) % 8
    return struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)


def test_connections_that_have_not_signed_in_are_bounded(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway(max_unauthenticated=2)
    first, _ = connect(gateway), connect(gateway)
    assert first_line(gateway) == b"too many connections that have not signed in\r\n"
    first.auth_password("ann", PASSWORD)
    sftp(first)
    assert first_line(gateway).startswith(b"SSH-2.0-")


def test_sessions_of_one_user(start_gateway: StartGateway, connect: Connect, log_lines: LogLines) -> None:
    users = (
        UserConfig(name="ann", password_hash=PASSWORD_HASH, url="mem://", max_sessions=1),
        UserConfig(name="bob", password_hash=PASSWORD_HASH, url="mem://"),
    )
    gateway = start_gateway(users=users)
    first = connect(gateway, "ann", PASSWORD)
    second = connect(gateway)
    with contextlib.suppress(paramiko.SSHException, EOFError):
        second.auth_password("ann", PASSWORD)
    second.join(30)
    assert not second.is_active()
    assert log_lines("login_refused", 1)[0]["reason"] == "too many sessions of this user"
    assert connect(gateway, "bob", PASSWORD).is_active()
    first.close()
    first.join(30)
    log_lines("logout", 1)
    third = connect(gateway, "ann", PASSWORD)
    assert third.open_session(timeout=30)


def test_connections_beyond_the_file_descriptors_are_let_go(
    start_gateway: StartGateway,
    connect: Connect,
    log_lines: LogLines,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway = start_gateway()
    before = connect(gateway, "ann", PASSWORD)
    none_left = OSError(errno.EMFILE, "Too many open files")
    with monkeypatch.context() as patched:
        patched.setattr("sftp_gateway.network.wake_up.os.pipe", Mock(side_effect=none_left))
        assert first_line(gateway) == b""
        assert log_lines("no_login", 1)[0]["reason"] == "Too many open files"
    with monkeypatch.context() as patched:
        tried: list[float] = []

        def accept(_: socket.socket) -> None:
            tried.append(time.monotonic())
            raise none_left

        patched.setattr(socket.socket, "accept", accept)
        with socket.create_connection(gateway.address, timeout=20):
            eventually(lambda: len(tried) == 2)
        assert "Too many open files; raise the limit of open files" in caplog.text
        assert tried[1] - tried[0] > 0.9, "it tried again and again, and logged each time"
    assert sftp(before).listdir("/") == []
    assert connect(gateway, "ann", PASSWORD).is_authenticated()


def test_a_connection_that_cannot_be_counted_is_told_to_come_later(
    start_gateway: StartGateway, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = start_gateway()
    full = sqlite3.OperationalError("database or disk is full")
    monkeypatch.setattr(Gatekeeper, "connect", Mock(side_effect=full))
    assert first_line(gateway) == b"the server is out of order, try again later\r\n"
    (line,) = log_lines("refused", 1)
    assert line["reason"] == "connections cannot be counted in the state folder: database or disk is full"


def test_the_login_deadline(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway(login_seconds=3.0)
    stays = connect(gateway, "ann", PASSWORD)
    with (
        socket.create_connection(gateway.address, timeout=20) as silent,
        socket.create_connection(gateway.address, timeout=20) as drips,
    ):
        with pytest.raises(OSError):
            eventually(lambda: drips.sendall(b"x"), "a client that drips is let in for ever")
        assert seconds_until_closed(silent) < 15
    assert stays.is_active()


def test_a_session_that_asks_for_nothing_is_closed(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway(channel_seconds=2.0)
    transport = connect(gateway, "ann", PASSWORD)
    transport.open_session(timeout=30)
    transport.join(30)
    assert not transport.is_active()


def test_channels_of_one_connection_are_bounded(start_gateway: StartGateway, connect: Connect) -> None:
    transport = connect(start_gateway(), "ann", PASSWORD)
    for kind in ("direct-tcpip", "x11", "forwarded-tcpip"):
        with pytest.raises(paramiko.ChannelException):
            transport.open_channel(kind, ("127.0.0.1", 1), ("127.0.0.1", 1), timeout=30)
    with pytest.raises(paramiko.SSHException):
        transport.request_port_forward("127.0.0.1", 0)


def test_idle_connections_sleep(start_gateway: StartGateway, connect: Connect) -> None:
    """Stock paramiko wakes ten times a second for each connection: 7 % of a core with 200 of them."""
    gateway = start_gateway()
    for _ in range(10):
        sftp(connect(gateway, "ann", PASSWORD))
    threads = [thread for thread in threading.enumerate() if thread.name == "sftp-gateway-transport"]
    assert len(threads) == 10

    def sleep() -> bool:
        before = sum(map(wake_ups, threads))
        time.sleep(1.0)
        return sum(map(wake_ups, threads)) - before < 20

    eventually(sleep)  # they may still be at what the clients did last


def wake_ups(thread: threading.Thread) -> int:
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
