"""Users who are configured cost nothing until they sign in; their folders are there, or they are told."""

from __future__ import annotations

import threading
import time
import tracemalloc

import paramiko
import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS

from sftp_gateway import UserConfig
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, Connect, LogLines, StartGateway
from tests.sftp_gateway.connections import sftp
from tests.waiting import eventually


def test_a_thousand_users_cost_nothing_until_they_sign_in(start_gateway: StartGateway, connect: Connect) -> None:
    opened: list[str] = []

    def open_filesystem(url: str) -> FS:
        opened.append(url)
        return MemoryFS()

    users = tuple(
        UserConfig(name=f"user{number}", password_hash=PASSWORD_HASH, url=f"mem://{number}") for number in range(1000)
    )
    start_gateway(users=users[:1], open_filesystem=open_filesystem).stop()  # what a first start costs is not theirs
    threads = threading.active_count()
    tracemalloc.start()
    started = time.process_time()
    gateway = start_gateway(users=users, open_filesystem=open_filesystem)
    seconds = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert opened == []
    assert threading.active_count() - threads < 10
    assert seconds < 1.0
    assert peak < 3_000_000
    assert sftp(connect(gateway, "user7", PASSWORD)).listdir("/") == []
    assert opened == ["mem://7"]


def test_idle_filesystems_close(start_gateway: StartGateway, connect: Connect) -> None:
    opened: list[FS] = []

    def open_filesystem(_url: str) -> FS:
        opened.append(MemoryFS())
        return opened[-1]

    gateway = start_gateway(open_filesystem=open_filesystem, account_idle_seconds=0.0)
    transport = connect(gateway, "ann", PASSWORD)
    for _ in range(3):  # channels
        assert sftp(transport).listdir("/") == []
    assert not opened[-1].isclosed()
    transport.close()
    eventually(lambda: all(filesystem.isclosed() for filesystem in opened))


@pytest.mark.parametrize("rights", ["read-write", "read-only", "write-only"])
def test_a_missing_root_is_made_if_that_was_asked_for(
    start_gateway: StartGateway, connect: Connect, rights: str
) -> None:
    memory = MemoryFS()
    user = UserConfig(
        name="ann",
        password_hash=PASSWORD_HASH,
        url="mem://",
        root="/devices/scanner",
        create_root=True,
        rights=rights,  # type: ignore[arg-type]
    )
    gateway = start_gateway(users=(user,), open_filesystem=lambda _url: memory)
    for _ in range(2):
        assert sftp(connect(gateway, "ann", PASSWORD)).listdir("/") == []
    assert memory.isdir("/devices/scanner")


@pytest.mark.parametrize(("exists", "reason"), [(False, "there is no folder /scans"), (True, "/scans is a file")])
def test_a_missing_root_is_said_in_the_log(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines, exists: bool, reason: str
) -> None:
    memory = MemoryFS()
    if exists:
        memory.writetext("/scans", "a file")
    user = UserConfig(name="ann", password_hash=PASSWORD_HASH, url="mem://", root="/scans", create_root=exists)
    gateway = start_gateway(users=(user,), open_filesystem=lambda _url: memory)
    with pytest.raises((paramiko.SSHException, EOFError)):
        sftp(connect(gateway, "ann", PASSWORD))
    (line,) = log_lines("login_refused", 1)
    assert reason in line["reason"]
    assert line["user"] == "ann"


def test_the_root_is_asked_for_once(start_gateway: StartGateway, connect: Connect) -> None:
    asked: list[str] = []

    class Watched(MemoryFS):
        def isdir(self, path: str) -> bool:
            asked.append(path)
            return bool(super().isdir(path))

    memory = Watched()
    memory.makedirs("/scans/2026")
    user = UserConfig(name="ann", password_hash=PASSWORD_HASH, url="mem://", root="/scans")
    gateway = start_gateway(users=(user,), open_filesystem=lambda _url: memory)
    for _ in range(3):
        assert sftp(connect(gateway, "ann", PASSWORD)).listdir("/") == ["2026"]
    assert asked.count("/scans") == 1
