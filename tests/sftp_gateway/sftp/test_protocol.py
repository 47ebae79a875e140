"""What the protocol promises whatever the filesystem: versions, limits, broken requests, paths, listings."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS

from sftp_gateway.sftp.packets import Kind, Status
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import C, R, RawClient, W, X, s
from tests.sftp_gateway.without_doors import Serving


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
