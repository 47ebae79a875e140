"""Requests behind a CLOSE wait for it, others do not; what is open at once is bounded."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from pathlib import Path

from sftp_gateway.files.tree import TreeLimits
from sftp_gateway.requests.room import ChannelLimits
from sftp_gateway.sftp.packets import Kind, Status
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import C, R, RawClient, T, W, a, s
from tests.sftp_gateway.without_doors import Serving, spool_files
from tests.waiting import eventually

# -- order and independence


def test_requests_behind_a_close_wait_for_it(client: RawClient, filesystem: AtomicFS) -> None:
    with filesystem.stalled("commit", "/f"):
        opening = client.open("/f", W | C | T)
        handle = client.wait(opening).handle
        requests = [
            client.write(handle, 0, b"x"),
            client.close(handle),
            client.setstat("/f", atime=1, mtime=1),
            client.stat("/f"),
        ]
        assert not client.is_answered(requests[2], within=0.1)
    written, closed, touched, found = client.all(requests)
    assert written.ok
    assert closed.ok
    assert touched.ok
    assert found.attributes.size == 1
    assert client.order[-4:] == requests


def test_rename_and_remove_behind_a_close(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/f", b"old")
    with filesystem.stalled("commit", "/f.filepart"):
        handle = client.opened("/f.filepart", W | C | T)
        requests = [
            client.write(handle, 0, b"new content"),
            client.close(handle),
            client.remove("/f"),
            client.rename("/f.filepart", "/f"),
            client.setstat("/f", atime=1, mtime=1),
            client.lstat("/f"),
        ]
        assert not client.is_answered(requests[3], within=0.1)
    *statuses, found = client.all(requests)
    assert all(reply.ok for reply in statuses), statuses
    assert found.attributes.size == 11
    assert filesystem.readbytes("/f") == b"new content"
    assert filesystem.listdir("/") == ["f"]


def test_a_stalled_call_on_one_file_delays_nothing_else(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.makedir("/d")
    for name in ("slow", "fast", "d/x"):
        filesystem.writebytes(f"/{name}", b"0123456789")
    slow, fast = client.opened("/slow", R), client.opened("/fast", R)
    upload = client.opened("/upload", W | C | T)
    with filesystem.stalled("pread", "/slow"), filesystem.stalled("commit", "/upload"):
        stuck = [client.read(slow, number % 10, 1) for number in range(64)]
        stuck.append(client.close(upload))
        began = time.monotonic()
        assert client.wait(client.read(fast, 0, 5)).data == b"01234"
        assert client.wait(client.lstat("/fast")).attributes.size == 10
        assert set(client.list("/d")) == {".", "..", "x"}
        client.put("/d/y", b"y")
        assert client.wait(client.rename("/d/y", "/d/z")).ok
        assert time.monotonic() - began < 10
        assert not any(request in client.replies for request in stuck)
    assert [reply.data for reply in client.all(stuck[:-1])] == [b"%d" % (number % 10) for number in range(64)]
    assert [i for i in client.order if i in stuck[:-1]] == stuck[:-1]
    assert client.wait(stuck[-1]).ok


def test_a_stalled_session_does_not_delay_another(serving: Serving, filesystem: AtomicFS) -> None:
    for number in range(100):
        filesystem.writebytes(f"/f{number}", b"x")
    one, other = serving.raw(), serving.raw()
    handles = [one.opened(f"/f{number}", R) for number in range(100)]
    with filesystem.stalled("pread", "/f0"), filesystem.stalled("pread", "/f1"):
        for handle in handles[:2]:
            for _ in range(50):
                one.read(handle, 0, 1)
        assert other.wait(other.lstat("/f5")).attributes.size == 1
        assert other.get("/f7") == b"x"


def test_a_session_that_hangs_takes_no_thread_from_another(serving: Serving, filesystem: AtomicFS) -> None:
    """The first request of a session gets a thread, however many others wait for one."""
    serving.workers.limit = 2
    for number in range(8):
        filesystem.writebytes(f"/f{number}", b"x")
    one, other = serving.raw(), serving.raw()
    handles = [one.opened(f"/f{number}", R) for number in range(8)]
    with contextlib.ExitStack() as stalled:
        for number in range(8):
            stalled.enter_context(filesystem.stalled("pread", f"/f{number}"))
        reads = [one.read(handle, 0, 1) for handle in handles]
        eventually(lambda: serving.workers.load[2], "nothing waits for a thread")
        assert other.wait(other.lstat("/f5")).attributes.size == 1
    assert all(reply.data == b"x" for reply in one.all(reads))


def test_one_channel_has_so_many_requests_at_work(filesystem: AtomicFS, tmp_path: Path) -> None:
    serving = Serving(filesystem, tmp_path, channel_limits=ChannelLimits(running=3))
    for number in range(8):
        filesystem.writebytes(f"/f{number}", b"x")
    client = serving.raw()
    handles = [client.opened(f"/f{number}", R) for number in range(8)]
    eventually(lambda: serving.workers.load[1] == 0)  # a thread is at work for a moment longer than its request
    with contextlib.ExitStack() as stalled:
        for number in range(8):
            stalled.enter_context(filesystem.stalled("pread", f"/f{number}"))
        reads = [client.read(handle, 0, 1) for handle in handles]
        eventually(lambda: serving.sessions[0].channels[0].unanswered == 8)
        eventually(lambda: serving.workers.load[2] == 0, "work waits for threads")  # each has taken what it is for
        assert serving.workers.load[1] == 3
    assert all(reply.data == b"x" for reply in client.all(reads))
    serving.close()


def test_reads_of_one_handle_are_answered_in_order(filesystem: AtomicFS, client: RawClient) -> None:
    filesystem.writebytes("/f", bytes(range(100)))
    handle = client.opened("/f", R)
    door = filesystem._shut["pread", "/f"] = threading.Event()
    first = client.read(handle, 50, 1)
    eventually(lambda: filesystem.calls.count(("pread", "/f")) == 1)
    del filesystem._shut["pread", "/f"]  # for the next
    second = client.read(handle, 0, 1)
    eventually(lambda: filesystem.calls.count(("pread", "/f")) == 2)
    early = client.is_answered(second, within=0.2)
    door.set()
    assert not early
    assert [reply.data for reply in client.all([first, second])] == [b"\x32", b"\0"]


def test_a_close_waits_for_what_is_copied_into_its_file(filesystem: AtomicFS, client: RawClient) -> None:
    filesystem.writebytes("/source", b"x" * 1000)
    source, target = client.opened("/source", R), client.opened("/target", W | C)
    with filesystem.stalled("pread", "/source"), filesystem.stalled("copy", "/source"):
        whole = struct.pack(">QQ", 1, 0)
        copied = client.extended("copy-data", s(source), whole, s(target), struct.pack(">Q", 0))
        closed = client.close(target)
        assert not client.is_answered(closed, within=0.2)
    assert [reply.code for reply in client.all([copied, closed])] == [Status.OK, Status.OK]
    assert filesystem.readbytes("/target") == b"x" * 999


def test_a_client_that_sends_too_much_is_not_read_any_more(filesystem: AtomicFS, tmp_path: Path) -> None:
    serving = Serving(filesystem, tmp_path, channel_limits=ChannelLimits(in_flight=16))
    filesystem.writebytes("/f", b"x" * 100)
    client = serving.raw()
    handle = client.opened("/f", R)
    with filesystem.stalled("pread", "/f"):
        requests = [client.read(handle, 0, 10) for _ in range(200)]
        channel = serving.sessions[0].channels[0]
        eventually(lambda: channel.unanswered == 16, "never: requests are taken in up to the limit")
        assert channel.unanswered == 16
    assert all(reply.data == b"x" * 10 for reply in client.all(requests))
    serving.close()


def test_little_is_kept_of_what_waits_behind_a_request(filesystem: AtomicFS, tmp_path: Path) -> None:
    """Large WRITEs by the hundred were kept as long as one READ of their file took."""
    limit = 100_000
    serving = Serving(filesystem, tmp_path, channel_limits=ChannelLimits(input_bytes=limit))
    filesystem.writebytes("/f", b"x" * 100)
    client = serving.raw()
    handle = client.opened("/f", R | W)
    piece = b"y" * 30_000
    with filesystem.stalled("pread", "/f"):
        read = client.read(handle, 0, 10)
        requests = [client.write(handle, 100 + len(piece) * number, piece) for number in range(30)]
        channel = serving.sessions[0].channels[0]
        eventually(lambda: channel._tasks.unanswered_bytes > limit, "never: they are taken in up to the limit")
        assert not client.is_answered(read, within=0.2)
        assert channel._tasks.unanswered_bytes <= limit + len(piece) + 100
    assert client.wait(read).data == b"x" * 10
    assert all(reply.ok for reply in client.all([*requests, client.close(handle)]))
    assert filesystem.readbytes("/f") == b"x" * 100 + piece * 30
    assert not channel._tasks.unanswered_bytes
    serving.close()


# -- bounds


def test_the_quota_fails_one_write_only(filesystem: AtomicFS, tmp_path: Path) -> None:
    serving = Serving(filesystem, tmp_path, limits=TreeLimits(spool_quota=1000))
    client = serving.raw()
    handle = client.opened("/f", W | C | T)
    assert client.wait(client.write(handle, 0, b"x" * 900)).ok
    reply = client.wait(client.write(handle, 900, b"y" * 200))
    assert reply.code == Status.FAILURE
    assert "used up" in reply.text
    other = client.opened("/g", W | C | T)
    assert client.wait(client.write(other, 0, b"y" * 100)).ok
    assert client.wait(client.open("/h", W | C, a(size=2000))).code == Status.FAILURE
    assert "used up" in client.wait(client.close(handle)).text
    assert client.wait(client.close(other)).ok
    assert filesystem.readbytes("/g") == b"y" * 100
    assert not filesystem.exists("/f")
    assert serving.tree.store.quota.used == 0
    serving.close()


def test_handles_are_bounded(filesystem: AtomicFS, tmp_path: Path) -> None:
    serving = Serving(filesystem, tmp_path, channel_limits=ChannelLimits(handles=5))
    filesystem.writebytes("/f", b"x")
    client = serving.raw()
    handles = [client.opened("/f", R) for _ in range(5)]
    assert "5 handles" in client.wait(client.open("/f", R)).text
    assert client.wait(client.path(Kind.OPENDIR, "/")).code == Status.FAILURE
    assert client.wait(client.close(handles[0])).ok
    client.opened("/f", R)
    serving.close()


def test_fsync_of_an_upload_is_no_commit(client: RawClient, filesystem: AtomicFS, serving: Serving) -> None:
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"abc"))
    assert client.wait(client.extended("fsync@openssh.com", s(handle))).ok
    assert [path.read_bytes() for path in spool_files(serving)] == [b"abc"]
    assert filesystem.commits == []
    assert client.wait(client.close(handle)).ok


def test_sizes_that_nobody_could_send_are_refused(tmp_path: Path) -> None:
    """A SETSTAT of a size, or one byte far away, would be days of zeros for the storage."""
    storage = AtomicFS()
    storage.writebytes("/old", b"x" * 1000)
    serving = Serving(storage, tmp_path, limits=TreeLimits(spool_quota=10**6))
    client = serving.raw()
    refusal = "the gateway's space for unfinished uploads would be used up"
    reply = client.wait(client.setstat("/old", size=2**40))
    assert (reply.code, reply.text) == (4, f"/old: {refusal}")
    for offset in (2**40, 2**64 - 1):
        far = client.opened("/far", W | C)
        assert client.wait(client.write(far, offset, b"x")).code == 4
        assert client.wait(client.close(far)).code == 4  # what was not stored is not committed
    handle = client.opened("/new", W | C)
    assert client.wait(client.fsetstat(handle, size=10**6 + 1)).code == 4
    assert client.wait(client.fsetstat(handle, size=10**6)).ok
    assert client.wait(client.close(handle)).ok
    assert storage.getsize("/new") == 10**6
    assert client.wait(client.setstat("/old", size=1000 + 10**6)).ok  # what was there costs nothing
    assert storage.getsize("/old") == 1000 + 10**6
    serving.close()
