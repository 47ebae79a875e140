"""Rows about content: one large file, many small ones."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final

import fs
import requests
from fs.osfs import OSFS

from benchmarks.harness import OURS, Results, Row, Stage, Target
from fs_dropbox.mirroring.mirror import Mirror
from fs_dropbox.mirroring.steps import Summary
from fs_dropbox.mirroring.transfer import Place

MB: Final = 1_000_000
PIECE_BYTES: Final = 2**20
SMALL_BYTES: Final = 10_000
PEER: Final = "rclone"


def _large_bytes(stage: Stage) -> int:
    return stage.size(500, 20) * MB


def _file_count(stage: Stage) -> int:
    return stage.size(1000, 40)


def write_random(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, PIECE_BYTES):
            file.write(os.urandom(min(PIECE_BYTES, size - start)))


def _faster(results: Results, times: float, label: str = "", peer: str = PEER) -> bool:
    return results[OURS][label].seconds * times <= results[peer][label].seconds


# Reading one large file --------------------------------------------------------


def _seed_large(stage: Stage) -> None:
    local = stage.scratch / "seed"
    write_random(local / "large", _large_bytes(stage))
    stage.account.seed_from(local)


def _read_large(stage: Stage) -> None:
    with stage.measured() as numbers, fs.open_fs(stage.account.fs_url) as dropbox:
        began, size = time.perf_counter(), 0
        with dropbox.openbin("/large") as file:
            opened = time.perf_counter()
            numbers["open_seconds"] = opened - began
            while piece := file.read(PIECE_BYTES):
                if not size:
                    numbers["first_byte_seconds"] = time.perf_counter() - opened
                size += len(piece)
    if size != _large_bytes(stage):
        raise AssertionError(f"{size} bytes came")


def _read_large_rclone(stage: Stage) -> None:
    stage.program(*stage.account.rclone(stage.scratch, "cat", "dropbox:large"))


def _seed_random(stage: Stage) -> None:
    local = stage.scratch / "seed"
    write_random(local / "large", stage.size(100, 10) * MB)
    stage.account.seed_from(local)


def _read_random(stage: Stage) -> None:
    size = stage.size(100, 10) * MB
    chance = random.Random(1)
    with fs.open_fs(stage.account.fs_url) as dropbox, dropbox.openbin("/large") as file:
        places = [chance.randrange(size - 4096) for _ in range(stage.size(1000, 100))]
        with stage.measured("random"):
            for place in places:
                file.seek(place)
                if len(file.read(4096)) != 4096:
                    raise AssertionError("a short read")
        with stage.measured("again, backwards"):
            for place in reversed(places[-100:]):
                file.seek(place)
                file.read(4096)


def _read_many(stage: Stage) -> None:
    """200 readers go through a file, in turns."""
    count = stage.size(200, 10)

    def go_on(files: Sequence[BinaryIO]) -> int:
        return sum(len(file.read(MB // 4)) for _ in range(40) for file in files)

    with stage.measured(), fs.open_fs(stage.account.fs_url) as dropbox, ThreadPoolExecutor(20) as pool:
        files = list(pool.map(lambda _: dropbox.openbin("/large"), range(count)))
        size = sum(pool.map(go_on, [files[start::20] for start in range(20)]))
    if size != count * 10 * MB:
        raise AssertionError(f"{size} bytes came")


# Writing one large file --------------------------------------------------------


def _make_large(stage: Stage) -> None:
    write_random(stage.scratch / "large", _large_bytes(stage))


def _write_large(stage: Stage) -> None:
    with stage.measured() as numbers, fs.open_fs(stage.account.fs_url) as dropbox:
        target = dropbox.openbin("/ours", "w", seekable=False)
        with (stage.scratch / "large").open("rb") as source:
            while piece := source.read(PIECE_BYTES):
                target.write(piece)
        began = time.perf_counter()
        target.close()
        numbers["close_seconds"] = time.perf_counter() - began


def _write_large_rclone(stage: Stage) -> None:
    stage.program(*stage.account.rclone(stage.scratch, "copyto", str(stage.scratch / "large"), "dropbox:peer"))


def _write_many(stage: Stage) -> None:
    """200 files are open at once, each with more than a block in it."""
    count = stage.size(200, 10)
    piece = bytes(PIECE_BYTES)
    with fs.open_fs(stage.account.fs_url) as dropbox, stage.measured():
        dropbox.makedir("/many")
        files = [dropbox.openbin(f"/many/{number}", "w", seekable=False) for number in range(count)]
        for _ in range(6):
            for file in files:
                file.write(piece)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda file: file.close(), files))


# Many small files --------------------------------------------------------------


def _make_small(stage: Stage) -> None:
    for number in range(_file_count(stage)):
        write_random(stage.scratch / "small" / f"{number:04}.bin", SMALL_BYTES)


def _seed_small(stage: Stage) -> None:
    _make_small(stage)
    stage.account.control("seed", path="/small")
    stage.account.seed_from(stage.scratch / "small", "/small")


def _read_small(stage: Stage) -> None:
    with stage.measured(), fs.open_fs(stage.account.fs_url) as dropbox:
        size = sum(len(dropbox.readbytes(f"/small/{name}")) for name in dropbox.listdir("/small"))
    if size != _file_count(stage) * SMALL_BYTES:
        raise AssertionError(f"{size} bytes came")


def _read_small_plainly(stage: Stage) -> None:
    """What a script does that calls the API itself: one file after the other, on one connection."""
    account = stage.account
    form = {"grant_type": "refresh_token", "refresh_token": account.refresh_token}
    with requests.Session() as session, stage.measured():
        session.trust_env, session.verify = False, account.ca_file
        app = (account.app_key, account.app_secret)
        answer = session.post(f"https://{account.address}/oauth2/token", form, auth=app)
        session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        for number in range(_file_count(stage)):
            headers = {"Dropbox-API-Arg": json.dumps({"path": f"/small/{number:04}.bin"})}
            answer = session.post(f"https://{account.address}/2/files/download", headers=headers)
            if len(answer.content) != SMALL_BYTES:
                raise AssertionError(answer.text)


def _read_small_rclone(stage: Stage) -> None:
    stage.program(*stage.account.rclone(stage.scratch, "copy", "dropbox:small", str(stage.scratch / "by rclone")))


def _write_small(stage: Stage) -> None:
    count = _file_count(stage)
    data = [os.urandom(SMALL_BYTES) for _ in range(count)]
    with stage.measured(), fs.open_fs(stage.account.fs_url) as dropbox:
        dropbox.makedir("/ours")
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda number: dropbox.writebytes(f"/ours/{number}", data[number]), range(count)))


def _write_small_rclone(stage: Stage) -> None:
    command = ("copy", str(stage.scratch / "small"), "dropbox:peer", "--transfers", "16")
    stage.program(*stage.account.rclone(stage.scratch, *command))


def _write_one(stage: Stage) -> None:
    with fs.open_fs(stage.account.fs_url) as dropbox:
        dropbox.makedir("/ours")
        with stage.measured():
            dropbox.writebytes("/ours/one", os.urandom(SMALL_BYTES))


def _mirror(stage: Stage) -> None:
    def run(label: str, *, up: bool) -> Summary:
        folder = stage.scratch / ("small" if up else "down")
        folder.mkdir(exist_ok=True)
        with stage.measured(label), fs.open_fs(stage.account.fs_url) as dropbox, OSFS(str(folder)) as local:
            here, there = Place(local), Place(dropbox, "/ours")
            return Mirror(*((here, there) if up else (there, here))).run()

    summary = run("up", up=True)
    again = run("up again", up=True)
    down = run("down", up=False)
    counts = (summary.copied, again.skipped, down.copied)
    if counts != (_file_count(stage),) * 3:
        raise AssertionError(f"{counts} files copied, skipped, copied")


def _mirror_rclone(stage: Stage) -> None:
    def run(label: str, source: str, target: str) -> None:
        command = ("copy", source, target, "--transfers", "32", "--checkers", "32")
        stage.program(*stage.account.rclone(stage.scratch, *command), label=label)

    run("up", str(stage.scratch / "small"), "dropbox:peer")
    run("up again", str(stage.scratch / "small"), "dropbox:peer")
    run("down", "dropbox:peer", str(stage.scratch / "by rclone"))


def _own_calls(results: Results) -> dict[str, int]:
    """Return the calls but for those of the change feed, which may look at a change that came shortly before."""
    return {route: count for route, count in results[OURS][""].calls.items() if route != "files/list_folder/continue"}


def _refused(results: Results) -> float:
    return sum(line.refused for line in results[OURS].values())


ROWS: Final = (
    Row(
        "read-large",
        "read of one file of 500 MB",
        _read_large,
        peers=[(PEER, _read_large_rclone)],
        prepare=_seed_large,
        targets=[
            Target("3 times as fast as one stream", lambda r: _faster(r, 3)),
            Target("grows by at most 110 MB", lambda r: r[OURS][""].grown_bytes < 110e6),
            Target("the first MiB after one round trip", lambda r: r[OURS][""].numbers["first_byte_seconds"] < 0.25),
        ],
    ),
    Row(
        "read-random",
        "1,000 reads of 4 KiB anywhere in 100 MB; 100 of them again",
        _read_random,
        prepare=_seed_random,
        targets=[
            Target("less than twice the file", lambda r: r[OURS]["random"].wire_bytes < 200e6),
            Target("again: 0 calls", lambda r: not r[OURS]["again, backwards"].all_calls),
        ],
    ),
    Row(
        "read-small",
        "1,000 files of 10 KB read in order by one thread",
        _read_small,
        peers=[("a plain loop", _read_small_plainly), (PEER, _read_small_rclone)],
        prepare=_seed_small,
        targets=[Target("8 times as fast as a plain loop", lambda r: _faster(r, 8, peer="a plain loop"))],
    ),
    Row(
        "read-many",
        "200 files of which 10 MB are read at once",
        _read_many,
        prepare=_seed_random,
        targets=[Target("grows by at most 350 MB", lambda r: r[OURS][""].grown_bytes < 350e6)],
    ),
    Row(
        "write-large",
        "write of one file of 500 MB",
        _write_large,
        peers=[(PEER, _write_large_rclone)],
        prepare=_make_large,
        targets=[
            Target("3 times as fast", lambda r: _faster(r, 3)),
            Target("grows by at most 100 MB", lambda r: r[OURS][""].grown_bytes < 100e6),
        ],
    ),
    Row(
        "write-many",
        "200 files of 6 MiB open at once",
        _write_many,
        targets=[Target("grows by at most 300 MB", lambda r: r[OURS][""].grown_bytes < 300e6)],
    ),
    Row(
        "write-small",
        "1,000 files of 10 KB by 16 threads that wait for each file",
        _write_small,
        peers=[(PEER, _write_small_rclone)],
        prepare=_make_small,
        targets=[
            Target("at most 150 calls", lambda r: r[OURS][""].all_calls <= 150),
            Target("no 429", lambda r: not _refused(r)),
        ],
    ),
    Row(
        "write-one",
        "one file of 10 KB",
        _write_one,
        targets=[Target("1 call, but for what follows changes", lambda r: _own_calls(r) == {"files/upload": 1})],
    ),
    Row(
        "mirror",
        "1,000 files of 10 KB mirrored to Dropbox, again, and back",
        _mirror,
        peers=[(PEER, _mirror_rclone)],
        prepare=_make_small,
        targets=[
            Target("up: at most 20 calls", lambda r: r[OURS]["up"].all_calls <= 20),
            Target("up: 5 times as fast", lambda r: _faster(r, 5, "up")),
            Target("again: at most 6 calls", lambda r: r[OURS]["up again"].all_calls <= 6),
            Target("no 429", lambda r: not _refused(r)),
        ],
    ),
)
