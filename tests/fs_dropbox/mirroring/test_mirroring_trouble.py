"""Mirroring where something goes wrong: what cannot be read, breaks off or changes meanwhile harms nothing else."""

from __future__ import annotations

import os
import resource
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fs import errors
from fs.base import FS
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS

from fs_dropbox import DropboxFS
from fs_dropbox.mirroring.inventory import exclusion, take_inventory
from fs_dropbox.mirroring.mirror import Mirror
from fs_dropbox.mirroring.steps import Observer
from fs_dropbox.mirroring.transfer import GrownError, Place, StoppedError, copy_file, snapshot
from tests.fs_dropbox.mirroring.mirrored import make_unreadable, run, write_many
from tests.waiting import DEADLINE_SECONDS


def test_nothing_is_deleted_when_a_folder_of_the_source_cannot_be_read(source: FS, monkeypatch: Any) -> None:
    target = MemoryFS()
    run(source, target)
    make_unreadable("deep", monkeypatch)
    target.writetext("extra", "x")
    summary = run(source, target, delete=True)
    assert [step.path for step, _ in summary.failures] == ["sub/deep"]
    assert summary.deleted == 0
    assert target.exists("sub/deep/ü \U0001f600.txt")
    assert target.exists("extra")


class HalfSeenFS(MemoryFS):
    """A filesystem one of whose folders cannot be listed."""

    def scandir(self, path: str, *arguments: Any, **options: Any) -> Any:
        if path.strip("/") == "sub":
            raise errors.PermissionDenied(path)
        return super().scandir(path, *arguments, **options)


@pytest.mark.parametrize("delete", [False, True])
def test_where_the_target_cannot_be_seen_nothing_is_done(source: FS, delete: bool) -> None:
    target = HalfSeenFS()
    target.makedir("sub")
    target.writetext("sub/b.bin", "kept")
    target.writetext("extra", "kept")
    with pytest.raises(errors.PermissionDenied):
        run(source, target, delete=delete)
    assert target.readtext("sub/b.bin") == "kept"
    assert target.readtext("extra") == "kept"
    assert not target.exists("a.txt")


@pytest.mark.parametrize("delete", [False, True])
def test_where_a_local_target_cannot_be_seen_nothing_is_done(
    source: FS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delete: bool
) -> None:
    (tmp_path / "dst" / "sub").mkdir(parents=True)
    for name in ("sub/b.bin", "extra"):
        (tmp_path / "dst" / name).write_text("kept")
    make_unreadable("dst/sub", monkeypatch)
    with OSFS(str(tmp_path / "dst")) as target, pytest.raises(errors.PermissionDenied):
        run(source, target, delete=delete)
    assert [(tmp_path / "dst" / name).read_text() for name in ("sub/b.bin", "extra")] == ["kept", "kept"]
    assert not (tmp_path / "dst" / "a.txt").exists()


class FailingFS(MemoryFS):
    """Takes files as a whole or not at all, and fails amid them."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = 0
        self._meta = {**self._meta, "atomic_writes": True}

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        if "w" not in mode:
            return super().openbin(path, mode, buffering)
        owner = self

        class File:
            def write(self, data: bytes) -> int:
                raise errors.RemoteConnectionError(path)

            def abort(self) -> None:
                owner.aborted += 1

            def close(self) -> None:
                raise AssertionError("what was begun would count as the whole")

        return File()


def test_a_file_that_breaks_off_is_aborted(source: FS) -> None:
    target = FailingFS()
    with pytest.raises(errors.RemoteConnectionError):
        copy_file(Place(source, "/a.txt"), Place(target, "/a.txt"))
    assert target.aborted == 1


def test_a_disk_that_takes_the_first_part_alone_is_full(tmp_path: Path) -> None:
    memory, disk = MemoryFS(), OSFS(str(tmp_path))
    memory.writebytes("f", bytes(5000))
    disk.writebytes("f", b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As on a full disk: a write stores what there is room for.
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        with pytest.raises(errors.OperationFailed, match="large"):
            copy_file(Place(memory, "/f"), Place(disk, "/f"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert disk.readbytes("f") == b"before"
    assert os.listdir(tmp_path) == ["f"]


def test_a_listing_that_is_broken_off_lets_go_of_its_filesystem() -> None:
    filesystem: Any = MemoryFS()  # holds its lock while it lists
    filesystem.makedirs("a/b")
    stop = threading.Event()
    stop.set()
    with ThreadPoolExecutor(1) as pool:
        broken_off = pool.submit(take_inventory, Place(filesystem), stop, exclusion(()))
        assert isinstance(broken_off.exception(), StoppedError)
        assert filesystem._lock.acquire(timeout=DEADLINE_SECONDS)
    filesystem._lock.release()


def test_a_missing_source_is_an_error_and_empties_nothing(tmp_path: Path) -> None:
    target = MemoryFS()
    target.writetext("keep", "x")
    with OSFS(str(tmp_path)) as filesystem:
        with pytest.raises(errors.ResourceNotFound):
            Mirror(Place(filesystem, "/absent"), Place(target), delete=True).run()
        (tmp_path / "file").write_text("x")
        with pytest.raises(errors.DirectoryExpected):
            Mirror(Place(filesystem, "/file"), Place(target), delete=True).run()
    assert target.exists("keep")


class BreakingFS(MemoryFS):
    """Breaks off while it is read."""

    error: Exception = errors.OperationFailed("a", msg="cut")

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        file = super().openbin(path, mode, buffering, **options)
        if mode == "r" and path == "/a":
            reads = iter([b"half"])

            def read(_: int = -1) -> bytes:
                for chunk in reads:
                    return chunk
                raise self.error

            file.read = read
        return file


def test_a_transfer_that_breaks_off_leaves_the_old_file_and_the_others_go_on(tmp_path: Path) -> None:
    source = BreakingFS()
    source.writebytes("a", b"whole")
    source.writebytes("b", b"b")
    (tmp_path / "a").write_bytes(b"old content")
    with OSFS(str(tmp_path)) as target:
        summary = run(source, target)
    assert [step.path for step, _ in summary.failures] == ["a"]
    assert summary.ended_by is None
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old content", "b": b"b"}


def test_an_error_that_no_other_file_would_escape_ends_the_run(tmp_path: Path) -> None:
    source = BreakingFS()
    source.error = errors.RemoteConnectionError(msg="no network")
    source.writebytes("a", b"whole")
    for number in range(200):
        source.writebytes(f"b{number}", b"b")
    with OSFS(str(tmp_path)) as target:
        summary = run(source, target, workers=1)
    assert isinstance(summary.ended_by, errors.RemoteConnectionError)
    assert len(list(tmp_path.iterdir())) < 200


def test_a_file_that_changes_while_it_is_read_is_not_copied(source: FS, local: Path) -> None:
    target = MemoryFS()

    class Changing(Observer):
        def advanced(self, size: int) -> None:
            with (local / "sub" / "b.bin").open("ab") as file:
                file.write(b"m" * 2_000_000)

    summary = run(source, target, observer=Changing())
    assert "sub/b.bin" in [step.path for step, _ in summary.failures]
    assert "changed while it was read" in str(summary.failures[0][1])


def test_stop_ends_the_run_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    source = MemoryFS()
    for number in range(50):
        source.writebytes(f"f{number}", os.urandom(3_000_000))

    class Stopping(Observer):
        def advanced(self, size: int) -> None:
            mirror.stop.set()

    with OSFS(str(tmp_path)) as target:
        mirror = Mirror(Place(source), Place(target), workers=4, observer=Stopping())
        with pytest.raises(StoppedError):
            mirror.run()
    assert all(path.stat().st_size == 3_000_000 for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) < 50
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fs-dropbox-mirror")]


def test_a_file_that_changes_or_goes_while_many_are_copied_fails_alone(dropbox_fs: DropboxFS, tmp_path: Path) -> None:
    write_many(tmp_path / "many", 20)

    class Growing:
        def __init__(self, file: Any) -> None:
            self._file = file

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def fileno(self) -> int:
            return int(self._file.fileno())

        def read(self, size: int) -> bytes:
            with open(tmp_path / "many" / "0007.txt", "ab") as grown:
                grown.write(b"more")
            return bytes(self._file.read(size))

    class Unsteady(OSFS):
        def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
            if path.endswith("0003.txt"):
                (tmp_path / "many" / "0003.txt").unlink()
            file = super().openbin(path, mode, buffering, **options)
            return Growing(file) if path.endswith("0007.txt") else file

    with Unsteady(str(tmp_path / "many")) as source:
        summary = run(source, dropbox_fs, "/many")
    assert summary.copied == 18
    failed = {step.path: error for step, error in summary.failures}
    assert sorted(failed) == ["0003.txt", "0007.txt"]
    assert "changed while it was read" in str(failed["0007.txt"])
    assert len(dropbox_fs.listdir("/many")) == 18


def test_a_small_file_that_has_become_large_is_not_held_in_memory(tmp_path: Path) -> None:
    """A dump that was empty as it was listed may have gigabytes once its turn has come."""
    with (tmp_path / "dump").open("wb") as file:
        file.truncate(64 * 2**20)
    tracemalloc.start()
    try:
        with pytest.raises(GrownError):
            snapshot(Place(OSFS(str(tmp_path)), "/dump"))
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_small_files_that_have_become_large_are_copied(dropbox_fs: DropboxFS, tmp_path: Path) -> None:
    write_many(tmp_path / "many", 6)

    class Growing(Observer):
        def planned(self, size: int) -> None:
            (tmp_path / "many" / "0003.txt").write_bytes(b"grown" * 2**20)

    with OSFS(str(tmp_path / "many")) as source:
        summary = run(source, dropbox_fs, "/many", observer=Growing())
        assert (summary.copied, summary.failures) == (6, [])
        assert dropbox_fs.readbytes("/many/0003.txt") == b"grown" * 2**20
        assert run(source, dropbox_fs, "/many").skipped == 6


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_file_in_memory_that_changes_while_it_is_read_is_not_copied(dropbox_fs: DropboxFS, size: int) -> None:
    class Unsteady(MemoryFS):
        def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
            file: Any = super().openbin(path, mode, buffering, **options)
            whole = file.read

            def read(count: int = -1) -> Any:
                data = whole(count)
                self.writebytes(path, b"")
                return data

            if mode == "r" and path != "/steady":
                file.read = read
            return file

    source = Unsteady()
    for name in ("a", "b", "steady"):
        source.writebytes(name, b"x" * size)
    summary = run(source, dropbox_fs)
    assert sorted((step.path, "changed while it was read" in str(error)) for step, error in summary.failures) == [
        ("a", True),
        ("b", True),
    ]
    assert dropbox_fs.listdir("/") == ["steady"]
