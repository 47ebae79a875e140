"""What hangs for one file delays nothing else, through the whole stack: SFTP, gateway, Dropbox backend, emulator."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import paramiko
import pytest

from fs_dropbox.emulator import Emulator
from sftp_gateway import SFTPGateway, UserConfig
from sftp_gateway.sftp.packets import Kind
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, Connect, StartGateway
from tests.sftp_gateway.raw_client import C, R, RawClient, T, W
from tests.waiting import eventually

DELAY_SECONDS = 0.05
PATIENCE_SECONDS = 60.0  # for one try without the noise of a busy machine; less than the stall lasts
TIMES = 9
BIG = bytes(range(256)) * 4096 * 8


@pytest.fixture
def gateway(emulator: Emulator, start_gateway: StartGateway) -> SFTPGateway:
    emulator.control.write("/stalled", BIG)
    emulator.control.write("/slow/file", b"x")
    for number in range(TIMES * 10):
        emulator.control.write(f"/files/{number}", b"x" * 50_000)
        emulator.control.write(f"/folder {number}/file", b"x")
    url = f"{emulator.fs_url}&cache=off"  # else the tree is listed as a whole once some of its directories were
    return start_gateway(users=(UserConfig(name="ann", password_hash=PASSWORD_HASH, url=url),))


def client(transport: paramiko.Transport) -> RawClient:
    channel = transport.open_session(timeout=20)
    channel.invoke_subsystem("sftp")
    return RawClient(channel).init()


class Work:
    """What else a session does; each time with files and folders that were not asked for before."""

    def __init__(self) -> None:
        self._next = 0

    def measure(self, client: RawClient) -> dict[str, float]:
        """Return the median seconds of a stat, a listing, a read and an upload, all of which need calls."""
        return {
            name: statistics.median(self._timed(step, client) for _ in range(TIMES))
            for name, step in (("stat", self._stat), ("list", self._list), ("read", self._read), ("put", self._put))
        }

    def _timed(self, step: Callable[[RawClient, int], None], client: RawClient) -> float:
        self._next += 1
        started = time.monotonic()
        step(client, self._next)
        return time.monotonic() - started

    def _stat(self, client: RawClient, number: int) -> None:
        assert client.wait(client.lstat(f"/folder {number % 90}/file")).kind == Kind.ATTRS

    def _list(self, client: RawClient, number: int) -> None:
        assert "file" in client.list(f"/folder {number % 90}")

    def _read(self, client: RawClient, number: int) -> None:
        assert len(client.get(f"/files/{number % 90}")) == 50_000

    def _put(self, client: RawClient, number: int) -> None:
        client.put(f"/folder {number % 90}/new", b"x" * 1000)


def stall_a_read(emulator: Emulator, client: RawClient) -> list[int]:
    handle = client.opened("/stalled", R)
    rev = emulator.control.metadata("/stalled")["rev"]
    emulator.control.fault("files/download", "stall", None, path=rev)
    return [client.read(handle, offset, 32768) for offset in range(0, 64 * 32768, 32768)]  # as many as OpenSSH has


def stall_a_commit(emulator: Emulator, client: RawClient) -> list[int]:
    handle = client.opened("/hangs", W | C | T)
    assert client.wait(client.write(handle, 0, b"x" * 1000)).ok
    emulator.control.fault("files/upload", "stall", None, path="/hangs")
    return [client.close(handle)]


def stall_a_listing(emulator: Emulator, client: RawClient) -> list[int]:
    emulator.control.fault("files/list_folder", "stall", None, path="/slow")
    return [client.path(Kind.OPENDIR, "/slow")]


@pytest.mark.parametrize("stall", [stall_a_read, stall_a_commit, stall_a_listing])
def test_a_stalled_call_delays_nothing_else_by_more_than_50_ms(
    gateway: SFTPGateway, emulator: Emulator, connect: Connect, stall: Callable[[Emulator, RawClient], list[int]]
) -> None:
    transport = connect(gateway, "ann", PASSWORD)
    same, sibling = client(transport), client(transport)  # one channel, and another of the same connection
    other = client(connect(gateway, "ann", PASSWORD))
    work = Work()
    before = work.measure(same)
    hanging = stall(emulator, same)
    eventually(lambda: emulator.control.faults_struck, "nothing stalls")
    assert not same.is_answered(hanging[0], within=0.2)
    deadline = time.monotonic() + PATIENCE_SECONDS
    for who in (same, sibling, other):
        while True:  # a busy machine is slow for a moment; what waits for the stalled call is so for ever
            during = work.measure(who)
            late = {name: during[name] for name in during if during[name] > before[name] + DELAY_SECONDS}
            if not late:
                break
            assert time.monotonic() < deadline, f"seconds: {late}, without a stall {before}"
    emulator.control.clear_faults()
    for reply in same.all(hanging):
        assert reply.ok or reply.kind in (Kind.DATA, Kind.HANDLE), reply
