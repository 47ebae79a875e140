"""Hashes of passwords: those that are made here, and those that users bring along from other servers."""

from __future__ import annotations

import bcrypt
import pytest

from sftp_gateway.config import UserConfig
from sftp_gateway.passwords import hash_password, is_hash, matches
from tests.passwords import PASSWORD_HASH
from tests.sftp_gateway.serving.letting_in import users_of

QUICK = bcrypt.hashpw(b"secret", b"$2b$04$CCCCCCCCCCCCCCCCCCCCC.").decode()
# Openwall's, of whom the bcrypt of PHP and of Apache's htpasswd is.
FOREIGN = {
    "$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy": b"",
    "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW": b"U*U",
    "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a": b"U*U*U",
    "$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e": b"\xff\xff\xa3",
}


@pytest.mark.parametrize("kind", ["$2a$", "$2b$", "$2y$"])
def test_hashes_of_other_servers_are_taken(kind: str) -> None:
    users = users_of([UserConfig(name="ann", password_hash=kind + QUICK[4:], url="mem://")])
    assert [*users.check_all()] == []
    for _ in range(2):  # the second time from memory
        assert users.check_password("ann", "secret") is not None
        assert users.check_password("ann", "Secret") is None
        assert users.check_password("ann", "") is None


@pytest.mark.parametrize(("stored", "password"), FOREIGN.items())
def test_known_hashes_are_those_of_their_passwords(stored: str, password: bytes) -> None:
    assert matches(stored, password)
    assert not matches(stored, password + b"x")


def test_bcrypt_reads_the_first_72_bytes() -> None:
    """Whoever made the hash has taken no more of a longer password either."""
    stored = bcrypt.hashpw(b"a" * 72, bcrypt.gensalt(4)).decode()
    assert matches(stored, b"a" * 100)
    assert not matches(stored, b"a" * 71)
    assert not matches(stored, b"a" * 71 + b"b" * 29)


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "secret",
        "$2b$04$short",
        QUICK[:-1],
        f"{QUICK}x",
        f"{QUICK}\n",
        QUICK.replace("$04$", "$03$"),
        QUICK.replace("$04$", "$16$"),  # each login would take four seconds of a core, of 31 a day
        QUICK.replace("$2b$", "$2x$"),
        "$6$salt$hash",
        "$argon2id$v=19$x",
    ],
)
def test_nothing_is_the_password_of_what_is_no_hash(stored: str) -> None:
    assert not is_hash(stored)
    assert not matches(stored, b"secret")
    if stored:
        users = users_of([UserConfig(name="ann", password_hash=stored, url="mem://")])
        assert users.check_password("ann", "secret") is None
        assert [*users.check_all()] == [
            "user ann: password_hash: is damaged, or a bcrypt hash of a cost above 15; make one with: sftp-gateway"
            " hash-password"
        ]


@pytest.mark.parametrize(
    "stored",
    [QUICK, QUICK.replace("$04$", "$05$"), PASSWORD_HASH, hash_password("x")],
    ids=["bcrypt", "dearer bcrypt", "another tool's argon2", "ours"],
)
def test_what_is_compared_for_unknown_names_costs_as_much(stored: str) -> None:
    users = users_of([UserConfig(name="ann", password_hash=stored, url="mem://")])
    kind_and_cost = stored[:7] if stored.startswith("$2") else stored.rsplit("$", 2)[0]
    assert users._dummy_hash.startswith(f"{kind_and_cost}{'$' * stored.startswith('$argon2')}")
    assert users._dummy_hash != stored
    assert not matches(users._dummy_hash, b"secret")
