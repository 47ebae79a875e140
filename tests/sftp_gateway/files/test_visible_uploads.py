"""What is seen of a file that is being written, and what becomes of it under another name."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fs.memoryfs import MemoryFS

from sftp_gateway.sftp.packets import Kind, Status
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import C, R, RawClient, T, W, X, a, s
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import eventually

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


def test_no_directory_is_made_where_a_file_is_being_written(client: RawClient, filesystem: AtomicFS) -> None:
    """Its CLOSE would be refused."""
    handle = client.opened("/new", W | C | T)
    assert client.wait(client.write(handle, 0, b"content")).ok
    assert client.wait(client.mkdir("/new")).code == Status.FAILURE
    assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes("/new") == b"content"


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
    filesystem = MemoryFS()
    with filesystem:
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
