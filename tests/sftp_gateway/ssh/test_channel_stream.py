"""What leaves through a channel: as much as its client has room for, in packets that it takes, to the last reply."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.common import MSG_CHANNEL_DATA

from sftp_gateway.requests.room import ChannelLimits
from sftp_gateway.sftp.packets import Status
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import R, RawClient
from tests.sftp_gateway.without_doors import Serving, Session
from tests.waiting import DEADLINE_SECONDS, eventually

LARGE = 6 * 2**20  # more than a client's window


@pytest.fixture
def session(serving: Serving) -> Session:
    return serving.session()


def test_who_sends_nothing_more_gets_all_that_it_has_asked_for(session: Session) -> None:
    """Also what was not there yet, or had no room, when it said so."""
    content = os.urandom(LARGE)
    filesystem: Any = session.serving.filesystem
    filesystem.writebytes("/f", content)
    client = session.raw()
    handle = client.opened("/f", R)
    with filesystem.stalled("makedir", "/d"):
        asked = [client.read(handle, at, 2**18) for at in range(0, LARGE, 2**18)]
        made = client.mkdir("/d")
        client.channel.shutdown_write()
        eventually(lambda: session.channels[0].channel.eof_received)
    assert b"".join(reply.data for reply in client.all(asked)) == content
    assert client.wait(made).code == Status.OK
    assert client.channel.recv_exit_status() == 0


def test_who_sends_nothing_more_gets_what_was_not_looked_at_yet(session: Session) -> None:
    """The gateway takes in so many requests at once, and the others when these are answered."""
    filesystem: Any = session.serving.filesystem
    filesystem.writebytes("/f", b"0123456789")
    client = session.raw()
    handle = client.opened("/f", R)
    with filesystem.stalled("pread", "/f"):
        asked = [client.read(handle, number % 10, 1) for number in range(2 * ChannelLimits().in_flight)]
        client.channel.shutdown_write()
        eventually(lambda: session.channels[0].channel.eof_received)
    assert b"".join(reply.data for reply in client.all(asked)) == (b"0123456789" * 100)[: len(asked)]


def test_who_sends_nothing_at_all_is_let_go(session: Session) -> None:
    """Even one that says so before it has asked for SFTP."""
    assert session.client is not None
    channel = session.client.open_session(timeout=DEADLINE_SECONDS)
    channel.shutdown_write()
    paramiko.Channel.invoke_subsystem.__wrapped__(channel, "sftp")  # type: ignore[attr-defined]  # paramiko would refuse to
    channel.settimeout(DEADLINE_SECONDS)
    assert channel.recv(1) == b""
    assert channel.recv_exit_status() == 0


def test_of_a_channel_that_was_closed_nothing_stays(session: Session) -> None:
    for _ in range(3):
        session.raw().channel.close()
    eventually(lambda: not session.server._streams)
    assert not session.server._inlets
    assert all(channel.wait(0) for channel in session.channels)


@pytest.fixture
def packets(monkeypatch: pytest.MonkeyPatch, session: Session) -> list[int]:
    """The sizes of CHANNEL_DATA that the server sends."""
    sizes: list[int] = []
    packetizer = session.server.packetizer
    send = packetizer.send_pieces

    def noted(pieces: Sequence[bytes | memoryview], size: int) -> None:
        if pieces[0][0] == MSG_CHANNEL_DATA:
            sizes.append(size - 9)
        send(pieces, size)

    monkeypatch.setattr(packetizer, "send_pieces", noted)
    return sizes


@pytest.mark.parametrize("window", [2**15, 100_000, 2**21])
def test_no_packet_is_larger_than_its_client_takes(session: Session, packets: list[int], window: int) -> None:
    content = os.urandom(LARGE // 2)
    session.serving.filesystem.writebytes("/f", content)
    assert session.client is not None
    channel = session.client.open_session(window_size=window, max_packet_size=2**15, timeout=DEADLINE_SECONDS)
    channel.invoke_subsystem("sftp")
    client = RawClient(channel).init()
    handle = client.opened("/f", R)
    asked = [client.read(handle, at, 2**17) for at in range(0, len(content), 2**17)]
    served = session.channels[0].channel
    eventually(lambda: sum(packets) >= window - 2**15)  # the client takes nothing out yet, so gives no more room
    assert served.out_window_size >= 0
    assert sum(packets) <= window
    assert b"".join(reply.data for reply in client.all(asked)) == content
    assert max(packets) <= 2**15


class TestLinesForThePerson:
    """What the gateway says beside the answers, where the client shows it."""

    @pytest.fixture
    def session(self, session: Session) -> Session:
        session.server.remote_version = "SSH-2.0-OpenSSH_9.9"
        return session

    def test_nothing_in_them_moves_the_cursor_of_a_terminal(self, session: Session) -> None:
        client = session.raw()
        session.channels[0]._stream.aside("a\x1b[2J\x07\rb\u202ec \xe4\n")
        line = "a\\x1b[2J\\x07\\rb\\u202ec \xe4\\n\n".encode()
        client.channel.settimeout(DEADLINE_SECONDS)
        assert client.channel.recv_stderr(len(line)) == line

    def test_they_wait_for_room(self, session: Session) -> None:
        client = session.raw()
        stream = session.channels[0]._stream
        with stream.channel.lock:
            before, stream.channel.out_window_size = stream.channel.out_window_size, 20
        stream.aside("x" * 100)
        served = threading.Event()
        session.server.call_later(0.05, served.set)  # it was served before that
        assert served.wait(DEADLINE_SECONDS)
        assert not client.channel.recv_stderr_ready()
        with stream.channel.lock:
            stream.channel.out_window_size = before
        stream.wake()
        client.channel.settimeout(DEADLINE_SECONDS)
        assert client.channel.recv_stderr(101) == b"x" * 100 + b"\n"
        assert stream.channel.out_window_size == before - 101

    def test_for_who_does_not_take_them_they_do_not_pile_up(self, session: Session) -> None:
        client = session.raw()
        stream = session.channels[0]._stream
        with stream.channel.lock:
            before, stream.channel.out_window_size = stream.channel.out_window_size, 0
        for number in range(1000):
            stream.aside(f"{number:04}")
        with stream.channel.lock:
            stream.channel.out_window_size = before
        stream.wake()
        client.channel.settimeout(DEADLINE_SECONDS)
        told = b""
        while not told.endswith(b"0999\n"):
            told += client.channel.recv_stderr(1000)
        assert len(told) < 500


def test_a_client_that_makes_no_sense_hears_no_more_and_keeps_nothing(tmp_path: Path) -> None:
    """Whatever was on its way to it is dropped, else it would wait for a client that takes nothing."""
    with AtomicFS() as filesystem:
        filesystem.writebytes("/f", bytes(LARGE))
        serving = Serving(filesystem, tmp_path)
        session = serving.session()
        client = session.raw()
        handle = client.opened("/f", R)
        for at in range(0, LARGE // 2, 2**18):
            client.read(handle, at, 2**18)
        (channel,) = session.channels
        eventually(lambda: not channel.unanswered and channel._stream.pending > 2**19)
        client.channel.sendall(b"\xff" * 8)
        assert channel.wait(5)
        eventually(lambda: not session.server._streams, seconds=5)
        serving.close()


def test_what_waits_for_a_client_to_take_its_replies_ends_with_its_connection(session: Session) -> None:
    filesystem: Any = session.serving.filesystem
    filesystem.writebytes("/f", bytes(2**18))
    client = session.raw()
    handle = client.opened("/f", R)
    for _ in range(100):
        client.read(handle, 0, 2**18)
    (channel,) = session.channels
    eventually(lambda: channel._stream.pending > ChannelLimits().output_bytes and session.serving.workers.load[1] == 0)
    assert channel.unanswered
    session.cut()
    assert not channel.unanswered
