"""Teams: who a team token acts for, what it can ask, permanent deletion, people who come and go."""

from __future__ import annotations

from pathlib import Path

import dropbox
import pytest
from dropbox import common, team

from fs_dropbox.emulator import Emulator
from fs_dropbox.emulator.model.accounts import BASIC_SCOPES

from .people import BOB, EVE, api_of, member_id, rooted, share, team_api, team_client, upload_to_api
from .raw_api import Api, bare, error_of

# Whom a call is for -------------------------------------------------------------


def test_a_team_token_must_say_for_whom(emulator: Emulator, api: Api, space: str) -> None:
    client = team_api(api, BOB)
    answer = client.rpc("users/get_current_account")
    assert answer.status_code == 400
    assert '"Dropbox-API-Select-User"' in answer.text
    acting = {"Dropbox-API-Select-User": member_id(emulator, BOB)}
    assert client.ok(client.rpc("users/get_current_account", **acting))["email"] == BOB
    wrong = client.rpc("users/get_current_account", **{"Dropbox-API-Select-User": "dbmid:nobody"})
    assert error_of(wrong, 401) == {".tag": "invalid_select_user"}


def test_only_admins_act_as_admin(emulator: Emulator, api: Api, space: str) -> None:
    client = team_api(api, BOB)
    for member, status in [("ann@example.com", 200), (BOB, 401)]:
        selected = {"Dropbox-API-Select-Admin": member_id(emulator, member)}
        answer = client.rpc("files/list_folder", {"path": ""}, **selected)
        assert answer.status_code == status
    assert error_of(answer, 401) == {".tag": "invalid_select_admin"}


def test_routes_without_a_mode_take_no_admin(emulator: Emulator, api: Api, space: str) -> None:
    selected = {"Dropbox-API-Select-Admin": member_id(emulator, "ann@example.com")}
    answer = team_api(api, BOB).rpc("users/get_space_usage", **selected)
    assert error_of(answer, 401) == {".tag": "invalid_select_admin"}


def test_an_admin_reads_the_whole_team_but_writes_team_content_only(emulator: Emulator, api: Api, space: str) -> None:
    emulator.control.write("/Bob/secret.txt", b"s", account=BOB)
    folder = emulator.control.add_team_folder("Plans", default=None)
    home = emulator.control.account(BOB)["root_info"]["home_namespace_id"]
    client = team_api(api, BOB, **{"Dropbox-API-Select-Admin": member_id(emulator, "ann@example.com")})
    listing = client.rpc("files/list_folder", {"path": ""}, **rooted("namespace_id", home))
    assert [entry["name"] for entry in listing.json()["entries"]] == ["secret.txt"]
    refused = client.upload("files/upload", {"path": "/x"}, b"x", **rooted("namespace_id", home))
    assert error_of(refused, 422) == {".tag": "no_permission"}
    assert client.upload("files/upload", {"path": "/x"}, b"x", **rooted("namespace_id", folder)).status_code == 200


def test_an_admin_does_not_reach_other_teams(emulator: Emulator, api: Api, space: str) -> None:
    other = emulator.control.add_team("Other")
    emulator.control.add_member(EVE, team=other, admin=True)
    home = emulator.control.account(EVE)["root_info"]["home_namespace_id"]
    client = team_api(api, BOB, **{"Dropbox-API-Select-Admin": member_id(emulator, "ann@example.com")})
    answer = client.rpc("files/list_folder", {"path": ""}, **rooted("namespace_id", home))
    assert error_of(answer, 422) == {".tag": "no_permission"}
    selected = {"Dropbox-API-Select-User": member_id(emulator, EVE)}
    fresh = team_api(api, BOB)
    assert error_of(fresh.rpc("users/get_current_account", **selected), 401) == {".tag": "invalid_select_user"}


def test_a_user_token_cannot_ask_for_the_team(api: Api, space: str) -> None:
    emulator = api.emulator
    emulator.control.set_scopes(["members.read"], grants=True)
    answer = api.rpc("team/members/list_v2", {})
    assert answer.status_code == 400
    assert "DfB team management function" in answer.text


def test_suspended_members_are_refused(emulator: Emulator, api: Api, space: str) -> None:
    bob = api_of(api, BOB)
    emulator.control.suspend(BOB)
    assert error_of(bob.rpc("users/get_current_account"), 401) == {".tag": "user_suspended"}
    acting = {"Dropbox-API-Select-User": member_id(emulator, BOB)}
    assert (
        error_of(team_api(api, BOB).rpc("files/list_folder", {"path": ""}, **acting), 401)[".tag"] == "user_suspended"
    )
    emulator.control.suspend(BOB, False)
    assert bob.rpc("users/get_current_account").status_code == 200


# What a team token asks --------------------------------------------------------------


def test_the_sdk_asks_about_the_team(emulator: Emulator, api: Api, space: str) -> None:
    emulator.control.add_team_folder("Plans")
    with team_client(emulator, api, BOB) as client:
        members = client.team_members_list_v2(limit=1)
        assert members.has_more
        more = client.team_members_list_continue_v2(members.cursor)
        assert not more.has_more
        profiles = [info.profile for info in [*members.members, *more.members]]
        assert {profile.email for profile in profiles} == {"ann@example.com", BOB}
        assert all(profile.team_member_id.startswith("dbmid:") for profile in profiles)
        assert members.members[0].roles[0].name == "Team"
        found = client.team_members_get_info_v2(
            [team.UserSelectorArg.email(BOB.upper()), team.UserSelectorArg.email(EVE)]
        ).members_info
        assert found[0].get_member_info().profile.team_member_id == member_id(emulator, BOB)
        assert found[1].get_id_not_found() == EVE
        old = client.team_members_get_info([team.UserSelectorArg.team_member_id(member_id(emulator, BOB))])
        assert old[0].get_member_info().role.is_member_only()
        assert [info.role.is_team_admin() for info in client.team_members_list().members] == [True, False]
        info = client.team_get_info()
        assert (info.name, info.team_id, info.num_provisioned_users) == ("Acme", space, 2)
        assert client.team_token_get_authenticated_admin().admin_profile.email == "ann@example.com"
        folders = {f.name: f for f in client.team_team_folder_list().team_folders}
        assert folders["Acme"].is_team_shared_dropbox
        assert not folders["Plans"].is_team_shared_dropbox
        assert folders["Plans"].status.is_active()
        namespaces = client.team_namespaces_list().namespaces
        kinds = {(n.name, n.namespace_type._tag) for n in namespaces}
        assert {("Plans", "team_folder"), ("Bob", "team_member_folder")} <= kinds


def test_a_folder_that_is_shared_no_longer_is_no_namespace(emulator: Emulator, api: Api, space: str) -> None:
    folder = share(api, "/Shared")["shared_folder_id"]
    api.ok(api.rpc("sharing/unshare_folder", {"shared_folder_id": folder}))
    client = team_api(api, BOB)
    listed = client.ok(client.rpc("team/namespaces/list", {}))["namespaces"]
    assert folder not in [namespace["namespace_id"] for namespace in listed]


def test_a_foreign_cursor_is_invalid(emulator: Emulator, api: Api, space: str) -> None:
    client = team_api(api, BOB)
    page = client.ok(client.rpc("team/members/list_v2", {"limit": 1}))
    assert bare(error_of(client.rpc("team/namespaces/list/continue", {"cursor": page["cursor"]}))) == "invalid_cursor"
    assert bare(error_of(client.rpc("team/members/list/continue_v2", {"cursor": "junk"}))) == "invalid_cursor"


def test_the_sdk_acts_as_user_and_as_admin(emulator: Emulator, api: Api, space: str) -> None:
    emulator.control.write("/Bob/mine.txt", b"m", account=BOB)
    with team_client(emulator, api, BOB) as client:
        bob = client.as_user(member_id(emulator, BOB))
        assert [entry.name for entry in bob.files_list_folder("").entries] == ["mine.txt"]
        root = bob.users_get_current_account().root_info
        assert isinstance(root, common.TeamRootInfo)
        whole = bob.with_path_root(common.PathRoot.root(root.root_namespace_id))
        assert [entry.path_display for entry in whole.files_list_folder("").entries] == ["/Bob"]
        admin = client.as_admin(member_id(emulator, "ann@example.com"))
        names = admin.with_path_root(common.PathRoot.namespace_id(root.home_namespace_id)).files_list_folder("")
        assert [entry.name for entry in names.entries] == ["mine.txt"]


# Layouts and path roots -------------------------------------------------------------


@pytest.fixture
def deleter(emulator: Emulator, api: Api, space: str) -> Api:
    """Ann with an app that may delete permanently."""
    emulator.control.set_scopes([*BASIC_SCOPES, "files.permanent_delete"], grants=True)
    return api_of(api)


def test_what_is_deleted_permanently_leaves_nothing(deleter: Api) -> None:
    revs = {path: deleter.put(path, b"x")["rev"] for path in ("/a/f", "/ab", "/gone/f")}
    deleter.ok(deleter.rpc("files/delete_v2", {"path": "/gone"}))
    for path in ("/a", "/gone"):
        answer = deleter.rpc("files/permanently_delete", {"path": path})
        assert (answer.status_code, answer.text) == (200, "null")
        again = deleter.rpc("files/permanently_delete", {"path": path})
        assert bare(error_of(again)) == "path_lookup/not_found"
        for lost in (f"{path}/f", path, f"rev:{revs[f'{path}/f']}"):
            answer = deleter.rpc("files/get_metadata", {"path": lost, "include_deleted": True})
            assert bare(error_of(answer)) == "path/not_found"
    deleter.ok(deleter.rpc("files/delete_v2", {"path": "/ab"}))
    assert deleter.download("files/download", {"path": f"rev:{revs['/ab']}"}).content == b"x"


def test_what_may_not_be_deleted_may_not_be_so_permanently(emulator: Emulator, api: Api, deleter: Api) -> None:
    emulator.control.add_team_folder("Plans", access={BOB: "viewer"})
    for client in (deleter, bob := api_of(api, BOB)):
        client.headers = rooted("root", emulator.control.account()["root_info"]["root_namespace_id"])
    for name in ("/Plans/there", "/Plans/gone"):
        deleter.put(name, b"x")
    deleter.ok(deleter.rpc("files/delete_v2", {"path": "/Plans/gone"}))

    def refused(client: Api, path: str, **fields: str) -> str:
        return bare(error_of(client.rpc("files/permanently_delete", {"path": path, **fields})))

    assert refused(bob, "/Plans/there") == refused(bob, "/Plans/gone") == "path_write/no_write_permission"
    assert refused(deleter, "/Plans/there", parent_rev="0123456789") == "path_write/conflict/file"
    assert refused(deleter, "/Plans") == "path_write/team_folder"


def test_a_team_admin_connects_a_team_app(emulator: Emulator, api: Api, space: str) -> None:
    app = emulator.control.add_app("Team App", is_team=True, redirect_uris=["http://localhost/"])
    url = f"https://www.dropbox.com/oauth2/authorize?response_type=code&client_id={app['app_key']}"
    ends = "&redirect_uri=http://localhost/&approve=1&token_access_type=offline&account="
    refused = api.http.get(url + ends + BOB, allow_redirects=False, timeout=60)
    assert refused.status_code == 400
    assert "team admin" in refused.text
    allowed = api.http.get(url + ends + "ann@example.com", allow_redirects=False, timeout=60)
    code = allowed.headers["Location"].partition("code=")[2]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "client_id": app["app_key"],
        "client_secret": app["app_secret"],
        "redirect_uri": "http://localhost/",
    }
    body = api.http.post("https://api.dropboxapi.com/oauth2/token", data=form, timeout=60).json()
    assert body["team_id"] == space
    assert "account_id" not in body
    with dropbox.DropboxTeam(
        oauth2_refresh_token=body["refresh_token"],
        app_key=app["app_key"],
        app_secret=app["app_secret"],
        session=api.http,
    ) as client:
        assert client.team_get_info().name == "Acme"


def test_an_admin_lists_a_member_by_namespace(emulator: Emulator, api: Api, space: str) -> None:
    emulator.control.write("/Bob/f/a", b"1", account=BOB)
    home = emulator.control.account(BOB)["root_info"]["home_namespace_id"]
    admin = team_api(api, BOB, **{"Dropbox-API-Select-Admin": member_id(emulator, "ann@example.com")})
    page = admin.ok(admin.rpc("files/list_folder", {"path": f"ns:{home}", "recursive": True}))
    assert [entry["name"] for entry in page["entries"]] == ["f", "a"]
    emulator.control.write("/Bob/f/b", b"1", account=BOB)
    news, _ = admin.news(page["cursor"])
    assert [entry["name"] for entry in news] == ["b"]
    assert admin.ok(admin.rpc("files/get_metadata", {"path": f"ns:{home}/f/a"}))["size"] == 1


def test_acting_for_a_member_needs_its_scope(emulator: Emulator, api: Api, space: str) -> None:
    app = emulator.control.add_app("Narrow", ["account_info.read", "members.read"], is_team=True)
    client = api_of(api, app=app["app_key"])
    assert client.rpc("team/members/list_v2", {}).status_code == 200
    selected = {"Dropbox-API-Select-User": member_id(emulator, BOB)}
    answer = client.rpc("users/get_current_account", **selected)
    assert error_of(answer, 401) == {".tag": "missing_scope", "required_scope": "team_data.member"}


def test_teams_survive_a_restart(tmp_path: Path) -> None:
    with Emulator(tmp_path) as first:
        first.control.add_team("Acme")
        first.control.add_member("ann@example.com", admin=True)
        first.control.add_member(BOB, "Bob")
        first.control.add_team_folder("Plans", access={BOB: "viewer"})
        first.control.write("/Plans/a.txt", b"1")
        first.control.lock("/Plans/a.txt", by="ann@example.com")
        first.control.deny("paper_disabled", account=BOB)
        before = first.control.account(BOB)
    with Emulator(tmp_path) as second:
        assert second.control.account(BOB) == before
        assert second.control.tree(account=BOB) == {"/Bob": None, "/Plans": None, "/Plans/a.txt": 1}
        seen = second.control.metadata("/Plans/a.txt", account=BOB)
        assert seen["sharing_info"]["read_only"] is True
        assert seen["file_lock_info"]["lockholder_name"] == "Ann Example"
        api = Api(second)
        refused = upload_to_api(
            api_of(api, BOB), "files/paper/create", {"path": "/a.paper", "import_format": "html"}, b""
        )
        assert bare(error_of(refused, 403)) == "paper_access_denied/paper_disabled"
        second.control.remove_member(BOB)
        assert second.control.tree(account=BOB) == {}
        api.http.close()
