"""Signing in, and every way of not signing in: a clear refusal and one log line without secrets."""

from __future__ import annotations

import base64
import io
from contextlib import suppress
from typing import Any

import argon2
import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from paramiko.message import Message

from sftp_gateway import GatewayConfig, UserConfig
from sftp_gateway.serving.users import Login, Users
from sftp_gateway.ssh.authentication import MAX_KEY_BYTES
from sftp_gateway.ssh.transport import BoundedTransport
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, Connect, LogLines, StartGateway
from tests.sftp_gateway.connections import sftp, wait_for_no_connection
from tests.sftp_gateway.serving.one_token import Storage
from tests.waiting import DEADLINE_SECONDS, eventually


def make_key(kind: str) -> paramiko.PKey:
    private: Any = {
        "ed25519": Ed25519PrivateKey.generate,
        "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }[kind]()
    text = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    classes: dict[str, type[paramiko.PKey]] = {
        "ed25519": paramiko.Ed25519Key,
        "ecdsa": paramiko.ECDSAKey,
        "rsa": paramiko.RSAKey,
    }
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
            client._send_message(sent)  # type: ignore[attr-defined]
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
            connect(gateway, name, password + b"!")
    assert [line["user"] for line in log_lines("login_failed", 2)] == ["ann", "KEY~***"]
    assert connect(gateway, "ann", password).is_authenticated()
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
    monkeypatch.setitem(BoundedTransport._key_info, "rsa-sha2-512", Known)  # type: ignore[attr-defined]
    with pytest.raises(paramiko.BadAuthenticationType):
        client.auth_none("ann")
    for bits in (16_384, 200_000):
        offered = message("ssh-rsa")
        offered.add_mpint(65537)
        offered.add_mpint(2 ** (bits - 1) + 1)
        blob = offered.asbytes()
        request = message(b"\x32", "ann", "ssh-connection", "publickey", b"\0", "rsa-sha2-512")
        request.add_string(blob)
        client._send_message(request)  # type: ignore[attr-defined]
    # Not by `auth_password`, which would take the answers to the keys for its own.
    client._send_message(message(b"\x32", "ann", "ssh-connection", "password", b"\0", PASSWORD))  # type: ignore[attr-defined]
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


def test_credentials_in_another_form_are_told_and_not_shown(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    with pytest.raises(paramiko.AuthenticationException):
        connect(start_gateway(), "a1b2c3d4e5f6g7h:s1s2s3s4s5s6s7s", "token")
    (line,) = log_lines("login_failed", 1)
    assert line["user"] == "a1b2c3d4e5f6g7h:***"
    assert "APP_KEY~APP_SECRET" in line["reason"]


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


def test_a_user_signs_in_from_its_networks_alone(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    key = make_key("ed25519")
    ways: dict[str, Any] = {"password_hash": PASSWORD_HASH, "public_keys": (public_line(key),), "url": "mem://"}
    near = UserConfig(name="near", networks=("10.0.0.0/8", "127.0.0.0/8"), **ways)
    far = UserConfig(name="far", networks=("10.0.0.0/8", "2001:db8::/32"), **ways)
    gateway = start_gateway(users=(near, far))
    connect(gateway, "near", PASSWORD)
    connect(gateway).auth_publickey("near", key)
    transport = connect(gateway)
    with pytest.raises(paramiko.AuthenticationException):
        transport.auth_publickey("far", key)
    transport.close()
    (line,) = log_lines("login_failed", 1)
    assert line["reason"] == f"no accepted key: {key.fingerprint} (this user may not sign in from this address)"
    with pytest.raises(paramiko.AuthenticationException):
        connect(gateway, "far", PASSWORD)
    assert log_lines("login_failed", 2)[1]["reason"] == "this user may not sign in from this address"


def test_one_wrong_password_by_two_methods_is_one_line(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    """As OpenSSH tries both with what was typed once."""
    gateway = start_gateway()
    transport = connect(gateway)
    with pytest.raises(paramiko.AuthenticationException):
        transport.auth_interactive("ann", lambda title, instructions, prompts: ["wrong" for _ in prompts])
    for password in ("wrong", "another"):
        with pytest.raises(paramiko.AuthenticationException):
            transport.auth_password("ann", password, fallback=False)
    transport.close()
    wait_for_no_connection(gateway)
    methods = [line["method"] for line in log_lines("login_failed", 1)]
    assert methods == ["keyboard-interactive", "password"]


def test_a_wrong_password_after_keys_that_do_not_fit_is_one_line(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    gateway = start_gateway()
    transport = connect(gateway)
    with pytest.raises(paramiko.AuthenticationException):
        transport.auth_publickey("ann", make_key("ed25519"))
    with pytest.raises(paramiko.AuthenticationException):
        transport.auth_password("ann", "wrong", fallback=False)
    transport.close()
    wait_for_no_connection(gateway)
    assert [line["reason"] for line in log_lines("login_failed", 1)] == ["wrong password"]


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


def test_who_signs_in_while_that_is_changed_is_let_in_by_what_counts_then(
    start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = start_gateway()
    check_password = Users.check_password

    def check_and_reload(users: Users, name: str, password: str, address: str) -> Login | None:
        login = check_password(users, name, password, address)
        gateway.reload(GatewayConfig())
        return login

    monkeypatch.setattr(Users, "check_password", check_and_reload)
    transport = connect(gateway)
    with suppress(paramiko.AuthenticationException):  # it may hear first that its connection ends
        transport.auth_password("ann", PASSWORD, fallback=False)
    transport.join(DEADLINE_SECONDS)
    assert not transport.is_active()


def test_who_signed_in_with_credentials_goes_when_those_open_something_else(
    start_gateway: StartGateway, connect: Connect
) -> None:
    settings: Any = {"users": (), "credential_url": "mem://{user}:{password}@/"}
    gateway = start_gateway(**settings)
    transport = connect(gateway, "KEY~SECRET", "TOKEN")
    gateway.reload(GatewayConfig(**settings, connection_burst=7))
    assert sftp(transport).listdir("/") == []
    gateway.reload(GatewayConfig(**settings, url_parameters="root=home"))
    transport.join(DEADLINE_SECONDS)
    assert not transport.is_active()
