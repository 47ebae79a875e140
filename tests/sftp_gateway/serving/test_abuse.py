"""Clients that ask for too much, take nothing, or break the rules: memory stays bounded, and others do not notice."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import paramiko
import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS
from paramiko.message import Message

from sftp_gateway import SFTPGateway
from sftp_gateway.requests.ordering import READS_AT_ONCE
from sftp_gateway.requests.room import LEAST_WINDOW_BYTES, ChannelLimits, Room
from sftp_gateway.sftp.packets import MAX_PACKET, Kind, OpenFlag
from sftp_gateway.ssh import packetizer
from sftp_gateway.ssh.transport import FIRST_WINDOW_BYTES
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.conftest import PASSWORD, Connect, StartGateway
from tests.sftp_gateway.connections import wait_for_no_connection
from tests.sftp_gateway.raw_client import R, RawClient, s
from tests.sftp_gateway.without_doors import Serving, Session
from tests.waiting import eventually

MIB = 2**20
LIMITS = ChannelLimits()


@pytest.fixture(params=[MemoryFS, AtomicFS], ids=["local", "network"])
def filesystem(request: pytest.FixtureRequest) -> FS:
    make: Callable[[], FS] = request.param
    return make()


def steady(value: Callable[[], int]) -> int:
    """Return a value once it has stood still for a while."""
    deadline = time.monotonic() + 60
    last, since = value(), time.monotonic()
    while time.monotonic() - since < 0.3:
        now = value()
        if now != last:
            last, since = now, time.monotonic()
        assert time.monotonic() < deadline, f"it goes on to change: {last}"
        time.sleep(0.02)
    return last


class Deaf:
    """A client that sends requests and takes no reply; its window is small, so that these stay with the server."""

    def __init__(self, serving: Serving) -> None:
        self.session: Session = serving.session()
        assert self.session.client is not None
        self.channel = self.session.client.open_session(timeout=30, window_size=64 * 1024)
        self.channel.invoke_subsystem("sftp")
        self.client = RawClient(self.channel).init()

    def ask(self, packets: list[bytes]) -> threading.Thread:
        """Send requests for as long as the server takes them."""

        def send() -> None:
            with contextlib.suppress(OSError, EOFError):
                for packet in packets:
                    self.client.send_packet(packet)

        thread = threading.Thread(target=send)
        thread.start()
        return thread

    @property
    def waiting(self) -> int:
        """Bytes of replies that the server keeps."""
        return self.session.channels[0]._stream.pending


def request(kind: int, number: int, *fields: bytes) -> bytes:
    return bytes([kind]) + struct.pack(">I", number) + b"".join(fields)


def others_work(serving: Serving) -> None:
    started = time.monotonic()
    other = serving.raw()
    other.put("/other", b"x" * 100_000)
    assert other.get("/other") == b"x" * 100_000
    assert time.monotonic() - started < 20


def test_a_client_that_never_reads_gets_little_kept_for_it(serving: Serving) -> None:
    content = bytes(range(256)) * 4096 * 40
    serving.raw().put("/big", content)
    deaf = Deaf(serving)
    handle = deaf.client.opened("/big", R)
    size = 256 * 1024
    asked = len(content) // size
    packets = [request(Kind.READ, 100 + i, s(handle), struct.pack(">QI", i * size, size)) for i in range(asked)]
    thread = deaf.ask(packets * 4)  # four times the file
    eventually(lambda: deaf.waiting + 64 * 1024 > LIMITS.output_bytes)
    kept = steady(lambda: deaf.waiting)
    assert kept < LIMITS.output_bytes + 2 * size  # a reply more, and what is ahead of each
    others_work(serving)
    received = 0
    for number in range(asked):  # it reads after all, and misses nothing
        data = deaf.client.wait(100 + number).data
        assert data == content[number * size : (number + 1) * size]
        received += len(data)
        del deaf.client.replies[100 + number]
    assert received == len(content)
    deaf.session.cut()
    thread.join(20)


def test_a_large_listing_for_a_client_that_does_not_read(tmp_path: Path) -> None:
    storage = MemoryFS()
    storage.makedir("/d")
    storage.create("/f")
    directory, file = storage._get_dir_entry("/d"), storage._get_dir_entry("/f")
    assert directory is not None
    assert file is not None
    for number in range(100_000):
        directory.set_entry(f"a file with some name {number:06}", file)
    serving = Serving(storage, tmp_path / "spool")
    deaf = Deaf(serving)
    reply = deaf.client.wait(deaf.client.path(Kind.OPENDIR, "/d"))
    thread = deaf.ask([request(Kind.READDIR, 100 + i, s(reply.handle)) for i in range(200)])
    assert steady(lambda: deaf.waiting) < LIMITS.output_bytes + 2 * MIB
    others_work(serving)
    names = 0
    for number in range(200):
        batch = deaf.client.wait(100 + number)
        if batch.kind == Kind.STATUS:
            assert batch.code == 1
            break
        names += len(batch.names)
    assert names == 100_002
    deaf.session.cut()
    thread.join(20)
    serving.close()


def test_channels_share_what_may_be_kept_for_clients_that_never_read(tmp_path: Path) -> None:
    """A hundred clients that took replies slowly could have a gigabyte kept for them, a hostile user thirty."""
    size, total, count = 256 * 1024, 4 * MIB, 12
    filesystem = AtomicFS()
    filesystem.writebytes("/big", bytes(16 * MIB))
    serving = Serving(filesystem, tmp_path, room=Room(total=total))
    deaf = [Deaf(serving) for _ in range(count)]
    threads = []
    for each in deaf:
        handle = s(each.client.opened("/big", R))
        threads.append(each.ask([request(Kind.READ, 100 + i, handle, struct.pack(">QI", 0, size)) for i in range(64)]))
    eventually(lambda: all(each.waiting + 64 * 1024 > total // count for each in deaf))
    assert steady(lambda: sum(each.waiting for each in deaf)) < total + count * (READS_AT_ONCE + 1) * size
    for each in deaf:  # they read after all
        assert all(len(reply.data) == size for reply in each.client.all(list(range(100, 164))))
    for thread in threads:
        thread.join(20)
    serving.close()


def test_only_sftp_gets_a_window_and_many_channels_get_smaller_ones(serving: Serving) -> None:
    session = serving.session()
    assert session.client is not None
    channel = session.client.open_session(timeout=30)
    assert channel.out_window_size == FIRST_WINDOW_BYTES
    channel.invoke_subsystem("sftp")
    eventually(lambda: channel.out_window_size == LIMITS.window_bytes)
    for _ in range(999):
        serving.room.enter("")
    later = session.raw().channel
    assert later.out_window_size > LEAST_WINDOW_BYTES - 1000
    assert session.channels[1].channel.in_window_size == LEAST_WINDOW_BYTES
    for _ in range(999):
        serving.room.leave("")
    session.raw()
    assert session.channels[2].channel.in_window_size == LIMITS.window_bytes


def test_more_handles_than_anybody_needs(serving: Serving) -> None:
    serving.raw().put("/file", b"content")
    session = serving.session()
    client = session.raw()
    replies = []
    for _ in range(3):
        replies += client.all([client.open("/file", OpenFlag.READ) for _ in range(1000)])
    handles = [reply.handle for reply in replies if reply.kind == Kind.HANDLE]
    assert len(handles) == LIMITS.handles
    refused = [reply for reply in replies if reply.kind == Kind.STATUS]
    assert {reply.code for reply in refused} == {4}
    assert refused[0].text == "/file: more than 1024 handles are open"
    assert client.wait(client.read(handles[-1], 0, 100)).data == b"content"
    others_work(serving)
    assert client.wait(client.close(handles[0])).ok
    assert client.wait(client.open("/file", OpenFlag.READ)).kind == Kind.HANDLE
    session.cut()
    assert not session.channels[0]._handles


def test_a_flood_of_requests_without_a_pause(serving: Serving) -> None:
    deaf = Deaf(serving)
    thread = deaf.ask([request(Kind.STAT, number, s("/nothing")) for number in range(100, 10_100)])
    steady(lambda: deaf.waiting)
    channel = deaf.session.channels[0]
    assert channel.unanswered <= LIMITS.in_flight
    assert len(channel._buffer) < LIMITS.window_bytes + MIB
    others_work(serving)
    for number in range(100, 10_100):
        assert deaf.client.wait(number).code == 2
    thread.join(20)


def test_a_packet_that_is_too_long_ends_its_channel_alone(serving: Serving) -> None:
    session = serving.session()
    client, neighbour = session.raw(), session.raw()
    client.channel.sendall(struct.pack(">I", MAX_PACKET + 1) + b"\x06" + bytes(1000))
    assert client.channel.recv(100) == b""
    assert neighbour.wait(neighbour.stat("/")).kind == Kind.ATTRS
    others_work(serving)


# Through the gateway's doors.


def channel_data(channel: paramiko.Channel, data: bytes, kind: int = 94) -> Message:
    message = Message()
    message.add_byte(bytes([kind]))
    message.add_int(channel.remote_chanid)
    if kind == 95:
        message.add_int(1)
    message.add_string(data)
    return message


def good_client(gateway: SFTPGateway, connect: Connect) -> None:
    client = paramiko.SFTPClient.from_transport(connect(gateway, "ann", PASSWORD))
    assert client is not None
    with client.open("/good", "wb") as file:
        file.write(b"x" * 1000)
    assert client.stat("/good").st_size == 1000


@pytest.mark.parametrize("subsystem", [True, False])
def test_more_than_the_window_allows_ends_the_connection(
    start_gateway: StartGateway, connect: Connect, subsystem: bool
) -> None:
    gateway = start_gateway()
    transport = connect(gateway, "ann", PASSWORD)
    channel = transport.open_session(timeout=30, window_size=32_768)
    piece = bytes(32_000)
    if subsystem:
        channel.invoke_subsystem("sftp")
        body = struct.pack(">BI", Kind.REALPATH, 1) + s(b"/" + b"x" * 1000)
        piece = 30 * (struct.pack(">I", len(body)) + body)  # the answers are never read: soon no more is taken in
    sent = 0
    with contextlib.suppress(EOFError, OSError, paramiko.SSHException):
        while transport.is_active() and sent < 20 * LIMITS.window_bytes:
            transport._send_message(channel_data(channel, piece))  # type: ignore[attr-defined]
            sent += len(piece)
    transport.join(20)
    assert not transport.is_active()
    wait_for_no_connection(gateway)
    good_client(gateway, connect)


def test_what_is_sent_to_stderr_is_not_kept(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway()
    transport = connect(gateway, "ann", PASSWORD)
    channel = transport.open_session(timeout=30)
    channel.invoke_subsystem("sftp")
    for _ in range(300):
        transport._send_message(channel_data(channel, bytes(32_000), kind=95))  # type: ignore[attr-defined]
    client = RawClient(channel).init()
    assert client.wait(client.stat("/")).kind == Kind.ATTRS
    (served,) = gateway._connections.values()
    assert all(len(known.in_stderr_buffer) == 0 for known in served.server_accepts)


@pytest.mark.parametrize("window", [0, 1, 100, 2**32 - 1])
@pytest.mark.parametrize("packet", [0, 1, 2**32 - 1])
def test_odd_windows(start_gateway: StartGateway, connect: Connect, window: int, packet: int) -> None:
    gateway = start_gateway()
    transport = connect(gateway, "ann", PASSWORD)
    transport._sanitize_window_size = lambda size: size  # type: ignore[attr-defined]
    transport._sanitize_packet_size = lambda size: size  # type: ignore[attr-defined]
    with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
        channel = transport.open_channel("session", window_size=window, max_packet_size=packet, timeout=30)
        channel.invoke_subsystem("sftp")
        for _ in range(5):
            message = Message()
            message.add_byte(b"\x5d")  # SSH_MSG_CHANNEL_WINDOW_ADJUST
            message.add_int(channel.remote_chanid)
            message.add_int(2**32 - 1)
            transport._send_message(message)  # type: ignore[attr-defined]
        channel.sendall(struct.pack(">IBI", 5, 1, 3))
        assert channel.recv(4)
    transport.close()
    good_client(gateway, connect)


def test_clients_that_drip_take_nothing_from_others(start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway(login_seconds=6.0)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(gateway.address, timeout=20)) for _ in range(60)]
        for number, sock in enumerate(slow):
            sock.sendall((b"SSH-2.0-slow\r\n" + b"\0\0\x01\x00\x04\x14")[: number % 20])
        started = time.monotonic()
        good_client(gateway, connect)
        assert time.monotonic() - started < 6
        for sock in slow:
            with contextlib.suppress(OSError):
                while sock.recv(65536):
                    pass
    eventually(lambda: gateway.connections <= 1, "they stay")


def test_a_client_that_pauses_goes_on_and_one_that_is_gone_is_let_go(
    start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a suspended laptop or Ctrl-Z does; in minutes there, in seconds here."""
    assert packetizer.STALL_SECONDS >= 600
    monkeypatch.setattr(packetizer, "STALL_SECONDS", 4.0)
    gateway = start_gateway()
    transport = connect(gateway, "ann", PASSWORD)
    pause = threading.Event()
    pause.set()
    original = transport.packetizer.read_message
    transport.packetizer.read_message = lambda: (pause.wait(30), original())[1]
    channel = transport.open_session(timeout=30, window_size=2**30)  # only the socket holds the server up
    channel.invoke_subsystem("sftp")
    client = RawClient(channel).init()
    transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # type: ignore[union-attr]
    size = 8 * MIB
    client.put("/big", bytes(size), piece=200_000)
    handle = client.opened("/big", R)
    pause.clear()
    ids = [client.read(handle, offset, 256 * 1024) for offset in range(0, size, 256 * 1024)]
    time.sleep(1.5)
    pause.set()
    assert sum(len(client.wait(number).data) for number in ids) == size
    pause.clear()
    for offset in range(0, size, 256 * 1024):
        client.read(handle, offset, 256 * 1024)
    wait_for_no_connection(gateway)
    pause.set()
