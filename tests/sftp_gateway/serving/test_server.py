"""The gateway as a server: stopping, what it refuses, what sessions see of each other."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import paramiko
import pytest
from fs.memoryfs import MemoryFS
from paramiko.sftp import CMD_CLOSE, CMD_STAT

from sftp_gateway import GatewayConfig, GatewayError, SFTPGateway, UserConfig
from sftp_gateway.serving.accounts import Accounts
from sftp_gateway.serving.gatekeeper import Gatekeeper
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, Connect, LogLines, StartGateway
from tests.sftp_gateway.connections import seconds_until_closed, sftp, wait_for_no_connection
from tests.waiting import eventually


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
        signed_in._parse_disconnect = lambda m: said.append((m.get_int(), m.get_text()))  # type: ignore[attr-defined]
        assert gateway.stop()
        assert seconds_until_closed(silent) < 15
    signed_in.join(20)
    not_signed_in.join(20)
    assert said == [(11, "the server is stopping")]
    assert not signed_in.is_active()
    assert not not_signed_in.is_active()
    assert len(log_lines("logout", 1)) == 1


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
    transport._sanitize_window_size = lambda size: 0  # type: ignore[attr-defined]
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


def test_who_waits_for_an_answer_is_not_idle(
    start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CLOSE of gigabytes may take longer than a session may be silent."""
    monkeypatch.setattr("sftp_gateway.server._WATCH_SECONDS", 0.02)
    filesystem = AtomicFS()
    gateway = start_gateway(open_filesystem=lambda _url: filesystem)
    transport = connect(gateway, "ann", PASSWORD)
    client = sftp(transport)
    file = client.open("/file", "wb")
    file.write(b"content")
    with filesystem.stalled("commit", "/file"):
        number = client._async_request(type(None), CMD_CLOSE, file.handle)  # type: ignore[attr-defined]
        eventually(lambda: ("commit", "/file") in filesystem.calls)
        (session,) = gateway._connections
        gateway._config = msgspec.structs.replace(gateway._config, idle_seconds=0.1)
        begun = time.monotonic()
        eventually(lambda: not transport.is_active() or time.monotonic() > begun + 1.0)
        assert transport.is_active()
        gateway._config = msgspec.structs.replace(gateway._config, idle_seconds=1.0)
    client._read_response(number)  # type: ignore[attr-defined]
    assert session.idle_seconds < time.monotonic() - begun - 0.9, "its silence counts from before the answer"
    eventually(lambda: not transport.is_active(), "nobody ends it any more")


def test_a_client_that_is_silent_is_asked_whether_it_is_there(
    start_gateway: StartGateway, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that routers on the way do not forget it, and one that is gone is noticed."""
    monkeypatch.setattr("sftp_gateway.ssh.wire.IDLE_SECONDS", 0.1)
    transport = connect(start_gateway(keepalive_seconds=0.2), "ann", PASSWORD)
    transport.set_log_channel("client")
    with caplog.at_level("DEBUG", "client"):
        eventually(lambda: caplog.text.count("Received global request") >= 2, "nobody asks")


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


def test_a_storage_that_hangs_keeps_a_session_once_however_many_channels_wait_for_it(
    start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftp_gateway.serving.session._ABORT_SECONDS", 1.0)
    filesystem = AtomicFS()
    gateway = start_gateway(open_filesystem=lambda _url: filesystem)
    transport = connect(gateway, "ann", PASSWORD)
    clients = [sftp(transport) for _ in range(8)]
    with filesystem.stalled("getinfo", "/f"):
        for client in clients:
            client._async_request(type(None), CMD_STAT, "/f")  # type: ignore[attr-defined]
        eventually(lambda: filesystem.calls.count(("getinfo", "/f")) == 8)
        begun = time.monotonic()
        transport.sock.shutdown(socket.SHUT_RDWR)
        wait_for_no_connection(gateway)
        assert time.monotonic() - begun < 6.0


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
        client._async_request(type(None), CMD_CLOSE, file.handle)  # type: ignore[attr-defined]
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
