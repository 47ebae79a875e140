"""A client from its first call to its end: the brake that clients share, tokens, connections, what is told of them."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fs_dropbox.api import routes
from fs_dropbox.api.auth import Credentials
from fs_dropbox.api.client import Client, Commit
from fs_dropbox.api.retry import RetryPolicy, Traffic
from fs_dropbox.emulator import Emulator
from fs_dropbox.errors import ApiError, AuthError, TransportError
from tests.waiting import eventually


def test_a_429_stops_writers_and_no_readers(emulator: Emulator, client: Client, folder: str) -> None:
    emulator.control.fault("files/upload", "rate_limit", retry_after=3)
    finished: list[float] = []

    def write(number: int) -> None:
        client.upload(Commit(f"{folder}/{number}", "add"), b"x")
        finished.append(time.monotonic())

    emulator.control.reset_counts()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(write, 0)
        thaw = eventually(lambda: client.governor.throttled_until)
        others = [pool.submit(write, number) for number in range(1, 8)]
        assert client.get_metadata(f"{folder}/file.txt").name == "file.txt"
        assert client.download(f"{folder}/file.txt", 0, 3) == b"see"
        assert not finished
        for each in (first, *others):
            each.result()
    assert min(finished) >= thaw
    assert emulator.control.calls()["files/upload"] == 9  # nobody else was refused
    assert client.governor.throttled_until is None


def test_clients_of_one_account_share_the_brake(make_client: Callable[..., Client], emulator: Emulator) -> None:
    first, second = make_client(), make_client()
    other = make_client(access_token=emulator.access_token())
    assert first.governor is second.governor
    assert first.governor is not other.governor


def test_a_wait_that_is_too_long_is_an_error_at_once(
    emulator: Emulator, make_client: Callable[..., Client], folder: str
) -> None:
    client = make_client(access_token=emulator.access_token())  # its brake is its own, and stays on
    emulator.control.fault("files/upload", "rate_limit", retry_after=300)
    began = time.monotonic()
    with pytest.raises(ApiError) as caught:
        client.upload(Commit(f"{folder}/x", "add"), b"")
    assert time.monotonic() - began < 15
    assert caught.value.is_rate_limit
    assert caught.value.retry_after == pytest.approx(300, abs=2)


def test_sixteen_threads_refresh_once(emulator: Emulator, make_client: Callable[..., Client], folder: str) -> None:
    client = make_client(root="home")
    emulator.control.reset_counts()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: client.get_metadata(f"{folder}/file.txt"), range(16)))
        assert emulator.control.calls()["oauth2/token"] == 1
        emulator.control.expire_tokens()
        list(pool.map(lambda _: client.get_metadata(f"{folder}/file.txt"), range(16)))
    assert emulator.control.calls()["oauth2/token"] == 2


def test_the_token_endpoint_may_fail_too(emulator: Emulator, client: Client, folder: str) -> None:
    troubles: list[tuple[str, dict[str, Any]]] = [
        ("server_error", {"status": 500}),
        ("reset", {}),
        ("rate_limit", {"retry_after": 0}),
    ]
    for kind, parameters in troubles:
        emulator.control.fault("oauth2/token", kind, **parameters)
    assert client.create_folder(f"{folder}/made").name == "made"


def test_an_access_token_that_expires(emulator: Emulator, make_client: Callable[..., Client]) -> None:
    client = make_client(access_token=emulator.access_token())
    client.account()
    emulator.control.expire_tokens()
    with pytest.raises(AuthError) as caught:
        client.space_usage()
    assert caught.value.tag == ("expired_access_token",)


def test_nothing_listens(make_client: Callable[..., Client]) -> None:
    client = make_client(api_host="127.0.0.1:9", policy=RetryPolicy(attempts=2, first_pause_seconds=0.01))
    with pytest.raises(TransportError) as caught:
        client.account()
    assert (caught.value.kind, caught.value.was_sent) == ("connect", False)


def test_a_certificate_that_nobody_vouches_for(make_client: Callable[..., Client]) -> None:
    client = make_client(ca_certs=None)
    began = time.monotonic()
    with pytest.raises(TransportError) as caught:
        client.account()
    assert (caught.value.kind, caught.value.was_sent) == ("tls", False)
    assert time.monotonic() - began < 8


def test_close_ends_what_is_under_way(emulator: Emulator, make_client: Callable[..., Client], folder: str) -> None:
    client = make_client(timeout_seconds=60.0, access_token=emulator.access_token())
    client.account()
    emulator.control.fault("files/get_metadata", "stall", at="answer")
    emulator.control.fault("files/upload", "rate_limit", retry_after=15)
    cursor = client.latest_cursor("")

    def kind(call: Callable[[], object]) -> str:
        try:
            call()
        except TransportError as error:
            return error.kind
        return "finished"

    struck = emulator.control.faults_struck
    with ThreadPoolExecutor(3) as pool:
        calls = [
            pool.submit(kind, lambda: client.get_metadata(f"{folder}/file.txt")),
            pool.submit(kind, lambda: client.upload(Commit(f"{folder}/x", "add"), b"x")),
            pool.submit(kind, lambda: client.longpoll(cursor, 30, lambda: False)),
        ]
        eventually(lambda: emulator.control.faults_struck >= struck + 2)
        began = time.monotonic()
        client.close()
        assert [call.result(timeout=30) for call in calls] == ["closed"] * 3
        assert time.monotonic() - began < 10
    assert kind(client.account) != "closed"  # known already
    assert kind(client.space_usage) == "closed"
    emulator.control.release()
    emulator.control.write(f"{folder}/wake", b"")  # ends the longpoll in the emulator
    client.close()


def test_a_longpoll_can_be_stopped(emulator: Emulator, client: Client, folder: str) -> None:
    cursor, stop = client.latest_cursor(""), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        ident = pool.submit(threading.get_ident).result()
        poll = pool.submit(client.longpoll, cursor, 30, stop.is_set)
        stop.set()
        eventually(lambda: (client.interrupt(ident), poll.done())[1])
        assert not poll.result().changes
        assert client.longpoll(cursor, 30, stop.is_set).changes is False
    emulator.control.write(f"{folder}/wake", b"")
    assert client.longpoll(cursor, 30, lambda: False).changes


def test_the_governor_lets_few_writers_in_at_once(emulator: Emulator, client: Client, folder: str) -> None:
    emulator.control.latency(commit_seconds=0.05, patience_seconds=0.6)
    try:
        with ThreadPoolExecutor(24) as pool:
            list(pool.map(lambda n: client.upload(Commit(f"{folder}/{n}", "add"), b"x"), range(48)))
    finally:
        emulator.control.latency(commit_seconds=0.0, patience_seconds=1.2)
    assert len(client.list_folder(folder).entries) == 50


def test_credentials_are_not_in_any_error(emulator: Emulator, make_client: Callable[..., Client]) -> None:
    secret = "sl.u.NotARealTokenButASecretAllTheSame"
    client = make_client(access_token=secret)
    with pytest.raises(ApiError) as caught:
        client.account()
    error: BaseException | None = caught.value
    while error is not None:
        assert secret not in str(error)
        assert secret not in repr(error)
        error = error.__cause__


def test_connections_that_went_stale(emulator: Emulator, client: Client, folder: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            list(pool.map(lambda _: client.get_metadata(f"{folder}/file.txt"), range(16)))
            emulator.control.drop_connections()
            client.upload(Commit(f"{folder}/file.txt", "overwrite"), b"fresh")
    assert emulator.control.read(f"{folder}/file.txt") == b"fresh"


def test_an_answer_that_is_given_up_holds_no_connection(emulator: Emulator, client: Client, folder: str) -> None:
    emulator.control.write(f"{folder}/file", bytes(2**20))
    given_up: list[Any] = []

    def receive(answer: Any) -> None:
        given_up.append(answer.response)
        raise TransportError("interrupted")

    with pytest.raises(TransportError):
        client._caller.request(routes.DOWNLOAD, {"path": f"{folder}/file"}, receive=receive)
    assert [response.raw.closed for response in given_up] == [True]


def test_logs_tell_what_happens_but_no_secret(
    emulator: Emulator, make_client: Callable[..., Client], folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = make_client()
    emulator.control.fault("files/upload", "server_error", count=3, status=500)
    emulator.control.fault("files/upload", "expired_token", after=3)
    client.upload(Commit(f"{folder}/x", "add"), b"x")
    ours = [record for record in caplog.records if record.name.startswith("fs_dropbox.api.retry")]
    assert [record.levelname for record in ours] == ["DEBUG", "DEBUG", "DEBUG", "WARNING"]
    tokens = list(emulator.service.accounts.tokens)
    for secret in (emulator.app_secret, emulator.refresh_token, *tokens):
        assert secret not in caplog.text


def test_revoked(emulator: Emulator) -> None:
    with Emulator() as own:
        credentials = Credentials(own.app_key, own.app_secret, own.refresh_token)
        client = Client(credentials, api_host=own.host, ca_certs=str(own.ca_file))
        client.account()
        own.control.revoke_tokens()
        for _ in range(2):
            with pytest.raises(AuthError) as caught:
                client.space_usage()
            assert caught.value.tag == ("invalid_access_token",)
        fresh = Client(credentials, api_host=own.host, ca_certs=str(own.ca_file))
        with pytest.raises(AuthError) as caught:
            fresh.account()
        assert caught.value.tag == ("invalid_access_token",)
        client.close()
        fresh.close()


def test_traffic_of_every_route_is_known() -> None:
    for route in routes.ALL:
        assert route.repeatable or route.traffic is Traffic.WRITE


def test_close_leaves_no_socket_and_warns_of_none(make_client: Callable[..., Client]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client = make_client()
        client.list_folder("")
        client.close()
        client.close()
        del client
