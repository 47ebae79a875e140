"""The commands that look at users and sessions of a running gateway, as processes; settings taken over by SIGHUP."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
from pathlib import Path
from typing import Any, NoReturn

import paramiko
import pytest

from sftp_gateway import UserConfig
from sftp_gateway.reports.control import ControlSocket, ask_all, socket_path
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, Connect, LogLines, StartGateway
from tests.sftp_gateway.connections import sftp
from tests.sftp_gateway.program import USER, Running, begin, call, one_line, running
from tests.waiting import eventually

# sessions


@pytest.mark.parametrize("processes", [1, 2])
def test_sessions_are_listed_and_ended(tmp_path: Path, connect: Connect, processes: int) -> None:
    with running(tmp_path, f"processes = {processes}") as gateway:
        assert call("sessions", "--config", gateway.config).stdout == "nobody is signed in\n"
        transports = [connect(gateway, "ann", PASSWORD) for _ in range(3)]
        file = sftp(transports[0]).open("/report.csv", "w")
        done = call("sessions", "--config", gateway.config)
        assert len(done.stdout.splitlines()) == 4
        assert "/report.csv (writing)" in done.stdout
        rows = json.loads(call("sessions", "--config", gateway.config, "--json").stdout)
        assert {row["user"] for row in rows} == {"ann"}
        assert len({row["session"] for row in rows}) == 3
        assert all(row["idle_seconds"] <= row["seconds"] + 1 for row in rows)
        (busy,) = (row for row in rows if row["files"])
        assert busy["from"] == "127.0.0.1"
        assert busy["client"].startswith("paramiko")
        done = call("sessions", "--config", gateway.config, "--kick", busy["session"])
        assert done.stdout == f"ended: {busy['session']}\n"
        transports[0].join(20)
        assert not transports[0].is_active()
        assert transports[1].is_active()
        assert transports[2].is_active()
        ended = json.loads(call("sessions", "--config", gateway.config, "--kick", "ann", "--json").stdout)["ended"]
        assert sorted(ended) == sorted(row["session"] for row in rows if row is not busy)
        assert "no session" in one_line(call("sessions", "--config", gateway.config, "--kick", "ann"))
        assert 'reason="ended by the administrator"' in gateway.log.read_text()
        with contextlib.suppress(OSError, EOFError):
            file.close()
    assert "no gateway that runs" in one_line(call("sessions", "--config", gateway.config))


def test_the_control_socket_is_for_its_owner_alone(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = start_gateway()
    path = socket_path(tmp_path / "state", gateway.address[1], 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert gateway.stop()
    assert not path.exists()


def test_a_long_path_and_a_stale_socket_do_not_matter(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    path = socket_path(folder, 22, 0)
    for _ in range(2):
        control = ControlSocket(path, lambda request: {"seen": request["command"]})
        assert ask_all(folder, {"command": "it"}) == [{"seen": "it"}]
        control.close()
        path.touch()  # as a crash leaves it
    assert ask_all(folder, {"command": "it"}) == []


def test_who_ends_late_leaves_the_socket_of_a_successor(tmp_path: Path) -> None:
    """As the processes of a gateway do that was killed, once their transfers are done."""
    path = socket_path(tmp_path, 22, 0)
    first = ControlSocket(path, lambda _: {"answer": 1})
    second = ControlSocket(path, lambda _: {"answer": 2})
    try:
        first.close()
        assert ask_all(tmp_path, {"command": "it"}) == [{"answer": 2}]
    finally:
        second.close()
    assert not path.exists()


def test_junk_at_the_control_socket_changes_nothing(tmp_path: Path) -> None:
    path = socket_path(tmp_path, 22, 0)
    control = ControlSocket(path, lambda request: {"answer": request["command"]})
    try:
        for junk in (b"\n", b"[]\n", b"{}\n", b"\xff\n", b"x" * 100_000):
            with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
                sock.settimeout(20)
                sock.connect(os.path.relpath(path))
                sock.sendall(junk)
                assert b"error" in sock.recv(1000)
        assert ask_all(tmp_path, {"command": "it"}) == [{"answer": "it"}]
    finally:
        control.close()


def test_a_gateway_that_fails_to_answer_is_one_line(tmp_path: Path) -> None:
    def fail(_: object) -> NoReturn:
        raise RuntimeError("a bug")

    control = ControlSocket(socket_path(tmp_path, 22, 0), fail)
    try:
        for arguments in ((), ("--kick", "ann"), ("--json",)):
            said = one_line(call("sessions", "--state-folder", tmp_path, *arguments))
            assert "the gateway failed to answer; see its log" in said
    finally:
        control.close()


# users


def test_users_are_listed_with_their_last_login(tmp_path: Path, connect: Connect) -> None:
    second = (
        '[[users]]\nname = "scanner"\npublic_keys = ["k"]\nurl = "mem://"\nroot = "/Scans"\nrights = "write-only"\n'
    )
    with running(tmp_path, users=USER + second) as gateway:
        connect(gateway, "ann", PASSWORD)

        def listed() -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = json.loads(call("users", "--config", gateway.config, "--json").stdout)
            return rows if rows[0]["last_login"] else []

        rows = eventually(listed, "the login is not listed", 90)  # each look starts a program
    assert rows[0]["last_login"]["from"] == "127.0.0.1"
    assert rows[0]["last_login"]["method"] == "password"
    assert rows[1]["last_login"] is None
    assert (rows[1]["root"], rows[1]["rights"], rows[1]["signs_in_with"]) == ("/Scans", "write-only", ["public keys"])
    shown = call("users", "--config", gateway.config).stdout.splitlines()
    assert re.fullmatch(r"ann +/ +read-write +a password +20\S+ from 127\.0\.0\.1", shown[1])
    assert re.fullmatch(r"scanner +/Scans +write-only +public keys +never", shown[2])


# Secrets in files of their own.


def test_secrets_come_from_files_that_a_variable_leads_to(tmp_path: Path, connect: Connect) -> None:
    """As with systemd's LoadCredential, which sets CREDENTIALS_DIRECTORY."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "hash").write_text(PASSWORD_HASH + "\n")
    (credentials / "url").write_text("mem://\n")
    config = tmp_path / "gateway.toml"
    config.write_text(
        'listen = "127.0.0.1:0"\nstate_folder = "state"\n[[users]]\nname = "ann"\n'
        'password_hash_file = "$CREDENTIALS_DIRECTORY/hash"\nurl_file = "${CREDENTIALS_DIRECTORY}/url"\n'
    )
    told = call("check-config", config).stderr.splitlines()
    assert len(told) == 2
    assert str(tmp_path / "$CREDENTIALS_DIRECTORY/hash") in told[0]
    assert str(tmp_path / "${CREDENTIALS_DIRECTORY}/url") in told[1]
    process, port = begin(config, CREDENTIALS_DIRECTORY=str(credentials))
    with process:

        class Gateway:
            address = ("127.0.0.1", port)

        assert sftp(connect(Gateway, "ann", PASSWORD)).listdir("/") == []
        process.terminate()


def test_an_empty_hash_file_lets_nobody_in(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines, tmp_path: Path
) -> None:
    (tmp_path / "hash").write_text("\n")
    users = (UserConfig(name="ann", password_hash_file=str(tmp_path / "hash"), url="mem://"),)
    gateway = start_gateway(users=users)
    with pytest.raises((paramiko.SSHException, EOFError)):
        connect(gateway, "ann", "")
    (line,) = log_lines("login_refused", 1)
    assert line["reason"].endswith(f"{tmp_path}/hash: holds no hash")


# Reloading.


def test_sighup_takes_users_and_limits_over(tmp_path: Path, connect: Connect) -> None:
    bob = USER.replace("ann", "bob")
    eve = USER.replace("ann", "eve")
    with running(tmp_path, users=USER + bob + eve) as gateway:
        stays, removed, changed = (connect(gateway, name, PASSWORD) for name in ("ann", "bob", "eve"))
        file = sftp(stays).open("/under way", "w")
        file.write(b"1")
        eve = eve.replace("mem://", 'mem://"\nrights = "read-only').replace('read-only"', 'read-only"')
        gateway.write(
            USER + "max_sessions = 9\n" + eve + USER.replace("ann", "new"), "max_connections = 2\nworkers = 3"
        )
        log = gateway.hang_up("users=3 sessions_ended=2")
        assert 'setting=workers reason="takes effect after a restart"' in log
        for transport in (removed, changed):
            transport.join(20)
            assert not transport.is_active()
        file.write(b"2")
        file.close()
        assert sftp(stays).stat("/under way").st_size == 2

        def let_in() -> bool:
            with contextlib.suppress(
                paramiko.SSHException, EOFError, OSError
            ):  # those who left may count a moment more
                connect(gateway, "new", PASSWORD)
                return True
            return False

        eventually(let_in)
        with socket.create_connection(gateway.address, timeout=20) as third:
            assert third.recv(100) == b"too many connections\r\n"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_bad_file_changes_nothing_and_is_said(tmp_path: Path, connect: Connect, processes: int) -> None:
    with running(tmp_path, f"processes = {processes}") as gateway:
        transport = connect(gateway, "ann", PASSWORD)
        gateway.write('[[users]]\nname = "bob"\n')
        log = gateway.hang_up("reload_failed")
        assert f"{gateway.config}:5: user bob: no url is given" in log
        assert "everything stays as it was" in log
        assert transport.is_active()
        connect(gateway, "ann", PASSWORD)
        gateway.write(USER.replace("ann", "carl"), f"processes = {processes}")
        gateway.hang_up("users=1 sessions_ended=")
        transport.join(20)
        assert not transport.is_active()


def test_sighup_changes_hooks_and_the_log(tmp_path: Path, connect: Connect) -> None:
    with running(tmp_path) as gateway:
        hook = f'[[hooks]]\nevents = ["login"]\ncommand = ["/usr/bin/touch", "{tmp_path}/told"]\n'
        gateway.write(USER + hook, 'log_file = "new.log"\nlog_format = "json"')
        gateway.process.send_signal(signal.SIGHUP)
        gateway.log = tmp_path / "new.log"
        gateway.logged('"sessions_ended": 0')
        connect(gateway, "ann", PASSWORD)
        eventually((tmp_path / "told").exists)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("late", ["log_file", "secret_file"])
def test_what_fails_late_changes_nothing_either(tmp_path: Path, connect: Connect, late: str, processes: int) -> None:
    """Neither the log nor the users, nor what a process gets that takes the place of another afterwards."""
    hook = '[[hooks]]\nevents = ["login"]\nurl = "http://127.0.0.1:1/"\nsecret_file = "/nowhere/secret"\n'
    settings = f'processes = {processes}\nlog_level = "debug"\n'
    with running(tmp_path, settings) as gateway:
        before = pids_of(gateway)
        where = "new.log" if late == "secret_file" else "/nowhere/new.log"
        gateway.write(
            USER.replace("ann", "bob") + (hook if late == "secret_file" else ""),
            f'{settings}log_format = "json"\nlog_file = "{where}"',
        )
        log = gateway.hang_up("/nowhere/")
        eventually(lambda: gateway.log.read_text().count("reload_failed") == processes, gateway.log.read_text)
        assert '"event"' not in log
        assert not (tmp_path / "new.log").exists()
        if processes > 1:
            os.kill(before[0], signal.SIGKILL)
            eventually(lambda: pids_of(gateway)[0] != before[0], "it was not replaced")
        for _ in range(2 * processes):
            connect(gateway, "ann", PASSWORD)


def test_a_process_that_takes_the_place_of_another_logs_as_the_others_since_the_last_sighup(
    tmp_path: Path, connect: Connect
) -> None:
    settings = 'processes = 2\nlog_level = "debug"\n'
    with running(tmp_path, settings) as gateway:
        before = pids_of(gateway)
        gateway.write(USER, f'{settings}log_format = "json"\nlog_file = "new.log"')
        gateway.process.send_signal(signal.SIGHUP)
        gateway.log = tmp_path / "new.log"
        eventually(lambda: gateway.log.exists() and gateway.log.read_text().count('"sessions_ended": 0') == 2)
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: gateway.log.read_text().count('"process_started"') == 2, gateway.log.read_text)
        connect(gateway, "ann", PASSWORD)
        gateway.logged('"event": "login"')


def pids_of(gateway: Running) -> dict[int, int]:
    """The pid of each process of a gateway by its number, the latest."""
    found = re.findall(r"process_started process=(\d+) pid=(\d+)", gateway.log.read_text())
    return {int(number): int(pid) for number, pid in found}
