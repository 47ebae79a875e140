"""Bytes in, replies out: however the client's bytes are cut, and while others of a handle are held back."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fs.errors import OperationFailed
from fs.memoryfs import MemoryFS

from sftp_gateway.files.directory_handle import DirectoryHandle
from sftp_gateway.requests.room import ChannelLimits, Room
from sftp_gateway.sftp.attributes import file_attributes
from sftp_gateway.sftp.packets import Attributes, Kind, Status
from sftp_gateway.sftp.status import EndOfDataError
from sftp_gateway.ssh.channel_stream import ChannelStream
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import C, R, RawClient, W, s
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import eventually


@pytest.fixture
def client(tmp_path: Path) -> Iterator[RawClient]:
    with MemoryFS() as filesystem:
        serving = Serving(filesystem, tmp_path)
        yield serving.raw()
        serving.close()


@pytest.mark.parametrize("size", [3, 29, 1000, 30_000])
def test_requests_come_in_pieces_of_any_size(client: RawClient, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Complete packets are taken in where they came, the others are put together first."""
    content = bytes(range(256)) * 2
    sent: list[bytes] = []
    handle = client.opened("/f", R | W | C)
    with monkeypatch.context() as patch:
        patch.setattr(client, "send_packet", lambda body: sent.append(struct.pack(">I", len(body)) + body))
        numbers = [client.path(Kind.MKDIR, "/ä"), client.path(Kind.STAT, "/ä"), client.path(Kind.STAT, "/none")]
        numbers += [client.write(handle, 512 * number, content) for number in range(8)]
        numbers += [client.read(handle, 512 * number, 512) for number in range(9)]
        numbers += [client.fstat(handle), client.path(Kind.REALPATH, "/ä/../f"), client.close(handle)]
        numbers += [client.send(Kind.READDIR, s(handle)), client.lstat("/f")]
    stream = b"".join(sent)
    for start in range(0, len(stream), size):
        client.channel.sendall(stream[start : start + size])
    replies = client.all(numbers)
    assert [replies[0].code, replies[1].kind, replies[2].code] == [Status.OK, Kind.ATTRS, Status.NO_SUCH_FILE]
    assert [reply.code for reply in replies[3:11]] == [Status.OK] * 8
    assert [reply.data for reply in replies[11:19]] == [content] * 8
    assert (replies[19].code, replies[19].text) == (Status.EOF, "end of file")
    assert replies[20].attributes.size == 4096
    assert [name for name, _, _ in replies[21].names] == ["/f"]
    assert [replies[22].code, replies[23].code] == [Status.OK, Status.FAILURE]
    assert replies[24].attributes.size == 4096


def test_a_write_that_claims_more_than_it_carries_writes_nothing(client: RawClient) -> None:
    """Least of all what follows it."""
    handle = client.opened("/f", R | W | C)
    claimed = client.send(Kind.WRITE, s(handle), struct.pack(">QI", 0, 1000), b"short")
    assert client.wait(claimed).code == Status.BAD_MESSAGE
    assert client.wait(client.fstat(handle)).attributes.size == 0


class Slow(AtomicFS):
    """Says how full it is when its door is open, which is asked before the version is told."""

    def __init__(self) -> None:
        super().__init__()
        self.door = threading.Event()

    def getmeta(self, namespace: str = "standard") -> Any:
        assert namespace == "standard" or self.door.wait(20)
        return super().getmeta(namespace)


def test_the_version_comes_before_the_answers_to_what_was_sent_along(tmp_path: Path) -> None:
    with Slow() as storage:
        serving = Serving(storage, tmp_path)
        client = serving.session().bare()
        client.send_packet(bytes([Kind.INIT]) + struct.pack(">I", 3))
        requests = [client.path(Kind.REALPATH, "."), client.extended("limits@openssh.com"), client.stat("/")]
        assert not client.is_answered(requests[0], within=0.1)
        storage.door.set()
        assert client._packet()[0] == Kind.VERSION
        assert [reply.kind for reply in client.all(requests)] == [Kind.NAME, Kind.EXTENDED_REPLY, Kind.ATTRS]
        serving.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of a listing are as long as they may be, however slow the machine is."""
    monkeypatch.setattr("sftp_gateway.files.directory_handle.BATCH_SECONDS", 1e9)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("ahead", [True, False])
def test_a_listing_that_breaks_tells_so_after_what_came_before(ahead: bool) -> None:
    def entries() -> Iterator[tuple[str, Attributes]]:
        for number in range(1500):
            yield f"{number:04}", file_attributes(number, 0)
        raise OperationFailed("/d")

    handle = DirectoryHandle("/d", entries())
    assert len(handle.next_batch()) == 1000
    if ahead:
        handle.look_ahead()
    for _ in range(2):
        with pytest.raises(OperationFailed):
            handle.next_batch()


@pytest.mark.usefixtures("patient")
def test_what_was_looked_up_ahead_is_given_once() -> None:
    handle = DirectoryHandle("/d", iter([(f"{number:04}", file_attributes(number, 0)) for number in range(2500)]))
    given = []
    for _ in range(3):
        handle.look_ahead()
        handle.look_ahead()
        given += handle.next_batch()
    assert [entry[4 : 4 + entry[3]] for entry in given] == [b".", b"..", *(b"%04d" % number for number in range(2500))]
    handle.look_ahead()
    with pytest.raises(EndOfDataError):
        handle.next_batch()


@pytest.mark.parametrize("leave", ["close", "cut"])
def test_nothing_is_read_for_a_client_that_has_left(tmp_path: Path, leave: str) -> None:
    """Only what was sent and changes something is still carried out."""
    with AtomicFS() as filesystem:
        filesystem.writebytes("/f", bytes(1000))
        serving = Serving(filesystem, tmp_path)
        session = serving.session()
        client = session.raw()
        handle = client.opened("/f", R)
        with filesystem.stalled("pread", "/f"):
            for number in range(600):
                client.read(handle, number % 900, 10 + number % 90)
            client.path(Kind.MKDIR, "/made")
            channel = session.channels[0]
            eventually(lambda: channel.unanswered == ChannelLimits().in_flight, "the requests did not arrive")
            if leave == "close":
                client.channel.close()
            else:
                assert session.socket is not None
                session.socket.shutdown(socket.SHUT_RDWR)
            eventually(lambda: channel.channel.closed, "it was not noticed")
        assert channel.wait(20)
        assert len(filesystem.happened("pread")) <= ChannelLimits().running
        assert filesystem.isdir("/made")
        serving.close()


def test_a_client_that_only_sends_nothing_more_is_answered(client: RawClient) -> None:
    client.put("/f", b"0123456789")
    handle = client.opened("/f", R)
    numbers = [client.read(handle, number, 1) for number in range(10)]
    client.channel.shutdown_write()
    assert b"".join(reply.data for reply in client.all(numbers)) == b"0123456789"


def test_a_slow_file_keeps_no_room_from_others(tmp_path: Path) -> None:
    with AtomicFS() as filesystem:
        for path in ("/slow", "/quick"):
            filesystem.writebytes(path, bytes(100_000))
        serving = Serving(filesystem, tmp_path, room=Room(total=10_000))
        client = serving.raw()
        slow, quick = (client.opened(path, R) for path in ("/slow", "/quick"))
        with filesystem.stalled("pread", "/slow"):
            held_up = [client.read(slow, number * 9000, 9000) for number in reversed(range(10))]
            for number in range(10):
                assert len(client.wait(client.read(quick, number * 7000, 7000)).data) == 7000
        assert all(len(reply.data) == 9000 for reply in client.all(held_up))
        serving.close()


def test_the_end_waits_until_the_last_answer_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a client would hear nothing of what was done for it, an upload or a rename."""
    may_send = threading.Event()
    may_send.set()
    flush = ChannelStream._flush
    monkeypatch.setattr(ChannelStream, "_flush", lambda self: may_send.wait(60) and flush(self))
    with AtomicFS() as filesystem:
        serving = Serving(filesystem, tmp_path)
        session = serving.session()
        client = session.raw()
        (channel,) = session.channels
        with filesystem.stalled("makedir", "/d"):
            made = client.path(Kind.MKDIR, "/d")
            eventually(lambda: ("makedir", "/d") in filesystem.calls)
            may_send.clear()
        eventually(lambda: not channel.unanswered)
        assert channel.is_busy
        stopping = threading.Thread(target=channel.stop, args=(60,))
        stopping.start()
        assert channel.wait(60)
        stopping.join(0.5)
        assert stopping.is_alive()
        may_send.set()
        assert client.wait(made).code == Status.OK
        stopping.join(60)
        serving.close()


def test_what_has_not_begun_in_time_is_refused(tmp_path: Path) -> None:
    with AtomicFS() as filesystem:
        serving = Serving(filesystem, tmp_path, channel_limits=ChannelLimits(running=1))
        session = serving.session()
        client = session.raw()
        (channel,) = session.channels
        with filesystem.stalled("makedir", "/begun"):
            for path in ("/begun", "/not begun"):
                client.path(Kind.MKDIR, path)
            eventually(lambda: channel.unanswered == 2 and ("makedir", "/begun") in filesystem.calls)
            assert not channel.stop(0)
        assert channel.wait(60)
        assert filesystem.listdir("/") == ["begun"]
        serving.close()


def test_who_has_left_is_not_cut_short(tmp_path: Path) -> None:
    """A CLOSE that was sent is carried out although it had not begun when the session ended."""
    with AtomicFS() as filesystem:
        serving = Serving(filesystem, tmp_path, channel_limits=ChannelLimits(running=1))
        session = serving.session()
        client = session.raw()
        handle = client.opened("/f", W | C)
        assert client.wait(client.write(handle, 0, b"content")).code == Status.OK
        (channel,) = session.channels
        with filesystem.stalled("makedir", "/d"):
            client.path(Kind.MKDIR, "/d")
            client.close(handle)
            eventually(lambda: channel.unanswered == 2)
            assert session.socket is not None
            session.socket.shutdown(socket.SHUT_RDWR)
            session.server.join(60)
            channel.stop()
        assert channel.wait(60)
        assert filesystem.readbytes("/f") == b"content"
        serving.close()
