"""Where fsspec's own ways lose or mix up something: moves, slices, exclusive creation, downloads, failures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fs_dropbox.emulator import Emulator
from fs_dropbox.fsspec_adapter.filesystem import DropboxFileSystem
from tests.fs_dropbox.accounts import access_to


def test_a_name_that_could_be_a_pattern_is_that_of_its_file(dropbox: DropboxFileSystem) -> None:
    """fsspec's own would read and remove report1.csv, for a name that comes from its own listing."""
    for name in ("report[1].csv", "report1.csv", "what?.txt", "whats.txt", "[x]/y", "x/y"):
        dropbox.pipe(f"/folder/{name}", name.encode())
    assert dropbox.cat("/folder/report[1].csv") == b"report[1].csv"
    dropbox.mv("/folder/what?.txt", "/folder/why?.txt")
    dropbox.rm("/folder/report[1].csv")
    dropbox.rm(["/folder/[x]", "/folder/why?.txt"], recursive=True)
    assert dropbox.find("/folder") == ["/folder/report1.csv", "/folder/whats.txt", "/folder/x/y"]
    dropbox.rm(["/folder/report?.csv", "/folder/what[a-z].txt"])
    assert dropbox.find("/folder") == ["/folder/x/y"]


def test_what_lies_deeper_than_a_move_goes_stays(emulator: Emulator, dropbox: DropboxFileSystem) -> None:
    dropbox.pipe({"/from/a": b"a", "/from/sub/b": b"b", "/from/sub/deep/c": b"c"})
    dropbox.mv("/from", "/to", recursive=True, maxdepth=2)
    assert {path for path, size in emulator.control.tree().items() if size} == {
        "/to/a",
        "/to/sub/b",
        "/from/sub/deep/c",
    }


def test_what_comes_while_files_are_moved_is_not_removed(
    emulator: Emulator, dropbox: DropboxFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropbox.pipe({"/from/a": b"a", "/from/b": b"b", "/to/x": b""})
    glob = dropbox.glob
    monkeypatch.setattr(dropbox, "glob", lambda *args, **options: [glob(*args, **options), come()][0])

    def come() -> None:
        emulator.control.write("/from/z", b"late")
        dropbox.invalidate_cache()

    dropbox.mv("/from/?", "/to/")
    files = sorted(path for path, size in emulator.control.tree().items() if size)
    assert files in (["/from/z", "/to/a", "/to/b"], ["/to/a", "/to/b", "/to/z"])


def test_lists_patterns_and_their_folders_are_moved(emulator: Emulator, dropbox: DropboxFileSystem) -> None:
    dropbox.pipe({"/from/a": b"a", "/from/sub/b": b"b", "/c": b"c", "/d": b"d"})
    with pytest.raises(IsADirectoryError):
        dropbox.mv("/from/*", "/to/")
    dropbox.mv("/from/*", "/to/", recursive=True)
    dropbox.mv(["/c", "/d"], ["/to/c", "/to/e"])
    assert sorted(path for path, size in emulator.control.tree().items() if size) == [
        "/to/a", "/to/c", "/to/e", "/to/sub/b"
    ]  # fmt: skip
    with pytest.raises(FileNotFoundError):
        dropbox.mv("/nothing*", "/to/")


def test_two_files_do_not_become_one(emulator: Emulator, dropbox: DropboxFileSystem) -> None:
    dropbox.pipe({"/one/f": b"1", "/other/F": b"2", "/to/x": b""})
    with pytest.raises(FileExistsError):
        dropbox.mv(["/one/f", "/other/F"], "/to/")
    assert (emulator.control.read("/one/f"), emulator.control.read("/other/F")) == (b"1", b"2")


def test_a_slice_is_that_of_python(dropbox: DropboxFileSystem) -> None:
    dropbox.pipe_file("/digits", b"0123456789")
    for start in (None, 0, 3, 10, 20, -3, -20):
        for end in (None, 0, 2, 10, 20, -8, -20):
            assert dropbox.cat_file("/digits", start, end) == b"0123456789"[start:end], (start, end)


def test_creation_replaces_nothing_that_has_just_come(
    emulator: Emulator, dropbox: DropboxFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropbox, "exists", lambda *_, **__: False)
    emulator.control.write("/f", b"there")
    with pytest.raises(FileExistsError):
        dropbox.pipe_file("/f", b"mine", mode="create")
    dropbox.pipe_file("/g", b"mine", mode="create")
    assert (emulator.control.read("/f"), emulator.control.read("/g")) == (b"there", b"mine")


def test_a_download_that_breaks_off_leaves_the_old_file(
    emulator: Emulator, dropbox: DropboxFileSystem, tmp_path: Path
) -> None:
    emulator.control.write("/f", bytes(30_000_000))
    (tmp_path / "f").write_bytes(b"old")
    emulator.control.fault("files/download", "error", None, after=1, status=409, error={".tag": "path"})
    with pytest.raises(OSError):
        dropbox.get("/f", str(tmp_path / "f"))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("f", b"old")]
    emulator.control.clear_faults()
    dropbox.get("/f", str(tmp_path / "new" / "f"))
    assert (tmp_path / "new" / "f").stat().st_size == 30_000_000


@pytest.mark.parametrize("ask", [lambda fs: fs.isdir("/x"), lambda fs: fs.isfile("/x"), lambda fs: list(fs.walk("/"))])
def test_a_failure_is_not_taken_for_absence(emulator: Emulator, dropbox: DropboxFileSystem, ask: Any) -> None:
    emulator.control.write("/x/y", b"")
    dropbox.invalidate_cache()
    for route in ("files/get_metadata", "files/list_folder"):
        emulator.control.fault(route, "error", None, status=403, error={".tag": "other"})
    with pytest.raises(OSError):
        ask(dropbox)


def test_a_folder_may_have_an_at_sign_in_its_name(emulator: Emulator, dropbox: DropboxFileSystem) -> None:
    emulator.control.write("/ann@example.com/f", b"x")
    assert dropbox.cat("dropbox://ann@example.com/f") == b"x"


def test_what_other_threads_write_is_no_part_of_a_transaction(emulator: Emulator, dropbox: DropboxFileSystem) -> None:
    with ThreadPoolExecutor(1) as pool, suppress(KeyError), dropbox.transaction:
        dropbox.pipe_file("/mine", b"1")
        pool.submit(dropbox.pipe_file, "/other", b"2").result()
        assert emulator.control.read("/other") == b"2"
        raise KeyError
    assert [*emulator.control.tree()] == ["/other"]


def test_what_another_process_has_just_stored_is_not_missing(emulator: Emulator) -> None:
    """To zarr a chunk that is missing is one of zeros: a worker would go on with these."""
    dropbox = DropboxFileSystem(**access_to(emulator), change_feed=False)
    dropbox.makedirs("/array/c")
    assert dropbox.ls("/array/c") == []
    emulator.control.write("/array/c/0", b"1")
    emulator.control.write("/array/d/0", b"2")
    before = emulator.control.calls()
    assert dropbox.cat_file("/array/c/0") == b"1"
    with dropbox.open("/array/d/0") as file:
        assert file.read() == b"2"
    assert dropbox.get_mapper("/array/c").get("1") is None
    with pytest.raises(FileNotFoundError):
        dropbox.open("/array/e/0")
    spent = emulator.control.calls() - before
    assert (spent["files/get_metadata"], spent["files/download"], spent.total()) == (4, 2, 6)
    DropboxFileSystem.clear_instance_cache()
