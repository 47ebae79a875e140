"""The command line as processes: exit codes, one-line errors, pipes, signals."""

from __future__ import annotations

import importlib
import os
import pty
import select
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock

import click
import pytest
from click.testing import CliRunner

from fs_dropbox.commands import program
from fs_dropbox.emulator import Emulator
from fs_dropbox.login.connections import Connections
from tests.fs_dropbox.commands.command_line import COMMAND, Cli, Done, run, start
from tests.root import ROOT
from tests.waiting import eventually

COMMANDS = (
    *("login", "check", "connections", "ls", "tree", "cat", "get", "put", "cp", "mv", "rm", "mkdir", "mirror"),
    *("versions", "restore", "link", "watch", "df"),
)


# Help


@pytest.mark.parametrize(
    ("name", "module", "attribute"),
    [("fs-dropbox", "fs_dropbox.commands.program", "program"), ("sftp-gateway", "sftp_gateway.cli", "cli")],
)
def test_each_command_has_help_that_fits_into_80_columns(name: str, module: str, attribute: str) -> None:
    program = getattr(importlib.import_module(module), attribute)
    waiting: list[tuple[click.Command, list[str]]] = [(program, [])]
    while waiting:
        command, words = waiting.pop()
        waiting += [(each, [*words, called]) for called, each in getattr(command, "commands", {}).items()]
        done = CliRunner().invoke(program, [*words, "--help"], prog_name=name, terminal_width=80)
        assert done.exit_code == 0
        assert done.output.startswith(f"Usage: {' '.join([name, *words])} [OPTIONS]")
        assert [line for line in done.output.splitlines() if len(line) > 80] == [], words


# Other encodings


def test_letters_that_a_terminal_does_not_have_are_shown_as_numbers(emulator: Emulator, env: dict[str, str]) -> None:
    emulator.control.write("/Ω.txt", b"")
    latin = env | {"ACCOUNT": emulator.fs_url, "PYTHONIOENCODING": "latin-1"}
    done = run("tree", "--url-env", "ACCOUNT", "/", env=latin)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u03a9.txt" in done.stdout


# Without a home


def test_who_has_no_home_is_told_what_to_set(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", Mock(side_effect=KeyError))
    text = "fs-dropbox: this user has no home folder, and HOME is not set: set XDG_CONFIG_HOME\n"
    assert cli("ls", "work:/") == Done(1, "", text)


# Without its library


def test_without_click_there_is_one_clear_line(tmp_path: Path) -> None:
    program = "import sys; sys.modules['click'] = None; import fs_dropbox.cli; sys.exit(fs_dropbox.cli.main())"
    command = (sys.executable, "-W", "ignore", "-c", program)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "fs-dropbox needs its command-line libraries: pip install 'fs-dropbox[cli]'\n"


# Usage and errors


def test_help_tells_the_exit_codes_and_the_locations(env: dict[str, str]) -> None:
    done = run("--help", env=env)
    assert done.returncode == 0
    for text in (
        "130  interrupted",
        "3    the credentials are mistyped, refused by Dropbox",
        "name:/folder/file",
        "--url-env",
    ):
        assert text in done.stdout
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("ls", "--nonsense"), ("mv", "/a"), ("ls", "--url-env", "NOT_SET"), ("put", "x")]
)
def test_usage_errors(capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert program.run([*arguments]) == 2
    out, err = capfd.readouterr()
    assert out == "" or not arguments
    assert "Traceback" not in err
    assert err.count("\n") == 1 or not arguments


@pytest.mark.parametrize("command", [("ls",), ("connections", "list")], ids=" ".join)
def test_no_connection_yet_says_how_to_make_one(env: dict[str, str], command: tuple[str, ...]) -> None:
    done = run(*command, env=env)
    assert (done.returncode, done.stdout) == (2 if command == ("ls",) else 0, "")
    assert "there is no connection yet: run fs-dropbox login" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("ls", "/none"), 4, "there is no file or folder /none"),
        (("cat", "/folder"), 1, "/folder is a folder, not a file"),
        (("mkdir", "/none/{x}"), 4, "there is no folder /none: -p makes it too"),
        (("mkdir", "/folder"), 1, "there is a folder /folder already"),
        (("cp", "/folder/file", "/none/file"), 4, "there is no folder /none"),
        (("mv", "/folder/file", "/none/file"), 4, "there is no folder /none"),
        (("put", __file__, "/none/file"), 4, "there is no folder /none"),
        (("put", "-", "/none/file"), 4, "there is no folder /none"),
        (("get", "/folder/file", "/none/file"), 4, "there is no folder /none"),
        (("versions", "/"), 1, "/ is a folder, not a file"),
        (("link", "/"), 1, "'/': the root has no link: give one of what is in it"),
        (("restore", "/folder/file", "zz"), 4, "'/folder/file': the file has no revision zz"),
        (
            ("connections", "remove", "drop"),
            2,
            "give the whole name of what is to be forgotten: 'Dropbox (Ann Example)'",
        ),
        (("mv", "/folder/none", "/none"), 4, "there is no file or folder /folder/none"),
        (("ls", "/folder/../.."), 2, "the path /folder/../.. leads above the root"),
    ],
    ids=lambda case: f"{case[0]} {case[-1]}" if isinstance(case, tuple) else "",
)
def test_what_is_missing_or_in_the_way_is_named(
    env: dict[str, str], store: Connections, emulator: Emulator, arguments: tuple[str, ...], code: int, says: str
) -> None:
    emulator.control.write("/folder/file", b"")
    done = run(*arguments, env=env)
    assert (done.returncode, done.stderr) == (code, f"fs-dropbox: {says}\n")


@pytest.mark.parametrize(
    "url",
    [
        "dropbox://key~secret:SECRETTOKEN/",
        "dropbox://SECRETTOKEN@/",
        "dropbox:SECRETTOKEN",
        "dropbox://key~secret:SECRETTOKEN@/?nonsense=1",
        "nonsense://SECRETTOKEN@/",
    ],
)
def test_a_malformed_url_is_explained_without_its_secrets(cli: Cli, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ACCOUNT", url)
    done = cli("ls")
    assert done.code in (2, 3), done.err
    assert "SECRETTOKEN" not in done.err
    assert done.err.count("\n") == 1


def test_refused_credentials(env: dict[str, str], store: Connections, emulator: Emulator) -> None:
    emulator.control.revoke_tokens()
    done = run("ls", env=env)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert emulator.refresh_token not in done.stderr
    assert emulator.app_secret not in done.stderr


def test_dropbox_out_of_reach(env: dict[str, str], store: Connections, emulator: Emulator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"127.0.0.1:{server.getsockname()[1]}"
    env |= {"DROPBOX_API_HOST": nobody, "DROPBOX_API_CONTENT_HOST": nobody}
    for command in ("ls", "check"):
        done = run(command, env=env)
        assert done.returncode == 5, done.stderr
        assert "cannot be reached" in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_readable_connections_file_is_refused(env: dict[str, str], store: Connections) -> None:
    store.path.chmod(0o644)
    done = run("ls", env=env)
    assert (done.returncode, "chmod 600" in done.stderr) == (1, True)


def test_a_closed_pipe_is_no_error(env: dict[str, str], store: Connections, emulator: Emulator) -> None:
    emulator.control.write("/big", bytes(5_000_000))
    with start("cat", "/big", env=env) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 141


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("ls / >/dev/full", "standard output: No space left on device"),
        ("--help >/dev/full", "standard output: No space left on device"),
        ("cat /file >/dev/full", "standard output: No space left on device"),
        ("ls / >&-", "standard output: Bad file descriptor"),
        ("put - /new <&-", "Bad file descriptor"),
    ],
)
def test_what_cannot_be_written_or_read_is_one_line(
    env: dict[str, str], store: Connections, emulator: Emulator, arguments: str, told: str
) -> None:
    emulator.control.write("/file", b"x")
    done = subprocess.run(
        f"{shlex.join(COMMAND)} {arguments}", shell=True, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, f"fs-dropbox: {told}\n")
    assert set(emulator.control.tree()) == {"/file"}


def test_interrupting_a_transfer_leaves_nothing_half_written(
    env: dict[str, str], store: Connections, emulator: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "up").mkdir()
    for number in range(8):
        (tmp_path / "up" / str(number)).write_bytes(os.urandom(4_000_000))
    emulator.control.latency(upload_bytes_per_second=500_000)
    with start("mirror", str(tmp_path / "up"), ":/up", env=env) as process:
        eventually(lambda: any("upload" in record.route for record in emulator.control.requests()))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "fs-dropbox: interrupted"
    assert "Traceback" not in said
    emulator.control.latency(upload_bytes_per_second=None)
    sizes = {path: size for path, size in emulator.control.tree("/up").items() if size is not None}
    assert all(size == 4_000_000 for size in sizes.values())
    done = run("mirror", str(tmp_path / "up"), ":/up", env=env)
    assert done.returncode == 0, done.stderr
    assert len([size for size in emulator.control.tree("/up").values() if size == 4_000_000]) == 8


@pytest.mark.parametrize(
    ("arguments", "route", "said"),
    [
        (("rm", "/file"), "files/delete_v2", "; a change that was under way may have been made"),
        (("put", __file__, "/new"), "files/upload", "; a change that was under way may have been made"),
        (("ls", "/"), "files/list_folder", ""),
    ],
)
def test_whoever_interrupts_a_change_is_told_that_it_may_have_been_made(
    env: dict[str, str], store: Connections, emulator: Emulator, arguments: tuple[str, ...], route: str, said: str
) -> None:
    emulator.control.write("/file", b"x")
    struck = emulator.control.faults_struck
    emulator.control.fault(route, "stall", at="answer")
    with start(*arguments, env=env) as process:
        eventually(lambda: emulator.control.faults_struck > struck)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1] == f"fs-dropbox: interrupted{said}\n"
    emulator.control.release()
    assert process.returncode == 130


def _run_on_terminal(
    *arguments: str, env: dict[str, str], command: Sequence[str] = COMMAND, kind: str = "xterm"
) -> tuple[int, bytes]:
    """Run the command line on a terminal; return its exit code and what is seen."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            (*command, *arguments), env=env | {"TERM": kind}, stdout=theirs, stderr=theirs, stdin=theirs
        )
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 30)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            shown += part
        return process.wait(30), shown
    finally:
        os.close(ours)


def test_progress_is_shown_on_a_terminal_only(
    env: dict[str, str], store: Connections, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.control.write("/big", os.urandom(3_000_000))
    assert run("get", "/big", str(tmp_path / "big"), env=env).stderr == ""
    (tmp_path / "big").unlink()
    code, shown = _run_on_terminal("get", "/big", str(tmp_path / "big"), env=env)
    assert code == 0
    assert b"get" in shown
    assert b"100%" in shown
    assert b"1 copied (3.0 MB)" in shown


@pytest.mark.parametrize(
    ("arguments", "route"),
    [
        (("rm", "-r", "/folder"), "files/delete_v2"),
        (("mv", "/folder", "/moved"), "files/move_v2"),
        (("cp", "-r", "/folder", "/copied"), "files/copy_v2"),
        (("restore", "/file"), "files/restore"),
        (("ls", "-R"), "files/list_folder"),
        (("tree",), "files/list_folder"),
        (("mirror", "-n", ":/", "."), "files/list_folder"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
)
def test_that_dropbox_is_at_work_is_shown_once_it_takes_long(
    env: dict[str, str], store: Connections, emulator: Emulator, arguments: tuple[str, ...], route: str
) -> None:
    emulator.control.write("/folder/file", b"x")
    emulator.control.write("/file", b"x")
    emulator.control.delete("/file")
    emulator.control.fault(route, "stall", seconds=2.0)
    code, shown = _run_on_terminal(*arguments, env=env)
    assert code == 0
    assert f"{arguments[0]}: Dropbox is at work, 1 s".encode() in shown
    assert b"at work" not in shown.rpartition(b"\r\x1b[K")[2]  # it gives way to what is said in the end


@pytest.mark.parametrize("arguments", [("get", "/folder", "."), ("rm", "-r", "/folder")])
def test_a_terminal_that_obeys_nothing_is_told_nothing(
    env: dict[str, str], store: Connections, emulator: Emulator, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    emulator.control.write("/folder/file", bytes(1_000_000))
    emulator.control.fault("files/delete_v2", "stall", seconds=1.5)
    command = ("sh", "-c", f"cd {tmp_path} && {shlex.join((*COMMAND, *arguments))}")
    code, shown = _run_on_terminal(env=env, command=command, kind="dumb")
    assert (code, b"\x1b" in shown) == (0, False), shown


def test_of_a_stream_the_bytes_that_went_are_shown(env: dict[str, str], store: Connections, tmp_path: Path) -> None:
    (tmp_path / "stream").write_bytes(bytes(3_000_000))
    command = f"{shlex.join(COMMAND)} put - /big <{tmp_path}/stream"
    code, shown = _run_on_terminal(env=env, command=("sh", "-c", command))
    assert code == 0
    assert b"3.0 MB" in shown.rpartition(b"/big")[0]
    assert b"100%" not in shown


@pytest.mark.parametrize("arguments", [("ls", "/"), ("get", "/", "{tmp}"), ("cat", "/\x1b]0;owned\x07.txt")])
def test_no_name_reaches_a_terminal_that_would_obey_it(
    env: dict[str, str], store: Connections, emulator: Emulator, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    emulator.control.write("/\x1b]0;owned\x07.txt", b"x")
    emulator.control.fault("files/download", "error", error={".tag": "unsupported_file"}, count=None)
    _, shown = _run_on_terminal(*(each.replace("{tmp}", str(tmp_path)) for each in arguments), env=env)
    assert b"\x1b]0;owned" not in shown, shown
    assert b"\\x1b]0;owned\\x07" in shown
