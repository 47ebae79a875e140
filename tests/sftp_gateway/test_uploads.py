"""Uploads over a filesystem with atomic writes: what is visible when, what is stored, what is moved, what is kept."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fs import errors
from fs.memoryfs import MemoryFS

from sftp_gateway.files import forwarding, notes
from sftp_gateway.files.tree import TreeLimits
from sftp_gateway.requests.channel import ChannelLimits
from sftp_gateway.sftp.packets import Kind, Status
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import A, C, R, RawClient, T, W, X, a, s
from tests.sftp_gateway.serving import Serving
from tests.waiting import eventually

MIB = 2**20


def spool_files(serving: Serving) -> list[Path]:
    folder = serving.tree.store.drafts._spool_directory
    return sorted(folder.glob("*.spool")) if folder.exists() else []


# -- commit


def test_close_is_the_commit(client: RawClient, filesystem: AtomicFS) -> None:
    handle = client.opened("/f", W | C | T)
    assert client.wait(client.write(handle, 0, b"new")).ok
    assert not MemoryFS.exists(filesystem, "/f")
    with filesystem.stalled("commit", "/f"):
        closing = client.close(handle)
        assert not client.is_answered(closing, within=0.1)
    assert client.wait(closing).ok
    assert filesystem.readbytes("/f") == b"new"


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        (errors.InsufficientStorage("/f"), Status.FAILURE, "quota exceeded"),
        (errors.PermissionDenied("/f"), Status.PERMISSION_DENIED, "permission denied"),
        (errors.RemoteConnectionError(msg="gone"), Status.FAILURE, "the storage cannot be reached"),
        (errors.ResourceError("/f", msg="no"), Status.FAILURE, "no"),
        (RuntimeError("secret token 123"), Status.FAILURE, "internal error (RuntimeError)"),
    ],
)
def test_a_commit_that_fails_says_why(
    client: RawClient, filesystem: AtomicFS, fault: Exception, code: int, text: str
) -> None:
    filesystem.writebytes("/f", b"old")
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"new"))
    filesystem.faults["commit"] = fault
    reply = client.wait(client.close(handle))
    assert (reply.code, reply.text) == (code, f"/f: {text}")
    assert client.wait(client.close(handle)).code == Status.FAILURE, "the handle is gone"
    assert filesystem.readbytes("/f") == b"old"
    assert client.wait(client.stat("/f")).attributes.size == 3


def test_the_reason_of_an_error_is_passed_on(client: RawClient, filesystem: AtomicFS) -> None:
    fault = errors.InvalidPath("/f", msg="a long explanation")
    fault.reason = "the name is not allowed by Dropbox"  # type: ignore[attr-defined]
    filesystem.faults["commit"] = fault
    handle = client.opened("/f", W | C)
    assert client.wait(client.close(handle)).text == "/f: the name is not allowed by Dropbox"


def test_remove_after_a_failed_upload_is_no_error(client: RawClient, filesystem: AtomicFS) -> None:
    handle = client.opened("/f", W | C)
    filesystem.faults["commit"] = errors.InsufficientStorage("/f")
    assert client.wait(client.close(handle)).code == Status.FAILURE
    filesystem.faults.clear()
    assert client.wait(client.remove("/f")).ok
    assert client.wait(client.remove("/f")).code == Status.NO_SUCH_FILE


def test_names_are_refused_before_a_byte_is_sent(
    client: RawClient, filesystem: AtomicFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> str:
        if "bad" in path:
            raise errors.InvalidPath(path, msg="not allowed")
        return path

    monkeypatch.setattr(filesystem, "validatepath", refuse)
    for request in (client.open("/bad", W | C), client.mkdir("/bad"), client.rename("/x", "/bad")):
        assert client.wait(request).code == Status.FAILURE
    assert filesystem.calls == []


def test_an_in_place_change_does_not_overwrite_a_foreign_one(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/f", b"first")
    handle = client.opened("/f", W)
    client.wait(client.write(handle, 0, b"F"))
    filesystem.writebytes("/f", b"foreign")
    reply = client.wait(client.close(handle))
    assert reply.code == Status.FAILURE
    assert "changed" in reply.text
    assert filesystem.readbytes("/f") == b"foreign"


def test_excl_is_exact_even_if_someone_is_quicker(client: RawClient, filesystem: AtomicFS) -> None:
    handle = client.opened("/f", W | C | X)
    filesystem.writebytes("/f", b"quicker")
    assert client.wait(client.close(handle)).code == Status.FAILURE
    assert filesystem.readbytes("/f") == b"quicker"


def test_one_commit_for_each_upload(client: RawClient, filesystem: AtomicFS) -> None:
    client.put("/f", b"x" * 100_000)
    handle = client.opened("/f", W)
    assert client.wait(client.close(handle)).ok  # nothing was written
    assert filesystem.commits == [("/f", 100_000, None)]
    client.put("/empty", b"")
    assert len(filesystem.commits) == 2


# -- what is fetched and what is sent


def test_scp_of_a_short_file_over_a_long_one_fetches_nothing(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/f", os.urandom(10 * MIB))
    content = os.urandom(MIB)
    handle = client.opened("/f", W | C)
    requests = [client.write(handle, offset, content[offset : offset + 32768]) for offset in range(0, MIB, 32768)]
    requests += [client.fsetstat(handle, size=MIB), client.close(handle)]
    assert all(reply.ok for reply in client.all(requests))
    assert filesystem.readbytes("/f") == content
    assert filesystem.bytes_read == 0
    assert filesystem.happened("pread") == []


def test_an_edit_in_the_middle_fetches_the_old_content_once(client: RawClient, filesystem: AtomicFS) -> None:
    content = bytearray(os.urandom(5 * MIB))
    filesystem.writebytes("/f", bytes(content))
    handle = client.opened("/f", R | W)
    content[2 * MIB : 2 * MIB + 10] = b"0123456789"
    assert client.wait(client.write(handle, 2 * MIB, b"0123456789")).ok
    assert client.wait(client.fsetstat(handle, size=4 * MIB)).ok
    assert client.wait(client.fsetstat(handle, size=4 * MIB + 100)).ok
    assert client.wait(client.close(handle)).ok
    content[4 * MIB :] = bytes(100)
    assert filesystem.readbytes("/f") == content
    assert filesystem.bytes_read <= 4 * MIB
    assert [size for _, size, _ in filesystem.commits] == [5 * MIB, 4 * MIB + 100]


def test_setstat_size_zero_fetches_nothing(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/f", b"x" * MIB)
    assert client.wait(client.setstat("/f", size=0)).ok
    assert filesystem.readbytes("/f") == b""
    assert filesystem.bytes_read == 0


def test_a_large_upload_is_sent_on_while_it_arrives(client: RawClient, filesystem: AtomicFS) -> None:
    content = os.urandom(8 * MIB)
    handle = client.opened("/f", W | C | T)
    for offset in range(0, len(content), 256 * 1024):
        assert client.wait(client.write(handle, offset, content[offset : offset + 256 * 1024])).ok
    eventually(lambda: filesystem.bytes_written == len(content), "never: everything was sent on before CLOSE")
    assert not MemoryFS.exists(filesystem, "/f")
    assert client.wait(client.fsetstat(handle, atime=1, mtime=1_400_000_000)).ok
    assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes("/f") == content
    assert filesystem.bytes_written == len(content)
    path, size, modified = filesystem.commits[0]
    assert (path, size) == ("/f", len(content))
    assert modified is not None
    assert modified.timestamp() == 1_400_000_000


@pytest.mark.parametrize("change", ["rewrite", "truncate", "rename"])
def test_what_was_sent_on_already_can_still_be_changed(client: RawClient, filesystem: AtomicFS, change: str) -> None:
    content = bytearray(os.urandom(6 * MIB))
    handle = client.opened("/f", W | C | T)
    for offset in range(0, len(content), MIB // 4):
        client.wait(client.write(handle, offset, bytes(content[offset : offset + MIB // 4])))
    eventually(lambda: filesystem.bytes_written == len(content), "never: all sent on")
    name = "/f"
    if change == "rewrite":
        content[10:14] = b"HEAD"
        assert client.wait(client.write(handle, 10, b"HEAD")).ok
    elif change == "truncate":
        del content[MIB:]
        assert client.wait(client.fsetstat(handle, size=MIB)).ok
    else:
        name = "/g"
        assert client.wait(client.rename("/f", "/g")).ok
    assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes(name) == content
    eventually(lambda: len(filesystem.happened("abort")) == 1, "never: what was sent in vain is discarded")
    assert [path for path, _, _ in filesystem.commits] == [name]


def test_an_error_while_sending_on_is_told_early(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.faults["write"] = errors.InsufficientStorage("/f")
    handle = client.opened("/f", W | C | T)
    for offset in range(0, 5 * MIB, MIB // 4):
        client.wait(client.write(handle, offset, bytes(MIB // 4)))
    eventually(lambda: not client.wait(client.write(handle, 5 * MIB, b"x")).ok, "never: a WRITE fails")
    reply = client.wait(client.close(handle))
    assert reply.code == Status.FAILURE
    assert "quota exceeded" in reply.text
    assert not MemoryFS.exists(filesystem, "/f")


def test_a_client_that_is_faster_than_the_storage_is_slowed_down(
    client: RawClient, filesystem: AtomicFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "LAG_BYTES", 6 * MIB)
    piece = MIB // 4
    handle = client.opened("/f", W | C | T)
    with filesystem.stalled("write", "/f"):
        early = [client.write(handle, offset, bytes(piece)) for offset in range(0, 5 * MIB, piece)]
        assert all(reply.ok for reply in client.all(early))
        late = [client.write(handle, offset, bytes(piece)) for offset in range(5 * MIB, 8 * MIB, piece)]
        asked = client.fstat(handle)
        assert not client.is_answered(late[-1], within=0.3)
        other = client.wait(client.stat("/"))
        assert other.kind == Kind.ATTRS
    assert all(reply.ok for reply in client.all(late))
    assert client.wait(asked).attributes.size == 8 * MIB
    assert [i for i in client.order if i in (*late, asked)] == [*late, asked], "replies of one handle keep their order"
    assert client.wait(client.close(handle)).ok
    assert MemoryFS.getsize(filesystem, "/f") == 8 * MIB


# -- what is visible


def test_a_file_being_written_is_visible_to_all_sessions(serving: Serving, filesystem: AtomicFS) -> None:
    filesystem.makedir("/d")
    filesystem.writebytes("/d/there", b"x")
    writer, other = serving.raw(), serving.raw()
    opening, asking = writer.open("/d/new", W | C | T), writer.lstat("/d/new")  # as sshfs does
    handle = writer.wait(opening).handle
    assert writer.wait(asking).attributes.size == 0
    writer.wait(writer.write(handle, 0, b"x" * 1000))
    for client in (writer, other):
        assert client.wait(client.lstat("/d/new")).attributes.size == 1000
        assert {name: attrs.size for name, attrs in client.list("/d").items()} == {
            ".": 0, "..": 0, "there": 1, "new": 1000,
        }  # fmt: skip
    reply = other.wait(other.open("/d/new", R))
    assert reply.code == Status.FAILURE
    assert "still being written" in reply.text
    assert writer.wait(writer.close(handle)).ok
    assert other.get("/d/new") == b"x" * 1000


class SlowlyListed(AtomicFS):
    """Lists what was there when it was asked, however long that takes."""

    def scandir(self, path: str, namespaces: Any = None, page: Any = None) -> Any:
        infos = list(super().scandir(path, namespaces, page))
        self.passes("listed", path)
        yield from infos


def test_what_is_committed_while_its_directory_is_listed_is_in_that_listing(tmp_path: Path) -> None:
    """As after `cp` on sshfs, which does not wait for the answer to CLOSE."""
    filesystem = SlowlyListed()
    filesystem.writebytes("/replaced", b"old")
    with closing(Serving(filesystem, tmp_path / "spool")) as serving, ThreadPoolExecutor(1) as pool:
        writer, other = serving.raw(), serving.raw()
        kept, given_up = writer.opened("/kept", W | C | T), writer.opened("/given up", W | C | T)
        replaced = writer.opened("/replaced", W | C | T)
        assert writer.wait(writer.write(kept, 0, b"content")).ok
        assert writer.wait(writer.write(replaced, 0, b"newer")).ok
        with filesystem.stalled("listed", "/"):
            listing = pool.submit(other.list, "/")
            eventually(lambda: filesystem.happened("listed"), "nothing is listed")
            assert writer.wait(writer.close(kept)).ok
            assert writer.wait(writer.close(replaced)).ok
            assert writer.wait(writer.remove("/given up")).ok
        sizes = {name: attrs.size for name, attrs in listing.result(60).items()}
        assert sizes == {".": 0, "..": 0, "kept": 7, "replaced": 5}
        assert not writer.wait(writer.close(given_up)).ok


def test_what_is_renamed_while_its_directory_is_listed_is_not_listed_under_another_name_there(
    client: RawClient, filesystem: AtomicFS
) -> None:
    filesystem.makedir("/d")
    filesystem.writebytes("/d/first", b"content")
    handle = client.opened("/d/new", W | C | T)
    folder = client.wait(client.path(Kind.OPENDIR, "/d")).handle
    assert client.wait(client.rename("/d/new", "/moved")).ok
    names = client.wait(client.send(Kind.READDIR, s(folder))).names
    assert [name for name, _, _ in names] == [".", "..", "first"]
    assert client.wait(client.close(handle)).ok


def test_what_takes_the_place_of_another_upload_while_its_directory_is_listed_is_listed(
    client: RawClient, filesystem: AtomicFS
) -> None:
    filesystem.writebytes("/first", b"content")
    client.opened("/old", W | C | T)
    new = client.opened("/new", W | C | T)
    assert client.wait(client.write(new, 0, b"12345")).ok
    listing = client.wait(client.path(Kind.OPENDIR, "/")).handle
    assert client.wait(client.posix_rename("/new", "/old")).ok
    names = client.wait(client.send(Kind.READDIR, s(listing))).names
    assert [(name, attributes.size) for name, _, attributes in names[2:]] == [("first", 7), ("old", 5)]


@pytest.fixture
def memory() -> Iterator[MemoryFS]:
    """A filesystem that tells versions apart by size and time alone."""
    with MemoryFS() as filesystem:
        filesystem.writebytes("/f", b"content")
        yield filesystem


@pytest.fixture
def client_of_memory(memory: MemoryFS, tmp_path: Path) -> Iterator[RawClient]:
    with closing(Serving(memory, tmp_path / "spool")) as serving:
        yield serving.raw()


def test_a_time_that_one_handle_sets_is_no_change_for_another(memory: MemoryFS, client_of_memory: RawClient) -> None:
    client = client_of_memory
    one, other = client.opened("/f", W), client.opened("/f", W)
    assert client.wait(client.fsetstat(one, atime=10**9, mtime=10**9)).ok
    assert client.wait(client.close(one)).ok
    assert memory.getinfo("/f", ["details"]).raw["details"]["modified"] == 10**9
    assert client.wait(client.write(other, 0, b"C")).ok
    assert client.wait(client.close(other)).ok
    assert memory.readbytes("/f") == b"Content"


def test_a_time_that_is_set_does_not_hide_what_somebody_else_has_changed(
    memory: MemoryFS, client_of_memory: RawClient
) -> None:
    client = client_of_memory
    one, other = client.opened("/f", W), client.opened("/f", W)
    assert client.wait(client.fsetstat(one, atime=10**9, mtime=10**9)).ok
    memory.writebytes("/f", b"of somebody else")
    assert client.wait(client.close(one)).ok
    assert client.wait(client.write(other, 0, b"C")).ok
    assert "changed by someone else" in client.wait(client.close(other)).text
    assert memory.readbytes("/f") == b"of somebody else"


def test_the_writer_reads_what_it_is_writing(client: RawClient) -> None:
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"0123"))
    reader = client.opened("/f", R)
    assert client.wait(client.read(reader, 1, 10)).data == b"123"
    client.wait(client.write(handle, 4, b"45"))
    assert client.wait(client.read(reader, 1, 10)).data == b"12345"


def test_the_announced_size_is_not_the_size(client: RawClient) -> None:
    handle = client.opened("/f.filepart", W | C | T, a(size=1000))
    client.wait(client.write(handle, 0, b"x" * 100))
    assert client.wait(client.lstat("/f.filepart")).attributes.size == 100


def test_stat_after_close_is_exact(client: RawClient) -> None:
    for size in range(100):
        handle = client.opened("/f", W | C | T)
        requests = [client.write(handle, 0, b"x" * size), client.close(handle), client.stat("/f")]
        assert client.all(requests)[-1].attributes.size == size


def test_open_for_reading_waits_for_the_commit(serving: Serving, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/f", b"old")
    filesystem.calls.clear()
    writer, reader = serving.raw(), serving.raw()
    handle = writer.opened("/f", W | C | T)
    writer.wait(writer.write(handle, 0, b"new!"))
    with filesystem.stalled("commit", "/f"):
        closing, opening = writer.close(handle), writer.open("/f", R)
        eventually(lambda: filesystem.happened("commit") == ["/f"], "never: the commit runs")
        foreign = reader.open("/f", R)
        assert not reader.is_answered(foreign, within=0.1)
        assert not writer.is_answered(opening, within=0.05)
    assert writer.wait(closing).ok
    for client, request in ((writer, opening), (reader, foreign)):
        assert client.wait(client.read(client.wait(request).handle, 0, 10)).data == b"new!"


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


# -- names of what is being written


def test_renaming_a_new_file_that_is_being_written(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.makedir("/d")
    handle = client.opened("/tmp", W | C | X)
    client.wait(client.write(handle, 0, b"abc"))
    assert client.wait(client.rename("/tmp", "/d/final")).ok
    assert client.wait(client.stat("/tmp")).code == Status.NO_SUCH_FILE
    assert client.wait(client.stat("/d/final")).attributes.size == 3
    assert client.wait(client.write(handle, 3, b"def")).ok
    assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes("/d/final") == b"abcdef"
    assert [path for path, _, _ in filesystem.commits] == ["/d/final"]


def test_renaming_a_directory_with_a_file_that_is_being_written(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.makedir("/d")
    handle = client.opened("/d/f", W | C | T)
    client.wait(client.write(handle, 0, b"abc"))
    assert client.wait(client.rmdir("/d")).code == Status.FAILURE
    assert client.wait(client.rename("/d", "/e")).ok
    assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes("/e/f") == b"abc"


def test_removing_a_file_that_is_being_written(client: RawClient, filesystem: AtomicFS) -> None:
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"abc"))
    assert client.wait(client.remove("/f")).ok
    assert client.wait(client.stat("/f")).code == Status.NO_SUCH_FILE
    assert client.wait(client.write(handle, 3, b"def")).code == Status.FAILURE
    fsync = client.extended("fsync@openssh.com", s(handle))
    for request in (client.fsetstat(handle, atime=10**9, mtime=10**9), client.fstat(handle), fsync):
        assert client.wait(request).code == Status.FAILURE
    reply = client.wait(client.close(handle))
    assert reply.code == Status.FAILURE
    assert "removed while" in reply.text
    assert filesystem.commits == []


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("end", ["removed", "replaced", "made anew"])
def test_who_reads_what_was_being_written_reads_nothing_else(
    client: RawClient, filesystem: AtomicFS, end: str, stored: bool
) -> None:
    filesystem.writebytes("/f", b"old")
    filesystem.writebytes("/other", b"what is none of its business")
    writers = [client.opened("/f", W) for _ in range(2)]
    reader = client.opened("/f", R)
    if stored:
        assert client.wait(client.write(writers[0], 0, b"new")).ok
    assert client.wait(client.close(writers[0])).ok
    assert client.wait(client.read(reader, 0, 10)).data == (b"new" if stored else b"old")
    if end == "replaced":
        assert client.wait(client.posix_rename("/other", "/f")).ok
    else:
        assert client.wait(client.remove("/f")).ok
        if end == "made anew":
            client.put("/f", b"what is none of its business")
    for request in (client.read(reader, 0, 10), client.read(reader, 99, 10), client.fstat(reader)):
        reply = client.wait(request)
        assert (reply.code, "while it was being written" in reply.text) == (Status.FAILURE, True)


def test_what_is_being_written_is_no_directory(client: RawClient) -> None:
    handle = client.opened("/f", W | C)
    assert client.wait(client.path(Kind.OPENDIR, "/f")).code == Status.FAILURE
    assert client.wait(client.rmdir("/f")).code == Status.FAILURE
    assert client.wait(client.close(handle)).ok


def test_gedit_and_restic(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/f", b"old")
    handle = client.opened("/.giosave123", W | C | X)
    assert client.wait(client.fsetstat(handle, permissions=0o600)).ok
    assert client.wait(client.write(handle, 0, b"new")).ok
    assert client.wait(client.close(handle)).ok
    assert client.wait(client.posix_rename("/.giosave123", "/f")).ok
    assert filesystem.listdir("/") == ["f"]
    assert filesystem.readbytes("/f") == b"new"
    assert client.wait(client.setstat("/f", permissions=0o400)).ok
    assert client.wait(client.remove("/f")).ok


def test_lftp_continues_and_replaces(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/f", b"01234")
    handle = client.opened("/f", W | C)
    requests = [
        client.write(handle, 5, b"56789"),
        client.fsetstat(handle, size=10, atime=1, mtime=1_300_000_000),
        client.close(handle),
        client.remove("/g"),
        client.rename("/f", "/g"),
        client.stat("/."),
    ]
    replies = client.all(requests)
    assert [reply.code for reply in replies[:-1]] == [0, 0, 0, Status.NO_SUCH_FILE, 0]
    assert filesystem.readbytes("/g") == b"0123456789"


def test_two_sessions_upload_the_same_name(serving: Serving, filesystem: AtomicFS) -> None:
    one, other = serving.raw(), serving.raw()
    first, second = one.opened("/f", W | C | T), other.opened("/f", W | C | T)
    one.wait(one.write(first, 0, b"one" * 10))
    other.wait(other.write(second, 0, b"other"))
    assert other.wait(other.close(second)).ok
    assert filesystem.readbytes("/f") == b"other"
    assert one.wait(one.close(first)).ok
    assert filesystem.readbytes("/f") == b"one" * 10


# -- the end without a CLOSE


def test_a_cut_connection_leaves_the_old_version(serving: Serving, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/f", b"good")
    session = serving.session()
    client = session.raw()
    for sent in (1, 100_000, 6 * MIB):
        handle = client.opened("/f", W | C | T)
        for offset in range(0, sent, 32768):
            client.wait(client.write(handle, offset, os.urandom(min(32768, sent - offset))))
    session.cut()
    assert filesystem.readbytes("/f") == b"good"
    assert filesystem.commits == [("/f", 4, None)]
    assert spool_files(serving) == []
    assert [transfer.result for transfer in session.events.transfers] == ["aborted"] * 3
    after = serving.raw()
    assert after.wait(after.stat("/f")).attributes.size == 4


def test_a_close_that_was_sent_counts_even_if_the_client_is_gone(serving: Serving, filesystem: AtomicFS) -> None:
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    with filesystem.stalled("commit", "/f"):
        client.write(handle, 0, b"content")
        client.close(handle)
        eventually(lambda: filesystem.happened("commit") == ["/f"], "never: the commit runs")
        session.socket.close()  # type: ignore[union-attr]
    eventually(lambda: len(filesystem.commits) == 1, "never: the commit is carried out")
    assert filesystem.readbytes("/f") == b"content"


def test_an_upload_that_was_cut_off_can_be_continued(serving: Serving, filesystem: AtomicFS) -> None:
    content = os.urandom(3 * MIB)
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f.filepart", W | C | T, a(size=len(content)))
    for offset in range(0, 2 * MIB, 32768):
        client.wait(client.write(handle, offset, content[offset : offset + 32768]))
    session.cut()
    assert not MemoryFS.exists(filesystem, "/f.filepart")
    client = serving.raw()
    kept = client.wait(client.lstat("/f.filepart")).attributes.size or 0
    assert 2 * MIB - 32768 <= kept < 2 * MIB
    assert client.list("/")["f.filepart"].size == kept
    assert client.wait(client.rename("/f.filepart", "/f")).code == Status.FAILURE
    handle = client.opened("/f.filepart", W | C)
    requests = [
        client.write(handle, offset, content[offset : offset + 32768]) for offset in range(kept, len(content), 32768)
    ]
    requests += [client.close(handle), client.rename("/f.filepart", "/f"), client.lstat("/f")]
    *statuses, found = client.all(requests)
    assert all(reply.ok for reply in statuses)
    assert found.attributes.size == len(content)
    assert filesystem.readbytes("/f") == content


@pytest.mark.parametrize("flags", [W | C | A, A])
def test_a_cut_off_upload_is_continued_by_append(serving: Serving, filesystem: AtomicFS, flags: int) -> None:
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"0123456789"))
    session.cut()
    client = serving.raw()
    assert client.wait(client.stat("/f")).attributes.size == 9
    handle = client.opened("/f", flags)
    assert all(reply.ok for reply in client.all([client.write(handle, 0, b"9abc"), client.close(handle)]))
    assert filesystem.readbytes("/f") == b"0123456789abc"


@pytest.mark.parametrize("end", ["remove", "replace", "foreign", "quota", "age"])
def test_a_partial_goes_away(filesystem: AtomicFS, tmp_path: Path, end: str) -> None:
    limits = TreeLimits(spool_quota=1000, partial_seconds=0.0 if end == "age" else 1000.0, spool_memory=10)
    serving = Serving(filesystem, tmp_path / "spool", limits=limits)
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"x" * 600))
    session.cut()
    client = serving.raw()
    if end != "age":
        assert client.wait(client.stat("/f")).attributes.size == 599
    assert len(spool_files(serving)) == 1
    if end == "remove":
        assert client.wait(client.remove("/f")).ok
        assert client.wait(client.stat("/f")).code == Status.NO_SUCH_FILE
    elif end == "replace":
        client.put("/f", b"new")
        assert client.get("/f") == b"new"
    elif end == "foreign":
        filesystem.writebytes("/f", b"theirs")
        assert client.wait(client.stat("/f")).attributes.size == 6
        handle = client.opened("/f", W | C)
        assert client.wait(client.fstat(handle)).attributes.size == 6
        assert client.wait(client.close(handle)).ok
        assert filesystem.readbytes("/f") == b"theirs"
    else:
        client.put("/g", b"y" * 900)
    assert spool_files(serving) == []
    assert serving.tree.store.quota.used == 0
    serving.close()


def test_holes_are_not_kept(serving: Serving) -> None:
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"x" * 50))
    client.wait(client.write(handle, 100, b"y" * 50))
    session.cut()
    client = serving.raw()
    assert client.wait(client.stat("/f")).attributes.size == 49


def test_another_session_takes_an_upload_over(serving: Serving, filesystem: AtomicFS) -> None:
    old, new = serving.raw(), serving.raw()
    stale = old.opened("/f", W | C | T)
    old.wait(old.write(stale, 0, b"01234"))
    size = new.wait(new.stat("/f")).attributes.size or 0
    handle = new.opened("/f", W | C)
    assert new.wait(new.write(handle, size, b"56789")).ok
    assert "goes on with it" in old.wait(old.write(stale, 0, b"XXXXX")).text
    assert old.wait(old.close(stale)).code == Status.FAILURE
    assert new.wait(new.close(handle)).ok
    assert filesystem.readbytes("/f") == b"0123456789"


def test_a_partial_outlives_the_process(filesystem: AtomicFS, tmp_path: Path) -> None:
    serving = Serving(filesystem, tmp_path / "spool")
    client = serving.raw()
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"0123456789"))
    serving.close()  # as on SIGTERM
    (tmp_path / "spool" / "orphan.spool").write_bytes(b"left by kill -9")
    later = Serving(filesystem, tmp_path / "spool")
    assert not (tmp_path / "spool" / "orphan.spool").exists()
    beside = Serving(filesystem, tmp_path / "spool")  # another worker process must not take it, too
    assert beside.tree.store.overlay.all() == []
    client = later.raw()
    assert client.wait(client.stat("/f")).attributes.size == 9
    handle = client.opened("/f", W | C)
    assert all(reply.ok for reply in client.all([client.write(handle, 9, b"9ab"), client.close(handle)]))
    assert filesystem.readbytes("/f") == b"0123456789ab"
    assert list((tmp_path / "spool").iterdir()) == []
    later.close()
    beside.close()


def test_a_file_that_is_being_written_outlives_kill_9(filesystem: AtomicFS, tmp_path: Path) -> None:
    """A copy of the spool folder is what a killed process leaves."""

    def left(name: str) -> dict[str, int]:
        shutil.copytree(tmp_path / "spool", tmp_path / name)
        later = Serving(AtomicFS(), tmp_path / name)
        partials = later.tree.store.overlay.all()
        found = {partial.path: partial.size for partial in partials}
        assert all(partial.read(0, partial.size) == content[: partial.size] for partial in partials)
        later.close()
        return found

    serving = Serving(filesystem, tmp_path / "spool")
    client = serving.raw()
    content = os.urandom(3 * MIB)
    handle = client.opened("/f", W | C | T)
    for offset in range(0, len(content), MIB // 4):
        client.wait(client.write(handle, offset, content[offset : offset + MIB // 4]))
    assert left("written") == {"/f": 3 * MIB - 1}, "all but the last byte"
    noted = {file: file.stat().st_mtime_ns for file in (tmp_path / "spool").glob("*.json")}
    client.wait(client.write(handle, len(content), b"more"))
    content += b"more"
    assert left("written_on") == {"/f": 3 * MIB + 3}
    assert {file: file.stat().st_mtime_ns for file in noted} == noted, "a note in order is written once"
    assert client.wait(client.fsetstat(handle, size=3 * MIB)).ok
    client.wait(client.write(handle, 5 * MIB, b"after a gap"))
    assert left("with_a_gap") == {"/f": 3 * MIB - 1}
    assert client.wait(client.rename("/f", "/g")).ok
    assert left("renamed") == {"/g": 3 * MIB - 1}
    assert client.wait(client.fsetstat(handle, size=MIB)).ok
    assert left("truncated") == {"/g": MIB - 1}
    assert client.wait(client.close(handle)).ok
    assert list((tmp_path / "spool").iterdir()) == []
    serving.close()


def test_what_is_not_written_in_order_outlives_kill_9(
    filesystem: AtomicFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "NOTE_SECONDS", 0.0)
    content = os.urandom(6 * MIB)
    piece = MIB // 4
    serving = Serving(filesystem, tmp_path / "spool")
    client = serving.raw()
    handle = client.opened("/f", W | C | T)
    for offset in range(0, len(content), 2 * piece):
        for start in (offset + piece, offset):  # each two pieces the wrong way round
            assert client.wait(client.write(handle, start, content[start : start + piece])).ok
            if offset < MIB:
                continue  # in memory only
            shutil.copytree(tmp_path / "spool", tmp_path / "killed")
            later = Serving(AtomicFS(), tmp_path / "killed")
            for partial in later.tree.store.overlay.all():
                assert partial.read(0, partial.size) == content[: partial.size]
                assert partial.size < offset + 2 * piece, "the last byte is not there"
            if start == offset >= 3 * MIB:
                assert next(partial.size for partial in later.tree.store.overlay.all()) >= offset - MIB
            later.close()
            shutil.rmtree(tmp_path / "killed")
    assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes("/f") == content
    serving.close()


def test_stop_aborts_what_is_open(serving: Serving, filesystem: AtomicFS) -> None:
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"content"))
    assert session.channels[0].stop(5.0)
    assert filesystem.commits == []
    assert [transfer.result for transfer in session.events.transfers] == ["aborted"]
    with pytest.raises((EOFError, OSError)):
        client.wait(client.stat("/"))


def test_stop_lets_a_commit_end(serving: Serving, filesystem: AtomicFS) -> None:
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    with filesystem.stalled("commit", "/f"):
        client.close(handle)
        eventually(lambda: filesystem.happened("commit") == ["/f"], "never: the commit runs")
        assert not session.channels[0].stop(0.05)
    assert session.channels[0].wait(20)
    assert filesystem.readbytes("/f") == b""


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
    far = client.opened("/far", W | C)
    assert client.wait(client.write(far, 2**40, b"x")).code == 4
    assert client.wait(client.close(far)).code == 4  # what was not stored is not committed
    handle = client.opened("/new", W | C)
    assert client.wait(client.fsetstat(handle, size=10**6 + 1)).code == 4
    assert client.wait(client.fsetstat(handle, size=10**6)).ok
    assert client.wait(client.close(handle)).ok
    assert storage.getsize("/new") == 10**6
    assert client.wait(client.setstat("/old", size=1000 + 10**6)).ok  # what was there costs nothing
    assert storage.getsize("/old") == 1000 + 10**6
    serving.close()
