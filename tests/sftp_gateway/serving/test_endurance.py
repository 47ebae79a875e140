"""Load and endurance: many sessions for long, files that need new keys on the way; long under `make soak`."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paramiko
import pytest

from fs_dropbox.emulator import Emulator
from sftp_gateway import SFTPGateway, UserConfig
from sftp_gateway.ssh.transport import BoundedPacketizer
from tests.clients import client
from tests.root import ROOT
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, StartGateway
from tests.sftp_gateway.program import begin
from tests.waiting import eventually

MIB = 2**20


def resident(pid: int) -> int:
    """Return the bytes that a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextmanager
def command(tmp_path: Path, url: str) -> Iterator[tuple[int, int]]:
    """Run the command over a filesystem; yields its pid and its port."""
    (tmp_path / "gateway.toml").write_text(
        f'listen = "127.0.0.1:0"\nstate_folder = "state"\nmax_connections_per_address = 500\n'
        f'max_sessions_per_user = 500\nlog_level = "warning"\n'
        f'[[users]]\nname = "ann"\npassword_hash = "{PASSWORD_HASH}"\nurl = "{url}"\n'
    )
    process, port = begin(tmp_path / "gateway.toml")
    with process:
        try:
            yield process.pid, port
        except Exception as error:
            error.add_note((tmp_path / "log").read_text()[-3000:])
            raise
        finally:
            process.terminate()
            assert process.wait(60) == 0, (tmp_path / "log").read_text()[-3000:]


def bear_load(
    tmp_path: Path,
    url: str,
    *,
    sessions: int,
    seconds: float,
    programs: int,
    kept_threads: int = 2,
    kept_files: int = 4,
) -> None:
    with command(tmp_path, url) as (pid, port):
        with paramiko.Transport(("127.0.0.1", port)) as transport:  # what a first session makes for good
            transport.connect(username="ann", password=PASSWORD)
            paramiko.SFTPClient.from_transport(transport).listdir("/")  # type: ignore[union-attr]
            transport.close()
            transport.join(30)
        before = threads(pid), descriptors(pid), resident(pid)
        command_line = [
            sys.executable, "-m", "tests.sftp_gateway.serving.load_client", "--port", str(port), "--password", PASSWORD,
            "--sessions", str(sessions // programs), "--seconds", str(seconds), "--seed",
        ]  # fmt: skip
        running = [
            subprocess.Popen([*command_line, str(1000 * number)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            for number in range(programs)
        ]
        samples = []
        while any(program.poll() is None for program in running):
            samples.append((threads(pid), descriptors(pid), resident(pid)))
            time.sleep(min(5.0, seconds / 10))
        results = [json.loads(program.communicate()[0]) for program in running]
        problems = [problem for result in results for problem in result["problems"]]
        if problems:
            log = (tmp_path / "log").read_text()[-3000:]
            pytest.fail(f"{len(problems)} of {sessions} sessions failed, first: {problems[0]}\nlog: {log}")
        done = sum(sum(result["done"].values()) for result in results)
        settle(pid, before[0] + kept_threads, before[1] + kept_files)
        after = threads(pid), descriptors(pid), resident(pid)
        third = len(samples) // 3
        middle, end = (max(sample[2] for sample in part) for part in (samples[third : 2 * third], samples[2 * third :]))
        print(
            f"\n{sessions} sessions, {seconds:.0f} s: {done} operations, no error; "
            f"threads, descriptors, MiB: before {shown(before)}, most {shown(max(samples))}, after {shown(after)}; "
            f"peak of the second third {middle // MIB} MiB, of the last {end // MIB} MiB"
        )
        assert end < middle * 1.15 + 20 * MIB, "memory grows"
    assert (tmp_path / "log").read_text() == ""  # a warning is logged for each failure
    assert not list((tmp_path / "state").glob("spool/*/*"))


def shown(sample: tuple[int, int, int]) -> str:
    return f"{sample[0]}, {sample[1]}, {sample[2] // MIB}"


def settle(pid: int, most_threads: int, most_files: int) -> None:
    """Wait until what sessions had is given back: idle worker threads end after ten seconds."""
    eventually(
        lambda: threads(pid) <= most_threads and descriptors(pid) <= most_files,
        lambda: f"left behind: {threads(pid)} threads, {descriptors(pid)} descriptors",
        60,
    )


def test_sessions_at_once(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    bear_load(tmp_path, f"osfs://{tmp_path / 'home'}", sessions=10, seconds=3, programs=1)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_two_hundred_sessions_for_five_minutes(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    bear_load(tmp_path, f"osfs://{tmp_path / 'home'}", sessions=200, seconds=300, programs=2)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_two_hundred_sessions_for_five_minutes_over_dropbox(tmp_path: Path) -> None:
    with Emulator() as emulator:
        separator = "&" if "?" in emulator.fs_url else "?"
        url = f"{emulator.fs_url}{separator}timeout_seconds=120"
        # The account stays open for a while, with its pools of connections and threads.
        bear_load(tmp_path, url, sessions=200, seconds=300, programs=2, kept_threads=60, kept_files=120)


def transfer(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, size: int, theirs: str, ours: int
) -> None:
    """Put a file and get it again with OpenSSH, while both sides ask for new keys."""
    monkeypatch.setattr(BoundedPacketizer, "REKEY_BYTES", ours)
    exchanges: list[object] = []
    original = paramiko.Transport._activate_outbound  # type: ignore[attr-defined]
    monkeypatch.setattr(
        paramiko.Transport, "_activate_outbound", lambda self: (exchanges.append(self), original(self))[1]
    )
    (tmp_path / "home").mkdir()
    key = tmp_path / "id"
    subprocess.run([client("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=60)
    user = UserConfig(name="ann", public_keys=(key.with_suffix(".pub").read_text(),), url=f"osfs://{tmp_path / 'home'}")
    gateway: SFTPGateway = start_gateway(users=(user,))
    source = tmp_path / "source"
    block, digest = os.urandom(MIB), hashlib.sha256()
    with source.open("wb") as file:
        for number in range(size // MIB):
            piece = number.to_bytes(8, "big") + block[8:]
            digest.update(piece)
            file.write(piece)
    seconds = []
    counts = []
    for line in (f"put {source} /file", f"get /file {tmp_path / 'back'}"):
        started, before = time.monotonic(), len(exchanges)
        done = subprocess.run(
            [
                client("sftp"), "-b", "-", "-i", key, "-o", f"RekeyLimit={theirs}", "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-P", str(gateway.address[1]),
                "ann@127.0.0.1",
            ],
            input=line + "\n", capture_output=True, text=True, timeout=1100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        seconds.append(time.monotonic() - started)
        counts.append(len(exchanges) - before)
        source.unlink(missing_ok=True)
    with (tmp_path / "back").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == digest.digest()
    print(
        f"\n{size // MIB} MiB each way, new keys {counts} times: "
        f"put {size / MIB / seconds[0]:.0f} MiB/s, get {size / MIB / seconds[1]:.0f} MiB/s"
    )
    assert min(counts) > size // (2 * ours) + 1


@pytest.mark.interop
@pytest.mark.parametrize(("theirs", "ours"), [("1G", 3 * MIB), ("3M", 2**40), ("4M", 5 * MIB)])
def test_transfers_go_on_through_new_keys(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: str, ours: int
) -> None:
    transfer(start_gateway, tmp_path, monkeypatch, size=24 * MIB, theirs=theirs, ours=ours)


@pytest.mark.soak
@pytest.mark.interop
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(("theirs", "ours"), [("64G", 256 * MIB), ("256M", 2**40), ("200M", 300 * MIB)])
def test_three_gibibytes_each_way_through_new_keys(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: str, ours: int
) -> None:
    transfer(start_gateway, tmp_path, monkeypatch, size=3 * 2**30, theirs=theirs, ours=ours)
