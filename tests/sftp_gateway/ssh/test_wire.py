"""The private parts of paramiko that packetizer.py, wire.py and channel_stream.py use are still what they were."""

from __future__ import annotations

import inspect
import os
import socket
import threading
import time

import paramiko
import pytest
from fs.memoryfs import MemoryFS
from paramiko.packet import Packetizer

from sftp_gateway.sftp.packets import Kind
from sftp_gateway.ssh.channel_stream import ChannelStream
from sftp_gateway.ssh.packetizer import GatewayPacketizer
from sftp_gateway.ssh.wire import GatewayTransport
from tests.sftp_gateway.raw_client import C, R, T, W, s
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import eventually

MIB = 2**20


@pytest.fixture
def filesystem() -> MemoryFS:
    return MemoryFS()


def test_paramiko_still_has_what_is_used() -> None:
    ours, theirs = socket.socketpair()
    packetizer = Packetizer(ours)
    for name in GatewayPacketizer.__annotations__:
        assert hasattr(packetizer, name), f"paramiko {paramiko.__version__}: {name} moved"
    transport = paramiko.Transport(theirs)
    used = (
        "clear_to_send",
        "clear_to_send_lock",
        "lock",
        "_negotiate_keys",
        "initial_kex_done",
        "local_kex_init",
        "remote_kex_init",
    )
    for name in (*GatewayTransport.__annotations__, *used):
        assert hasattr(transport, name), f"paramiko {paramiko.__version__}: Transport.{name} moved"
    channel = paramiko.Channel(1)
    for name in (
        "in_buffer", "lock", "out_window_size", "out_max_packet_size", "in_window_sofar", "remote_chanid",
        "eof_received", "eof_sent", "closed", "_check_add_window", "_feed", "in_window_size",
    ):  # fmt: skip
        assert hasattr(channel, name), f"paramiko {paramiko.__version__}: Channel.{name} moved"
    expected = {"send_message": ["data"], "read_all": ["n", "check_rekey"], "write_all": ["out"], "read_message": []}
    for name, parameters in expected.items():
        found = list(inspect.signature(getattr(Packetizer, name)).parameters)[1:]
        assert found == parameters, f"paramiko {paramiko.__version__}: Packetizer.{name} takes {found}"
    source = inspect.getsource(Packetizer.send_message) + inspect.getsource(paramiko.Channel)
    for fragment in ("self.write_all(out)", "self.in_buffer.feed(s)", "self.in_buffer.close()", "data.asbytes()"):
        assert fragment in source, f"paramiko {paramiko.__version__}: {fragment} is gone"
    packetizer.close()
    theirs.close()


def test_an_idle_session_sleeps(serving: Serving) -> None:
    client = serving.raw()
    assert client.wait(client.stat("/")).kind == Kind.ATTRS
    transport = serving.sessions[0].server
    waits = 0
    wait = transport.packetizer.before_wait

    def counted() -> float:
        nonlocal waits
        waits += 1
        return wait()

    transport.packetizer.before_wait = counted

    def sleeps() -> bool:
        before = waits
        time.sleep(0.5)
        return waits - before <= 2

    eventually(sleeps)  # it may still be at what the client did last


def test_transfers_survive_key_exchanges_from_both_sides(serving: Serving) -> None:
    session = serving.session()
    client = session.raw()
    content = os.urandom(12 * MIB)
    handle = client.opened("/f", W | C | T)
    piece = 65536
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            assert session.client is not None
            session.client.renegotiate_keys()

    exchanging = threading.Thread(target=exchange)
    exchanging.start()
    try:
        written = client.writes(handle, 0, content, piece=piece)
        assert all(reply.ok for reply in client.all([*written, client.close(handle)]))
    finally:
        stop.set()
        exchanging.join(20)
    session.server.packetizer.REKEY_BYTES = MIB
    reader = client.opened("/f", R)
    reads = [client.read(reader, at, piece) for at in range(0, len(content), piece)]
    assert b"".join(reply.data for reply in client.all(reads)) == content


def test_a_client_that_never_reads_is_bounded_and_let_go(serving: Serving) -> None:
    session = serving.session()
    serving.filesystem.writebytes("/f", b"x" * MIB)
    client = session.raw()
    handle = client.opened("/f", R)
    for _ in range(200):
        client.read(handle, 0, 256 * 1024)
    stream = session.channels[0]._stream
    eventually(lambda: stream.pending >= 2 * MIB)
    limit = session.channels[0]._room.limits.output_bytes + 256 * 1024
    assert stream.pending <= limit + 1024
    session.cut()


def test_timers_wake_the_transport(serving: Serving) -> None:
    session = serving.session()
    session.raw()
    rung = threading.Event()
    session.server.call_later(0.05, rung.set)
    assert rung.wait(25)
    assert session.server.packetizer.closed is False


def test_only_our_transport_is_served() -> None:
    channel = paramiko.Channel(1)
    ours, theirs = socket.socketpair()
    transport = paramiko.Transport(ours)
    channel._set_transport(transport)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="GatewayTransport"):
        ChannelStream(channel, on_data=lambda _: None, on_idle=lambda: True, on_end=lambda: None)
    ours.close()
    theirs.close()


def test_the_end_of_input_closes_the_channel_with_exit_status_0(serving: Serving) -> None:
    session = serving.session()
    client = session.raw()
    handle = client.wait(client.path(Kind.OPENDIR, "/")).handle
    asked = client.send(Kind.READDIR, s(handle))
    client.channel.shutdown_write()
    assert client.wait(asked).kind == Kind.NAME
    assert client.channel.recv_exit_status() == 0
    assert session.channels[0].wait(25)
    assert session.raw().version == 3


@pytest.mark.parametrize(("limit", "packet_bytes"), [("PACKETS", 1), ("BYTES", 100)])
def test_new_keys_are_asked_for_in_time_and_who_gives_none_is_let_go(limit: str, packet_bytes: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sending, receiving = GatewayPacketizer(ours), GatewayPacketizer(theirs)
        for packetizer in (sending, receiving):
            setattr(packetizer, f"REKEY_{limit}", 3 * packet_bytes)
            setattr(packetizer, f"REKEY_{limit}_OVERFLOW_MAX", 2 * packet_bytes)
        for packets in range(1, 5):
            sending._count_out(packet_bytes)
            receiving._count_in(packet_bytes)
            assert sending.need_rekey() == receiving.need_rekey() == (packets >= 3)
        sending._count_out(packet_bytes)
        with pytest.raises(paramiko.SSHException, match="does not exchange keys"):
            receiving._count_in(packet_bytes)
