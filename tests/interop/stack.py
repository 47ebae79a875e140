"""The whole stack as foreign clients meet it: an emulated Dropbox, a gateway over it, a folder of the client's."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import paramiko
from paramiko import PKey

from fs_dropbox.emulator import Emulator
from fs_dropbox.emulator.control.control import Control
from sftp_gateway import GatewayConfig, SFTPGateway, UserConfig
from sftp_gateway.write_back.journal import Journal
from tests.clients import client
from tests.passwords import PASSWORD as PASSWORD
from tests.passwords import PASSWORD_HASH as PASSWORD_HASH
from tests.waiting import eventually

TIMEOUT_SECONDS = 120.0
MIB = 1 << 20

COMMITS = ("files/upload", "files/upload_session/finish", "files/upload_session/finish_batch_v2")
"""The calls by which files become visible in Dropbox."""

KEY = "box"
"""The host alias of ssh's configuration by which ann signs in with her key."""
TYPED = "box-typed"
"""The one by which somebody signs in with a password."""


@dataclass(frozen=True)
class Done:
    """What a program left when it ended."""

    code: int
    out: str
    err: str


def run(
    command: Iterable[str | os.PathLike[str]],
    *,
    stdin: str = "",
    environment: dict[str, str] | None = None,
    folder: Path | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> Done:
    """Run a program and all that it starts in a process group of its own, which is gone when this returns."""
    with start(command, environment=environment, folder=folder) as process:
        out, err = process.communicate(stdin, timeout)
        return Done(process.returncode, out, err)


@contextlib.contextmanager
def start(
    command: Iterable[str | os.PathLike[str]],
    *,
    environment: dict[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Start a program; whatever of its process group is left at the end of the context is killed."""
    with subprocess.Popen(
        [os.fspath(word) for word in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
        cwd=folder,
        text=True,
        errors="backslashreplace",
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file below a local folder, by its path there."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest(path.read_bytes()) for path in files}


def make_tree(folder: Path) -> dict[str, str]:
    """Write files of awkward names and sizes below a folder; return their digests by path."""
    sizes = {
        "empty": 0,
        "one": 1,
        "block-1": 32767,
        "block": 32768,
        "block+1": 32769,
        "with space/a file with  spaces.txt": 10,
        "with space/#hash & 100% [brackets] 'quotes'.txt": 11,
        "Grüße/京都の庭.png": 12_345,
        "Grüße/naïve 🙂.txt": 3,
        "deep/er/and/deeper/file": 1000,
        "mebibyte": MIB,
        "big/nine mebibytes": 9 * MIB,
    }
    for path, size in sizes.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(os.urandom(size))
    (folder / "empty folder").mkdir()
    return digests(folder)


def url_parameters(emulator: Emulator) -> str:
    """What leads the logins with credentials of an app to the emulator."""
    return f"api_host={quote(emulator.host)}&ca_certs={quote(str(emulator.ca_file), safe='')}"


class Stack:
    """A running emulator and the address of a gateway over it. ann has a key, bob the password `PASSWORD`."""

    def __init__(self, emulator: Emulator, folder: Path, *, write_back: bool = False) -> None:
        self.emulator = emulator
        self.folder = folder
        self.write_back = write_back
        self.port = 0
        if not (folder / "id").exists():
            done = run([client("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", folder / "id"])
            assert done.code == 0, done.err
        self.ssh_config = folder / "ssh_config"

    @property
    def control(self) -> Control:
        """Dropbox as somebody else sees it when all that was acknowledged has been delivered, which this hurries up."""
        for folder in (self.folder / "state" / "journal").glob("*"):
            with contextlib.closing(Journal(folder, create=False)) as journal:
                if journal.is_live("/"):
                    journal.hurry("/")
                    eventually(lambda: not journal.is_live("/"), "what was acknowledged is not delivered")
        return self.emulator.control

    def commits(self) -> int:
        """How many calls have made files visible in Dropbox so far, whatever still waits."""
        calls = self.emulator.control.calls()
        return sum(calls[route] for route in COMMITS)

    @property
    def public_key(self) -> str:
        return (self.folder / "id.pub").read_text()

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the gateway's host key."""
        return PKey.from_path(self.folder / "state" / "host_key_ed25519").fingerprint

    def users(self) -> tuple[UserConfig, ...]:
        url = self.emulator.fs_url
        return (
            UserConfig(name="ann", public_keys=(self.public_key,), url=url, write_back=self.write_back),
            UserConfig(name="bob", password_hash=PASSWORD_HASH, url=url, write_back=self.write_back),
        )

    def config(self, **settings: Any) -> GatewayConfig:
        defaults = {
            "listen": "127.0.0.1:0",
            "state_folder": str(self.folder / "state"),
            "drain_seconds": 0.0,
            "url_parameters": url_parameters(self.emulator),
            "users": self.users(),
        }
        return GatewayConfig(**{**defaults, **settings})

    def reach(self, port: int) -> None:
        """Lead the clients to a gateway on a port of the loopback."""
        self.port = port
        self.ssh_config.write_text(
            f"""
            Host {KEY}
                User ann
                IdentityFile {self.folder}/id
                IdentitiesOnly yes
                BatchMode yes
            Host {TYPED}
                PubkeyAuthentication no
                NumberOfPasswordPrompts 1
            Host *
                HostName 127.0.0.1
                Port {port}
                UserKnownHostsFile {self.folder}/known_hosts
                GlobalKnownHostsFile /dev/null
                StrictHostKeyChecking accept-new
                IdentityAgent none
                ConnectTimeout 20
            """
        )

    # OpenSSH.

    def ssh_command(self, program: str, *arguments: str | os.PathLike[str]) -> list[str | os.PathLike[str]]:
        return [client(program), "-F", self.ssh_config, *arguments]

    def ssh(self, program: str, *arguments: str | os.PathLike[str], stdin: str = "", timeout: float = 60.0) -> Done:
        """Run ssh or scp, as ann with her key where the host is `KEY`."""
        return run(self.ssh_command(program, *arguments), stdin=stdin, folder=self.folder, timeout=timeout)

    def type_password(self, user: str, password: str, program: str = "sftp", stdin: str = "ls\n") -> Done:
        """Sign in as somebody with a password that a helper types, and run a batch."""
        (self.folder / "ask").write_text(f"#!/bin/sh\necho '{password}'\n")
        (self.folder / "ask").chmod(0o700)
        environment = {"SSH_ASKPASS": str(self.folder / "ask"), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
        # sftp -b switches passwords off, but for this option in front of it.
        command = self.ssh_command(program, "-o", "BatchMode=no", "-o", f"User={user}", "-b", "-", TYPED)
        return run(command, stdin=stdin, environment=environment, folder=self.folder)

    def sftp(self, *lines: str, timeout: float = TIMEOUT_SECONDS) -> str:
        """Run a batch in the client's folder, which must succeed; return what it printed."""
        done = self.try_sftp(*lines, timeout=timeout)
        assert done.code == 0, done.out + done.err
        return done.out

    def try_sftp(self, *lines: str, timeout: float = TIMEOUT_SECONDS) -> Done:
        batch = "".join(f"{line}\n" for line in lines)
        return run(self.ssh_command("sftp", "-b", "-", KEY), stdin=batch, folder=self.folder, timeout=timeout)

    @contextlib.contextmanager
    def connection(self) -> Iterator[paramiko.SFTPClient]:
        """Sign in as ann with paramiko; closing the transport's socket in the middle is allowed."""
        transport = paramiko.Transport(("127.0.0.1", self.port))
        try:
            transport.sock.setsockopt(  # type: ignore[union-attr]
                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
            )
            transport.start_client(timeout=20)
            transport.auth_publickey("ann", paramiko.Ed25519Key.from_private_key_file(str(self.folder / "id")))
            sftp = paramiko.SFTPClient.from_transport(transport)
            assert sftp is not None
            sftp.get_channel().settimeout(60.0)  # type: ignore[union-attr]
            yield sftp
        finally:
            transport.close()
            transport.join(10)

    @property
    def asyncssh(self) -> dict[str, Any]:
        """The arguments of asyncssh.connect by which ann signs in."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "username": "ann",
            "client_keys": [str(self.folder / "id")],
            "known_hosts": None,
            "config": None,
            "agent_path": None,
        }

    # What is in Dropbox.

    def stored(self, folder: str = "") -> dict[str, str]:
        """Return the digest of every file below a folder of Dropbox, by its path there."""
        files = (path for path, size in self.control.tree(folder).items() if size is not None)
        return {path[len(folder) + 1 :]: digest(self.control.read(path)) for path in files}

    def write(self, name: str, content: bytes) -> Path:
        """Write a file of the client's."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(content)
        return self.folder / name


class GatewayProcess:
    """`sftp-gateway serve` as a process, started again as often as a test wants, always with the same state."""

    def __init__(self, stack: Stack, **settings: str | float) -> None:
        self._stack = stack
        self._file = stack.folder / "gateway.toml"
        self._log = stack.folder / "gateway.log"
        self._process: subprocess.Popen[str] | None = None
        lines = [
            'listen = "127.0.0.1:0"',
            'state_folder = "state"',
            f'url_parameters = "{url_parameters(stack.emulator)}"',
            *(f"{name} = {value!r}" for name, value in {"drain_seconds": 0.0, **settings}.items()),
        ]
        for user in stack.users():
            lines += ["[[users]]", f'name = "{user.name}"', f'url = "{user.url}"']
            lines += ["write_back = true"] if user.write_back else []
            lines += [f'password_hash = "{user.password_hash}"'] if user.password_hash else []
            lines += [f'public_keys = ["{user.public_keys[0].strip()}"]'] if user.public_keys else []
        self._file.write_text("\n".join(lines))

    def start(self) -> None:
        command = [sys.executable, "-W", "error", "-m", "sftp_gateway", "serve", "--config", str(self._file)]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        ready = re.match(r"SFTP gateway ready on 127\.0\.0\.1:(\d+)", line)
        assert ready is not None, f"not ready: {line!r} {self.log()}"
        self._stack.reach(int(ready[1]))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def peak_memory(self) -> int:
        """The most bytes that it had in memory so far."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for its end and return its exit code."""
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self._process.wait(timeout)

    def log(self) -> str:
        """What all runs have logged so far."""
        return self._log.read_text()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self.wait()


@contextlib.contextmanager
def serving(stack: Stack, **settings: Any) -> Iterator[SFTPGateway]:
    """Run a gateway in this process, and lead the clients to it."""
    with SFTPGateway(stack.config(**settings)) as gateway:
        stack.reach(gateway.address[1])
        yield gateway
