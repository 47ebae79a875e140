"""`sftp-gateway` as the program that people run: one command and its output, or a gateway that goes on."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from sftp_gateway import cli
from tests.sftp_gateway.conftest import PASSWORD_HASH
from tests.waiting import eventually

COMMAND = [sys.executable, "-W", "error", "-m", "sftp_gateway"]
READY = re.compile(r"SFTP gateway ready on 127\.0\.0\.1:(\d+), host key ssh-ed25519 SHA256:\S{43}\n")


def run(*arguments: str | Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def call(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process: for what it says, where the start of a process would be most of the time."""
    command = ["sftp-gateway", *map(str, arguments)]
    code: object = 0
    with (
        patch.object(sys, "argv", command),
        patch.dict(os.environ, environment),
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def one_line(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """Return the line in which a command that was refused said why."""
    assert done.returncode == code, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def begin(config: Path, *arguments: str, **environment: str) -> tuple[subprocess.Popen[str], int]:
    """Start a gateway; return it and its port once it is ready. What it logs goes to the file `log` beside `config`."""
    log = config.with_name("log")
    command = [*COMMAND, "serve", "--config", str(config), *arguments]
    with log.open("a") as errors:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdout is not None
    ready = READY.fullmatch(process.stdout.readline())
    if ready is None:
        with process:
            process.kill()
        raise AssertionError(f"it is not ready: {log.read_text()}")
    return process, int(ready[1])


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended and is not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_refused(port: int) -> None:
    """Wait until nothing listens on a port any more."""

    def is_refused() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=20).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            pass  # it came just when the port was closed
        return False

    eventually(is_refused, "it still listens")


USER = f'[[users]]\nname = "ann"\npassword_hash = "{PASSWORD_HASH}"\nurl = "mem://"\n'


class Running:
    """A gateway as a process, over `gateway.toml` in a folder of its own."""

    def __init__(self, folder: Path, settings: str, users: str) -> None:
        self.config = folder / "gateway.toml"
        self.write(users, settings)
        self.log = folder / "log"
        self.process, port = begin(self.config)
        self.address = ("127.0.0.1", port)

    def write(self, users: str, settings: str = "") -> None:
        self.config.write_text(f'listen = "127.0.0.1:0"\nstate_folder = "state"\n{settings}\n{users}')
        self.config.chmod(0o600)

    def hang_up(self, expected: str) -> str:
        """Send SIGHUP; return the log once it holds a text."""
        self.process.send_signal(signal.SIGHUP)
        return self.logged(expected)

    def logged(self, expected: str) -> str:
        eventually(lambda: self.log.exists() and expected in self.log.read_text(), self.log.read_text)
        return self.log.read_text()


@contextlib.contextmanager
def running(folder: Path, settings: str = "", users: str = USER) -> Iterator[Running]:
    """Run a gateway for the time of a block; SIGTERM ends it well."""
    made = Running(folder, settings, users)
    try:
        yield made
    finally:
        made.process.terminate()
        assert made.process.stdout is not None
        made.process.stdout.close()
        assert made.process.wait(30) == 0
