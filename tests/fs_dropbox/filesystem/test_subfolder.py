"""A folder opened as a filesystem can do what the account can, in as few calls."""

from __future__ import annotations

import io
from collections.abc import Iterator

import fs
import fs.errors
import pytest
from fs.osfs import OSFS

from fs_dropbox.emulator import Emulator
from fs_dropbox.filesystem.subfolder import DropboxSubFS
from fs_dropbox.mirroring.mirror import Mirror
from fs_dropbox.mirroring.transfer import Place

PAID_ONCE = {
    "oauth2/token",
    "users/get_current_account",
    "files/list_folder/get_latest_cursor",
    "files/list_folder/longpoll",
    "files/list_folder/continue",
}


@pytest.fixture
def folder(emulator: Emulator) -> Iterator[DropboxSubFS]:
    emulator.control.seed("/base/tree")
    for number in range(20):
        emulator.control.seed(f"/base/tree/sub/{number}", b"1")
    with fs.open_fs(emulator.fs_url.replace("@/", "@/base") + "&change_feed=off") as opened:
        assert isinstance(opened, DropboxSubFS)
        yield opened


def _calls(emulator: Emulator) -> dict[str, int]:
    counted = {route: count for route, count in emulator.control.calls().items() if route not in PAID_ONCE}
    emulator.control.reset_counts()
    return counted


def test_trees_are_copied_and_moved_in_one_call(emulator: Emulator, folder: DropboxSubFS) -> None:
    folder.listdir("/")
    _calls(emulator)
    folder.copydir("tree", "copied", create=True)
    assert _calls(emulator) == {"files/copy_v2": 1}
    folder.movedir("copied", "moved", create=True)
    assert _calls(emulator) == {"files/move_v2": 1}
    folder.copy("moved/sub/1", "moved/sub/copied")
    assert _calls(emulator)["files/copy_v2"] == 1
    assert len(emulator.control.tree("/base/moved/sub")) == 21
    with pytest.raises(fs.errors.OperationFailed):
        folder.copydir("tree", "tree/into itself", create=True)
    with pytest.raises(fs.errors.ResourceNotFound) as missing:
        folder.copydir("none", "other", create=True)
    assert missing.value.path == "none"


def test_what_is_known_is_told_without_a_call(folder: DropboxSubFS) -> None:
    assert folder.cached_info("tree") is None
    folder.listdir("/")
    info = folder.cached_info("tree")
    assert info is not None
    assert info.is_dir
    with pytest.raises(fs.errors.ResourceNotFound) as missing:
        folder.cached_info("none")
    assert missing.value.path == "none"
    assert [info.name for info in folder.cached_listing("/") or ()] == folder.listdir("/")
    assert folder.cached_listing("tree") is None


def test_what_another_process_has_changed_is_forgotten(emulator: Emulator, folder: DropboxSubFS) -> None:
    assert folder.listdir("tree") == ["sub"]
    emulator.control.write("/base/tree/new", b"1")
    assert folder.listdir("tree") == ["sub"]
    folder.forget("tree")
    assert folder.listdir("tree") == ["new", "sub"]


def test_many_files_at_once(emulator: Emulator, folder: DropboxSubFS) -> None:
    nested = folder.opendir("tree").opendir("sub")
    contents = {f"new {number}": bytes([number]) * number for number in range(50)} | {"none/below": b"1"}

    def opened(data: bytes) -> io.BytesIO:
        return io.BytesIO(data)

    files = [(name, lambda data=data: opened(data), len(data), None) for name, data in contents.items()]
    emulator.control.reset_counts()
    results = dict(nested.upload_files(files))
    assert sorted(results) == list(range(51))
    error = results.pop(50)
    assert isinstance(error, fs.errors.ResourceNotFound)
    assert error.path == "none/below"
    assert set(results.values()) == {None}
    assert sum(_calls(emulator).values()) <= 6
    assert emulator.control.read("/base/tree/sub/new 7") == b"\x07" * 7


def test_a_mirror_into_a_folder_goes_in_bulk(emulator: Emulator, folder: DropboxSubFS, tmp_path: object) -> None:
    with OSFS(str(tmp_path)) as local:
        for number in range(60):
            local.writetext(str(number), str(number))
        emulator.control.reset_counts()
        summary = Mirror(Place(local), Place(folder, "/mirrored")).run()
    assert summary.copied == 60
    assert sum(_calls(emulator).values()) <= 9
    assert len(emulator.control.tree("/base/mirrored")) == 60


@pytest.mark.parametrize("path", ["/none", "/tree/sub/1"])
def test_what_cannot_be_walked_is_named_as_the_folder_has_it(folder: DropboxSubFS, path: str) -> None:
    with pytest.raises((fs.errors.ResourceNotFound, fs.errors.DirectoryExpected)) as failed:
        list(folder.walk.files(path))
    assert failed.value.path == path
