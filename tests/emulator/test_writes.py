"""Write modes, conflicts, autorename, names: what an upload answers and leaves behind."""

from __future__ import annotations

import pytest

from .raw_api import Api, bare, error_of

HELLO_HASH = "16dff8700700b9aa627e24bbf832940c084b41ade5c5d6fe5417963a547ed9c2"


def refused(api: Api, path: str, body: bytes, mode: object = "add", **fields: object) -> str:
    error = error_of(api.upload("files/upload", {"path": path, "mode": mode, **fields}, body))
    assert "upload_session_id" in error
    return bare(error)


def test_upload_answers_the_metadata_without_tag(api: Api) -> None:
    metadata = api.put("/Folder/Hello.txt", b"Hello Dropbox!", client_modified="2020-01-02T03:04:05Z")
    assert ".tag" not in metadata
    assert metadata["name"] == "Hello.txt"
    assert metadata["path_lower"] == "/folder/hello.txt"
    assert metadata["path_display"] == "/Folder/Hello.txt"
    assert metadata["size"] == 14
    assert metadata["content_hash"] == HELLO_HASH
    assert metadata["client_modified"] == "2020-01-02T03:04:05Z"
    assert metadata["is_downloadable"] is True
    assert metadata["id"].startswith("id:")


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_odd_times_come_back_as_they_were(api: Api, moment: str) -> None:
    assert api.put("/a", b"x", client_modified=moment)["client_modified"] == moment


def test_names_keep_their_case_and_fold_for_lookup(api: Api) -> None:
    first = api.put("/Dir/FILE.txt", b"1")
    again = api.put("/dIR/file.TXT", b"2", "overwrite")
    assert again["id"] == first["id"]
    assert again["rev"] != first["rev"]
    assert again["path_display"] == "/Dir/FILE.txt"


def test_overwrite_may_change_the_case(api: Api) -> None:
    api.emulator.options.overwrite_name = "change"
    api.put("/FILE.txt", b"1")
    assert api.put("/file.TXT", b"2", "overwrite")["name"] == "file.TXT"


def test_names_are_composed(api: Api) -> None:
    assert api.put("/e\u0301.txt", b"")["path_display"] == "/\u00e9.txt"
    assert api.ok(api.rpc("files/get_metadata", {"path": "/E\u0301.TXT"}))["name"] == "\u00e9.txt"


def test_sigma_has_no_final_form(api: Api) -> None:
    assert api.put("/\u03a3\u03a3\u03a3", b"")["path_lower"] == "/\u03c3\u03c3\u03c3"


def test_letters_younger_than_the_table_keep_their_case(api: Api) -> None:
    assert api.put("/\ua64a", b"")["path_lower"] == "/\ua64a"


def test_identical_content_is_a_no_op(api: Api) -> None:
    first = api.put("/a", b"same", client_modified="2001-01-01T00:00:00Z")
    assert api.put("/a", b"same") == first
    assert api.put("/a", b"same", "overwrite", client_modified="2020-01-01T00:00:00Z") == first
    assert api.put("/a", b"same", {".tag": "update", "update": "0123456789"}) == first
    assert refused(api, "/a", b"same", strict_conflict=True) == "path/conflict/file"


def test_other_content_conflicts_unless_the_mode_allows_it(api: Api) -> None:
    first = api.put("/a", b"one")
    assert refused(api, "/a", b"two") == "path/conflict/file"
    assert refused(api, "/a", b"two", {".tag": "update", "update": "0123456789"}) == "path/conflict/file"
    second = api.put("/a", b"two", {".tag": "update", "update": first["rev"]})
    assert second["id"] == first["id"]
    assert refused(api, "/a", b"three", {".tag": "update", "update": first["rev"]}) == "path/conflict/file"
    assert api.put("/a", b"three", "overwrite")["id"] == first["id"]


def test_update_of_nothing_writes_unless_strict(api: Api) -> None:
    update = {".tag": "update", "update": "0123456789"}
    assert refused(api, "/a", b"x", update, strict_conflict=True) == "path/conflict/file"
    assert api.put("/a", b"x", update)["name"] == "a"


def test_folders_and_file_ancestors_conflict_in_every_mode(api: Api) -> None:
    api.put("/folder/file", b"x")
    for mode in ("add", "overwrite"):
        assert refused(api, "/FOLDER", b"x", mode) == "path/conflict/folder"
        assert refused(api, "/folder/File/below/more", b"x", mode) == "path/conflict/file_ancestor"


def test_autorename_counts_from_one(api: Api) -> None:
    api.put("/a.tar.gz", b"0")
    assert api.put("/a.tar.gz", b"1", autorename=True)["name"] == "a.tar (1).gz"
    assert api.put("/a.tar.gz", b"2", autorename=True)["name"] == "a.tar (2).gz"
    update = {".tag": "update", "update": "0123456789"}
    assert api.put("/a.tar.gz", b"3", update, autorename=True)["name"] == "a.tar (Ann Example's conflicted copy).gz"
    again = api.put("/a.tar.gz", b"4", update, autorename=True)["name"]
    assert again == "a.tar (Ann Example's conflicted copy 2).gz"
    assert api.put("/a.tar.gz", b"0", autorename=True)["name"] == "a.tar.gz"


def test_autorename_goes_round_a_folder(api: Api) -> None:
    api.put("/folder/file", b"x")
    assert api.put("/folder", b"x", autorename=True)["name"] == "folder (1)"


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("x" * 255, "x" * 251 + " (1)"),
        ("x" * 251 + ".txt", "x" * 247 + " (1).txt"),
        ("x" * 252 + ".a", "x" * 249 + " (1).a"),
        ("\U0001f600" * 127, "\U0001f600" * 125 + " (1)"),  # two units each
        ("a." + "x" * 253, "a." + "x" * 249 + " (1)"),  # all of it extension: there is no stem to give way
    ],
)
def test_the_stem_of_a_long_name_gives_way_to_the_number(api: Api, name: str, copy: str) -> None:
    api.put(f"/{name}", b"1")
    assert api.put(f"/{name}", b"2", autorename=True)["name"] == copy
    for number in range(2, 10):
        api.put(f"/{name}", b"%d" % number, autorename=True)
    tenth = api.put(f"/{name}", b"ten", autorename=True)["name"]
    assert " (10)" in tenth
    assert api.ok(api.rpc("files/get_metadata", {"path": f"/{tenth}"}))["name"] == tenth


def test_a_conflicted_copy_in_a_folder_that_has_gone_is_the_first_of_its_name(api: Api) -> None:
    update = {".tag": "update", "update": "0123456789"}
    api.put("/a (Ann Example's conflicted copy)", b"x")  # elsewhere
    copy = api.put("/gone/a", b"x", update, strict_conflict=True, autorename=True)
    assert copy["path_display"] == "/gone/a (Ann Example's conflicted copy)"


def test_what_is_strict_conflicts_even_where_it_would_change_nothing(api: Api) -> None:
    first = api.put("/a", b"same")
    update = {".tag": "update", "update": first["rev"]}
    assert refused(api, "/a", b"same", update, strict_conflict=True) == "path/conflict/file"
    copy = api.put("/a", b"same", update, strict_conflict=True, autorename=True)
    assert copy["name"] == "a (Ann Example's conflicted copy)"
    gone = api.put("/gone", b"x", update, strict_conflict=True, autorename=True)
    assert gone["name"] == "gone (Ann Example's conflicted copy)"
    assert api.put("/a", b"same", "overwrite", strict_conflict=True)["rev"] != first["rev"]


def test_properties_without_a_template_are_refused_but_the_file_is_stored(api: Api) -> None:
    groups = [{"template_id": "ptid:none", "fields": [{"name": "a", "value": "b"}]}]
    missing = {".tag": "template_not_found", "template_not_found": "ptid:none"}
    refused = error_of(api.upload("files/upload", {"path": "/a", "property_groups": groups}, b"1"))
    assert refused == {".tag": "properties_error", "properties_error": missing}
    session = api.ok(api.upload("files/upload_session/start", {"close": True}, b"12"))["session_id"]
    commit = {"path": "/b", "property_groups": groups}
    entry = {"cursor": {"session_id": session, "offset": 2}, "commit": commit}
    (told,) = api.ok(api.rpc("files/upload_session/finish_batch_v2", {"entries": [entry]}))["entries"]
    assert told == {".tag": "failure", "failure": {".tag": "properties_error", "properties_error": missing}}
    assert api.emulator.control.tree() == {"/a": 1, "/b": 2}


def test_a_refused_upload_can_be_committed_elsewhere(api: Api) -> None:
    api.put("/a", b"old")
    error = error_of(api.upload("files/upload", {"path": "/a"}, b"new"))
    cursor = {"session_id": error["upload_session_id"], "offset": 3}
    finish = api.upload("files/upload_session/finish", {"cursor": cursor, "commit": {"path": "/b"}})
    assert api.ok(finish)["size"] == 3
    assert api.emulator.control.read("/b") == b"new"


def test_a_wrong_content_hash_stores_nothing(api: Api) -> None:
    response = api.upload("files/upload", {"path": "/a", "content_hash": HELLO_HASH}, b"something else")
    assert bare(error_of(response)) == "content_hash_mismatch"
    assert not api.emulator.control.exists("/a")


def test_quota(api: Api) -> None:
    api.put("/a", b"12345678")
    api.emulator.control.set_quota(10)
    assert refused(api, "/b", b"123") == "path/insufficient_space"
    large = api.put("/a", b"1234567890", "overwrite")
    copied = api.rpc("files/copy_v2", {"from_path": "/a", "to_path": "/c"})
    assert bare(error_of(copied)) == "insufficient_quota"
    api.put("/a", b"1", "overwrite")
    api.put("/b", b"123456789")
    restore = {"path": "/a", "rev": large["rev"]}
    assert bare(error_of(api.rpc("files/restore", restore))) == "path_write/insufficient_space"
    api.ok(api.rpc("files/delete_v2", {"path": "/a"}))
    assert bare(error_of(api.rpc("files/restore", restore))) == "path_write/insufficient_space"
    api.ok(api.rpc("files/delete_v2", {"path": "/b"}))
    api.ok(api.rpc("files/restore", restore))
    usage = api.ok(api.rpc("users/get_space_usage"))
    assert usage == {"used": 10, "allocation": {".tag": "individual", "allocated": 10}}


@pytest.mark.parametrize(
    "path",
    [
        "/a/",
        "/a//b",
        "//a",
        "/a/../b",
        "/./a",
        "/a\\b",
        "/a ",
        "/a /b",
        "/a\x7f",
        "/" + "x" * 256,
        "/" + "\u263a" * 256,
    ],
)
def test_malformed_paths(api: Api, path: str) -> None:
    assert refused(api, path, b"x") == "path/malformed_path"
    assert bare(error_of(api.rpc("files/get_metadata", {"path": path}))) == "path/malformed_path"
    assert bare(error_of(api.rpc("files/create_folder_v2", {"path": path}))) == "path/malformed_path"
    assert bare(error_of(api.rpc("files/delete_v2", {"path": path}))) == "path_lookup/malformed_path"
    move = api.rpc("files/move_v2", {"from_path": path, "to_path": "/z"})
    assert bare(error_of(move)) == "from_lookup/malformed_path"


def test_long_and_odd_names_are_fine(api: Api) -> None:
    for name in ("x" * 255, "...", " leading", "dot.", "a\nb", '<>:"|?*', ".hidden", "\U0001f600"):
        assert api.put("/" + name, b"x")["name"] == name


def test_astral_names_can_be_refused(api: Api) -> None:
    api.emulator.options.astral_names = False
    assert refused(api, "/\U0001f600", b"x") == "path/malformed_path"


@pytest.mark.parametrize("name", ["desktop.ini", "Thumbs.db", ".DS_Store", "icon\r", ".dropbox", ".dropbox.attr"])
def test_disallowed_names(api: Api, name: str) -> None:
    assert refused(api, f"/folder/{name}", b"x") == "path/disallowed_name"


def test_the_root_is_refused_with_the_texts_of_the_service(api: Api) -> None:
    response = api.upload("files/upload", {"path": "/"}, b"x")
    assert response.status_code == 400
    assert response.text == (
        'Error in call to API function "files/upload": HTTP header "Dropbox-API-Arg": path: '
        "The root folder is unsupported."
    )
    for route, arg in (
        ("files/get_metadata", {"path": "/"}),
        ("files/delete_v2", {"path": "/"}),
        ("files/create_folder_v2", {"path": "/"}),
        ("files/move_v2", {"from_path": "/", "to_path": "/x"}),
    ):
        response = api.rpc(route, arg)
        assert response.status_code == 400
        assert response.text.endswith("The root folder is unsupported.")
    root = f"ns:{api.emulator.control.account()['root_info']['root_namespace_id']}"
    assert bare(error_of(api.rpc("files/delete_v2", {"path": root}))) == "path_lookup/not_found"
    move = api.rpc("files/move_v2", {"from_path": root, "to_path": "/x"})
    assert bare(error_of(move)) == "from_lookup/not_found"
    api.emulator.options.root_refusal = "malformed_path"
    assert bare(error_of(api.rpc("files/delete_v2", {"path": "/"}))) == "path_lookup/malformed_path"


def test_paths_by_id(api: Api) -> None:
    file = api.put("/folder/file", b"1")
    folder = api.ok(api.rpc("files/get_metadata", {"path": "/folder"}))
    assert api.put(file["id"], b"2", "overwrite")["path_lower"] == "/folder/file"
    assert api.put(folder["id"] + "/sub/new", b"3")["path_lower"] == "/folder/sub/new"
    api.rpc("files/move_v2", {"from_path": "/folder", "to_path": "/moved"})
    assert api.ok(api.rpc("files/get_metadata", {"path": file["id"]}))["path_lower"] == "/moved/file"
