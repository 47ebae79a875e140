"""OpenSSH's own client against the command as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients import client
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH

pytestmark = pytest.mark.interop


@dataclass
class Server:
    """A running `sftp-gateway serve`, and the files that its user sees."""

    process: subprocess.Popen[str]
    port: int
    home: Path
    folder: Path

    def ssh(
        self, program: str, *arguments: str, password: str | None = None, user: str = "ann", stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run an OpenSSH client: with a password typed by a helper program, else with the user's key."""
        options = {
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "StrictHostKeyChecking": "accept-new",
            "IdentityAgent": "none",
            "Port": str(self.port),
            "User": user,
            "ConnectTimeout": "20",
            "NumberOfPasswordPrompts": "1",
        }
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(self.folder)}
        if password is None:
            options |= {"IdentityFile": str(self.folder / "id"), "IdentitiesOnly": "yes", "BatchMode": "yes"}
        else:
            ask = self.folder / "ask"
            ask.write_text(f"#!/bin/sh\necho '{password}'\n")
            ask.chmod(0o700)
            environment |= {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
            options |= {"PubkeyAuthentication": "no", "BatchMode": "no"}
        command = [client(program)]
        for name, value in options.items():
            command += ["-o", f"{name}={value}"]
        return subprocess.run(
            [*command, *arguments],
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def log(self) -> str:
        """Stop the server and return what it logged."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=30)
        assert self.process.returncode == 0
        return errors


def make_key(path: Path) -> None:
    subprocess.run([client("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=60)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    home = tmp_path / "home"
    home.mkdir()
    make_key(tmp_path / "id")
    (tmp_path / "keys").write_text((tmp_path / "id.pub").read_text())
    (tmp_path / "gateway.toml").write_text(
        f"""
        listen = "127.0.0.1:0"
        state_folder = "state"
        url_parameters = "api_host=127.0.0.1:1"  # nothing listens there
        [[users]]
        name = "ann"
        password_hash = "{PASSWORD_HASH}"
        public_keys_file = "keys"
        url = "osfs://{home}"
        """
    )
    command = [sys.executable, "-W", "error", "-m", "sftp_gateway", "serve", "--config", str(tmp_path / "gateway.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        ready = re.fullmatch(r"SFTP gateway ready on 127\.0\.0\.1:(\d+), host key ssh-ed25519 SHA256:\S{43}\n", line)
        if ready is None:
            process.kill()
            pytest.fail(f"not ready: {line!r} {process.stderr.read() if process.stderr else ''}")
        try:
            yield Server(process, int(ready[1]), home, tmp_path)
        finally:
            process.kill()


@pytest.mark.parametrize("password", [None, PASSWORD], ids=["key", "password"])
def test_sftp_puts_and_gets(server: Server, password: str | None) -> None:
    content = os.urandom(3_000_000)
    (server.folder / "a file.bin").write_bytes(content)
    done = server.ssh(
        "sftp",
        "-b",
        "-",
        "127.0.0.1",
        password=password,
        stdin=f'mkdir "neuer Ordner"\nput "{server.folder}/a file.bin" "neuer Ordner/ü.bin"\n'
        f'get "neuer Ordner/ü.bin" "{server.folder}/back.bin"\nls -la "neuer Ordner"\n',
    )
    assert done.returncode == 0, done.stderr
    assert (server.home / "neuer Ordner" / "ü.bin").read_bytes() == content
    assert (server.folder / "back.bin").read_bytes() == content
    assert " 3000000 " in done.stdout
    log = server.log()
    way = r"password|keyboard-interactive" if password else r'"publickey SHA256:\S+"'
    assert re.search(rf"INFO login session=1 from=127\.0\.0\.1 user=ann method=({way}) client=.OpenSSH_", log)
    assert re.search(r'INFO upload .* path="/neuer Ordner/ü.bin" bytes=3000000 seconds=\S+ rate=\S+ result=ok\n', log)
    assert re.search(r"INFO download .* bytes=3000000 .* result=ok\n", log)
    assert PASSWORD not in log


def test_scp_copies(server: Server) -> None:
    (server.folder / "up").write_text("hello")
    assert server.ssh("scp", str(server.folder / "up"), "127.0.0.1:there").returncode == 0
    assert (server.home / "there").read_text() == "hello"
    assert server.ssh("scp", "127.0.0.1:there", str(server.folder / "down")).returncode == 0
    assert (server.folder / "down").read_text() == "hello"


def test_the_cipher_is_aes_gcm_and_the_key_exchange_strict(server: Server) -> None:
    done = server.ssh("ssh", "-v", "127.0.0.1", "true")
    assert "kex: server->client cipher: aes128-gcm@openssh.com" in done.stderr
    assert "kex: client->server cipher: aes128-gcm@openssh.com" in done.stderr


def test_a_client_that_insists_on_aes_ctr_comes_in(server: Server) -> None:
    assert server.ssh("sftp", "-c", "aes256-ctr", "-b", "-", "127.0.0.1", stdin="ls\n").returncode == 0


@pytest.mark.parametrize("command", [["id"], ["-t", "id"], []], ids=["exec", "exec with a terminal", "shell"])
def test_commands_and_shells_are_refused(server: Server, command: list[str]) -> None:
    options, words = command[:-1], command[-1:]
    done = server.ssh("ssh", *options, "127.0.0.1", *words)
    assert done.returncode == 1
    assert "This server offers SFTP only." in done.stdout + done.stderr


def test_forwarding_is_refused(server: Server) -> None:
    done = server.ssh("ssh", "-o", "ExitOnForwardFailure=yes", "-N", "-R", "0:127.0.0.1:1", "127.0.0.1")
    assert done.returncode != 0
    assert "remote port forwarding failed" in done.stderr
    done = server.ssh("ssh", "-W", "127.0.0.1:1", "127.0.0.1")
    assert done.returncode != 0
    assert "administratively prohibited: This server offers SFTP only." in done.stderr


def test_scp_without_sftp_is_told_what_to_do(server: Server) -> None:
    (server.folder / "up").write_text("hello")
    done = server.ssh("scp", "-O", str(server.folder / "up"), "127.0.0.1:there")
    assert done.returncode == 1
    assert "This server offers SFTP only. Use scp without -O." in done.stderr


def test_a_wrong_password_is_refused(server: Server) -> None:
    done = server.ssh("sftp", "-b", "-", "127.0.0.1", password="battery staple")
    assert done.returncode != 0
    assert "Permission denied" in done.stderr
    log = server.log()
    assert log.count("WARNING login_failed") >= 1
    assert 'reason="wrong password"' in log
    assert "battery" not in log


def test_an_unknown_key_is_refused(server: Server) -> None:
    for old in ("id", "id.pub"):
        (server.folder / old).unlink()
    make_key(server.folder / "id")
    done = server.ssh("sftp", "-b", "-", "127.0.0.1")
    assert done.returncode != 0
    assert "Permission denied" in done.stderr
    assert (
        'WARNING login_failed session=1 from=127.0.0.1 user=ann method=publickey reason="no accepted key: SHA256:'
        in (server.log())
    )


def test_dropbox_down_is_said_to_the_client(server: Server) -> None:
    """Not that the password is wrong: nobody knows."""
    done = server.ssh("sftp", "-b", "-", "127.0.0.1", user="KEY~APPSECRET", password="TOKEN")
    assert done.returncode != 0
    assert "Dropbox cannot be reached, try again later" in done.stderr
    assert "Permission denied" not in done.stderr
    log = server.log()
    assert re.search(
        r'ERROR login_refused session=1 from=127.0.0.1 user=KEY~\*\*\* reason="Dropbox cannot be reached', log
    )
    assert log.count("\n") == 1
    assert log.count("cannot be reached") == 1
    assert "APPSECRET" not in log
    assert "TOKEN" not in log
