"""Signing in, and every way of not signing in: a clear refusal and one log line without secrets."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import argon2
import fs.errors
import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fs.base import FS
from fs.memoryfs import MemoryFS
from paramiko.message import Message

from sftp_gateway import UserConfig
from sftp_gateway.ssh.authentication import MAX_KEY_BYTES
from sftp_gateway.ssh.transport import BoundedTransport
from tests.waiting import eventually

from .conftest import PASSWORD, PASSWORD_HASH, Connect, LogLines, StartGateway
from .test_transport import wait_for_no_connection


def make_key(kind: str) -> paramiko.PKey:
    private: Any = {
        "ed25519": Ed25519PrivateKey.generate,
        "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }[kind]()
    text = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    classes = {"ed25519": paramiko.Ed25519Key, "ecdsa": paramiko.ECDSAKey, "rsa": paramiko.RSAKey}
    return classes[kind].from_private_key(io.StringIO(text))


def public_line(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {base64.b64encode(key.asbytes()).decode()} ann@laptop"


def test_password(start_gateway: StartGateway, connect: Connect, log_lines: LogLines) -> None:
    gateway = start_gateway()
    assert connect(gateway, "ann", PASSWORD).is_authenticated()
    (line,) = log_lines("login", 1)
    assert (line["user"], line["from"], line["method"]) == ("ann", "127.0.0.1", "password")
    assert not log_lines("login_failed")


def test_keyboard_interactive_is_the_same_check(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway()
    transport = connect(gateway)
    transport.auth_interactive("ann", lambda title, instructions, prompts: [PASSWORD for _ in prompts])
    assert transport.is_authenticated()
    other = connect(gateway)
    with pytest.raises(paramiko.AuthenticationException):
        other.auth_interactive("ann", lambda title, instructions, prompts: ["wrong" for _ in prompts])
    with pytest.raises(paramiko.AuthenticationException):
        other.auth_interactive("ann", lambda title, instructions, prompts: [])


def message(*parts: bytes | str) -> Message:
    """Put a message together: bytes as they are, texts with their length."""
    built = Message()
    for part in parts:
        if isinstance(part, str):
            built.add_string(part)
        else:
            built.add_bytes(part)
    return built


def test_who_has_signed_in_does_not_sign_in_again(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    """By answering a prompt that came before the login: the session would count twice, and never be given back."""
    user = UserConfig(name="ann", password_hash=PASSWORD_HASH, url="mem://", max_sessions=1)
    gateway = start_gateway(users=(user,))
    for number in (1, 2):
        client = connect(gateway)
        for sent in (
            message(b"\x05", "ssh-userauth"),
            message(b"\x32", "ann", "ssh-connection", "keyboard-interactive", "", ""),
            message(b"\x32", "ann", "ssh-connection", "password", b"\0", PASSWORD),
            message(b"\x3d\0\0\0\1", PASSWORD),
        ):
            client._send_message(sent)
        assert client.open_session(timeout=30)
        client.close()
        wait_for_no_connection(gateway)
        assert len(log_lines("login", number)) == number
    assert not log_lines("login_refused")


def test_a_password_that_is_not_utf8_is_a_wrong_one_or_the_right_one(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    password = "Schlüssel".encode("latin-1")
    stored = argon2.PasswordHasher(time_cost=1, memory_cost=64).hash(password)
    users = (UserConfig(name="ann", password_hash=stored, url="mem://"),)
    gateway = start_gateway(users=users, open_filesystem=Storage(), credential_logins=True)
    for name in ("ann", "KEY~APPSECRET"):
        with pytest.raises(paramiko.AuthenticationException):
            connect(gateway, name, password + b"!")  # type: ignore[arg-type]
    assert [line["user"] for line in log_lines("login_failed", 2)] == ["ann", "KEY~***"]
    assert connect(gateway, "ann", password).is_authenticated()  # type: ignore[arg-type]
    assert not log_lines("bug")


def test_a_key_of_absurd_length_is_not_even_read(
    start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL would take the square of its length for it, before anybody has signed in."""
    read: list[int] = []

    class Known(paramiko.RSAKey):
        def __init__(self, msg: Message) -> None:
            read.append(len(msg.asbytes()))
            super().__init__(msg)

    client = connect(start_gateway())
    monkeypatch.setitem(BoundedTransport._key_info, "rsa-sha2-512", Known)
    with pytest.raises(paramiko.BadAuthenticationType):
        client.auth_none("ann")
    for bits in (16_384, 200_000):
        offered = message("ssh-rsa")
        offered.add_mpint(65537)
        offered.add_mpint(2 ** (bits - 1) + 1)
        blob = offered.asbytes()
        request = message(b"\x32", "ann", "ssh-connection", "publickey", b"\0", "rsa-sha2-512")
        request.add_string(blob)
        client._send_message(request)
    # Not by `auth_password`, which would take the answers to the keys for its own.
    client._send_message(message(b"\x32", "ann", "ssh-connection", "password", b"\0", PASSWORD))
    eventually(client.is_authenticated)
    assert len(read) == 1
    assert read[0] < MAX_KEY_BYTES


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_public_key(start_gateway: StartGateway, connect: Connect, log_lines: LogLines, kind: str) -> None:
    key = make_key(kind)
    gateway = start_gateway(users=(UserConfig(name="ann", public_keys=(public_line(key),), url="mem://"),))
    assert connect(gateway, "ann", key).is_authenticated()
    (line,) = log_lines("login", 1)
    assert line["method"] == f"publickey {key.fingerprint}"


def test_wrong_password_is_one_line(start_gateway: StartGateway, connect: Connect, log_lines: LogLines) -> None:
    gateway = start_gateway()
    with pytest.raises(paramiko.AuthenticationException):
        connect(gateway, "ann", "battery staple")
    (line,) = log_lines("login_failed", 1)
    assert (line["user"], line["method"], line["reason"]) == ("ann", "password", "wrong password")
    assert not log_lines("login")


def test_unknown_user_is_one_line(start_gateway: StartGateway, connect: Connect, log_lines: LogLines) -> None:
    with pytest.raises(paramiko.AuthenticationException):
        connect(start_gateway(), "nobody", "x")
    assert [line["reason"] for line in log_lines("login_failed", 1)] == ["unknown user"]


def test_unknown_keys_are_one_line_when_the_client_gives_up(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    gateway = start_gateway()
    transport = connect(gateway)
    keys = [make_key("ed25519") for _ in range(3)]
    for key in keys:
        with pytest.raises(paramiko.AuthenticationException):
            transport.auth_publickey("ann", key)
    transport.close()
    wait_for_no_connection(gateway)
    (line,) = log_lines("login_failed", 1)
    assert line["user"] == "ann"
    assert line["reason"] == "no accepted key: " + ", ".join(key.fingerprint for key in keys)


def test_probes_are_no_failed_logins(start_gateway: StartGateway, connect: Connect, log_lines: LogLines) -> None:
    gateway = start_gateway(ban_failures=1, ban_exempt=())
    transport = connect(gateway)
    with pytest.raises(paramiko.BadAuthenticationType) as caught:
        transport.auth_none("ann")
    assert caught.value.allowed_types == ["publickey", "password", "keyboard-interactive"]
    for _ in range(3):
        with pytest.raises(paramiko.AuthenticationException):
            transport.auth_publickey("ann", make_key("ed25519"))
    transport.auth_password("ann", PASSWORD)
    transport.close()
    wait_for_no_connection(gateway)
    assert not log_lines("login_failed")
    assert len(log_lines("login", 1)) == 1


def test_a_key_of_an_unknown_kind_is_one_more_key_that_does_not_fit(
    start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that offers a hardware key first must not lose the connection."""
    transport = connect(start_gateway())
    key = make_key("ed25519")
    for algorithm in ("sk-ssh-ed25519@openssh.com", "ssh-rsa", "ssh-ed25519-cert-v01@openssh.com"):
        monkeypatch.setattr("paramiko.auth_handler.AuthHandler._finalize_pubkey_algorithm", lambda *_, a=algorithm: a)
        with pytest.raises(paramiko.AuthenticationException):
            transport.auth_publickey("ann", key)
        assert transport.is_active()
    transport.auth_password("ann", PASSWORD)
    assert transport.is_authenticated()


def test_a_signature_by_another_key_is_refused(
    start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, other = make_key("ed25519"), make_key("ed25519")
    gateway = start_gateway(users=(UserConfig(name="ann", public_keys=(public_line(key),), url="mem://"),))
    monkeypatch.setattr(key, "sign_ssh_data", other.sign_ssh_data)
    with pytest.raises(paramiko.AuthenticationException):
        connect(gateway, "ann", key)


class Storage:
    """A storage that knows one refresh token, and can be down."""

    def __init__(self) -> None:
        self.token = "TOKEN"
        self.down = False
        self.opened = 0
        self.slow = threading.Event()
        self.slow.set()

    def __call__(self, url: str) -> FS:
        assert url.startswith("dropbox://KEY~APPSECRET:")
        self.slow.wait(20)
        self.opened += 1
        if self.down:
            raise fs.errors.RemoteConnectionError(msg=f"no route to host for {url}")
        if f":{self.token}@" not in url:
            raise fs.errors.CreateFailed(f"the refresh token in {url} is invalid or revoked")
        return MemoryFS()


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
    transport._parse_disconnect = lambda m: told.append((m.get_int(), m.get_text()))
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
    assert "NOT_THERE holds no URL" in log_lines("login_refused", 1)[0]["reason"]


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
    said: list[str] = []
    transport._parse_disconnect = lambda m: said.append((m.get_int(), m.get_text()))  # type: ignore[func-returns-value]
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


def test_failed_logins_ban_an_address_and_leave_others_in(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    gateway = start_gateway(ban_failures=3, ban_exempt=())
    for number in range(3):
        with pytest.raises((paramiko.SSHException, EOFError)):
            connect(gateway, "ann", f"guess {number}")
    assert len(log_lines("ban", 1)) == 1
    with pytest.raises((paramiko.SSHException, EOFError, OSError)):
        connect(gateway, "ann", PASSWORD)
    assert [line["reason"] for line in log_lines("refused", 1)] == ["banned after failed logins"]
