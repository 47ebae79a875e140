"""No wake-up is lost: a gateway that never looks by itself still answers everything, whatever clients do at once."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS

from fs_dropbox.emulator import Emulator
from sftp_gateway import SFTPGateway, UserConfig
from sftp_gateway.files import stream
from sftp_gateway.requests import replies
from sftp_gateway.ssh import packetizer, wire
from sftp_gateway.ssh.transport import BoundedPacketizer
from tests.clients import client
from tests.root import ROOT
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, StartGateway

PATIENCE_SECONDS = 30.0
"""How long a client waits for its next byte. It is a machine under load: what is lost is not there after minutes."""

MIB = 2**20


@pytest.fixture(autouse=True)
def never_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever looks now and then whether there is something to do would only hide that nobody was told."""
    for module in (packetizer, wire):
        monkeypatch.setattr(module, "IDLE_SECONDS", 3600.0)
    monkeypatch.setattr(replies, "HOLD_SECONDS", 3600.0)
    monkeypatch.setattr(stream, "LOOK_SECONDS", 3600.0)


class Openssh(threading.Thread):
    """OpenSSH's sftp, again and again: puts and gets one file, asks for new keys, is stopped for moments."""

    def __init__(self, gateway: SFTPGateway, folder: Path, number: int, until: float) -> None:
        super().__init__()
        self._folder = folder / f"openssh {number}"
        self._folder.mkdir()
        self._random = random.Random(number)
        self._until = until
        self._command = [
            client("sftp"), "-b", "-", "-i", str(folder / "id"), "-P", str(gateway.address[1]), "-o", "RekeyLimit=1M",
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes",
            "-o", "LogLevel=ERROR", "ann@127.0.0.1",
        ]  # fmt: skip
        self._name = f"openssh {number}"
        self.rounds = 0
        self.problem = ""

    def run(self) -> None:
        try:
            while not self.rounds or time.monotonic() < self._until:
                self._go_round()
                self.rounds += 1
        except Exception as error:  # noqa: BLE001 - it is the test's to judge
            self.problem = f"{self._name}: {error!r}"

    def _go_round(self) -> None:
        content = self._random.randbytes(self._random.choice((10, 100_000, 5 * MIB)))
        (self._folder / "file").write_bytes(content)
        lines = f'put file "/{self._name}"\nget "/{self._name}" back\nls -l /\nrm "/{self._name}"\n'
        with subprocess.Popen(
            self._command, cwd=self._folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            process.stdin.write(lines)
            process.stdin.close()
            begun = time.monotonic()
            while process.poll() is None:
                if time.monotonic() - begun > 2 * PATIENCE_SECONDS:
                    os.killpg(process.pid, signal.SIGKILL)
                    raise AssertionError("sftp did not end")
                if self._random.random() < 0.2:
                    os.killpg(process.pid, signal.SIGSTOP)
                    time.sleep(self._random.random() * 0.3)
                    os.killpg(process.pid, signal.SIGCONT)
                time.sleep(0.05)
            assert process.stdout is not None
            assert process.returncode == 0, process.stdout.read()
        assert (self._folder / "back").read_bytes() == content


def press(
    start_gateway: StartGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    storage: dict[str, Any],
    *,
    paramikos: int,
    opensshs: int,
    seconds: float,
) -> None:
    monkeypatch.setattr(BoundedPacketizer, "REKEY_BYTES", 3 * MIB)
    subprocess.run(
        [client("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "id"], check=True, timeout=60
    )
    url = storage.pop("url", "mem://")
    key = (tmp_path / "id.pub").read_text()
    user = UserConfig(name="ann", password_hash=PASSWORD_HASH, public_keys=(key,), url=url)
    gateway = start_gateway(users=(user,), keepalive_seconds=0, max_connections_per_address=200, **storage)
    until = time.monotonic() + seconds
    seed = int(os.environ.get("FUZZ_SEED", "0")) or random.randrange(10**9)
    print(f"\nFUZZ_SEED={seed}")
    programs = [
        subprocess.Popen(
            [
                sys.executable, "-m", "tests.sftp_gateway.ssh.impatient_client", "--port", str(gateway.address[1]),
                "--password", PASSWORD, "--sessions", str(count), "--seconds", str(seconds), "--patience",
                str(PATIENCE_SECONDS), "--seed", str(seed + 1000 * number),
            ],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )
        for number, count in enumerate((paramikos // 2, paramikos - paramikos // 2))
    ]  # fmt: skip
    others = [Openssh(gateway, tmp_path, number, until) for number in range(opensshs)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    results = [json.loads(program.communicate(timeout=seconds + 300)[0]) for program in programs]
    problems = [
        *itertools.chain.from_iterable(result["problems"] for result in results),
        *(other.problem for other in others if other.problem),
    ]
    for result in results:
        print(result["done"], "longest:", result["longest"])
    print("rounds of OpenSSH:", [other.rounds for other in others])
    assert not problems, f"{len(problems)} of {paramikos + opensshs} clients failed:\n" + "\n".join(problems)


def local(tmp_path: Path) -> dict[str, Any]:
    """A filesystem that never waits: requests are answered in the transports' threads."""
    (tmp_path / "home").mkdir()
    return {"open_filesystem": lambda _: OSFS(str(tmp_path / "home"))}


def far(tmp_path: Path) -> dict[str, Any]:
    """A filesystem behind a network: requests are answered by workers, which wake the transports' threads."""
    return {"open_filesystem": lambda _: AtomicFS()}


def simple(tmp_path: Path) -> dict[str, Any]:
    """A filesystem without abilities: uploads are spooled."""
    return {"open_filesystem": lambda _: MemoryFS()}


@pytest.mark.interop
@pytest.mark.timeout(180)
@pytest.mark.parametrize("make", [local, far])
def test_nobody_waits_for_a_wake_up_that_does_not_come(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], dict[str, Any]]
) -> None:
    press(start_gateway, tmp_path, monkeypatch, make(tmp_path), paramikos=6, opensshs=1, seconds=2)


@pytest.mark.soak
@pytest.mark.interop
@pytest.mark.timeout(900)
@pytest.mark.parametrize("make", [local, far, simple])
def test_nobody_waits_for_a_wake_up_that_does_not_come_for_minutes(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], dict[str, Any]]
) -> None:
    press(start_gateway, tmp_path, monkeypatch, make(tmp_path), paramikos=16, opensshs=4, seconds=120)


@pytest.mark.soak
@pytest.mark.interop
@pytest.mark.timeout(900)
def test_nobody_waits_for_a_wake_up_that_does_not_come_for_minutes_over_dropbox(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Emulator() as emulator:
        separator = "&" if "?" in emulator.fs_url else "?"
        storage = {"url": f"{emulator.fs_url}{separator}timeout_seconds=120"}
        press(start_gateway, tmp_path, monkeypatch, storage, paramikos=16, opensshs=4, seconds=120)
