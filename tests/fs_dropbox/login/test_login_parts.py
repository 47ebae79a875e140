"""The parts of a login: what is asked of Dropbox, what its refusals mean, what is no key, code or token."""

from __future__ import annotations

import contextlib
import socket
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from fs_dropbox.api.auth import Credentials
from fs_dropbox.api.client import Client
from fs_dropbox.api.transport import Transport
from fs_dropbox.emulator import Emulator
from fs_dropbox.errors import ApiError, DropboxError
from fs_dropbox.login import login as logins
from fs_dropbox.login import probing
from fs_dropbox.login.login import Login, LoginError
from fs_dropbox.login.redirect import Redirect, RedirectError
from fs_dropbox.login.redirect import _Handler as Answering
from tests.fs_dropbox.commands.command_line import code_on, visit


@pytest.fixture
def dropbox(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """The emulator in place of Dropbox, in this process."""
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)
    return emulator


def have_answered(monkeypatch: pytest.MonkeyPatch, status: int, answer: dict[str, str]) -> None:
    """Have Dropbox answer so whoever asks for a token."""
    monkeypatch.setattr(Transport, "post_form", lambda *_: (status, answer))


def refusal(walk: Login, token: str = "x" * 64) -> str:
    with pytest.raises(LoginError) as caught:
        walk.adopt(token)
    return str(caught.value)


# What is asked


def test_an_empty_secret_is_none() -> None:
    with Login("key", "") as walk:
        assert walk.app_secret is None
        assert "code_challenge" in parse_qs(urlsplit(walk.consent_url()).query)


def test_what_a_code_gives_is_told_with_its_permissions(dropbox: Emulator) -> None:
    with Login(dropbox.pkce_app_key) as walk:
        grant = walk.exchange(code_on(visit(walk.consent_url(), dropbox.ca_file)))
    assert grant.credentials.refresh_token
    assert "files.metadata.read" in grant.scopes
    assert not grant.is_team


# What refusals mean


@pytest.mark.parametrize("status", [400, 401])
def test_whichever_way_an_app_is_refused_its_key_and_secret_are_to_be_compared(dropbox: Emulator, status: int) -> None:
    dropbox.control.fault("check/app", "error", 2, status=status, error={".tag": "invalid_app"})
    with Login(dropbox.app_key, dropbox.app_secret) as walk:
        with pytest.raises(LoginError, match="does not know an app with this key and secret"):
            walk.check_app()
        walk.check_app()


def test_what_is_no_refusal_of_an_app_is_told_as_it_is(dropbox: Emulator) -> None:
    dropbox.control.fault("check/app", "error", status=409, error={".tag": "other"})
    with Login(dropbox.app_key, dropbox.app_secret) as walk, pytest.raises(ApiError):
        walk.check_app()


@pytest.mark.parametrize("problem", ["invalid_client", "unauthorized_client", "invalid_client: Invalid client_id"])
def test_an_app_that_is_not_known_is_named_with_what_may_be_missing(
    dropbox: Emulator, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    have_answered(monkeypatch, 400, {"error": problem})
    with Login(dropbox.pkce_app_key) as pkce, Login(dropbox.app_key, dropbox.app_secret) as confidential:
        assert "does not know this app key" in refusal(pkce)
        said = refusal(confidential)
    assert "does not know this app key" in said
    assert "give the secret" not in said


def test_a_secret_that_was_not_given_is_asked_for(dropbox: Emulator) -> None:
    with Login(dropbox.app_key) as walk:
        assert "if the app has a secret" in refusal(walk, dropbox.refresh_token)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"error": "invalid_request"}, "Dropbox refuses: invalid_request"),
        ({"error": "invalid_request", "error_description": "too much"}, "Dropbox refuses: too much"),
        ({}, "Dropbox refuses: status 418"),
    ],
)
def test_other_refusals_are_quoted(monkeypatch: pytest.MonkeyPatch, answer: dict[str, str], told: str) -> None:
    have_answered(monkeypatch, 418, answer)
    with Login("key") as walk:
        assert refusal(walk) == told


def test_an_answer_without_a_refresh_token_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    have_answered(monkeypatch, 200, {"access_token": "sl.x"})
    with Login("key") as walk, pytest.raises(LoginError, match="gave no refresh token"):
        walk.exchange("code")


@pytest.mark.parametrize(
    ("length", "told"), [(43, "an authorization code"), (50, "an authorization code"), (64, "was revoked")]
)
def test_a_code_in_place_of_a_token_is_recognised(dropbox: Emulator, length: int, told: str) -> None:
    with Login(dropbox.pkce_app_key) as walk:
        assert told in refusal(walk, "x" * length)


def test_credentials_that_make_no_sense_or_are_refused_are_told(dropbox: Emulator) -> None:
    credentials = Credentials(app_key=dropbox.app_key, app_secret=dropbox.app_secret, refresh_token="x" * 64)
    with pytest.raises(LoginError, match="does not let these credentials in"):
        logins.verify(credentials)
    with pytest.raises(LoginError, match="nowhere"):
        logins.verify(credentials, root="nowhere")


def test_missing_permissions_are_told_with_their_purpose() -> None:
    needed = {"a.read": "to read", "b.write": "to write"}
    assert logins.missing_scopes(needed, ["a.read", "b.write"]) == ""
    assert logins.missing_scopes(needed, ["a.read"]).startswith("the app lacks the permission b.write (to write): ")
    assert logins.missing_scopes(needed, []).startswith("the app lacks the permissions a.read (to read), b.write (")


# What is no key, code or token


def test_keys_may_be_as_long_as_they_are() -> None:
    assert logins.key_problem("x" * 32) is None
    assert "too long for an app secret" in str(logins.key_problem("x" * 33, "app secret"))


def test_the_secret_is_neither_code_nor_token() -> None:
    with Login("thekey", "thesecret") as walk:
        for text in ("thekey", "thesecret"):
            assert "the app's key or secret" in str(logins.code_problem(text, walk))
            assert "the app's key or secret" in str(logins.token_problem(text, walk))
        assert logins.code_problem("A-code_1.x~+/=", walk) is None
        assert "this is no code" in str(logins.code_problem("code and more", walk))
        assert "this is no refresh token" in str(logins.token_problem("token and more", walk))


def test_codes_are_found_in_what_people_paste() -> None:
    with Login("key") as walk:
        for text in ("CODE", " CODE\n", '"CODE"', " 'CODE' "):
            assert logins.code_in(text, walk) == "CODE"
        for scheme in ("http", "https"):
            assert logins.code_in(f"{scheme}://localhost/?code=CODE&state={walk.state}", walk) == "CODE"
        # a page that shows its code has no state
        assert logins.code_in("https://www.dropbox.com/1/oauth2/display_token?code=CODE", walk) == "CODE"


def test_a_root_of_any_name_is_quoted() -> None:
    credentials = Credentials(app_key="key", refresh_token="token")
    assert logins.fs_url(credentials, root="a&b=c") == "dropbox://key~:token@/?root=a%26b%3Dc"
    assert logins.fs_url(credentials) == "dropbox://key~:token@/"


# The page to which the browser comes back


def ask(redirect: Redirect, head: str) -> str:
    with socket.create_connection(("127.0.0.1", redirect.port), timeout=30) as client:
        client.sendall(head.encode())
        answer = b""
        while part := client.recv(65536):
            answer += part
    return answer.decode()


def test_the_page_is_kept_by_nobody_and_the_code_told_to_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    with Redirect("right", 0) as redirect:
        answer = ask(redirect, "GET /?code=SECRETCODE&state=right HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert redirect.wait(30) == "SECRETCODE"
    head, _, body = answer.partition("\r\n\r\n")
    for line in ("Cache-Control: no-store", "Referrer-Policy: no-referrer", "Connection: close"):
        assert line in head
    assert f"Content-Length: {len(body.encode())}" in head
    said = capfd.readouterr()
    assert "SECRETCODE" not in answer + said.out + said.err


def test_a_browser_that_drops_its_connection_is_not_told_of(capfd: pytest.CaptureFixture[str]) -> None:
    with Redirect("right", 0) as redirect:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(redirect._server, "RequestHandlerClass", None)  # whatever goes wrong with a connection
            with contextlib.suppress(OSError):
                ask(redirect, "GET / HTTP/1.1\r\n\r\n")
        ask(redirect, "GET /?code=CODE&state=right HTTP/1.1\r\n\r\n")
        assert redirect.wait(30) == "CODE"
    assert capfd.readouterr().err == ""


def test_the_port_is_free_afterwards_and_no_network_reaches_it() -> None:
    with Redirect("right", 0) as redirect:
        port = redirect.port
        assert redirect._server.socket.getsockname()[0] == "127.0.0.1"
        assert 0 < Answering.timeout <= 10, "a connection that sends nothing ends"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_refusal_without_a_description_is_told_by_its_code() -> None:
    with Redirect("right", 0) as redirect:
        ask(redirect, "GET /?error=server_error&state=right HTTP/1.1\r\n\r\n")
        with pytest.raises(RedirectError, match="Dropbox refused: server_error"):
            redirect.wait(30)


# Which permissions there are


@pytest.mark.parametrize("status", [403, 409])
def test_a_refusal_for_another_reason_is_no_missing_permission(emulator: Emulator, client: Client, status: int) -> None:
    emulator.control.fault("files/restore", "error", status=status, error={".tag": "other"})
    assert set(probing.permissions(client).values()) == {True}


def test_what_says_nothing_of_permissions_is_an_error(emulator: Emulator, client: Client) -> None:
    emulator.control.fault("files/restore", "error", None, status=401, error={".tag": "other"})
    with pytest.raises(ApiError):
        probing.permissions(client)


@pytest.mark.parametrize("status", [404, 400])
def test_a_stand_in_without_a_route_tells_nothing_of_permissions(
    emulator: Emulator, client: Client, status: int
) -> None:
    unknown: Any = {"kind": "server_error", "status": status, "text": "Unknown API function"}
    emulator.control.fault("users/get_current_account", **unknown)
    with pytest.raises(DropboxError):
        probing.permissions(client)
    for route in ("files/restore", "sharing/list_shared_links", "sharing/create_shared_link_with_settings"):
        emulator.control.fault(route, count=None, **unknown)
    granted = probing.permissions(client)
    assert [scope for scope in granted if granted[scope] is not True] == [
        "files.content.write",
        "sharing.read",
        "sharing.write",
    ]
    assert set(granted.values()) == {True, None}


@pytest.mark.parametrize("missing", [*logins.NEEDED_SCOPES, *logins.OPTIONAL_SCOPES])
def test_each_missing_permission_is_found_alone(emulator: Emulator, client: Client, missing: str) -> None:
    scopes = [*logins.NEEDED_SCOPES, *logins.OPTIONAL_SCOPES]
    emulator.control.set_scopes([scope for scope in scopes if scope != missing], grants=True)
    granted = probing.permissions(client)
    assert [scope for scope in granted if not granted[scope]] == [missing]
