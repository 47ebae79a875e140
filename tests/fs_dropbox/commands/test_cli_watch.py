"""`fs-dropbox watch` as a process: what changes, whether that is followed, and how it ends."""

from __future__ import annotations

import json
import signal

from fs_dropbox.emulator import Emulator
from fs_dropbox.login.connections import Connections
from tests.fs_dropbox.commands.command_line import run, start


def test_watch_prints_changes_below_a_folder(env: dict[str, str], store: Connections, emulator: Emulator) -> None:
    emulator.control.seed("/Docs")
    with start("watch", "--json", "--count", "3", "/docs", env=env) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline() == "fs-dropbox: following\n"
        emulator.control.write("/elsewhere", b"x")
        rows = []
        for change in (
            lambda: emulator.control.write("/Docs/new.txt", b"news"),
            lambda: emulator.control.seed("/Docs/Folder"),
            lambda: emulator.control.delete("/Docs/new.txt"),
        ):
            change()
            rows.append(json.loads(process.stdout.readline()))
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
    assert [(row["change"], row["path"]) for row in rows] == [
        ("file", "/Docs/new.txt"),
        ("folder", "/Docs/Folder"),
        ("deleted", "/Docs/new.txt"),
    ]
    assert (rows[0]["size"], rows[0]["rev"] != "") == (4, True)


def test_watch_says_why_it_does_not_follow(env: dict[str, str], store: Connections, emulator: Emulator) -> None:
    route = "files/list_folder/get_latest_cursor"
    emulator.control.fault(route, "server_error", None, status=400, text="Unknown API function")
    with start("watch", "--for", "30", env=env) as process:
        assert process.stderr is not None
        assert "Unknown API function: changes will be late" in process.stderr.readline()
        emulator.control.clear_faults()
        assert process.stderr.readline() == "fs-dropbox: following\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def test_watch_ends_in_time_and_by_ctrl_c(env: dict[str, str], store: Connections, emulator: Emulator) -> None:
    done = run("watch", "/none", "--for", "0.5", env=env)
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, "fs-dropbox: there is no file or folder /none yet")
    with start("watch", env=env) as process:
        assert process.stderr is not None
        process.stderr.readline()
        emulator.control.write("/one.txt", b"1")
        assert process.stdout is not None
        assert "/one.txt (1 B)" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
