"""Listening, limits, deadlines, the one subsystem that there is, and an end that leaves nothing."""

from __future__ import annotations

import contextlib
import errno
import socket
import sqlite3
import struct
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import paramiko
import pytest
from fs.memoryfs import MemoryFS
from paramiko.message import Message
from paramiko.sftp import CMD_CLOSE

from sftp_gateway import GatewayConfig, GatewayError, SFTPGateway, UserConfig
from sftp_gateway.serving.accounts import Accounts
from sftp_gateway.serving.gatekeeper import Gatekeeper
from tests.waiting import eventually

from .atomic_fs import AtomicFS
from .conftest import PASSWORD, PASSWORD_HASH, Connect, LogLines, StartGateway
from .connections import wait_for_no_connection


def first_line(gateway: SFTPGateway) -> bytes:
    with socket.create_connection(gateway.address, timeout=20) as sock:
        return sock.makefile("rb").readline()


def seconds_until_closed(sock: socket.socket) -> float:
    started = time.monotonic()
    sock.settimeout(20)
    while sock.recv(65536):
        pass
    return time.monotonic() - started


# Starting.


def test_a_port_in_use_is_one_clear_line(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = start_gateway()
    host, port = gateway.address
    second = SFTPGateway(GatewayConfig(listen=f"{host}:{port}", state_folder=str(tmp_path)))
    with pytest.raises(GatewayError) as caught:
        second.start()
    assert second.stop()
    assert str(caught.value).startswith(f"cannot listen on {host}:{port}: the port is in use; ")


def test_an_address_of_another_machine_is_one_clear_line(start_gateway: StartGateway) -> None:
    with pytest.raises(GatewayError, match=r"cannot listen on 192\.0\.2\.1:2222: this machine has no such address"):
        start_gateway(listen="192.0.2.1:2222")


def test_a_privileged_port_is_one_clear_line(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket.bind", refuse)
    with pytest.raises(GatewayError, match=r"cannot listen on 127\.0\.0\.1:22: ports below 1024 need privileges"):
        start_gateway(listen="127.0.0.1:22")


def test_a_state_folder_that_cannot_be_made_is_one_clear_line(start_gateway: StartGateway, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GatewayError, match="cannot be made"):
        start_gateway(state_folder=str(tmp_path / "file" / "state"))


def test_the_host_key_stays_the_same(start_gateway: StartGateway, connect: Connect, tmp_path: Path) -> None:
    first, second = start_gateway(), start_gateway()
    assert first.fingerprints == second.fingerprints
    key = connect(second).get_remote_server_key()
    assert second.fingerprints == [f"ssh-ed25519 {key.fingerprint}"]
    assert (tmp_path / "state" / "account_secret").stat().st_mode & 0o777 == 0o600


def test_ipv6(start_gateway: StartGateway, connect: Connect) -> None:
    assert connect(start_gateway(listen="[::1]:0"), "ann", PASSWORD).is_authenticated()


def test_stop_is_idempotent_and_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    gateway = SFTPGateway(GatewayConfig(listen="127.0.0.1:0", state_folder=str(tmp_path)))
    gateway.start()
    with pytest.raises(GatewayError):
        gateway.start()
    address = gateway.address
    assert gateway.stop()
    assert gateway.stop()
    assert set(threading.enumerate()) == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


def test_stopping_tells_clients_and_ends_connections_of_every_state(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    gateway = start_gateway()
    signed_in, not_signed_in = connect(gateway, "ann", PASSWORD), connect(gateway)
    with socket.create_connection(gateway.address, timeout=20) as silent:
        assert silent.recv(100)
        said: list[Any] = []
        signed_in._parse_disconnect = lambda m: said.append((m.get_int(), m.get_text()))
        assert gateway.stop()
        assert seconds_until_closed(silent) < 15
    signed_in.join(20)
    not_signed_in.join(20)
    assert said == [(11, "the server is stopping")]
    assert not signed_in.is_active()
    assert not not_signed_in.is_active()
    assert len(log_lines("logout", 1)) == 1


# Limits.


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
        patched.setattr("sftp_gateway.ssh.packetizer.os.pipe2", Mock(side_effect=none_left))
        assert first_line(gateway) == b""
        assert log_lines("no_login", 1)[0]["reason"] == "Too many open files"
    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "accept", Mock(side_effect=none_left))
        with socket.create_connection(gateway.address, timeout=20):
            eventually(lambda: "Too many open files; raise the limit of open files" in caplog.text)
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


# SFTP only.


@pytest.mark.parametrize("ask", ["exec_command", "invoke_shell"])
def test_exec_and_shell_are_refused_with_a_message(start_gateway: StartGateway, connect: Connect, ask: str) -> None:
    channel = connect(start_gateway(), "ann", PASSWORD).open_session(timeout=30)
    channel.get_pty()
    if ask == "exec_command":
        channel.exec_command("id")
    else:
        channel.invoke_shell()
    assert channel.makefile_stderr("rb").read() == b"This server offers SFTP only.\r\n"
    assert channel.recv_exit_status() == 1


def test_a_client_without_a_window_cannot_hold_up_the_refusal(start_gateway: StartGateway, connect: Connect) -> None:
    transport = connect(start_gateway(), "ann", PASSWORD)
    transport._sanitize_window_size = lambda size: 0
    channel = transport.open_session(timeout=30)
    channel.exec_command("id")
    assert channel.recv_exit_status() == 1


@pytest.mark.parametrize("name", ["netconf", "", "SFTP", "sftp\0"])
def test_other_subsystems_are_refused(start_gateway: StartGateway, connect: Connect, name: str) -> None:
    channel = connect(start_gateway(), "ann", PASSWORD).open_session(timeout=30)
    with pytest.raises(paramiko.SSHException):
        channel.invoke_subsystem(name)


def test_a_channel_has_one_subsystem(start_gateway: StartGateway, connect: Connect) -> None:
    channel = connect(start_gateway(), "ann", PASSWORD).open_session()
    channel.invoke_subsystem("sftp")
    with pytest.raises(paramiko.SSHException, match="Channel closed"):
        channel.invoke_subsystem("sftp")


def test_agent_and_x11_forwarding_are_refused(start_gateway: StartGateway, connect: Connect) -> None:
    channel = connect(start_gateway(), "ann", PASSWORD).open_session(timeout=30)
    with pytest.raises(paramiko.SSHException):
        channel.request_x11()


# SFTP.


def sftp(transport: paramiko.Transport) -> paramiko.SFTPClient:
    client = paramiko.SFTPClient.from_transport(transport)
    assert client is not None
    return client


def test_two_sessions_of_one_account_see_each_others_files(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    gateway = start_gateway()
    one, two = sftp(connect(gateway, "ann", PASSWORD)), sftp(connect(gateway, "ann", PASSWORD))
    with one.open("/a file", "wb") as file:
        file.write(b"x" * 100_000)
    with two.open("/a file", "rb") as file:
        assert file.read() == b"x" * 100_000
    one.rename("/a file", "/b")
    one.remove("/b")
    assert two.listdir("/") == []
    (upload,) = log_lines("upload", 1)
    assert (upload["user"], upload["path"], upload["bytes"], upload["result"]) == ("ann", "/a file", 100_000, "ok")
    assert log_lines("download", 1)[0]["result"] == "ok"
    assert log_lines("rename", 1)[0]["target"] == "/b"
    assert log_lines("remove", 1)[0]["path"] == "/b"
    one.close()
    two.close()


def test_root_and_rights_of_a_user(start_gateway: StartGateway, connect: Connect, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "in").mkdir(parents=True)
    (home / "secret").write_text("secret")
    (home / "in" / "note").write_text("hello")
    users = tuple(
        UserConfig(name=rights, password_hash=PASSWORD_HASH, url=f"osfs://{home}", root="/in", rights=rights)
        for rights in ("read-write", "read-only", "write-only")
    )
    gateway = start_gateway(users=users)
    reader = sftp(connect(gateway, "read-only", PASSWORD))
    assert reader.listdir("/") == ["note"]
    assert reader.open("/note").read() == b"hello"
    for path in ("/../secret", "/in/note", "../secret"):
        with pytest.raises(OSError):
            reader.stat(path)
    with pytest.raises(PermissionError):
        reader.open("/new", "wb")
    writer = sftp(connect(gateway, "write-only", PASSWORD))
    with writer.open("/drop", "wb") as file:
        file.write(b"dropped")
    assert (home / "in" / "drop").read_bytes() == b"dropped"
    with pytest.raises(PermissionError):
        writer.open("/note", "rb")
    with pytest.raises(PermissionError):
        writer.remove("/note")
    sftp(connect(gateway, "read-write", PASSWORD)).remove("/note")
    assert not (home / "in" / "note").exists()


def test_an_idle_session_is_closed_and_a_busy_one_stays(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway(idle_seconds=3.0)
    idle, busy = connect(gateway, "ann", PASSWORD), connect(gateway, "ann", PASSWORD)
    sftp(idle)
    client = sftp(busy)
    eventually(lambda: (client.listdir("/"), not idle.is_active())[1])
    client.listdir("/")


def test_a_connection_that_breaks_off_ends_its_session(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    gateway = start_gateway()
    transport = connect(gateway, "ann", PASSWORD)
    file = sftp(transport).open("/half", "wb")
    file.write(b"x" * 1000)
    transport.sock.shutdown(socket.SHUT_RDWR)
    wait_for_no_connection(gateway)
    assert log_lines("upload", 1)[0]["result"] == "aborted"
    assert len(log_lines("logout", 1)) == 1
    assert sftp(connect(gateway, "ann", PASSWORD)).listdir("/") in ([], ["half"])


def test_a_filesystem_stays_open_until_what_was_sent_is_stored(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a client that has sent CLOSE and left."""
    looks: list[object] = []
    close_idle = Accounts.close_idle
    monkeypatch.setattr(Accounts, "close_idle", lambda self: looks.append(close_idle(self)))
    filesystem = AtomicFS()
    gateway = start_gateway(open_filesystem=lambda _url: filesystem, account_idle_seconds=0.0)
    transport = connect(gateway, "ann", PASSWORD)
    client = sftp(transport)
    file = client.open("/file", "wb")
    file.write(b"content")
    with filesystem.stalled("commit", "/file"):
        client._async_request(type(None), CMD_CLOSE, file.handle)
        eventually(lambda: ("commit", "/file") in filesystem.calls)
        transport.sock.shutdown(socket.SHUT_RDWR)
        seen = len(looks)
        eventually(lambda: len(looks) > seen + 2)
        assert not filesystem.isclosed()
    assert log_lines("upload", 1)[0]["result"] == "ok"
    eventually(filesystem.isclosed)


def test_stopping_lets_a_transfer_finish(start_gateway: StartGateway, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    user = UserConfig(name="ann", password_hash=PASSWORD_HASH, url=f"osfs://{tmp_path / 'home'}")
    gateway = start_gateway(users=(user,))
    file = sftp(connect(gateway, "ann", PASSWORD)).open("/big", "wb")
    file.write(b"x" * 32768)
    stopping = threading.Thread(target=gateway.stop, args=(20.0,))
    stopping.start()
    with pytest.raises(ConnectionError):
        eventually(lambda: socket.create_connection(gateway.address, timeout=20).close(), "it still accepts")
    for _ in range(20):
        file.write(b"x" * 32768)
    file.close()
    stopping.join(20)
    assert not stopping.is_alive()
    assert (tmp_path / "home" / "big").stat().st_size == 21 * 32768


class SlowToRename(MemoryFS):
    """A filesystem in which a rename takes until the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def move(self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False) -> None:
        self.asked.set()
        assert self.go_on.wait(20)
        super().move(src_path, dst_path, overwrite, preserve_time)


def test_stopping_lets_a_request_be_answered(start_gateway: StartGateway, connect: Connect) -> None:
    storage = SlowToRename()
    storage.writetext("/a", "x")
    gateway = start_gateway(open_filesystem=lambda url: storage)
    client = sftp(connect(gateway, "ann", PASSWORD))
    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.append(client.rename("/a", "/b")))
    asking.start()
    assert storage.asked.wait(20)
    stopping = threading.Thread(target=gateway.stop, args=(20.0,))
    stopping.start()
    stopping.join(3)  # longer than a client may be silent without being thought idle
    assert stopping.is_alive()
    storage.go_on.set()
    asking.join(20)
    stopping.join(20)
    assert answers == [None]
    assert not stopping.is_alive()


def test_a_connection_that_cannot_be_taken_off_the_counts_is_gone_all_the_same(
    start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = start_gateway()
    transport = connect(gateway, "ann", PASSWORD)

    def refuse(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    problems: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda problem: problems.append(problem.exc_value))
    monkeypatch.setattr(Gatekeeper, "disconnect", refuse)
    transport.close()
    eventually(lambda: not gateway.connections)
    eventually(lambda: [str(problem) for problem in problems] == ["database or disk is full"])
