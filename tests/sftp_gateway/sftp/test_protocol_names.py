"""What the protocol promises of names, whatever the filesystem: renaming, removing, making directories, rights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS

from sftp_gateway.files.tree import Rights
from sftp_gateway.sftp.packets import Status
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import A, C, R, RawClient, T, W, X
from tests.sftp_gateway.without_doors import Serving


@pytest.fixture(params=[MemoryFS, AtomicFS])
def filesystem(request: pytest.FixtureRequest) -> FS:
    make: Callable[[], FS] = request.param
    return make()


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
