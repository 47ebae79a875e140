"""Signing in: the authorisation page, codes, refresh, revocation; through the SDK's own flows and by raw requests."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import dropbox
import pytest
import requests
from dropbox import DropboxOAuth2Flow, DropboxOAuth2FlowNoRedirect
from dropbox.oauth import NotApprovedException

from fs_dropbox.emulator import Emulator, Options
from fs_dropbox.login.redirect import DEFAULT_PORT

from .raw_api import Api, error_of

REDIRECT = "http://localhost:5000/done"
VERIFIER = "a" * 43


@pytest.fixture(autouse=True)
def registered(emulator: Emulator) -> None:
    """The default app may send browsers to `REDIRECT`, too."""
    emulator.control.set_redirect_uris([f"http://localhost:{DEFAULT_PORT}/", REDIRECT])


@pytest.fixture
def page(api: Api) -> Callable[..., requests.Response]:
    """Open the authorisation page without following redirects."""

    def open_page(**parameters: str) -> requests.Response:
        asked = {"response_type": "code", "client_id": api.emulator.app_key, "force_reapprove": "true", **parameters}
        url = f"https://www.dropbox.com/oauth2/authorize?{urlencode(asked)}"
        return api.http.get(url, allow_redirects=False, timeout=60)

    return open_page


@pytest.fixture
def code(page: Callable[..., requests.Response]) -> Callable[..., str]:
    """Get a code by automatic approval."""

    def get(**parameters: str) -> str:
        answer = page(approve="1", **parameters)
        assert answer.status_code in (200, 302), answer.text
        if answer.status_code == 302:
            return parse_qs(urlsplit(answer.headers["Location"]).query)["code"][0]
        return code_shown(answer)

    return get


def code_shown(answer: requests.Response) -> str:
    match = re.search(r'id="code" readonly value="([^"]+)"', answer.text)
    assert match is not None, answer.text
    return match[1]


def token(api: Api, **form: str) -> requests.Response:
    return api.http.post("https://api.dropboxapi.com/oauth2/token", data=form, timeout=60)


def exchange(api: Api, code: str, **form: str) -> requests.Response:
    secret = {} if "code_verifier" in form else {"client_secret": api.emulator.app_secret}
    fields = {"grant_type": "authorization_code", "client_id": api.emulator.app_key, "code": code, **secret, **form}
    return token(api, **fields)


# The SDK's flows --------------------------------------------------------------


def approve(api: Api, url: str) -> requests.Response:
    return api.http.get(url + "&approve=1&force_reapprove=true", allow_redirects=False, timeout=60)


@pytest.mark.parametrize("pkce", [False, True])
def test_sdk_flow_without_redirect(emulator: Emulator, api: Api, pkce: bool) -> None:
    flow = DropboxOAuth2FlowNoRedirect(
        emulator.app_key,
        None if pkce else emulator.app_secret,
        use_pkce=pkce,
        token_access_type="offline",
        scope=["files.metadata.read", "account_info.read"],
    )
    flow.requests_session.close()
    flow.requests_session = api.http
    result = flow.finish(code_shown(approve(api, flow.start())))
    assert result.account_id == emulator.account.account_id
    assert result.user_id.isdigit()
    assert result.scope == "files.metadata.read account_info.read"
    assert result.refresh_token
    secret = None if pkce else emulator.app_secret
    with dropbox.Dropbox(
        oauth2_refresh_token=result.refresh_token, app_key=emulator.app_key, app_secret=secret, session=api.http
    ) as dbx:
        assert dbx.users_get_current_account().email == "ann@example.com"


def test_sdk_flow_with_redirect(emulator: Emulator, api: Api) -> None:
    session: dict[str, Any] = {}
    flow = DropboxOAuth2Flow(
        emulator.app_key, REDIRECT, session, "csrf", emulator.app_secret, token_access_type="online"
    )
    flow.requests_session.close()
    flow.requests_session = api.http
    answer = approve(api, flow.start(url_state="where"))
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith(REDIRECT + "?")
    query = {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["Location"]).query).items()}
    result = flow.finish(query)
    assert (result.account_id, result.url_state) == (emulator.account.account_id, "where")
    assert not result.refresh_token  # online
    assert result.expires_at is not None


def test_sdk_flow_when_the_user_says_no(emulator: Emulator, api: Api) -> None:
    session: dict[str, Any] = {}
    flow = DropboxOAuth2Flow(emulator.app_key, REDIRECT, session, "csrf", emulator.app_secret)
    flow.requests_session.close()
    answer = api.http.get(flow.start() + "&deny=1", allow_redirects=False, timeout=60)
    query = {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["Location"]).query).items()}
    assert query["error"] == "access_denied"
    with pytest.raises(NotApprovedException):
        flow.finish(query)


# The page -----------------------------------------------------------------------


def test_a_person_approves_with_the_form(emulator: Emulator, api: Api, page: Callable[..., requests.Response]) -> None:
    emulator.control.add_account("bob@example.com", "Bob")
    shown = page(redirect_uri=REDIRECT, state="s<1>", scope="files.metadata.read", token_access_type="offline")
    assert shown.status_code == 200
    assert shown.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "files.metadata.read" in shown.text
    assert "s<1>" not in shown.text
    fields = {
        name: value.replace("&lt;", "<").replace("&gt;", ">")
        for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', shown.text)
    }
    form = {**fields, "account": "bob@example.com", "decision": "allow"}
    answer = api.http.post("https://www.dropbox.com/oauth2/authorize", data=form, allow_redirects=False, timeout=60)
    assert answer.status_code == 302
    query = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert query["state"] == ["s<1>"]
    body = exchange(api, query["code"][0], redirect_uri=REDIRECT).json()
    assert body["account_id"] == emulator.control.account("bob@example.com")["account_id"]
    refused = api.http.post(
        "https://www.dropbox.com/oauth2/authorize", data={**form, "decision": "deny"}, allow_redirects=False, timeout=60
    )
    assert parse_qs(urlsplit(refused.headers["Location"]).query)["error"] == ["access_denied"]


def test_who_has_approved_before_is_not_asked_again(page: Callable[..., requests.Response]) -> None:
    assert page(redirect_uri=REDIRECT, force_reapprove="false").status_code == 302
    assert page(redirect_uri=REDIRECT).status_code == 200
    assert page(force_reapprove="false").status_code == 200  # without a redirect the code must be shown to somebody


def test_the_option_answers_for_the_person(page: Callable[..., requests.Response], emulator: Emulator) -> None:
    emulator.control.options(consent="approve")
    assert "code=" in page(redirect_uri=REDIRECT).headers["Location"]
    emulator.control.options(consent="deny")
    assert "error=access_denied" in page(redirect_uri=REDIRECT).headers["Location"]


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"client_id": "nobody"}, "Invalid client_id"),
        ({"response_type": "token"}, "Invalid response_type"),
        ({"redirect_uri": "https://example.com/evil"}, "Invalid redirect_uri"),
        ({"redirect_uri": "http://localhost.example.com/"}, "Invalid redirect_uri"),
        ({"redirect_uri": "http://localhost:5001/done"}, "Invalid redirect_uri"),
        ({"redirect_uri": "http://127.0.0.1:5000/done"}, "Invalid redirect_uri"),
        ({"redirect_uri": f"{REDIRECT}/"}, "Invalid redirect_uri"),
        ({"scope": "files.metadata.read team_data.member"}, "Invalid scope"),
        ({"token_access_type": "forever"}, "Invalid token_access_type"),
        ({"state": "x" * 501}, "Invalid state"),
        ({"code_challenge": "short"}, "Invalid code_challenge"),
        ({"code_challenge": "c" * 43, "code_challenge_method": "S512"}, "Invalid code_challenge"),
    ],
)
def test_wrong_requests_are_refused_on_the_page(
    page: Callable[..., requests.Response], parameters: dict[str, str], text: str
) -> None:
    answer = page(approve="1", **parameters)
    assert answer.status_code == 400
    assert text in answer.text


def test_registered_addresses_match_exactly(emulator: Emulator, page: Callable[..., requests.Response]) -> None:
    app = emulator.control.add_app("Web", redirect_uris=["https://web.example/done?a=1"])
    asked = {"client_id": app["app_key"], "approve": "1"}
    good = page(redirect_uri="https://web.example/done?a=1", **asked)
    assert good.headers["Location"].startswith("https://web.example/done?a=1&code=")
    assert page(redirect_uri="https://web.example/done", **asked).status_code == 400
    emulator.control.set_redirect_uris(["http://[::1]:8080/"], app=app["app_key"])
    assert page(redirect_uri="https://web.example/done?a=1", **asked).status_code == 400
    assert page(redirect_uri="http://[::1]:8080/", **asked).status_code == 302


@pytest.mark.parametrize("uri", ["http://web.example/", "ftp://localhost/", "localhost:5000", ""])
def test_what_dropbox_takes_for_no_redirect_uri_cannot_be_registered(emulator: Emulator, uri: str) -> None:
    with pytest.raises(ValueError, match="cannot be a redirect URI"):
        emulator.control.set_redirect_uris([uri])
    with pytest.raises(ValueError, match="cannot be a redirect URI"):
        emulator.control.add_app("Web", redirect_uris=[uri])


def test_fs_dropbox_login_needs_no_registration(emulator: Emulator, page: Callable[..., requests.Response]) -> None:
    uri = f"http://localhost:{DEFAULT_PORT}/"
    for key in (emulator.app_key, emulator.pkce_app_key):
        assert page(client_id=key, redirect_uri=uri, approve="1").headers["Location"].startswith(uri)


# Codes ---------------------------------------------------------------------------


def test_the_answer_of_an_exchange(emulator: Emulator, api: Api, code: Callable[..., str]) -> None:
    answer = exchange(api, code(token_access_type="offline", scope="files.metadata.read"))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/javascript"
    body = answer.json()
    assert set(body) == {
        "access_token", "token_type", "expires_in", "refresh_token", "scope", "uid", "account_id"
    }  # fmt: skip
    assert body["access_token"].startswith("sl.")
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("bearer", 14400, "files.metadata.read")


@pytest.mark.parametrize("access_type", ["online", "legacy"])
def test_only_offline_access_comes_with_a_refresh_token(api: Api, code: Callable[..., str], access_type: str) -> None:
    body = exchange(api, code(token_access_type=access_type)).json()
    assert "refresh_token" not in body
    assert body["expires_in"] == 14400


def test_legacy_tokens_of_former_years_have_no_end(emulator: Emulator, api: Api, code: Callable[..., str]) -> None:
    emulator.control.options(legacy_tokens_expire=False)
    body = exchange(api, code()).json()
    assert "expires_in" not in body
    api.token = body["access_token"]
    assert api.rpc("check/user", {"query": "a"}).status_code == 200


def invalid_grant(answer: requests.Response) -> str:
    assert answer.status_code == 400
    body = answer.json()
    assert body["error"] == "invalid_grant"
    return str(body["error_description"])


def test_a_code_works_once(api: Api, code: Callable[..., str]) -> None:
    given = code()
    assert exchange(api, given).status_code == 200
    assert invalid_grant(exchange(api, given)) == "code has already been used"


def test_a_code_ends_and_belongs_to_its_app_and_address(emulator: Emulator, api: Api, code: Callable[..., str]) -> None:
    assert invalid_grant(exchange(api, "never-given")) == "code doesn't exist or has expired"
    other = emulator.control.add_app("Other")
    foreign = exchange(api, code(), client_id=other["app_key"], client_secret=other["app_secret"])
    assert invalid_grant(foreign) == "code doesn't exist or has expired"
    assert invalid_grant(exchange(api, code(redirect_uri=REDIRECT))) == "redirect_uri mismatch"
    assert exchange(api, code(redirect_uri=REDIRECT), redirect_uri=REDIRECT).status_code == 200
    late = code()
    emulator.control.advance(601)
    assert invalid_grant(exchange(api, late)) == "code doesn't exist or has expired"


def test_the_secret_is_checked(emulator: Emulator, api: Api, code: Callable[..., str]) -> None:
    for answer in (
        exchange(api, code(), client_secret="wrong"),
        exchange(api, code(), code_verifier=VERIFIER),  # no challenge was given, so a secret is needed
        exchange(api, code(), client_id="nobody"),
    ):
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("invalid_client")
    basic = api.http.post(
        "https://api.dropboxapi.com/oauth2/token",
        data={"grant_type": "authorization_code", "code": code()},
        auth=(emulator.app_key, emulator.app_secret),
        timeout=60,
    )
    assert basic.status_code == 200
    assert token(api, grant_type="password").json()["error"] == "unsupported_grant_type"


@pytest.mark.parametrize("method", ["S256", "plain"])
def test_proof_of_possession(api: Api, code: Callable[..., str], method: str) -> None:
    digest = hashlib.sha256(VERIFIER.encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=") if method == "S256" else VERIFIER
    asked = {"code_challenge": challenge, "code_challenge_method": method, "token_access_type": "offline"}
    assert invalid_grant(exchange(api, code(**asked), code_verifier="b" * 43)) == "invalid code verifier"
    assert invalid_grant(exchange(api, code(**asked))) == "invalid code verifier"  # the secret does not replace it
    body = exchange(api, code(**asked), code_verifier=VERIFIER).json()
    renewed = token(
        api, grant_type="refresh_token", refresh_token=body["refresh_token"], client_id=api.emulator.app_key
    )
    assert renewed.status_code == 200


# Refresh and the end -----------------------------------------------------------------


def refresh(api: Api, **form: str) -> requests.Response:
    emulator = api.emulator
    given = {
        "refresh_token": emulator.refresh_token, "client_id": emulator.app_key, "client_secret": emulator.app_secret
    }  # fmt: skip
    return token(api, grant_type="refresh_token", **{**given, **form})


def test_refresh(api: Api) -> None:
    answer = refresh(api)
    assert answer.headers["Content-Type"] == "text/javascript"
    assert set(answer.json()) == {"access_token", "token_type", "expires_in"}
    again = refresh(api).json()
    assert again["access_token"] != answer.json()["access_token"]  # and the refresh token is not used up


def test_refresh_may_narrow_the_scopes(api: Api) -> None:
    body = refresh(api, scope="account_info.read").json()
    assert body["scope"] == "account_info.read"
    api.token = body["access_token"]
    assert api.rpc("users/get_current_account").status_code == 200
    error = error_of(api.rpc("files/list_folder", {"path": ""}), 401)
    assert error == {".tag": "missing_scope", "required_scope": "files.metadata.read"}
    assert refresh(api, scope="account_info.read team_data.member").json()["error"] == "invalid_scope"


def test_refresh_needs_the_secret_unless_the_grant_came_without(emulator: Emulator, api: Api) -> None:
    assert refresh(api, client_secret="wrong").json()["error"].startswith("invalid_client")
    without = {"grant_type": "refresh_token", "client_id": emulator.app_key, "refresh_token": emulator.refresh_token}
    assert token(api, **without).json()["error"].startswith("invalid_client")
    pkce = {**without, "client_id": emulator.pkce_app_key, "refresh_token": emulator.pkce_refresh_token}
    assert token(api, **pkce).status_code == 200
    answer = refresh(api, refresh_token="nonsense")
    assert answer.json() == {"error": "invalid_grant", "error_description": "refresh token is invalid or revoked"}


def test_sdk_tells_a_revoked_refresh_token_from_a_wrong_secret(emulator: Emulator, api: Api) -> None:
    def client(secret: str) -> dropbox.Dropbox:
        return dropbox.Dropbox(
            oauth2_refresh_token=emulator.refresh_token,
            app_key=emulator.app_key,
            app_secret=secret,
            session=api.http,
        )

    with pytest.raises(dropbox.exceptions.BadInputError):
        client("wrong").users_get_current_account()
    emulator.control.unlink()
    with pytest.raises(dropbox.exceptions.AuthError) as caught:
        client(emulator.app_secret).users_get_current_account()
    assert caught.value.error.is_invalid_access_token()


def test_revoke_ends_the_token_its_siblings_and_the_refresh_token(api: Api) -> None:
    first, sibling = refresh(api).json()["access_token"], refresh(api).json()["access_token"]
    api.token = first
    answer = api.rpc("auth/token/revoke")
    assert (answer.status_code, answer.text) == (200, "null")
    for ended in (first, sibling):
        api.token = ended
        assert error_of(api.rpc("check/user", {"query": "a"}), 401) == {".tag": "invalid_access_token"}
    assert refresh(api).json()["error"] == "invalid_grant"


def test_an_expired_token_says_so(emulator: Emulator, api: Api) -> None:
    emulator.control.expire_tokens()
    answer = api.rpc("check/user", {"query": "a"})
    assert error_of(answer, 401) == {".tag": "expired_access_token"}
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_codes_and_grants_survive_a_restart(tmp_path: Any) -> None:
    with Emulator(tmp_path) as first:
        api = Api(first)
        url = f"https://www.dropbox.com/oauth2/authorize?response_type=code&client_id={first.app_key}&approve=1"
        given = code_shown(api.http.get(url + "&token_access_type=offline", timeout=60))
        api.http.close()
    with Emulator(tmp_path, options=Options()) as second:
        api = Api(second)
        body = exchange(api, given).json()
        assert refresh(api, refresh_token=body["refresh_token"]).status_code == 200
        api.http.close()
