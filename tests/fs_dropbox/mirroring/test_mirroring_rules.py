"""What mirroring decides for each file: what differs, what has to go, under which name, and how often it is read."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable
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
from fs_dropbox.mirroring.mirror import SMALL_BYTES, Mirror
from fs_dropbox.mirroring.steps import Action, Observer
from fs_dropbox.mirroring.transfer import Place, copy_file, holds_the_same, write_stream
from tests.fs_dropbox.mirroring.mirrored import Recorder, content, run


class Planned(Observer):
    """Does something when both sides are listed and nothing is changed yet."""

    def __init__(self, change: Callable[[], object]) -> None:
        self.change = change

    def planned(self, size: int) -> None:
        self.change()


class CountingFS(MemoryFS):
    """Remembers which files were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        self.opened.append(path)
        return super().openbin(path, mode, buffering, **options)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)


# What differs


@pytest.mark.parametrize("size", [SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1])
def test_files_of_each_size_are_copied_once(size: int) -> None:
    source, target, recorder = CountingFS(), MemoryFS(), Recorder()
    source.writebytes("f", b"x" * size)
    source.opened.clear()
    summary = run(source, target, observer=recorder)
    assert (summary.copied, summary.copied_bytes, recorder.bytes) == (1, size, size)
    assert (source.opened, target.getsize("f")) == (["/f"], size)


@pytest.mark.parametrize("seconds", [-5, -1, 1, 5])
def test_quick_comparing_goes_by_the_second_whichever_is_newer(seconds: int) -> None:
    source, target = MemoryFS(), MemoryFS()
    source.writebytes("f", b"new")
    target.writebytes("f", b"old")
    target.settimes("f", modified=at(1_600_000_000))
    source.settimes("f", modified=at(1_600_000_000.5))
    assert run(source, target, compare="quick").copied == 0
    source.settimes("f", modified=at(1_600_000_000 + seconds))
    assert run(source, target, compare="quick").copied == 1
    assert target.readbytes("f") == b"new"


@pytest.mark.parametrize("compare", ["quick", "content"])
def test_a_time_that_no_calendar_has_proves_nothing_equal(compare: Any) -> None:
    source, target = MemoryFS(), MemoryFS()
    source.writebytes("f", b"new")
    target.writebytes("f", b"old")
    source.setinfo("f", {"details": {"modified": 10**18}})
    assert run(source, target, compare=compare).copied == 1
    assert target.readbytes("f") == b"new"


def test_quick_comparing_reads_nothing_of_what_has_its_time(dropbox_fs: DropboxFS) -> None:
    source = CountingFS()
    for name in "ab":
        source.writebytes(name, b"equal")
    run(source, dropbox_fs)
    source.opened.clear()
    assert (run(source, dropbox_fs, compare="quick").skipped, source.opened) == (2, [])


def test_what_has_another_time_alone_is_not_sent_with_each_quick_run(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    source, recorder = CountingFS(), Recorder()
    source.writebytes("f", b"equal")
    run(source, dropbox_fs)
    source.settimes("f", modified=at(1_600_000_000))
    before = emulator.control.calls()
    summary = run(source, dropbox_fs, compare="quick", observer=recorder)
    assert (summary.copied, summary.skipped, recorder.bytes) == (0, 1, recorder.plan)
    assert not {"files/upload", "files/upload_session/start_batch"} & set(emulator.control.calls() - before)


def test_what_a_local_folder_got_is_equal_by_its_time(source: FS, local: Path, tmp_path: Path) -> None:
    os.utime(local / "a.txt", ns=(0, 1_600_000_000_123_456_789))
    (tmp_path / "dst").mkdir()
    with OSFS(str(tmp_path / "dst")) as target:
        assert run(source, target).copied == 3
        recorder = Recorder()
        summary = run(source, target, observer=recorder)
        assert (summary.copied, summary.skipped, recorder.plan) == (0, 3, 0)


def test_what_dropbox_has_by_hash_counts_as_done_and_is_planned_for_by_size(
    open_dropbox: Callable[..., DropboxFS], source: FS, local: Path
) -> None:
    one, other = open_dropbox(), open_dropbox()
    run(source, one, "/src")
    os.utime(local / "sub" / "b.bin", (0, 0))
    recorder = Recorder()
    summary = run(source, one, "/src", observer=recorder)
    assert (summary.copied, summary.skipped, recorder.bytes) == (0, 3, recorder.plan)
    Mirror(Place(one, "/src"), Place(other, "/dst")).run()
    recorder = Recorder()
    assert Mirror(Place(one, "/src"), Place(other, "/dst"), observer=recorder).run().skipped == 3
    assert recorder.plan == 0, "both sides tell the hash: nothing is left to find out"


def test_a_file_of_another_size_is_read_once(dropbox_fs: DropboxFS) -> None:
    source = CountingFS()
    source.writebytes("f", b"old")
    run(source, dropbox_fs)
    source.writebytes("f", b"longer")
    source.opened.clear()
    assert run(source, dropbox_fs).copied == 1
    assert source.opened == ["/f"]


def test_what_cannot_be_compared_is_a_failure_and_stays(dropbox_fs: DropboxFS, tmp_path: Path) -> None:
    dropbox_fs.writetext("f", "new")
    (tmp_path / "f").write_text("old")

    class Unreadable(OSFS):
        def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
            raise errors.PermissionDenied(path)

    with Unreadable(str(tmp_path)) as target:
        summary = run(dropbox_fs, target)
    assert [(step.path, type(error)) for step, error in summary.failures] == [("f", errors.PermissionDenied)]
    assert (tmp_path / "f").read_text() == "old"


class Rewriting(Observer):
    """Writes other content of the same size into a local file as soon as some of it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def advanced(self, size: int) -> None:
        self.file.write_bytes(bytes(self.file.stat().st_size))
        os.utime(self.file, (0, 0))


def test_a_file_that_is_rewritten_in_place_while_it_is_read_is_not_copied(source: FS, local: Path) -> None:
    (local / "a.txt").unlink()
    (local / "sub" / "deep" / "ü \U0001f600.txt").unlink()
    summary = run(source, MemoryFS(), observer=Rewriting(local / "sub" / "b.bin"))
    assert [(step.path, "changed while it was read" in str(error)) for step, error in summary.failures] == [
        ("sub/b.bin", True)
    ]


# What is there meanwhile, or in the way


def test_what_somebody_else_makes_or_removes_meanwhile_is_no_failure(source: FS) -> None:
    target = MemoryFS()
    target.writetext("extra", "x")
    target.makedirs("gone/below")

    def others() -> None:
        target.makedir("empty")
        target.remove("extra")
        target.removetree("gone")

    summary = run(source, target, delete=True, observer=Planned(others))
    assert summary.failures == []
    assert content(target) == content(source)


def test_a_file_that_has_grown_since_it_was_listed_counts_as_what_it_is(source: FS, local: Path) -> None:
    target = MemoryFS()
    summary = run(source, target, observer=Planned(lambda: (local / "a.txt").write_bytes(b"a" * 1000)))
    assert (summary.copied_bytes, target.getsize("a.txt")) == (3_001_000, 1000)


def test_what_goes_with_what_was_in_the_way_is_not_removed_twice(source: FS) -> None:
    target, recorder = MemoryFS(), Recorder()
    target.makedirs("a.txt/below/it")
    target.writetext("a.txt/below/it/x", "x")
    summary = run(source, target, delete=True, observer=recorder)
    assert [step.path for step in recorder.steps if step.action is Action.DELETE] == ["a.txt"]
    assert (summary.deleted, summary.failures) == (1, [])


def test_what_only_begins_as_the_name_in_the_way_is_copied(source: FS, local: Path) -> None:
    (local / "sub.txt").write_text("beside")
    (local / "a.txt.bak").write_text("beside")
    target = MemoryFS()
    target.writetext("sub", "a file")
    target.makedir("a.txt")
    summary = run(source, target)
    assert {step.path: str(error) for step, error in summary.failures} == {
        "sub": "the target has a file of this name; --delete would remove it",
        "a.txt": "the target has a folder of this name; --delete would remove it",
    }
    assert target.readtext("sub.txt") == target.readtext("a.txt.bak") == "beside"


def test_names_that_the_target_refuses_are_told_by_a_dry_run_too(dropbox_fs: DropboxFS) -> None:
    source = MemoryFS()
    source.writetext("fine", "x")
    source.writetext("desktop.ini", "x")
    summary = run(source, dropbox_fs, dry_run=True)
    assert [step.path for step, _ in summary.failures] == ["desktop.ini"]
    assert summary.copied == 1


# Places


@pytest.mark.parametrize("name", ["x" * 255, "\U0001f600" * 60])
def test_names_as_long_as_the_disk_takes_them(tmp_path: Path, name: str) -> None:
    source = MemoryFS()
    source.writetext(name, "x")
    with OSFS(str(tmp_path)) as target:
        assert run(source, target).failures == []
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_goes_over_no_local_folder(tmp_path: Path) -> None:
    source = MemoryFS()
    source.writetext("f", "x")
    (tmp_path / "f").mkdir()
    with OSFS(str(tmp_path)) as target, pytest.raises(errors.FileExpected):
        copy_file(Place(source, "/f"), Place(target, "/f"))
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EDQUOT, errors.InsufficientStorage),
        (errno.EACCES, errors.PermissionDenied),
        (errno.ENOENT, errors.ResourceNotFound),
        (errno.EIO, errors.OperationFailed),
    ],
)
def test_what_a_disk_refuses_is_told_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    source = MemoryFS()
    source.writetext("f", "x")
    monkeypatch.setattr(os, "replace", refuse)
    with OSFS(str(tmp_path)) as target, pytest.raises(errors.FSError) as caught:
        copy_file(Place(source, "/f"), Place(target, "/f"))
    assert type(caught.value) is kind
    assert list(tmp_path.iterdir()) == []


def test_a_filesystem_that_writes_whole_files_keeps_no_copy_and_gets_the_time() -> None:
    asked: list[dict[str, Any]] = []

    class Atomic(MemoryFS):
        def getmeta(self, namespace: str = "standard") -> dict[str, Any]:
            return dict(super().getmeta(namespace)) | {"atomic_writes": True}

        def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
            if "w" in mode:
                asked.append(options)
            return super().openbin(path, mode, buffering)

    source = MemoryFS()
    source.writetext("f", "x")
    source.settimes("f", modified=at(1_600_000_000))
    copy_file(Place(source, "/f"), Place(Atomic(), "/f"))
    assert asked == [{"seekable": False, "modified": at(1_600_000_000)}]


def test_what_differs_in_size_is_not_read_to_find_out(dropbox_fs: DropboxFS) -> None:
    source = CountingFS()
    source.writetext("f", "longer")
    dropbox_fs.writetext("f", "old")
    source.opened.clear()
    assert not holds_the_same(Place(source, "/f"), Place(dropbox_fs, "/f"))
    assert source.opened == []


def test_a_stream_tells_how_far_it_is() -> None:
    told: list[int] = []
    target = MemoryFS()
    assert write_stream(io.BytesIO(b"12345"), Place(target, "/f"), advanced=told.append) == 5
    assert (told, target.readtext("f")) == ([5], "12345")


def test_a_dry_run_makes_no_target_and_tells_the_same_bytes(source: FS) -> None:
    target, recorder = MemoryFS(), Recorder()
    summary = run(source, target, "/new/place", dry_run=True, observer=recorder)
    assert not target.exists("/new")
    assert (summary.copied, recorder.bytes) == (3, recorder.plan)


def test_a_file_of_the_account_is_no_folder_to_mirror(dropbox_fs: DropboxFS, emulator: Emulator) -> None:
    emulator.control.write("/file", b"x")
    target = MemoryFS()
    target.writetext("kept", "x")
    with pytest.raises(errors.DirectoryExpected):
        Mirror(Place(dropbox_fs, "/file"), Place(target), delete=True).run()
    assert target.listdir("/") == ["kept"]


def test_times_reach_dropbox_with_small_files_and_large_ones(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    source = MemoryFS()
    for name, size in (("a", 3), ("b", 3), ("large", SMALL_BYTES + 1)):
        source.writebytes(name, b"x" * size)
        source.settimes(name, modified=at(1_600_000_000))
    run(source, dropbox_fs)
    for name in ("a", "b", "large"):
        assert dropbox_fs.getinfo(name, ["details"]).modified == at(1_600_000_000)


def test_within_one_account_what_is_there_is_replaced(dropbox_fs: DropboxFS) -> None:
    recorder = Recorder()
    dropbox_fs.makedirs("/src")
    dropbox_fs.makedirs("/dst")
    dropbox_fs.writetext("/src/f", "new")
    dropbox_fs.writetext("/src/g", "new")
    dropbox_fs.writetext("/dst/f", "old")
    summary = Mirror(Place(dropbox_fs, "/src"), Place(dropbox_fs, "/dst"), observer=recorder).run()
    assert (summary.copied, summary.failures, recorder.bytes) == (2, [], recorder.plan)
    assert dropbox_fs.readtext("/dst/f") == "new"


def test_what_is_no_file_is_written_into(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    source = MemoryFS()
    source.writetext("f", "through the pipe")
    with OSFS(str(tmp_path)) as target:
        reading = threading.Thread(target=lambda: came.append((tmp_path / "pipe").read_text()))
        came: list[str] = []
        reading.start()
        copy_file(Place(source, "/f"), Place(target, "/pipe"))
        reading.join()
        copy_file(Place(source, "/f"), Place(target, "/null"))
    assert came == ["through the pipe"]
    assert (tmp_path / "null").is_symlink()
