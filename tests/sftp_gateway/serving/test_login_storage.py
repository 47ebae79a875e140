"""Signing in with a storage's own credentials, and what users are told of a storage that cannot be had."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import pytest
from fs.base import FS
from fs.errors import CreateFailed

from sftp_gateway import UserConfig
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, Connect, LogLines, StartGateway
from tests.sftp_gateway.connections import wait_for_no_connection
from tests.sftp_gateway.serving.one_token import Storage


def text_of(records: list[Any]) -> str:
    return "\n".join(record.getMessage() + str(record.exc_text) for record in records)


@pytest.fixture
def no_secrets(caplog: pytest.LogCaptureFixture, log_lines: LogLines) -> Callable[[], None]:
    def check() -> None:
        for secret in ("APPSECRET", "TOKEN", "GUESS", PASSWORD):
            assert secret not in text_of(caplog.records)

    return check


def test_storage_credentials_sign_in(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines, no_secrets: Callable[[], None]
) -> None:
    storage = Storage()
    gateway = start_gateway(open_filesystem=storage)
    assert connect(gateway, "KEY~APPSECRET", "TOKEN").is_authenticated()
    (line,) = log_lines("login", 1)
    assert line["user"] == "KEY~***"
    no_secrets()


def test_a_known_account_does_not_let_in_another_token(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines, no_secrets: Callable[[], None]
) -> None:
    gateway = start_gateway(open_filesystem=Storage())
    connect(gateway, "KEY~APPSECRET", "TOKEN")
    with pytest.raises(paramiko.AuthenticationException):
        connect(gateway, "KEY~APPSECRET", "GUESS")
    (line,) = log_lines("login_failed", 1)
    assert line["user"] == "KEY~***"
    assert line["reason"] == "Dropbox refused the credentials: the refresh token in *** is invalid or revoked"
    no_secrets()


def test_what_a_storage_says_of_the_credentials_is_struck_out(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines, no_secrets: Callable[[], None]
) -> None:
    def refuse(_url: str) -> FS:
        raise CreateFailed("APPSECRET with TOKEN lets nobody in")

    gateway = start_gateway(open_filesystem=refuse)
    with pytest.raises(paramiko.AuthenticationException):
        connect(gateway, "KEY~APPSECRET", "TOKEN")
    (line,) = log_lines("login_failed", 1)
    assert line["reason"] == "Dropbox refused the credentials: *** with *** lets nobody in"
    no_secrets()


def test_a_revoked_token_is_noticed(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines, no_secrets: Callable[[], None]
) -> None:
    storage = Storage()
    gateway = start_gateway(open_filesystem=storage, recheck_seconds=0.0)
    connect(gateway, "KEY~APPSECRET", "TOKEN")
    storage.token = "NEWER"
    with pytest.raises(paramiko.AuthenticationException):
        connect(gateway, "KEY~APPSECRET", "TOKEN")
    assert len(log_lines("login_failed", 1)) == 1
    no_secrets()


@pytest.mark.parametrize("password", ["TOKEN", "GUESS"])
def test_dropbox_down_at_login_is_no_failed_login(
    start_gateway: StartGateway,
    connect: Connect,
    log_lines: LogLines,
    no_secrets: Callable[[], None],
    password: str,
) -> None:
    storage = Storage()
    storage.down = True
    gateway = start_gateway(open_filesystem=storage, ban_failures=1, ban_exempt=())
    with pytest.raises((paramiko.SSHException, EOFError)):
        connect(gateway, "KEY~APPSECRET", password)
    wait_for_no_connection(gateway)
    (line,) = log_lines("login_refused", 1)
    assert line["user"] == "KEY~***"
    assert line["reason"].startswith("Dropbox cannot be reached: ")
    assert not log_lines("login_failed")
    no_secrets()
    storage.down = False
    assert connect(gateway, "KEY~APPSECRET", "TOKEN").is_authenticated()


def test_a_storage_that_does_not_answer_stops_nobody_else(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    storage = Storage()
    storage.slow.clear()
    gateway = start_gateway(open_filesystem=storage, open_seconds=4.0)
    errors: list[Exception] = []

    def come_in() -> None:
        try:
            connect(gateway, "KEY~APPSECRET", "TOKEN")
        except paramiko.SSHException as error:
            errors.append(error)

    waiting = threading.Thread(target=come_in)
    waiting.start()
    assert connect(gateway, "ann", PASSWORD).is_authenticated()
    assert waiting.is_alive()
    waiting.join(30)
    storage.slow.set()
    assert len(errors) == 1
    assert log_lines("login_refused", 1)[0]["reason"] == "Dropbox cannot be reached: no answer within 4 s"


def test_ten_parallel_logins_open_once(start_gateway: StartGateway, connect: Connect) -> None:
    """FileZilla's way; nobody is banned, whatever the address tried before."""
    storage = Storage()
    storage.slow.clear()
    gateway = start_gateway(open_filesystem=storage, ban_failures=2, ban_exempt=())
    signed_in: list[bool] = []

    def come_in() -> None:
        transport = connect(gateway)
        with pytest.raises(paramiko.BadAuthenticationType):
            transport.auth_none("KEY~APPSECRET")
        transport.auth_password("KEY~APPSECRET", "TOKEN")
        signed_in.append(transport.is_authenticated())

    threads = [threading.Thread(target=come_in) for _ in range(10)]
    for thread in threads:
        thread.start()
    storage.slow.set()
    for thread in threads:
        thread.join(20)
    assert signed_in == [True] * 10
    assert storage.opened == 1


def test_credentials_can_be_switched_off(start_gateway: StartGateway, connect: Connect) -> None:
    storage = Storage()
    gateway = start_gateway(open_filesystem=storage, credential_logins=False)
    with pytest.raises(paramiko.AuthenticationException):
        connect(gateway, "KEY~APPSECRET", "TOKEN")
    assert storage.opened == 0


@pytest.mark.parametrize(
    ("token", "down", "said", "reason"),
    [
        ("TOKEN", True, "Dropbox cannot be reached, try again later", "Dropbox cannot be reached: "),
        (
            "REVOKED",
            False,
            "Dropbox refused the credentials of this user, try again later",
            "Dropbox refused the credentials of this user: the refresh token in *** is invalid or revoked",
        ),
    ],
)
def test_a_user_whose_storage_is_out_of_reach_is_told_when_asking_for_sftp(
    start_gateway: StartGateway,
    connect: Connect,
    log_lines: LogLines,
    no_secrets: Callable[[], None],
    token: str,
    down: bool,
    said: str,
    reason: str,
) -> None:
    storage = Storage()
    storage.down = down
    user = UserConfig(name="ann", password_hash=PASSWORD_HASH, url=f"dropbox://KEY~APPSECRET:{token}@/")
    gateway = start_gateway(open_filesystem=storage, users=(user,), ban_failures=1, ban_exempt=())
    transport = connect(gateway, "ann", PASSWORD)
    told: list[tuple[int, str]] = []
    transport._parse_disconnect = lambda m: told.append((m.get_int(), m.get_text()))  # type: ignore[attr-defined]
    with pytest.raises((paramiko.SSHException, EOFError)):
        paramiko.SFTPClient.from_transport(transport)
    transport.join(30)
    assert told == [(7, said)]
    assert log_lines("login_refused", 1)[0]["reason"].startswith(reason)
    assert not log_lines("login_failed")
    no_secrets()


def test_a_misconfigured_user_is_told_to_come_later(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    gateway = start_gateway(users=(UserConfig(name="ann", password_hash=PASSWORD_HASH, url_env="NOT_THERE"),))
    with pytest.raises((paramiko.SSHException, EOFError)):
        connect(gateway, "ann", PASSWORD)
    assert "NOT_THERE is not set here" in log_lines("login_refused", 1)[0]["reason"]


def test_a_folder_that_is_missing_is_not_told_as_wrong_credentials(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines, tmp_path: Path
) -> None:
    user = UserConfig(name="ann", password_hash=PASSWORD_HASH, url=f"osfs://{tmp_path}/none")
    transport = connect(start_gateway(users=(user,)), "ann", PASSWORD)
    with pytest.raises((paramiko.SSHException, EOFError)):
        paramiko.SFTPClient.from_transport(transport)
    reason = log_lines("login_refused", 1)[0]["reason"]
    assert reason.startswith("Osfs cannot be opened for this user: root path ")
    assert reason.endswith("/none' does not exist")


def test_the_client_is_told_why(start_gateway: StartGateway, connect: Connect) -> None:
    storage = Storage()
    storage.down = True
    transport = connect(start_gateway(open_filesystem=storage))
    said: list[tuple[int, str]] = []
    transport._parse_disconnect = lambda m: said.append((m.get_int(), m.get_text()))  # type: ignore[attr-defined]
    with pytest.raises((paramiko.SSHException, EOFError)):
        transport.auth_password("KEY~APPSECRET", "TOKEN", fallback=False)
    assert said == [(7, "Dropbox cannot be reached, try again later")]


def test_a_bug_is_a_refusal_with_a_trace_for_us(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = start_gateway()
    transport = connect(gateway)
    with monkeypatch.context() as patch:
        patch.setattr("sftp_gateway.serving.users.Users.check_password", lambda *_: 1 / 0)
        with pytest.raises(paramiko.AuthenticationException):
            transport.auth_password("ann", PASSWORD, fallback=False)
    assert "ZeroDivisionError" in log_lines("bug", 1)[0]["trace"]
    transport.auth_password("ann", PASSWORD)
    assert transport.is_authenticated()


def test_a_url_without_its_scheme_is_shown_to_nobody(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines, caplog: pytest.LogCaptureFixture
) -> None:
    """What stands before the :// of a parameter is all that is secret."""
    url = "KEY~APPSECRET:TOKEN@/?api_host=http://localhost"
    gateway = start_gateway(users=(UserConfig(name="ann", password_hash=PASSWORD_HASH, url=url),))
    transport = connect(gateway, "ann", PASSWORD)
    channel = transport.open_session(timeout=30)
    with pytest.raises(paramiko.SSHException):
        channel.invoke_subsystem("sftp")
    refused = log_lines("login_refused", 1)[0]["reason"]
    assert refused == "The storage cannot be reached: no filesystem is installed for such a URL"
    assert "APPSECRET".casefold() not in caplog.text.casefold()
