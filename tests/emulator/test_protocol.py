"""What is in front of every route: hosts, methods, content types, tokens, scopes, path root, bodies of errors."""

from __future__ import annotations

import base64
import json
import socket
import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests

from .raw_api import Api, bare, error_of

WEB = "https://www.dropbox.com/"


def test_headers_of_an_answer(api: Api) -> None:
    response = api.rpc("users/get_current_account")
    assert response.headers["Content-Type"] == "application/json"
    assert len(response.headers["X-Dropbox-Request-Id"]) == 32
    assert response.headers["X-Server-Response-Time"].isdigit()
    assert response.headers["X-Dropbox-Response-Origin"] == "far_remote"
    assert response.headers["Cache-Control"] == "no-cache"


def test_every_answer_tells_the_service_s_time(api: Api) -> None:
    """Clients such as dbxfs compare it with the times of files."""
    api.emulator.control.advance(1000)
    expected = time.time() + 1000
    for answer in (api.rpc("files/list_folder", {"path": ""}), api.rpc("files/nope"), api.http.get(WEB, timeout=30)):
        told = parsedate_to_datetime(answer.headers["Date"]).timestamp()
        assert abs(told - expected) < 60, answer.url


def test_json_is_ascii(api: Api) -> None:
    api.put("/\u00e4\u007f\U0001f600".replace("\u007f", ""), b"x")
    response = api.rpc("files/list_folder", {"path": ""})
    assert response.content.isascii()
    assert api.ok(response)["entries"][0]["name"] == "\u00e4\U0001f600"


def test_current_account(api: Api) -> None:
    account = api.ok(api.rpc("users/get_current_account"))
    assert len(account["account_id"]) == 40
    assert account["email"] == "ann@example.com"
    info = account["root_info"]
    assert info == {
        ".tag": "user",
        "root_namespace_id": info["home_namespace_id"],
        "home_namespace_id": info["home_namespace_id"],
    }


def test_unknown_routes_and_those_not_emulated(api: Api) -> None:
    for route in ("files/no_such_thing", "contacts/delete_manual_contacts"):
        answer = api.rpc(route, {})
        assert (answer.status_code, answer.text.partition(",")[0]) == (400, f'Unknown API function: "{route}"')
    assert api.http.post("https://api.dropboxapi.com/nothing", timeout=30).status_code == 404


def test_bad_arguments_are_told_in_plain_text(api: Api) -> None:
    def text(arg: Any, route: str = "files/list_folder") -> str:
        response = api.rpc(route, arg)
        assert response.status_code == 400
        assert response.headers["Content-Type"].startswith("text/plain")
        prefix = f'Error in call to API function "{route}": request body: '
        assert response.text.startswith(prefix)
        return response.text.removeprefix(prefix)

    assert text({}) == "missing required field 'path'"
    assert text({"path": 5}) == "path: '5' expected to be a string, got integer"
    assert text({"path": "", "recursive": "yes"}) == "recursive: 'yes' is not a valid boolean"
    assert text({"path": "", "limit": 2001}) == "limit: 2001 is not within range [1, 2000]"
    assert text({"path": "", "no_such": 1}) == "unknown field 'no_such'"
    assert text({"path": "relative"}).startswith("path: 'relative' did not match pattern")
    assert text(None) == "expected object, got null"
    assert text({"path": "rev:0123456789"}).startswith("path: 'rev:0123456789' did not match pattern")


def test_an_argument_may_be_missing_where_everything_in_it_may(api: Api) -> None:
    """Clients such as dropbox-stream begin sessions without any; the service takes null for a struct of defaults."""
    url = "https://content.dropboxapi.com/2/files/upload_session/start"
    headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "application/octet-stream"}
    begun = api.ok(api.http.post(url, data=b"abc", headers=headers, timeout=30))
    cursor = {"session_id": begun["session_id"], "offset": 3}
    done = api.upload("files/upload_session/finish", {"cursor": cursor, "commit": {"path": "/a"}})
    assert api.ok(done)["size"] == 3
    assert "session_id" in api.ok(api.upload("files/upload_session/start", None))
    assert api.ok(api.rpc("sharing/list_shared_links", None))["links"] == []
    null = api.upload("files/upload", None).text
    assert null.endswith('"files/upload": HTTP header "Dropbox-API-Arg": expected object, got null')


def test_a_misspelt_field_is_refused_wherever_it_is(api: Api) -> None:
    cursor, commit = {"session_id": "x", "offset": 0}, {"path": "/a"}
    for wrong in ({"cursor": {**cursor, "y": 1}, "commit": commit}, {"cursor": cursor, "commit": {**commit, "y": 1}}):
        answer = api.upload("files/upload_session/finish", wrong)
        assert (answer.status_code, "unknown field 'y'" in answer.text) == (400, True)
        batch = api.rpc("files/upload_session/finish_batch_v2", {"entries": [wrong]})
        assert (batch.status_code, "unknown field 'y'" in batch.text) == (400, True)
    for route, entry in (
        ("files/delete_batch", {"path": "/a"}),
        ("files/move_batch_v2", {"from_path": "/a", "to_path": "/b"}),
        ("files/upload_session/finish_batch_v2", {"cursor": cursor, "commit": commit}),
    ):
        assert api.rpc(route, {"entries": [{**entry, "y": 1}]}).status_code == 400


def test_a_limit_that_the_specification_has_in_words_only(api: Api) -> None:
    ids = [api.emulator.account.account_id] * 300
    assert len(api.ok(api.rpc("users/get_account_batch", {"account_ids": ids}))) == 300
    assert api.rpc("users/get_account_batch", {"account_ids": [*ids, ids[0]]}).status_code == 400


def test_what_takes_no_argument_refuses_one(api: Api) -> None:
    for argument in ({}, "", {"a": 1}):
        answer = api.rpc("users/get_current_account", argument)
        assert answer.status_code == 400
        assert answer.text.endswith('"users/get_current_account": request body: expected null, got value')


def test_junk_bodies_and_headers(api: Api) -> None:
    auth = {"Authorization": f"Bearer {api.token}"}
    url = "https://api.dropboxapi.com/2/files/list_folder"
    junk = api.http.post(url, data=b"{", headers={**auth, "Content-Type": "application/json"}, timeout=30)
    told = 'Error in call to API function "files/list_folder": request body: could not decode input as JSON'
    assert (junk.status_code, junk.text) == (400, told)
    for body in (b"", b"[" * 100_000):
        junk = api.http.post(url, data=body, headers={**auth, "Content-Type": "application/json"}, timeout=30)
        assert (junk.status_code, junk.text) == (400, told)
    kind = api.http.post(url, data=b"{}", headers={**auth, "Content-Type": "text/html"}, timeout=30)
    assert (kind.status_code, 'Bad HTTP "Content-Type" header' in kind.text) == (400, True)
    upload = "https://content.dropboxapi.com/2/files/upload"
    octets = {**auth, "Content-Type": "application/octet-stream"}
    assert "Dropbox-API-Arg" in api.http.post(upload, data=b"x", headers=octets, timeout=30).text
    json_kind = {**auth, "Content-Type": "application/json", "Dropbox-API-Arg": '{"path":"/a"}'}
    assert api.http.post(upload, data=b"x", headers=json_kind, timeout=30).status_code == 400
    assert api.http.get(url, headers=auth, timeout=30).status_code == 400
    download = "https://content.dropboxapi.com/2/files/download"
    with_body = api.http.post(download, data=b"x", headers={**auth, "Dropbox-API-Arg": '{"path":"/a"}'}, timeout=30)
    assert (with_body.status_code, "request body is supposed to be empty" in with_body.text) == (400, True)


def test_a_route_is_on_its_own_host_only(api: Api) -> None:
    headers = {
        "Authorization": f"Bearer {api.token}",
        "Content-Type": "application/octet-stream",
        "Dropbox-API-Arg": '{"path":"/a"}',
    }
    wrong = api.http.post("https://api.dropboxapi.com/2/files/upload", data=b"x", headers=headers, timeout=30)
    assert wrong.status_code == 400
    assert "content.dropboxapi.com" in wrong.text
    right = api.http.post(f"{api.emulator.url}/2/files/upload", data=b"x", headers=headers, timeout=30)
    assert right.status_code == 200  # by address all hosts are one


def test_calls_without_argument_need_no_body(api: Api) -> None:
    url = "https://api.dropboxapi.com/2/users/get_current_account"
    assert api.http.post(url, headers={"Authorization": f"Bearer {api.token}"}, timeout=30).status_code == 200


def test_authorization(api: Api) -> None:
    api.token = None
    missing = api.rpc("users/get_current_account")
    assert (missing.status_code, "Must provide HTTP header" in missing.text) == (400, True)
    api.token = "junk"
    unknown = api.rpc("users/get_current_account")
    assert bare(error_of(unknown, 401)) == "invalid_access_token"
    assert unknown.headers["WWW-Authenticate"] == 'Bearer realm="Dropbox-API"'
    api.token = api.emulator.access_token()
    api.emulator.control.expire_tokens()
    assert bare(error_of(api.rpc("users/get_current_account"), 401)) == "expired_access_token"
    api.token = api.emulator.access_token()
    assert api.ok(api.rpc("check/user", {"query": "hello"})) == {"result": "hello"}
    assert api.ok(api.rpc("auth/token/revoke")) is None
    assert bare(error_of(api.rpc("users/get_current_account"), 401)) == "invalid_access_token"


def test_app_authentication(api: Api) -> None:
    key, secret = api.emulator.app_key, api.emulator.app_secret
    basic = base64.b64encode(f"{key}:{secret}".encode()).decode()
    assert api.ok(api.rpc("check/app", {"query": "x"}, Authorization=f"Basic {basic}")) == {"result": "x"}
    wrong = base64.b64encode(f"{key}:wrong".encode()).decode()
    assert api.rpc("check/app", {"query": "x"}, Authorization=f"Basic {wrong}").status_code == 400
    assert api.rpc("check/app", {"query": "x"}).status_code == 400  # with a bearer token


def test_scopes(api: Api) -> None:
    accounts = api.emulator.service.accounts
    with api.emulator.service.state.mutation():
        narrow = accounts.add_token(api.emulator.grant, ["account_info.read"])
        small = accounts.add_app("Small", scopes=["account_info.read"])
        token = accounts.add_token(accounts.add_grant(small, account=api.emulator.account))
    api.token = narrow.token
    error = error_of(api.rpc("files/list_folder", {"path": ""}), 401)
    assert error == {".tag": "missing_scope", "required_scope": "files.metadata.read"}
    api.token = token.token
    response = api.rpc("files/list_folder", {"path": ""})
    assert response.status_code == 400
    assert "'files.metadata.read'" in response.text


def test_path_root(api: Api) -> None:
    info = api.ok(api.rpc("users/get_current_account"))["root_info"]
    api.put("/a", b"x")

    def listing(root: Any) -> requests.Response:
        return api.rpc("files/list_folder", {"path": ""}, **{"Dropbox-API-Path-Root": json.dumps(root)})

    good = ({".tag": "home"}, {".tag": "root", "root": info["root_namespace_id"]})
    for root in (*good, {".tag": "namespace_id", "namespace_id": info["home_namespace_id"]}):
        assert [e["name"] for e in api.ok(listing(root))["entries"]] == ["a"]
    assert error_of(listing({".tag": "root", "root": "1"}), 422) == {".tag": "invalid_root", "invalid_root": info}
    assert bare(error_of(listing({".tag": "namespace_id", "namespace_id": "1"}), 422)) == "no_permission"
    assert listing("junk").status_code == 400


def token_request(api: Api, **form: str) -> requests.Response:
    return api.http.post("https://api.dropboxapi.com/oauth2/token", data=form, timeout=30)


def test_refresh(api: Api) -> None:
    emulator = api.emulator
    form = {"grant_type": "refresh_token", "refresh_token": emulator.refresh_token, "client_id": emulator.app_key}
    answer = token_request(api, **form, client_secret=emulator.app_secret)
    assert answer.headers["Content-Type"] == "text/javascript"
    fields = answer.json()
    assert set(fields) == {"access_token", "token_type", "expires_in"}
    assert fields["expires_in"] == 14400
    api.token = fields["access_token"]
    assert api.rpc("users/get_current_account").status_code == 200

    no_secret = token_request(api, **form)
    assert no_secret.status_code == 400
    assert no_secret.json()["error"].startswith("invalid_client")
    wrong = token_request(api, **{**form, "refresh_token": "junk"}, client_secret=emulator.app_secret)
    assert wrong.json() == {"error": "invalid_grant", "error_description": "refresh token is invalid or revoked"}
    assert token_request(api, grant_type="junk").json()["error"] == "unsupported_grant_type"
    emulator.control.revoke_tokens()
    revoked = token_request(api, **form, client_secret=emulator.app_secret)
    assert (revoked.status_code, revoked.json()["error"]) == (400, "invalid_grant")


def test_refresh_without_a_secret_and_with_fewer_scopes(api: Api) -> None:
    emulator = api.emulator
    form = {
        "grant_type": "refresh_token",
        "refresh_token": emulator.pkce_refresh_token,
        "client_id": emulator.pkce_app_key,
    }
    api.token = token_request(api, **form, scope="account_info.read").json()["access_token"]
    assert api.rpc("users/get_current_account").status_code == 200
    assert bare(error_of(api.rpc("files/list_folder", {"path": ""}), 401)) == "missing_scope"
    assert token_request(api, **form, scope="team_data.member").json()["error"] == "invalid_scope"


def test_app_folder(api: Api) -> None:
    accounts = api.emulator.service.accounts
    with api.emulator.service.state.mutation():
        app = accounts.add_app("Scanner", app_folder=True)
        token = accounts.add_token(accounts.add_grant(app, account=api.emulator.account)).token
    whole, api.token = api.token, token
    assert api.put("/a", b"x")["path_display"] == "/a"
    assert [e["path_display"] for e in api.entries("", recursive=True)] == ["/a"]
    assert api.rpc("files/tags/get", {"paths": ["/a"]}).status_code == 400  # not for apps with a folder
    api.token = whole
    assert [e["path_display"] for e in api.entries("", recursive=True)] == ["/Apps", "/Apps/Scanner", "/Apps/Scanner/a"]


def test_an_app_folder_beside_one_of_the_same_name(api: Api) -> None:
    api.put("/apps/scanner/mine", b"1")
    accounts = api.emulator.service.accounts
    with api.emulator.service.state.mutation():
        app = accounts.add_app("Scanner", app_folder=True)
        token = accounts.add_token(accounts.add_grant(app, account=api.emulator.account)).token
    whole, api.token = api.token, token
    assert api.entries("") == []
    api.token = whole
    assert [e["name"] for e in api.entries("/Apps")] == ["scanner", "Scanner (1)"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_tls_and_plain_share_a_port(api: Api, scheme: str) -> None:
    url = f"{scheme}://{api.emulator.host}/2/check/user"
    headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "application/json"}
    answer = requests.post(url, data="{}", headers=headers, verify=str(api.emulator.ca_file), timeout=30)
    assert answer.json() == {"result": ""}


def test_the_proxy_leads_to_the_emulator_and_nowhere_else(api: Api) -> None:
    with requests.Session() as session:
        session.proxies = {"https": api.emulator.proxy_url}
        ca = str(api.emulator.ca_file)
        headers = {"Authorization": f"Bearer {api.token}"}
        url = "https://api.dropboxapi.com/2/users/get_current_account"
        assert session.post(url, headers=headers, verify=ca, timeout=30).json()["email"] == "ann@example.com"
        with pytest.raises(requests.exceptions.ProxyError):
            session.get("https://example.com/", verify=ca, timeout=30)


def test_the_proxy_may_ask_for_a_password(api: Api) -> None:
    api.emulator.control.options(proxy_login="user:p@ss")
    url = "https://api.dropboxapi.com/2/users/get_current_account"
    for login, accepted in (("", False), ("user:wrong@", False), ("user:p%40ss@", True)):
        with requests.Session() as session:
            session.proxies = {"https": f"http://{login}{api.emulator.host}"}
            headers, ca = {"Authorization": f"Bearer {api.token}"}, str(api.emulator.ca_file)
            if accepted:
                assert session.post(url, headers=headers, verify=ca, timeout=30).status_code == 200
                continue
            with pytest.raises(requests.exceptions.ProxyError, match="407"):
                session.post(url, headers=headers, verify=ca, timeout=30)


def test_expect_continue_and_pipelined_requests(api: Api) -> None:
    host, port = api.emulator.host.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        head = (
            f"POST /2/files/upload HTTP/1.1\r\nHost: {api.emulator.host}\r\nAuthorization: Bearer {api.token}\r\n"
            'Content-Type: application/octet-stream\r\nDropbox-API-Arg: {"path":"/a"}\r\n'
            "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
        sock.sendall(head.encode())
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abcGET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n")
        data = b""
        while part := sock.recv(65536):
            data += part
        assert data.count(b"HTTP/1.1") == 2
        assert b"200 OK" in data
        assert b"404 Not Found" in data
