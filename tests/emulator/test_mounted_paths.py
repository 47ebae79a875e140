"""What lies in a mounted folder, or has lain there, is shown at the path where its reader has mounted it."""

from __future__ import annotations

from typing import Any

import pytest

from .raw_api import Api


@pytest.fixture
def rev(api: Api) -> str:
    """The revision of /Office/Shared/sub/A.txt, deleted after the folder in between was shared."""
    api.emulator.control.share_folder("/Office/Shared")
    rev = str(api.put("/Office/Shared/sub/A.txt", b"1")["rev"])
    api.put("/Office/Shared/sub/B.txt", b"2")
    return rev


def shown(entry: dict[str, Any]) -> tuple[str, str, str]:
    return entry[".tag"], entry["path_lower"], entry["path_display"]


DELETED = ("deleted", "/office/shared/sub/a.txt", "/Office/Shared/sub/A.txt")


def test_a_namespace_is_the_folder_where_it_shows(api: Api, rev: str) -> None:
    by_path = api.ok(api.rpc("files/get_metadata", {"path": "/office/shared"}))
    namespace = f"ns:{by_path['shared_folder_id']}"
    assert by_path["name"] == "Shared"
    assert api.ok(api.rpc("files/get_metadata", {"path": namespace})) == by_path
    assert [entry["path_lower"] for entry in api.entries(namespace)] == ["/office/shared/sub"]


def test_what_a_delta_says_is_gone(api: Api, rev: str) -> None:
    cursor = api.ok(api.rpc("files/list_folder/get_latest_cursor", {"path": "", "recursive": True}))["cursor"]
    api.emulator.control.delete("/office/shared/sub/a.txt")
    assert [shown(entry) for entry in api.news(cursor)[0]] == [DELETED]


@pytest.mark.parametrize("limit", [1, 2, 500])
def test_what_a_listing_in_pages_has(api: Api, rev: str, limit: int) -> None:
    api.emulator.control.delete("/office/shared/sub/a.txt")
    entries = api.entries("/office", recursive=True, include_deleted=True, limit=limit)
    assert [shown(entry) for entry in entries] == [
        ("folder", "/office", "/Office"),
        ("folder", "/office/shared", "/Office/Shared"),
        ("folder", "/office/shared/sub", "/Office/Shared/sub"),
        DELETED,
        ("file", "/office/shared/sub/b.txt", "/Office/Shared/sub/B.txt"),
    ]


def test_what_is_left_of_a_file(api: Api, rev: str) -> None:
    api.emulator.control.delete("/office/shared/sub/a.txt")
    gone = {"path": "/office/SHARED/sub/a.txt", "include_deleted": True}
    assert shown(api.ok(api.rpc("files/get_metadata", gone))) == DELETED
    assert shown(api.ok(api.rpc("files/get_metadata", {"path": f"rev:{rev}"}))) == ("file", *DELETED[1:])
    query = {"query": "a.txt", "options": {"file_status": "deleted"}}
    found = api.ok(api.rpc("files/search_v2", query))["matches"]
    assert [shown(match["metadata"]["metadata"]) for match in found] == [DELETED]
