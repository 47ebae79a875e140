"""Several processes on one port, as administrators start and stop them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH
from tests.sftp_gateway.connections import sftp
from tests.sftp_gateway.program import COMMAND, begin, is_alive, one_line, run, wait_until_refused
from tests.waiting import DEADLINE_SECONDS, eventually


class Crew:
    """A gateway of several processes over a folder."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path, home: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.home = home
        self.askable = len(list((home.parent / "state").glob("control-*.sock")))
        """How many processes had their control socket when the gateway was ready."""
        self.transports: list[paramiko.Transport] = []

    def pids(self) -> dict[int, int]:
        """The pid of each process by its number, the latest."""
        found = re.findall(r"process_started process=(\d+) pid=(\d+)", self.log.read_text())
        return {int(number): int(pid) for number, pid in found}

    def sign_in(self) -> tuple[paramiko.SFTPClient, int]:
        """Return a session, and the number of the process that serves it."""
        before = len(self.logins())
        transport = paramiko.Transport(("127.0.0.1", self.port))
        self.transports.append(transport)
        transport.connect(username="ann", password=PASSWORD)
        client = sftp(transport)
        eventually(lambda: len(self.logins()) > before, "no login was logged")
        return client, self.logins()[-1]

    def logins(self) -> list[int]:
        return [int(number) for number in re.findall(r" login session=(\d+)-", self.log.read_text())]

    def sign_out(self) -> None:
        """End the session that was made last."""
        transport = self.transports.pop()
        number = self.log.read_text().count(" logout session=")
        transport.close()
        transport.join(30)
        eventually(lambda: self.log.read_text().count(" logout session=") > number, "no logout was logged")

    def sign_in_at(self, number: int) -> paramiko.SFTPClient:
        """Sign in until the process of this number serves it."""
        for _ in range(20):
            client, where = self.sign_in()
            if where == number:
                return client
        raise AssertionError(f"process {number} serves nobody")


@contextlib.contextmanager
def crew(tmp_path: Path, *arguments: str, processes: int = 2) -> Iterator[Crew]:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "gateway.toml").write_text(
        f'listen = "127.0.0.1:0"\nstate_folder = "state"\nprocesses = {processes}\nlog_level = "debug"\n'
        f'[[users]]\nname = "ann"\npassword_hash = "{PASSWORD_HASH}"\nurl = "osfs://{home}"\n'
    )
    process, port = begin(tmp_path / "gateway.toml", *arguments)
    with process:
        serving = Crew(process, port, tmp_path / "log", home)
        try:
            eventually(lambda: len(serving.pids()) == processes, "not all processes began")
            yield serving
        finally:
            pids = serving.pids()
            process.kill()
            for transport in serving.transports:
                transport.close()
                if transport.is_alive():
                    transport.join(30)
            eventually(lambda: not any(map(is_alive, pids.values())), "processes outlive their supervisor")


def test_all_processes_serve(tmp_path: Path) -> None:
    with crew(tmp_path, processes=3) as serving:
        for number in range(3):
            serving.sign_in_at(number)
        with serving.sign_in()[0].open("/file", "wb") as file:
            file.write(b"x" * 100_000)
        assert (serving.home / "file").stat().st_size == 100_000


def test_it_is_ready_when_all_processes_can_be_asked(tmp_path: Path) -> None:
    """`sftp-gateway sessions` right after the start found no gateway."""
    with crew(tmp_path, processes=4) as serving:
        assert serving.askable == 4


def test_a_process_that_dies_is_replaced_and_takes_nothing_with_it(tmp_path: Path) -> None:
    with crew(tmp_path) as serving:
        doomed, lucky = serving.sign_in_at(0), serving.sign_in_at(1)
        half = doomed.open("/half", "wb")
        half.set_pipelined(True)
        for _ in range(100):
            half.write(b"x" * 32768)
        eventually(lambda: lucky.stat("/").st_mode is not None and bool(notes(tmp_path)), "nothing was noted")
        kept = lucky.open("/kept", "wb")
        kept.write(b"a" * 32768)
        first = serving.pids()
        os.kill(first[0], signal.SIGKILL)
        eventually(lambda: serving.pids()[0] != first[0], "it was not replaced")
        kept.write(b"b" * 32768)
        kept.close()
        assert (serving.home / "kept").read_bytes() == b"a" * 32768 + b"b" * 32768
        have = lucky.stat("/half").st_size  # through another process than the one that received it
        assert have is not None
        assert 2**20 <= have < 100 * 32768
        with lucky.open("/half", "r+b") as file:
            file.seek(have)
            file.write(b"y" * 1000)
        assert (serving.home / "half").read_bytes() == b"x" * have + b"y" * 1000
        serving.sign_in_at(0).listdir("/")
        assert "process_ended process=0" in serving.log.read_text()
        assert serving.pids()[1] == first[1]


def notes(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "state" / "spool").glob("*/*.json"))


def test_an_upload_cut_off_in_one_process_goes_on_in_another(tmp_path: Path) -> None:
    with crew(tmp_path) as serving:
        one, other = serving.sign_in_at(0), serving.sign_in_at(1)
        file = one.open("/file", "wb")
        file.write(b"x" * 10_001)
        channel = one.get_channel()
        assert channel is not None
        channel.get_transport().sock.close()
        eventually(lambda: "file" in other.listdir("/"), "it is not seen")
        assert other.stat("/file").st_size == 10_000
        with other.open("/file", "r+b") as again:
            again.seek(10_000)
            again.write(b"y")
        assert (serving.home / "file").read_bytes() == b"x" * 10_000 + b"y"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_all_processes(tmp_path: Path, number: signal.Signals) -> None:
    with crew(tmp_path) as serving:
        files = [serving.sign_in_at(index).open(f"/{index}", "wb") for index in range(2)]
        for file in files:
            file.write(b"x" * 32768)
        serving.process.send_signal(number)
        wait_until_refused(serving.port)
        for file in files:
            file.write(b"y" * 32768)
            file.close()
        assert serving.process.wait(DEADLINE_SECONDS) == 0, serving.log.read_text()
        assert [(serving.home / str(index)).stat().st_size for index in range(2)] == [65536, 65536]
        assert not any(map(is_alive, serving.pids().values()))
        assert not list((tmp_path / "state").glob("gate-*"))


def test_a_second_ctrl_c_ends_all_at_once(tmp_path: Path) -> None:
    with crew(tmp_path, "--drain-seconds", "60") as serving:
        file = serving.sign_in()[0].open("/file", "wb")
        file.set_pipelined(True)
        serving.process.send_signal(signal.SIGINT)
        wait_until_refused(serving.port)
        with contextlib.suppress(OSError, EOFError):
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:  # at work, so that it drains
                file.write(b"x" * 1000)
                time.sleep(0.01)
        assert serving.process.poll() is None
        serving.process.send_signal(signal.SIGINT)
        assert serving.process.wait(DEADLINE_SECONDS) == 130


def test_processes_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    with crew(tmp_path) as serving:
        serving.sign_in()
        pids = serving.pids()
        serving.process.kill()
        eventually(lambda: not any(map(is_alive, pids.values())), "they go on")
        wait_until_refused(serving.port)


def greeting(port: int) -> bytes:
    """Return the first line that a new connection gets, and close it."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        return sock.makefile("rb").readline()


def test_limits_hold_for_all_processes_together(tmp_path: Path) -> None:
    with crew(tmp_path, "--max-connections-per-address", "3", "--max-sessions-per-user", "2") as serving:
        first = serving.sign_in()[1]
        for _ in range(20):
            if serving.sign_in()[1] != first:
                break
            serving.sign_out()  # the other process was not quick enough
        else:
            raise AssertionError(f"process {first} serves everybody")
        with pytest.raises((paramiko.SSHException, EOFError, OSError)):
            serving.sign_in()
        assert "too many sessions of this user" in serving.log.read_text()
        with contextlib.ExitStack() as stack:
            third = stack.enter_context(socket.create_connection(("127.0.0.1", serving.port), timeout=20))
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not third.recv(100).startswith(b"SSH-2.0-"):  # until the one that was refused is gone
                assert time.monotonic() < deadline, "its place stays taken"
                third = stack.enter_context(socket.create_connection(("127.0.0.1", serving.port), timeout=20))
            assert greeting(serving.port) == b"too many connections from one address\r\n"


def test_one_port_for_two_gateways_is_one_clear_line(tmp_path: Path) -> None:
    with crew(tmp_path) as serving:
        second = subprocess.run(
            [*COMMAND, "serve", "--listen", f"127.0.0.1:{serving.port}", "--processes=2", "--state-folder", tmp_path],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert "the port is in use" in second.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_a_state_folder_is_one_gateways_at_a_time(tmp_path: Path, processes: int) -> None:
    arguments = "serve", "--listen=127.0.0.1:0", f"--processes={processes}", "--state-folder", tmp_path / "state"
    with crew(tmp_path) as serving:
        said = one_line(run(*arguments), 1)
        assert f"another gateway has this state folder (process {serving.process.pid} on " in said
        serving.sign_in()


PRELOADED = """
import sys
from sftp_gateway import cli
cli.Supervisor.run = lambda supervisor, tell: print("dropbox" in sys.modules) or 0
sys.argv = ["sftp-gateway", "serve", "--config", sys.argv[1]]
cli.main()
"""


@pytest.mark.parametrize(
    ("user", "is_loaded"),
    [
        ("", True),
        (f'password_hash = "{PASSWORD_HASH}"\nurl = "mem://"', False),
        ('public_keys = ["x"]\nurl = "dropbox://a~:b@/"', True),
    ],
)
def test_what_users_need_is_loaded_before_there_are_processes(tmp_path: Path, user: str, is_loaded: bool) -> None:
    """Each of them would load it for itself, at somebody's first login: half a second, and 40 MB for each."""
    (tmp_path / "gateway.toml").write_text(
        'listen = "127.0.0.1:0"\nstate_folder = "state"\nprocesses = 2\n'
        + (f'[[users]]\nname = "ann"\n{user}\n' if user else "")
    )
    done = subprocess.run(
        [sys.executable, "-c", PRELOADED, tmp_path / "gateway.toml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"{is_loaded}\n"
