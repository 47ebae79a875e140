"""Keys that are exchanged again: amid requests, by either side, and no more often than is paid for."""

from __future__ import annotations

import time

import paramiko
import pytest

from sftp_gateway.ssh.key_exchange import Pace
from sftp_gateway.ssh.transport import BoundedPacketizer
from tests.sftp_gateway.conftest import PASSWORD, Connect, LogLines, StartGateway
from tests.waiting import DEADLINE_SECONDS


def test_rekeying_started_by_the_server_amid_requests(
    start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers to requests that cross the server's offer of new keys wait until these are in place."""
    monkeypatch.setattr(BoundedPacketizer, "REKEY_PACKETS", 15)
    transport = connect(start_gateway(), "ann", PASSWORD)
    exchanges: set[bytes | None] = set()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(exchanges) < 4:
        assert time.monotonic() < deadline, "no new keys"
        exchanges.add(transport.H)
        for _ in range(5):
            transport.global_request("ping", wait=False)
        transport.global_request("ping", wait=True)
        assert transport.is_active()


def test_rekeying_started_by_the_client_amid_requests(start_gateway: StartGateway, connect: Connect) -> None:
    transport = connect(start_gateway(), "ann", PASSWORD)
    for _ in range(4):
        before = transport.H
        transport.renegotiate_keys()
        assert before != transport.H
        transport.global_request("ping", wait=True)
    channel = transport.open_session(timeout=30)
    channel.exec_command("id")
    assert channel.recv_exit_status() == 1


def test_whoever_wants_new_keys_without_end_waits(
    start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exchange costs the server far more than the client: beyond a burst they come at a rate."""
    monkeypatch.setattr(Pace, "BURST", 2)
    monkeypatch.setattr(Pace, "SECONDS_EACH", 0.4)
    begun = time.monotonic()
    transport = connect(start_gateway(), "ann", PASSWORD)
    for _ in range(5):
        transport.renegotiate_keys()
    assert time.monotonic() - begun >= 3 * 0.4
    transport.global_request("ping", wait=True)


@pytest.mark.parametrize("cipher", ["aes256-gcm@openssh.com", "aes256-ctr"])
def test_what_is_transferred_earns_new_keys(
    start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch, cipher: str
) -> None:
    """A client that exchanges keys after some data, as it should, never waits."""
    monkeypatch.setattr(Pace, "BURST", 1)
    monkeypatch.setattr(Pace, "BYTES_EACH", 100_000)
    monkeypatch.setattr(Pace, "SECONDS_EACH", 1e9)
    monkeypatch.setattr(BoundedPacketizer, "pause", lambda _, seconds: waits.append(seconds))
    monkeypatch.setattr(paramiko.Transport, "_preferred_ciphers", (cipher,))
    waits: list[float] = []
    transport = connect(start_gateway(), "ann", PASSWORD)
    sftp = transport.open_sftp_client()
    assert sftp is not None
    for _ in range(3):
        with sftp.open("/file", "wb") as file:
            file.write(bytes(60_000))
        with sftp.open("/file") as file:
            file.read()
        transport.renegotiate_keys()
    assert not waits
    transport.renegotiate_keys()
    assert len(waits) == 1


def test_the_pace_of_new_keys() -> None:
    pace = Pace(0.0)
    assert not any(pace.take(0, 0.0) for _ in range(Pace.BURST))
    assert pace.take(0, 0.0) == pytest.approx(Pace.SECONDS_EACH)
    assert pace.take(0, 2 * Pace.SECONDS_EACH) == 0.0
    assert pace.take(Pace.BYTES_EACH, 2 * Pace.SECONDS_EACH) == 0.0
    assert pace.take(2**40, 1e6) == 0.0
    assert not any(pace.take(0, 1e6) for _ in range(Pace.BURST - 1))
    assert pace.take(0, 1e6) > 0, "more than a burst can be saved up"


def test_new_keys_are_for_those_who_have_signed_in(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    """A client that computes nothing could keep us computing: its login is not even asked for."""
    gateway = start_gateway()
    client = connect(gateway)
    with pytest.raises((paramiko.SSHException, EOFError)):
        client.renegotiate_keys()
    assert log_lines("no_login", 1)[0]["reason"] == "new keys are not exchanged before the login"
    client = connect(gateway, "ann", PASSWORD)
    client.renegotiate_keys()
    assert client.open_session(timeout=30)
