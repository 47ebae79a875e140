"""What a mirror leaves out when it is told to: on both sides, and with what is below."""

from __future__ import annotations

from pathlib import Path

import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from fs_dropbox.mirroring.inventory import exclusion
from tests.fs_dropbox.commands.command_line import Cli
from tests.fs_dropbox.mirroring.mirrored import Recorder, content, make_unreadable, run

JUNK = (".DS_Store", "node_modules/", "/build", "docs/*.tmp")


def fill(filesystem: FS, *paths: str, text: str = "x") -> None:
    for path in paths:
        filesystem.makedirs(path.rpartition("/")[0], recreate=True)
        filesystem.writetext(path, text)


@pytest.mark.parametrize("path", ["a.tmp", "deep/er/A.TMP", "build", "Docs/draft.txt", "docs/sub/draft.txt"])
def test_names_match_anywhere_and_paths_as_a_whole(path: str) -> None:
    assert exclusion(["*.tmp", "/build", "docs/*draft.txt"])(path)


@pytest.mark.parametrize("path", ["tmp", "a.tmp/b", "sub/build", "more/docs/draft.txt", "builds", "[a]"])
def test_what_only_looks_like_it_is_not_left_out(path: str) -> None:
    assert not exclusion(["*.tmp", "/build", "docs/*draft.txt", "[a]"])(path)
    assert not exclusion([])(path)


@pytest.mark.parametrize("side", ["disk", "dropbox", "memory"])
def test_what_is_excluded_is_not_copied(side: str, tmp_path: Path, dropbox_fs: DropboxFS) -> None:
    source: FS = {"disk": OSFS(str(tmp_path)), "dropbox": dropbox_fs, "memory": MemoryFS()}[side]
    fill(
        source, "/kept", "/docs/kept.txt", "/docs/a.tmp", "/docs/build/kept", "/build/x/y", "/docs/Node_Modules/deep/z"
    )
    target, recorder = MemoryFS(), Recorder()
    summary = run(source, target, exclude=JUNK, delete=True, observer=recorder)
    assert (summary.copied, summary.ignored, summary.failures) == (3, 0, [])
    assert set(content(target)) == {"/kept", "/docs", "/docs/kept.txt", "/docs/build", "/docs/build/kept"}


def test_names_that_dropbox_refuses_keep_no_mirror_from_succeeding(tmp_path: Path, dropbox_fs: DropboxFS) -> None:
    """What every Mac and Windows leaves in folders."""
    with OSFS(str(tmp_path)) as source:
        fill(source, "/a.txt", "/.DS_Store", "/sub/Thumbs.db")
        assert len(run(source, dropbox_fs).failures) == 2
        assert run(source, dropbox_fs, exclude=[".DS_Store", "thumbs.db"]).failures == []
    assert set(content(dropbox_fs)) == {"/a.txt", "/sub"}


def test_what_the_target_has_of_it_stays_with_the_folders_that_hold_it() -> None:
    source, target = MemoryFS(), MemoryFS()
    fill(source, "/a.txt")
    fill(target, "/.DS_Store", "/gone/deep/.DS_Store", "/gone/deep/other", "/gone/too", "/went/all", "/build/x/y")
    summary = run(source, target, exclude=JUNK, delete=True)
    assert summary.failures == []
    kept = {"/a.txt", "/.DS_Store", "/gone", "/gone/deep", "/gone/deep/.DS_Store", "/build", "/build/x", "/build/x/y"}
    assert set(content(target)) == kept
    again = run(source, target, exclude=JUNK, delete=True)
    assert (again.copied, again.deleted, again.failures) == (0, 0, [])


def test_a_folder_that_holds_it_gives_way_to_no_file() -> None:
    source, target = MemoryFS(), MemoryFS()
    fill(source, "/name")
    fill(target, "/name/below/.DS_Store")
    ((step, error),) = run(source, target, exclude=JUNK, delete=True).failures
    assert step.path == "name"
    assert "holds what is excluded" in str(error)
    assert target.exists("/name/below/.DS_Store")


def test_nobody_looks_into_a_folder_that_is_excluded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be read, nothing is held back for that."""
    target = MemoryFS()
    fill(target, "/gone")
    with OSFS(str(tmp_path)) as source:
        fill(source, "/build/x", "/a.txt")
        make_unreadable("build", monkeypatch)
        summary = run(source, target, exclude=JUNK, delete=True)
    assert (summary.deleted, summary.failures) == (1, [])
    assert set(content(target)) == {"/a.txt"}


def test_get_put_and_mirror_leave_out_what_they_are_told(cli: Cli, seeded: Emulator, tmp_path: Path) -> None:
    assert cli("get", "-x", "*.bin", "--exclude", "{c}*", "/Docs", ".").code == 0
    here = tmp_path / "here"
    assert {path.name for path in here.rglob("*")} == {"Docs", "a.txt", "Sub"}
    (here / "Docs" / ".DS_Store").touch()
    assert cli("put", "-x", ".ds_store", "Docs", "/Copy").code == 0
    done = cli("mirror", "--delete", "-x", ".DS_Store", "-x", "Sub/*.bin", "Docs", ":/Docs")
    assert (done.code, done.err) == (0, "")
    assert seeded.control.tree("/Docs") == {"/Docs/Sub": None, "/Docs/Sub/B.bin": 2000, "/Docs/a.txt": 5}
    assert seeded.control.tree("/Copy") == {"/Copy/Sub": None, "/Copy/a.txt": 5}
