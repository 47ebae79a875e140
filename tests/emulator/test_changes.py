"""Folders, deletion, moves and copies, revisions: what they answer and leave behind."""

from __future__ import annotations

from typing import Any

from .raw_api import Api, bare, error_of


def relocate(api: Api, what: str, source: str, target: str, **fields: Any) -> Any:
    return api.rpc(f"files/{what}_v2", {"from_path": source, "to_path": target, **fields})


def get(api: Api, path: str) -> Any:
    return api.ok(api.rpc("files/get_metadata", {"path": path}))


def test_get_metadata_is_tagged(api: Api) -> None:
    api.put("/folder/file", b"x")
    assert get(api, "/folder/file")[".tag"] == "file"
    folder = get(api, "/Folder")
    assert folder == {
        ".tag": "folder",
        "name": "folder",
        "path_lower": "/folder",
        "path_display": "/folder",
        "id": folder["id"],
    }
    missing = api.rpc("files/get_metadata", {"path": "/folder/file/below"})
    assert bare(error_of(missing)) == "path/not_found"


def test_deleted_entries_are_remembered(api: Api) -> None:
    api.put("/Folder/File", b"x")
    api.ok(api.rpc("files/delete_v2", {"path": "/folder"}))
    assert bare(error_of(api.rpc("files/get_metadata", {"path": "/folder/file"}))) == "path/not_found"
    deleted = api.ok(api.rpc("files/get_metadata", {"path": "/folder/file", "include_deleted": True}))
    assert deleted == {
        ".tag": "deleted",
        "name": "File",
        "path_lower": "/folder/file",
        "path_display": "/Folder/File",
    }
    listed = api.entries("", include_deleted=True, recursive=True)
    assert [(e[".tag"], e["path_lower"]) for e in listed] == [("deleted", "/folder"), ("deleted", "/folder/file")]
    api.put("/folder/file", b"y")
    assert [e[".tag"] for e in api.entries("", include_deleted=True, recursive=True)] == ["folder", "file"]


def test_create_folder(api: Api) -> None:
    created = api.ok(api.rpc("files/create_folder_v2", {"path": "/a/b/c"}))["metadata"]
    assert ".tag" not in created
    assert created["path_display"] == "/a/b/c"
    again = api.rpc("files/create_folder_v2", {"path": "/A/B/C"})
    assert bare(error_of(again)) == "path/conflict/folder"
    renamed = api.ok(api.rpc("files/create_folder_v2", {"path": "/a/b/c", "autorename": True}))
    assert renamed["metadata"]["name"] == "c (1)"
    api.put("/file.txt", b"x")
    dotted = api.ok(api.rpc("files/create_folder_v2", {"path": "/file.txt", "autorename": True}))
    assert dotted["metadata"]["name"] == "file (1).txt"
    api.put("/file", b"x")
    assert bare(error_of(api.rpc("files/create_folder_v2", {"path": "/file"}))) == "path/conflict/file"
    assert bare(error_of(api.rpc("files/create_folder_v2", {"path": "/file/a"}))) == "path/conflict/file_ancestor"


def test_delete_answers_what_was_there_and_is_recursive(api: Api) -> None:
    api.put("/Folder/File", b"x")
    deleted = api.ok(api.rpc("files/delete_v2", {"path": "/folder"}))["metadata"]
    assert (deleted[".tag"], deleted["path_display"]) == ("folder", "/Folder")
    assert api.emulator.control.tree() == {}
    again = api.rpc("files/delete_v2", {"path": "/folder"})
    assert bare(error_of(again)) == "path_lookup/not_found"


def test_delete_with_parent_rev(api: Api) -> None:
    rev = api.put("/a", b"x")["rev"]
    stale = api.rpc("files/delete_v2", {"path": "/a", "parent_rev": "0123456789"})
    assert bare(error_of(stale)) == "path_write/conflict/file"
    api.ok(api.rpc("files/delete_v2", {"path": "/a", "parent_rev": rev}))


def test_too_many_files(api: Api) -> None:
    api.emulator.options.max_subtree_entries = 3
    for name in "abc":
        api.put(f"/folder/{name}", b"x")
    assert bare(error_of(api.rpc("files/delete_v2", {"path": "/folder"}))) == "too_many_files"
    assert bare(error_of(relocate(api, "move", "/folder", "/other"))) == "too_many_files"


def test_move_keeps_ids_and_times_and_makes_new_revs(api: Api) -> None:
    before = api.put("/A/File", b"x", client_modified="2001-01-01T00:00:00Z")
    folder = get(api, "/a")
    moved = api.ok(relocate(api, "move", "/a", "/New/B"))["metadata"]
    assert (moved[".tag"], moved["id"], moved["path_display"]) == ("folder", folder["id"], "/New/B")
    after = get(api, "/new/b/file")
    assert (after["id"], after["client_modified"]) == (before["id"], before["client_modified"])
    assert after["rev"] != before["rev"]
    assert bare(error_of(api.rpc("files/get_metadata", {"path": "/a/file"}))) == "path/not_found"


def test_copy_makes_new_ids(api: Api) -> None:
    before = api.put("/A/File", b"x", client_modified="2001-01-01T00:00:00Z")
    copied = api.ok(relocate(api, "copy", "/a", "/b"))["metadata"]
    assert copied["id"] != get(api, "/a")["id"]
    after = get(api, "/b/file")
    assert after["id"] != before["id"]
    assert after["client_modified"] == before["client_modified"]
    assert (after["name"], after["content_hash"]) == ("File", before["content_hash"])


def test_move_never_overwrites(api: Api) -> None:
    api.put("/a", b"1")
    api.put("/b", b"2")
    api.put("/folder/x", b"3")
    for what in ("move", "copy"):
        assert bare(error_of(relocate(api, what, "/a", "/B"))) == "to/conflict/file"
        assert bare(error_of(relocate(api, what, "/a", "/folder"))) == "to/conflict/folder"
        assert bare(error_of(relocate(api, what, "/a", "/b/c"))) == "to/conflict/file_ancestor"
        assert bare(error_of(relocate(api, what, "/none", "/c"))) == "from_lookup/not_found"
    assert api.ok(relocate(api, "copy", "/a", "/b", autorename=True))["metadata"]["name"] == "b (1)"
    assert bare(error_of(relocate(api, "copy", "/a", "/a"))) == "to/conflict/file"
    assert bare(error_of(relocate(api, "move", "/a", "/a"))) == "duplicated_or_nested_paths"


def test_a_folder_has_no_revision_by_which_it_could_be_deleted(api: Api) -> None:
    rev = api.put("/folder/file", b"x")["rev"]
    refused = api.rpc("files/delete_v2", {"path": "/folder", "parent_rev": rev})
    assert bare(error_of(refused)) == "path_write/conflict/folder"


def test_a_folder_cannot_go_into_itself(api: Api) -> None:
    api.put("/folder/sub/file", b"x")
    assert bare(error_of(relocate(api, "move", "/folder", "/Folder/sub/deep"))) == "cant_move_folder_into_itself"
    assert bare(error_of(relocate(api, "copy", "/folder", "/folder/copy"))) == "duplicated_or_nested_paths"


def test_case_only_move_is_a_switch(api: Api) -> None:
    api.put("/file", b"x")
    assert api.ok(relocate(api, "move", "/file", "/FILE"))["metadata"]["name"] == "file"
    api.emulator.options.case_only_move = "conflict"
    assert bare(error_of(relocate(api, "move", "/file", "/FILE"))) == "to/conflict/file"
    assert api.ok(relocate(api, "move", "/file", "/FiLe", autorename=True))["metadata"]["name"] == "FiLe"
    api.emulator.options.case_only_move = "rename"
    assert api.ok(relocate(api, "move", "/file", "/FILE"))["metadata"]["name"] == "FILE"


def test_a_change_of_case_alone_can_be_no_news(api: Api) -> None:
    api.emulator.control.options(case_only_move="rename", report_case_changes=False)
    api.put("/folder/file", b"x")
    cursor = api.ok(api.rpc("files/list_folder/get_latest_cursor", {"path": "", "recursive": True}))["cursor"]
    api.ok(relocate(api, "move", "/folder", "/FOLDER"))
    assert api.news(cursor)[0] == []
    assert [entry["path_display"] for entry in api.entries(recursive=True)] == ["/FOLDER", "/FOLDER/file"]


def test_something_new_can_be_unknown_to_moves_for_a_moment(api: Api) -> None:
    api.emulator.options.not_found_after_create_seconds = 3600
    api.put("/a", b"x")
    assert bare(error_of(relocate(api, "move", "/a", "/b"))) == "from_lookup/not_found"
    api.emulator.options.not_found_after_create_seconds = 0
    api.ok(relocate(api, "move", "/a", "/b"))


def revisions(api: Api, path: str, **fields: Any) -> Any:
    return api.ok(api.rpc("files/list_revisions", {"path": path, **fields}))


def test_revisions_newest_first_with_pages(api: Api) -> None:
    revs = [api.put("/a", bytes([n]), "overwrite")["rev"] for n in range(5)]
    answer = revisions(api, "/a", limit=2)
    assert [e["rev"] for e in answer["entries"]] == revs[:2:-1]
    assert answer["has_more"] is True
    assert answer["is_deleted"] is False
    assert all(".tag" not in e for e in answer["entries"])
    rest = revisions(api, "/a", before_rev=revs[3])
    assert [e["rev"] for e in rest["entries"]] == revs[2::-1]


def test_revisions_before_one_that_there_is_not(api: Api) -> None:
    rev = api.put("/a", b"1")["rev"]
    wrong = {"path": "/a", "before_rev": "0123456789abcdef"}
    assert bare(error_of(api.rpc("files/list_revisions", wrong))) == "invalid_before_rev"
    by_id = {"path": "/a", "mode": "id", "before_rev": rev}
    assert bare(error_of(api.rpc("files/list_revisions", by_id))) == "before_rev_not_supported"


def test_revisions_by_path_and_by_id(api: Api) -> None:
    first = api.put("/a", b"1")
    api.ok(relocate(api, "move", "/a", "/b"))
    api.put("/b", b"2", "overwrite")
    assert len(revisions(api, "/b")["entries"]) == 2
    assert len(revisions(api, first["id"], mode="id")["entries"]) == 3
    gone = revisions(api, "/a")
    assert gone["is_deleted"] is True
    assert [e["rev"] for e in gone["entries"]] == [first["rev"]]
    assert gone["server_deleted"].endswith("Z")


def test_revisions_of_folders_and_nothing(api: Api) -> None:
    api.put("/folder/file", b"x")
    assert bare(error_of(api.rpc("files/list_revisions", {"path": "/folder"}))) == "path/not_file"
    assert bare(error_of(api.rpc("files/list_revisions", {"path": "/none"}))) == "path/not_found"
    api.ok(api.rpc("files/delete_v2", {"path": "/folder"}))
    assert bare(error_of(api.rpc("files/list_revisions", {"path": "/folder"}))) == "path/not_file"


def test_restore(api: Api) -> None:
    old = api.put("/folder/a", b"old", client_modified="2001-01-01T00:00:00Z")
    api.put("/folder/a", b"new", "overwrite")
    api.ok(api.rpc("files/delete_v2", {"path": "/folder"}))
    restored = api.ok(api.rpc("files/restore", {"path": "/folder/a", "rev": old["rev"]}))
    assert (restored["id"], restored["client_modified"]) == (old["id"], old["client_modified"])
    assert restored["rev"] != old["rev"]
    assert api.emulator.control.read("/folder/a") == b"old"
    bad = api.rpc("files/restore", {"path": "/folder/a", "rev": "0123456789"})
    assert bare(error_of(bad)) == "invalid_revision"


def test_what_cannot_be_restored(api: Api) -> None:
    old = api.put("/a", b"old")
    api.put("/a", b"new", "overwrite")
    api.put("/folder/b", b"x")

    def restored(path: str) -> str:
        return bare(error_of(api.rpc("files/restore", {"path": path, "rev": old["rev"]})))

    assert restored("/b") == "invalid_revision", "it was never there"
    api.ok(relocate(api, "move", "/a", "/c"))
    api.ok(relocate(api, "move", "/folder", "/a"))
    assert restored("/a") == "path_write/conflict/folder"


def test_a_revision_comes_back_where_its_file_was_or_is(api: Api) -> None:
    first = api.put("/a", b"1")
    api.put("/a", b"2", "overwrite")
    api.ok(relocate(api, "move", "/a", "/b"))
    where_it_was = api.ok(api.rpc("files/restore", {"path": "/a", "rev": first["rev"]}))
    assert where_it_was["id"] != first["id"], "the file itself is elsewhere"
    assert api.emulator.control.read("/b") == b"2"
    where_it_is = api.ok(api.rpc("files/restore", {"path": "/b", "rev": first["rev"]}))
    assert where_it_is["id"] == first["id"]
    assert api.emulator.control.read("/b") == b"1"


def test_revisions_go_with_time(api: Api) -> None:
    old = api.put("/a", b"old")
    new = api.put("/a", b"new", "overwrite")
    api.emulator.options.history_seconds = -1
    assert [e["rev"] for e in revisions(api, "/a")["entries"]] == [new["rev"]]
    assert bare(error_of(api.rpc("files/get_metadata", {"path": f"rev:{old['rev']}"}))) == "path/not_found"
    assert bare(error_of(api.rpc("files/restore", {"path": "/a", "rev": old["rev"]}))) == "invalid_revision"
    assert get(api, f"rev:{new['rev']}")["rev"] == new["rev"]


def test_permanently_delete_is_for_teams(api: Api) -> None:
    api.put("/a", b"x")
    response = api.rpc("files/permanently_delete", {"path": "/a"})
    assert response.status_code == 400  # the app has no such scope
    assert "files.permanent_delete" in response.text
