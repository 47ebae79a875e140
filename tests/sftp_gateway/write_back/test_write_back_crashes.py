"""Write-back and kill -9: a real gateway process dies at any moment; what it acknowledged arrives, once, in order."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fs
import paramiko
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from sftp_gateway.write_back.journal_file import FILE_NAME
from sftp_gateway.write_back.journals import look_into
from tests.sftp_gateway.conftest import PASSWORD
from tests.sftp_gateway.write_back.remote_fs import put
from tests.sftp_gateway.write_back.write_back_gateway import WriteBackGateway, settle
from tests.waiting import eventually

Tree = dict[str, int | None]


@pytest.fixture
def gateway(emulator: Emulator, tmp_path: Path) -> Iterator[WriteBackGateway]:
    made = WriteBackGateway(emulator, tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


def content_of(size: int) -> bytes:
    """The size tells the content."""
    return random.Random(size).randbytes(size)


class Worker:
    """One client that changes things below a folder of its own, and knows what the gateway has acknowledged."""

    sizes = iter(range(1, 10**9))  # no two files are alike

    def __init__(self, root: str, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)
        self.tree: Tree = {root: None}  # acknowledged
        self.wished: Tree = self.tree  # what the request under way makes of it
        self.versions: dict[str, list[int]] = {}  # of paths that were only ever written
        self.putting: tuple[str, int] | None = None
        self.count = 0

    def work(self, gateway: WriteBackGateway) -> None:
        """Go on until the connection breaks."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException), gateway.client() as client:
            while True:
                self.step(client)
                self.count += 1

    def step(self, client: paramiko.SFTPClient) -> None:
        files = [path for path, size in self.tree.items() if size is not None]
        folders = [path for path, size in self.tree.items() if size is None]
        wished = dict(self.tree)
        choice = self.random.random()
        self.putting = None
        if choice < 0.6 or not files:
            path = self.random.choice(files) if files and choice < 0.2 else self.new(folders)
            wished[path] = size = next(self.sizes)
            self.wished, self.putting = wished, (path, size)
            with client.open(path, "w") as file:
                file.write(content_of(size))
                client._request(0x04, file.handle)  # type: ignore[attr-defined]  # CLOSE; the file object's own close hides errors
                file._closed = True  # type: ignore[attr-defined]
            self.put_done(path, size)
        elif choice < 0.75:
            source, target = self.random.choice(files), self.new(folders)
            wished[target] = wished.pop(source)
            self.wished = wished
            client.posix_rename(source, target)
            self.forget(source, target)
        elif choice < 0.85:
            path = self.random.choice(files)
            del wished[path]
            self.wished = wished
            client.remove(path)
            self.forget(path)
        elif choice < 0.95 or len(folders) < 2:
            path = self.new(folders)
            wished[path] = None
            self.wished = wished
            client.mkdir(path)
        else:
            source, target = self.random.choice(folders[1:]), f"{self.root}/{next(self.sizes)}"
            wished = {moved(path, source, target): size for path, size in wished.items()}
            self.wished = wished
            client.rename(source, target)
            self.forget(source, target)
        self.tree = wished

    def put_done(self, path: str, size: int) -> None:
        if path in self.versions or path not in self.tree:
            self.versions.setdefault(path, []).append(size)
        self.putting = None

    def new(self, folders: list[str]) -> str:
        return f"{self.random.choice(folders)}/{next(self.sizes)}"

    def forget(self, *paths: str) -> None:
        """The history of what was renamed or removed is Dropbox's own affair."""
        for known in list(self.versions):
            if any(known == path or known.startswith(path + "/") for path in paths):
                del self.versions[known]


def moved(path: str, source: str, target: str) -> str:
    return target + path[len(source) :] if path == source or path.startswith(source + "/") else path


def below(tree: Tree, root: str) -> Tree:
    return {path: size for path, size in tree.items() if path == root or path.startswith(root + "/")}


def differences(expected: list[Tree], found: Tree) -> list[tuple[list[str], list[str]]]:
    """Return what is missing and what is too much, compared with each of the trees that may be expected."""
    return [
        (
            sorted(str(item) for item in tree.items() - found.items()),
            sorted(str(i) for i in found.items() - tree.items()),
        )
        for tree in expected
    ]


def check(emulator: Emulator, worker: Worker) -> None:
    """Check that Dropbox has what was acknowledged, with or without what was under way; and no version twice."""
    expected = [worker.tree, worker.wished]

    def found() -> Tree:
        return below(emulator.control.tree(), worker.root)

    assert found() in expected, f"what was acknowledged is not there: {differences(expected, found())}"
    now = found()
    if worker.putting is not None and now == worker.wished:
        worker.put_done(*worker.putting)
    worker.tree = worker.wished = now
    worker.putting = None
    for path, size in worker.tree.items():
        if size is not None:
            assert emulator.control.read(path) == content_of(size), path
    with fs.open_fs(emulator.fs_url) as dropbox:
        assert isinstance(dropbox, DropboxFS)
        for path, sizes in worker.versions.items():
            if worker.tree.get(path) is not None:
                seen = [int(info.get("details", "size")) for info in dropbox.versions(path)][::-1]
                assert seen == sizes, f"{path}: not each version once and in order"


def crash_again_and_again(emulator: Emulator, gateway: WriteBackGateway, *, rounds: int, seed: int) -> int:
    emulator.control.latency(delay_seconds=0.01, commit_seconds=0.02)
    workers = [Worker(f"/c{number}", seed + number) for number in range(3)]
    for worker in workers:
        emulator.control.seed(worker.root, None)
    chance = random.Random(seed)
    for _ in range(rounds):
        gateway.start()
        settle(emulator, gateway)  # nobody has signed in since the start
        for worker in workers:
            check(emulator, worker)
        threads = [threading.Thread(target=worker.work, args=(gateway,)) for worker in workers]
        for thread in threads:
            thread.start()
        enough = sum(worker.count for worker in workers) + chance.randrange(5, 60)
        eventually(lambda enough=enough: sum(worker.count for worker in workers) >= enough, "nobody works", 300)  # type: ignore[misc]
        time.sleep(chance.uniform(0.0, 0.05))
        gateway.kill()
        for thread in threads:
            thread.join(30)
    gateway.start()
    settle(emulator, gateway)
    for worker in workers:
        check(emulator, worker)
    assert gateway.kill(signal.SIGTERM) == 0
    return sum(worker.count for worker in workers)


def test_what_was_acknowledged_outlives_kill_9(emulator: Emulator, gateway: WriteBackGateway) -> None:
    assert crash_again_and_again(emulator, gateway, rounds=2, seed=11) > 10


def test_processes_share_what_is_pending_and_one_takes_over(emulator: Emulator, tmp_path: Path) -> None:
    gateway = WriteBackGateway(emulator, tmp_path, settings="processes = 2", delay_seconds=3.0)
    gateway.start()
    try:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(gateway.client()) for _ in range(4)]
            assert processes_of_sessions(gateway) == {"0", "1"}
            for client in clients:
                assert client.listdir("/") == [], "from now on each process knows the folder"
            for number in range(12):
                put(clients[number % 4], f"/{number}", content_of(100 + number))
                for client in clients:
                    assert client.stat(f"/{number}").st_size == 100 + number
                    assert len(client.listdir("/")) == number + 1
                if number == 8:
                    eventually(lambda: len(emulator.control.tree()) == 9, "not delivered")
            for client in clients:
                assert sorted(client.listdir("/")) == sorted(str(number) for number in range(12))
        pids = worker_pids(gateway)
        assert len(pids) == 2
        for number, pid in enumerate(pids):  # whichever delivers, the other or a new one takes over
            with gateway.client() as client:
                put(client, f"/last{number}", b"last")
                os.kill(pid, signal.SIGKILL)
            eventually(lambda path=f"/last{number}": emulator.control.exists(path), "nobody took over")  # type: ignore[misc]
        tree = emulator.control.tree()
        assert tree == {f"/{number}": 100 + number for number in range(12)} | {"/last0": 4, "/last1": 4}
    finally:
        gateway.kill(signal.SIGTERM)


def test_what_one_process_has_delivered_every_other_knows(emulator: Emulator, tmp_path: Path) -> None:
    """Although Dropbox tells it nothing, and nobody has asked it while that was pending."""
    gateway = WriteBackGateway(
        emulator, tmp_path, settings="processes = 2", delay_seconds=0.0, url=f"{emulator.fs_url}&change_feed=off"
    )
    gateway.start()
    try:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(gateway.client()) for _ in range(3)]
            assert processes_of_sessions(gateway) == {"0", "1"}
            (journal,) = (tmp_path / "state" / "journal").glob(f"*/{FILE_NAME}")
            for number, writer in enumerate(clients):
                names = {f"{earlier}{kind}" for earlier in range(number) for kind in "fd"}
                for client in clients:
                    assert set(client.listdir("/")) == names, "from now on each process knows the folder"
                put(writer, f"/{number}f", content_of(100 + number))
                writer.mkdir(f"/{number}d")
                eventually(lambda: not look_into(journal.parent).is_anything_waiting, "not delivered")  # type: ignore[union-attr]
                for client in clients:
                    assert client.stat(f"/{number}f").st_size == 100 + number
                    assert client.listdir(f"/{number}d") == []
    finally:
        gateway.kill(signal.SIGTERM)


def processes_of_sessions(gateway: WriteBackGateway) -> set[str]:
    return set(re.findall(r" login session=(\d+)-", (gateway.folder / "log").read_text()))


def worker_pids(gateway: WriteBackGateway) -> list[int]:
    assert gateway.process is not None
    pid = gateway.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_sigterm_delivers_first(emulator: Emulator, gateway: WriteBackGateway) -> None:
    gateway.start()
    with gateway.client() as client:
        for number in range(30):
            put(client, f"/{number}", content_of(100 + number))
    assert gateway.kill(signal.SIGTERM) == 0
    assert len(emulator.control.tree()) == 30


def test_secrets_are_in_no_file_of_the_gateway(emulator: Emulator, gateway: WriteBackGateway) -> None:
    gateway.start()
    emulator.control.latency(delay_seconds=0.2)
    with gateway.client() as client:
        put(client, "/f", b"content")
        gateway.kill()
    written = b"".join(path.read_bytes() for path in (gateway.folder / "state").rglob("*") if path.is_file())
    assert b"content" in written, "the journal was looked into"
    for secret in (emulator.refresh_token, emulator.app_secret, PASSWORD):
        assert secret.encode() not in written


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(5))
def test_what_was_acknowledged_outlives_kill_9_at_length(
    emulator: Emulator, gateway: WriteBackGateway, seed: int
) -> None:
    assert crash_again_and_again(emulator, gateway, rounds=20, seed=100 * seed) > 100
