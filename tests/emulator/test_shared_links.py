"""Shared links: settings, listings, who gets in, reading them by the API and by plain requests."""

from __future__ import annotations

import base64
import io
import json
import time
import zipfile
from typing import Any

import dropbox
import pytest
from dropbox import files, sharing

from fs_dropbox.emulator import Emulator

from .people import BOB
from .raw_api import Api, bare, error_of

CREATE = "sharing/create_shared_link_with_settings"


def make(api: Api, path: str, **settings: Any) -> dict[str, Any]:
    answer = api.ok(api.rpc(CREATE, {"path": path, **({"settings": settings} if settings else {})}))
    assert isinstance(answer, dict)
    return answer


def stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def test_a_new_link(api: Api) -> None:
    file = api.put("/Folder/Report.txt", b"12345")
    link = make(api, "/folder/report.txt")
    assert link[".tag"] == "file"
    assert (link["name"], link["path_lower"], link["id"]) == ("Report.txt", "/folder/report.txt", file["id"])
    assert (link["rev"], link["size"]) == (file["rev"], 5)
    assert link["url"].startswith("https://www.dropbox.com/scl/fi/")
    assert link["url"].endswith("&dl=0")
    assert link["link_permissions"]["resolved_visibility"] == {".tag": "public"}
    assert link["link_permissions"]["can_revoke"] is True
    folder = make(api, "/Folder")
    assert folder[".tag"] == "folder"
    assert "size" not in folder
    assert "/scl/fo/" in folder["url"]


def test_the_sdk_reads_links(dbx: dropbox.Dropbox, api: Api) -> None:
    api.put("/a.txt", b"12345")
    api.put("/sub/b.txt", b"b")
    made = dbx.sharing_create_shared_link_with_settings("/a.txt")
    assert isinstance(made, sharing.FileLinkMetadata)
    with pytest.raises(dropbox.exceptions.ApiError) as caught:
        dbx.sharing_create_shared_link_with_settings("/a.txt")
    known = caught.value.error.get_shared_link_already_exists().get_metadata()
    assert known.url == made.url
    metadata, response = dbx.sharing_get_shared_link_file(made.url)
    assert (metadata.rev, response.content) == (made.rev, b"12345")
    folder = dbx.sharing_create_shared_link_with_settings("/sub")
    inside = dbx.sharing_get_shared_link_metadata(folder.url, path="/B.TXT")
    assert (inside.name, inside.size) == ("b.txt", 1)
    listed = dbx.files_list_folder("", shared_link=files.SharedLink(url=folder.url))
    assert [entry.name for entry in listed.entries] == ["b.txt"]
    assert listed.entries[0].path_lower == "/sub/b.txt"
    assert not dbx.files_list_folder_continue(listed.cursor).entries
    changed = dbx.sharing_modify_shared_link_settings(
        made.url, sharing.SharedLinkSettings(require_password=True, link_password="pw")
    )
    assert changed.link_permissions.require_password
    dbx.sharing_revoke_shared_link(made.url)
    assert [link.url for link in dbx.sharing_list_shared_links().links] == [folder.url]


def test_an_existing_link_is_told_only_without_settings(api: Api) -> None:
    api.put("/a", b"1")
    url = make(api, "/a")["url"]
    plain = error_of(api.rpc(CREATE, {"path": "/a"}))
    assert plain["shared_link_already_exists"]["metadata"]["url"] == url
    custom = error_of(api.rpc(CREATE, {"path": "/a", "settings": {"audience": "public"}}))
    assert custom == {".tag": "shared_link_already_exists"}


def test_listings(api: Api, bob: Api) -> None:
    api.put("/a/b/c.txt", b"1")
    urls = {path: make(api, path)["url"] for path in ("/a", "/a/b/c.txt")}
    everything = api.ok(api.rpc("sharing/list_shared_links", {}))
    assert [link["url"] for link in everything["links"]] == list(urls.values())
    assert everything["has_more"] is False
    by_path = api.ok(api.rpc("sharing/list_shared_links", {"path": "/a/b/c.txt"}))
    assert {link["url"] for link in by_path["links"]} == set(urls.values())
    assert "cursor" not in by_path
    direct = api.ok(api.rpc("sharing/list_shared_links", {"path": "/a/b/c.txt", "direct_only": True}))
    assert [link["url"] for link in direct["links"]] == [urls["/a/b/c.txt"]]
    assert api.ok(api.rpc("sharing/list_shared_links", {"path": "/a/b", "direct_only": True}))["links"] == []
    assert bare(error_of(api.rpc("sharing/list_shared_links", {"path": "/none"}))) == "path/not_found"
    assert bob.ok(bob.rpc("sharing/list_shared_links", {}))["links"] == []


def test_listings_have_pages(api: Api) -> None:
    for number in range(53):
        api.put(f"/{number}", b"1")
        make(api, f"/{number}")
    first = api.ok(api.rpc("sharing/list_shared_links", {}))
    assert first["has_more"] is True
    second = api.ok(api.rpc("sharing/list_shared_links", {"cursor": first["cursor"]}))
    names = [link["name"] for link in first["links"] + second["links"]]
    assert sorted(names, key=int) == [str(number) for number in range(53)]
    assert bare(error_of(api.rpc("sharing/list_shared_links", {"cursor": "junk"}))) == "reset"


def test_a_link_follows_its_entry(api: Api) -> None:
    api.put("/a", b"1")
    url = make(api, "/a")["url"]
    api.ok(api.rpc("files/move_v2", {"from_path": "/a", "to_path": "/b/c"}))
    assert api.ok(api.rpc("sharing/get_shared_link_metadata", {"url": url}))["path_lower"] == "/b/c"
    api.ok(api.rpc("files/delete_v2", {"path": "/b/c"}))
    assert bare(error_of(api.rpc("sharing/get_shared_link_metadata", {"url": url}))) == "shared_link_not_found"
    assert api.ok(api.rpc("sharing/list_shared_links", {}))["links"] == []


def test_others_read_but_do_not_change(api: Api, bob: Api) -> None:
    api.put("/a", b"12")
    url = make(api, "/a")["url"]
    seen = bob.ok(bob.rpc("sharing/get_shared_link_metadata", {"url": url}))
    assert "path_lower" not in seen
    assert seen["link_permissions"]["can_revoke"] is False
    got = bob.download("sharing/get_shared_link_file", {"url": url}, Range="bytes=1-")
    assert (got.status_code, got.content) == (206, b"2")
    for route, arg in [
        ("sharing/revoke_shared_link", {"url": url}),
        ("sharing/modify_shared_link_settings", {"url": url, "settings": {}}),
    ]:
        assert bare(error_of(bob.rpc(route, arg))) == "shared_link_access_denied"
    mine = bob.rpc(CREATE, {"path": "/a"})
    assert bare(error_of(mine)) == "path/not_found"


def test_apps_read_links_without_a_user(emulator: Emulator, api: Api) -> None:
    api.put("/sub/a", b"12")
    url = make(api, "/sub")["url"]
    basic = base64.b64encode(f"{emulator.app_key}:{emulator.app_secret}".encode()).decode()
    app = {"Authorization": f"Basic {basic}"}
    assert api.ok(api.rpc("sharing/get_shared_link_metadata", {"url": url}, **app))["name"] == "sub"
    arg = {"path": "", "shared_link": {"url": url}}
    assert [entry["name"] for entry in api.ok(api.rpc("files/list_folder", arg, **app))["entries"]] == ["a"]
    got = api.download("sharing/get_shared_link_file", {"url": url, "path": "/a"}, **app)
    assert got.content == b"12"
    assert api.rpc("files/list_folder", {"path": ""}, **app).status_code == 400


def test_passwords_and_expiry(emulator: Emulator, api: Api, bob: Api) -> None:
    api.put("/a", b"1")
    url = make(api, "/a", require_password=True, link_password="pw", expires=stamp(3600))["url"]
    get = "sharing/get_shared_link_metadata"
    assert bare(error_of(bob.rpc(get, {"url": url}))) == "shared_link_access_denied"
    seen = bob.ok(bob.rpc(get, {"url": url, "link_password": "pw"}))
    assert seen["link_permissions"]["resolved_visibility"] == {".tag": "password"}
    assert "expires" in seen
    assert api.rpc(get, {"url": url}).status_code == 200  # its maker needs none
    changed = {"url": url, "settings": {"require_password": False}, "remove_expiration": True}
    body = api.ok(api.rpc("sharing/modify_shared_link_settings", changed))
    assert "expires" not in body
    assert bob.rpc(get, {"url": url}).status_code == 200


def test_links_end(emulator: Emulator, api: Api, bob: Api) -> None:
    api.put("/a", b"1")
    url = make(api, "/a", expires=stamp(60))["url"]
    get = ("sharing/get_shared_link_metadata", {"url": url})
    assert bob.rpc(*get).status_code == 200
    emulator.control.advance(61)
    assert bare(error_of(bob.rpc(*get))) == "shared_link_not_found"


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"require_password": True}, "settings_error/invalid_settings"),
        ({"require_password": False, "link_password": "pw"}, "settings_error/invalid_settings"),
        ({"expires": "2001-01-01T00:00:00Z"}, "settings_error/invalid_settings"),
        ({"audience": "team"}, "settings_error/not_authorized"),
        ({"audience": "no_one", "requested_visibility": "public"}, "settings_error/invalid_settings"),
    ],
)
def test_wrong_settings(api: Api, settings: dict[str, Any], error: str) -> None:
    api.put("/a", b"1")
    assert bare(error_of(api.rpc(CREATE, {"path": "/a", "settings": settings}))) == error
    assert api.ok(api.rpc("sharing/list_shared_links", {}))["links"] == []


def test_basic_accounts_get_plain_links_only(emulator: Emulator, api: Api) -> None:
    emulator.control.set_account(account_type="basic")
    api.put("/a", b"1")
    for settings in ({"expires": stamp(60)}, {"require_password": True, "link_password": "pw"}):
        answer = api.rpc(CREATE, {"path": "/a", "settings": settings})
        assert bare(error_of(answer)) == "settings_error/not_authorized"
    assert make(api, "/a", audience="public")["name"] == "a"


def test_audiences(emulator: Emulator, api: Api, bob: Api) -> None:
    emulator.control.add_team(team_space=False)
    emulator.control.add_member("ann@example.com", admin=True)
    api.put("/a", b"1")
    url = make(api, "/a", audience="team")["url"]
    get = ("sharing/get_shared_link_metadata", {"url": url})
    assert bare(error_of(bob.rpc(*get))) == "shared_link_access_denied"
    emulator.control.add_member(BOB)
    assert bob.rpc(*get).status_code == 200
    api.ok(api.rpc("sharing/modify_shared_link_settings", {"url": url, "settings": {"audience": "no_one"}}))
    assert bare(error_of(bob.rpc(*get))) == "shared_link_access_denied"


def test_other_refusals(emulator: Emulator, api: Api) -> None:
    assert bare(error_of(api.rpc(CREATE, {"path": "/none"}))) == "path/not_found"
    api.put("/a/b", b"1")
    url = make(api, "/a")["url"]
    directory = api.download("sharing/get_shared_link_file", {"url": url})
    assert bare(error_of(directory)) == "shared_link_is_directory"
    missing = api.download("sharing/get_shared_link_file", {"url": url, "path": "/none"})
    assert bare(error_of(missing)) == "shared_link_not_found"
    for route in ("get_shared_link_metadata", "revoke_shared_link"):
        wrong = url.replace("rlkey=", "rlkey=x")
        assert bare(error_of(api.rpc(f"sharing/{route}", {"url": wrong}))) == "shared_link_not_found"
    for other in ("nonsense", "https://example.com/", "https://www.dropbox.com/al0w4e11j0e1kp3/file?dl=0"):
        assert bare(error_of(api.rpc("sharing/revoke_shared_link", {"url": other}))) == "shared_link_malformed"
    for gone in ("s/al0w4e11j0e1kp3/file?dl=0", "sh/48r2qxq748jfk5x/AAAS-niuW"):
        answer = api.rpc("sharing/revoke_shared_link", {"url": f"https://www.dropbox.com/{gone}"})
        assert bare(error_of(answer)) == "shared_link_not_found"
    arg = {"path": "", "shared_link": {"url": url.replace("rlkey=", "rlkey=x")}}
    assert bare(error_of(api.rpc("files/list_folder", arg))) == "path/not_found"
    emulator.control.set_account(email_verified=False)
    assert bare(error_of(api.rpc(CREATE, {"path": "/a/b"}))) == "email_not_verified"


def test_listing_a_link_in_pages(api: Api) -> None:
    for name in "abc":
        api.put(f"/f/sub/{name}", b"1")
    url = make(api, "/f")["url"]
    page = api.ok(api.rpc("files/list_folder", {"path": "/sub", "limit": 2, "shared_link": {"url": url}}))
    assert page["has_more"] is True
    rest = api.ok(api.rpc("files/list_folder/continue", {"cursor": page["cursor"]}))
    assert [entry["name"] for entry in page["entries"] + rest["entries"]] == ["a", "b", "c"]
    assert rest["has_more"] is False
    assert [entry["path_display"] for entry in rest["entries"]] == ["/f/sub/c"]


def test_who_lists_a_link_to_what_is_not_theirs_sees_no_paths(api: Api, bob: Api) -> None:
    api.put("/f/sub/a", b"1")
    arg = {"path": "", "shared_link": {"url": make(api, "/f")["url"]}}
    (entry,) = bob.ok(bob.rpc("files/list_folder", arg))["entries"]
    assert (entry["name"], "path_lower" in entry, "path_display" in entry) == ("sub", False, False)


def test_links_lead_to_the_web_site_whichever_host_tells_them(api: Api) -> None:
    api.put("/a", b"1")
    url = make(api, "/a")["url"]
    got = api.download("sharing/get_shared_link_file", {"url": url})
    assert json.loads(got.headers["Dropbox-API-Result"])["url"] == url
    assert url.startswith("https://www.dropbox.com/")


def test_plain_requests(api: Api) -> None:
    api.put("/f/a b.txt", b"12345")
    url = make(api, "/f/a b.txt")["url"]
    shown = api.http.get(url, timeout=60)
    assert "a b.txt" in shown.text
    assert shown.headers["Content-Type"].startswith("text/html")
    download = url.replace("dl=0", "dl=1")
    got = api.http.get(download, timeout=60)
    assert (got.status_code, got.content) == (200, b"12345")
    assert "attachment" in got.headers["Content-Disposition"]
    part = api.http.get(download, headers={"Range": "bytes=1-2"}, timeout=60)
    assert (part.status_code, part.content) == (206, b"23")
    folder = make(api, "/f")["url"].replace("dl=0", "dl=1")
    with zipfile.ZipFile(io.BytesIO(api.http.get(folder, timeout=60).content)) as archive:
        assert archive.read("f/a b.txt") == b"12345"
    api.ok(api.rpc("sharing/revoke_shared_link", {"url": url}))
    assert api.http.get(download, timeout=60).status_code == 404


def test_plain_requests_need_what_the_link_asks_for(api: Api) -> None:
    api.put("/a", b"1")
    url = make(api, "/a", require_password=True, link_password="pw")["url"].replace("dl=0", "dl=1")
    assert api.http.get(url, timeout=60).status_code == 403
    assert api.http.get(url + "&password=pw", timeout=60).content == b"1"
    changed = {"allow_download": False, "require_password": False}
    api.ok(api.rpc("sharing/modify_shared_link_settings", {"url": url, "settings": changed}))
    assert api.http.get(url, timeout=60).status_code == 403
