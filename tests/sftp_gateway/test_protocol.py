"""What the protocol promises whatever the filesystem: codes, order, flags, listings, rights."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS

from sftp_gateway.files.tree import Rights
from sftp_gateway.sftp.packets import Kind, Status
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import A, C, R, RawClient, T, W, X, a, s
from tests.sftp_gateway.serving import Serving

CHUNK = 32768


@pytest.fixture(params=[MemoryFS, AtomicFS])
def filesystem(request: pytest.FixtureRequest) -> FS:
    make: Callable[[], FS] = request.param
    return make()


# -- VERSION, limits, unknown and broken requests


def test_version_lists_only_what_works(client: RawClient) -> None:
    assert client.version == 3
    assert client.extensions == {
        "posix-rename@openssh.com": "1",
        "limits@openssh.com": "1",
        "fsync@openssh.com": "1",
        "expand-path@openssh.com": "1",
        "home-directory": "1",
        "copy-data": "1",
        "users-groups-by-id@openssh.com": "1",
    }
    reply = client.wait(client.extended("statvfs@openssh.com", s("/")))
    assert (reply.kind, reply.code) == (Kind.STATUS, Status.OP_UNSUPPORTED)


def test_limits_are_large_enough_for_openssh(client: RawClient) -> None:
    reply = client.wait(client.extended("limits@openssh.com"))
    packet, read, write, handles = struct.unpack(">4Q", reply.data)
    assert packet >= 34000
    assert read >= 32768 <= write
    assert read < packet
    assert handles > 0


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Kind.EXTENDED, (s("hardlink@openssh.com"), s("/a"), s("/b"))),
        (Kind.EXTENDED, (s("check-file"), s("/a"))),
        (Kind.SYMLINK, (s("/a"), s("/b"))),
        (42, ()),
        (255, (s("x"),)),
    ],
)
def test_unknown_requests_are_unsupported_and_the_session_lives_on(
    client: RawClient, kind: int, fields: tuple[bytes, ...]
) -> None:
    assert client.wait(client.send(kind, *fields)).code == Status.OP_UNSUPPORTED
    assert client.wait(client.stat("/")).kind == Kind.ATTRS


def test_there_are_no_symbolic_links(client: RawClient) -> None:
    client.put("/f", b"content")
    assert client.wait(client.path(Kind.READLINK, "/missing")).code == Status.NO_SUCH_FILE
    reply = client.wait(client.path(Kind.READLINK, "/f"))
    assert (reply.code, reply.text) == (Status.FAILURE, "/f: is no symbolic link")
    reply = client.wait(client.send(Kind.SYMLINK, s("/f"), s("/link")))
    assert (reply.code, reply.text) == (Status.OP_UNSUPPORTED, "/f: the storage has no symbolic links")


def test_owners_have_names(client: RawClient) -> None:
    users, groups = s(struct.pack(">2I", 1000, 7)), s(struct.pack(">I", 1000))
    reply = client.wait(client.extended("users-groups-by-id@openssh.com", users, groups))
    assert reply.kind == Kind.EXTENDED_REPLY
    assert reply.data == s(s("owner") + s("")) + s(s("group"))


@pytest.mark.parametrize("flags", [C, C | X, C | R])
def test_whoever_creates_a_file_may_write_it(client: RawClient, flags: int) -> None:
    """paramiko's mode "x", and locks made by programs on sshfs."""
    handle = client.opened("/f", flags)
    assert client.wait(client.write(handle, 0, b"content")).ok
    assert client.wait(client.close(handle)).ok
    assert client.get("/f") == b"content"


def test_creating_without_writing_keeps_what_is_there(client: RawClient) -> None:
    client.put("/f", b"content")
    handle = client.opened("/f", C | R)
    assert client.wait(client.read(handle, 0, 100)).data == b"content"
    assert client.wait(client.close(handle)).ok
    assert client.get("/f") == b"content"


@pytest.mark.parametrize("kind", [k for k in Kind if Kind.OPEN <= k <= Kind.SYMLINK])
def test_a_truncated_request_is_a_bad_message(client: RawClient, kind: int) -> None:
    assert client.wait(client.send(kind, b"\0\0\0\x20abc")).code == Status.BAD_MESSAGE
    assert client.wait(client.stat("/")).kind == Kind.ATTRS


@pytest.mark.parametrize("packet", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\1\3", b"GET / HTTP/1.0\r\n\r\n"])
def test_bytes_that_are_no_packets_close_the_channel(serving: Serving, packet: bytes) -> None:
    session = serving.session()
    client = session.raw()
    client.channel.sendall(packet)
    with pytest.raises((EOFError, OSError)):  # as the channel is closed before the request is sent, or after
        client.wait(client.stat("/"))
    assert session.raw().version == 3  # the connection itself lives on


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"/caf\xe9", r"/caf\xe9: the path is not valid UTF-8"),
        (b"/a\0b", r"/a\0b: the path holds a NUL character"),
        (b"/" + b"x" * 20000, f"/{'x' * 99}...: the path is too long"),
    ],
)
def test_names_that_cannot_be_are_refused_with_name_and_reason(client: RawClient, name: bytes, reason: str) -> None:
    for making in (client.open(name, W | C), client.path(Kind.MKDIR, name)):
        reply = client.wait(making)
        assert (reply.code, reply.text) == (Status.FAILURE, reason)
    reply = client.wait(client.send(Kind.RENAME, s("/old"), s(name)))
    assert (reply.code, reply.text) == (Status.FAILURE, f"/old: to {reason}")
    for looking in (client.path(Kind.LSTAT, name), client.open(name, R), client.path(Kind.REMOVE, name)):
        assert client.wait(looking).code == Status.NO_SUCH_FILE


def test_requests_with_a_wrong_handle_fail(client: RawClient) -> None:
    for handle in (b"", b"77", b"x" * 300):
        for request in (
            client.read(handle, 0, 10),
            client.write(handle, 0, b"x"),
            client.close(handle),
            client.fstat(handle),
            client.fsetstat(handle, size=1),
            client.send(Kind.READDIR, s(handle)),
            client.extended("fsync@openssh.com", s(handle)),
            client.extended("copy-data", s(handle), struct.pack(">QQ", 0, 0), s(handle), struct.pack(">Q", 0)),
        ):
            assert client.wait(request).code == Status.FAILURE


# -- paths


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (".", "/"), ("", "/"), ("/", "/"), ("a", "/a"), ("/a/", "/a"), ("/a/.", "/a"), ("/a/..", "/"),
        ("/a/../../..", "/"), ("//a//b", "/a/b"), ("a/../b", "/b"), ("/..a", "/..a"), ("/a./b", "/a./b"),
    ],
)  # fmt: skip
def test_realpath(client: RawClient, asked: str, answered: str) -> None:
    reply = client.wait(client.path(Kind.REALPATH, asked))
    assert [name for name, _, _ in reply.names] == [answered]


def test_expand_path_and_home(client: RawClient) -> None:
    for asked, answered in (("~", "/"), ("~/x/..", "/"), ("~/x", "/x"), ("x", "/x")):
        reply = client.wait(client.extended("expand-path@openssh.com", s(asked)))
        assert reply.names[0][0] == answered
    assert client.wait(client.extended("expand-path@openssh.com", s("~root"))).code == Status.NO_SUCH_FILE
    assert client.wait(client.extended("home-directory", s("anyone"))).names[0][0] == "/"


def test_no_path_leaves_the_root_of_the_view(serving: Serving, filesystem: FS) -> None:
    filesystem.makedirs("/home/me/sub")
    filesystem.writebytes("/home/secret", b"s")
    filesystem.writebytes("/home/me/mine", b"m")
    client = serving.session("/home/me").raw()
    assert set(client.list("/")) == {".", "..", "sub", "mine"}
    for path in ("/../secret", "../secret", "/sub/../../secret", "/home/secret"):
        assert client.wait(client.stat(path)).code == Status.NO_SUCH_FILE
    client.put("/../new", b"n")
    assert filesystem.readbytes("/home/me/new") == b"n"
    reply = client.wait(client.stat("/missing"))
    assert reply.text == "/missing: no such file or directory"


# -- listing


def test_empty_and_missing_directories(client: RawClient, filesystem: FS) -> None:
    filesystem.makedir("/empty")
    filesystem.writebytes("/file", b"")
    reply = client.wait(client.path(Kind.OPENDIR, "/empty"))
    requests = [client.send(Kind.READDIR, s(reply.handle)) for _ in range(6)]
    first, *rest = client.all(requests)
    assert [name for name, _, _ in first.names] == [".", ".."]
    assert [(other.kind, other.code) for other in rest] == [(Kind.STATUS, Status.EOF)] * 5
    assert client.wait(client.path(Kind.OPENDIR, "/missing")).code == Status.NO_SUCH_FILE
    assert client.wait(client.path(Kind.OPENDIR, "/file")).code == Status.FAILURE


def test_a_large_directory_comes_in_large_batches(
    client: RawClient, filesystem: FS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftp_gateway.files.directory_handle.BATCH_SECONDS", 1e9)
    filesystem.makedir("/many")
    for number in range(3000):
        filesystem.create(f"/many/{number:04d}-{'n' * 40}")
    handle = client.wait(client.path(Kind.OPENDIR, "/many")).handle
    names: list[str] = []
    batches = 0
    while True:
        reply = client.wait(client.send(Kind.READDIR, s(handle)))
        if reply.kind == Kind.STATUS:
            break
        batches += 1
        size = sum(len(name.encode()) + len(line.encode()) + 40 for name, line, _ in reply.names)
        assert size < 256 * 1024
        names += [name for name, _, _ in reply.names]
    assert reply.code == Status.EOF
    assert len(names) == len(set(names)) == 3002
    assert 2 < batches < 10


def test_longnames_are_those_of_ls(client: RawClient, filesystem: FS) -> None:
    now = time.time()
    filesystem.makedir("/dir")
    filesystem.writebytes("/dir/ü 😀", b"x" * 1234)
    filesystem.setinfo("/dir/ü 😀", {"details": {"modified": now - 3600}})
    filesystem.writebytes("/dir/old", b"")
    filesystem.setinfo("/dir/old", {"details": {"modified": 1_000_000_000}})
    filesystem.makedir("/dir/sub")
    lines = {name: (line, attrs) for name, line, attrs in client.listing("/dir")}
    recent = time.strftime("%b %e %H:%M", time.gmtime(now - 3600))
    assert lines["ü 😀"][0] == f"-rw-r--r--    1 owner    group        1234 {recent} ü 😀"
    assert lines["old"][0] == "-rw-r--r--    1 owner    group           0 Sep  9  2001 old"
    assert lines["sub"][0].startswith("drwxr-xr-x    1 owner    group           0 ")
    assert lines["ü 😀"][1].permissions == 0o100644
    assert lines["sub"][1].permissions == 0o040755
    assert lines["sub"][1].mtime == client.list("/dir")["sub"].mtime != 0


def test_stat_agrees_with_the_listing(client: RawClient, filesystem: FS) -> None:
    filesystem.writebytes("/f", b"12345")
    assert client.wait(client.lstat("/f")).attributes == client.list("/")["f"]
    assert client.wait(client.stat("/f/")).attributes.size == 5
    filesystem.makedir("/d")
    assert client.wait(client.stat("/d/.")).attributes.permissions == 0o040755
    assert client.wait(client.lstat("/d/..")).attributes.permissions == 0o040755


def test_handles_are_text(client: RawClient) -> None:
    """russh (Tabby) and others keep them in strings, and lose those that are not UTF-8: from the 128th file on."""
    for number in range(300):
        handle = client.opened(f"/{number}", W | C)
        assert handle.isascii()
        assert client.wait(client.close(handle)).ok


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


# -- names


def test_rename_rules(client: RawClient, filesystem: FS) -> None:
    filesystem.writebytes("/a", b"a")
    filesystem.writebytes("/b", b"b")
    filesystem.makedirs("/d/e")
    filesystem.writebytes("/d/e/f", b"f")
    assert client.wait(client.rename("/a", "/b")).code == Status.FAILURE
    assert (filesystem.readbytes("/a"), filesystem.readbytes("/b")) == (b"a", b"b")
    assert client.wait(client.rename("/a", "/d")).code == Status.FAILURE
    assert client.wait(client.rename("/missing", "/x")).code == Status.NO_SUCH_FILE
    assert client.wait(client.rename("/a", "/missing/x")).code == Status.NO_SUCH_FILE
    assert client.wait(client.posix_rename("/a", "/b")).ok
    assert filesystem.readbytes("/b") == b"a"
    assert not filesystem.exists("/a")
    assert client.wait(client.rename("/d", "/moved")).ok
    assert filesystem.readbytes("/moved/e/f") == b"f"
    assert client.wait(client.posix_rename("/b", "/moved")).code == Status.FAILURE
    assert client.wait(client.posix_rename("/moved", "/b")).code == Status.FAILURE
    assert client.wait(client.rename("/b", "/B")).ok
    assert filesystem.listdir("/") == ["moved", "B"] or set(filesystem.listdir("/")) == {"moved", "B"}


def test_a_missing_source_is_told_before_a_target_that_exists(client: RawClient, filesystem: FS) -> None:
    """Whoever is told that something is in the way removes that, and renames again."""
    filesystem.writebytes("/f", b"content")
    assert client.wait(client.rename("/missing", "/f")).code == Status.NO_SUCH_FILE
    assert client.wait(client.posix_rename("/missing", "/f")).code == Status.NO_SUCH_FILE
    assert filesystem.readbytes("/f") == b"content"


@pytest.mark.parametrize("end", ["/", "/.", "//"])
def test_no_file_takes_the_place_of_a_directory_that_is_missing(client: RawClient, filesystem: FS, end: str) -> None:
    """`scp a b/`, then `scp c b/`, where b is missing: the second would replace the first."""
    filesystem.writebytes("/a", b"a")
    for flags in (W | C | T, W | C, R | W | C | X, A | C):
        reply = client.wait(client.open(f"/b{end}", flags))
        assert (reply.code, reply.text) == (Status.FAILURE, f"/b{end}: there is no such directory")
    for request in (client.rename("/a", f"/b{end}"), client.posix_rename("/a", f"/b{end}")):
        assert client.wait(request).code == Status.FAILURE
    assert client.wait(client.open(f"/a{end}", W | C | T)).code == Status.FAILURE
    assert filesystem.listdir("/") == ["a"]
    assert filesystem.readbytes("/a") == b"a"
    assert client.wait(client.mkdir(f"/b{end}")).ok
    assert client.wait(client.open(f"/b{end}", W | C | T)).code == Status.FAILURE
    assert client.wait(client.posix_rename("/a", f"/b{end}")).code == Status.FAILURE
    assert client.wait(client.rename("/b", f"/c{end}")).ok
    assert sorted(filesystem.listdir("/")) == ["a", "c"]


def test_removing(client: RawClient, filesystem: FS) -> None:
    filesystem.makedirs("/d/sub")
    filesystem.writebytes("/d/f", b"f")
    assert client.wait(client.remove("/d")).code == Status.FAILURE
    assert client.wait(client.rmdir("/d")).code == Status.FAILURE
    assert client.wait(client.rmdir("/d/f")).code == Status.FAILURE
    assert client.wait(client.rmdir("/")).code == Status.FAILURE
    assert client.wait(client.rmdir("/missing")).code == Status.NO_SUCH_FILE
    assert client.wait(client.remove("/missing")).code == Status.NO_SUCH_FILE
    pipelined = [client.remove("/d/f"), client.rmdir("/d/sub"), client.rmdir("/d")]
    assert all(reply.ok for reply in client.all(pipelined))
    assert filesystem.listdir("/") == []


def test_making_directories(client: RawClient, filesystem: FS) -> None:
    requests = [client.mkdir("/d"), client.mkdir("/d/e"), client.open("/d/e/f", W | C)]
    made, below, opened = client.all(requests)
    assert made.ok
    assert below.ok
    assert client.wait(client.close(opened.handle)).ok
    assert client.wait(client.mkdir("/d")).code == Status.FAILURE
    assert client.wait(client.mkdir("/d/e/f")).code == Status.FAILURE
    assert client.wait(client.mkdir("/")).code == Status.FAILURE
    assert client.wait(client.mkdir("/missing/d")).code == Status.NO_SUCH_FILE
    assert client.wait(client.stat("/d")).attributes.permissions == 0o040755


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
    serving.close()


# -- rights


def test_read_only(serving: Serving, filesystem: FS) -> None:
    filesystem.writebytes("/f", b"x")
    filesystem.makedir("/d")
    client = serving.session(rights=Rights.READ_ONLY).raw()
    assert client.get("/f") == b"x"
    for request in (
        client.open("/f", W), client.open("/g", W | C | T), client.open("/f", R | W), client.open("/f", A),
        client.mkdir("/e"), client.rmdir("/d"), client.remove("/f"), client.rename("/f", "/g"),
        client.posix_rename("/f", "/g"), client.setstat("/f", size=0), client.setstat("/f", permissions=0o600),
    ):  # fmt: skip
        reply = client.wait(request)
        assert reply.code == Status.PERMISSION_DENIED
        assert "may only read" in reply.text
    assert filesystem.readbytes("/f") == b"x"


def test_write_only(serving: Serving, filesystem: FS) -> None:
    filesystem.writebytes("/theirs", b"x")
    filesystem.makedir("/d")
    client = serving.session(rights=Rights.WRITE_ONLY).raw()
    for request in (
        client.open("/theirs", R), client.open("/theirs", R | W), client.remove("/theirs"), client.rmdir("/d"),
        client.rename("/theirs", "/x"), client.posix_rename("/theirs", "/x"),
    ):  # fmt: skip
        assert client.wait(request).code == Status.PERMISSION_DENIED
    client.put("/f.filepart", b"mine")
    assert client.wait(client.posix_rename("/f.filepart", "/theirs")).code == Status.FAILURE
    assert client.wait(client.rename("/f.filepart", "/f")).ok
    assert client.wait(client.stat("/f")).attributes.size == 4
    assert client.wait(client.mkdir("/new")).ok
    assert set(client.list("/")) == {".", "..", "d", "new", "f"}
    assert client.wait(client.stat("/theirs")).code == Status.NO_SUCH_FILE
    assert client.wait(client.setstat("/theirs", size=0)).code == Status.PERMISSION_DENIED
    for flags in (W, W | C, W | C | T, W | C | X):  # replaces nothing
        assert client.wait(client.open("/theirs", flags)).code in (Status.FAILURE, Status.NO_SUCH_FILE)
    client.put("/f", b"mine again")
    assert client.wait(client.remove("/f")).ok
    assert filesystem.readbytes("/theirs") == b"x"
