"""Logins over the whole stack: who gets in, and what everybody else is told, in one line and without secrets."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from fs_dropbox.emulator import Emulator
from tests.clients import client

from .conftest import LogLines
from .stack import PASSWORD, Stack, run, serving

pytestmark = pytest.mark.interop


def credentials(emulator: Emulator) -> str:
    return f"{emulator.app_key}~{emulator.app_secret}"


def test_a_password_lets_in(stack: Stack) -> None:
    stack.control.write("/file", b"1")
    done = stack.type_password("bob", PASSWORD)
    assert done.code == 0, done.err
    assert "file" in done.out


def test_credentials_of_an_app_let_in(stack: Stack, emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("sftp_gateway", "sftp_gateway.paramiko", "fs_dropbox"):  # even when everything is logged
        caplog.set_level(logging.DEBUG, logger=name)
    stack.control.write("/file", b"1")
    done = stack.type_password(credentials(emulator), emulator.refresh_token, stdin="put known_hosts\nls\n")
    assert done.code == 0, done.err
    assert "file" in done.out
    assert stack.control.exists("/known_hosts")
    assert "Auth request (type=" in caplog.text
    assert emulator.app_secret not in caplog.text
    assert emulator.refresh_token not in caplog.text


def test_credentials_of_an_app_without_a_secret_let_in(stack: Stack, emulator: Emulator) -> None:
    done = stack.type_password(f"{emulator.pkce_app_key}~", emulator.pkce_refresh_token)
    assert done.code == 0, done.err


def test_an_address_with_an_access_token_lets_in(stack: Stack, emulator: Emulator) -> None:
    done = stack.type_password(emulator.account.email, emulator.access_token())
    assert done.code == 0, done.err


def test_somebody_elses_access_token_does_not(stack: Stack, emulator: Emulator) -> None:
    done = stack.type_password("eve@example.com", emulator.access_token())
    assert done.code != 0
    assert "Permission denied" in done.err


def test_a_wrong_password(stack: Stack, caplog: pytest.LogCaptureFixture, log_lines: LogLines) -> None:
    done = stack.type_password("bob", "battery staple")
    assert done.code != 0
    assert "Permission denied" in done.err
    (line,) = log_lines("login", 1)
    assert (line["event"], line["user"], line["reason"]) == ("login_failed", "bob", "wrong password")
    assert "battery" not in caplog.text


def test_an_unknown_key(stack: Stack, log_lines: LogLines) -> None:
    for name in ("id", "id.pub"):
        (stack.folder / name).unlink()
    run([client("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", stack.folder / "id"])
    done = stack.try_sftp("ls")
    assert done.code != 0
    assert "Permission denied" in done.err
    (line,) = log_lines("login", 1)
    assert (line["event"], line["user"], line["method"]) == ("login_failed", "ann", "publickey")


def test_a_revoked_token(
    stack: Stack, emulator: Emulator, caplog: pytest.LogCaptureFixture, log_lines: LogLines
) -> None:
    stack.control.revoke_tokens()
    done = stack.type_password(credentials(emulator), emulator.refresh_token)
    assert done.code != 0
    assert "Permission denied" in done.err
    (line,) = log_lines("login", 1)
    assert line["event"] == "login_failed"
    assert "no longer accepts the authorisation" in line["reason"], line
    assert emulator.app_secret not in caplog.text
    assert emulator.refresh_token not in caplog.text


def test_a_revoked_token_of_a_configured_user(
    stack: Stack, emulator: Emulator, caplog: pytest.LogCaptureFixture, log_lines: LogLines
) -> None:
    stack.control.revoke_tokens()
    done = stack.try_sftp("ls")
    assert done.code != 0
    assert "Dropbox refused the credentials of this user" in done.err
    (line,) = log_lines("login_refused", 1)
    assert "no longer accepts the authorisation" in line["reason"], line
    assert emulator.refresh_token not in caplog.text


def test_dropbox_is_down(tmp_path: Path, caplog: pytest.LogCaptureFixture, log_lines: LogLines) -> None:
    with Emulator(tmp_path / "dropbox") as emulator:  # in a folder, so that its certificate outlives it
        stack = Stack(emulator, tmp_path)
        secret_of = {"bob": PASSWORD, credentials(emulator): emulator.refresh_token}
    with serving(stack, open_seconds=1.0):
        for number, (user, secret) in enumerate(secret_of.items(), 1):
            done = stack.type_password(user, secret)
            assert done.code != 0
            assert "Dropbox cannot be reached, try again later" in done.err
            assert "Permission denied" not in done.err
            lines = log_lines("login_", number)
            assert len(lines) == number
            assert lines[-1]["event"] == "login_refused"
            said = r"Dropbox cannot be reached( \(127\.0\.0\.1:|: no answer within 1 s)"  # which a busy machine tells
            assert re.match(said, lines[-1]["reason"])
            assert secret not in caplog.text
    assert not [
        record for record in caplog.records if record.name.startswith("fs_dropbox") and record.levelno > logging.INFO
    ]
