"""Rows about the whole gateway over an emulated Dropbox, beside `rclone serve sftp` on the same one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from benchmarks import servers
from benchmarks.harness import OURS, Results, Row, Stage, Target
from benchmarks.servers import Server
from benchmarks.transfers import write_random

MB: Final = 1_000_000
SMALL_BYTES: Final = 10_000
OFF: Final = "rclone off"
WRITES: Final = "rclone writes"
WRITE_BACK: Final = "write-back"
DELIVERY_SECONDS: Final = 900.0
ROUNDS: Final = 5
_PEERS: Final = (OFF, WRITES)

Starter = Callable[[Stage], AbstractContextManager[Server]]


def _ours(stage: Stage) -> AbstractContextManager[Server]:
    return servers.gateway(stage.scratch, stage.account.fs_url)


def _ours_write_back(stage: Stage) -> AbstractContextManager[Server]:
    return servers.gateway(stage.scratch, stage.account.fs_url, write_back=True)


def _rclone_off(stage: Stage) -> AbstractContextManager[Server]:
    return servers.rclone(stage.scratch, "dropbox:", "--vfs-cache-mode", "off", account=stage.account)


def _rclone_writes(stage: Stage) -> AbstractContextManager[Server]:
    return servers.rclone(stage.scratch, "dropbox:", "--vfs-cache-mode", "writes", account=stage.account)


def _count(stage: Stage) -> int:
    return stage.size(1000, 16)


def _few(stage: Stage) -> int:
    """How many files there are where each costs a peer a second."""
    return stage.size(200, 16)


def _make_small(stage: Stage) -> None:
    _make(stage, _count(stage))


def _make_few(stage: Stage) -> None:
    _make(stage, _few(stage))


def _make(stage: Stage, count: int) -> None:
    for number in range(count):
        write_random(stage.scratch / "small" / f"part{number % 8}" / f"{number:04}.bin", SMALL_BYTES)


def _seed_small(stage: Stage) -> None:
    _make_small(stage)
    stage.account.seed_from(stage.scratch / "small", "/small")


def _flat(stage: Stage) -> Path:
    """Return one folder with all the files."""
    flat = stage.scratch / "flat"
    if not flat.exists():
        flat.mkdir()
        for file in (stage.scratch / "small").rglob("*.bin"):
            (flat / file.name).hardlink_to(file)
    return flat


def _put_small(stage: Stage, start: Starter, name: str) -> None:
    """Put a folder with one client, then the same files in eight folders with a client each."""
    source, flat = stage.scratch / "small", _flat(stage)
    count = len(list(flat.iterdir()))
    with start(stage) as server:
        server.run(stage.scratch, f"mkdir {name}", f"mkdir {name}-8")
        with stage.measured("1 client", process=server.process) as numbers:
            began = time.perf_counter()
            server.run(stage.scratch, f"put -r {flat} {name}/")
            numbers["seconds_of_the_client"] = time.perf_counter() - began
            _wait_until_there(stage, f"/{name}/flat", count)
        batches = [server.batch(stage.scratch, f"put -r {source}/part{part} {name}-8/") for part in range(8)]
        with stage.measured("8 clients", process=server.process) as numbers:
            began = time.perf_counter()
            server.run_together(batches)
            numbers["seconds_of_the_clients"] = time.perf_counter() - began
            _wait_until_there(stage, f"/{name}-8", count)


def _put_folders(stage: Stage, start: Starter, name: str) -> None:
    """Put the same files in a hundred folders."""
    source = stage.scratch / "hundred"
    files = sorted(_flat(stage).iterdir())
    for number, file in enumerate(files):
        folder = source / f"{number % min(100, len(files) // 2):02}"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / file.name).exists():
            (folder / file.name).hardlink_to(file)
    with start(stage) as server:
        server.run(stage.scratch, f"mkdir {name}-100")
        with stage.measured("100 folders", process=server.process) as numbers:
            began = time.perf_counter()
            server.run(stage.scratch, f"put -r {source} {name}-100/")
            numbers["seconds_of_the_client"] = time.perf_counter() - began
            _wait_until_there(stage, f"/{name}-100", len(files))


def acknowledge(stage: Stage) -> None:
    """Put a folder to OpenSSH's own server on the same disk, then to the gateway; again and again: disks vary."""
    flat = _flat(stage)
    with _ours_write_back(stage) as server, servers.openssh(stage.scratch) as local:
        for number in range(ROUNDS):
            server.run(stage.scratch, f"mkdir {number}")
            local.run(stage.scratch, f"mkdir {{root}}/{number}")
            began = time.perf_counter()
            local.run(stage.scratch, f"put -r {flat} {{root}}/{number}/")
            there = time.perf_counter() - began
            with stage.measured(f"round {number + 1}", process=server.process) as numbers:
                began = time.perf_counter()
                server.run(stage.scratch, f"put -r {flat} {number}/")
                here = time.perf_counter() - began
                numbers |= {"seconds_of_OpenSSH": there, "times_as_long": here / there}
            _wait_until_there(stage, f"/{number}/flat", _count(stage))


def _wait_until_there(stage: Stage, folder: str, count: int) -> None:
    """Wait until Dropbox has the files: with some servers a client has gone long before."""
    deadline = time.monotonic() + DELIVERY_SECONDS
    while time.monotonic() < deadline:
        tree = stage.account.control("tree").items()  # the folder itself may not be there yet
        if sum(size == SMALL_BYTES and path.startswith(f"{folder}/") for path, size in tree) == count:
            return
        time.sleep(0.1)
    raise AssertionError("not everything arrived")


def _get_small(stage: Stage, start: Starter, name: str) -> None:
    with start(stage) as server:
        one, eight = stage.scratch / name, stage.scratch / f"{name}-8"
        with stage.measured("1 client", process=server.process):
            server.run(stage.scratch, f"get -r small {one}")
        _check(one, _count(stage))
    with start(stage) as server:  # with nothing in its memory
        eight.mkdir()
        batches = [server.batch(stage.scratch, f"get -r small/part{part} {eight}/part{part}") for part in range(8)]
        with stage.measured("8 clients", process=server.process):
            server.run_together(batches)
        _check(eight, _count(stage))


def _check(folder: Path, count: int) -> None:
    sizes = [path.stat().st_size for path in folder.rglob("*.bin")]
    if sizes != [SMALL_BYTES] * count:
        raise AssertionError(f"{len(sizes)} files came back")


def _make_large(stage: Stage) -> None:
    write_random(stage.scratch / "large", stage.size(500, 10) * MB)
    local = stage.scratch / "seed"
    write_random(local / "down.bin", stage.size(500, 10) * MB)
    stage.account.seed_from(local)


def _large(stage: Stage, start: Starter, name: str) -> None:
    size = stage.size(500, 10) * MB
    with start(stage) as server:
        with stage.measured("put 500 MB", process=server.process):
            server.run(stage.scratch, f"put {stage.scratch}/large {name}.bin")
            deadline = time.monotonic() + DELIVERY_SECONDS
            while stage.account.control("tree").get(f"/{name}.bin") != size:
                if time.monotonic() > deadline:
                    raise AssertionError("it did not arrive")
                time.sleep(0.1)
        back = stage.scratch / name
        with stage.measured("get 500 MB", process=server.process):
            server.run(stage.scratch, f"get down.bin {back}")
        if back.stat().st_size != size:
            raise AssertionError("not all came back")
        back.unlink()


def _seed_folders(stage: Stage) -> None:
    local = stage.scratch / "seed"
    for number in range(stage.size(500, 20)):
        folder = local / f"top{number % 25:02}" / f"folder{number:03}"
        folder.mkdir(parents=True)
        for file in range(4):
            (folder / f"{file}.txt").write_bytes(b"x")
    stage.account.seed_from(local, "/many")


def _list_folders(stage: Stage, start: Starter, _: str) -> None:
    with start(stage) as server, server.connect() as client, client.open_sftp() as sftp:
        for label in ("first", "again"):
            with stage.measured(label, process=server.process):
                folders, files = ["/many"], 0
                while folders:
                    folder = folders.pop()
                    for entry in sftp.listdir_attr(folder):
                        if entry.longname.startswith("d"):
                            folders.append(f"{folder}/{entry.filename}")
                        else:
                            files += 1
            if files != 4 * stage.size(500, 20):
                raise AssertionError(f"{files} files were listed")


def put_small_ours(stage: Stage) -> None:
    _put_small(stage, _ours, "ours")


def put_small_write_back(stage: Stage) -> None:
    _put_small(stage, _ours_write_back, "back")
    _put_folders(stage, _ours_write_back, "back")


def put_small_off(stage: Stage) -> None:
    _put_small(stage, _rclone_off, "off")


def put_small_writes(stage: Stage) -> None:
    _put_small(stage, _rclone_writes, "writes")
    _put_folders(stage, _rclone_writes, "writes")


def get_small_ours(stage: Stage) -> None:
    _get_small(stage, _ours, "ours")


def get_small_off(stage: Stage) -> None:
    _get_small(stage, _rclone_off, "off")


def get_small_writes(stage: Stage) -> None:
    _get_small(stage, _rclone_writes, "writes")


def large_ours(stage: Stage) -> None:
    _large(stage, _ours, "ours")


def large_off(stage: Stage) -> None:
    _large(stage, _rclone_off, "off")


def large_writes(stage: Stage) -> None:
    _large(stage, _rclone_writes, "writes")


def list_ours(stage: Stage) -> None:
    _list_folders(stage, _ours, "ours")


def list_off(stage: Stage) -> None:
    _list_folders(stage, _rclone_off, "off")


def list_writes(stage: Stage) -> None:
    _list_folders(stage, _rclone_writes, "writes")


def _ahead(label: str) -> Target:
    def is_met(results: Results) -> bool:
        return all(results[OURS][label].seconds < results[peer][label].seconds for peer in _PEERS if peer in results)

    return Target(f"{label}: ahead of rclone serve sftp", is_met)


def _is_twice_as_long_at_most(results: Results) -> bool:
    return statistics.median(line.numbers["times_as_long"] for line in results[OURS].values()) <= 2.0


def _calls(label: str, most: int) -> Target:
    return Target(f"{label}: at most {most} calls", lambda results: results[OURS][label].all_calls <= most)


ROWS: Final = (
    Row(
        "gateway-put-small",
        "put -r of 200 files of 10 KB, until Dropbox has them",
        put_small_ours,
        [(OFF, put_small_off)],
        prepare=_make_few,
        targets=[_ahead("1 client"), _ahead("8 clients")],
    ),
    Row(
        "gateway-put-small-write-back",
        "put -r of 1,000 such files in write-back mode, beside rclone with its cache for writes",
        put_small_write_back,
        [(WRITES, put_small_writes)],
        prepare=_make_small,
        targets=[_ahead("1 client"), _ahead("8 clients"), _ahead("100 folders")]
        + [_calls(label, 20) for label in ("1 client", "100 folders")],
    ),
    Row(
        "gateway-acknowledge",
        "put -r of 1,000 files of 10 KB in write-back mode, until the client is done, beside OpenSSH on the same disk",
        acknowledge,
        prepare=_make_small,
        targets=[Target("in the middle at most twice as long as OpenSSH", _is_twice_as_long_at_most)],
    ),
    Row(
        "gateway-get-small",
        "get -r of 1,000 files of 10 KB",
        get_small_ours,
        [(OFF, get_small_off), (WRITES, get_small_writes)],
        prepare=_seed_small,
        targets=[_ahead("1 client"), _ahead("8 clients")],
    ),
    Row(
        "gateway-large",
        "one file of 500 MB each way",
        large_ours,
        [(OFF, large_off), (WRITES, large_writes)],
        prepare=_make_large,
        targets=[_ahead("put 500 MB"), _ahead("get 500 MB")],
    ),
    Row(
        "gateway-list",
        "ls -R of 500 folders",
        list_ours,
        [(OFF, list_off), (WRITES, list_writes)],
        prepare=_seed_folders,
        targets=[_ahead("first")],
    ),
)
