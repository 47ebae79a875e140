"""Names of a storage that folds case: a client may spell the same file differently from one request to the next."""

from __future__ import annotations

import pytest

from fs_dropbox.emulator import Emulator
from sftp_gateway.sftp.packets import Status
from tests.sftp_gateway.conftest import ServeDropbox
from tests.sftp_gateway.raw_client import C, R, RawClient, T, W, X
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import eventually


@pytest.fixture
def serving(serve_dropbox: ServeDropbox) -> Serving:
    return serve_dropbox()


def test_a_file_being_written_is_found_in_every_spelling(client: RawClient) -> None:
    handle = client.opened("/Report.TXT", W | C | T)
    assert client.wait(client.write(handle, 0, b"content")).ok
    assert client.wait(client.stat("/report.txt")).attributes.size == 7
    assert client.wait(client.open("/REPORT.txt", W | C | X)).code == Status.FAILURE
    reading = client.opened("/report.TXT", R)
    assert client.wait(client.read(reading, 0, 100)).data == b"content"
    assert client.wait(client.remove("/report.txt")).ok
    assert not client.wait(client.close(handle)).ok
    assert client.wait(client.stat("/Report.TXT")).code == Status.NO_SUCH_FILE


def test_a_file_that_is_overwritten_in_another_spelling_is_listed_once(client: RawClient, emulator: Emulator) -> None:
    emulator.control.seed("/Report.TXT", b"old")
    handle = client.opened("/report.txt", W | C | T)
    assert client.wait(client.write(handle, 0, b"content")).ok
    listed = {name: found.size for name, found in client.list("/").items() if name not in (".", "..")}
    assert listed == {"Report.TXT": 7}
    assert client.wait(client.close(handle)).ok
    assert emulator.control.tree() == {"/Report.TXT": 7}


def test_requests_in_another_spelling_keep_their_place_behind_a_close(client: RawClient, emulator: Emulator) -> None:
    handle = client.opened("/Report.TXT", W | C | T)
    assert client.wait(client.write(handle, 0, b"content")).ok
    emulator.control.fault("files/upload", "stall", at="request")
    closing = client.close(handle)
    renaming = client.rename("/report.txt", "/Final.txt")
    looking = client.stat("/FINAL.TXT")
    eventually(lambda: emulator.control.faults_struck)
    assert not client.is_answered(renaming, within=0.1)
    emulator.control.release()
    assert [client.wait(request).ok for request in (closing, renaming)] == [True, True]
    assert client.wait(looking).attributes.size == 7
    assert emulator.control.read("/Final.txt") == b"content"
