"""What the protocol promises of contents, whatever the filesystem: reading, writing, copying."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS

from sftp_gateway.sftp.packets import Kind, Status
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import A, C, R, RawClient, T, W, X, a, s
from tests.sftp_gateway.without_doors import Serving

CHUNK = 32768


@pytest.fixture(params=[MemoryFS, AtomicFS])
def filesystem(request: pytest.FixtureRequest) -> FS:
    make: Callable[[], FS] = request.param
    return make()


# -- reading


def test_reads_are_full_and_in_order_and_end_with_eof(client: RawClient, filesystem: FS) -> None:
    content = os.urandom(1_000_000)
    filesystem.writebytes("/f", content)
    handle = client.opened("/f", R)
    size = 261_120
    requests = [client.read(handle, offset, size) for offset in range(0, 2_000_000, size)]
    replies = client.all(requests)
    assert client.order[-len(requests) :] == requests
    data = [reply for reply in replies if reply.kind == Kind.DATA]
    assert b"".join(reply.data for reply in data) == content
    assert all(len(reply.data) == size for reply in data[:-1])
    assert {reply.code for reply in replies[len(data) :]} == {Status.EOF}
    assert client.wait(client.read(handle, 2**63 + 5, 10)).code == Status.EOF
    assert client.wait(client.fstat(handle)).attributes.size == len(content)
    assert client.wait(client.close(handle)).ok
    assert client.wait(client.close(handle)).code == Status.FAILURE


def test_open_of_what_cannot_be_read(client: RawClient, filesystem: FS) -> None:
    filesystem.makedir("/d")
    assert client.wait(client.open("/missing", R)).code == Status.NO_SUCH_FILE
    assert client.wait(client.open("/d", R)).code == Status.FAILURE
    assert client.wait(client.open("/d", W | C | T)).code == Status.FAILURE
    assert client.wait(client.open("/", W | C)).code == Status.FAILURE
    assert client.wait(client.open("/missing", W)).code == Status.NO_SUCH_FILE
    assert client.wait(client.open("/missing/f", W | C | T)).code == Status.NO_SUCH_FILE
    assert client.wait(client.open("/missing/f", W | C)).code == Status.NO_SUCH_FILE


# -- writing


def test_put_and_get_of_every_size(client: RawClient) -> None:
    for size in (0, 1, 4095, CHUNK, CHUNK + 1, 3_000_000):
        content = os.urandom(size)
        client.put("/f", content)
        assert client.wait(client.stat("/f")).attributes.size == size
        assert client.get("/f") == content


def test_excl_on_an_existing_file(client: RawClient, filesystem: FS) -> None:
    filesystem.writebytes("/f", b"old")
    assert client.wait(client.open("/f", W | C | X)).code == Status.FAILURE
    assert client.wait(client.lstat("/f")).attributes.size == 3
    assert filesystem.readbytes("/f") == b"old"
    client.put("/g", b"new", W | C | X)
    assert filesystem.readbytes("/g") == b"new"


def test_excl_on_a_file_that_is_just_being_written(client: RawClient) -> None:
    client.opened("/f", W | C | T)
    assert client.wait(client.open("/f", W | C | X)).code == Status.FAILURE


def test_without_trunc_the_old_content_stays(client: RawClient, filesystem: FS) -> None:
    filesystem.writebytes("/f", b"0123456789")
    handle = client.opened("/f", W | C, a(size=999))
    assert client.wait(client.fstat(handle)).attributes.size == 10
    assert client.wait(client.write(handle, 3, b"abc")).ok
    assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes("/f") == b"012abc6789"


def test_reput_continues_at_the_size_that_fstat_shows(client: RawClient, filesystem: FS) -> None:
    filesystem.writebytes("/f", b"01234")
    handle = client.opened("/f", W)
    size = client.wait(client.fstat(handle)).attributes.size
    assert client.wait(client.write(handle, size or 0, b"56789")).ok
    assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes("/f") == b"0123456789"


@pytest.mark.parametrize("absolute", [True, False])
def test_append_goes_to_the_end_whatever_the_offset(client: RawClient, filesystem: FS, absolute: bool) -> None:
    filesystem.writebytes("/f", b"old-")
    handle = client.opened("/f", W | C | A)
    pieces = [bytes([65 + number % 26]) * 1000 for number in range(64)]
    begin = 4 if absolute else 0
    requests = [client.write(handle, begin + 1000 * number, piece) for number, piece in enumerate(pieces)]
    assert all(reply.ok for reply in client.all([*requests, client.close(handle)]))
    assert filesystem.readbytes("/f") == b"old-" + b"".join(pieces)


def test_append_alone_is_enough_to_write(client: RawClient, filesystem: FS) -> None:
    filesystem.writebytes("/f", b"1")
    handle = client.opened("/f", A)
    assert all(reply.ok for reply in client.all([client.write(handle, 0, b"2"), client.close(handle)]))
    assert filesystem.readbytes("/f") == b"12"


def test_writes_in_any_order_leave_zeros_between(client: RawClient, filesystem: FS) -> None:
    handle = client.opened("/f", W | C | T)
    requests = [client.write(handle, 10, b"b"), client.write(handle, 5, b"a"), client.write(handle, 0, b"c")]
    assert all(reply.ok for reply in client.all([*requests, client.close(handle)]))
    assert filesystem.readbytes("/f") == b"c\0\0\0\0a\0\0\0\0b"


def test_fsetstat_truncates_and_extends(client: RawClient, filesystem: FS) -> None:
    filesystem.writebytes("/f", b"0123456789")
    handle = client.opened("/f", R | W)
    for size in (4, 6, 5):
        assert client.wait(client.fsetstat(handle, size=size)).ok
        assert client.wait(client.fstat(handle)).attributes.size == size
    assert client.wait(client.read(handle, 0, 100)).data == b"0123\0"
    assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes("/f") == b"0123\0"


def test_setstat_of_a_size_changes_the_file(client: RawClient, filesystem: FS) -> None:
    filesystem.writebytes("/f", b"0123456789")
    assert client.wait(client.setstat("/f", size=3)).ok
    assert filesystem.readbytes("/f") == b"012"
    assert client.wait(client.setstat("/f", size=5)).ok
    assert filesystem.readbytes("/f") == b"012\0\0"
    assert client.wait(client.setstat("/f", size=0)).ok
    assert filesystem.readbytes("/f") == b""
    assert client.wait(client.setstat("/missing", size=0)).code == Status.NO_SUCH_FILE


@pytest.mark.parametrize("size", [0, 1])
def test_a_directory_has_no_size_to_be_set(client: RawClient, filesystem: FS, size: int) -> None:
    filesystem.makedir("/d")
    for path in ("/d", "/"):
        assert client.wait(client.setstat(path, size=size)).code == Status.FAILURE


def test_setstat_of_anything_else_is_accepted(client: RawClient, filesystem: FS) -> None:
    filesystem.writebytes("/f", b"x")
    filesystem.makedir("/d")
    for path in ("/f", "/d", "/"):
        assert client.wait(client.setstat(path, permissions=0o600)).ok
        assert client.wait(client.setstat(path, uid=7, gid=7)).ok
        assert client.wait(client.setstat(path, atime=1, mtime=1_500_000_000)).ok
        assert client.wait(client.setstat(path)).ok
    assert client.wait(client.lstat("/f")).attributes.permissions == 0o100644
    for wished in ({"permissions": 0o600}, {"atime": 1, "mtime": 1}):
        assert client.wait(client.setstat("/missing", **wished)).code == Status.NO_SUCH_FILE


def test_reading_and_writing_with_one_handle(client: RawClient, filesystem: FS) -> None:
    filesystem.writebytes("/f", b"0123456789")
    handle = client.opened("/f", R | W)
    requests = [
        client.read(handle, 0, 4), client.write(handle, 1, b"X"), client.read(handle, 0, 4),
        client.write(handle, 10, b"YZ"), client.read(handle, 8, 100), client.read(handle, 12, 5),
    ]  # fmt: skip
    replies = client.all(requests)
    assert client.order[-6:] == requests
    assert [reply.data for reply in replies] == [b"0123", b"", b"0X23", b"", b"89YZ", b""]
    assert replies[-1].code == Status.EOF
    assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes("/f") == b"0X23456789YZ"


def test_what_a_handle_was_not_opened_for_is_refused(client: RawClient, filesystem: FS) -> None:
    filesystem.writebytes("/f", b"x")
    reader, writer = client.opened("/f", R), client.opened("/g", W | C)
    folder = client.wait(client.path(Kind.OPENDIR, "/")).handle
    assert client.wait(client.write(reader, 0, b"y")).code == Status.PERMISSION_DENIED
    assert client.wait(client.read(writer, 0, 1)).code == Status.FAILURE
    assert client.wait(client.read(folder, 0, 1)).code == Status.FAILURE
    assert client.wait(client.send(Kind.READDIR, s(reader))).code == Status.FAILURE
    assert client.wait(client.fsetstat(reader, permissions=0o600)).ok


def test_the_time_of_an_upload_travels_with_it(client: RawClient, filesystem: FS) -> None:
    handle = client.opened("/f", W | C | T)
    requests = [
        client.write(handle, 0, b"x"),
        client.fsetstat(handle, permissions=0o600, atime=5, mtime=1_500_000_000),
        client.extended("fsync@openssh.com", s(handle)),
        client.close(handle),
    ]
    assert all(reply.ok for reply in client.all(requests))
    assert client.order[-4:] == requests
    assert client.wait(client.stat("/f")).attributes.mtime == 1_500_000_000
    if isinstance(filesystem, AtomicFS):
        assert [(path, size) for path, size, _ in filesystem.commits] == [("/f", 1)]


# -- extensions


def _copy(client: RawClient, source: bytes, target: bytes, size: int = 0, offsets: tuple[int, int] = (0, 0)) -> int:
    return client.extended(
        "copy-data", s(source), struct.pack(">QQ", offsets[0], size), s(target), struct.pack(">Q", offsets[1])
    )


def test_copy_data_of_a_whole_file(client: RawClient, filesystem: FS) -> None:
    content = os.urandom(600_000)
    filesystem.writebytes("/f", content)
    source, target = client.opened("/f", R), client.opened("/g", W | C | T)
    assert client.wait(_copy(client, source, target)).ok
    assert client.wait(client.stat("/g")).attributes.size == len(content)
    assert client.wait(client.close(target)).ok
    assert filesystem.readbytes("/g") == content
    if isinstance(filesystem, AtomicFS):
        assert filesystem.happened("copy") == ["/f"]
        assert filesystem.bytes_read == 0


def test_copy_data_of_parts(client: RawClient, filesystem: FS) -> None:
    filesystem.writebytes("/f", bytes(range(256)) * 4000)
    filesystem.writebytes("/g", b"-" * 10)
    source, target = client.opened("/f", R), client.opened("/g", W)
    assert client.wait(_copy(client, source, target, 600_000, (3, 5))).ok
    assert client.wait(_copy(client, source, source)).code == Status.FAILURE
    assert client.wait(client.close(target)).ok
    assert filesystem.readbytes("/g") == b"-" * 5 + (bytes(range(256)) * 4000)[3:600_003]


@pytest.mark.parametrize("flags", [R, W, R | W])
def test_a_file_is_not_copied_into_itself(client: RawClient, filesystem: FS, flags: int) -> None:
    """The end of the file would go away from whoever copies up to it."""
    filesystem.writebytes("/f", b"content")
    target = client.opened("/f", R | W)
    source = client.opened("/f", flags)
    for offsets in ((0, 7), (0, 0)):
        assert client.wait(_copy(client, source, target, offsets=offsets)).code == Status.FAILURE
    assert client.wait(client.close(source)).ok
    assert client.wait(client.close(target)).ok
    assert filesystem.readbytes("/f") == b"content"


@pytest.mark.parametrize("flags", [W | C | T, W | C | X])
def test_what_becomes_a_copy_of_itself_stays_as_it_is(client: RawClient, filesystem: FS, flags: int) -> None:
    """Written anew, or under another name that becomes its own."""
    filesystem.writebytes("/f", b"content")
    name = "/g" if flags & X else "/f"
    source, target = client.opened("/f", R), client.opened(name, flags)
    assert client.wait(_copy(client, source, target)).ok
    if name != "/f":
        assert client.wait(client.posix_rename(name, "/f")).ok
    assert client.wait(client.close(target)).ok
    assert filesystem.readbytes("/f") == b"content"
    assert filesystem.listdir("/") == ["f"]


def test_a_copy_of_what_was_renamed_since_it_was_opened(client: RawClient, filesystem: FS) -> None:
    filesystem.writebytes("/f", b"content")
    source, target = client.opened("/f", R), client.opened("/g", W | C | T)
    assert client.wait(client.rename("/f", "/h")).ok
    assert client.wait(_copy(client, source, target)).ok
    assert client.wait(client.close(target)).ok
    assert filesystem.readbytes("/g") == b"content"


def test_a_new_copy_replaces_nothing_where_it_has_to_be_exclusive(client: RawClient, filesystem: FS) -> None:
    filesystem.writebytes("/f", b"content")
    source, target = client.opened("/f", R), client.opened("/g", W | C | X)
    assert client.wait(_copy(client, source, target)).ok
    filesystem.writebytes("/g", b"others'")
    filesystem.remove("/f")
    assert client.wait(client.close(target)).code == Status.FAILURE
    assert filesystem.readbytes("/g") == b"others'"


def test_a_copy_that_is_changed_afterwards(client: RawClient, filesystem: FS) -> None:
    filesystem.writebytes("/f", b"0123456789")
    source, target = client.opened("/f", R), client.opened("/g", R | W | C | T)
    requests = [_copy(client, source, target), client.write(target, 2, b"XX"), client.read(target, 0, 100)]
    assert client.all(requests)[-1].data == b"01XX456789"
    assert client.wait(client.close(target)).ok
    assert filesystem.readbytes("/g") == b"01XX456789"
    assert filesystem.readbytes("/f") == b"0123456789"


def test_statvfs_tells_the_usage(tmp_path: Path) -> None:
    serving = Serving(AtomicFS(usage={"total": 2**31, "used": 2**30}), tmp_path)
    client = serving.raw()
    assert client.extensions["statvfs@openssh.com"] == client.extensions["fstatvfs@openssh.com"] == "2"
    folder = client.wait(client.path(Kind.OPENDIR, "/")).handle
    for request in (client.extended("statvfs@openssh.com", s("/")), client.extended("fstatvfs@openssh.com", s(folder))):
        size, _, blocks, free, available, *_, flags, longest = struct.unpack(">11Q", client.wait(request).data)
        assert (size * blocks, size * free, size * available) == (2**31, 2**30, 2**30)
        assert (flags, longest) == (0, 255)
    assert client.wait(client.extended("statvfs@openssh.com", s("/missing"))).code == Status.NO_SUCH_FILE
    serving.close()
