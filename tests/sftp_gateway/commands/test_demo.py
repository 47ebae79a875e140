"""`sftp-gateway demo` as a newcomer runs it: no account, one command, files that stay."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import paramiko
import pytest

from fs_dropbox.emulator import Emulator
from tests.sftp_gateway.connections import signed_in

COMMAND = [sys.executable, "-W", "error", "-m", "sftp_gateway", "demo"]


def found(pattern: str, text: str) -> str:
    """Return the group of a pattern that stands somewhere in a text."""
    match = re.search(pattern, text, re.MULTILINE)
    assert match is not None, text
    return match[1]


@dataclass
class Demo:
    """A running demo and what it printed."""

    process: subprocess.Popen[str]
    greeting: str

    @property
    def port(self) -> int:
        """The port in the command that it gave to paste."""
        return int(found(r"^  sftp -P (\d+) demo@127\.0\.0\.1        password: demo$", self.greeting))

    def end(self, number: signal.Signals = signal.SIGINT) -> str:
        """Press Ctrl-C; return what it logged."""
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=30)
        assert self.process.returncode == 0
        assert output == ""
        return errors

    def sftp(self, name: str = "demo", password: str = "demo") -> AbstractContextManager[paramiko.SFTPClient]:
        return signed_in(self.port, name, password)


@contextmanager
def demo(folder: Path, **environment: str) -> Iterator[Demo]:
    command = [*COMMAND, "--folder", str(folder), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            greeting = ""
            while not greeting.endswith("Ctrl-C ends the demo.\n"):
                line = process.stdout.readline()
                if not line:
                    pytest.fail(f"{greeting}{process.stderr.read() if process.stderr else ''}")
                greeting += line
            yield Demo(process, greeting)
        finally:
            process.kill()


def run(*arguments: str | Path, **environment: str) -> str:
    """Run a demo that cannot be; return its one line."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (1, 2), done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_newcomer_finds_files_and_leaves_some(tmp_path: Path) -> None:
    with demo(tmp_path / "demo") as first:
        with first.sftp() as client:
            assert sorted(client.listdir("/")) == ["Documents", "Empty folder", "Photos", "README.txt"]
            assert b"Welcome" in client.open("/README.txt").read()
            assert client.open("/Photos/Summer 2026/京都の庭.png").read(8) == b"\x89PNG\r\n\x1a\n"
            assert client.stat("/Documents/empty.txt").st_size == 0
            with client.open("/Documents/mine.txt", "wb") as file:
                file.write(b"mine")
            client.remove("/README.txt")
        log = first.end()
    assert "INFO login " in log
    assert "Traceback" not in log
    with demo(tmp_path / "demo") as second, second.sftp() as client:
        assert client.open("/Documents/mine.txt").read() == b"mine"
        assert "README.txt" not in client.listdir("/")
        assert found("(SHA256:.*)", first.greeting) == found("(SHA256:.*)", second.greeting)


def test_the_credential_convention_opens_the_same_account(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        user = found(r"^  user:     (\S+~\S+)$", running.greeting)
        token = found(r"^  password: (\S+)$", running.greeting)
        with running.sftp(user, token) as client:
            assert "README.txt" in client.listdir("/")
        with pytest.raises(paramiko.AuthenticationException), running.sftp(user, token[:-1] + "#"):
            pass
        log = running.end()
    assert f"user={user.partition('~')[0]}~*** " in log
    assert 'reason="Dropbox refused the credentials' in log
    assert user.partition("~")[2] not in log
    assert token not in log


def test_settings_for_the_real_dropbox_do_not_lead_it_astray(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:1"
    with demo(tmp_path, https_proxy=nowhere, HTTPS_PROXY=nowhere, DROPBOX_API_HOST="127.0.0.1:1") as running:
        with running.sftp() as client:
            assert "README.txt" in client.listdir("/")
        running.end()


def test_two_demos_of_one_folder_are_one_line(tmp_path: Path) -> None:
    with Emulator(tmp_path / "dropbox"):  # what another demo holds
        assert "another emulator uses this folder" in run("--folder", tmp_path, "--listen", "127.0.0.1:0")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with demo(tmp_path) as running:
        assert running.end(number) == ""


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = run("--folder", tmp_path, "--listen", f"127.0.0.1:{port}")
    assert line.startswith(f"sftp-gateway: cannot listen on 127.0.0.1:{port}: the port is in use; ")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = run("--folder", tmp_path / "file")
    assert line.startswith(f"sftp-gateway: {tmp_path}/file: the demo's files cannot be kept here: ")


def test_a_missing_extra_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "trustme.py").write_text("raise ModuleNotFoundError('No module', name='trustme')")
    line = run("--folder", tmp_path / "demo", PYTHONPATH=str(tmp_path))
    assert line == "sftp-gateway: trustme is not installed; run: pip install 'fs-dropbox[gateway]'\n"


def test_an_address_that_is_none_is_one_line(tmp_path: Path) -> None:
    assert "is not ADDRESS:PORT" in run("--folder", tmp_path, "--listen", "2222")
