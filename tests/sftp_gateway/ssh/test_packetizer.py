"""What a packetizer receives and sends, piece by piece: its waits are where a test puts in what comes next."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fs.memoryfs import MemoryFS

from sftp_gateway.ssh import packetizer
from sftp_gateway.ssh.packetizer import RECEIVE_BYTES, SEND_BYTES, STALL_SECONDS, GatewayPacketizer
from tests.sftp_gateway.raw_client import RawClient
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import DEADLINE_SECONDS

MIB = 2**20
GCM, CTR = "aes128-gcm@openssh.com", "aes128-ctr"


@pytest.fixture
def filesystem() -> MemoryFS:
    return MemoryFS()


@pytest.fixture
def pair() -> Iterator[tuple[GatewayPacketizer, socket.socket]]:
    """A packetizer, and its peer's end of the connection."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    made = GatewayPacketizer(ours)
    made.open_wake_up()
    yield made, theirs
    made.close_wake_up()
    made.close()
    theirs.close()


def step_by_step(*steps: Callable[[], object]) -> Callable[[], float]:
    """Do one thing before each wait."""
    left = iter(steps)

    def before_wait() -> float:
        next(left)()
        return 10.0

    return before_wait


def test_a_packet_in_pieces_is_whole_although_something_else_wakes_the_thread_in_between(
    pair: tuple[GatewayPacketizer, socket.socket],
) -> None:
    ours, theirs = pair
    ours.before_wait = step_by_step(lambda: theirs.send(b"half"), ours.wake, lambda: theirs.send(b"whole"))
    assert ours.read_all(9) == b"halfwhole"


@pytest.mark.parametrize("size", [17_000, 100_000, 250_000])
def test_a_packet_may_come_quickly_at_first_and_trickle_in_then(
    pair: tuple[GatewayPacketizer, socket.socket], size: int
) -> None:
    ours, theirs = pair
    content = bytes(number % 251 for number in range(size))
    sizes = [16 * 1024, 32 * 1024, 1, *itertools.repeat(5000, 50)]
    places = list(itertools.accumulate(sizes, initial=0))
    steps = [lambda start=start, end=end: theirs.send(content[start:end]) for start, end in itertools.pairwise(places)]

    def before_wait() -> float:
        if not ours._more and steps:
            steps.pop(0)()
        return 10.0

    ours.before_wait = before_wait
    assert ours.read_all(size) == content


def test_what_comes_fast_is_received_in_large_pieces_and_what_trickles_in_takes_little_memory(
    pair: tuple[GatewayPacketizer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = pair
    rooms: list[int] = []
    is_fast = True

    def receive(room: Any) -> int:
        rooms.append(len(room))
        return len(room) if is_fast else 10

    monkeypatch.setattr(ours, "_peer", SimpleNamespace(recv_into=receive))
    monkeypatch.setattr(ours, "_more", True)  # there is more, so it does not wait
    least, most = RECEIVE_BYTES
    for _ in range(10):
        ours.read_all(ours._receive_bytes)
    assert rooms == [min(most, least * 2**number) for number in range(10)]
    is_fast = False
    ours.read_all(10)
    monkeypatch.setattr(ours, "_waiting", SimpleNamespace(wait=lambda *_, **__: True, close=lambda: None))
    ours.read_all(10)
    assert rooms[10:] == [most, least]


def test_no_memory_is_kept_for_what_comes_while_nothing_does(pair: tuple[GatewayPacketizer, socket.socket]) -> None:
    ours, theirs = pair
    held: list[int] = []
    ours.before_wait = step_by_step(
        lambda: theirs.send(b"1234"), ours.wake, lambda: [theirs.send(b"5678"), held.append(len(ours._buffer))]
    )
    assert ours.read_all(4) + ours.read_all(4) == b"12345678"
    assert held == [0]


@pytest.mark.parametrize("takes", [100_000, 0])
def test_a_peer_is_waited_for_as_long_as_it_takes_anything(
    pair: tuple[GatewayPacketizer, socket.socket], monkeypatch: pytest.MonkeyPatch, takes: int
) -> None:
    """Over a slow line large replies may need more than the time after which a silent peer is given up."""
    ours, theirs = pair
    now = 0.0
    taken = bytearray()

    def wait() -> None:
        nonlocal now
        assert not ours._turn._mine, "others wait meanwhile"
        now += 0.6 * STALL_SECONDS
        if takes:
            taken.extend(theirs.recv(takes))

    monkeypatch.setattr(packetizer, "time", SimpleNamespace(monotonic=lambda: now, time=lambda: now))
    monkeypatch.setattr(ours, "_wait_until_writable", wait)
    content = bytes(number % 251 for number in range(3_000_000))
    ours._turn.take()
    if takes:
        ours.write_all(content)
        theirs.setblocking(False)
        while len(taken) < len(content):
            taken += theirs.recv(2**20)
        assert taken == content
        assert now > 10 * STALL_SECONDS
    else:
        with pytest.raises(EOFError):
            ours.write_all(content)
        assert now < 3 * STALL_SECONDS


def test_a_write_does_not_outlive_its_connection(
    pair: tuple[GatewayPacketizer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that is ended by somebody else gives up at once, although its client takes nothing."""
    ours, _ = pair
    monkeypatch.setattr(ours, "_wait_until_writable", lambda: setattr(ours, "_Packetizer__closed", True))
    with pytest.raises(EOFError):
        ours.write_all(bytes(10_000_000))


def test_many_small_messages_leave_in_few_writes_and_are_not_all_kept_until_then(
    pair: tuple[GatewayPacketizer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = pair
    writes: list[bytes] = []

    def send(piece: bytes) -> int:
        writes.append(bytes(piece))
        return len(piece)

    def sendmsg(pieces: list[bytes]) -> int:
        assert len(pieces) <= 1024, "the system takes no more at once"
        return send(b"".join(pieces))

    monkeypatch.setattr(ours, "_peer", SimpleNamespace(send=send, sendmsg=sendmsg))
    messages = [b"%0100d" % number for number in range(10_000)]
    ours.cork()
    for message in messages:
        ours.write_all(message)
    kept = sum(map(len, messages)) - sum(map(len, writes))
    ours.uncork()
    assert kept <= SEND_BYTES
    assert b"".join(writes) == b"".join(messages)
    assert len(writes) <= 30


def test_new_keys_are_counted_anew(pair: tuple[GatewayPacketizer, socket.socket]) -> None:
    """Else there would be an exchange of keys for every packet, once there was one."""
    ours, _ = pair
    ours.REKEY_BYTES, ours.REKEY_PACKETS = 100, 10
    engine: Any = AESGCM(bytes(32))
    none: Any = None
    for _ in range(5):
        ours.set_outbound_cipher(engine, 16, none, 16, none, aead=True, iv_out=bytes(12))
        ours.set_inbound_cipher(engine, 16, none, 16, none, aead=True, iv_in=bytes(12))
        assert ours.transferred == 0
        for _ in range(3):
            ours._count_in(5)
            ours._count_out(20)
        assert ours.transferred == 75
        assert not ours.need_rekey()


def test_who_sends_no_banner_is_not_waited_for(pair: tuple[GatewayPacketizer, socket.socket]) -> None:
    ours, _ = pair
    with pytest.raises(TimeoutError):
        ours.readline(0.0)


@pytest.mark.parametrize("cipher", [GCM, CTR])
def test_the_server_wants_new_keys_after_so_many_bytes_either_way(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, cipher: str
) -> None:
    session = serving.session()
    client, server = session.client, session.server
    assert client is not None
    client._preferred_ciphers = (cipher,)  # type: ignore[attr-defined]
    client.renegotiate_keys()
    raw = session.raw()
    exchanges: list[int] = []
    begin = server._send_kex_init  # type: ignore[attr-defined]
    monkeypatch.setattr(server, "_send_kex_init", lambda: [exchanges.append(1), begin()])
    monkeypatch.setattr(server.packetizer, "REKEY_BYTES", MIB)
    content = os.urandom(6 * MIB)
    raw.put("/f", content)
    assert 3 <= len(exchanges) <= 12
    exchanges.clear()
    assert raw.get("/f", piece=200_000) == content
    assert 3 <= len(exchanges) <= 12


@pytest.mark.parametrize("strict", [True, False])
def test_new_keys_may_be_for_another_cipher(serving: Serving, strict: bool) -> None:
    with paramiko.Transport(("127.0.0.1", serving.listen()), strict_kex=strict) as client:
        client.start_client(timeout=DEADLINE_SECONDS)
        client.auth_password("someone", "secret")
        channel = client.open_session(timeout=DEADLINE_SECONDS)
        channel.invoke_subsystem("sftp")
        raw = RawClient(channel).init()
        for cipher in (GCM, CTR, GCM, GCM, CTR, CTR):
            client._preferred_ciphers = (cipher,)  # type: ignore[attr-defined]
            client.renegotiate_keys()
            raw.put("/f", cipher.encode())
            assert raw.get("/f") == client.local_cipher.encode() == cipher.encode()
    client.join(DEADLINE_SECONDS)
