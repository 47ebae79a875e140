"""Who may log in: passwords, keys and the credential convention, without a trace of secrets."""

from __future__ import annotations

import base64
from pathlib import Path
from unittest.mock import Mock

import argon2
import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import sftp_gateway.passwords as module
from sftp_gateway.config import UserConfig
from sftp_gateway.passwords import hash_password
from sftp_gateway.serving.users import (
    UserError,
    fingerprint,
    is_credential_name,
    is_mistaken,
    shown_name,
)
from tests.sftp_gateway.serving.letting_in import config_of, users_of

HASH = hash_password("secret")
TEMPLATE = "dropbox://{user}:{password}@/"


def new_key_line() -> str:
    return Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def blob_of(line: str) -> bytes:
    return base64.b64decode(line.split()[1])


def test_the_right_password_and_no_other_signs_in() -> None:
    users = users_of([UserConfig(name="ann", password_hash=HASH, url="mem://", root="/in", rights="read-only")])
    for _ in range(2):  # the second time from memory
        login = users.check_password("ann", "secret")
        assert login is not None
        assert (login.url, login.root, login.rights, login.proven) == ("mem://", "/in", "read-only", True)
        assert users.check_password("ann", "Secret") is None
        assert users.check_password("ann", "") is None


def test_a_password_that_was_changed_signs_in_no_more() -> None:
    """Though it was verified before, which is remembered."""
    users = users_of([UserConfig(name="ann", password_hash=hash_password("old"), url="mem://")])
    assert users.check_password("ann", "old") is not None
    users.configure(config_of([UserConfig(name="ann", password_hash=hash_password("new"), url="mem://")]))
    assert users.check_password("ann", "old") is None
    assert users.check_password("ann", "new") is not None
    users.configure(config_of([]))
    assert users.check_password("ann", "new") is None


def test_an_unknown_name_costs_as_much_as_a_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[bytes] = []

    class Hasher:
        def verify(self, stored: str, password: bytes) -> None:
            verified.append(password)
            raise argon2.exceptions.VerifyMismatchError

        def hash(self, password: str) -> str:
            return HASH

    monkeypatch.setattr(module, "_hasher", Hasher())
    users = users_of([UserConfig(name="ann", password_hash=HASH, url="mem://")], credential_url=TEMPLATE)
    assert users.check_password("ann", "one") is None
    assert users.check_password("nobody", "two") is None
    assert verified == [b"one", b"two"]


def test_an_unknown_name_costs_as_much_as_a_password_that_another_tool_has_hashed(tmp_path: Path) -> None:
    """Whose hashes are dearer or cheaper than ours: how long a refusal takes would tell which names there are."""
    foreign = argon2.PasswordHasher(time_cost=3, memory_cost=64, parallelism=2)
    (tmp_path / "hash").write_text(foreign.hash("x"))
    keys = UserConfig(name="bob", public_keys=("x",), url="mem://")
    ann = UserConfig(name="ann", password_hash_file=str(tmp_path / "hash"), url="mem://")
    users = users_of([keys, UserConfig(name="eve", password_hash_file="gone", url="mem://"), ann])
    assert argon2.extract_parameters(users._dummy_hash) == argon2.extract_parameters(foreign.hash("y"))
    users.configure(config_of([keys]))
    assert argon2.extract_parameters(users._dummy_hash) == argon2.extract_parameters(HASH)


def test_a_password_that_was_right_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = Mock(wraps=module._hasher)
    monkeypatch.setattr(module, "_hasher", hasher)
    users = users_of([UserConfig(name="ann", password_hash=HASH, url="mem://")])
    for _ in range(3):
        assert users.check_password("ann", "secret") is not None
    assert hasher.verify.call_count == 1
    for _ in range(2):
        assert users.check_password("ann", "wrong") is None
    assert hasher.verify.call_count == 3


def test_from_elsewhere_nobody_learns_that_a_password_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither from the answer nor from the time that it takes, also once it was right from where it may come."""
    hasher = Mock(wraps=module._hasher)
    monkeypatch.setattr(module, "_hasher", hasher)
    users = users_of([UserConfig(name="ann", password_hash=HASH, url="mem://", networks=("10.0.0.0/8",))])
    assert users.check_password("ann", "secret", "::ffff:10.1.2.3") is not None
    for password in ("secret", "wrong"):
        assert users.check_password("ann", password, "192.0.2.1") is None
    assert hasher.verify.call_count == 3
    assert users.why_refused("ann", "192.0.2.1") == "this user may not sign in from this address"


def test_a_user_with_keys_only_has_no_password() -> None:
    users = users_of([UserConfig(name="ann", public_keys=(new_key_line(),), url="mem://")])
    assert users.check_password("ann", "") is None
    assert users.check_password("ann", "secret") is None
    assert users.why_refused("ann") == "this user has no password, only public keys"


def test_keys_from_the_configuration_and_from_a_file(tmp_path: Path) -> None:
    lines = [new_key_line() for _ in range(3)]
    file = tmp_path / "authorized_keys"
    file.write_text(f"# the laptop\n\n{lines[1]} ann@laptop\n")
    users = users_of([UserConfig(name="ann", public_keys=(lines[0],), public_keys_file=str(file), url="mem://")])
    assert users.check_key("ann", blob_of(lines[0])) is not None
    assert users.check_key("ann", blob_of(lines[1])) is not None
    assert users.check_key("ann", blob_of(lines[2])) is None
    assert users.check_key("nobody", blob_of(lines[0])) is None
    assert users.check_key("ann", b"") is None


@pytest.mark.parametrize("options", ["restrict", "no-pty,no-X11-forwarding"])
def test_a_key_line_may_forbid_what_nobody_may_do(options: str) -> None:
    line = new_key_line()
    users = users_of([UserConfig(name="ann", public_keys=(f"{options} {line}",), url="mem://")])
    assert users.check_key("ann", base64.b64decode(line.split()[1])) is not None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('from="10.0.0.1" {key}', "give the user's networks instead"),
        ('restrict,command="x" {key}', "without options that allow something"),
        ("restrict", "a line starts with the kind of key"),
        ("sk-ssh-ed25519@openssh.com AAAA", "a line starts with the kind of key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "this is a private key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519", "this is a private key"),
        ("---- BEGIN SSH2 PUBLIC KEY ----", "give the line that it shows for OpenSSH"),
    ],
)
def test_a_line_that_is_no_key_is_refused_with_what_to_do(line: str, told: str) -> None:
    """Options that would restrict a key are never left out."""
    users = users_of([UserConfig(name="ann", public_keys=(line.format(key=new_key_line()),), url="mem://")])
    with pytest.raises(UserError, match=told):
        users.check_key("ann", b"x")


def test_the_url_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text("mem://file\n")
    monkeypatch.setenv("ANN_URL", "mem://environment")
    users = users_of(
        [
            UserConfig(name="ann", password_hash=HASH, url_env="ANN_URL"),
            UserConfig(name="bob", password_hash=HASH, url_file=str(tmp_path / "url")),
            UserConfig(name="eve", password_hash=HASH, url_env="NOT_THERE"),
        ]
    )
    ann, bob = users.check_password("ann", "secret"), users.check_password("bob", "secret")
    assert ann is not None
    assert bob is not None
    assert (ann.url, bob.url) == ("mem://environment", "mem://file")
    with pytest.raises(UserError, match="NOT_THERE is not set here"):
        users.check_password("eve", "secret")


@pytest.mark.parametrize(
    "name", ["key~secret", "key~", "key~secret~member@company.com", "key~~member@company.com", "me@company.com"]
)
def test_the_credential_convention(name: str) -> None:
    assert is_credential_name(name)


@pytest.mark.parametrize("name", ["ann", "", "~", "~secret", "key~se cret", "a@b@c", "key~a~b~c", "../x~y/..", "a:b~c"])
def test_other_names_are_not_credentials(name: str) -> None:
    assert not is_credential_name(name)
    assert users_of(credential_url=TEMPLATE).check_password(name, "token") is None


def test_credentials_become_a_url_that_only_opening_proves() -> None:
    users = users_of(credential_url=TEMPLATE, url_parameters="root=home")
    login = users.check_password("key~se/c@ret~me@x.com", "to:k/e@n{user}%")
    assert login is not None
    assert not login.proven
    assert login.url == "dropbox://key~se%2Fc%40ret~me%40x.com:to%3Ak%2Fe%40n%7Buser%7D%25@/?root=home"
    assert login.storage == "Dropbox"
    assert users.check_password("key~secret", "") is None
    assert users_of().check_password("key~secret", "token") is None


def test_parameters_of_the_credential_url_and_of_their_own_setting() -> None:
    users = users_of(credential_url=f"{TEMPLATE}?root=home", url_parameters="timeout_seconds=60&views=on")
    login = users.check_password("key~secret", "token")
    assert login is not None
    assert login.url.endswith("?root=home&timeout_seconds=60&views=on")


def test_a_configured_user_goes_before_the_convention() -> None:
    users = users_of([UserConfig(name="me@x.com", password_hash=HASH, url="mem://")], credential_url=TEMPLATE)
    assert users.check_password("me@x.com", "token") is None
    login = users.check_password("me@x.com", "secret")
    assert login is not None
    assert login.url == "mem://"


def test_no_secret_is_shown() -> None:
    users = users_of(
        [UserConfig(name="ann", password_hash=HASH, url="dropbox://KEY~APPSECRET:TOKEN@/")], credential_url=TEMPLATE
    )
    for login in (users.check_password("ann", "secret"), users.check_password("KEY~APPSECRET~a@b.c", "TOKEN")):
        assert "APPSECRET" not in repr(login) + str(login)
        assert "TOKEN" not in repr(login) + str(login)
    assert "TOKEN" not in repr(UserConfig(name="ann", password_hash=HASH, url="dropbox://KEY~APPSECRET:TOKEN@/"))
    assert shown_name("KEY~APPSECRET~me@x.com") == "KEY~***~me@x.com"
    assert shown_name("KEY~APPSECRET") == "KEY~***"
    assert shown_name("ann") == "ann"


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("a1b2c3d4e5f6g7h:s1s2s3s4s5s6s7s", "a1b2c3d4e5f6g7h:***"),
        ("a1b2c3d4e5f6g7h / s1s2s3s4s5s6s7s", "a1b2c3d4e5f6g7h ***"),
        ("a1b2c3d4e5f6g7h:s1s2s3s4s5s6s7s:T0kenT0kenT0ken", "a1b2c3d4e5f6g7h:***"),
        ("yCjmflkHaYKhBrIXN1NFVbVf9G1ld4-VGHW870h4SLRNsiT5fqSiRbtY59xNtJ1W", "***"),
        ("sl.B" + "xY9_" * 33, "***"),
        ("customer-with-a-very-long-name-of-12-departments", "customer-with-a-very-long-name-of-12-departments"),
        ("a1b2c3d4e5f6g7h", "a1b2c3d4e5f6g7h"),
    ],
)
def test_secrets_that_are_typed_as_a_name_by_mistake_are_not_shown(typed: str, shown: str) -> None:
    assert shown_name(typed) == shown
    assert is_mistaken(typed) == ("***" in shown)


def test_whatever_is_secret_of_a_login_is_known_to_its_log() -> None:
    login = users_of(credential_url=TEMPLATE).check_password("key~APPSECRET~me@x.com", "to:k/e@n")
    assert login is not None
    assert {"to:k/e@n", "to%3Ak%2Fe%40n", "APPSECRET", login.url} <= set(login.secrets)
    url = "dropbox://KEY~LONGAPPSECRET:LONGREFRESHTOKEN@/"
    configured = users_of([UserConfig(name="ann", password_hash=HASH, url=url)]).check_password("ann", "secret")
    assert configured is not None
    assert {url, "LONGAPPSECRET", "LONGREFRESHTOKEN"} <= set(configured.secrets)
    short = users_of(credential_url=TEMPLATE).check_password("key~a", "x")
    assert short is not None
    assert set(short.secrets) == {short.url}, "a letter would be struck out of every word, and so be told"
    assert "" not in (*login.secrets, *configured.secrets), "it would be struck out everywhere"


def test_check_all_names_every_user_that_cannot_sign_in(tmp_path: Path) -> None:
    empty = tmp_path / "keys"
    empty.touch()
    users = users_of(
        [
            UserConfig(name="fine", password_hash=HASH, url="mem://"),
            UserConfig(name="keyless", public_keys_file=str(empty), url="mem://"),
            UserConfig(name="damaged", password_hash="$argon2id$v=19$x", url="mem://"),
            UserConfig(name="lost", password_hash=HASH, url_file=str(tmp_path / "nowhere")),
            UserConfig(name="unset", password_hash=HASH, url_env="NO_SUCH_VARIABLE"),
            UserConfig(name="strange", public_keys=("ssh-ed25519 AAAA",), url="mem://"),
            UserConfig(name="unknown", password_hash=HASH, url="gopher://KEY~APPSECRET:TOKEN@/"),
            UserConfig(name="nowhere", password_hash=HASH, url="KEY~APPSECRET:TOKEN"),
            UserConfig(name="forgotten", password_hash=HASH, url="KEY~APPSECRET:TOKEN@/?api_host=http://localhost"),
            UserConfig(name="twice", public_keys_file=str(empty), url="dropbox://KEY~APPSECRET@/"),
        ]
    )
    problems = list(users.check_all())
    names = ["keyless", "damaged", "lost", "unset", "strange", "unknown", "nowhere", "forgotten", "twice", "twice"]
    assert [problem.split(":")[0] for problem in problems] == [f"user {name}" for name in names]
    assert "APPSECRET" not in "".join(problems)
    assert problems[2].startswith(f"user lost: url_file: {tmp_path}/nowhere: ")
    assert problems[3].startswith("user unset: url_env: the variable NO_SUCH_VARIABLE is not set here")
    assert "no filesystem is installed for gopher:// URLs" in problems[5]
    assert problems[7].endswith("the url is no FS URL, such as dropbox://KEY~SECRET:TOKEN@/")
    assert "the Dropbox URL has no refresh token" in problems[9]


def test_fingerprints_are_those_of_openssh() -> None:
    line = new_key_line()
    assert fingerprint(blob_of(line)) == paramiko.PKey.from_type_string("ssh-ed25519", blob_of(line)).fingerprint


def test_a_thousand_users_cost_nothing_until_they_sign_in(tmp_path: Path) -> None:
    """Neither keys nor URLs are read, nor hashes checked, before somebody comes."""
    users_of(
        UserConfig(name=f"user{n}", public_keys_file=str(tmp_path / "missing"), url_file=str(tmp_path / "missing"))
        for n in range(1000)
    )
