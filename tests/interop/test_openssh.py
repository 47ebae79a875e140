"""OpenSSH's sftp and scp: what people and scripts do with them every day."""

from __future__ import annotations

import os
import re
import time
from datetime import datetime

import pytest

from sftp_gateway import UserConfig

from .stack import KEY, MIB, GatewayProcess, Stack, digest, digests, make_tree, serving

pytestmark = pytest.mark.interop


@pytest.mark.write_back
def test_a_tree_goes_up_and_comes_back(stack: Stack) -> None:
    tree = make_tree(stack.folder / "tree")
    stack.sftp("put -r tree")
    assert stack.stored("/tree") == tree
    assert stack.control.tree("/tree")["/tree/empty folder"] is None
    stack.sftp("get -r tree back")
    assert digests(stack.folder / "back") == tree
    assert (stack.folder / "back" / "empty folder").is_dir()


def test_a_tree_over_itself_replaces_every_file(stack: Stack) -> None:
    make_tree(stack.folder / "tree")
    stack.sftp("put -r tree")
    (stack.folder / "tree" / "big" / "nine mebibytes").write_bytes(b"now short")
    (stack.folder / "tree" / "empty").write_bytes(b"now longer")
    stack.sftp("put -r tree")
    assert stack.stored("/tree") == digests(stack.folder / "tree")


def test_200_megabytes(process: GatewayProcess, bare_stack: Stack) -> None:
    content = os.urandom(MIB) * 200
    bare_stack.write("large", content)
    bare_stack.sftp("put large")
    assert bare_stack.stored() == {"large": digest(content)}
    bare_stack.sftp("get large back")
    assert digest((bare_stack.folder / "back").read_bytes()) == digest(content)
    assert bare_stack.control.bytes_out()["files/download"] < 1.1 * len(content)
    assert process.peak_memory < 300 * MIB


def test_put_p_stores_the_time_of_the_file(stack: Stack) -> None:
    local = stack.write("report", b"content")
    os.utime(local, (1_500_000_000, 1_500_000_000))
    stack.sftp("put -p report")
    assert stack.control.metadata("/report")["client_modified"] == "2017-07-14T02:40:00Z"
    stack.sftp("get -p report back")
    assert (stack.folder / "back").stat().st_mtime == 1_500_000_000


def test_put_f_is_flushed_and_stored_once(stack: Stack) -> None:
    stack.write("report", b"content")
    stack.sftp("put -f report")
    assert stack.control.read("/report") == b"content"
    assert stack.commits() == 1


@pytest.mark.write_back
def test_reput_goes_on_where_the_file_ends(stack: Stack) -> None:
    content = os.urandom(3 * MIB + 17)
    stack.write("file", content)
    stack.control.write("/file", content[: MIB + 5])
    stack.sftp("reput file")
    assert stack.stored() == {"file": digest(content)}


def test_reget_goes_on_where_the_file_ends(stack: Stack) -> None:
    content = os.urandom(9 * MIB)
    stack.control.write("/file", content)
    stack.write("file", content[: 5 * MIB + 3])
    stack.sftp("reget file")
    assert (stack.folder / "file").read_bytes() == content
    assert stack.control.bytes_out()["files/download"] <= 5 * MIB


@pytest.mark.write_back
def test_names_are_made_moved_and_removed(stack: Stack) -> None:
    stack.control.write("/one", b"1")
    stack.control.write("/two", b"2")
    stack.sftp("mkdir folder", "rename one folder/uno", "rename folder Ordner")
    assert stack.control.tree() == {"/Ordner": None, "/Ordner/uno": 1, "/two": 1}
    revision = stack.control.metadata("/two")
    stack.sftp("rename Ordner/uno two", "rmdir Ordner")  # OpenSSH's rename replaces
    assert stack.control.read("/two") == b"1"
    assert stack.control.metadata("/two")["rev"] != revision["rev"]
    stack.sftp("rename two TWO")
    assert stack.control.tree() == {"/TWO": 1}
    stack.sftp("rm TWO")
    assert stack.control.tree() == {}


def test_what_cannot_be_done_is_refused_with_its_reason(stack: Stack) -> None:
    stack.control.write("/folder/file", b"1")
    for line, reason in {
        "rmdir folder": r"(?i)failure|not empty",
        "rm missing": r"(?i)no such file|not found",
        "mkdir folder": r"(?i)failure|exists",
        "mkdir missing/folder": r"(?i)no such file",
        "rename missing other": r"(?i)no such file",
        "get missing": r"(?i)not found",
        "cd folder/file": r"(?i)not a directory",
    }.items():
        done = stack.try_sftp(line)
        assert done.code != 0, line
        assert re.search(reason, done.err), (line, done.err)
    assert stack.control.tree() == {"/folder": None, "/folder/file": 1}


def test_ls_la_shows_names_sizes_times_and_kinds(stack: Stack) -> None:
    long_ago = int(datetime.fromisoformat("2011-03-05T10:20:30+00:00").timestamp())
    just_now = int(time.time()) - 3600
    stack.control.write("/old file", b"x" * 70_000, long_ago)
    stack.control.write("/Grüße 🙂", b"", just_now)
    stack.control.seed("/folder")
    columns = {}
    for line in stack.sftp("ls -lan").splitlines()[1:]:
        match = re.fullmatch(r"([-d][-rwx]{9}) +\S+ +\S+ +\S+ +(\d+) +(\w{3} +\d+ +[\d:]+) (.*)", line)
        assert match is not None, line
        columns[match[4]] = match[1], int(match[2]), match[3]
    assert set(columns) == {".", "..", "old file", "Grüße 🙂", "folder"}
    assert columns["old file"] == ("-rw-r--r--", 70_000, columns["old file"][2])
    assert columns["old file"][2].split() == ["Mar", "5", "2011"]
    assert columns["Grüße 🙂"][1] == 0
    assert ":" in columns["Grüße 🙂"][2]
    assert columns["folder"][0] == "drwxr-xr-x"
    assert stack.sftp("ls -1 folder").splitlines()[1:] == []


def test_df_shows_the_quota(stack: Stack) -> None:
    stack.control.set_quota(4 << 30)
    stack.control.write("/file", bytes(MIB))
    header, values = stack.sftp("df").splitlines()[1:]
    assert header.split()[:3] == ["Size", "Used", "Avail"]
    size, used, available = (int(text) for text in values.split()[:3])
    assert size == 4 << 20  # df counts KiB
    assert 1024 <= used <= 1028
    assert size - available == used


def test_cp_copies_inside_dropbox(stack: Stack) -> None:
    content = os.urandom(MIB)
    stack.control.write("/file", content)
    stack.control.reset_counts()
    stack.sftp("cp file copy")
    assert stack.stored() == {"file": digest(content), "copy": digest(content)}
    calls = stack.control.calls()
    assert calls["files/copy_v2"] == 1
    assert not [route for route in calls if "download" in route or "upload" in route]


def test_cp_replaces(stack: Stack) -> None:
    stack.control.write("/file", b"new")
    stack.control.write("/copy", b"an older one")
    stack.sftp("cp file copy")
    assert stack.control.read("/copy") == b"new"


def test_modes_and_owners_are_accepted_and_change_nothing(stack: Stack) -> None:
    stack.control.write("/file", b"1")
    before = stack.control.metadata("/file")
    stack.sftp("chmod 600 file", "chown 1000 file", "chgrp 1000 file")
    assert stack.control.metadata("/file") == before


def test_scp_puts_a_short_file_over_a_long_one(stack: Stack) -> None:
    stack.control.write("/file", os.urandom(10 * MIB))
    content = stack.write("short", os.urandom(MIB)).read_bytes()
    stack.control.reset_counts()
    done = stack.ssh("scp", "short", f"{KEY}:file")
    assert done.code == 0, done.err
    assert stack.stored() == {"file": digest(content)}
    assert stack.control.calls()["files/download"] == 0


def test_scp_copies_trees_both_ways(stack: Stack) -> None:
    tree = make_tree(stack.folder / "tree")
    done = stack.ssh("scp", "-rp", "tree", f"{KEY}:")
    assert done.code == 0, done.err
    assert stack.stored("/tree") == tree
    done = stack.ssh("scp", "-rp", f"{KEY}:tree", "back")
    assert done.code == 0, done.err
    assert digests(stack.folder / "back") == tree
    assert int((stack.folder / "back" / "one").stat().st_mtime) == int((stack.folder / "tree" / "one").stat().st_mtime)


def test_scp_finds_the_home_folder(stack: Stack) -> None:
    stack.write("file", b"1")
    done = stack.ssh("scp", "file", f"{KEY}:~/there")
    assert done.code == 0, done.err
    assert stack.control.read("/there") == b"1"


@pytest.mark.parametrize("command", [("scp", "-O", "file", f"{KEY}:"), ("ssh", KEY, "uptime")], ids=["scp -O", "ssh"])
def test_what_needs_a_shell_is_refused_at_once(stack: Stack, command: tuple[str, ...]) -> None:
    stack.write("file", b"1")
    started = time.monotonic()
    done = stack.ssh(*command)
    assert done.code != 0
    assert "SFTP only" in done.err + done.out
    assert time.monotonic() - started < 15


@pytest.mark.direct_only("a full Dropbox is told by no CLOSE: test_written_back.py")
def test_reasons_are_shown_although_the_client_drops_them(stack: Stack) -> None:
    """It prints the status alone; what the gateway says on stderr stands beside it."""
    stack.write("file", bytes(1000))
    stack.control.set_quota(100)
    done = stack.try_sftp("put file")
    assert "close remote: Failure" in done.err
    assert "sftp-gateway: /file: the Dropbox is full\n" in done.err
    done = stack.ssh("scp", stack.folder / "file", f"{KEY}:desktop.ini")
    assert "sftp-gateway: Dropbox reserves the name 'desktop.ini'\n" in done.err
    done = stack.try_sftp("mkdir folder", "-mkdir folder", "-get missing", "-rm missing")
    assert "sftp-gateway" not in done.err  # nothing that scripts do just in case, nothing that the client says itself


def test_who_may_not_replace_what_is_there_is_told_so(bare_stack: Stack) -> None:
    user = UserConfig(
        name="ann", public_keys=(bare_stack.public_key,), url=bare_stack.emulator.fs_url, rights="write-only"
    )
    with serving(bare_stack, users=(user,)):
        bare_stack.control.write("/taken", b"theirs")
        bare_stack.write("taken", b"mine")
        done = bare_stack.try_sftp("put taken")
    assert 'open "/taken": Failure' in done.err
    assert "sftp-gateway: /taken: exists already\n" in done.err


def test_reasons_do_not_get_into_the_way_of_other_clients(stack: Stack) -> None:
    with stack.connection() as sftp:
        for _ in range(100):
            with pytest.raises(OSError, match="reserves the name"):
                sftp.open("/desktop.ini", "w")
        channel = sftp.get_channel()
        assert channel is not None
        assert not channel.recv_stderr_ready()


def test_names_cannot_write_to_the_terminal(stack: Stack) -> None:
    done = stack.try_sftp('mkdir "a\x1b[31m\\\\b"')
    assert "sftp-gateway: /a\\x1b[31m\\b: Dropbox does not allow a backslash in names\n" in done.err
