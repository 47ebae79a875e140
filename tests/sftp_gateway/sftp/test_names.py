"""Names over the filesystems that people put behind the gateway: memory and local folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS
from fs.tempfs import TempFS

from sftp_gateway.sftp.packets import Kind, Status
from tests.sftp_gateway.raw_client import A, C, R, RawClient, T, W, X
from tests.sftp_gateway.without_doors import Serving


def _local(folder: Path) -> FS:
    return OSFS(str(folder))


@pytest.fixture(params=[lambda _: MemoryFS(), lambda _: TempFS(), _local])
def filesystem(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FS]:
    make: Callable[[Path], FS] = request.param
    (tmp_path / "files").mkdir()
    with make(tmp_path / "files") as filesystem:
        yield filesystem


@pytest.fixture
def client(filesystem: FS, tmp_path: Path) -> Iterator[RawClient]:
    serving = Serving(filesystem, tmp_path / "spool")
    yield serving.raw()
    serving.close()


@pytest.mark.parametrize("target", ["/a/new", "/a/sub", "/a/sub/deep", "/a/./x/../new"])
def test_no_directory_is_put_into_itself(client: RawClient, filesystem: FS, target: str) -> None:
    filesystem.makedirs("/a/sub")
    filesystem.writetext("/a/file", "content")
    for reply in client.all([client.rename("/a", target), client.posix_rename("/a", target)]):
        assert (reply.code, "into itself" in reply.text) == (Status.FAILURE, True)
    assert sorted(filesystem.walk.dirs("/")) == ["/a", "/a/sub"]
    assert filesystem.readtext("/a/file") == "content"
    assert client.wait(client.rename("/a", "/ab")).ok


def test_the_end_is_the_end_however_far_behind_it(client: RawClient, filesystem: FS) -> None:
    filesystem.writetext("/f", "content")
    handle = client.opened("/f", R)
    for offset in (7, 2**40, 2**62, 2**63, 2**64 - 1):
        assert client.wait(client.read(handle, offset, 10)).code == Status.EOF
    assert client.wait(client.read(handle, 0, 10)).data == b"content"


def test_nothing_is_put_into_a_file(client: RawClient, filesystem: FS) -> None:
    filesystem.writetext("/f", "content")
    filesystem.writetext("/g", "other")
    filesystem.makedir("/d")
    for request in (
        client.rename("/g", "/f/g"),
        client.posix_rename("/g", "/f/g"),
        client.rename("/d", "/f/d"),
        client.mkdir("/f/d"),
        client.open("/f/g", W | C | T),
        client.open("/f/g", W | C | X),
    ):
        reply = client.wait(request)
        assert (reply.kind, "internal" in reply.text) == (Kind.STATUS, False), reply
        assert reply.code in (Status.FAILURE, Status.NO_SUCH_FILE)
    assert (filesystem.readtext("/f"), filesystem.readtext("/g")) == ("content", "other")
    assert sorted(filesystem.listdir("/")) == ["d", "f", "g"]


@pytest.mark.parametrize("flags", [R, W, W | R, W | C])
def test_touch_sets_the_time_through_a_handle_where_it_can_be_set(
    client: RawClient, filesystem: FS, flags: int
) -> None:
    filesystem.writetext("/f", "content")
    handle = client.opened("/f", flags)
    assert client.wait(client.fsetstat(handle, mtime=1_500_000_000, atime=1_500_000_000)).ok
    assert client.wait(client.close(handle)).ok
    assert client.wait(client.stat("/f")).attributes.mtime == 1_500_000_000
    assert filesystem.readtext("/f") == "content"


@pytest.mark.parametrize("flags", [R, W | C | T, W, W | C | A])
def test_pipes_are_not_opened(tmp_path: Path, flags: int) -> None:
    (tmp_path / "files").mkdir()
    os.mkfifo(tmp_path / "files" / "pipe")
    os.symlink("pipe", tmp_path / "files" / "link")
    with OSFS(str(tmp_path / "files")) as filesystem:
        serving = Serving(filesystem, tmp_path / "spool")
        client = serving.raw()
        for name in ("/pipe", "/link"):
            reply = client.wait(client.open(name, flags))
            assert (reply.code, "no regular file" in reply.text) == (Status.FAILURE, True)
        assert "pipe" in client.list("/")
        serving.close()
