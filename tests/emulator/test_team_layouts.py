"""The two layouts of a team, path roots, what belongs to the team and who may see and write it."""

from __future__ import annotations

import dropbox
import pytest
from dropbox import common

from fs_dropbox.emulator import Emulator

from .people import BOB, EVE, api_of, rooted
from .raw_api import Api, bare, error_of


def test_team_space(emulator: Emulator, api: Api, space: str) -> None:
    emulator.control.add_team_folder("Plans")
    emulator.control.write("/Plans/plan.txt", b"p")
    bob = api_of(api, BOB)
    info = bob.ok(bob.rpc("users/get_current_account"))
    root = info["root_info"]
    assert root[".tag"] == "team"
    assert root["home_path"] == "/Bob"
    assert root["root_namespace_id"] != root["home_namespace_id"]
    assert info["team"]["id"] == space
    bob.put("/own.txt", b"o")
    assert [entry["path_display"] for entry in bob.entries()] == ["/own.txt"]  # home is the default root
    for tag, key in [("root", "root_namespace_id"), ("namespace_id", "root_namespace_id")]:
        bob.headers = rooted(tag, root[key])
        shown = {entry["path_display"]: entry for entry in bob.entries(recursive=True)}
        assert set(shown) == {"/Bob", "/Bob/own.txt", "/Plans", "/Plans/plan.txt"}  # not Ann's home
    assert shown["/Plans"]["sharing_info"]["shared_folder_id"] == shown["/Plans"]["shared_folder_id"]
    bob.headers = rooted("home")
    assert [entry["path_display"] for entry in bob.entries()] == ["/own.txt"]


def test_the_top_level_of_a_team_space_is_for_admins(emulator: Emulator, api: Api, space: str) -> None:
    root = emulator.control.account()["root_info"]["root_namespace_id"]
    bob, ann = api_of(api, BOB), api_of(api)
    bob.headers = ann.headers = rooted("root", root)
    refused = bob.rpc("files/create_folder_v2", {"path": "/New"})
    assert bare(error_of(refused)) == "path/no_write_permission"
    assert bare(error_of(bob.upload("files/upload", {"path": "/new.txt"}, b""))) == "path/no_write_permission"
    assert ann.rpc("files/create_folder_v2", {"path": "/New"}).status_code == 200
    assert bare(error_of(ann.rpc("files/delete_v2", {"path": "/Ann"}))) == "path_write/team_folder"
    moved = ann.rpc("files/move_v2", {"from_path": "/Ann", "to_path": "/New/Ann"})
    assert bare(error_of(moved)) == "from_write/team_folder"
    assert bare(error_of(bob.rpc("files/get_metadata", {"path": "/Ann/x"}))) == "path/not_found"


def test_what_goes_to_the_team_changes_no_owner(emulator: Emulator, api: Api, space: str) -> None:
    emulator.control.add_team_folder("Plans")
    root = emulator.control.account()["root_info"]["root_namespace_id"]
    bob = api_of(api, BOB)
    bob.put("/own.txt", b"o")
    bob.headers = rooted("root", root)
    assert bob.rpc("files/move_v2", {"from_path": "/Bob/own.txt", "to_path": "/Plans/own.txt"}).status_code == 200


def test_a_team_may_let_everybody_write_at_the_top(emulator: Emulator, api: Api) -> None:
    emulator.control.add_team("Open", top_level_content_policy="everyone")
    emulator.control.add_member(BOB, "Bob")
    bob = api_of(api, BOB)
    bob.headers = rooted("root", emulator.control.account(BOB)["root_info"]["root_namespace_id"])
    assert bob.rpc("files/create_folder_v2", {"path": "/New"}).status_code == 200


def test_team_folders_have_readers(emulator: Emulator, api: Api, space: str) -> None:
    emulator.control.add_team_folder("Plans", access={BOB: "viewer"})
    bob = api_of(api, BOB)
    bob.headers = rooted("root", emulator.control.account(BOB)["root_info"]["root_namespace_id"])
    folder = bob.ok(bob.rpc("files/get_metadata", {"path": "/plans"}))
    assert folder["sharing_info"]["read_only"] is True
    refused = bob.upload("files/upload", {"path": "/Plans/a"}, b"a")
    assert bare(error_of(refused)) == "path/no_write_permission"
    emulator.control.add_team_folder("Hidden", access={BOB: "viewer"}, default=None)
    emulator.control.add_team_folder("Secret", default=None)
    assert {entry["name"] for entry in bob.entries()} == {"Bob", "Plans", "Hidden"}


def test_legacy_layout(emulator: Emulator, api: Api, legacy: str) -> None:
    folder = emulator.control.add_team_folder("Plans")
    emulator.control.write("/Plans/plan.txt", b"p")
    bob = api_of(api, BOB)
    root = bob.ok(bob.rpc("users/get_current_account"))["root_info"]
    assert root[".tag"] == "user"
    assert root["root_namespace_id"] == root["home_namespace_id"]
    assert [entry["path_display"] for entry in bob.entries(recursive=True)] == ["/Plans", "/Plans/plan.txt"]
    bob.headers = rooted("root", root["root_namespace_id"])
    assert [entry["path_display"] for entry in bob.entries()] == ["/Plans"]
    bob.headers = rooted("namespace_id", folder)
    assert [entry["path_display"] for entry in bob.entries()] == ["/plan.txt"]
    bob.headers = {}
    assert bare(error_of(bob.rpc("files/delete_v2", {"path": "/Plans"}))) == "path_write/team_folder"


def test_wrong_path_roots(emulator: Emulator, api: Api, space: str) -> None:
    emulator.control.add_account(EVE)
    foreign = emulator.control.account(EVE)["root_info"]["home_namespace_id"]
    for namespace_id in (foreign, "1"):
        answer = api.rpc("files/list_folder", {"path": ""}, **rooted("namespace_id", namespace_id))
        assert error_of(answer, 422) == {".tag": "no_permission"}
    answer = api.rpc("files/list_folder", {"path": ""}, **rooted("root", foreign))
    root = emulator.control.account()["root_info"]
    assert error_of(answer, 422) == {".tag": "invalid_root", "invalid_root": root}
    junk = api.rpc("files/list_folder", {"path": ""}, **{"Dropbox-API-Path-Root": "nonsense"})
    assert junk.status_code == 400


def test_joining_and_leaving_a_team_makes_the_root_invalid(emulator: Emulator, api: Api) -> None:
    api.put("/own.txt", b"o")
    before = emulator.control.account()["root_info"]["root_namespace_id"]
    listing = ("files/list_folder", {"path": ""})
    assert api.rpc(*listing, **rooted("root", before)).status_code == 200
    emulator.control.add_team()
    emulator.control.add_member("ann@example.com", admin=True)
    fresh = error_of(api.rpc(*listing, **rooted("root", before)), 422)["invalid_root"]
    assert (fresh[".tag"], fresh["home_path"], fresh["home_namespace_id"]) == ("team", "/Ann", before)
    shown = api.rpc(*listing, **rooted("root", fresh["root_namespace_id"])).json()["entries"]
    assert [entry["path_display"] for entry in shown] == ["/Ann"]
    assert [entry["path_display"] for entry in api.entries()] == ["/own.txt"]
    with dropbox.Dropbox(api.token, session=api.http) as client:
        rooted_client = client.with_path_root(common.PathRoot.root(before))
        with pytest.raises(dropbox.exceptions.PathRootError) as caught:
            rooted_client.files_list_folder("")
        assert caught.value.error.get_invalid_root().root_namespace_id == fresh["root_namespace_id"]
    emulator.control.remove_member("ann@example.com")
    again = error_of(api.rpc(*listing, **rooted("root", fresh["root_namespace_id"])), 422)["invalid_root"]
    assert (again[".tag"], again["root_namespace_id"]) == ("user", before)
    assert [entry["path_display"] for entry in api.entries()] == ["/own.txt"]


def test_the_team_shares_its_room(emulator: Emulator, api: Api, space: str) -> None:
    emulator.control.add_team_folder("Plans")
    emulator.control.write("/Plans/a", b"12345")
    emulator.control.write("/Ann/b", b"123")
    usage = api.ok(api.rpc("users/get_space_usage"))
    assert usage["used"] == 3
    assert usage["allocation"][".tag"] == "team"
    assert usage["allocation"]["used"] == 8


def test_other_homes_stay_hidden(emulator: Emulator, api: Api, space: str) -> None:
    """Whatever way a member takes, another member's files are not there."""
    secret = emulator.control.write("/Ann/secret.txt", b"s")
    emulator.control.write("/Ann/gone.txt", b"g")
    bob = api_of(api, BOB)
    bob.headers = rooted("root", emulator.control.account(BOB)["root_info"]["root_namespace_id"])
    cursor = bob.ok(bob.rpc("files/list_folder/get_latest_cursor", {"path": "", "recursive": True}))["cursor"]
    emulator.control.delete("/Ann/gone.txt")
    emulator.control.write("/Ann/new.txt", b"n")
    assert bob.news(cursor)[0] == []
    home = emulator.control.account()["root_info"]["home_namespace_id"]
    for path in ("/Ann", "/Ann/secret.txt", secret["id"], f"rev:{secret['rev']}", f"ns:{home}/secret.txt"):
        assert bare(error_of(bob.rpc("files/get_metadata", {"path": path}))) == "path/not_found", path
        assert bare(error_of(bob.download("files/download", {"path": path}))) == "path/not_found", path
    gone = {"path": "/Ann/gone.txt"}
    assert bare(error_of(bob.rpc("files/get_metadata", {**gone, "include_deleted": True}))) == "path/not_found"
    assert bare(error_of(bob.rpc("files/list_revisions", gone))) == "path/not_found"
    restored = bob.rpc("files/restore", {"path": "/Ann/secret.txt", "rev": secret["rev"]})
    assert bare(error_of(restored)) == "path_write/no_write_permission"
    assert bare(error_of(bob.upload("files/upload", {"path": "/Ann/x"}, b""))) == "path/no_write_permission"
    found = bob.ok(bob.rpc("files/search_v2", {"query": "secret"}))
    assert found["matches"] == []
    archive = bob.rpc("files/copy_v2", {"from_path": "/Ann/secret.txt", "to_path": "/Bob/x"})
    assert bare(error_of(archive)) == "from_lookup/not_found"


def test_cursors_tell_who_gains_and_loses_a_team_folder(emulator: Emulator, api: Api, space: str) -> None:
    folder = emulator.control.add_team_folder("Plans", default=None)
    emulator.control.write("/Plans/a.txt", b"1")
    bob = api_of(api, BOB)
    bob.headers = rooted("root", emulator.control.account(BOB)["root_info"]["root_namespace_id"])
    cursor = bob.ok(bob.rpc("files/list_folder/get_latest_cursor", {"path": "", "recursive": True}))["cursor"]
    emulator.control.set_access(folder, BOB, "viewer")
    news, cursor = bob.news(cursor)
    assert [(entry[".tag"], entry["path_lower"]) for entry in news] == [("folder", "/plans"), ("file", "/plans/a.txt")]
    assert news[0]["sharing_info"]["read_only"] is True
    emulator.control.set_access(folder, BOB, None)
    news, cursor = bob.news(cursor)
    assert [(entry[".tag"], entry["path_display"]) for entry in news] == [("deleted", "/Plans")]
    emulator.control.add_team_folder("Secret", default=None)
    emulator.control.write("/Secret/s.txt", b"1")
    assert bob.news(cursor)[0] == []  # not even that there is such a folder
