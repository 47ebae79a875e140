"""What mirroring removes from its target, and what it must not: links, what the source has, what is not known."""

from __future__ import annotations

import fcntl
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fs import errors
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS

from fs_dropbox import DropboxFS
from fs_dropbox.mirroring.steps import Action
from tests.fs_dropbox.mirroring.mirrored import FoldingFS, Recorder, content, make_unreadable, run

PART = ".a.txt.0123abcd.fs-dropbox-part"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.mark.parametrize("name", ["gone", "replaced"])
def test_what_is_behind_a_link_in_a_removed_folder_stays(disk: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "precious").write_text("x")
    (disk / name / "below").mkdir(parents=True)
    (disk / name / "below" / "link").symlink_to(tmp_path / "beside")
    source = MemoryFS()
    source.writetext("replaced", "a file")
    with OSFS(str(disk)) as target:
        summary = run(source, target, delete=True)
    assert (summary.deleted, summary.failures) == (1, [])
    assert os.listdir(disk) == ["replaced"]
    assert (tmp_path / "beside" / "precious").read_text() == "x"


def test_nothing_gives_way_where_a_part_of_the_source_is_not_known(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (disk / "sub").mkdir()
    (disk / "name").write_text("a file")
    make_unreadable("sub", monkeypatch)
    target = MemoryFS()
    target.makedir("name")
    target.writetext("name/kept", "x")
    with OSFS(str(disk)) as source:
        summary = run(source, target, delete=True)
    assert {step.path: "not all of the source is known" in str(error) for step, error in summary.failures} == {
        "sub": False,
        "name": True,
    }
    assert target.readtext("name/kept") == "x"


def test_of_a_file_and_a_folder_of_one_name_the_target_keeps_what_it_has() -> None:
    source, target = MemoryFS(), FoldingFS()
    source.writetext("Sub", "a file")
    source.makedir("sub")
    source.writetext("sub/kept", "x")
    target.makedir("sub")
    target.writetext("sub/kept", "x")
    summary = run(source, target, delete=True)
    assert [step.path for step, _ in summary.failures] == ["Sub"]
    assert content(target) == {"/sub": None, "/sub/kept": b"x"}
    empty = FoldingFS()
    summary = run(source, empty, delete=True)
    assert [step.path for step, _ in summary.failures] == ["sub"]
    assert content(empty) == {"/Sub": b"a file"}


def test_of_two_files_of_one_name_each_stays_itself() -> None:
    source, target = MemoryFS(), FoldingFS()
    source.writetext("NAME", "another file")
    source.writetext("name", "changed")
    target.writetext("name", "old")
    assert [step.path for step, _ in run(source, target).failures] == ["NAME"]
    assert content(target) == {"/name": b"changed"}


@pytest.mark.parametrize("delete", [False, True])
def test_links_and_the_like_give_way_as_what_is_of_another_kind_does(disk: Path, tmp_path: Path, delete: bool) -> None:
    (tmp_path / "beside").mkdir()
    (disk / "file").symlink_to(tmp_path / "beside")
    (disk / "folder").symlink_to(tmp_path / "beside")
    source = MemoryFS()
    source.writetext("file", "x")
    source.makedir("folder")
    source.writetext("folder/below", "x")
    with OSFS(str(disk)) as target:
        summary = run(source, target, delete=delete)
    assert os.listdir(tmp_path / "beside") == []
    if delete:
        assert (disk / "file").read_text() == (disk / "folder" / "below").read_text() == "x"
        assert summary.failures == []
    else:
        text = "in the target this is a symbolic link to a folder; --delete would remove it"
        assert [(step.path, str(error)) for step, error in summary.failures] == [("file", text), ("folder", text)]


def test_what_has_no_name_in_text_is_not_said_to_be_removed(disk: Path) -> None:
    (disk / "gone").mkdir()
    for folder in (disk, disk / "gone"):
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_bytes(b"x")
    with OSFS(str(disk)) as target:
        summary = run(MemoryFS(), target, delete=True)
    assert [(step.action, str(error)) for step, error in summary.failures] == [
        (Action.DELETE, "its name is not valid UTF-8: remove it by hand")
    ]
    assert (summary.deleted, os.listdir(os.fsencode(disk))) == (1, [b"\xff"])


def test_where_a_file_could_not_be_copied_its_old_name_is_kept() -> None:
    class Unreadable(MemoryFS):
        def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
            if mode == "r":
                raise errors.PermissionDenied(path)
            return super().openbin(path, mode, buffering, **options)

    source, target = Unreadable(), MemoryFS()
    source.writetext("new name", "x")
    target.writetext("old name", "x")
    summary = run(source, target, delete=True)
    assert [step.action for step, _ in summary.failures] == [Action.COPY, Action.DELETE]
    assert "not all could be copied" in str(summary.failures[1][1])
    assert target.listdir("/") == ["old name"]


def test_what_a_transfer_has_left_goes_nowhere(disk: Path, dropbox_fs: DropboxFS) -> None:
    (disk / PART).write_text("half")
    (disk / "a.txt").write_text("whole")
    recorder = Recorder()
    with OSFS(str(disk)) as source:
        summary = run(source, dropbox_fs, observer=recorder)
    assert (summary.copied, summary.ignored, summary.failures) == (1, 1, [])
    assert dropbox_fs.listdir("/") == ["a.txt"]


def test_what_a_transfer_has_left_is_removed_unless_that_goes_on(disk: Path) -> None:
    (disk / PART).write_text("half")
    source = MemoryFS()
    with OSFS(str(disk)) as target:
        run(source, target, dry_run=True)
        with (disk / PART).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            summary = run(source, target, delete=True)
            assert (summary.deleted, os.listdir(disk)) == (0, [PART])
        summary = run(source, target)
    assert (summary.deleted, summary.ignored, os.listdir(disk)) == (0, 0, [])


def _disk_that_looks_at(disk: Path, key: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> OSFS:
    """Return a disk that takes names for one whose keys are equal, where somebody looks without writing."""

    def is_there(path: str) -> bool:
        return any(key(str(each)) == key(path) for each in disk.rglob("*"))

    monkeypatch.setattr(os.path, "lexists", is_there)
    return OSFS(str(disk))


def test_a_disk_that_normalises_names_keeps_what_is_spelled_otherwise_now(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = _disk_that_looks_at(disk, lambda path: unicodedata.normalize("NFC", path), monkeypatch)
    apart, composed = "u\u0308ber.txt", "\u00fcber.txt"
    target.writetext(apart, "older")
    target.writetext("A", "a")
    source = MemoryFS()
    source.writetext(composed, "new")
    source.writetext("a", "a")
    summary = run(source, target, delete=True)
    assert (summary.copied, summary.deleted, summary.failures) == (2, 1, [])  # it tells case apart
    assert content(target) == {f"/{apart}": b"new", "/a": b"a"}


def test_a_disk_that_cannot_tell_case_apart_keeps_what_has_other_letters_now(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folding_disk = _disk_that_looks_at(disk, str.lower, monkeypatch)
    folding_disk.writetext("2026.TXT", "older")
    folding_disk.makedir("SUB").writetext("X", "old")
    source = MemoryFS()
    source.writetext("2026.txt", "new")
    source.makedir("sub").writetext("x", "new")
    summary = run(source, folding_disk, delete=True)
    assert (summary.copied, summary.folders, summary.deleted, summary.failures) == (2, 0, 0, [])
    assert content(folding_disk) == {"/2026.TXT": b"new", "/SUB": None, "/SUB/X": b"new"}


def test_a_disk_that_tells_case_apart_has_both(disk: Path) -> None:
    source = MemoryFS()
    for name in ("a", "A"):
        (disk / name).write_text("old")
        source.writetext(name, "new")
    with OSFS(str(disk)) as target:
        assert run(source, target, delete=True).copied == 2
        assert content(target) == {"/a": b"new", "/A": b"new"}
