"""The commands for files, in this process against the emulator: what they do, print and return."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from fs_dropbox.emulator import Emulator
from tests.fs_dropbox.commands.command_line import Cli

NO_ACCESS = "fs-dropbox: Dropbox no longer accepts the authorisation: run `fs-dropbox login`\n"

# Looking


def test_ls(seeded: Emulator, cli: Cli) -> None:
    assert cli("ls") == (0, "Docs/\nEmpty/\n", "")
    assert cli("ls", "docs").out == "a.txt\nSub/\n"
    assert cli("ls", "-R", "/Docs").out == "a.txt\nSub/\nSub/B.bin\nSub/{c} ü.txt\n"
    assert cli("ls", "/Docs/a.txt").out == "Docs/a.txt\n"


@pytest.mark.parametrize("zone", ["EST5", "JST-9"])
def test_ls_shows_any_time(emulator: Emulator, cli: Cli, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    """Programs store the year 1 for want of a time."""
    emulator.control.write("/first", b"", -62_135_596_800)
    emulator.control.write("/last", b"", 253_402_300_799)
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        long, rows = cli("ls", "-l"), json.loads(cli("ls", "-l", "--json").out)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (long.code, long.err) == (0, "")
    assert [line.split()[1][:4] for line in long.out.splitlines()] == ["0001", "9999"]
    assert [row["modified"] for row in rows] == ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]


def test_ls_long(seeded: Emulator, cli: Cli) -> None:
    lines = cli("ls", "-lR", "/Docs").out.splitlines()
    assert [line.split()[0] for line in lines] == ["5", "-", "2000", "0"]
    assert lines[0].split()[1:] == ["2020-09-13", lines[0].split()[2], "a.txt"]
    assert "2.0 kB" in cli("ls", "-l", "-H", "/Docs/Sub").out


def test_ls_json(seeded: Emulator, cli: Cli) -> None:
    rows = json.loads(cli("ls", "--json", "/Docs").out)
    known = seeded.control.metadata("/Docs/a.txt")
    assert rows[0] == {
        "path": "/Docs/a.txt",
        "name": "a.txt",
        "type": "file",
        "size": 5,
        "modified": "2020-09-13T12:26:40Z",
        "id": known["id"],
        "rev": known["rev"],
        "content_hash": known["content_hash"],
    }
    assert (rows[1]["name"], rows[1]["type"]) == ("Sub", "folder")


def test_a_recursive_listing_is_one_call(seeded: Emulator, cli: Cli) -> None:
    seeded.control.reset_counts()
    cli("ls", "-R")
    assert seeded.control.calls()["files/list_folder"] == 1


def test_tree(seeded: Emulator, cli: Cli) -> None:
    assert cli("tree", "/Docs").out == (
        "/Docs\n├── a.txt\n└── Sub/\n    ├── B.bin\n    └── {c} ü.txt\n\n1 folder, 3 files, 2.0 kB\n"
    )
    assert cli("tree", "-L", "1").out == "/\n├── Docs/\n└── Empty/\n\n2 folders, 0 files, 0 B\n"
    assert cli("tree", "-d", "/Docs").out.splitlines()[:2] == ["/Docs", "└── Sub/"]


def test_tree_as_json(seeded: Emulator, cli: Cli) -> None:
    top = json.loads(cli("tree", "docs", "--json").out)
    assert top["path"] == "/docs"
    text, folder = top["children"]
    assert (text["path"], text["size"]) == ("/docs/a.txt", 5)
    assert [child["name"] for child in folder["children"]] == ["B.bin", "{c} ü.txt"]
    assert json.loads(cli("tree", "--json", "-d", "-L", "1").out)["children"][0]["children"] == []


def test_cat(seeded: Emulator, cli: Cli) -> None:
    assert cli("cat", "/Docs/a.txt", "/docs/A.TXT").out == "alphaalpha"


def test_df(seeded: Emulator, cli: Cli) -> None:
    seeded.control.set_quota(20_000)
    assert json.loads(cli("df", "--json").out) == {"total": 20_000, "used": 2005, "free": 17_995}
    assert cli("df", "-H").out.splitlines()[1].split() == ["20.0", "kB", "2.0", "kB", "18.0", "kB", "10%"]


def test_absent_things_have_their_exit_code(seeded: Emulator, cli: Cli) -> None:
    for command in (("ls", "/nope"), ("cat", "/nope"), ("get", "/nope"), ("rm", "/nope"), ("versions", "/{no}")):
        done = cli(*command)
        assert done.code == 4, done
        assert done.err.count("\n") == 1
        assert done.err.startswith("fs-dropbox: ")
    assert cli("cat", "/Docs").code == 1


# Versions


def test_versions_and_restore(seeded: Emulator, cli: Cli) -> None:
    old = seeded.control.metadata("/Docs/a.txt")["rev"]
    seeded.control.write("/Docs/a.txt", b"beta and more")
    rows = json.loads(cli("versions", "--json", "/Docs/a.txt").out)
    assert [row["size"] for row in rows] == [13, 5]
    assert rows[1]["rev"] == old
    assert old in cli("versions", "/Docs/a.txt").out.splitlines()[2]
    done = cli("restore", "/Docs/a.txt", old)
    assert (done.code, done.out) == (0, "restored /Docs/a.txt (5 B)\n")
    assert seeded.control.read("/Docs/a.txt") == b"alpha"


def test_an_earlier_revision_is_printed(seeded: Emulator, cli: Cli) -> None:
    seeded.control.write("/Docs/a.txt", b"beta")
    revs = [row["rev"] for row in json.loads(cli("versions", "/Docs/a.txt", "--json").out)]
    assert [cli("cat", "--rev", rev, "/docs/A.txt").out for rev in revs] == ["beta", "alpha"]
    seeded.control.delete("/Docs/a.txt")
    assert cli("cat", "/Docs/a.txt", "--rev", revs[1]).out == "alpha"
    unknown = cli("cat", "/Docs/a.txt", "--rev", "0123456789abcdef")
    assert (unknown.code, unknown.out) == (4, "")
    assert "0123456789abcdef" in unknown.err
    assert cli("cat", "/Docs/a.txt", "/Docs/Sub/B.bin", "--rev", revs[0]).code == 2


def test_a_deleted_file_is_brought_back(seeded: Emulator, cli: Cli) -> None:
    cli("rm", "/Docs/a.txt")
    assert not seeded.control.exists("/Docs/a.txt")
    rev = json.loads(cli("versions", "--json", "/Docs/a.txt").out)[0]["rev"]
    assert cli("restore", "/Docs/a.txt", rev).code == 0
    assert seeded.control.read("/Docs/a.txt") == b"alpha"


def test_what_was_deleted_is_listed_read_and_brought_back(seeded: Emulator, cli: Cli) -> None:
    cli("rm", "-r", "/Docs")
    assert cli("ls", "/.deleted").out == "Docs/\nEmpty/\n"
    assert cli("ls", "-R", "/.deleted/Docs").out == "a.txt\nSub/\nSub/B.bin\nSub/{c} ü.txt\n"
    assert cli("cat", "/.deleted/Docs/a.txt").out == "alpha"
    assert cli("restore", "/Docs/a.txt").out == "restored /Docs/a.txt (5 B)\n"
    assert cli("restore", "/Docs").out == "restored 2 files in /Docs\n"
    assert seeded.control.read("/Docs/Sub/B.bin") == bytes(2000)
    assert cli("rm", "/.deleted/Docs/a.txt").code != 0
    assert "/.deleted" not in cli("ls", "-R").out


def test_versions_are_read_as_files(seeded: Emulator, cli: Cli) -> None:
    seeded.control.advance(60)
    seeded.control.write("/Docs/a.txt", b"beta and more")
    names = cli("ls", "/.versions/Docs/a.txt").out.splitlines()
    assert [cli("cat", f"/Docs/.versions/a.txt/{name}").out for name in names] == ["alpha", "beta and more"]


def test_documents_are_read_as_exports(seeded: Emulator, cli: Cli) -> None:
    seeded.control.make_paper("/Empty/Notes.paper", "# Notes")
    assert cli("ls", "-l", "/Empty").out.split()[0] == "7"
    assert cli("cat", "/Empty/Notes.paper.md").out == "# Notes"
    for outcome in ("1 copied", "0 copied (0 B), 1 unchanged"):
        done = cli("mirror", ":/Empty", "backup")
        assert (done.code, done.out.startswith(outcome)) == (0, True), done
    assert Path("backup/Notes.paper.md").read_text() == "# Notes"
    (row,) = json.loads(cli("ls", "--json", "/Empty").out)
    assert (row["name"], row["export"]["format"]) == ("Notes.paper.md", "html")


def test_restoring_an_unknown_revision_is_an_error(seeded: Emulator, cli: Cli) -> None:
    done = cli("restore", "/Docs/a.txt", "0123456789abc")
    assert done.code in (1, 4)
    assert seeded.control.read("/Docs/a.txt") == b"alpha"


# Links


def test_links(seeded: Emulator, cli: Cli) -> None:
    shared = cli("link", "/Docs/a.txt")
    assert (shared.code, shared.out.startswith("https://")) == (0, True), shared
    assert cli("link", "/Docs/a.txt").out == shared.out, "the link that is there is given again"
    assert json.loads(cli("link", "--json", "/Docs/a.txt").out)["url"] == shared.out.strip()
    temporary = cli("link", "--temporary", "/Docs/a.txt").out
    assert temporary.startswith("https://")
    assert temporary != shared.out
    assert cli("link", "/nope").code == 4


# Changing


def test_mkdir(seeded: Emulator, cli: Cli) -> None:
    assert cli("mkdir", "/New").code == 0
    assert cli("mkdir", "/New").code == 1
    assert cli("mkdir", "/deep/er").code == 4
    assert cli("mkdir", "-p", "/deep/er", "/New").code == 0
    assert {"/New", "/deep/er"} <= set(seeded.control.tree())


def test_rm(seeded: Emulator, cli: Cli) -> None:
    refused = cli("rm", "/Docs")
    assert (refused.code, "use -r" in refused.err) == (1, True)
    assert cli("rm", "-r", "/").code == 2
    assert cli("rm", "-f", "/nope").code == 0
    assert cli("rm", "/Docs/a.txt", "/Docs/Sub/{c} ü.txt").code == 0
    assert cli("rm", "-r", "/Docs").code == 0
    assert set(seeded.control.tree()) == {"/Empty"}


def test_mv(seeded: Emulator, cli: Cli) -> None:
    assert cli("mv", "/Docs/a.txt", "/Docs/z.txt").code == 0
    assert cli("mv", "/Docs/z.txt", "/Docs/Sub", "/Empty").code == 0
    assert cli("mv", "/Empty/z.txt", "/Empty/Z.TXT").code == 0, "another case of the same name"
    assert {"/Empty/Z.TXT", "/Empty/Sub/B.bin", "/Docs"} <= set(seeded.control.tree())
    seeded.control.write("/other", b"x")
    refused = cli("mv", "/other", "/Empty/z.txt")
    assert (refused.code, "-f replaces it" in refused.err) == (1, True)
    assert cli("mv", "-f", "/other", "/Empty/z.txt").code == 0
    assert seeded.control.read("/Empty/z.txt") == b"x"
    assert cli("mv", "/Empty", "/Empty/Sub").code == 1
    assert cli("mv", "/Docs", "/nowhere/").code == 4


def test_cp(seeded: Emulator, cli: Cli) -> None:
    seeded.control.reset_counts()
    assert cli("cp", "/Docs/a.txt", "/copy.txt").code == 0
    assert cli("cp", "/Docs", "/Docs2").code == 1
    assert cli("cp", "-r", "/Docs", "/Docs2").code == 0
    assert cli("cp", "-r", "/Docs", "/Empty").code == 0
    assert seeded.control.read("/copy.txt") == b"alpha"
    assert {"/Docs2/Sub/B.bin", "/Empty/Docs/Sub/B.bin"} <= set(seeded.control.tree())
    assert seeded.control.calls()["files/download"] == 0, "Dropbox copies by itself"
    assert cli("cp", "/Docs/a.txt", "/copy.txt").code == 1
    assert cli("cp", "-f", "/Docs/Sub/B.bin", "/copy.txt").code == 0
    assert seeded.control.read("/copy.txt") == bytes(2000)


def test_of_several_each_is_tried(seeded: Emulator, cli: Cli) -> None:
    done = cli("mkdir", "/one", "/none/x", "/two")
    assert (done.code, done.err) == (1, "fs-dropbox: there is no folder /none: -p makes it too\n")
    assert cli("cp", "/none", "/Docs/a.txt", "/one")[::2] == (1, "fs-dropbox: there is no file or folder /none\n")
    assert cli("cat", "/one", "/one/a.txt") == (1, "alpha", "fs-dropbox: /one is a folder, not a file\n")
    assert cli("ls", "/none", "/one") == (1, "a.txt\n", "fs-dropbox: there is no file or folder /none\n")
    assert cli("mv", "/none", "/one/a.txt", "/two")[::2] == (1, "fs-dropbox: there is no file or folder /none\n")
    assert cli("rm", "/none", "/two/a.txt")[::2] == (1, "fs-dropbox: there is no file or folder /none\n")
    assert seeded.control.tree("/two") == {}
    seeded.control.revoke_tokens()
    assert cli("rm", "/a", "/b")[::2] == (3, NO_ACCESS)


def test_cp_between_two_connections(seeded: Emulator, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    assert cli("cp", "-r", "/Docs", f"osfs://{tmp_path}/disk!/copy").code == 0
    assert (tmp_path / "disk/copy/Sub/B.bin").read_bytes() == bytes(2000)
    assert cli("mv", "/Docs", f"osfs://{tmp_path}/disk").code == 2
    assert cli("cp", "/Docs/Sub/B.bin", f"osfs://{tmp_path}/disk!/b").code == 0
    assert (tmp_path / "disk/b").read_bytes() == bytes(2000)


def test_cp_between_two_connections_tells_what_ended_it(seeded: Emulator, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    seeded.control.fault("files/download", "error", None, status=401, error={".tag": "invalid_access_token"})
    done = cli("cp", "-r", "/Docs", f"osfs://{tmp_path}/disk!/copy")
    assert done.code == 3
    assert len(done.err.splitlines()) == 2, "once of the file, once as the end"


# Mirror


def test_permission_errors_of_the_account(seeded: Emulator, cli: Cli) -> None:
    seeded.control.revoke_tokens()
    done = cli("ls")
    assert done.code == 3
    assert done.err.count("\n") == 1
    assert seeded.refresh_token not in done.err
