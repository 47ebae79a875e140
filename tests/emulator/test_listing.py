"""Listings, cursors, deltas and longpoll."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from fs_dropbox.emulator.model import state
from tests.waiting import eventually

from .raw_api import Api, bare, error_of


def paths(entries: list[dict[str, Any]]) -> list[str]:
    return [("-" if e[".tag"] == "deleted" else "") + e["path_display"] for e in entries]


def latest(api: Api, path: str = "", **fields: Any) -> str:
    answer = api.ok(api.rpc("files/list_folder/get_latest_cursor", {"path": path, **fields}))
    assert set(answer) == {"cursor"}
    return str(answer["cursor"])


def test_pages_hold_each_entry_once(api: Api) -> None:
    names = {f"/{n:03}" for n in range(25)}
    for name in names:
        api.emulator.control.seed(name, b"x")
    first = api.ok(api.rpc("files/list_folder", {"path": "", "limit": 10}))
    assert (len(first["entries"]), first["has_more"]) == (10, True)
    assert sorted(paths(api.entries("", limit=10))) == sorted(names)
    api.emulator.options.page_size = 7
    assert len(api.ok(api.rpc("files/list_folder", {"path": ""}))["entries"]) == 7
    api.emulator.options.uneven_pages = True
    assert sorted(paths(api.entries(""))) == sorted(names)


def test_recursive_pages_resume_inside_of_folders(api: Api) -> None:
    for path in ("/a/b/c/1", "/a/b/c/2", "/a/b/3", "/a/4", "/b/5", "/6"):
        api.emulator.control.seed(path, b"x")
    whole = paths(api.entries("", recursive=True))
    assert whole == ["/6", "/a", "/a/4", "/a/b", "/a/b/3", "/a/b/c", "/a/b/c/1", "/a/b/c/2", "/b", "/b/5"]
    for limit in range(1, 11):
        assert paths(api.entries("", recursive=True, limit=limit)) == whole


@pytest.mark.parametrize("limit", [1, 2, 500])
def test_a_recursive_listing_may_contain_its_root(api: Api, limit: int) -> None:
    api.put("/A/b", b"x")
    assert paths(api.entries("/a", recursive=True, limit=limit)) == ["/A", "/A/b"]
    api.emulator.options.recursive_lists_root = False
    assert paths(api.entries("/a", recursive=True, limit=limit)) == ["/A/b"]


def test_listing_errors(api: Api) -> None:
    api.put("/file", b"x")
    for route in ("files/list_folder", "files/list_folder/get_latest_cursor"):
        assert bare(error_of(api.rpc(route, {"path": "/file"}))) == "path/not_folder"
        assert bare(error_of(api.rpc(route, {"path": "/none"}))) == "path/not_found"
    response = api.rpc("files/list_folder", {"path": "/"})
    assert response.status_code == 400
    assert response.text == (
        'Error in call to API function "files/list_folder": request body: path: '
        'Specify the root folder as an empty string rather than as "/".'
    )


def test_changes_during_a_listing_come_after_it(api: Api) -> None:
    for name in "abcd":
        api.put(f"/{name}", b"1")
    page = api.ok(api.rpc("files/list_folder", {"path": "", "limit": 2}))
    assert paths(page["entries"]) == ["/a", "/b"]
    api.emulator.control.delete("/a")
    api.emulator.control.write("/aa", b"new")
    api.emulator.control.write("/d", b"changed")
    rest, cursor = api.news(page["cursor"])
    assert paths(rest) == ["/c", "/d", "-/a", "/aa", "/d"]
    assert api.news(cursor)[0] == []


def test_a_delta_reports_each_path_as_it_is_now(api: Api) -> None:
    api.put("/Folder/a", b"1")
    cursor = latest(api, recursive=True)
    api.put("/Folder/a", b"2", "overwrite")
    api.put("/Folder/a", b"3", "overwrite")
    api.put("/new", b"x")
    api.emulator.control.delete("/new")
    entries, cursor = api.news(cursor)
    assert paths(entries) == ["/Folder/a", "-/new"]
    assert entries[0]["size"] == 1
    api.emulator.control.move("/folder", "/Other")
    entries, cursor = api.news(cursor)
    assert paths(entries) == ["-/Folder", "/Other", "/Other/a"]


def test_a_replaced_folder_loses_its_children_first(api: Api) -> None:
    api.put("/folder/old", b"1")
    cursor = latest(api, recursive=True)
    api.emulator.control.delete("/folder")
    api.put("/folder/new", b"2")
    assert paths(api.news(cursor)[0]) == ["-/folder", "/folder", "/folder/new"]


def test_what_ends_and_begins_anew_within_a_page_is_there_in_the_end(api: Api) -> None:
    cursor = latest(api, recursive=True)
    for _ in range(2):
        api.ok(api.rpc("files/create_folder_v2", {"path": "/folder"}))
        api.put("/other", b"1")
        api.emulator.control.delete("/folder")
    api.ok(api.rpc("files/create_folder_v2", {"path": "/folder"}))
    assert paths(api.news(cursor)[0]) == ["/other", "-/folder", "/folder"]


@pytest.mark.parametrize("limit", [1, 2, 3, None])
def test_what_was_deleted_is_listed_on_request(api: Api, limit: int | None) -> None:
    for path in ("/d/sub/x", "/d/y", "/e", "/f/z"):
        api.put(path, b"1")
    for path in ("/d", "/f/z"):
        api.emulator.control.delete(path)
    how = {"include_deleted": True, "limit": limit}
    assert paths(api.entries("", **how)) == ["-/d", "/e", "/f"]
    everything = ["-/d", "-/d/sub", "-/d/sub/x", "-/d/y", "/e", "/f", "-/f/z"]
    assert paths(api.entries("", recursive=True, **how)) == everything


def test_a_replaced_file_is_one_event(api: Api) -> None:
    api.put("/file", b"1")
    cursor = latest(api, recursive=True)
    api.emulator.control.delete("/file")
    api.put("/file", b"2")
    assert paths(api.news(cursor)[0]) == ["/file"]


def test_children_of_a_deleted_folder_are_a_switch(api: Api) -> None:
    api.emulator.options.delete_lists_children = True
    api.put("/folder/file", b"1")
    cursor = latest(api, recursive=True)
    api.emulator.control.delete("/folder")
    assert paths(api.news(cursor)[0]) == ["-/folder/file", "-/folder"]


def test_cursors_keep_to_their_folder_and_depth(api: Api) -> None:
    api.put("/a/x", b"1")
    deep, flat = latest(api, "/a", recursive=True), latest(api, "/a")
    api.put("/b", b"1")
    api.put("/A/sub/y", b"1")
    assert paths(api.news(deep)[0]) == ["/a/sub", "/a/sub/y"]
    assert paths(api.news(flat)[0]) == ["/a/sub"]


def test_what_is_mounted_can_be_left_out(api: Api) -> None:
    api.put("/Shared/a", b"1")
    api.ok(api.rpc("sharing/share_folder", {"path": "/Shared"}))
    how: Any = {"recursive": True, "include_mounted_folders": False}
    assert paths(api.entries("", **how)) == ["/Shared"]
    cursor, within = latest(api, **how), latest(api, "/Shared", **how)
    api.put("/Shared/b", b"1")
    api.put("/c", b"1")
    assert paths(api.news(cursor)[0]) == ["/c"]
    assert paths(api.news(within)[0]) == ["/Shared/b"]


def test_a_file_in_place_of_a_folder_follows_its_deletion(api: Api) -> None:
    """A client that drops nothing for a file has heard of all that went with the folder."""
    api.put("/x/sub/file", b"1")
    api.put("/y", b"1")
    cursor = latest(api, recursive=True)
    for path in ("/x", "/y"):
        api.emulator.control.delete(path)
        api.put(path, b"2")
    news = [(entry[".tag"], entry["path_lower"]) for entry in api.news(cursor)[0]]
    assert news == [("deleted", "/x"), ("file", "/x"), ("file", "/y")]


def test_another_case_of_a_folder_is_news_of_all_below(api: Api) -> None:
    api.put("/folder/Sub/file", b"1")
    cursor = latest(api, recursive=True)
    arg = {"from_path": "/folder", "to_path": "/FOLDER", "autorename": True}
    api.ok(api.rpc("files/move_v2", arg))
    shown = [entry["path_display"] for entry in api.news(cursor)[0]]
    assert shown == ["/FOLDER", "/FOLDER/Sub", "/FOLDER/Sub/file"]


def test_delta_pages(api: Api) -> None:
    cursor = latest(api, recursive=True, limit=10)
    for number in range(35):
        api.emulator.control.write(f"/f{number:02}", b"x")
    page = api.ok(api.rpc("files/list_folder/continue", {"cursor": cursor}))
    assert (len(page["entries"]), page["has_more"]) == (10, True)
    assert len(api.news(cursor)[0]) == 35


def test_cursor_errors(api: Api) -> None:
    api.put("/folder/x", b"1")
    cursor = latest(api, "/folder")
    junk = api.rpc("files/list_folder/continue", {"cursor": cursor[:-8] + "AAAAAAAA"})
    assert junk.status_code == 400
    assert "cursor" in junk.text
    api.emulator.control.delete("/folder")
    gone = api.rpc("files/list_folder/continue", {"cursor": cursor})
    assert bare(error_of(gone)) == "path/not_found"
    cursor = latest(api)
    api.emulator.control.reset_cursors()
    assert bare(error_of(api.rpc("files/list_folder/continue", {"cursor": cursor}))) == "reset"
    assert bare(error_of(api.rpc("files/list_folder/longpoll", {"cursor": cursor}))) == "reset"


def test_a_cursor_from_before_what_is_remembered_is_reset(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "JOURNAL_RECORDS", 4)
    old = latest(api)
    for number in range(4):
        api.put(f"/{number}", b"")
    young = latest(api)
    assert len(api.news(old)[0]) == 4
    api.put("/4", b"")
    api.put("/5", b"")
    for route in ("files/list_folder/continue", "files/list_folder/longpoll"):
        assert bare(error_of(api.rpc(route, {"cursor": old}))) == "reset"
    assert paths(api.news(young)[0]) == ["/4", "/5"]


@pytest.mark.parametrize("cursor", ["junk", "AAAA", "\u00e4"])
def test_a_cursor_that_never_was(api: Api, cursor: str) -> None:
    for route in ("files/list_folder/continue", "files/list_folder/longpoll"):
        told = f'Error in call to API function "{route}": Invalid "cursor" parameter: \'{cursor}\''
        refused = api.rpc(route, {"cursor": cursor})
        assert (refused.status_code, refused.content.decode()) == (400, told)


def test_longpoll_answers_at_once_when_something_is_pending(api: Api) -> None:
    cursor = latest(api)
    api.put("/a", b"1")
    assert api.ok(api.rpc("files/list_folder/longpoll", {"cursor": cursor})) == {"changes": True}
    api.emulator.options.longpoll_backoff_seconds = 7
    assert api.ok(api.rpc("files/list_folder/longpoll", {"cursor": cursor})) == {"changes": True, "backoff": 7}


def test_longpoll_takes_no_cursor_of_a_listing_with_media_info(api: Api) -> None:
    for route in ("files/list_folder", "files/list_folder/get_latest_cursor"):
        cursor = api.ok(api.rpc(route, {"path": "", "include_media_info": True}))["cursor"]
        refused = api.rpc("files/list_folder/longpoll", {"cursor": cursor})
        assert (refused.status_code, refused.text.partition("request body: ")[2]) == (
            400,
            "cursor: unsupported cursor type",
        )
        assert api.ok(api.rpc("files/list_folder/continue", {"cursor": cursor}))["entries"] == []


def test_longpoll_wakes_with_a_change_of_its_folder(api: Api) -> None:
    api.put("/a/x", b"1")
    cursor = latest(api, "/a", recursive=True)
    answers: list[Any] = []

    def poll() -> None:
        answers.append(api.rpc("files/list_folder/longpoll", {"cursor": cursor, "timeout": 30}))

    thread = threading.Thread(target=poll)
    thread.start()
    eventually(lambda: api.emulator.control.calls()["files/list_folder/longpoll"])
    api.emulator.control.write("/elsewhere", b"1")
    thread.join(0.3)
    assert thread.is_alive()
    api.emulator.control.write("/a/new", b"1")
    thread.join(20)  # it would end by itself after 30
    assert not thread.is_alive()
    assert api.ok(answers[0]) == {"changes": True}


def test_longpoll_ends_when_its_client_has_gone(api: Api) -> None:
    with pytest.raises(requests.ReadTimeout):
        api.http.post(
            "https://notify.dropboxapi.com/2/files/list_folder/longpoll",
            json={"cursor": latest(api), "timeout": 480},
            timeout=(30, 0.2),
        )
    eventually(lambda: api.emulator.control.calls()["files/list_folder/longpoll"], "never: it has begun")
    eventually(lambda: not api.emulator.control.under_way("files/list_folder/longpoll"), "it goes on")


def test_longpoll_hears_of_a_reset(api: Api) -> None:
    cursor = latest(api)
    with ThreadPoolExecutor(1) as pool:
        polled = pool.submit(api.rpc, "files/list_folder/longpoll", {"cursor": cursor, "timeout": 30})
        eventually(lambda: api.emulator.control.under_way("files/list_folder/longpoll"))
        api.emulator.control.reset_cursors()
        assert bare(error_of(polled.result(20))) == "reset"


def test_longpoll_takes_no_authorization(api: Api) -> None:
    response = api.rpc("files/list_folder/longpoll", {"cursor": latest(api)}, Authorization=f"Bearer {api.token}")
    assert response.status_code == 400
    too_short = api.rpc("files/list_folder/longpoll", {"cursor": latest(api), "timeout": 5})
    assert too_short.status_code == 400


def test_search(api: Api) -> None:
    for path in ("/Reports/Report one.TXT", "/reports/report two.txt", "/report.pdf", "/other"):
        api.put(path, b"x")
    answer = api.ok(api.rpc("files/search_v2", {"query": "REPORT txt"}))
    assert [m["metadata"]["metadata"]["name"] for m in answer["matches"]] == ["Report one.TXT", "report two.txt"]
    assert answer["matches"][0]["metadata"][".tag"] == "metadata"
    assert answer["has_more"] is False
    options = {"path": "", "max_results": 1, "file_categories": ["pdf", "folder"]}
    first = api.ok(api.rpc("files/search_v2", {"query": "report", "options": options}))
    assert first["has_more"] is True
    rest = api.ok(api.rpc("files/search/continue_v2", {"cursor": first["cursor"]}))
    names = [m["metadata"]["metadata"]["name"] for m in first["matches"] + rest["matches"]]
    assert sorted(names) == ["Reports", "report.pdf"]
    api.emulator.control.delete("/other")
    nowhere = api.ok(api.rpc("files/search_v2", {"query": "report", "options": {"path": "/none"}}))
    assert (nowhere["matches"], nowhere["has_more"]) == ([], False)
    malformed = api.rpc("files/search_v2", {"query": "report", "options": {"path": "/a//b"}})
    assert bare(error_of(malformed)) == "path/malformed_path"
    deleted = api.ok(api.rpc("files/search_v2", {"query": "other", "options": {"file_status": "deleted"}}))
    assert [m["metadata"]["metadata"][".tag"] for m in deleted["matches"]] == ["deleted"]
