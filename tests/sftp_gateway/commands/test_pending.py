"""The command `pending`, beside a gateway or without one; journals that cannot be read."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from sftp_gateway import SFTPGateway, UserConfig
from sftp_gateway.cli import cli
from sftp_gateway.write_back.journal import Journal
from sftp_gateway.write_back.journal_file import FILE_NAME
from sftp_gateway.write_back.journal_rows import NewFile, Outcome
from tests.sftp_gateway.conftest import PASSWORD, PASSWORD_HASH, Connect, LogLines, StartGateway
from tests.sftp_gateway.write_back.remote_fs import RemoteFS, get, put
from tests.waiting import eventually


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal with one file that waits and two that failed."""
    (tmp_path / "gateway.toml").write_text('state_folder = "state"\n')
    folder = tmp_path / "state" / "journal" / "0123456789abcdef"
    journal = Journal(folder)
    journal.note("users", "ann")
    for path, size in (("/waits", 10), ("/refused", 100_000), ("/other", 5)):
        content = journal.vault.write(memory_limit=1000)
        content.write(bytes(size))
        number = journal.put(NewFile(path, 1_600_000_000, "replace"), content, quota=10**9)
        if path != "/waits":
            journal.settle([Outcome(number, "the name is not allowed", permanent=True)])
    journal.close()
    return folder


def pending(folder: Path, *arguments: str | Path) -> tuple[int, str, str]:
    command = ["pending", "--config", str(folder.parents[2] / "gateway.toml"), *map(str, arguments)]
    done = CliRunner().invoke(cli, command)
    return done.exit_code, done.stdout, done.stderr


def test_listing(folder: Path) -> None:
    code, out, _ = pending(folder)
    assert code == 0
    lines = out.splitlines()
    assert ["/waits" in lines[0], "/refused" in lines[1], "/other" in lines[2]] == [True] * 3
    assert lines[1].split()[:2] == ["01234567-2", "failed"]
    assert lines[1].endswith('ann  "/refused"  the name is not allowed')
    listed = json.loads(pending(folder, "list", "--failed", "--json")[1])
    assert [(file["path"], file["bytes"]) for file in listed["files"]] == [("/refused", 100_000), ("/other", 5)]


def test_a_path_cannot_steer_the_terminal(folder: Path, tmp_path: Path) -> None:
    path = "/\x9b2J\u202e\r\x1b[2J"
    journal = Journal(folder)
    content = journal.vault.write(memory_limit=1000)
    number = journal.put(NewFile(path, 1_600_000_000, "replace"), content, quota=10**9)
    journal.close()
    for command in (["list"], ["list", "--json"], ["export", f"01234567-{number}", tmp_path / "copy"]):
        code, out, _ = pending(folder, *command)
        assert code == 0
        assert all(line.isprintable() for line in out.split("\n"))
    assert path in [file["path"] for file in json.loads(pending(folder, "list", "--json")[1])["files"]]


def test_the_settings_file_may_be_named_behind_the_command(folder: Path) -> None:
    file = str(folder.parents[2] / "gateway.toml")
    listed = pending(folder, "list")[1]
    for command in (
        ["list", "--config", file],
        ["--config", file],
        ["--config", "elsewhere", "list", "--config", file],
    ):
        done = CliRunner().invoke(cli, ["pending", *command])
        assert (done.exit_code, done.stdout) == (0, listed)
    retried = CliRunner().invoke(cli, ["pending", "retry", "01234567-2", "--config", file])
    assert (retried.exit_code, retried.stdout) == (0, "01234567-2: is tried again\n")


@pytest.mark.parametrize("command", [["--config", "FILE", "list"], ["list", "--config", "FILE"], ["--config", "FILE"]])
def test_a_settings_file_that_is_named_counts_more_than_the_variables(folder: Path, command: list[str]) -> None:
    """Which may name one that is not there."""
    file = str(folder.parents[2] / "gateway.toml")
    arguments = ["pending", *(argument.replace("FILE", file) for argument in command)]
    done = CliRunner().invoke(cli, arguments, env={"SFTP_GATEWAY_CONFIG": "/nowhere/gateway.toml"})
    assert (done.exit_code, done.stdout) == (0, pending(folder, "list")[1])
    done = CliRunner().invoke(cli, ["pending", "list"], env={"SFTP_GATEWAY_CONFIG": file})
    assert (done.exit_code, done.stdout) == (0, pending(folder, "list")[1])


def test_listing_directories(folder: Path) -> None:
    with contextlib.closing(Journal(folder, create=False)) as journal:
        journal.directories.add("/new")
    lines = pending(folder)[1].splitlines()
    assert lines[-1].endswith('ann  "/new/"')
    assert len({line.index("  ann  ") for line in lines}) == 1, "columns"
    assert "/new/" not in pending(folder, "list", "--failed")[1]
    assert json.loads(pending(folder, "list", "--json")[1])["files"][-1]["path"] == "/new/"


def test_retrying(folder: Path) -> None:
    assert pending(folder, "retry", "01234567-2") == (0, "01234567-2: is tried again\n", "")
    assert pending(folder, "retry", "--all")[1] == "01234567-3: is tried again\n"
    assert pending(folder, "retry", "--all") == (0, "Nothing has failed that could be tried again.\n", "")
    assert "or give --all" in pending(folder, "retry")[2]
    assert pending(folder, "list", "--failed")[1].startswith("Nothing is pending in ")
    code, _, error = pending(folder, "retry", "01234567-1")
    assert code == 1
    assert "has not failed" in error


def test_what_is_held_is_not_said_to_be_on_its_way(folder: Path) -> None:
    with contextlib.closing(Journal(folder, create=False)) as journal:
        journal.note("held", "of another account")
    reason = ", but not before this is settled: of another account\n"
    assert pending(folder, "retry", "01234567-2")[1] == f"01234567-2: is tried again{reason}"
    assert pending(folder, "drop", "01234567-1")[2].endswith(f"it will be delivered{reason}")


def test_exporting_and_dropping(folder: Path, tmp_path: Path) -> None:
    assert pending(folder, "export", "01234567-2", tmp_path / "out")[0] == 0
    assert (tmp_path / "out").read_bytes() == bytes(100_000)
    assert "File exists" in pending(folder, "export", "01234567-2", tmp_path / "out")[2]
    assert pending(folder, "drop", "01234567-2")[1] == "01234567-2: dropped\n"
    assert not list(folder.glob("*.content"))
    code, _, error = pending(folder, "drop", "01234567-1")
    assert code == 1
    assert "will be delivered" in error
    assert "there is no such file" in pending(folder, "drop", "ffff-1")[2]


def broken(folder: Path, how: str) -> bytes:
    file = folder / FILE_NAME
    if how == "damaged":
        file.write_bytes(b"not a database" * 1000)
    else:
        with sqlite3.connect(file) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
    return file.read_bytes()


@pytest.mark.parametrize(("how", "reason"), [("damaged", "not a database"), ("newer", "later version")])
def test_a_journal_that_cannot_be_read_is_reported_and_kept(folder: Path, how: str, reason: str) -> None:
    before = broken(folder, how)
    code, _, error = pending(folder)
    assert code == 1
    assert reason in error
    assert "it is kept" in error
    assert (folder / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize("how", ["damaged", "newer"])
def test_without_a_usable_journal_close_waits_for_the_storage(
    how: str, start_gateway: StartGateway, connect: Connect, log_lines: LogLines, tmp_path: Path
) -> None:
    filesystem = RemoteFS()
    users = (UserConfig(name="ann", password_hash=PASSWORD_HASH, url="mem://", write_back=True),)

    def gateway() -> SFTPGateway:
        return start_gateway(users=users, open_filesystem=lambda _: RemoteFS() if how == "" else filesystem)

    first = gateway()
    with connect(first, "ann", PASSWORD).open_sftp_client() as client:
        put(client, "/f", b"x")
    eventually(lambda: filesystem.exists("/f"), "not delivered")
    first.stop()
    folder = next((tmp_path / "state" / "journal").iterdir())
    before = broken(folder, how)
    second = gateway()
    filesystem = RemoteFS()
    with connect(second, "ann", PASSWORD).open_sftp_client() as client:
        put(client, "/g", b"y")
        assert filesystem.exists("/g"), "CLOSE did not wait"
        assert get(client, "/g") == b"y"
    assert log_lines("write_through", 1)[0]["user"] == "ann"
    assert (folder / FILE_NAME).read_bytes() == before
