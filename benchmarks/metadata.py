"""Rows about names, listings and trees: how many calls they take, and how much of the processor."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import fs

from benchmarks.harness import OURS, Results, Row, Stage, Target
from fs_dropbox.api.results import decode_page
from fs_dropbox.dropboxfs import DropboxFS
from fs_dropbox.entries import Entry

PAGE_ENTRIES: Final = 2000
FEED_SECONDS: Final = 10.0
LISTING: Final = ("files/list_folder", "files/list_folder/continue")


@contextmanager
def _opened(stage: Stage) -> Iterator[DropboxFS]:
    """Open the filesystem, and wait until it follows changes: that costs two calls, once."""
    with fs.open_fs(stage.account.fs_url) as dropbox:
        assert isinstance(dropbox, DropboxFS)
        dropbox.subscribe(lambda _: None)
        deadline = time.monotonic() + FEED_SECONDS
        while not dropbox.feed_is_live and time.monotonic() < deadline:
            time.sleep(0.01)
        yield dropbox


def _listings(results: Results) -> int:
    return sum(results[OURS][""].calls.get(route, 0) for route in LISTING)


def _seed_tree(stage: Stage, path: str, files: int, folders: int) -> None:
    """Put files of a few bytes into folders of equal size below a path."""
    local = stage.scratch / "seed"
    for number in range(files):
        file = local / f"folder {number % folders:03}" / f"file {number:05}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"%d" % number)
    stage.account.seed_from(local, path)


# A walk ------------------------------------------------------------------------


def _seed_walk(stage: Stage) -> None:
    _seed_tree(stage, "/tree", stage.size(10_000, 100), stage.size(500, 5))


def _walk(stage: Stage) -> None:
    with stage.measured(), fs.open_fs(stage.account.fs_url) as dropbox:
        found = sum(1 for _ in dropbox.walk.files("/tree"))
    _expect(found, stage.size(10_000, 100))


def _walk_rclone(stage: Stage) -> None:
    stage.program(*stage.account.rclone(stage.scratch, "lsf", "-R", "--files-only", "dropbox:tree"))


# Decoding ----------------------------------------------------------------------


def _pages(entries: int) -> Iterator[bytes]:
    """Yield the bodies of the pages of a listing, as Dropbox sends them."""
    for start in range(0, entries, PAGE_ENTRIES):
        page = [_file(number) for number in range(start, min(start + PAGE_ENTRIES, entries))]
        yield json.dumps({"entries": page, "cursor": "c" * 80, "has_more": True}).encode()


def _file(number: int) -> dict[str, Any]:
    path = f"/Photos/Summer {number // 500}/Picture number {number:06}.jpeg"
    return {
        ".tag": "file",
        "name": path.rpartition("/")[2],
        "path_lower": path.lower(),
        "path_display": path,
        "id": f"id:{number:022}",
        "client_modified": f"2024-03-{number % 28 + 1:02}T10:{number % 60:02}:00Z",
        "server_modified": f"2024-04-{number % 28 + 1:02}T11:{number % 60:02}:00Z",
        "rev": f"{number:023x}",
        "size": number * 17,
        "is_downloadable": True,
        "content_hash": f"{number:064x}",
    }


def _write_pages(stage: Stage) -> None:
    for number, body in enumerate(_pages(stage.size(100_000, 4_000))):
        (stage.scratch / f"page-{number:03}").write_bytes(body)


def _stored_pages(stage: Stage) -> list[Path]:
    return sorted(stage.scratch.glob("page-*"))


def _decode(stage: Stage) -> None:
    kept: list[Entry] = []
    with stage.measured():
        for page in _stored_pages(stage):
            kept += decode_page(json.loads(page.read_bytes())).entries
    _expect(len(kept), stage.size(100_000, 4_000))


def _decode_sdk(stage: Stage) -> None:
    warnings.simplefilter("ignore")
    from dropbox.files import ListFolderResult_validator
    from dropbox.stone_serializers import json_compat_obj_decode

    kept: list[Any] = []
    with stage.measured():
        for page in _stored_pages(stage):
            kept += json_compat_obj_decode(ListFolderResult_validator, json.loads(page.read_bytes())).entries
    _expect(len(kept), stage.size(100_000, 4_000))


# One name ----------------------------------------------------------------------


def _seed_folder(stage: Stage) -> None:
    _seed_tree(stage, "/tree", stage.size(1000, 50), 1)


def _stat(stage: Stage) -> None:
    folder = "/tree/folder 000"
    with _opened(stage) as dropbox:
        with stage.measured("cold"):
            dropbox.getinfo(f"{folder}/file 00007.txt", ["details"])
        with stage.measured("warm"):
            for _ in range(100):
                dropbox.getinfo(f"{folder}/file 00007.txt", ["details"])
        with stage.measured("20 threads list"), ThreadPoolExecutor(20) as pool:
            listings = list(pool.map(lambda _: len(dropbox.listdir(folder)), range(20)))
        _expect(set(listings), {stage.size(1000, 50)})
        with stage.measured("absent"):
            _expect(any(dropbox.exists(f"{folder}/none {number}") for number in range(100)), False)


def _stat_rclone(stage: Stage) -> None:
    name = "dropbox:tree/folder 000/file 00007.txt"
    stage.program(*stage.account.rclone(stage.scratch, "lsjson", "--stat", name), label="cold")


# Trees -------------------------------------------------------------------------

FOLDER_OPERATIONS: Final = ("copydir", "movedir", "removetree")
OPERATIONS: Final = (*FOLDER_OPERATIONS, "copy", "move")


def _seed_operations(stage: Stage) -> None:
    _seed_tree(stage, "/ours", stage.size(300, 30), stage.size(15, 3))
    _seed_tree(stage, "/peer", stage.size(300, 30), stage.size(15, 3))


def _operations(stage: Stage) -> None:
    with _opened(stage) as dropbox:
        with stage.measured("copydir"):
            dropbox.copydir("/ours", "/ours copied", create=True)
        with stage.measured("movedir"):
            dropbox.movedir("/ours", "/ours moved", create=True)
        with stage.measured("removetree"):
            dropbox.removetree("/ours copied")
        with stage.measured("copy"):
            dropbox.copy("/ours moved/folder 000/file 00000.txt", "/ours moved/copy")
        with stage.measured("move"):
            dropbox.move("/ours moved/copy", "/ours moved/moved")


def _operations_rclone(stage: Stage) -> None:
    def run(label: str, *arguments: str) -> None:
        stage.program(*stage.account.rclone(stage.scratch, *arguments), label=label)

    run("copydir", "copy", "dropbox:peer", "dropbox:peer copied")
    run("movedir", "moveto", "dropbox:peer", "dropbox:peer moved")
    run("removetree", "purge", "dropbox:peer copied")
    run("copy", "copyto", "dropbox:peer moved/folder 000/file 00000.txt", "dropbox:peer moved/copy")
    run("move", "moveto", "dropbox:peer moved/copy", "dropbox:peer moved/moved")


def _expect(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found} instead of {expected}")


ROWS: Final = (
    Row(
        "walk",
        "walk of 10,000 files in 500 folders",
        _walk,
        peers=[("rclone", _walk_rclone)],
        prepare=_seed_walk,
        targets=[
            Target("listed in at most entries / page + 2 calls", lambda r: _listings(r) <= 10_500 // PAGE_ENTRIES + 2)
        ],
    ),
    Row(
        "decode",
        "100,000 entries out of JSON",
        _decode,
        peers=[("Dropbox SDK", _decode_sdk)],
        prepare=_write_pages,
        targets=[
            Target("under 1 s of CPU", lambda r: r[OURS][""].cpu_seconds < 1),
            Target("under 100 MB", lambda r: r[OURS][""].grown_bytes < 100e6),
        ],
        needs_account=False,
    ),
    Row(
        "stat",
        "one name in a folder of 1,000: 1 cold, 100 warm, 100 absent; 20 threads list the folder",
        _stat,
        peers=[("rclone", _stat_rclone)],
        prepare=_seed_folder,
        targets=[
            Target("cold: 1 call", lambda r: r[OURS]["cold"].calls.get("files/get_metadata") == 1),
            Target("warm: 0 calls", lambda r: not r[OURS]["warm"].all_calls),
            Target("absent in a known listing: 0 calls", lambda r: not r[OURS]["absent"].all_calls),
            Target("20 threads: 1 listing", lambda r: r[OURS]["20 threads list"].calls == {LISTING[0]: 1}),
        ],
    ),
    Row(
        "tree",
        "server-side operations on 300 files in 15 folders",
        _operations,
        peers=[("rclone", _operations_rclone)],
        prepare=_seed_operations,
        targets=[
            Target(f"{name}: at most 4 calls", lambda r, name=name: r[OURS][name].all_calls <= 4)  # type: ignore[misc]
            for name in OPERATIONS
        ],
    ),
)
