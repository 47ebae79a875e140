"""Clients that go on with their requests in the middle of an exchange of new keys that they have begun themselves."""

from __future__ import annotations

import collections
import contextlib
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from fs.memoryfs import MemoryFS
from paramiko.common import MSG_KEXINIT, cMSG_CHANNEL_DATA

from sftp_gateway.postponing import MAX_POSTPONED_BYTES
from tests.sftp_gateway.raw_client import C, T, W
from tests.sftp_gateway.serving import Serving, Session
from tests.waiting import DEADLINE_SECONDS, eventually

PIECE = 1000


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    serving = Serving(MemoryFS(), tmp_path / "spool")
    yield serving.session()
    serving.close()


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
            written = [raw.write(handle, at, content[at : at + PIECE]) for at in range(0, len(content), PIECE)]
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
