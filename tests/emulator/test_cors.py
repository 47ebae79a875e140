"""Scripts in web pages: they ask whether they may call (a pre-flight request), and may read the answers."""

from __future__ import annotations

import json

import pytest

from .raw_api import Api

ORIGIN = {"Origin": "https://app.example"}
ASKING = {**ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-any"}
ROUTES = (
    "https://api.dropboxapi.com/2/files/list_folder",
    "https://content.dropboxapi.com/2/files/upload",
    "https://notify.dropboxapi.com/2/files/list_folder/longpoll",
    "https://api.dropboxapi.com/oauth2/token",
)


@pytest.mark.parametrize("url", ROUTES)
def test_a_browser_may_ask_first(api: Api, url: str) -> None:
    answer = api.http.options(url, headers=ASKING, timeout=30)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization,x-any"


def test_a_script_reads_results_and_errors(api: Api) -> None:
    api.put("/a", b"hello")
    got = api.download("files/download", {"path": "/a"}, **ORIGIN)
    assert got.headers["Access-Control-Allow-Origin"] == "*"
    assert "Dropbox-API-Result" in got.headers["Access-Control-Expose-Headers"]
    missing = api.rpc("files/get_metadata", {"path": "/none"}, **ORIGIN)
    assert (missing.status_code, missing.headers["Access-Control-Allow-Origin"]) == (409, "*")
    link = api.ok(api.rpc("files/get_temporary_link", {"path": "/a"}))["link"]
    assert api.http.get(link, headers=ORIGIN, timeout=30).headers["Access-Control-Allow-Origin"] == "*"


def test_a_simple_request_needs_no_preflight(api: Api) -> None:
    """The documentation's way around it: everything in the URL, and a content type that is no application's."""
    query = {"authorization": f"Bearer {api.token}", "reject_cors_preflight": "true"}
    for kind in ("text/plain; charset=dropbox-cors-hack", "text/plain;charset=dropbox-cors-hack"):
        headers = {**ORIGIN, "Content-Type": kind}
        argument = json.dumps({"path": "/c", "mode": "overwrite"})
        put = api.http.post(ROUTES[1], b"x", params={**query, "arg": argument}, headers=headers, timeout=30)
        assert api.ok(put)["name"] == "c"
        listed = api.http.post(ROUTES[0], b'{"path": ""}', params=query, headers=headers, timeout=30)
        assert [entry["name"] for entry in api.ok(listed)["entries"]] == ["c"]
    assert api.http.options(ROUTES[0], params=query, headers=ASKING, timeout=30).status_code == 400


def test_neither_the_control_nor_the_consent_page_is_for_scripts_of_others(api: Api) -> None:
    for path in ("/_emulator/tree", "/oauth2/authorize"):
        url = f"https://www.dropbox.com{path}"
        assert api.http.options(url, headers=ASKING, timeout=30).status_code != 200
        for answer in (api.http.get(url, headers=ORIGIN, timeout=30), api.http.post(url, headers=ORIGIN, timeout=30)):
            assert "Access-Control-Allow-Origin" not in answer.headers


def test_who_names_no_origin_is_told_nothing_of_them(api: Api) -> None:
    assert "Access-Control-Allow-Origin" not in api.rpc("files/list_folder", {"path": ""}).headers
