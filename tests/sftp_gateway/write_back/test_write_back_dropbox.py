"""Write-back over an emulated Dropbox: what it costs in calls, and whose journal is whose."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fs_dropbox.emulator import Emulator
from sftp_gateway import GatewayConfig, SFTPGateway, UserConfig
from sftp_gateway.cli import cli
from sftp_gateway.write_back.journal_rows import Totals
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, Connect, LogLines, StartGateway
from tests.sftp_gateway.connections import sftp
from tests.sftp_gateway.write_back.remote_fs import RemoteFS, Unclosed, put
from tests.waiting import eventually


def user(url: str, name: str = "ann", *, write_back: bool = True) -> UserConfig:
    return UserConfig(name=name, password_hash=PASSWORD_HASH, url=url, write_back=write_back)


def delivered(gateway: SFTPGateway) -> None:
    eventually(lambda: gateway.pending().waiting == 0, "not delivered", 60)


@pytest.mark.parametrize("mode", ["w", "wx", "a"])  # sshfs and restic create exclusively
def test_many_files_cost_few_calls(
    emulator: Emulator, start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    for number in range(100 if mode == "a" else 0):
        emulator.control.write(f"/scans/{number}", b"")
    monkeypatch.setattr("sftp_gateway.write_back.delivery.QUIET_SECONDS", 3.0)  # a busy machine may pause between two
    gateway = start_gateway(users=(user(emulator.fs_url),), write_back_delay_seconds=60.0)
    with connect(gateway, "ann", PASSWORD).open_sftp_client() as client:
        if mode != "a":
            client.mkdir("/scans")
        client.listdir("/scans")
        emulator.control.reset_counts()
        for number in range(100):
            put(client, f"/scans/{number}", bytes(1000 + number), mode)
        delivered(gateway)
        feed = ("files/list_folder/longpoll", "files/list_folder/continue")  # more of them the longer it takes
        calls = {route: count for route, count in emulator.control.calls().items() if route not in feed}
    assert len(emulator.control.tree("/scans")) == 100
    assert sum(calls.values()) <= 20, calls
    assert sum(count for route, count in calls.items() if "upload" in route) <= 10, calls


def test_a_tree_costs_dropbox_no_call_for_its_directories(
    emulator: Emulator, start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftp_gateway.write_back.delivery.QUIET_SECONDS", 3.0)  # a busy machine may pause between two
    gateway = start_gateway(users=(user(emulator.fs_url),), write_back_delay_seconds=60.0)
    with connect(gateway, "ann", PASSWORD).open_sftp_client() as client:
        client.listdir("/")
        emulator.control.reset_counts()
        client.mkdir("/tree")
        for number in range(20):
            client.mkdir(f"/tree/{number}")
            for name in "abcde":
                put(client, f"/tree/{number}/{name}", bytes(1000 + number))
        eventually(lambda: not gateway.pending().is_anything_waiting, "not delivered", 60)
        feed = ("files/list_folder/longpoll", "files/list_folder/continue")
        calls = {route: count for route, count in emulator.control.calls().items() if route not in feed}
        assert len(client.listdir("/tree")) == 20
    assert len([path for path, size in emulator.control.tree("/tree").items() if size]) == 100
    assert "files/create_folder_v2" not in calls
    assert sum(calls.values()) <= 20, calls


def test_what_it_has_is_told(emulator: Emulator, start_gateway: StartGateway, connect: Connect) -> None:
    gateway = start_gateway(users=(user(emulator.fs_url),))
    assert gateway.pending() == Totals()
    emulator.control.fault("files/upload", "stall")
    with connect(gateway, "ann", PASSWORD).open_sftp_client() as client:
        put(client, "/f", b"12345")
        before = gateway.pending()
        assert (before.waiting, before.failed, before.bytes) == (1, 0, 5)
        assert before.oldest is not None
        assert time.time() - before.oldest < 60
        emulator.control.clear_faults()
        delivered(gateway)
    assert gateway.pending() == Totals()


def test_accents_of_pending_names_are_one_however_they_are_written(
    emulator: Emulator, start_gateway: StartGateway, connect: Connect
) -> None:
    composed, apart = "Café", "Cafe\u0301"
    gateway = start_gateway(users=(user(emulator.fs_url),), write_back_delay_seconds=60.0)
    with connect(gateway, "ann", PASSWORD).open_sftp_client() as client:
        put(client, f"/{apart}", b"from macOS")
        assert client.listdir("/") == [composed]
        assert client.stat(f"/{composed.upper()}").st_size == 10
        put(client, f"/{composed}", b"again")
        assert client.listdir("/") == [composed]
        client.rename(f"/{apart}", "/renamed")
        assert client.listdir("/") == ["renamed"]
        delivered(gateway)
    assert emulator.control.tree() == {"/renamed": 5}


@pytest.mark.parametrize("mode", ["w", "wx", "a"])
def test_names_are_refused_in_directories_that_are_still_to_be_made(
    emulator: Emulator, start_gateway: StartGateway, connect: Connect, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr("sftp_gateway.write_back.delivery.QUIET_SECONDS", 1000.0)
    gateway = start_gateway(users=(user(emulator.fs_url),), write_back_delay_seconds=1000.0)
    with connect(gateway, "ann", PASSWORD).open_sftp_client() as client:
        client.mkdir("/copied")
        with pytest.raises(OSError, match=r"reserves the name 'desktop\.ini'"):
            client.open("/copied/desktop.ini", mode)
        assert client.listdir("/copied") == []


def test_people_with_credentials_have_no_write_back(
    emulator: Emulator, start_gateway: StartGateway, connect: Connect, tmp_path: Path
) -> None:
    gateway = start_gateway(users=(), url_parameters=emulator.fs_url.partition("?")[2])
    name, secret = f"{emulator.app_key}~{emulator.app_secret}", emulator.refresh_token
    with connect(gateway, name, secret).open_sftp_client() as client:
        put(client, "/f", b"content")
        assert emulator.control.exists("/f")
    assert not (tmp_path / "state" / "journal").exists()


def test_a_new_token_takes_over_what_waits(start_gateway: StartGateway, connect: Connect, log_lines: LogLines) -> None:
    filesystem = RemoteFS()
    filesystem.reachable.clear()

    def gateway(token: str, name: str = "ann", *, write_back: bool = True) -> SFTPGateway:
        url = f"dropbox://key~secret:{token}@/"
        return start_gateway(
            users=(user(url, name, write_back=write_back),), open_filesystem=lambda _: Unclosed(filesystem)
        )

    first = gateway("token-1")
    with connect(first, "ann", PASSWORD).open_sftp_client() as client:
        put(client, "/f", b"content")
    first.stop()
    other = gateway("token-2", "bob")
    assert log_lines("delayed", 1)
    eventually(lambda: any("no user has the URL" in line["reason"] for line in log_lines("delayed")), "it was not told")
    assert other.pending().waiting == 1, "another user is another account"
    other.stop()
    filesystem.reachable.set()
    second = gateway("token-2")
    eventually(lambda: filesystem.exists("/f"), "the new token did not take it over")
    with connect(second, "ann", PASSWORD).open_sftp_client() as client:
        filesystem.reachable.clear()
        put(client, "/g", b"content")
    second.stop()
    filesystem.reachable.set()
    gateway("token-2", write_back=False)  # delivered although nobody has write-back any more
    eventually(lambda: filesystem.exists("/g"), "not delivered")


class OfAccount(RemoteFS):
    """A filesystem that tells whose account it is, as the token says."""

    def __init__(self) -> None:
        super().__init__()
        self.account = "ann's"

    def getmeta(self, namespace: str = "standard") -> Any:
        return {"id": self.account} if namespace == "account" else super().getmeta(namespace)


@pytest.mark.parametrize("token", ["token-1", "token-2"])
def test_what_waits_for_one_account_is_not_delivered_to_another(
    start_gateway: StartGateway, connect: Connect, log_lines: LogLines, tmp_path: Path, token: str
) -> None:
    """A new token of the same user may be of another account; so may the same URL, where it names a connection."""
    anns, bobs = OfAccount(), OfAccount()
    bobs.account = "bob's"
    anns.reachable.clear()

    def gateway(token: str, filesystem: RemoteFS) -> SFTPGateway:
        url = f"dropbox://key~secret:{token}@/"
        return start_gateway(users=(user(url),), open_filesystem=lambda _: Unclosed(filesystem))

    first = gateway("token-1", anns)
    with connect(first, "ann", PASSWORD).open_sftp_client() as client:
        client.mkdir("/d")
        put(client, "/d/f", b"content")
    first.stop()
    second = gateway(token, bobs)
    event = "write_through" if token == "token-1" else "delayed"
    eventually(lambda: any("another account" in line["reason"] for line in log_lines(event)), "it was not told")
    with connect(second, "ann", PASSWORD).open_sftp_client() as client:
        assert client.listdir("/") == []
        put(client, "/g", b"bob's")
        eventually(lambda: bobs.exists("/g"))
    eventually(lambda: second.pending().waiting == 1)
    second.stop()
    assert bobs.listdir("/") == ["g"]
    listed = pending_list(tmp_path)
    assert [(row["path"], "another account" in row["reason"]) for row in listed] == [("/d/f", True), ("/d/", True)]
    anns.reachable.set()
    third = gateway("token-3" if token == "token-2" else "token-1", anns)
    eventually(lambda: anns.exists("/d/f"), "it is not delivered now")
    delivered(third)
    assert pending_list(tmp_path) == []
    assert [commit[:2] for commit in anns.commits] == [("/d/f", 7)]


def pending_list(folder: Path) -> list[dict[str, Any]]:
    (folder / "gateway.toml").write_text('state_folder = "state"\n')
    command = ["pending", "list", "--json", "--config", str(folder / "gateway.toml")]
    return json.loads(CliRunner().invoke(cli, command).stdout)["files"]  # type: ignore[no-any-return]


def test_it_begins_once_nobody_has_the_account_without_it(
    emulator: Emulator, start_gateway: StartGateway, connect: Connect
) -> None:
    url = emulator.fs_url
    gateway = start_gateway(users=(user(url, write_back=False),), write_back_delay_seconds=60.0)
    transport = connect(gateway, "ann", PASSWORD)
    sftp(transport).listdir("/")
    gateway.reload(GatewayConfig(users=(user(url),), write_back_delay_seconds=60.0))
    eventually(lambda: gateway.connections == 0)
    client = sftp(connect(gateway, "ann", PASSWORD))
    put(client, "/f", b"content")
    assert gateway.pending().waiting == 1
    assert client.listdir("/") == ["f"]
