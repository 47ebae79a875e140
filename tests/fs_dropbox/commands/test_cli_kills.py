"""`fs-dropbox mirror` as a process that is killed or interrupted somewhere on its way, and then run again."""

from __future__ import annotations

import random
import signal
import subprocess
from pathlib import Path

import pytest

from fs_dropbox.emulator import Emulator
from fs_dropbox.mirroring.transfer import PART_SUFFIX
from tests.fs_dropbox.commands.command_line import environment, run, start
from tests.waiting import eventually

SIZES = (0, 10, 5_000, 200_000, 3_000_000, 9_000_000)


class Mirrored:
    """A local folder and one of the account, where one becomes what the other is."""

    def __init__(self, emulator: Emulator, scratch: Path, *, up: bool, seed: int) -> None:
        self.control = emulator.control
        self.env = environment(emulator, scratch, ACCOUNT=emulator.fs_url)
        self.local = scratch / "local"
        self.folder = f"/mirror {seed}"
        self.up = up
        self.chance = random.Random(seed)
        self.local.mkdir()
        self.control.seed(self.folder)
        self.whole = {f"{number % 3}/{number}": self.chance.randbytes(size) for number, size in enumerate(SIZES * 4)}
        self.old = {path: b"old" for path in self.whole if self.chance.random() < 0.3}
        self.write(self.whole, remote=not up)
        self.write(self.old, remote=up)

    def write(self, files: dict[str, bytes], *, remote: bool) -> None:
        for path, data in files.items():
            if remote:
                self.control.write(f"{self.folder}/{path}", data)
            else:
                (self.local / path).parent.mkdir(exist_ok=True)
                (self.local / path).write_bytes(data)

    @property
    def arguments(self) -> tuple[str, ...]:
        sides = (str(self.local), f":{self.folder}")
        return ("mirror", "--url-env", "ACCOUNT", *(sides if self.up else sides[::-1]))

    def target(self) -> dict[str, bytes]:
        if self.up:
            files = [path for path, size in self.control.tree(self.folder).items() if size is not None]
            return {path[len(self.folder) + 1 :]: self.control.read(path) for path in files}
        return {
            str(file.relative_to(self.local)): file.read_bytes() for file in self.local.rglob("*") if file.is_file()
        }

    def break_off(self, number: signal.Signals) -> subprocess.Popen[str]:
        """Run until so many calls were made, then send the signal."""
        # Transfers take a while, so that there is something to break off.
        self.control.fault("files/upload" if self.up else "files/download", "slow_body", None, seconds=0.02)
        route = self.chance.choice(("upload_session", "upload") if self.up else ("download",))
        calls, most = self.control.calls(), self.chance.choice((1, 1, 2, 5, 20))
        process = start(*self.arguments, env=self.env)

        def is_amid() -> bool:
            made = self.control.calls() - calls
            return sum(count for name, count in made.items() if route in name) >= most or process.poll() is not None

        eventually(is_amid)
        process.send_signal(number)
        process.communicate(timeout=60)
        self.control.clear_faults()
        return process

    def check_whole(self) -> None:
        for path, data in self.target().items():
            if not path.endswith(PART_SUFFIX):
                assert data in (self.whole[path], self.old.get(path)), f"{path}: {len(data)} of {len(self.whole[path])}"


def break_off_and_go_on(emulator: Emulator, scratch: Path, *, up: bool, seed: int, times: int) -> None:
    scratch.mkdir()
    mirrored = Mirrored(emulator, scratch, up=up, seed=seed)
    for number in mirrored.chance.sample((signal.SIGKILL, signal.SIGINT, signal.SIGTERM), times):
        process = mirrored.break_off(number)
        assert process.returncode in (0, 130, -number), process.returncode
        mirrored.check_whole()
    done = run(*mirrored.arguments, env=mirrored.env)
    assert (done.returncode, done.stderr) == (0, "")
    assert mirrored.target() == mirrored.whole
    again = run(*mirrored.arguments, env=mirrored.env)
    assert again.stdout.startswith(f"0 copied (0 B), {len(mirrored.whole)} unchanged"), again


@pytest.mark.parametrize("up", [True, False])
def test_what_is_broken_off_is_whole_or_not_there_and_goes_on(emulator: Emulator, tmp_path: Path, up: bool) -> None:
    break_off_and_go_on(emulator, tmp_path / "one", up=up, seed=1, times=1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_what_is_broken_off_often_goes_on(emulator: Emulator, tmp_path: Path) -> None:
    for seed in range(40):
        break_off_and_go_on(emulator, tmp_path / str(seed), up=seed % 2 == 0, seed=seed, times=2)
