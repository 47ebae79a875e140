"""Rows about the SFTP layer alone: all over a folder in memory, or our gateway and rclone over memory itself."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import paramiko
from paramiko.sftp import CMD_STAT

from benchmarks import memory_gateway, servers
from benchmarks.harness import OURS, Results, Row, Stage, Target
from benchmarks.servers import FAST, Server
from benchmarks.transfers import write_random

MIB: Final = 2**20
SMALL_BYTES: Final = 4096
IN_FLIGHT: Final = 64
REPEATS: Final = 5
OPENSSH: Final = "OpenSSH"
RCLONE: Final = "rclone"

Starter = Callable[[Path], AbstractContextManager[Server]]


@contextmanager
def _memory_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fs-dropbox-bench-", dir=FAST))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ours(folder: Path, *, room: int = 0) -> AbstractContextManager[Server]:
    return servers.gateway(folder, f"{memory_gateway.URL}?room={room}", program="benchmarks.memory_gateway")


def _rclone(folder: Path) -> AbstractContextManager[Server]:
    return servers.rclone(folder, ":memory:files", "--vfs-cache-mode", "writes", "--dir-cache-time", "1h")


def _served(folder: Path) -> str:
    served = folder / "served"
    served.mkdir()
    return str(served)


def _ours_over_folder(folder: Path) -> AbstractContextManager[Server]:
    return servers.gateway(folder, _served(folder))


def _rclone_over_folder(folder: Path) -> AbstractContextManager[Server]:
    return servers.rclone(folder, _served(folder), "--vfs-cache-mode", "writes")


def _bulk(stage: Stage, start: Starter) -> None:
    size = stage.size(512, 16) * MIB
    with _memory_folder() as folder, start(folder) as server:
        large, back = folder / "large", folder / "back"
        write_random(large, size)
        server.run(folder, "pwd")  # everybody has opened what it serves by now
        with stage.measured("put 512 MB", process=server.process):
            server.run(folder, f"put {large} {{root}}/large")
        with stage.measured("get 512 MB", process=server.process):
            server.run(folder, f"get {{root}}/large {back}")
        if back.stat().st_size != size:
            raise AssertionError("not all came back")
        back.unlink()
        batches = [server.batch(folder, f"get {{root}}/large {folder}/back{number}") for number in range(4)]
        with stage.measured("4 gets at once", process=server.process):
            server.run_together(batches)


def _small(stage: Stage, start: Starter) -> None:
    with _memory_folder() as folder, start(folder) as server:
        tree = folder / "tree"
        for number in range(stage.size(2000, 50)):
            write_random(tree / f"folder{number % 20:02}" / f"{number:04}.bin", SMALL_BYTES)
        with stage.measured("put -r 2,000 x 4 KB", process=server.process):
            server.run(folder, f"put -r {tree} {{root}}/")
        with stage.measured("get -r 2,000 x 4 KB", process=server.process):
            server.run(folder, f"get -r {{root}}/tree {folder}/back")
        if len(list((folder / "back").rglob("*.bin"))) != stage.size(2000, 50):
            raise AssertionError("not all came back")


def _metadata(stage: Stage, start: Starter) -> None:
    count = stage.size(10_000, 200)
    with _memory_folder() as folder, start(folder) as server:
        many = folder / "many"
        many.mkdir()
        for number in range(count):
            (many / f"{number:05}.txt").touch()
        server.run(folder, f"put -r {many} {{root}}/")
        batch = server.batch(folder, "ls -l {root}/many")
        with stage.measured("ls of 10,000", process=server.process):
            server.run_together([batch])
        with server.connect() as client, client.open_sftp() as sftp:
            paths = [f"{server.root}/many/{number % count:05}.txt" for number in range(stage.size(5000, 100))]
            with stage.measured("5,000 stats", process=server.process):
                for path in paths:
                    sftp.stat(path)
            with stage.measured("5,000 stats, 64 in flight", process=server.process):
                _stat_ahead(sftp, paths)


class _Counter:
    """Takes the answers of requests that do not wait for them; counts."""

    def __init__(self) -> None:
        self.answers: deque[int] = deque()

    def _async_response(self, kind: int, _: object, __: int) -> None:
        self.answers.append(kind)


def _stat_ahead(sftp: paramiko.SFTPClient, paths: list[str]) -> None:
    counter, sent = _Counter(), 0
    for path in paths:
        sftp._async_request(counter, CMD_STAT, path.encode())  # type: ignore[attr-defined]
        sent += 1
        while sent - len(counter.answers) >= IN_FLIGHT:
            sftp._read_response()  # type: ignore[attr-defined]
    while len(counter.answers) < sent:
        sftp._read_response()  # type: ignore[attr-defined]


def _sessions(stage: Stage, start: Starter) -> None:
    with _memory_folder() as folder, start(folder) as server:
        batch = server.batch(folder, "pwd")
        with stage.measured("20 logins, one by one", process=server.process):
            for _ in range(stage.size(20, 2)):
                server.run_together([batch])
        with stage.measured("50 logins at once", process=server.process):
            server.run_together([batch] * stage.size(50, 5))
        count = stage.size(200, 10)
        clients: list[paramiko.SSHClient] = []
        try:
            with stage.measured("200 idle sessions", process=server.process) as numbers:
                before = server.memory()
                for _ in range(count):
                    clients.append(server.connect())
                    clients[-1].open_sftp().listdir(server.root or "/")
                numbers["kB_per_session"] = (server.memory() - before) / count / 1e3
                began = time.perf_counter()
                busy = server.cpu_seconds()
                threading.Event().wait(stage.size(10, 1))
                numbers["idle_cpu_percent"] = 100 * (server.cpu_seconds() - busy) / (time.perf_counter() - began)
        finally:
            for client in clients:
                client.close()


def _bulk_ours(stage: Stage) -> None:
    _bulk(stage, partial(_ours, room=stage.size(512, 16) * MIB))


def _bulk_openssh(stage: Stage) -> None:
    _bulk(stage, servers.openssh)


def _bulk_rclone(stage: Stage) -> None:
    _bulk(stage, _rclone)


def _folder_ours(stage: Stage) -> None:
    _bulk(stage, _ours_over_folder)


def _folder_rclone(stage: Stage) -> None:
    _bulk(stage, _rclone_over_folder)


def _small_ours(stage: Stage) -> None:
    _small(stage, _ours)


def _small_openssh(stage: Stage) -> None:
    _small(stage, servers.openssh)


def _small_rclone(stage: Stage) -> None:
    _small(stage, _rclone)


def _metadata_ours(stage: Stage) -> None:
    _metadata(stage, _ours)


def _metadata_openssh(stage: Stage) -> None:
    _metadata(stage, servers.openssh)


def _metadata_rclone(stage: Stage) -> None:
    _metadata(stage, _rclone)


def _sessions_ours(stage: Stage) -> None:
    _sessions(stage, _ours)


def _sessions_openssh(stage: Stage) -> None:
    _sessions(stage, servers.openssh)


def _sessions_rclone(stage: Stage) -> None:
    _sessions(stage, _rclone)


def _at_least(label: str, times: float) -> Target:
    def is_met(results: Results) -> bool:
        return results[OURS][label].seconds * times <= results[OPENSSH][label].seconds

    return Target(f"{label}: {times:g}x OpenSSH", is_met)


ROWS: Final = (
    Row(
        "sftp-bulk",
        "one large file each way, four at once; the SFTP layer over memory",
        _bulk_ours,
        [(OPENSSH, _bulk_openssh), (RCLONE, _bulk_rclone)],
        targets=[_at_least("put 512 MB", 3.0), _at_least("get 512 MB", 1.9), _at_least("4 gets at once", 2.4)],
        needs_account=False,
        repeats=REPEATS,
    ),
    Row(
        "sftp-folder",
        "the same over a folder in memory, as OpenSSH serves it",
        _folder_ours,
        [(OPENSSH, _bulk_openssh), (RCLONE, _folder_rclone)],
        targets=[_at_least("put 512 MB", 3.0), _at_least("get 512 MB", 1.0), _at_least("4 gets at once", 1.0)],
        needs_account=False,
        repeats=REPEATS,
    ),
    Row(
        "sftp-small",
        "2,000 files of 4 KB each way; the SFTP layer over memory",
        _small_ours,
        [(OPENSSH, _small_openssh), (RCLONE, _small_rclone)],
        targets=[_at_least("put -r 2,000 x 4 KB", 1.3), _at_least("get -r 2,000 x 4 KB", 1.3)],
        needs_account=False,
        repeats=REPEATS,
    ),
    Row(
        "sftp-metadata",
        "listing 10,000 entries, 5,000 stats; the SFTP layer over memory",
        _metadata_ours,
        [(OPENSSH, _metadata_openssh), (RCLONE, _metadata_rclone)],
        targets=[
            _at_least("ls of 10,000", 3.0),
            _at_least("5,000 stats", 1.0),
            _at_least("5,000 stats, 64 in flight", 1.0),
        ],
        needs_account=False,
        repeats=REPEATS,
    ),
    Row(
        "sftp-sessions",
        "logins one by one and 50 at once, 200 idle sessions",
        _sessions_ours,
        [(OPENSSH, _sessions_openssh), (RCLONE, _sessions_rclone)],
        targets=[_at_least("20 logins, one by one", 1.0), _at_least("50 logins at once", 1.0)],
        needs_account=False,
    ),
)
