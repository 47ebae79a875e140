"""Every mode of opening on what is there and what is not; and what writers may do once they are in."""

from __future__ import annotations

import errno
import gc
import io
import itertools
import tracemalloc
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from fs_dropbox.errors import VersionConflict
from tests.waiting import eventually

MODES = ["r", "r+", "w", "w+", "x", "x+", "a", "a+"]
PLACES = ["absent", "file", "folder", "no parent", "below a file"]

OLD = b"old content"


def expected(mode: str, place: str) -> type[Exception] | bytes:
    """Return the error of opening, or what the file holds after `XY` was written at once and the file closed."""
    if place == "folder":
        return fs.errors.FileExpected
    if place in ("no parent", "below a file"):
        return fs.errors.ResourceNotFound if mode[0] == "r" or place == "no parent" else fs.errors.DirectoryExpected
    if place == "absent":
        return fs.errors.ResourceNotFound if mode[0] == "r" else b"XY"
    outcomes: dict[str, type[Exception] | bytes] = {
        "r": OLD,
        "r+": b"XY" + OLD[2:],
        "w": b"XY",
        "w+": b"XY",
        "x": fs.errors.FileExists,
        "x+": fs.errors.FileExists,
        "a": OLD + b"XY",
        "a+": OLD + b"XY",
    }
    return outcomes[mode]


@pytest.mark.parametrize(("mode", "place"), list(itertools.product(MODES, PLACES)))
def test_modes(dropbox_fs: DropboxFS, emulator: Emulator, mode: str, place: str) -> None:
    emulator.control.seed("/file", OLD)
    emulator.control.seed("/folder")
    path = {"no parent": "missing/file", "below a file": "file/below"}.get(place, place)
    outcome = expected(mode, place)
    before = emulator.control.tree()
    if isinstance(outcome, type):
        with pytest.raises(outcome):
            dropbox_fs.openbin(path, mode)
        assert emulator.control.tree() == before
        return
    with dropbox_fs.openbin(path, mode) as file:
        assert file.readable() is (mode == "r" or "+" in mode)
        assert file.writable() is (mode != "r")
        if mode == "r":
            assert file.read() == OLD
            with pytest.raises(OSError, match="writing"):
                file.write(b"XY")
        else:
            assert file.write(b"XY") == 2
        if "+" in mode:
            file.seek(0)
            assert file.read() == outcome
        elif mode != "r":
            with pytest.raises(OSError, match="reading"):
                file.read()
    assert emulator.control.read("/" + path) == outcome


@pytest.mark.parametrize("mode", ["r+", "a", "a+"])
def test_what_is_not_written_to_is_not_committed(dropbox_fs: DropboxFS, emulator: Emulator, mode: str) -> None:
    emulator.control.seed("/file", OLD)
    emulator.control.reset_counts()
    with dropbox_fs.openbin("file", mode) as file:
        file.seek(3)
    calls = emulator.control.calls()
    assert not [route for route in calls if "upload" in route or "download" in route]


@pytest.mark.parametrize("size", [0, 1, 4 * 2**20, 8 * 2**20, 8 * 2**20 + 1, 25 * 2**20])
def test_sizes(dropbox_fs: DropboxFS, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    with dropbox_fs.openbin("file", "w") as file:
        for start in range(0, size, 1_000_003):
            file.write(data[start : min(start + 1_000_003, size)])
    assert dropbox_fs.getsize("file") == size
    assert dropbox_fs.readbytes("file") == data[:size]


def test_seeking_writers(dropbox_fs: DropboxFS) -> None:
    with dropbox_fs.openbin("header last", "w") as file:
        file.write(bytes(10_000_000))
        file.seek(0)
        file.write(b"header")
        assert file.tell() == 6
        file.seek(0, 2)
        assert file.tell() == 10_000_000
        file.write(b"end")
    assert dropbox_fs.readbytes("header last") == b"header" + bytes(9_999_994) + b"end"
    with dropbox_fs.openbin("hole", "w") as file:
        file.seek(5_000_000)
        file.write(b"end")
    assert dropbox_fs.readbytes("hole") == bytes(5_000_000) + b"end"
    with dropbox_fs.openbin("cut", "w") as file:
        file.write(b"0123456789")
        file.truncate(4)
        file.seek(0, 2)
        file.write(b"X")
        file.truncate(8)
    assert dropbox_fs.readbytes("cut") == b"0123X\0\0\0"


def test_large_holes_take_no_memory(dropbox_fs: DropboxFS) -> None:
    tracemalloc.start()
    try:
        with dropbox_fs.openbin("hole", "w") as file:
            file.seek(200_000_000)
            file.write(b"end")
            file.truncate(300_000_000)
            file.truncate(10)
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert dropbox_fs.readbytes("hole") == bytes(10)


def test_a_stream_keeps_no_copy_and_takes_no_seeks(dropbox_fs: DropboxFS) -> None:
    with dropbox_fs.openbin("file", "w", seekable=False) as file:
        assert not file.seekable()
        file.write(b"0123")
        file.write(b"4567")
        with pytest.raises(OSError, match="first byte to the last"):
            file.truncate(2)
    assert dropbox_fs.readbytes("file") == b"01234567"


def test_a_stream_takes_at_once_what_follows(dropbox_fs: Any) -> None:
    with dropbox_fs.openbin("file", "w", seekable=False) as file:
        assert file.write_now(b"0123")
        file.write(b"4567")
        assert file.write_now(memoryview(b"89"))
        assert file.tell() == 10
        file.seek(3)
        assert not file.write_now(b"x"), "it does not follow"
        file.seek(10)
    assert dropbox_fs.readbytes("file") == b"0123456789"
    with pytest.raises(ValueError, match="closed"):
        file.write_now(b"x")
    with dropbox_fs.openbin("empty", "w", seekable=False) as file:
        assert file.write_now(b"")
    assert dropbox_fs.readbytes("empty") == b""


def test_who_may_seek_is_not_taken_from_at_once(dropbox_fs: Any) -> None:
    with dropbox_fs.openbin("file", "w") as file:
        assert not file.write_now(b"0123")
        file.write(b"ab")
    assert dropbox_fs.readbytes("file") == b"ab"


def test_a_busy_or_aborted_file_takes_nothing_at_once(dropbox_fs: DropboxFS) -> None:
    file: Any = dropbox_fs.openbin("file", "w", seekable=False)
    with ThreadPoolExecutor(1) as pool, file._lock:
        assert not pool.submit(file.write_now, b"x").result(30), "it does not wait for who writes"
    file.abort()
    assert not file.write_now(b"x")
    file.close()
    assert not dropbox_fs.exists("file")


def test_positions_before_the_start_are_told_as_by_files_on_disk(dropbox_fs: DropboxFS) -> None:
    with dropbox_fs.openbin("empty.zip", "w") as file, zipfile.ZipFile(file, "w"):
        pass
    with dropbox_fs.openbin("empty.zip") as file, zipfile.ZipFile(file) as archive:
        assert archive.namelist() == []
    with dropbox_fs.openbin("empty.zip", "r+") as file:
        for wrong in (lambda: file.seek(-1), lambda: file.seek(-100, 2), lambda: file.truncate(-1)):
            with pytest.raises(OSError, match="negative") as caught:
                wrong()
            assert caught.value.errno == errno.EINVAL
        assert file.tell() == 0
        file.write(b"XY")
    assert dropbox_fs.readbytes("empty.zip").startswith(b"XY"), "nothing was given up"


def test_text(dropbox_fs: DropboxFS) -> None:
    with dropbox_fs.open("text", "w", encoding="utf-8") as file:
        file.write("Zeile eins\nzwei: ü\n")
    with dropbox_fs.open("text", "a", encoding="utf-8") as file:
        file.write("drei\n")
    with dropbox_fs.open("text") as file:
        assert file.readline() == "Zeile eins\n"
        assert list(file) == ["zwei: ü\n", "drei\n"]
    with dropbox_fs.open("text", "r+") as file:
        file.write("ZEILE")
        file.seek(0)
        assert file.readline() == "ZEILE eins\n"
    assert dropbox_fs.readtext("text") == "ZEILE eins\nzwei: ü\ndrei\n"


@pytest.mark.parametrize("wrong", [{"encoding": "klingon"}, {"newline": "\t"}])
def test_text_that_cannot_be_opened_stores_nothing(
    dropbox_fs: DropboxFS, emulator: Emulator, wrong: dict[str, Any]
) -> None:
    emulator.control.write("/file", b"old")
    with pytest.raises((LookupError, ValueError)):
        dropbox_fs.open("file", "w", **wrong)
    gc.collect()  # a buffer that is forgotten stores what it holds
    assert emulator.control.read("/file") == b"old"


def test_text_that_cannot_be_written_leaves_what_was_there(dropbox_fs: DropboxFS, emulator: Emulator) -> None:
    """PyFilesystem's own `writetext` closes the file that it has emptied."""
    emulator.control.write("/d/file", b"old")
    with dropbox_fs.opendir("/d") as folder:
        for filesystem, path in ((dropbox_fs, "d/file"), (folder, "file"), (folder, "new")):
            with pytest.raises(UnicodeEncodeError):
                filesystem.writetext(path, "ä", encoding="ascii")
            with pytest.raises(TypeError):
                filesystem.writetext(path, b"new")  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                filesystem.writebytes(path, "new")  # type: ignore[arg-type]
        folder.writetext("latin", "ä\n", encoding="latin-1", newline="\r\n")
        folder.writebytes("bytes", b"bytes")
    assert emulator.control.read("/d/file") == b"old"
    assert emulator.control.read("/d/latin") == b"\xe4\r\n"
    assert emulator.control.tree() == {"/d": None, "/d/file": 3, "/d/latin": 3, "/d/bytes": 5}


@pytest.mark.parametrize("mode", ["rw", "wa", "xw", "ww"])
def test_modes_that_say_two_things_are_refused(dropbox_fs: DropboxFS, mode: str) -> None:
    """As by Python; PyFilesystem takes "rw" for one that empties the file."""
    dropbox_fs.writetext("file", "old")
    for open_file in (dropbox_fs.open, dropbox_fs.openbin):
        with pytest.raises(ValueError, match="one of r, w, x and a"):
            open_file("file", mode)
    assert dropbox_fs.readtext("file") == "old"


def test_text_whose_buffer_was_taken_away_is_forgotten_without_a_word(dropbox_fs: DropboxFS) -> None:
    dropbox_fs.writetext("file", "text")
    with dropbox_fs.open("file").detach() as binary:  # type: ignore[attr-defined]
        gc.collect()
        assert binary.read() == b"text"


def test_text_that_is_read_after_it_was_written(dropbox_fs: DropboxFS, emulator: Emulator) -> None:
    """Python's own buffers, before 3.13, read on from the old position, and write what they hold at the end."""
    dropbox_fs.writebytes("text", b"b" * 3000)
    with dropbox_fs.open("text", "r+") as file:
        file.write("x" * 1000)
        assert file.read(10) == "b" * 10
        file.seek(0, io.SEEK_END)
        file.write("end")
        assert file.read(10) == ""
    assert emulator.control.read("/text") == b"x" * 1000 + b"b" * 2000 + b"end"


def test_writing_nothing_moves_nothing(dropbox_fs: DropboxFS) -> None:
    dropbox_fs.writebytes("file", b"one")
    with dropbox_fs.openbin("file", "a+") as file:
        file.seek(1)
        file.write(b"")
        assert file.read() == b"ne"


def test_a_version_that_is_expected_is_the_one_that_is_changed(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    account: Any = open_dropbox()
    emulator.control.write("/file", b"one")
    assert account.getsize("file") == 3
    eventually(lambda: account.feed_is_live)
    emulator.control.fault("files/list_folder/continue", "stall", None)  # the feed hears of nothing more
    old = account.getinfo("file", ["dropbox"]).raw["dropbox"]["rev"]
    new = emulator.control.write("/file", b"one, two")["rev"]
    with account.openbin("file", "a", expected_version=new) as file:
        file.write(b", three")
    assert emulator.control.read("/file") == b"one, two, three"
    with pytest.raises(VersionConflict):
        account.openbin("file", "r+", expected_version=old)


def test_a_version_that_is_expected(dropbox_fs: DropboxFS, emulator: Emulator) -> None:
    dropbox_fs.writebytes("file", b"one")
    with dropbox_fs.openbin("file") as reader:
        version = reader.version  # type: ignore[attr-defined]
    with dropbox_fs.openbin("file", "w", expected_version=version) as file:
        file.write(b"two")
    assert file.version != version  # type: ignore[attr-defined]
    late = dropbox_fs.openbin("file", "w", expected_version=version)
    late.write(b"three")
    with pytest.raises(VersionConflict):
        late.close()
    late.close()
    assert emulator.control.read("/file") == b"two"


def test_reading_at_positions(dropbox_fs: DropboxFS) -> None:
    data = bytes(range(256)) * 20_000
    dropbox_fs.writebytes("file", data)
    with dropbox_fs.openbin("file") as file:
        assert file.cached(0, 10) is None  # type: ignore[attr-defined]
        assert file.pread(1000, 10) == data[1000:1010]  # type: ignore[attr-defined]
        assert file.cached(1000, 20) == data[1000:1020]  # type: ignore[attr-defined]
        assert file.pread(len(data) - 5, 10) == data[-5:]  # type: ignore[attr-defined]
        assert file.pread(len(data) + 5, 10) == b""  # type: ignore[attr-defined]
        assert file.tell() == 0
        assert file.seek(-10, 2) == len(data) - 10
        assert file.read() == data[-10:]
        assert file.read(1) == b""
        assert file.seek(10**9) == 10**9
        assert file.read(1) == b""


@pytest.mark.parametrize("mode", ["", "q", "b", "rt"])
def test_modes_that_make_no_sense(dropbox_fs: DropboxFS, mode: str) -> None:
    with pytest.raises(ValueError, match="mode"):
        dropbox_fs.openbin("file", mode)


def test_exclusive_creation_is_exact(
    dropbox_fs: DropboxFS, open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    """Equal content included, which Dropbox itself takes for no conflict."""
    other = open_dropbox()
    first, second = dropbox_fs.openbin("file", "x"), other.openbin("file", "x")
    first.write(b"same")
    second.write(b"same")
    first.close()
    with pytest.raises(fs.errors.FileExists):
        second.close()
    with pytest.raises(fs.errors.FileExists):
        other.openbin("file", "x")
    assert emulator.control.tree() == {"/file": 4}
