"""What is answered in a session's own thread: as much as cannot block, so that the session never stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fs.info import Info
from fs.memoryfs import MemoryFS

from sftp_gateway.requests.at_once import SMALL_COMMIT_BYTES
from sftp_gateway.requests.room import ChannelLimits
from sftp_gateway.sftp.packets import Kind, Status
from tests.sftp_gateway.atomic_fs import AtomicFS, KnownFS
from tests.sftp_gateway.raw_client import C, R, RawClient, T, W, s
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import DEADLINE_SECONDS, eventually

LARGE = bytes(SMALL_COMMIT_BYTES + 1)


class LocalFS(AtomicFS):
    """On a disk, which nevertheless may hang."""

    def __init__(self) -> None:
        super().__init__()
        self._meta = {**self._meta, "network": False}


@pytest.fixture
def filesystem() -> LocalFS:
    return LocalFS()


def written(client: RawClient, path: str, content: bytes) -> bytes:
    """Write a file and leave it open; return the handle."""
    handle = client.opened(path, W | C | T)
    assert client.wait(client.write(handle, 0, content[:200_000])).ok
    for at in range(200_000, len(content), 200_000):
        assert client.wait(client.write(handle, at, content[at : at + 200_000])).ok
    return handle


def goes_on(client: RawClient) -> bool:
    """Tell whether a session answers what cannot block."""
    return client.is_answered(client.path(Kind.REALPATH, "/"), within=10)


@pytest.mark.parametrize(
    "ask",
    [
        lambda client, handle: client.close(handle),
        lambda client, _: client.remove("/d/f"),
        lambda client, _: client.rename("/d/f", "/g"),
        lambda client, _: client.posix_rename("/h", "/d/f"),
        lambda client, _: client.rename("/h", "/d/f"),
        lambda client, _: client.open("/d/f", W | C | T),
        lambda client, _: client.mkdir("/d/f/g"),
        lambda client, _: client.rename("/d", "/e"),
    ],
    ids=["close", "remove", "rename", "replace", "rename to", "open", "mkdir", "rename above"],
)
def test_a_session_goes_on_while_a_path_is_changed_that_another_wants_to_change(
    serving: Serving, filesystem: LocalFS, ask: Callable[[RawClient, bytes], int]
) -> None:
    filesystem.makedir("/d")
    filesystem.writebytes("/h", b"other")
    first, second = serving.raw(), serving.raw()
    large, small = written(first, "/d/f", LARGE), written(second, "/d/f", b"small")
    with filesystem.stalled("commit", "/d/f"):
        stored = first.close(large)
        eventually(lambda: "/d/f" in filesystem.happened("commit"))
        assert goes_on(first)
        asked = ask(second, small)
        assert goes_on(second)
        assert not second.is_answered(asked, within=0.05), second.replies
    assert first.wait(stored).ok
    assert second.wait(asked).kind in (Kind.STATUS, Kind.HANDLE)


def test_what_follows_on_the_close_of_a_renamed_file_waits_for_it(tmp_path: Path, filesystem: LocalFS) -> None:
    serving = Serving(filesystem, tmp_path, channel_limits=ChannelLimits(running=1))
    client = serving.raw()
    first, second = written(client, "/a", LARGE), written(client, "/b", LARGE)
    assert client.wait(client.rename("/b", "/c")).ok
    with filesystem.stalled("commit", "/a"):
        closed = [client.close(first), client.close(second)]
        removed = client.remove("/c")
        assert goes_on(client)
    assert all(reply.ok for reply in client.all([*closed, removed]))
    assert filesystem.listdir("/") == ["a"]
    transfers = [transfer.path for transfer in serving.sessions[0].events.transfers]
    assert transfers == ["/a", "/c"]
    serving.close()


def test_nothing_is_read_from_a_disk_for_a_client_that_has_left(serving: Serving, filesystem: LocalFS) -> None:
    """However much it has asked for before."""
    filesystem.writebytes("/f", LARGE)
    client = serving.raw()
    handle = client.opened("/f", R)
    for number in range(1000):
        client.read(handle, number, 2**18)
    (channel,) = serving.sessions[0].channels
    eventually(lambda: channel._stream.pending > ChannelLimits().output_bytes)
    client.channel.close()
    assert channel.wait(DEADLINE_SECONDS)
    assert len(filesystem.happened("pread")) < 100


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(AtomicFS(), tmp_path)
    yield serving
    serving.close()


def test_what_is_asked_of_a_file_comes_after_its_beginning(remote: Serving) -> None:
    """As far as the storage has to be asked for that."""
    client, filesystem = remote.raw(), remote.filesystem
    assert isinstance(filesystem, AtomicFS)
    filesystem.makedir("/d")
    with filesystem.stalled("getinfo", "/d"):
        opened = client.open("/d/f", W | C)
        looked = client.stat("/d/f")
        assert not client.is_answered(looked, within=0.2)
    assert client.wait(opened).kind == Kind.HANDLE
    assert client.wait(looked).kind == Kind.ATTRS


def test_a_session_goes_on_while_the_storage_takes_a_time(remote: Serving) -> None:
    client, filesystem = remote.raw(), remote.filesystem
    assert isinstance(filesystem, AtomicFS)
    filesystem.writebytes("/f", b"content")
    handle = client.opened("/f", R)
    with filesystem.stalled("getinfo", "/f"):
        asked = client.fsetstat(handle, atime=1000, mtime=1000)
        assert goes_on(client)
    assert client.wait(asked).ok


class LongFS(AtomicFS):
    """With one directory, whose listing comes in two pages."""

    def scandir(self, path: str, namespaces: Any = None, page: Any = None) -> Iterator[Info]:
        for number in range(2500):
            if number == 1500:
                self.passes("next page", path)
            yield Info({"basic": {"name": str(number), "is_dir": False}})


def test_a_session_goes_on_while_a_directory_is_listed(tmp_path: Path) -> None:
    with LongFS() as filesystem:
        serving = Serving(filesystem, tmp_path)
        client = serving.raw()
        handle = client.wait(client.path(Kind.OPENDIR, "/")).handle
        with filesystem.stalled("next page", "/"):
            asked = [client.send(Kind.READDIR, s(handle)) for _ in range(5)]
            assert goes_on(client)
            assert not client.is_answered(asked[-1], within=0.05)
        replies = [reply for reply in client.all(asked) if reply.kind == Kind.NAME]
        assert sum(len(reply.names) for reply in replies) == 2502  # with . and ..
        serving.close()


@pytest.mark.parametrize("make", [AtomicFS, LocalFS, KnownFS])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_so_many_handles_are_open_at_once(tmp_path: Path, make: Callable[[], AtomicFS], kind: str) -> None:
    with make() as filesystem:
        serving = Serving(filesystem, tmp_path, channel_limits=ChannelLimits(handles=3))
        client = serving.raw()

        def opened(number: int) -> int:
            return client.path(Kind.OPENDIR, "/") if kind == "directory" else client.open(f"/{number}", W | C)

        replies = [client.wait(opened(number)) for number in range(4)]
        assert [reply.kind for reply in replies] == [Kind.HANDLE] * 3 + [Kind.STATUS]
        assert replies[3].text.endswith(": more than 3 handles are open")
        assert client.wait(client.close(replies[0].handle)).ok
        assert client.wait(opened(5)).kind == Kind.HANDLE
        serving.close()


def test_times_of_what_is_open_for_reading_are_set(tmp_path: Path) -> None:
    """A file as well as a directory, as by their names."""
    with MemoryFS() as filesystem:
        filesystem.writebytes("/f", b"content")
        filesystem.makedir("/d")
        serving = Serving(filesystem, tmp_path)
        client = serving.raw()
        file, directory = client.opened("/f", R), client.wait(client.path(Kind.OPENDIR, "/d")).handle
        for path, handle in (("/f", file), ("/d", directory)):
            assert client.wait(client.fsetstat(handle, atime=1000, mtime=1000)).ok
            assert client.wait(client.stat(path)).attributes.mtime == 1000
            assert client.wait(client.setstat(path, atime=2000, mtime=2000)).ok
            assert client.wait(client.stat(path)).attributes.mtime == 2000
        assert client.wait(client.fsetstat(b"none", atime=1, mtime=1)).code == Status.FAILURE
        serving.close()
