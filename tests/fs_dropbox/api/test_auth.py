"""Tokens: refreshed ahead of time, once for all threads; credentials that keep their secrets."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fs_dropbox.api.auth import MARGIN_SECONDS, Credentials, TokenSource
from fs_dropbox.errors import AuthError, TransportError

REFRESHING = Credentials(app_key="key", app_secret="hidden", refresh_token="concealed")


class Endpoint:
    """The token endpoint: hands out token1, token2…"""

    def __init__(self, lifetime_seconds: float = 14400) -> None:
        self.forms: list[Mapping[str, str]] = []
        self.lifetime_seconds = lifetime_seconds
        self.answer: tuple[int, dict[str, Any]] | None = None

    def __call__(self, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        self.forms.append(form)
        return self.answer or (
            200,
            {"access_token": f"token{len(self.forms)}", "expires_in": self.lifetime_seconds, "token_type": "bearer"},
        )


class Now:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_one_refresh_for_sixteen_threads() -> None:
    endpoint, barrier = Endpoint(), threading.Barrier(16)
    source = TokenSource(REFRESHING, endpoint)

    def ask(_: int) -> str:
        barrier.wait()
        return source.token()

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(16))) == {"token1"}
        assert len(endpoint.forms) == 1
        assert set(pool.map(lambda _: source.renew("token1"), range(16))) == {True}
    assert source.token() == "token2"
    assert len(endpoint.forms) == 2


def test_the_form_is_the_protocol_s() -> None:
    endpoint = Endpoint()
    TokenSource(REFRESHING, endpoint).token()
    TokenSource(Credentials(app_key="key", refresh_token="concealed"), endpoint).token()
    with_secret = {
        "grant_type": "refresh_token",
        "refresh_token": "concealed",
        "client_id": "key",
        "client_secret": "hidden",
    }
    assert endpoint.forms == [with_secret, {k: v for k, v in with_secret.items() if k != "client_secret"}]


def test_refreshed_with_a_margin() -> None:
    endpoint, now = Endpoint(), Now()
    source = TokenSource(REFRESHING, endpoint, now=now)
    assert source.token() == "token1"
    now.seconds = 14400 - MARGIN_SECONDS - 1
    assert source.token() == "token1"
    now.seconds += 2
    assert source.token() == "token2"


def test_tokens_with_a_short_life_are_not_refreshed_for_every_call() -> None:
    endpoint, now = Endpoint(lifetime_seconds=60), Now()
    source = TokenSource(REFRESHING, endpoint, now=now)
    assert [source.token(), source.token()] == ["token1", "token1"]
    now.seconds = 31
    assert source.token() == "token2"


def test_a_token_ages_while_its_answer_is_on_the_way() -> None:
    now = Now()
    endpoint = Endpoint()

    def slow(form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        now.seconds += 600
        return endpoint(form)

    source = TokenSource(REFRESHING, slow, now=now)
    assert source.token() == "token1"
    now.seconds = 14400 - MARGIN_SECONDS + 1
    assert source.token() == "token2"


def test_each_account_has_a_fingerprint_of_its_own_that_tells_nothing() -> None:
    def fingerprint(**others: str) -> str:
        return Credentials(
            **({"app_key": "key", "app_secret": "hidden", "refresh_token": "secret"} | others)
        ).fingerprint()

    others = [
        {"member": "ann@example.com"},
        {"member": "bob@example.com"},
        {"admin": "eve@example.com"},
        {"refresh_token": "another"},
        {"app_key": "other"},
    ]
    assert len({fingerprint(), *(fingerprint(**each) for each in others)}) == 1 + len(others)
    assert fingerprint() == fingerprint(app_secret="new", email="ann@example.com")
    for each in ({}, *others):
        assert all(text not in fingerprint(**each) for text in ("secret", "hidden", "@", "key"))


def test_an_access_token_alone_is_used_as_it_is() -> None:
    endpoint = Endpoint()
    source = TokenSource(Credentials(access_token="given"), endpoint)
    assert source.token() == "given"
    assert not source.renew("given")
    assert endpoint.forms == []


def test_an_access_token_with_a_refresh_token_is_used_until_refused() -> None:
    source = TokenSource(Credentials(app_key="key", refresh_token="r", access_token="given"), Endpoint())
    assert source.token() == "given"
    assert source.renew("given")
    assert source.token() == "token1"


@pytest.mark.parametrize(
    ("answer", "tag"),
    [
        ((400, {"error": "invalid_grant", "error_description": "refresh token is invalid"}), "invalid_access_token"),
        ((400, {"error": "invalid_client"}), "invalid_client"),
        ((401, {"error": "invalid_client"}), "invalid_client"),
        ((400, {"error": "invalid_client: Invalid client_id or client_secret"}), "invalid_client"),
        ((400, {"error": "unsupported_grant_type"}), "bad_request"),
    ],
)
def test_refusals(answer: tuple[int, dict[str, Any]], tag: str) -> None:
    endpoint = Endpoint()
    endpoint.answer = answer
    with pytest.raises(AuthError) as caught:
        TokenSource(REFRESHING, endpoint).token()
    assert caught.value.tag == (tag,)


def test_a_token_whose_age_is_not_told_is_not_asked_for_each_time() -> None:
    endpoint = Endpoint()
    endpoint.answer = (200, {"access_token": "token", "token_type": "bearer"})
    source = TokenSource(REFRESHING, endpoint, now=Now())
    assert [source.token() for _ in range(3)] == ["token"] * 3
    assert len(endpoint.forms) == 1


@pytest.mark.parametrize("answer", [{}, {"expires_in": 9}, {"access_token": "x", "expires_in": "soon"}])
def test_an_answer_that_makes_no_sense(answer: dict[str, Any]) -> None:
    endpoint = Endpoint()
    endpoint.answer = (200, answer)
    with pytest.raises(TransportError):
        TokenSource(REFRESHING, endpoint).token()


def test_credentials_have_to_make_sense() -> None:
    for fields in ({}, {"app_key": "key", "app_secret": "s"}, {"refresh_token": "r"}):
        with pytest.raises(ValueError, match="need"):
            Credentials(**fields)


@pytest.mark.parametrize("field", ["app_key", "app_secret", "refresh_token", "access_token"])
def test_what_cannot_be_a_token_is_refused_without_quoting_it(field: str) -> None:
    with pytest.raises(ValueError, match=field.replace("_", " ")) as caught:
        Credentials(**{"app_key": "key", "access_token": "token", field: "pasted\nbadly"})
    assert "pasted" not in str(caught.value)


def test_no_secret_shows() -> None:
    credentials = Credentials("key", "hidden", "concealed", "secret-token", member="m@example.com")
    for shown in (repr(credentials), str(credentials), f"{credentials}", credentials.fingerprint()):
        assert not any(secret in shown for secret in ("hidden", "concealed", "secret-token"))
    assert "key" in repr(credentials)
    assert credentials.fingerprint() != Credentials("key", "hidden", "other").fingerprint()
