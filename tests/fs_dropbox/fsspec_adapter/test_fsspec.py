"""fsspec over the emulator: fsspec's own derived suite, and what users of pandas and the like rely on."""

from __future__ import annotations

import gc
import posixpath
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.tests import abstract

from fs_dropbox.emulator import Emulator
from fs_dropbox.fsspec_adapter.filesystem import DropboxFileSystem
from tests.fs_dropbox.accounts import access_to


@pytest.fixture(scope="module")
def shared_dropbox() -> Iterator[DropboxFileSystem]:
    with Emulator() as running:
        yield DropboxFileSystem(**access_to(running))
        DropboxFileSystem.clear_instance_cache()


class Fixtures(abstract.AbstractFixtures):  # type: ignore[misc]
    @pytest.fixture(autouse=True)
    def nothing_leaks(self) -> None:
        """One account stays open for the whole suite; `test_accounts_end` shows that it can be ended."""

    @pytest.fixture
    def fs(self, shared_dropbox: DropboxFileSystem) -> DropboxFileSystem:
        return shared_dropbox

    @pytest.fixture
    def fs_path(self, fs: DropboxFileSystem, request: pytest.FixtureRequest) -> str:
        path = f"/{request.node.name.translate(str.maketrans('/*?[]', '-----'))[:60].strip()}"
        fs.makedirs(path, exist_ok=True)
        return path

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return posixpath.join


class TestCopy(abstract.AbstractCopyTests, Fixtures):  # type: ignore[misc]
    pass


class TestGet(abstract.AbstractGetTests, Fixtures):  # type: ignore[misc]
    pass


class TestPut(abstract.AbstractPutTests, Fixtures):  # type: ignore[misc]
    pass


class TestOpen(abstract.AbstractOpenTests, Fixtures):  # type: ignore[misc]
    pass


class TestPipe(abstract.AbstractPipeTests, Fixtures):  # type: ignore[misc]
    pass


def test_the_protocol_is_ours() -> None:
    assert fsspec.get_filesystem_class("dropbox") is DropboxFileSystem


def test_errors_are_built_in_ones(dropbox: DropboxFileSystem) -> None:
    dropbox.pipe("/folder/file", b"1")
    with pytest.raises(FileNotFoundError) as missing:
        dropbox.info("/absent")
    assert missing.value.filename == "/absent"
    with pytest.raises(FileNotFoundError):
        dropbox.open("/absent")
    with pytest.raises(IsADirectoryError):
        dropbox.open("/folder", "wb")
    with pytest.raises(FileExistsError):
        dropbox.mkdir("/folder")
    for make in (dropbox.mkdir, dropbox.makedirs, lambda path: dropbox.makedirs(path, exist_ok=True)):
        with pytest.raises(FileExistsError):
            make("/folder/file")
        with pytest.raises(NotADirectoryError):
            make("/folder/file/below")
    with pytest.raises(FileExistsError):
        dropbox.open("/folder/file", "xb")
    with pytest.raises(OSError, match="not empty"):
        dropbox.rmdir("/folder")
    with pytest.raises(IsADirectoryError):
        dropbox.rm("/folder")


@pytest.mark.parametrize("change", ["mv", "cp_file"])
@pytest.mark.parametrize(("source", "target", "blamed"), [("/one", "/two/below", "/two"), ("/no", "/three", "/no")])
def test_of_two_paths_the_error_names_the_one_it_is_about(
    dropbox: DropboxFileSystem, change: str, source: str, target: str, blamed: str
) -> None:
    dropbox.pipe({"/one": b"1", "/two": b"2"})
    with pytest.raises(OSError) as failed:
        getattr(dropbox, change)(source, target)
    assert failed.value.filename == blamed


@pytest.mark.parametrize(
    "url",
    ["/", "dropbox:/k~secret:token@/", "dropbox://k~secret:token@/?nope=1", "dropbox://k~secret:tok@en@/", "mem://"],
)
def test_what_is_no_url_of_a_dropbox_is_refused(url: str) -> None:
    with pytest.raises(PermissionError, match="Dropbox") as refused:
        DropboxFileSystem(fs_url=url).ls("/")
    assert "token" not in str(refused.value)


def test_opening_for_writing_makes_the_folders_above(emulator: Emulator, dropbox: DropboxFileSystem) -> None:
    for mode in ("wb", "xb", "ab"):
        with dropbox.open(f"/new/{mode}/deep/file", mode) as file:
            file.write(b"content")
        assert emulator.control.read(f"/new/{mode}/deep/file") == b"content"
    with pytest.raises(FileNotFoundError):
        dropbox.open("/elsewhere/file", "rb")
    assert not emulator.control.exists("/elsewhere")


def test_absence_is_not_what_a_failure_looks_like(emulator: Emulator, dropbox: DropboxFileSystem) -> None:
    assert dropbox.exists("/")
    assert not dropbox.exists("/absent")
    emulator.control.fault("files/get_metadata", "error", None, status=403, error={".tag": "other"})
    with pytest.raises(OSError):
        dropbox.exists("/unknown")


def _break_off(file: Any, data: str | bytes) -> None:
    with suppress(KeyError), file:
        file.write(data)
        raise KeyError


def test_who_knows_of_a_change_elsewhere_can_have_it_looked_at(emulator: Emulator) -> None:
    """As Dask does, whose workers have written it."""
    dropbox = DropboxFileSystem(**access_to(emulator), change_feed=False)
    dropbox.pipe("/folder/a", b"1")
    dropbox.invalidate_cache()
    assert dropbox.ls("/folder", detail=False) == ["/folder/a"]
    emulator.control.write("/folder/b", b"1")
    assert dropbox.glob("/folder/*") == ["/folder/a"]
    dropbox.invalidate_cache("dropbox://folder")
    assert dropbox.glob("/folder/*") == ["/folder/a", "/folder/b"]
    emulator.control.write("/folder/c", b"1")
    assert dropbox.ls("/folder", detail=False, refresh=True) == ["/folder/a", "/folder/b", "/folder/c"]
    dropbox.invalidate_cache("/desktop.ini")
    DropboxFileSystem.clear_instance_cache()
    dropbox.invalidate_cache()  # opens no account


def test_an_exception_or_neglect_commits_nothing(
    emulator: Emulator, dropbox: DropboxFileSystem, caplog: pytest.LogCaptureFixture
) -> None:
    dropbox.pipe("/a", b"old")
    for mode, compression in (("wb", None), ("w", None), ("wb", "gzip"), ("w", "gzip")):
        _break_off(dropbox.open("/a", mode, compression=compression), "half" if mode == "w" else b"half")
        assert not caplog.messages
        forgotten = dropbox.open("/a", mode, compression=compression)
        forgotten.write("half" if mode == "w" else b"half")
        del forgotten
        gc.collect()
        assert caplog.messages == ["/a was never closed: what was written to it is discarded"]
        caplog.clear()
    assert emulator.control.read("/a") == b"old"


def test_a_transaction_commits_together_or_not_at_all(emulator: Emulator, dropbox: DropboxFileSystem) -> None:
    with suppress(KeyError), dropbox.transaction:
        dropbox.pipe("/one", b"1")
        raise KeyError
    assert not dropbox.exists("/one")
    with dropbox.transaction:
        dropbox.pipe("/one", b"1")
        dropbox.pipe("/two", b"2")
        assert "/one" not in emulator.control.tree()
    assert (dropbox.cat("/one"), dropbox.cat("/two")) == (b"1", b"2")


def test_a_tree_costs_one_listing_and_one_removal(emulator: Emulator) -> None:
    dropbox = DropboxFileSystem(**access_to(emulator), change_feed=False)
    for folder in "abcde":
        for name in "123":
            emulator.control.write(f"/top/{folder}/{name}", b"x")
    dropbox.ls("/")
    emulator.control.reset_counts()
    assert len(dropbox.find("/top")) == 15
    assert len(dropbox.glob("/top/**/1")) == 5
    assert dropbox.du("/top") == 15
    dropbox.mv("/top", "/moved", recursive=True)
    assert dropbox.isfile("/moved/a/1")
    dropbox.rm("/moved", recursive=True)
    assert not dropbox.exists("/moved")
    spent = emulator.control.calls()
    assert spent.total() <= 8, spent
    DropboxFileSystem.clear_instance_cache()


def test_the_size_of_an_open_file_is_that_of_its_version(emulator: Emulator, dropbox: DropboxFileSystem) -> None:
    dropbox.pipe("/file", b"0123456789")
    with dropbox.open("/file") as file:
        dropbox.pipe("/file", b"longer than it was before")
        assert file.size == 10
        file.seek(file.size - 2)
        assert file.read() == b"89"
    with dropbox.open("/file", "wb") as file:
        assert file.size is None


def test_many_files_are_removed_in_few_calls(emulator: Emulator, dropbox: DropboxFileSystem) -> None:
    for number in range(40):
        emulator.control.write(f"/in/{number}", b"x")
    emulator.control.write("/in/deep/below", b"x")
    with pytest.raises(IsADirectoryError):
        dropbox.rm("/in/*")
    assert len(emulator.control.tree()) == 43
    before = emulator.control.calls()
    dropbox.rm("dropbox://in/?")
    dropbox.rm([f"/in/{number}" for number in range(10, 39)])
    spent = emulator.control.calls() - before
    assert (spent["files/delete_batch"], spent["files/delete_v2"]) == (2, 0)
    assert sorted(emulator.control.tree()) == ["/in", "/in/39", "/in/deep", "/in/deep/below"]
    with pytest.raises(FileNotFoundError) as missing:
        dropbox.rm(["/in/39", "/in/40"])
    assert missing.value.filename == "/in/40"
    dropbox.rm("/in", recursive=True, maxdepth=3)
    assert not emulator.control.tree()


def test_many_files_cost_few_calls(emulator: Emulator, dropbox: DropboxFileSystem, tmp_path: Path) -> None:
    local = tmp_path / "local"
    (local / "deep" / "empty").mkdir(parents=True)
    for number in range(60):
        (local / "deep" / f"{number}.txt").write_bytes(b"%d" % number)
    callback = fsspec.callbacks.Callback()
    dropbox.exists("/")
    before = sum(emulator.control.calls().values())
    dropbox.put(str(local), "dropbox://copy", recursive=True, callback=callback)
    dropbox.pipe({f"/piped/{number}": b"%d" % number for number in range(60)})
    assert sum(emulator.control.calls().values()) - before < 15
    assert callback.value == callback.size == 63
    tree = emulator.control.tree()
    assert tree["/copy/deep/empty"] is None
    for number in range(60):
        assert emulator.control.read(f"/copy/deep/{number}.txt") == b"%d" % number
        assert emulator.control.read(f"/piped/{number}") == b"%d" % number


def test_of_many_files_those_that_can_be_stored_are(
    emulator: Emulator, dropbox: DropboxFileSystem, tmp_path: Path
) -> None:
    for name in ("a.txt", "desktop.ini", "z.txt"):
        (tmp_path / name).write_bytes(b"content")
    with pytest.raises(OSError, match=r"desktop\.ini"):
        dropbox.put(str(tmp_path), "/copy/", recursive=True)
    assert {path for path, size in emulator.control.tree("/copy").items() if size} == {
        f"/copy/{tmp_path.name}/a.txt", f"/copy/{tmp_path.name}/z.txt"
    }  # fmt: skip
    with dropbox.transaction:
        dropbox.pipe({"/one": b"1", "/two": b"2"})
        assert "/one" not in emulator.control.tree()
    assert emulator.control.read("/two") == b"2"


def test_times_hash_and_range(emulator: Emulator, dropbox: DropboxFileSystem) -> None:
    when = datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)
    with dropbox.open("/file", "wb", modified=when) as file:
        file.write(b"0123456789")
    assert dropbox.modified("/FILE") == when
    assert dropbox.info("/file")["mtime"] == when.timestamp()
    assert "mtime" not in dropbox.info("/")
    assert dropbox.created("/file") > when
    key = dropbox.ukey("/file")
    assert dropbox.cat_file("/file", 2, 5) == b"234"
    assert dropbox.cat_file("/file", -3) == b"789"
    assert dropbox.checksum("/file") == dropbox.checksum("/file")
    dropbox.touch("/file", truncate=False)
    assert dropbox.ukey("/file") == key
    dropbox.touch("/file")
    assert dropbox.size("/file") == 0
    assert dropbox.ukey("/file") != key
    with pytest.raises(IsADirectoryError):
        dropbox.modified("/")
    assert dropbox.sign("/file").startswith("https://")


def test_compressed_and_other_encodings(dropbox: DropboxFileSystem) -> None:
    with dropbox.open("/text.gz", "wt", compression="infer", encoding="utf-16") as file:
        file.write("Grüße\n" * 1000)
    assert dropbox.size("/text.gz") < 500
    with dropbox.open("/text.gz", "rt", compression="infer", encoding="utf-16") as file:
        assert file.read() == "Grüße\n" * 1000
    for compression in ("gzip", "bz2", "xz", "zip"):
        _break_off(dropbox.open("/half", "wb", compression=compression), b"x")
        forgotten = dropbox.open("/half", "wb", compression=compression)
        forgotten.write(b"x")
        del forgotten
        gc.collect()  # what complains here fails the test
    assert not dropbox.exists("/half")
    with dropbox.open("/latin", "w", encoding="latin-1") as file:
        file.write("Grüße")
    assert dropbox.cat("/latin") == "Grüße".encode("latin-1")
