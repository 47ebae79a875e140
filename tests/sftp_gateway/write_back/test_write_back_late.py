"""Write-back and calls that Dropbox carries out late: what a gateway that died had asked for undoes nothing since."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from fs_dropbox.emulator import Emulator
from tests.sftp_gateway.write_back.remote_fs import put
from tests.sftp_gateway.write_back.write_back_gateway import WriteBackGateway
from tests.waiting import eventually

UPLOAD = "files/upload"
FINISH = "files/upload_session/finish_batch_v2"
DELETE = "files/delete_v2"
WEEK_SECONDS = 7 * 86400


@pytest.fixture
def gateway(emulator: Emulator, tmp_path: Path) -> Iterator[WriteBackGateway]:
    made = WriteBackGateway(emulator, tmp_path)
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


def hold(emulator: Emulator, *routes: str) -> None:
    """Have the next call of each of these routes carried out when the test lets it go; its client waits."""
    for route in routes:
        emulator.control.fault(route, "late", hang_up=False)


def let_go(emulator: Emulator, *routes: str) -> None:
    """Have the held call of one of these routes carried out, and wait for that."""
    assert any(emulator.control.under_way(route) for route in routes)
    emulator.control.release()
    eventually(lambda: not any(emulator.control.under_way(route) for route in routes), "it is not carried out")


def tree(emulator: Emulator, expected: dict[str, int]) -> None:
    eventually(lambda: emulator.control.tree() == expected, lambda: f"{emulator.control.tree()} is not {expected}")


def die_in_a_commit(emulator: Emulator, gateway: WriteBackGateway, names: list[str], mode: str = "w") -> None:
    """Put files, and kill the gateway when it has asked Dropbox to store them; Dropbox has not yet."""
    hold(emulator, UPLOAD, FINISH)
    with gateway.client() as client:
        for name in names:
            with client.open(name, mode) as file:
                file.write(b"first")
        eventually(lambda: emulator.control.faults_struck, "nothing is delivered")
    gateway.kill()
    assert emulator.control.tree() == {}


@pytest.mark.parametrize(("count", "mode"), [(1, "w"), (6, "w"), (1, "wx")])
def test_a_commit_on_its_way_at_kill_9_undoes_nothing(
    emulator: Emulator, gateway: WriteBackGateway, count: int, mode: str
) -> None:
    names = [f"/{number}" for number in range(count)]
    die_in_a_commit(emulator, gateway, names, mode)
    gateway.start()
    tree(emulator, dict.fromkeys(names, 5))
    with gateway.client() as client:
        expected = {}
        for number, name in enumerate(names):
            if number % 3 == 0:
                client.remove(name)
            elif number % 3 == 1:
                client.rename(name, f"{name}-renamed")
                expected[f"{name}-renamed"] = 5
            else:
                put(client, name, b"second")
                expected[name] = 6
    tree(emulator, expected)
    let_go(emulator, UPLOAD, FINISH)
    assert emulator.control.tree() == expected


def test_a_removal_right_after_the_restart_waits_for_what_was_on_its_way(
    emulator: Emulator, gateway: WriteBackGateway
) -> None:
    die_in_a_commit(emulator, gateway, ["/f", "/g"])
    hold(emulator, FINISH)
    gateway.start()
    with gateway.client() as client:
        removing = threading.Thread(target=client.remove, args=("/f",))
        removing.start()
        eventually(lambda: emulator.control.faults_struck == 2)
        assert removing.is_alive()
        emulator.control.release()
        removing.join(30)
        assert client.listdir("/") == ["g"]
    tree(emulator, {"/g": 5})


def test_what_was_carried_out_before_the_restart_is_stored_once(emulator: Emulator, gateway: WriteBackGateway) -> None:
    die_in_a_commit(emulator, gateway, ["/f"])
    let_go(emulator, FINISH)
    assert emulator.control.tree() == {"/f": 5}
    emulator.control.write("/f", b"by another")
    gateway.start()
    eventually(lambda: emulator.control.calls()[FINISH] >= 2)
    with gateway.client() as client:
        client.rename("/f", "/renamed")  # waits until it is known what became of it
    assert emulator.control.read("/renamed") == b"by another"


def test_what_dropbox_has_forgotten_is_sent_once_more(emulator: Emulator, gateway: WriteBackGateway) -> None:
    die_in_a_commit(emulator, gateway, ["/f", "/g"])
    emulator.control.advance(WEEK_SECONDS + 1)
    gateway.start()
    tree(emulator, {"/f": 5, "/g": 5})
    let_go(emulator, FINISH)
    assert emulator.control.tree() == {"/f": 5, "/g": 5}


def test_a_lost_call_of_a_gateway_that_lives_undoes_nothing(emulator: Emulator, gateway: WriteBackGateway) -> None:
    for route in (UPLOAD, FINISH):
        emulator.control.fault(route, "late")
    with gateway.client() as client:
        put(client, "/f", b"first")
        tree(emulator, {"/f": 5})
        client.remove("/f")
    tree(emulator, {})
    let_go(emulator, UPLOAD, FINISH)
    assert emulator.control.tree() == {}


def test_a_removal_on_its_way_at_kill_9_takes_no_newer_version(emulator: Emulator, gateway: WriteBackGateway) -> None:
    """Dropbox is told which revision is to go."""
    emulator.control.write("/f", b"first")
    hold(emulator, DELETE)
    with gateway.client() as client:
        removing = threading.Thread(target=remove, args=(client, "/f"))
        removing.start()
        eventually(lambda: emulator.control.faults_struck)
        gateway.kill()
        removing.join(30)
    gateway.start()
    with gateway.client() as client:
        put(client, "/f", b"second")
        tree(emulator, {"/f": 6})
        let_go(emulator, DELETE)
        assert client.stat("/f").st_size == 6
    assert emulator.control.tree() == {"/f": 6}


def remove(client: paramiko.SFTPClient, path: str) -> None:
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        client.remove(path)
