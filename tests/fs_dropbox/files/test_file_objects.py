"""What file objects do as files on disk do, what they cost, and what they leave behind."""

from __future__ import annotations

import gc
import io
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS, VersionConflict
from fs_dropbox.emulator import Emulator
from tests.waiting import eventually


@pytest.fixture
def stored(dropbox_fs: DropboxFS) -> DropboxFS:
    """An account with a file of three lines, the second of them long."""
    dropbox_fs.writebytes("file", b"first\n" + b"x" * 20_000 + b"\nlast")
    return dropbox_fs


def uploads(emulator: Emulator) -> int:
    return sum(count for route, count in emulator.control.calls().items() if "upload" in route)


# Reading


def test_lines_are_as_long_as_they_are_or_are_asked_for(stored: DropboxFS) -> None:
    with stored.openbin("file") as file:
        assert file.readline(3) == b"fir"
        assert file.readline(100) == b"st\n"
        assert file.readline(10_000) == b"x" * 10_000
        assert file.tell() == 10_006
        assert file.readline(0) == b""
        assert file.readline(-1) == b"x" * 10_000 + b"\n"
        assert file.readlines() == [b"last"]
        assert file.readline() == b""
        file.seek(0)
        assert [len(line) for line in file] == [6, 20_001, 4]


def test_what_is_closed_says_so(stored: DropboxFS) -> None:
    file: Any = stored.openbin("file")
    file.pread(0, 5)
    assert "open" in repr(file)
    blocks = file._blocks
    file.close()
    file.close()
    assert "closed" in repr(file)
    for use in (file.tell, file.read, file.readline, lambda: file.pread(0, 5), lambda: file.cached(0, 5)):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert not blocks._blocks, "its memory is free, although somebody still has the file"
    writer = stored.openbin("other", "w")
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.flush()


def test_what_cannot_be_fetched_is_an_error_of_the_file(emulator: Emulator, stored: DropboxFS) -> None:
    with stored.openbin("file") as file:
        emulator.control.fault(
            "files/download", "error", None, status=409, error={".tag": "path", "path": {".tag": "restricted_content"}}
        )
        with pytest.raises(fs.errors.FSError, match="/file"):
            file.read()


# Writing


@pytest.mark.parametrize("mode", ["r+", "a", "a+"])
def test_nothing_written_is_no_change(emulator: Emulator, stored: DropboxFS, mode: str) -> None:
    size = stored.getsize("file")
    emulator.control.reset_counts()
    with stored.openbin("file", mode) as file:
        assert file.tell() == (0 if mode == "r+" else size)
        assert file.write(b"") == 0
        assert file.truncate(size) == size
    assert uploads(emulator) == 0


def test_appending_goes_to_the_end_wherever_the_position_is(stored: DropboxFS) -> None:
    with stored.openbin("file", "a+") as file:
        file.seek(0)
        assert file.readline() == b"first\n"
        file.write(b" line")
        assert file.tell() == 20_016
    assert stored.readbytes("file").endswith(b"\nlast line")


def test_what_is_cut_to_nothing_is_not_fetched(emulator: Emulator, stored: DropboxFS) -> None:
    emulator.control.reset_counts()
    with stored.openbin("file", "r+") as file:
        file.truncate(0)
        file.write(b"new")
    assert stored.getsize("file") == 3
    assert emulator.control.calls()["files/download"] == 0
    assert emulator.control.read("/file") == b"new"


def test_cutting_alone_is_a_change(emulator: Emulator, stored: DropboxFS) -> None:
    with stored.openbin("file", "r+") as file:
        file.truncate(5)
        assert file.read() == b"first"
        assert file.read() == b""
    assert emulator.control.read("/file") == b"first"


def test_a_stream_that_is_cut_where_it_ends_stays_one(dropbox_fs: DropboxFS) -> None:
    file: Any = dropbox_fs.openbin("file", "w", seekable=False)
    with file:
        file.write(b"0123")
        assert file.truncate(4) == 4
        assert file._spool._file is None, "no copy is kept of what goes one way"
    assert dropbox_fs.readbytes("file") == b"0123"


def test_what_was_given_up_can_neither_be_read_nor_stored(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    file: Any = dropbox_fs.openbin("file", "w+")
    file.write(b"secret")
    file.seek(0)
    file.abort()
    assert file._spool._file is None, "the copy has gone"
    for use in (file.read, lambda: file.write(b"x"), lambda: file.truncate(0)):
        with pytest.raises(ValueError, match="aborted"):
            use()
    file.close()
    assert not emulator.control.exists("/file")


@pytest.mark.parametrize("mode", ["w", "w+", "r+"])
def test_a_file_leaves_no_copy_behind(stored: DropboxFS, mode: str) -> None:
    file: Any = stored.openbin("file", mode)
    file.write(b"x")
    file.seek(0)
    file.write(b"y")
    assert file._spool._file is not None
    file.close()
    assert file._spool._file is None


def test_half_of_what_is_to_be_changed_is_not_taken_for_the_whole(emulator: Emulator, stored: DropboxFS) -> None:
    whole = emulator.control.read("/file")
    file = stored.openbin("file", "r+")
    emulator.control.fault(
        "files/download", "error", 1, status=409, error={".tag": "path", "path": {".tag": "restricted_content"}}
    )
    with pytest.raises(fs.errors.FSError):
        file.write(b"FIRST")
    with pytest.raises(fs.errors.FSError):
        file.write(b"again")
    with pytest.raises(fs.errors.FSError):
        file.close()
    assert emulator.control.read("/file") == whole


def test_what_a_full_disk_has_not_taken_is_not_stored_by_closing(
    emulator: Emulator, stored: DropboxFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = emulator.control.read("/file")
    file: Any = stored.openbin("file", "r+")
    file.write(b"FIRST")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file._spool, "write", full)
    for use in (lambda: file.write(b"!"), file.close):
        with pytest.raises(OSError, match="No space left"):
            use()
    assert emulator.control.read("/file") == whole


def test_a_write_that_fails_is_told_once_more_by_close(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    emulator.control.fault("*", "error", None, status=409, path="session_id", error={".tag": "other"})
    emulator.control.fault("files/upload_session/start", "error", None, status=409, error={".tag": "other"})
    file = dropbox_fs.openbin("file", "w")

    def write() -> None:
        for _ in range(30):
            file.write(bytes(4 * 2**20))

    with pytest.raises(fs.errors.FSError):
        write()
    with pytest.raises(fs.errors.FSError):
        file.close()
    file.close()
    emulator.control.clear_faults()
    assert not emulator.control.exists("/file")


def test_after_a_conflict_the_file_is_known_as_others_left_it(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    dropbox_fs = open_dropbox(change_feed=False, cache_ttl_seconds=3600)
    dropbox_fs.writebytes("file", b"one")
    file = dropbox_fs.openbin("file", "r+")
    file.write(b"two")
    emulator.control.write("/file", b"of others")
    assert dropbox_fs.getsize("file") == 3
    with pytest.raises(VersionConflict):
        file.close()
    assert dropbox_fs.getsize("file") == 9


def test_whoever_gives_a_file_up_himself_or_forgets_it_hears_no_errors(
    open_dropbox: Callable[..., DropboxFS], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    dropbox_fs = open_dropbox()
    own, forgotten, other = (dropbox_fs.openbin(name, "w") for name in "abc")
    dropbox_fs.close()
    own.abort()  # type: ignore[attr-defined]
    own.close()
    del forgotten
    gc.collect()
    assert heard == []
    with pytest.raises(fs.errors.FilesystemClosed):
        other.close()
    other.close()


@pytest.mark.parametrize("mode", ["wb", "r+b", "ab", "w"])
def test_a_file_that_is_forgotten_leaves_dropbox_as_it_was(
    emulator: Emulator, dropbox_fs: DropboxFS, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    dropbox_fs.writebytes("file", b"old")
    file: Any = dropbox_fs.open("file", mode)
    file.write(b"half" if "b" in mode else "half")
    file.flush()
    del file
    gc.collect()
    assert emulator.control.read("/file") == b"old"
    assert caplog.messages == ["/file was never closed: what was written to it is discarded"]


def test_a_read_that_waits_for_dropbox_keeps_no_other_thread_from_seeking(
    stored: DropboxFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB's threads share a file and seek right before they read: who waited in between read from elsewhere."""
    release = Event()
    with stored.openbin("file") as file, ThreadPoolExecutor(1) as other:

        def read_at(offset: int, size: int, read_at: Any = file._read_at) -> bytes:  # type: ignore[attr-defined]
            assert offset or release.wait(10)
            return bytes(read_at(offset, size))

        monkeypatch.setattr(file, "_read_at", read_at)
        first = other.submit(file.read, 5)
        eventually(lambda: file.tell() == 5)
        file.seek(-4, io.SEEK_END)
        assert file.read(2) == b"la"
        release.set()
        assert first.result(10) == b"first"
        assert file.read() == b"st"


def test_a_read_that_fails_moves_nothing(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    emulator.control.write("/file", b"0123")
    with dropbox_fs.openbin("file") as file:
        emulator.control.fault("files/download", "error", None, status=403, error={".tag": "other"})
        with pytest.raises(fs.errors.FSError):
            file.read(2)
        emulator.control.clear_faults()
        assert file.read(2) == b"01"


def test_the_time_and_the_version_of_a_file_are_those_that_were_asked_for(
    emulator: Emulator, stored: DropboxFS
) -> None:
    with stored.openbin("file", "w", expected_version="") as file:
        file.write(b"new")
    assert file.version == stored.getinfo("file", ["dropbox"]).get("dropbox", "rev")  # type: ignore[attr-defined]


# Opening


def test_nothing_is_made_where_there_is_no_folder(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    for mode in ("w", "x", "a"):
        with pytest.raises(fs.errors.ResourceNotFound):
            dropbox_fs.openbin("absent/file", mode)
    assert emulator.control.tree() == {}


def test_a_version_that_is_expected_counts_for_changes_in_place_too(emulator: Emulator, stored: DropboxFS) -> None:
    old = stored.getinfo("file", ["dropbox"]).get("dropbox", "rev")
    stored.writebytes("file", b"newer")

    def change() -> None:
        with stored.openbin("file", "r+", expected_version=old) as file:
            file.write(b"OLDER")

    with pytest.raises(VersionConflict):
        change()
    assert emulator.control.read("/file") == b"newer"


def test_whoever_appends_to_nothing_overwrites_nobody(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    file = dropbox_fs.openbin("file", "a")
    file.write(b"mine")
    emulator.control.write("/file", b"theirs")
    with pytest.raises(fs.errors.FSError):
        file.close()
    assert emulator.control.read("/file") == b"theirs"


def test_what_nobody_can_go_on_with_is_told(dropbox_fs: DropboxFS) -> None:
    with pytest.raises(fs.errors.OperationFailed, match=r"'file': not the checkpoint of an upload: '\{none\}'"):
        dropbox_fs.openbin("file", "w", seekable=False, resume="{none}")
