"""The command as a process: exit codes, one line for each mistake, signals; nothing secret in arguments or output."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import argon2
import paramiko
import pytest

from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH
from tests.sftp_gateway.connections import sftp
from tests.sftp_gateway.program import begin, call, one_line, run, wait_until_refused


@contextmanager
def serving(tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    config = tmp_path / "gateway.toml"
    config.write_text(
        f'listen = "127.0.0.1:0"\nstate_folder = "state"\n'
        f'[[users]]\nname = "ann"\npassword_hash = "{PASSWORD_HASH}"\nurl = "mem://"\n'
    )
    process, port = begin(config, *arguments)
    with process:
        try:
            yield process, port
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("command", "option"), [("serve", "--state-folder"), ("demo", "--folder"), ("check-config", "--state-folder")]
)
def test_who_has_no_home_is_told_to_name_a_folder(
    command: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container that runs as a number nobody knows, and has no HOME."""
    for name in ("HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", Mock(side_effect=KeyError))
    (tmp_path / "gateway.toml").write_text("")
    told = one_line(call(command, *[tmp_path / "gateway.toml"] * (command == "check-config")))
    assert told == f"sftp-gateway: this user has no home folder, and HOME is not set: choose a folder with {option}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as (process, port):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as silent:
            assert silent.recv(100) == b"SSH-2.0-SFTPGateway\r\n"
            process.send_signal(number)
            output, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert (output, (tmp_path / "log").read_text()) == ("", "")


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, "--drain-seconds", "60") as (process, port):
        with paramiko.Transport(("127.0.0.1", port)) as transport:
            transport.connect(username="ann", password=PASSWORD)
            client = sftp(transport)
            busy = threading.Thread(target=list_until_cut_off, args=(client,))
            busy.start()
            process.send_signal(signal.SIGINT)
            wait_until_refused(port)
            assert process.poll() is None  # drained for up to 60 seconds
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
            busy.join(20)
        transport.join(30)


def list_until_cut_off(client: paramiko.SFTPClient) -> None:
    with contextlib.suppress(EOFError, OSError, paramiko.SSHException):
        while True:
            client.listdir("/")


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = call("serve", "--listen", f"127.0.0.1:{port}", "--state-folder", tmp_path)
    assert one_line(done, 1) == (
        f"sftp-gateway: cannot listen on 127.0.0.1:{port}: the port is in use; "
        "stop the other server, or choose another port with --listen\n"
    )


def test_a_status_page_on_a_port_in_use_names_its_own_flag(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = ("serve", "--listen", "127.0.0.1:0", "--metrics", f"127.0.0.1:{port}", "--state-folder", tmp_path)
        told = one_line(call(*arguments), 1)
    assert told.endswith("the port is in use; stop the other server, or choose another port with --metrics\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--listen", "nowhere"], "--listen: 'nowhere' is not ADDRESS:PORT"),
        (["--workers", "many"], "--workers: must be a whole number, 1 or more"),
        (["--config", "/nowhere.toml"], "/nowhere.toml: cannot be read: No such file or directory"),
        (["--state-folder", "/proc/nowhere"], "/proc/nowhere/host_key_ed25519: cannot be made"),
        (["--state-folder", "/etc/passwd"], "cannot be made: /etc/passwd is not a folder; choose another folder"),
    ],
)
def test_a_mistake_in_a_flag_is_one_line(arguments: list[str], said: str) -> None:
    assert said in one_line(call("serve", *arguments))


def test_it_tells_its_version() -> None:
    done = call("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"sftp-gateway \d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize(
    "arguments", [["serve", "--liste", "x"], ["server"], ["serve", "gateway.toml"], ["pending", "lst"]]
)
def test_what_is_not_understood_is_one_line(arguments: list[str]) -> None:
    told = one_line(call(*arguments))
    assert re.fullmatch(r"sftp-gateway: .* \(see sftp-gateway.* --help\)\n", told)


def test_settings_from_the_environment(tmp_path: Path) -> None:
    done = call("serve", SFTP_GATEWAY_STATE_FOLDER=str(tmp_path), SFTP_GATEWAY_WORKERS="0")
    assert one_line(done).startswith("sftp-gateway: SFTP_GATEWAY_WORKERS: must be a whole number, 1 or more")


def test_help_names_every_setting_and_its_default() -> None:
    done = call("serve", "--help")
    assert done.returncode == 0
    for flag in ("--listen", "--credential-url", "--max-connections", "--ban-exempt", "--no-credential-logins"):
        assert flag in done.stdout
    assert "[default: 127.0.0.1:2222]" in done.stdout


@pytest.mark.parametrize("missing", ["paramiko", "msgspec", "argon2", "click"])
def test_a_missing_extra_is_one_line(tmp_path: Path, missing: str) -> None:
    (tmp_path / f"{missing}.py").write_text(f"raise ModuleNotFoundError('No module', name={missing!r})")
    done = run("serve", PYTHONPATH=str(tmp_path))
    assert one_line(done) == (f"sftp-gateway: {missing} is not installed; run: pip install 'fs-dropbox[gateway]'\n")


def test_the_package_imports_without_a_warning_and_without_its_extras(tmp_path: Path) -> None:
    (tmp_path / "paramiko.py").write_text("raise ModuleNotFoundError('No module', name='paramiko')")
    code = "import sftp_gateway; print(sorted(sftp_gateway.__all__))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    assert "SFTPGateway" in done.stdout


def test_hash_password_reads_standard_input() -> None:
    done = run("hash-password", stdin="geheim mit Leerzeichen \n")
    assert done.returncode == 0
    assert argon2.PasswordHasher().verify(done.stdout.strip(), "geheim mit Leerzeichen ")
    assert "everybody" in one_line(run("hash-password", stdin="\n"))
    assert run("hash-password", "secret").returncode == 2


def test_check_config_prints_what_is_in_effect(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        f'max_connections = 7\n[[users]]\nname = "ann"\npassword_hash = "{PASSWORD_HASH}"\n'
        'url = "dropbox://KEY~APPSECRET:TOKEN@/"\nwrite_back = true\nroot = "/Scans"\n'
    )
    done = call("check-config", SFTP_GATEWAY_CONFIG=str(file), SFTP_GATEWAY_WORKERS="5")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert "max_connections = 7" in lines
    assert "workers = 5" in lines
    assert 'listen = "127.0.0.1:2222"  # default' in lines
    assert "user ann: read-write, write-back, in /Scans, signs in with a password" in lines
    assert "APPSECRET" not in done.stdout
    assert "TOKEN" not in done.stdout


def test_check_config_says_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('liste = "x"')
    assert one_line(call("check-config", file)) == (
        f"sftp-gateway: {file}:1: unknown key 'liste'; did you mean 'listen'?\n"
    )
    file.write_text(
        'host_keys = ["key"]\n[[users]]\nname = "ann"\npublic_keys_file = "nowhere"\nurl_env = "NOT_THERE"\n'
    )
    done = call("check-config", file)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"sftp-gateway: {file}: user ann: public_keys_file: {tmp_path}/nowhere: No such file or directory",
        f"sftp-gateway: {file}: user ann: url_env: the variable NOT_THERE is not set here",
        f"sftp-gateway: {file}: host_keys: {tmp_path}/key: there is no such file; "
        "remove the setting to have a key made",
    ]


def test_json_logs(tmp_path: Path) -> None:
    with serving(tmp_path, "--log-format", "json") as (process, port):
        with paramiko.Transport(("127.0.0.1", port)) as transport:
            transport.connect(username="ann", password=PASSWORD)
        transport.join(30)
        process.terminate()
        process.wait(20)
        errors = (tmp_path / "log").read_text()
        assert '"event":"login"' in errors.replace(" ", "")
        assert PASSWORD not in errors


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_stats"), reason="it is not the GNU C library")
def test_threads_do_not_keep_memory_each_for_itself() -> None:
    program = """
import ctypes, threading
from sftp_gateway.commands.means import share_free_memory

share_free_memory()
together = threading.Barrier(8)

def work():
    together.wait()
    taken = [bytes(100_000) for _ in range(20)]
    together.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.count("Arena") == 2
