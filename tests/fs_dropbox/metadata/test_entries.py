"""Entries come out of the API's JSON whole and fast, and turn into what PyFilesystem shows."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest
from fs.enums import ResourceType

from fs_dropbox.api.results import decode_page
from fs_dropbox.entries import (
    FOLDER_TIME,
    DeletedEntry,
    FileEntry,
    FolderEntry,
    decode,
    decode_file,
    root_info,
    to_info,
)

FILE: dict[str, Any] = {
    ".tag": "file",
    "name": "Prime.txt",
    "id": "id:a4ayc_80_OEAAAAAAAAAXw",
    "client_modified": "2015-05-12T15:50:38Z",
    "server_modified": "2016-01-02T03:04:05Z",
    "rev": "a1c10ce0dd78",
    "size": 7212,
    "path_lower": "/homework/prime.txt",
    "path_display": "/Homework/Prime.txt",
    "sharing_info": {"read_only": True, "parent_shared_folder_id": "84528192421", "modified_by": "dbid:x"},
    "is_downloadable": False,
    "export_info": {"export_as": "html", "export_options": ["html", "markdown"]},
    "symlink_info": {"target": "elsewhere"},
    "file_lock_info": {"is_lockholder": False, "lockholder_name": "Imaginary", "created": "2015-05-12T15:50:38Z"},
    "content_hash": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
}
FOLDER = {
    ".tag": "folder",
    "name": "Homework",
    "id": "id:f",
    "path_lower": "/homework",
    "path_display": "/Homework",
    "sharing_info": {"read_only": False, "shared_folder_id": "77", "traverse_only": True},
}
PLAIN = {key: FILE[key] for key in ("name", "id", "client_modified", "server_modified", "rev", "size")}


def test_a_file_with_everything() -> None:
    entry = decode(FILE)
    assert isinstance(entry, FileEntry)
    assert (entry.name, entry.path_lower, entry.path_display) == (
        "Prime.txt",
        "/homework/prime.txt",
        "/Homework/Prime.txt",
    )
    assert entry.client_modified == datetime(2015, 5, 12, 15, 50, 38, tzinfo=UTC)
    assert entry.server_modified == datetime(2016, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert entry.sharing is not None
    assert entry.sharing.read_only
    assert entry.lock is not None
    assert entry.lock.holder_name == "Imaginary"
    assert entry.export is not None
    assert entry.export.options == ("html", "markdown")
    assert entry.symlink_target == "elsewhere"
    assert not entry.is_downloadable


def test_a_file_with_the_least() -> None:
    entry = decode_file(PLAIN)
    assert entry.is_downloadable
    assert (entry.path_lower, entry.content_hash, entry.sharing, entry.lock) == ("", None, None, None)


def test_a_lock_that_nobody_holds_is_none() -> None:
    assert decode_file(PLAIN | {"file_lock_info": {}}).lock is None


def test_folders_and_deletions() -> None:
    folder = decode(FOLDER)
    assert isinstance(folder, FolderEntry)
    assert folder.sharing is not None
    assert folder.sharing.shared_folder_id == "77"
    assert decode({".tag": "deleted", "name": "a", "path_lower": "/a"}) == DeletedEntry("a", "/a", "/a")


@pytest.mark.parametrize("metadata", [{".tag": "new"}, {".tag": "file"}, {}, {**FILE, "client_modified": "yesterday"}])
def test_what_is_no_metadata(metadata: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        decode(metadata)


def test_info_of_a_file() -> None:
    entry = decode_file({**FILE, "symlink_info": None})
    info = to_info(entry, ["details", "access", "dropbox"])
    assert info.name == "Prime.txt"
    assert not info.is_dir
    assert info.type is ResourceType.file
    assert info.size == 7212
    assert info.raw["details"]["modified"] == entry.client_modified.timestamp()
    assert info.created is None
    assert not info.is_writeable("details", "modified")
    assert info.permissions is not None
    assert info.permissions.mode == 0o644
    assert info.get("dropbox", "rev") == entry.rev
    assert info.get("dropbox", "server_modified") == entry.server_modified.timestamp()
    json.dumps(info.raw)


def test_info_says_only_what_is_asked_for() -> None:
    assert set(to_info(decode_file(PLAIN)).raw) == {"basic"}


def test_info_of_folders_and_the_root() -> None:
    for info in (
        to_info(decode(FOLDER), ["details", "access", "dropbox"]),  # type: ignore[arg-type]
        root_info(["details", "access", "dropbox"]),
    ):
        assert info.is_dir
        assert info.type is ResourceType.directory
        assert info.raw["details"]["modified"] == FOLDER_TIME.timestamp() > 0
        assert info.permissions is not None
        assert info.permissions.mode == 0o755
        json.dumps(info.raw)
    assert root_info().name == ""


def test_symlinks_show_as_such() -> None:
    assert to_info(decode_file(FILE), ["details"]).type is ResourceType.symlink


def _page(count: int) -> bytes:
    entries = [
        {
            ".tag": "file",
            "name": f"File {number}.txt",
            "path_lower": f"/some folder/sub {number % 500}/file {number}.txt",
            "path_display": f"/Some Folder/Sub {number % 500}/File {number}.txt",
            "id": f"id:a4ayc_80_OE{number:011d}",
            "client_modified": "2015-05-12T15:50:38Z",
            "server_modified": "2016-05-12T15:50:38Z",
            "rev": f"a1c10ce0dd{number:08x}",
            "size": number,
            "is_downloadable": True,
            "content_hash": f"{number:064x}",
        }
        for number in range(count)
    ]
    return json.dumps({"entries": entries, "cursor": "c", "has_more": False}).encode()


def test_a_hundred_thousand_entries_take_less_than_100_mb() -> None:
    """How long that takes is the row `decode` of the benchmarks."""
    body = _page(100_000)
    tracemalloc.start()
    kept = decode_page(json.loads(body)).entries
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept) == 100_000
    assert size < 100 * 2**20
