"""put, get and mirror of the command line."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from pathlib import Path

import pytest
from fs.errors import OperationFailed

from fs_dropbox.commands.program import explain
from fs_dropbox.emulator import Emulator
from tests.fs_dropbox.commands.command_line import Cli
from tests.fs_dropbox.scarce_threads import allow_threads

# Moving content


def test_put_and_get_a_file(seeded: Emulator, cli: Cli) -> None:
    Path("up.txt").write_bytes(b"content")
    os.utime("up.txt", (1_500_000_000, 1_500_000_000))
    done = cli("put", "up.txt", "/Docs")
    assert (done.code, done.err) == (0, "")
    assert seeded.control.metadata("/Docs/up.txt")["client_modified"] == "2017-07-14T02:40:00Z"
    assert cli("put", "up.txt", "/Docs/other.txt").code == 0
    done = cli("get", "/Docs/other.txt")
    assert done.out.startswith("1 copied (7 B)")
    assert Path("other.txt").read_bytes() == b"content"
    assert Path("other.txt").stat().st_mtime == 1_500_000_000
    assert cli("get", "/Docs/a.txt", "named.txt").code == 0
    assert Path("named.txt").read_bytes() == b"alpha"
    assert stat.S_IMODE(Path("named.txt").stat().st_mode) == 0o666 & ~_umask()


def test_a_file_that_is_equal_is_not_transferred(seeded: Emulator, cli: Cli) -> None:
    assert cli("get", "/Docs/a.txt").out.startswith("1 copied")
    before = seeded.control.calls()
    assert cli("get", "/Docs/a.txt").out.startswith("0 copied (0 B), 1 unchanged")
    assert cli("put", "a.txt", "/docs/A.txt").out.startswith("0 copied (0 B), 1 unchanged")
    assert not {"files/download", "files/upload"} & set(seeded.control.calls() - before)
    Path("a.txt").write_bytes(b"other")
    assert cli("put", "a.txt", "/Docs").out.startswith("1 copied (5 B), 0 unchanged")
    assert seeded.control.read("/Docs/a.txt") == b"other"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_put_and_get_folders(seeded: Emulator, cli: Cli) -> None:
    assert cli("get", "/Docs").code == 0
    assert Path("Docs/Sub/{c} ü.txt").exists()
    assert cli("put", "Docs", "/Empty").code == 0
    assert seeded.control.read("/Empty/Docs/Sub/B.bin") == bytes(2000)
    again = cli("put", "--json", "Docs", "/Empty")
    result = json.loads(again.out)
    assert (result["copied"], result["skipped"], result["failures"]) == (0, 3, [])
    assert cli("put", "Docs", "/Renamed").code == 0
    assert seeded.control.exists("/Renamed/a.txt")


def test_habits_of_cp_are_understood(seeded: Emulator, cli: Cli) -> None:
    assert cli("get", "-r", "/Docs").code == 0
    assert cli("put", "-R", "Docs", "/Empty").code == 0
    assert seeded.control.read("/Empty/Docs/a.txt") == b"alpha"


def test_no_clobber(seeded: Emulator, cli: Cli) -> None:
    Path("a.txt").write_bytes(b"mine")
    assert cli("get", "-n", "/Docs/a.txt").code == 0
    assert Path("a.txt").read_bytes() == b"mine"
    assert cli("put", "-n", "a.txt", "/Docs").code == 0
    assert seeded.control.read("/Docs/a.txt") == b"alpha"
    assert cli("put", "a.txt", "/Docs").code == 0
    assert seeded.control.read("/Docs/a.txt") == b"mine"


def test_put_from_standard_input(seeded: Emulator, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(b"piped" * 1000)

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert cli("put", "-", "/piped.bin").code == 0
    assert seeded.control.read("/piped.bin") == b"piped" * 1000
    assert cli("put", "-", "/Docs").code == 2


def test_who_means_standard_output_gets_no_file_of_that_name(seeded: Emulator, cli: Cli) -> None:
    done = cli("get", "/Docs/a.txt", "-")
    assert (done.code, done.out, "fs-dropbox cat" in done.err) == (2, "", True)
    assert not Path("-").exists()
    assert cli("get", "/Docs/a.txt", "./-").code == 0
    assert Path("-").read_text() == "alpha"


def test_quiet_says_nothing(seeded: Emulator, cli: Cli) -> None:
    assert cli("get", "-q", "/Docs") == (0, "", "")


def test_a_refused_name_is_told_before_a_byte_is_sent(seeded: Emulator, cli: Cli) -> None:
    Path("dir").mkdir()
    Path("dir/desktop.ini").write_text("x")
    Path("dir/fine.txt").write_text("x")
    seeded.control.reset_counts()
    done = cli("put", "dir", "/Docs")
    assert done.code == 1
    assert "desktop.ini" in done.err
    assert "1 copied" in done.out
    assert "1 FAILED" in done.out
    assert seeded.control.exists("/Docs/dir/fine.txt")


# Mirror


def test_mirror_up_and_down(seeded: Emulator, cli: Cli) -> None:
    assert cli("mirror", ":/Docs", "local").code == 0
    Path("local/a.txt").write_text("changed")
    Path("local/new.txt").write_text("new")
    Path("local/Sub/B.bin").unlink()
    dry = cli("mirror", "-n", "--delete", "local", ":/Docs")
    assert sorted(line.split()[:2] for line in dry.out.splitlines()[:-1]) == [
        ["copy", "a.txt"],
        ["copy", "new.txt"],
        ["delete", "Sub/B.bin"],
    ]
    assert seeded.control.read("/Docs/a.txt") == b"alpha"
    done = cli("mirror", "--json", "--delete", "local", ":/Docs")
    result = json.loads(done.out)
    assert (result["copied"], result["deleted"], result["skipped"]) == (2, 1, 1)
    assert seeded.control.read("/Docs/a.txt") == b"changed"
    assert not seeded.control.exists("/Docs/Sub/B.bin")


def test_an_equal_mirror_moves_no_content(seeded: Emulator, cli: Cli) -> None:
    cli("mirror", ":/Docs", "local")
    os.utime("local/a.txt", (1, 1))
    seeded.control.reset_counts()
    done = cli("mirror", "local", ":/Docs")
    assert done.out.startswith("0 copied (0 B), 3 unchanged")
    cli("mirror", ":/Docs", "local")
    calls = seeded.control.calls()
    assert {route for route in calls if "upload" in route or "download" in route} == set()


def test_mirror_sees_that_equal_sizes_differ(seeded: Emulator, cli: Cli) -> None:
    cli("mirror", ":/Docs", "local")
    times = Path("local/a.txt").stat()
    Path("local/a.txt").write_bytes(b"ALPHA")
    os.utime("local/a.txt", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cli("mirror", "--quick", "local", ":/Docs").out.startswith("0 copied")
    assert cli("mirror", "local", ":/Docs").out.startswith("1 copied (5 B)")
    assert seeded.control.read("/Docs/a.txt") == b"ALPHA"


def test_mirror_within_one_account_is_server_side(seeded: Emulator, cli: Cli) -> None:
    seeded.control.reset_counts()
    assert cli("mirror", ":/Docs", ":/Backup").code == 0
    assert seeded.control.read("/Backup/Sub/B.bin") == bytes(2000)
    assert seeded.control.calls()["files/download"] == 0


def test_mirror_of_two_local_folders_is_a_mistake(cli: Cli) -> None:
    done = cli("mirror", "/tmp", "/var")
    assert (done.code, ":/folder" in done.err) == (2, True)


def test_a_full_account_ends_the_mirror_with_the_reason(emulator: Emulator, cli: Cli) -> None:
    emulator.control.set_quota(3000)
    Path("many").mkdir()
    for number in range(60):
        Path(f"many/{number}").write_bytes(os.urandom(1000))
    done = cli("mirror", "-w", "2", "many", ":/many")
    assert done.code == 1
    assert "not enough space" in done.err.lower() or "full" in done.err.lower() or "storage" in done.err.lower()
    assert len(done.err.splitlines()) < 20, "the others were not tried"


# Several sources


def test_of_several_sources_each_is_tried(seeded: Emulator, cli: Cli) -> None:
    Path("a").write_text("x")
    done = cli("put", "missing", "a", "/Docs")
    assert done.code == 1
    assert f"there is no file or folder {Path('missing').absolute()}" in done.err
    assert seeded.control.read("/Docs/a") == b"x"


def test_of_two_sources_of_one_name_the_second_replaces_nothing(seeded: Emulator, cli: Cli) -> None:
    for folder, name in (("one", "name"), ("other", "NAME")):
        Path(folder).mkdir()
        Path(folder, name).write_text(folder)
    done = cli("put", "one/name", "other/NAME", "/Docs")
    assert (done.code, done.out.split(",")[0]) == (1, "1 copied (3 B)")
    assert "one/name has gone to /Docs/NAME already" in done.err
    assert seeded.control.read("/Docs/name") == b"one"


@pytest.mark.parametrize("folds", [True, False])
def test_of_two_sources_that_differ_in_case_a_disk_has_what_it_can(
    seeded: Emulator, cli: Cli, monkeypatch: pytest.MonkeyPatch, folds: bool
) -> None:
    for path in ("/one/name", "/other/NAME"):
        seeded.control.write(path, path.encode())
    if folds:  # as far as can be seen without writing to it
        monkeypatch.setattr(
            os.path, "lexists", lambda path: os.path.basename(path).lower() in map(str.lower, os.listdir())
        )
    done = cli("get", "/one/name", "/other/NAME", ".")
    assert (done.code, "/one/name has gone to" in done.err) == (int(folds), folds)
    assert Path("name").read_text() == "/one/name"
    assert Path("NAME").exists() == (not folds)


def test_without_access_one_error_ends_it(seeded: Emulator, cli: Cli) -> None:
    for number in range(5):
        Path(str(number)).write_text("x")
    seeded.control.fault("files/upload", "invalid_token", None)
    done = cli("put", "0", "1", "2", "3", "4", "/Docs")
    assert done.code == 3
    assert len(done.err.splitlines()) == 2, "the failure of the file, and what ended the command"


def test_no_thread_is_needed(seeded: Emulator, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_threads(monkeypatch, "fs-dropbox", 0)
    assert cli("mirror", ":/Docs", "local").code == 0
    Path("local/large").write_bytes(bytes(30_000_000))
    assert cli("put", "local", "/Copy").code == 0
    assert cli("get", "/Copy/large").code == 0
    assert seeded.control.read("/Copy/Sub/B.bin") == bytes(2000)
    assert Path("large").stat().st_size == len(seeded.control.read("/Copy/large")) == 30_000_000


def test_where_a_thread_is_needed_after_all_it_is_said() -> None:
    code, text = explain(RuntimeError("can't start new thread"))
    assert (code, "lets no further threads be started" in text) == (1, True)


def test_what_another_storage_says_with_braces_is_told() -> None:
    """PyFilesystem takes them for fields, and then has no text at all."""
    assert explain(OperationFailed(msg='the answer was {"error": 1}')) == (1, 'the answer was {"error": 1}')


def test_folders_that_are_called_as_views_are_mirrored_as_any(seeded: Emulator, cli: Cli) -> None:
    seeded.control.write("/Docs/.deleted/real", b"x")
    assert cli("get", "/Docs", "got").code == 0
    assert cli("mirror", "--delete", ":/Docs", "local").code == 0
    assert Path("got/.deleted/real").read_bytes() == Path("local/.deleted/real").read_bytes() == b"x"
    assert cli("mirror", "local", ":/Copy").code == 0
    assert seeded.control.read("/Copy/.deleted/real") == b"x"
    seeded.control.delete("/Docs/a.txt")
    assert cli("get", "/Docs/.deleted/a.txt").code == 0
    assert Path("a.txt").read_bytes() == b"alpha"
