"""The emulator as a process of its own: what it prints, how it fails, what survives kill -9."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import fs
import pytest
import requests

from fs_dropbox.emulator import Emulator
from fs_dropbox.emulator.__main__ import main
from tests.emulator.process import Process
from tests.waiting import eventually


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "dropbox"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_what_clients_need_and_ends_cleanly(number: int) -> None:
    process = Process()
    assert process.variables["DROPBOX_API_HOST"] == process.url.removeprefix("https://")
    process.sign_in()
    assert process.call("files/list_folder", {"path": ""})["entries"] == []
    assert process.end(number) == 0


def test_a_seed_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file.txt").write_bytes(b"seeded")
    process = Process("--seed", str(tmp_path), "--http")
    assert process.url.startswith("http://")
    process.sign_in()
    assert process.call("files/get_metadata", {"path": "/sub/file.txt"})["size"] == 6
    assert process.end(signal.SIGINT) == 0


def test_clients_in_another_folder_find_the_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Emulator("dropbox") as emulator:
        monkeypatch.chdir("/")
        assert emulator.ca_file == tmp_path / "dropbox" / "ca.pem"
        with fs.open_fs(emulator.fs_url) as dropbox_fs:
            assert dropbox_fs.listdir("/") == []


def test_everything_survives_kill(folder: Path) -> None:
    process = Process("--folder", str(folder))
    process.sign_in()
    big = os.urandom(3 << 20)
    kept = process.call("files/upload", {"path": "/A/kept"}, big)
    process.call("files/upload", {"path": "/A/gone"}, b"gone")
    old = process.call("files/upload", {"path": "/A/changed"}, b"old")
    cursor = process.call("files/list_folder/get_latest_cursor", {"path": "", "recursive": True})["cursor"]
    process.call("files/upload", {"path": "/A/changed", "mode": "overwrite"}, b"new")
    process.call("files/delete_v2", {"path": "/a/gone"})
    session = process.call("files/upload_session/start", {}, b"abc")["session_id"]
    token = process.token
    stop = threading.Event()
    uploaded = []

    def upload_on() -> None:
        number = 0
        while not stop.is_set():
            try:
                process.call("files/upload", {"path": f"/burst/{number}"}, f"content {number}".encode())
            except requests.RequestException:
                return
            uploaded.append(number)
            number += 1

    thread = threading.Thread(target=upload_on)
    thread.start()
    while len(uploaded) < 20:
        stop.wait(0.01)
    process.process.send_signal(signal.SIGKILL)
    thread.join(20)
    stop.set()
    process.end(signal.SIGKILL)

    again = Process("--folder", str(folder))
    assert (again.key, again.refresh_token) == (process.key, process.refresh_token)
    again.token = token
    assert again.call("files/get_metadata", {"path": "/a/KEPT"}) == {".tag": "file", **kept}
    assert again.call("files/download", {"path": "/A/kept"}, b"") == big
    assert again.call("files/download", {"path": f"rev:{old['rev']}"}, b"") == b"old"
    for number in uploaded:
        assert again.call("files/download", {"path": f"/burst/{number}"}, b"") == f"content {number}".encode()
    news = again.call("files/list_folder/continue", {"cursor": cursor})["entries"]
    assert [e["path_lower"] for e in news[:3]] == ["/a/changed", "/a/gone", "/burst"]
    revisions = again.call("files/list_revisions", {"path": "/a/gone"})
    assert (revisions["is_deleted"], len(revisions["entries"])) == (True, 1)
    finish = {"cursor": {"session_id": session, "offset": 3}, "commit": {"path": "/session"}}
    assert again.call("files/upload_session/finish", finish, b"def")["size"] == 6
    assert again.call("files/download", {"path": "/session"}, b"") == b"abcdef"
    leftovers = list((folder / "incoming").iterdir())
    assert leftovers == []
    assert again.end(signal.SIGINT) == 0


def test_without_tls() -> None:
    process = Process("--http")
    try:
        fs_url = next(line.partition(": ")[2] for line in process.lines if line.startswith("FS URL"))
        assert "http%3A%2F%2F127.0.0.1" in fs_url
        with fs.open_fs(fs_url) as opened:
            opened.writetext("file", "content")
            assert opened.listdir("/") == ["file"]
    finally:
        process.end(signal.SIGTERM)


@pytest.fixture
def failing(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Start it with arguments that it cannot start with, in this process; return its one line."""

    def failing(*arguments: str | Path) -> str:
        assert main([*map(str, arguments)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1, err
        return err

    return failing


def test_a_seed_that_dropbox_does_not_take(failing: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "desktop.ini").touch()
    told = failing("--port", "0", "--seed", tmp_path)
    assert f"'{tmp_path}/desktop.ini' cannot be in a Dropbox: disallowed_name" in told


def test_ctrl_c_while_it_copies_a_seed(tmp_path: Path) -> None:
    """It ends as it does later: in order, with nothing to say."""
    seed = tmp_path / "seed"
    seed.mkdir()
    for number in range(3000):
        (seed / f"{number}").touch()
    command = [sys.executable, "-m", "fs_dropbox.emulator", "--port", "0", "--folder", str(tmp_path / "emulator")]
    with subprocess.Popen([*command, "--seed", str(seed)], stderr=subprocess.PIPE) as process:
        eventually((tmp_path / "emulator" / "emulator.sqlite").exists)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (0, b"")


def test_a_port_in_use(failing: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}: the port is in use; choose another with --port" in failing("--port", str(port))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--port", "99999"], "99999 is no port: they are numbers up to 65535"),
        (["--port", "22x"], "22x is no port: they are numbers up to 65535"),
        (["--seed", "/no/such/folder"], "--seed: there is no folder /no/such/folder"),
    ],
)
def test_mistyped_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert capsys.readouterr().err.endswith(f"{told}\n")


def test_a_folder_that_cannot_be_used(failing: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "file: is not a folder" in failing("--port", "0", "--folder", tmp_path / "file")
    assert "cannot start" in failing("--port", "0", "--folder", tmp_path / "file" / "below")
    with Emulator(tmp_path / "taken"):
        assert "another emulator uses this folder" in failing("--port", "0", "--folder", tmp_path / "taken")
    (tmp_path / "taken" / "emulator.sqlite").write_bytes(b"junk" * 1000)
    assert "cannot start" in failing("--port", "0", "--folder", tmp_path / "taken")


def test_the_first_account_and_app_stay_the_first(tmp_path: Path) -> None:
    """They are meant where none is named, also after a restart."""
    known: list[str] = []
    for number in range(6):
        with Emulator(tmp_path) as emulator:
            assert emulator.control.account()["email"] == "ann@example.com"
            assert emulator.control.sign_in()["app_key"] == emulator.app_key
            assert [known.email for known in emulator.service.accounts.accounts.values()][1:] == known
            known.append(f"person{number}@example.com")
            emulator.control.add_account(known[-1])
            emulator.control.add_app(f"app {number}")
            emulator.control.set_account(account_type="business")


def test_a_disk_that_failed_once_is_written_again(tmp_path: Path) -> None:
    """What could not be stored is stored with the next change."""
    with Emulator(tmp_path) as emulator:
        control, database = emulator.control, emulator.service.state.storage._database
        assert database is not None
        database.execute("CREATE TEMP TRIGGER t BEFORE INSERT ON changes BEGIN SELECT RAISE(FAIL, 'no room'); END")
        with pytest.raises(sqlite3.Error, match="no room"):
            control.seed("/first")
        database.execute("DROP TRIGGER t")
        control.seed("/later")
        assert control.tree() == {"/first": None, "/later": None}
    with Emulator(tmp_path) as emulator:
        assert emulator.control.tree() == {"/first": None, "/later": None}


def test_start_raises_and_stop_leaves_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        emulator = Emulator(port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            emulator.start()
    with Emulator(tmp_path / "a") as running:
        running.control.seed("/x", b"1")
    with Emulator(tmp_path / "a") as running:
        assert running.control.tree() == {"/x": 1}


def test_a_folder_that_was_kept_without_the_order_of_its_documents(tmp_path: Path) -> None:
    with Emulator(tmp_path) as emulator:
        emulator.control.write("/kept", b"content")
    with closing(sqlite3.connect(tmp_path / "emulator.sqlite", isolation_level=None)) as database:
        database.executescript(
            "CREATE TABLE older (kind TEXT, key TEXT, value TEXT, PRIMARY KEY (kind, key)) WITHOUT ROWID;"
            "INSERT INTO older SELECT kind, key, value FROM documents;"
            "DROP TABLE documents; ALTER TABLE older RENAME TO documents;"
        )
    for _ in range(2):
        with Emulator(tmp_path) as emulator:
            assert emulator.control.read("/kept") == b"content"
