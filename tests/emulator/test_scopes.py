"""What an app may call: scopes, app folders, refusals of accounts."""

from __future__ import annotations

import dropbox
import pytest

from fs_dropbox.emulator import Emulator

from .people import api_of, upload_to_api
from .raw_api import Api, bare, error_of


def test_a_scope_that_the_app_does_not_have(emulator: Emulator, api: Api, dbx: dropbox.Dropbox) -> None:
    emulator.control.set_scopes(["account_info.read"], grants=True)
    answer = api.rpc("files/list_folder", {"path": ""})
    assert answer.status_code == 400
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.text.startswith('Error in call to API function "files/list_folder": ')
    assert "'files.metadata.read'" in answer.text
    assert "App Console" in answer.text
    with pytest.raises(dropbox.exceptions.BadInputError, match=r"files\.metadata\.read"):
        dbx.files_list_folder("")
    assert api.rpc("users/get_current_account").status_code == 200


def test_a_scope_that_the_token_does_not_have(emulator: Emulator, api: Api) -> None:
    narrow = api_of(api, scopes=["account_info.read"])
    error = error_of(narrow.rpc("files/list_folder", {"path": ""}), 401)
    assert error == {".tag": "missing_scope", "required_scope": "files.metadata.read"}
    with (
        dropbox.Dropbox(narrow.token, session=api.http, max_retries_on_error=0) as client,
        pytest.raises(dropbox.exceptions.AuthError) as caught,
    ):
        client.files_list_folder("")
    assert caught.value.error.get_missing_scope().required_scope == "files.metadata.read"


def test_scopes_enabled_later_need_a_new_consent(emulator: Emulator, api: Api) -> None:
    control = emulator.control
    control.set_scopes(["account_info.read"], grants=True)
    old = api_of(api)
    control.set_scopes(["account_info.read", "files.metadata.read"])
    assert bare(error_of(old.rpc("files/list_folder", {"path": ""}), 401)) == "missing_scope"
    assert api_of(api).rpc("files/list_folder", {"path": ""}).status_code == 200


@pytest.mark.parametrize(
    ("route", "arg", "scope"),
    [
        ("files/list_revisions", {"path": "/a"}, "files.metadata.read"),
        ("files/get_temporary_link", {"path": "/a"}, "files.content.read"),
        ("files/delete_v2", {"path": "/a"}, "files.content.write"),
        ("users/get_space_usage", None, "account_info.read"),
        ("users/get_account", {"account_id": "a" * 40}, "sharing.read"),
        ("sharing/revoke_shared_link", {"url": "u"}, "sharing.write"),
        ("file_requests/count", None, "file_requests.read"),
        ("files/tags/add", {"path": "/a", "tag_text": "t"}, "files.metadata.write"),
        ("files/permanently_delete", {"path": "/a"}, "files.permanent_delete"),
    ],
)
def test_each_route_needs_its_scope(api: Api, route: str, arg: object, scope: str) -> None:
    api.emulator.control.set_scopes([scope, "contacts.read"])
    narrow = api_of(api, scopes=["contacts.read"])
    assert error_of(narrow.rpc(route, arg), 401)["required_scope"] == scope


# App folders -----------------------------------------------------------------


@pytest.fixture
def boxed(emulator: Emulator, api: Api) -> Api:
    app = emulator.control.add_app("Box", app_folder=True)
    return api_of(api, app=app["app_key"])


def test_an_app_folder_app_sees_its_folder_only(boxed: Api, api: Api) -> None:
    api.put("/outside.txt", b"o")
    assert boxed.entries() == []
    stored = boxed.put("/Inside.txt", b"i")
    assert (stored["path_lower"], stored["path_display"]) == ("/inside.txt", "/Inside.txt")
    assert [entry["name"] for entry in boxed.entries()] == ["Inside.txt"]
    outside = api.ok(api.rpc("files/get_metadata", {"path": "/Apps/Box/inside.txt"}))
    assert outside["path_display"] == "/Apps/Box/Inside.txt"
    assert outside["id"] == stored["id"]
    assert bare(error_of(boxed.rpc("files/get_metadata", {"path": "/outside.txt"}))) == "path/not_found"
    foreign_id = api.ok(api.rpc("files/get_metadata", {"path": "/outside.txt"}))["id"]
    assert bare(error_of(boxed.rpc("files/get_metadata", {"path": foreign_id}))) == "path/not_found"


def test_an_app_folder_follows_changes_from_outside(boxed: Api, api: Api) -> None:
    boxed.put("/a", b"1")
    cursor = boxed.ok(boxed.rpc("files/list_folder/get_latest_cursor", {"path": "", "recursive": True}))["cursor"]
    api.put("/Apps/Box/b", b"2")
    api.put("/c", b"3")
    news, _ = boxed.news(cursor)
    assert [entry["path_lower"] for entry in news] == ["/b"]


def test_what_app_folder_apps_may_not_call(boxed: Api) -> None:
    boxed.put("/a.txt", b"a")
    for route, arg in [
        ("sharing/list_folders", {}),
        ("sharing/share_folder", {"path": "/a"}),
        ("files/tags/get", {"paths": ["/a.txt"]}),
        ("files/lock_file_batch", {"entries": [{"path": "/a.txt"}]}),
    ]:
        answer = boxed.rpc(route, arg)
        assert answer.status_code == 400
        assert (
            answer.text
            == f'Error in call to API function "{route}": Your API app is not allowed to call this function.'
        )
    assert boxed.rpc("sharing/list_shared_links", {}).status_code == 200
    assert boxed.rpc("file_requests/list_v2", {}).status_code == 200


def test_an_app_can_become_an_app_folder_app(emulator: Emulator, api: Api) -> None:
    api.put("/a", b"1")
    emulator.control.set_app_folder()
    assert api.entries() == []
    emulator.control.set_app_folder(False)
    assert {entry["name"] for entry in api.entries()} == {"a", "Apps"}


# Refusals of accounts --------------------------------------------------------


def test_the_data_transport_quota_refuses_uploads_only(emulator: Emulator, api: Api, dbx: dropbox.Dropbox) -> None:
    emulator.control.deny("data_transport")
    answer = api.upload("files/upload", {"path": "/a"}, b"a")
    assert error_of(answer, 403) == {
        ".tag": "invalid_account_type",
        "invalid_account_type": {".tag": "feature"},
    }
    assert answer.json()["error_summary"].startswith("invalid_account_type/feature/")
    assert answer.json()["user_message"]["locale"] == "en"
    assert api.rpc("files/list_folder", {"path": ""}).status_code == 200
    with pytest.raises(dropbox.exceptions.ApiError) as caught:
        dbx.files_upload(b"a", "/a")
    assert caught.value.user_message_text == answer.json()["user_message"]["text"]
    emulator.control.deny("data_transport", False)
    assert api.upload("files/upload", {"path": "/a"}, b"a").status_code == 200


def test_paper_can_be_disabled(emulator: Emulator, api: Api) -> None:
    emulator.control.deny("paper_disabled")
    answer = upload_to_api(api, "files/paper/create", {"path": "/a.paper", "import_format": "markdown"}, b"a")
    error = error_of(answer, 403)
    assert error == {".tag": "paper_access_denied", "paper_access_denied": {".tag": "paper_disabled"}}


def test_unknown_denials_are_refused(emulator: Emulator) -> None:
    with pytest.raises(ValueError, match="paper_disabled"):
        emulator.control.deny("everything")


def test_no_way_leads_out_of_an_app_folder(emulator: Emulator, boxed: Api, api: Api) -> None:
    secret = api.put("/secret.txt", b"s")
    api.ok(api.rpc("sharing/create_shared_link_with_settings", {"path": "/secret.txt"}))
    home = emulator.control.account()["root_info"]["home_namespace_id"]
    for path in (f"ns:{home}/secret.txt", secret["id"], f"rev:{secret['rev']}", "/../secret.txt"):
        answer = boxed.rpc("files/get_metadata", {"path": path})
        assert bare(error_of(answer)) in ("path/not_found", "path/malformed_path"), path
        assert boxed.download("files/download", {"path": path}).status_code == 409
    assert boxed.rpc("files/delete_v2", {"path": f"ns:{home}/secret.txt"}).status_code == 409
    assert boxed.upload("files/upload", {"path": f"ns:{home}/new.txt"}, b"n").status_code == 409
    assert boxed.ok(boxed.rpc("sharing/list_shared_links", {}))["links"] == []
    assert {entry["name"] for entry in api.entries()} == {"secret.txt", "Apps"}
