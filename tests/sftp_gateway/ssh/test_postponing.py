"""Clients that go on with their requests in the middle of an exchange of keys, and those that are ahead of it."""

from __future__ import annotations

import collections
import contextlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import paramiko
import pytest
from fs.memoryfs import MemoryFS
from paramiko.common import MSG_DEBUG, MSG_IGNORE, MSG_KEXINIT, cMSG_CHANNEL_DATA

from sftp_gateway.ssh.postponing import MAX_POSTPONED_BYTES
from sftp_gateway.ssh.wire import GatewayTransport
from tests.sftp_gateway.raw_client import C, T, W
from tests.sftp_gateway.without_doors import HOST_KEY, Serving, Session
from tests.waiting import DEADLINE_SECONDS, eventually

PIECE = 1000


@pytest.fixture
def filesystem() -> MemoryFS:
    return MemoryFS()


@pytest.fixture
def session(serving: Serving) -> Session:
    return serving.session()


@contextlib.contextmanager
def exchange_begun(client: Any) -> Iterator[None]:
    """Let the client begin an exchange of keys, and go on with it only at the end; it may send anything meanwhile."""
    may_go_on = threading.Event()
    negotiate = client._handler_table[MSG_KEXINIT]

    def negotiate_later(message: paramiko.Message) -> None:
        may_go_on.wait(DEADLINE_SECONDS)
        negotiate(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(client._handler_table, MSG_KEXINIT, negotiate_later)
        # paramiko would wait for the new keys before it sends anything else.
        patch.setattr(client, "_send_user_message", client._send_message)
        client._send_kex_init()
        try:
            yield
        finally:
            may_go_on.set()


@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "aes128-ctr"])
def test_what_is_asked_amid_an_exchange_of_keys_is_answered_after_it(session: Session, cipher: str) -> None:
    client: Any = session.client
    raw = session.raw()
    handle = raw.opened("/f", W | C | T)
    client._preferred_ciphers = (cipher,)
    for number in range(3):
        before = client.H
        content = bytes([number]) * (100 * PIECE)
        with exchange_begun(client):
            written = raw.writes(handle, 0, content, piece=PIECE)
        assert all(reply.ok for reply in raw.all(written))
        assert before != client.H
        assert client.local_cipher == cipher
    assert raw.wait(raw.close(handle)).ok
    assert session.serving.filesystem.readbytes("/f") == content


def test_whoever_sends_without_end_instead_of_exchanging_keys_is_let_go(session: Session) -> None:
    session.raw()
    client: Any = session.client
    data = paramiko.Message()
    data.add_byte(cMSG_CHANNEL_DATA)
    data.add_int(0)
    data.add_string(bytes(32_000))
    endless = itertools.repeat(data, 100 * MAX_POSTPONED_BYTES // 32_000)
    with exchange_begun(client):
        with pytest.raises((OSError, EOFError)):
            collections.deque(map(client._send_message, endless), maxlen=0)
        eventually(lambda: not session.server.is_active())


class Guessing(paramiko.Transport):
    """Says that its side of the exchange follows at once; sends `ahead` before that if it guesses wrong."""

    ahead: tuple[paramiko.Message, ...] = ()

    def _send_message(self, data: paramiko.Message) -> None:
        lists = data.asbytes()
        if lists[0] == MSG_KEXINIT:
            self.local_kex_init = lists[:-5] + b"\1" + lists[-4:]
            data = paramiko.Message(self.local_kex_init)
        super()._send_message(data)  # type: ignore[misc]
        if lists[0] == MSG_KEXINIT:
            for message in self.ahead:
                super()._send_message(message)  # type: ignore[misc]


@pytest.fixture
def guess() -> paramiko.Message:
    message = paramiko.Message()
    message.add_byte(bytes([30]))
    message.add_string(bytes(32))
    return message


@pytest.mark.parametrize("wrong", ["kex", "keys", ""])
def test_a_guess_is_dropped_if_it_is_wrong(serving: Serving, guess: paramiko.Message, wrong: str) -> None:
    """As Dropbear sends what Curve25519 would take, before it knows that ML-KEM is offered first."""
    first, *others = GatewayTransport._preferred_kex  # type: ignore[attr-defined]
    with Guessing(("127.0.0.1", serving.listen())) as client:
        client._preferred_kex = (*others, first) if wrong == "kex" else (first, *others)  # type: ignore[attr-defined]
        client._preferred_keys = ("ssh-ed25519",) * (wrong == "keys") + (HOST_KEY.get_name(),)  # type: ignore[attr-defined]
        if wrong:
            client.ahead = (guess,)
        client.start_client(timeout=DEADLINE_SECONDS)
        client.auth_password("someone", "secret")
        assert client.is_authenticated()
    client.join(DEADLINE_SECONDS)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kind", [MSG_IGNORE, MSG_DEBUG])
def test_nothing_but_a_guess_is_dropped(serving: Serving, guess: paramiko.Message, kind: int, strict: bool) -> None:
    """Strict key exchange is against third parties that put such messages in before there are keys."""
    put_in = paramiko.Message()
    put_in.add_byte(bytes([kind]))
    put_in.add_bytes(bytes(20))
    first, *others = GatewayTransport._preferred_kex  # type: ignore[attr-defined]
    with Guessing(("127.0.0.1", serving.listen()), strict_kex=strict) as client:
        client._preferred_kex = (*others, first)  # type: ignore[attr-defined]
        client.ahead = (put_in,) if strict else (put_in, guess)
        if strict:
            with pytest.raises((paramiko.SSHException, EOFError, ConnectionError)):  # reset: it had more to say
                client.start_client(timeout=DEADLINE_SECONDS)
        else:
            client.start_client(timeout=DEADLINE_SECONDS)
            client.auth_password("someone", "secret")
    client.join(DEADLINE_SECONDS)
