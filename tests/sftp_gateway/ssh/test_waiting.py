"""Who waits looks for a moment before it sleeps: only where that is of use, and never at others' cost."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sftp_gateway.sftp.packets import Kind
from sftp_gateway.ssh import turns, waiting
from sftp_gateway.ssh.packetizer import GatewayPacketizer
from sftp_gateway.ssh.turns import Turn
from sftp_gateway.ssh.waiting import Waiting
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.conftest import PASSWORD, Connect, StartGateway
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import eventually

LONG = 30.0


class Polls:
    """Stands in for what `select.poll` makes, and counts how often was looked and how often was slept."""

    def __init__(self) -> None:
        self.looked = self.slept = 0
        self._poll = select.poll()
        self.register = self._poll.register

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        if milliseconds:
            self.slept += 1
        else:
            self.looked += 1
        return self._poll.poll(milliseconds)


class Pair:
    """One end that waits, and the peer's end."""

    def __init__(self) -> None:
        self.peer, self.sock = socket.socketpair()
        self.waiting = Waiting(self.sock)
        self.waiting.open()
        self.polls = Polls()
        self.waiting._poll = self.polls  # type: ignore[assignment]
        assert self.waiting._wake_up is not None
        self.polls.register(self.sock, select.POLLIN)
        self.polls.register(self.waiting._wake_up.fileno(), select.POLLIN)

    def close(self) -> None:
        self.waiting.close()
        self.peer.close()
        self.sock.close()


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(turns, "_lock", threading.Lock())
    made = Pair()
    yield made
    made.close()
    assert not waiting._polling.locked(), "who has looked keeps others from looking"


def miss(pair: Pair, times: int) -> int:
    """Wait so often for nothing; return how many of these waits looked first."""
    looked = 0
    for _ in range(times):
        before = pair.polls.looked
        assert not pair.waiting.wait(0.00001)
        looked += pair.polls.looked > before
    return looked


def test_without_it_every_wait_sleeps(pair: Pair) -> None:
    pair.peer.send(b"x")
    assert pair.waiting.wait(LONG)
    assert (pair.polls.looked, pair.polls.slept) == (0, 1)


def test_what_comes_soon_is_found_awake(pair: Pair) -> None:
    pair.waiting.busy_poll_seconds = LONG
    timer = threading.Timer(0.05, pair.peer.send, (b"x",))
    timer.start()
    assert pair.waiting.wait(LONG)
    timer.join()
    assert pair.polls.looked > 1
    assert not pair.polls.slept


def test_a_wake_up_ends_it_too(pair: Pair) -> None:
    pair.waiting.busy_poll_seconds = LONG
    timer = threading.Timer(0.05, pair.waiting.wake)
    timer.start()
    assert not pair.waiting.wait(LONG)
    timer.join()
    assert not pair.polls.slept
    pair.peer.send(b"x")
    pair.waiting.wake()
    assert pair.waiting.wait(LONG), "a wake-up hides what has come"


def test_who_finds_nothing_sleeps(pair: Pair) -> None:
    pair.waiting.busy_poll_seconds = 0.01
    timer = threading.Timer(0.1, pair.peer.send, (b"x",))
    timer.start()
    assert pair.waiting.wait(LONG)
    timer.join()
    assert pair.polls.looked > 1
    assert pair.polls.slept == 1


def test_no_wait_is_longer_than_asked_for(pair: Pair) -> None:
    pair.waiting.busy_poll_seconds = LONG
    begun = time.monotonic()
    assert not pair.waiting.wait(0.01)
    assert time.monotonic() - begun < LONG / 2


def test_where_it_is_in_vain_it_is_seldom_done(pair: Pair) -> None:
    pair.waiting.busy_poll_seconds = 0.00001
    assert 8 <= miss(pair, 1000) <= 12


def test_where_it_is_of_use_again_it_is_done_again(pair: Pair) -> None:
    pair.waiting.busy_poll_seconds = 0.00001
    miss(pair, 1000)
    pair.peer.send(b"x")
    for _ in range(1000):
        assert pair.waiting.wait(LONG)
    before = pair.polls.slept
    for _ in range(100):
        assert pair.waiting.wait(LONG)
    assert pair.polls.slept == before
    pair.sock.recv(1)
    assert miss(pair, 2) == 1, "one miss is not held against who nearly always hits"


def test_a_look_that_finds_something_halves_the_rest(pair: Pair) -> None:
    pair.waiting.busy_poll_seconds = 0.00001
    assert miss(pair, 1 + 1 + 1 + 3 + 1 + 7) == 3
    pair.peer.send(b"x")
    before = pair.polls.slept
    assert pair.waiting.wait(LONG)
    assert pair.polls.slept == before
    pair.sock.recv(1)
    assert miss(pair, 1 + 7) == 1
    assert miss(pair, 1) == 1


def test_who_looks_gives_the_core_to_whoever_wants_it(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes is often sent by a process of this very machine."""
    pair.waiting.busy_poll_seconds = LONG
    monkeypatch.setattr("os.sched_yield", lambda: pair.peer.send(b"x"))
    assert pair.waiting.wait(LONG)
    assert pair.polls.looked == 2


def test_who_may_not_wait_misses_nothing(pair: Pair) -> None:
    pair.waiting.busy_poll_seconds = 0.00001
    for _ in range(100):
        assert not pair.waiting.wait(0.0)
    assert miss(pair, 1) == 1, "what cannot find anything was held against it"
    pair.peer.send(b"x")
    assert pair.waiting.wait(0.0)


def test_one_thread_looks_at_a_time(pair: Pair) -> None:
    pair.waiting.busy_poll_seconds = 0.00001
    with waiting._polling:
        assert miss(pair, 10) == 0
    assert miss(pair, 1) == 1, "what another kept from looking was not in vain"


def test_nobody_looks_while_another_works(pair: Pair) -> None:
    pair.waiting.busy_poll_seconds = LONG
    turn = Turn()
    turn.take()
    try:
        assert not pair.waiting.wait(0.00001)
        assert pair.polls.looked == 1
    finally:
        turn.give()
    timer = threading.Timer(0.05, turn.take)
    begun = time.monotonic()
    timer.start()
    assert not pair.waiting.wait(0.2)
    timer.join()
    assert pair.polls.slept == 2, "it went on looking beside one that works"
    assert time.monotonic() - begun < LONG / 2
    turn._thread = threading.get_ident()
    turn.give()


def test_a_single_core_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    packetizer = GatewayPacketizer(ours)
    for cores, expected in (({0}, 0.0), ({0, 1}, 0.5)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: cores, raising=False)
        packetizer.busy_poll(0.5)
        assert packetizer._waiting.busy_poll_seconds == expected
    packetizer.close()
    theirs.close()


@pytest.mark.parametrize("seconds", [0.0, 0.0125])
def test_a_session_does_so_when_it_serves_sftp_and_not_before(
    start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    gateway = start_gateway(busy_poll_seconds=seconds)
    transport = connect(gateway, "ann", PASSWORD)
    (served,) = gateway._connections.values()
    assert served.packetizer._waiting.busy_poll_seconds == 0.0
    transport.open_session().invoke_subsystem("sftp")
    assert served.packetizer._waiting.busy_poll_seconds == seconds


def test_who_waits_for_the_storage_does_not_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of the process that have to do for a client would hardly get the interpreter."""
    storage = AtomicFS()
    storage.writebytes("/f", b"x")
    serving = Serving(storage, tmp_path)
    session = serving.session()
    client = session.raw()
    looked: list[int] = []
    monkeypatch.setattr(Waiting, "_busy_poll", lambda *_: looked.append(session.channels[0].unanswered))
    session.server.packetizer._waiting.busy_poll_seconds = LONG
    client.wait(client.path(Kind.REALPATH, "/"))
    eventually(lambda: looked)
    with storage.stalled("getinfo", "/f"):
        stat = client.stat("/f")
        eventually(lambda: session.channels[0].unanswered == 1)
        for _ in range(10):
            client.wait(client.path(Kind.REALPATH, "/"))
    assert client.wait(stat).kind == Kind.ATTRS
    assert not any(looked)
    serving.close()
