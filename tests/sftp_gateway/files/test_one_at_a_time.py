"""A filesystem that says that it is not safe in threads: SMB's, and some of archives."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fs.memoryfs import MemoryFS
from fs.tarfs import TarFS

from sftp_gateway.files.one_at_a_time import one_at_a_time
from tests.sftp_gateway.files.essential_fs import Essential
from tests.sftp_gateway.raw_client import R
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import eventually


class NotThreadSafe(Essential):
    """Has its calls hang as long as its door is shut, and knows how many came in meanwhile."""

    _meta = {"thread_safe": False, "network": False}

    def __init__(self) -> None:
        super().__init__()
        self.door = threading.Event()
        self.door.set()
        self.inside = 0
        self.most = 0

    def passes(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        assert self.door.wait(20)
        self.inside -= 1

    def getinfo(self, path: str, namespaces: Any = None) -> Any:
        self.passes()
        return super().getinfo(path, namespaces)

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        file = super().openbin(path, mode, buffering, **options)
        read = file.read

        def read_alone(size: int = -1) -> bytes:
            self.passes()
            return bytes(read(size))

        file.read = read_alone
        return file


@pytest.fixture
def filesystem() -> NotThreadSafe:
    return NotThreadSafe()


def test_it_is_used_by_one_thread_at_a_time(filesystem: NotThreadSafe, tmp_path: Path) -> None:
    for number in range(8):
        filesystem.writebytes(f"/{number}", b"content")
    serving = Serving(one_at_a_time(filesystem), tmp_path / "spool")
    one, another = serving.raw(), serving.raw()
    handles = [(client, client.opened("/1", R)) for client in (one, another) for _ in range(2)]
    filesystem.door.clear()
    filesystem.most = 0
    reads = [(client, client.read(handle, 0, 10)) for client, handle in handles]
    looks = [(client, client.stat(f"/{number}")) for client in (one, another) for number in range(8)]
    eventually(lambda: serving.workers.load[1] >= 10)  # all others wait for the first
    filesystem.door.set()
    assert [client.wait(request).data for client, request in reads] == 4 * [b"content"]
    assert [client.wait(request).attributes.size for client, request in looks] == 16 * [7]
    assert filesystem.most == 1
    one.put("/new", b"more" * 10_000)
    assert one.get("/new") == b"more" * 10_000
    assert sorted(one.list("/"))[2:] == [*map(str, range(8)), "new"]
    serving.close()


def test_an_archive_gives_each_reader_its_own_file(tmp_path: Path) -> None:
    contents = {f"/{number}": bytes([65 + number]) * 300_000 for number in range(4)}
    archive = tmp_path / "archive.tar"
    with TarFS(str(archive), write=True) as writing:
        for path, content in contents.items():
            writing.writebytes(path, content)
    with TarFS(str(archive)) as storage, short_turns(), ThreadPoolExecutor(len(contents)) as threads:
        shared = one_at_a_time(storage)

        def pieces(path: str) -> set[bytes]:
            """Return what is read in many places."""
            file = shared.openbin(path)
            return {file.read(5000) for number in range(4000) if file.seek(number * 997 % 290_000) >= 0}

        for path, found in zip(contents, threads.map(pieces, contents), strict=True):
            assert found == {contents[path][:5000]}


@contextlib.contextmanager
def short_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_who_says_wrongly_that_it_is_safe_is_known() -> None:
    """Two threads that use one SFTP client of paramiko's wait for each other's answers for ever."""
    made = type("SSHFS", (Essential,), {"__module__": "fs.sshfs.sshfs", "_meta": {"thread_safe": True}})
    for kind in (made, type("Derived", (made,), {})):
        filesystem = kind()
        assert one_at_a_time(filesystem) is not filesystem


def test_others_are_used_as_they_are() -> None:
    for filesystem in (MemoryFS(), Essential()):
        assert one_at_a_time(filesystem) is filesystem
