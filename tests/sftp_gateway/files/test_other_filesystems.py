"""Filesystems that offer little: no abilities of their own, files that only go forward, wrappers around others."""

from __future__ import annotations

import gc
import io
import shutil
import struct
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fs.base import FS
from fs.errors import OperationFailed, RemoteConnectionError
from fs.info import Info
from fs.memoryfs import MemoryFS
from fs.mountfs import MountFS
from fs.multifs import MultiFS
from fs.osfs import OSFS
from fs.wrap import read_only
from fs.wrapfs import WrapFS

from sftp_gateway.files.tree import Tree, TreeLimits
from sftp_gateway.sftp.packets import Kind, Status
from tests.sftp_gateway.files.essential_fs import Essential
from tests.sftp_gateway.raw_client import C, R, RawClient, T, W, s
from tests.sftp_gateway.without_doors import Serving


class Forward(io.RawIOBase):
    """A file that is read from the first byte to the last, as from a stream."""

    def __init__(self, file: Any) -> None:
        self._inner = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._inner.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._inner.close()
        super().close()


class ForwardOnly(Essential):
    """Its files cannot be read at positions."""

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        file = super().openbin(path, mode, buffering, **options)
        return Forward(file) if mode.startswith("r") else file


def test_files_that_only_go_forward_are_copied_as_long_as_there_is_room(tmp_path: Path) -> None:
    """Else a few of them would fill the disk."""
    filesystem = ForwardOnly()
    with filesystem:
        filesystem._inner.writebytes("/large", bytes(3 * 2**20))
        filesystem._inner.writebytes("/small", b"content")
        serving = Serving(filesystem, tmp_path / "spool", limits=TreeLimits(spool_quota=4 * 2**20))
        client = serving.raw()
        handle = client.opened("/large", R)
        reply = client.wait(client.open("/large", R))
        assert reply.code == Status.FAILURE
        assert "has no room for a copy of it" in reply.text
        assert client.get("/small") == b"content"
        assert client.wait(client.close(handle)).ok
        assert client.get("/large") == bytes(3 * 2**20)
        assert serving.tree.store.quota.used == 0
        serving.close()


def mounted() -> FS:
    outer = MountFS()
    outer.mount("one", MemoryFS())
    return outer


def layered() -> FS:
    outer = MultiFS()
    outer.add_fs("one", MemoryFS(), write=True)
    outer.makedir("one")
    return outer


@pytest.fixture(params=[Essential, ForwardOnly, mounted, layered, lambda: WrapFS(MemoryFS())])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RawClient]:
    make: Callable[[], FS] = request.param
    filesystem = make()
    filesystem.makedir("/one", recreate=True)
    serving = Serving(filesystem, tmp_path / "spool")
    yield serving.raw()
    serving.close()
    filesystem.close()


def test_files_and_directories(client: RawClient) -> None:
    content = bytes(range(256)) * 1000
    client.put("/one/f", content)
    assert client.get("/one/f", piece=100_000) == content
    handle = client.opened("/one/f", R | W)
    assert client.wait(client.write(handle, 100, b"changed")).ok
    assert client.wait(client.read(handle, 98, 10)).data == content[98:100] + b"changed" + content[107:108]
    assert client.wait(client.close(handle)).ok
    assert client.wait(client.read(client.opened("/one/f", R), 255_999, 10)).data == content[-1:]

    assert client.wait(client.mkdir("/one/d")).ok
    assert client.wait(client.mkdir("/one/d/empty")).ok
    assert client.wait(client.posix_rename("/one/f", "/one/d/g")).ok
    assert client.wait(client.rename("/one/d", "/one/e")).ok
    assert sorted(client.list("/one")) == [".", "..", "e"]
    assert sorted(client.list("/one/e")) == [".", "..", "empty", "g"]
    assert client.get("/one/e/g")[100:107] == b"changed"
    for request in (client.remove("/one/e/g"), client.rmdir("/one/e/empty"), client.rmdir("/one/e")):
        assert client.wait(request).ok


def test_nothing_is_put_below_a_file(client: RawClient) -> None:
    """Not even where the storage would take it, and lose it."""
    client.put("/one/f", b"content")
    assert client.wait(client.mkdir("/one/d")).ok
    client.put("/one/d/g", b"kept")
    for request in (
        client.rename("/one/d", "/one/f/d"),
        client.rename("/one/d/g", "/one/f/g"),
        client.mkdir("/one/f/n"),
    ):
        assert client.wait(request).code == Status.NO_SUCH_FILE
    assert client.get("/one/d/g") == b"kept"
    assert client.get("/one/f") == b"content"


def test_listings_do_not_hold_anybody_up(client: RawClient) -> None:
    for number in range(5):
        client.put(f"/one/{number}", b"")
    directories = [client.wait(client.send(11, s("/one"))).handle for _ in range(8)]  # begun and never ended
    client.put("/one/more", b"content")
    assert len({name for name, _, _ in client.wait(client.send(12, s(directories[0]))).names}) == 7
    assert client.get("/one/more") == b"content"


def test_a_wrapper_that_answers_every_question_does_not_tell_how_full_it_is(tmp_path: Path) -> None:
    with read_only(MemoryFS()) as filesystem:
        serving = Serving(filesystem, tmp_path / "spool")
        client = serving.raw()
        assert "statvfs@openssh.com" not in client.extensions
        assert client.wait(client.extended("statvfs@openssh.com", s("/"))).code == Status.OP_UNSUPPORTED
        assert client.wait(client.mkdir("/d")).code == Status.PERMISSION_DENIED
        assert client.wait(client.open("/f", W | C | T)).code == Status.PERMISSION_DENIED  # before a byte is sent
        serving.close()


@pytest.mark.parametrize(
    "wrap", [lambda filesystem: filesystem, read_only, lambda filesystem: filesystem.opendir("/d")]
)
def test_a_folder_on_a_disk_tells_how_full_that_is(tmp_path: Path, wrap: Callable[[FS], FS]) -> None:
    (tmp_path / "served" / "d").mkdir(parents=True)
    with wrap(OSFS(str(tmp_path / "served"))) as filesystem:
        serving = Serving(filesystem, tmp_path / "spool")
        client = serving.raw()
        assert client.extensions["statvfs@openssh.com"] == "2"
        size, _, blocks, free, *_ = struct.unpack(
            ">11Q", client.wait(client.extended("statvfs@openssh.com", s("/"))).data
        )
        disk = shutil.disk_usage(tmp_path)
        assert abs(size * blocks - disk.total) <= size
        assert 0 < free < blocks
        serving.close()


class Odd(Essential):
    """Raises what no filesystem should."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def removedir(self, path: str) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("/secret"), "internal error (KeyError) in rmdir, of which the gateway's log tells more"),
        (OperationFailed(msg='the answer was {"error": 1}'), 'the answer was {"error": 1}'),
        (ConnectionResetError(104, "Connection reset by peer"), "the system failed: Connection reset by peer"),
    ],
)
def test_what_a_filesystem_must_not_raise_is_told_with_path_and_operation(
    tmp_path: Path, error: Exception, reason: str
) -> None:
    with Odd(error) as filesystem:
        filesystem.makedir("/d")
        serving = Serving(filesystem, tmp_path / "spool")
        session = serving.session()
        client = session.raw()
        reply = client.wait(client.rmdir("/d"))
        assert (reply.code, reply.text) == (Status.FAILURE, f"/d: {reason}")
        is_bug = isinstance(error, KeyError)
        assert ["in removedir" in trace and "KeyError" in trace for trace in session.events.traces] == [True] * is_bug
        assert client.wait(client.lstat("/d")).attributes.size is not None
        serving.close()


class Uploading(Essential):
    """Hands uploads to a library that wants to know first how much there is, and begins anew where it has to."""

    def upload(self, path: str, file: Any, chunk_size: int | None = None, **options: Any) -> None:
        assert (file.readable(), file.seekable(), file.tell()) == (True, True, 0)
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        first = bytearray(min(size, 10))
        assert file.readinto(first) == len(first)
        file.seek(-len(first), io.SEEK_CUR)
        content = file.read()
        assert (content[:10], len(content)) == (first, size)
        self._inner.writebytes(path, content)


def test_uploads_are_files_in_every_respect(tmp_path: Path) -> None:
    with Uploading() as filesystem:
        serving = Serving(filesystem, tmp_path / "spool")
        client = serving.raw()
        for content in (b"", b"content", bytes(range(256)) * 10_000):
            client.put("/f", content)
            assert client.get("/f") == content
        serving.close()


class Flaky(Essential):
    """Cannot be reached when one of its files is looked at."""

    is_away = True

    def getinfo(self, path: str, namespaces: Any = None) -> Any:
        if path.endswith("away") and self.is_away:
            raise RemoteConnectionError(path)
        return super().getinfo(path, namespaces)


def test_what_cannot_be_looked_at_just_now_is_not_left_out_of_a_listing(tmp_path: Path) -> None:
    """Whoever mirrors the directory would take it for removed."""
    filesystem = Flaky()
    with filesystem:
        filesystem.writebytes("/here", b"")
        filesystem._inner.writebytes("/away", b"")
        serving = Serving(filesystem, tmp_path / "spool")
        client = serving.raw()
        assert client.wait(client.path(Kind.OPENDIR, "/")).code == Status.FAILURE
        filesystem.is_away = False
        assert sorted(client.list("/")) == [".", "..", "away", "here"]
        serving.close()


class Remembering(Essential):
    """Knows which of the infos that it gave are still kept by anybody."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[weakref.ref[Info]] = []

    def getinfo(self, path: str, namespaces: Any = None) -> Info:
        class Kept(Info):
            """Can be referred to weakly."""

        info = Kept(super().getinfo(path, namespaces).raw)
        self.given.append(weakref.ref(info))
        return info


def test_a_directory_that_is_open_needs_little_memory(tmp_path: Path) -> None:
    """A client may have a thousand of them open."""
    storage = Remembering()
    with storage:
        for number in range(100):
            storage.writebytes(f"/{number}", b"")
        tree = Tree(storage, spool_directory=tmp_path)
        handle = tree.view().open_directory("/")
        gc.collect()
        assert len(storage.given) >= 100
        assert not any(info() for info in storage.given)
        assert len(handle.next_batch()) == 102
        tree.close()


def test_large_directories_that_are_open_are_packed(tmp_path: Path) -> None:
    with MemoryFS() as storage:
        for number in range(3000):
            storage.writebytes(f"/{number}.pdf", b"." * (number % 300))
        tree = Tree(storage, spool_directory=tmp_path)
        tracemalloc.start()
        handles = [tree.view().open_directory("/") for _ in range(10)]
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert kept / len(handles) / 3000 < 60, "bytes for each name of each of them"
        shown = {name: value.size for name, value in tree.store.looking.scan("/")}
        assert shown == {f"{number}.pdf": number % 300 for number in range(3000)}
        tree.close()
