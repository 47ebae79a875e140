"""Mirroring between any two filesystems: only what differs moves, and nothing is lost by it."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fs import errors
from fs.base import FS
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from fs_dropbox.mirroring.mirror import Mirror
from fs_dropbox.mirroring.steps import Action
from fs_dropbox.mirroring.transfer import Place, copy_file
from tests.fs_dropbox.mirroring.mirrored import FoldingFS, Recorder, content, run, write_many


class CountingFS(MemoryFS):
    """Remembers which files were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[tuple[str, str]] = []

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        self.opened.append((path, mode))
        return super().openbin(path, mode, buffering, **options)


def test_a_tree_arrives_and_the_second_run_moves_nothing(source: FS) -> None:
    target = CountingFS()
    recorder = Recorder()
    summary = run(source, target, "/new/place", observer=recorder)
    assert (summary.copied, summary.folders, summary.copied_bytes, summary.failures) == (3, 3, 3_000_010, [])
    assert recorder.plan == 3_000_010
    assert recorder.bytes == 3_000_010
    assert content(target, "/new/place") == content(source)
    target.opened.clear()
    summary = run(source, target, "/new/place")
    assert (summary.copied, summary.skipped, summary.folders) == (0, 3, 0)
    assert target.opened == []


def test_only_the_changed_file_moves(source: FS, local: Path) -> None:
    target = MemoryFS()
    run(source, target)
    (local / "a.txt").write_bytes(b"longer than before")
    recorder = Recorder()
    summary = run(source, target, observer=recorder)
    assert [(step.action, step.path, step.reason) for step in recorder.steps if step.action is Action.COPY] == [
        (Action.COPY, "a.txt", "differs")
    ]
    assert summary.skipped == 2
    assert target.readbytes("a.txt") == b"longer than before"


def test_a_dry_run_changes_nothing_and_tells_the_same(source: FS) -> None:
    target = MemoryFS()
    target.writetext("old.txt", "x")
    dry, wet = Recorder(), Recorder()
    run(source, target, "/", dry_run=True, delete=True, observer=dry)
    assert content(target) == {"/old.txt": b"x"}
    run(source, target, "/", delete=True, observer=wet)

    def told(recorder: Recorder) -> set[tuple[Action, str]]:
        return {(step.action, step.path) for step in recorder.steps}

    assert told(dry) == told(wet)
    assert (Action.DELETE, "old.txt") in told(wet)


def test_delete_removes_exactly_what_the_source_does_not_have(source: FS) -> None:
    target = MemoryFS()
    target.makedirs("gone/with/it")
    target.writetext("gone/with/it/x", "x")
    target.makedirs("sub")
    target.writetext("sub/extra", "x")
    assert run(source, target).deleted == 0
    assert target.exists("gone/with/it/x")
    recorder = Recorder()
    summary = run(source, target, delete=True, observer=recorder)
    assert sorted(step.path for step in recorder.steps if step.action is Action.DELETE) == ["gone", "sub/extra"]
    assert summary.deleted == 2
    assert content(target) == content(source)


def test_what_is_there_is_left_alone_where_that_is_asked_for(source: FS) -> None:
    target = MemoryFS()
    target.writetext("a.txt", "another")
    summary = run(source, target, replace=False)
    assert target.readtext("a.txt") == "another"
    assert (summary.copied, summary.skipped) == (2, 1)
    assert target.exists("sub/b.bin")


@pytest.mark.parametrize("delete", [False, True])
def test_a_folder_in_place_of_a_file_and_the_reverse(source: FS, delete: bool) -> None:
    target = MemoryFS()
    target.makedirs("a.txt/below")
    target.writetext("sub", "a file")
    summary = run(source, target, delete=delete)
    if delete:
        assert summary.failures == []
        assert content(target) == content(source)
    else:
        assert sorted(step.path for step, _ in summary.failures) == ["a.txt", "sub"]
        assert target.readtext("sub") == "a file"
        assert target.isdir("a.txt/below")


def test_local_files_are_replaced_whole_with_their_times(tmp_path: Path) -> None:
    source = MemoryFS()
    source.writebytes("a", b"new")
    source.setinfo("a", {"details": {"modified": 1_600_000_000}})
    (tmp_path / "a").write_bytes(b"old content")
    (tmp_path / "a").chmod(0o640)
    held = (tmp_path / "a").open("rb")
    with OSFS(str(tmp_path)) as target, held:
        run(source, target)
        assert held.read() == b"old content", "whoever reads the old version goes on reading it"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a").stat().st_mtime == 1_600_000_000
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk that stores any time, where there is one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


@pytest.mark.parametrize("seconds", [10**12, -(10**11)])
def test_a_time_that_no_calendar_has_is_none(dropbox_fs: DropboxFS, disk: Path, seconds: int) -> None:
    for folder in ("small", "large"):
        (disk / folder).mkdir()
    for path, size in (("small/f", 3), ("small/g", 3), ("large/f", 10_000_000)):
        (disk / path).write_bytes(b"x" * size)
        os.utime(disk / path, (seconds, seconds))
    with OSFS(str(disk)) as source:
        assert run(source, dropbox_fs).copied == 3
        copy_file(Place(source, "/large/f"), Place(dropbox_fs, "/copy"))
        assert run(dropbox_fs, source).copied == 1
    assert dropbox_fs.getsize("/large/f") == dropbox_fs.getsize("/copy") == 10_000_000


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    memory = MemoryFS()
    memory.writebytes("f", b"content")
    monkeypatch.setattr(os, "replace", full)
    with OSFS(str(tmp_path)) as disk, pytest.raises(errors.InsufficientStorage, match=r"^/f: No space left on device$"):
        copy_file(Place(memory, "/f"), Place(disk, "/f"))
    assert list(tmp_path.iterdir()) == []


def test_symbolic_links(source: FS, local: Path) -> None:
    (local / "to-file").symlink_to(local / "a.txt")
    (local / "to-folder").symlink_to(local / "sub")
    (local / "loop").symlink_to(local)
    (local / "broken").symlink_to(local / "nowhere")
    os.mkfifo(local / "pipe")
    target = MemoryFS()
    target.makedirs("to-folder/kept")
    target.writetext("to-folder/kept/file", "x")
    recorder = Recorder()
    summary = run(source, target, delete=True, observer=recorder)
    assert target.readbytes("to-file") == b"a" * 10
    ignored = {step.path: step.reason for step in recorder.steps if step.action is Action.SKIP and step.reason}
    assert ignored == {
        "to-folder": "a symbolic link to a folder",
        "loop": "a symbolic link to a folder",
        "broken": "a symbolic link to nothing",
        "pipe": "neither a file nor a folder",
    }
    assert (summary.ignored, summary.failures) == (4, [])
    assert target.exists("to-folder/kept/file"), "what is behind a link was not looked at, so nothing is known of it"


def test_names_that_differ_only_in_case(source: FS, local: Path) -> None:
    (local / "A.TXT").write_text("other")
    target = FoldingFS()
    target.writebytes("A.txt", b"a" * 10)
    target.settimes("A.txt", modified=datetime.now(UTC))
    summary = run(source, target, delete=True)
    assert [(step.path, "differs only in case" in str(error)) for step, error in summary.failures] == [("a.txt", True)]
    assert sorted(target.listdir("/")) == ["A.txt", "empty", "sub"]
    assert target.readbytes("A.txt") == b"other"


def test_a_folder_is_not_mirrored_into_itself(source: FS) -> None:
    target = MemoryFS()
    target.makedirs("a/b")
    for one, other in (("/a", "/a/b"), ("/a/b", "/a"), ("/a", "/a")):
        with pytest.raises(errors.OperationFailed, match="inside"):
            Mirror(Place(target, one), Place(target, other)).run()
    with OSFS(source.getsyspath("/sub")) as inner, pytest.raises(errors.OperationFailed, match="inside"):
        Mirror(Place(source), Place(inner)).run()


def test_many_small_files_go_up_in_few_calls(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS], tmp_path: Path
) -> None:
    dropbox_fs = open_dropbox(change_feed=False)  # whose calls are more the longer it takes
    write_many(tmp_path / "many", 1000)
    dropbox_fs.makedir("/many")
    emulator.control.reset_counts()
    recorder = Recorder()
    with OSFS(str(tmp_path / "many")) as source:
        summary = run(source, dropbox_fs, "/many", observer=recorder)
        assert (summary.copied, summary.failures, recorder.bytes) == (1000, [], recorder.plan)
        calls = emulator.control.calls()
        assert calls.total() <= 20, calls
        assert emulator.control.read("/many/0999.txt") == b"999" * 100
        # of what is there again, only what differs moves
        (tmp_path / "many" / "0500.txt").write_bytes(b"other")
        assert (run(source, dropbox_fs, "/many").copied, emulator.control.read("/many/0500.txt")) == (1, b"other")
