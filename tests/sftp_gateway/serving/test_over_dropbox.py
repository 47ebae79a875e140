"""What logins and sessions cost in calls to Dropbox, counted by the emulator."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import fs
import paramiko
import pytest

from fs_dropbox.emulator import Emulator
from sftp_gateway import SFTPGateway
from sftp_gateway.files.folding import fold_path
from sftp_gateway.write_back.filesystem import WriteBackFS
from sftp_gateway.write_back.journal import Journal
from tests.sftp_gateway.conftest import Connect, LogLines, StartGateway
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import eventually


def parameters(emulator: Emulator) -> str:
    return f"api_host={emulator.host}&ca_certs={quote(str(emulator.ca_file), safe='')}"


def names(emulator: Emulator) -> tuple[str, str]:
    return f"{emulator.app_key}~{emulator.app_secret}", emulator.refresh_token


def listing(transport: paramiko.Transport) -> list[str]:
    with paramiko.SFTPClient.from_transport(transport) as client:  # type: ignore[union-attr]
        return sorted(client.listdir("/"))


def test_ten_logins_at_once_share_one_token_one_filesystem_and_one_listing(
    emulator: Emulator, start_gateway: StartGateway, connect: Connect
) -> None:
    """FileZilla's way of transferring ten files."""
    emulator.control.seed("/a", b"x")
    gateway = start_gateway(url_parameters=parameters(emulator))
    emulator.control.reset_counts()
    seen: list[list[str]] = []

    def come_in() -> None:
        seen.append(listing(connect(gateway, *names(emulator))))

    threads = [threading.Thread(target=come_in) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [["a"]] * 10
    calls = emulator.control.calls()
    assert calls["oauth2/token"] == 1, calls
    assert calls["users/get_current_account"] == 1, calls
    assert calls["files/list_folder"] <= 2, calls  # the second is the change feed's


def test_a_token_revoked_under_an_open_account_lets_nobody_in_any_more(
    emulator: Emulator, start_gateway: StartGateway, connect: Connect, log_lines: LogLines
) -> None:
    gateway = start_gateway(url_parameters=parameters(emulator), recheck_seconds=0.0)
    assert listing(connect(gateway, *names(emulator))) == []
    name, token = names(emulator)
    emulator.control.revoke_tokens()
    with pytest.raises(paramiko.AuthenticationException):
        connect(gateway, name, token)
    assert log_lines("login_failed", 1)[0]["reason"].startswith("Dropbox refused the credentials: ")


def test_an_account_that_nobody_uses_is_given_back(
    emulator: Emulator, start_gateway: StartGateway, connect: Connect
) -> None:
    gateway = start_gateway(url_parameters=parameters(emulator), account_idle_seconds=0.0)
    transport = connect(gateway, *names(emulator))
    assert listing(transport) == []
    assert dropbox_threads()
    transport.close()
    wait_for_no_dropbox_threads(gateway)


def test_a_new_file_in_a_known_folder_is_opened_without_changing_threads(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.control.seed("/old", b"x")
    with fs.open_fs(emulator.fs_url + "&change_feed=off") as dropbox:  # it would doubt what is known when it begins
        serving = Serving(dropbox, tmp_path)
        try:
            client = serving.session().sftp()
            assert client.listdir("/") == ["old"]
            handed_over = counted(serving, monkeypatch)
            new = client.open("/new", "w")
            assert not handed_over
            for path in ("/old", "/nowhere/new", "/old/new", "/new"):
                before = len(handed_over)
                with contextlib.suppress(OSError):
                    client.open(path, "w").close()
                assert len(handed_over) > before, f"{path}: that may take its time"
            new.close()
        finally:
            serving.close()


@pytest.mark.parametrize("write_back", [False, True])
def test_what_is_known_is_listed_and_told_without_changing_threads(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_back: bool
) -> None:
    for number in range(2500):  # three batches of names
        emulator.control.seed(f"/folder/{number}", b"x" * number)
    emulator.control.seed("/other/file", b"x")
    with contextlib.ExitStack() as cleanup:
        filesystem = cleanup.enter_context(fs.open_fs(emulator.fs_url + "&change_feed=off"))
        if write_back:
            journal = Journal(tmp_path / "journal", fold=fold_path)
            filesystem = cleanup.enter_context(WriteBackFS(filesystem, journal))
        serving = Serving(filesystem, tmp_path)
        cleanup.callback(serving.close)
        client = serving.session().sftp()
        first = sorted((each.filename, each.st_size) for each in client.listdir_attr("/folder"))
        assert len(first) == 2500
        read = client.open("/folder/77")
        written = client.open("/folder/new", "w")
        written.write(b"12345")
        written.flush()
        handed_over = counted(serving, monkeypatch)
        again = sorted((each.filename, each.st_size) for each in client.listdir_attr("/folder"))
        assert again == sorted([*first, ("new", 5)])
        assert read.stat().st_size == client.stat("/folder/77").st_size == 77
        assert not handed_over
        for unknown in ("/other", "/nowhere"):
            before = len(handed_over)
            with contextlib.suppress(OSError):
                client.listdir(unknown)
            assert len(handed_over) > before, f"{unknown}: that may take its time"
        read.close()
        written.close()


def counted(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list of what is left to other threads from now on."""
    handed_over: list[object] = []
    submit = serving.workers.submit

    def count(work: Callable[[], None], *, urgent: bool = False) -> None:
        handed_over.append(work)
        submit(work, urgent=urgent)

    monkeypatch.setattr(serving.workers, "submit", count)
    return handed_over


def dropbox_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fs-dropbox")]


def wait_for_no_dropbox_threads(gateway: SFTPGateway) -> None:
    eventually(lambda: not dropbox_threads(), lambda: str(dropbox_threads()))
    assert gateway.connections == 0
