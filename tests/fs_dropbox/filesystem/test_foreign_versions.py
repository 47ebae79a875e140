"""What others have changed is never overwritten unseen, and nothing is read that is half of one version."""

from __future__ import annotations

from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from fs_dropbox.entries import Entry
from fs_dropbox.errors import VersionConflict
from tests.fs_dropbox.accounts import live
from tests.waiting import eventually


@pytest.fixture
def followed(dropbox_fs: DropboxFS) -> DropboxFS:
    return live(dropbox_fs)


def test_an_open_file_reads_one_version(followed: DropboxFS, emulator: Emulator) -> None:
    old = bytes(range(256)) * 40_000
    emulator.control.write("/file", old)
    eventually(lambda: followed.exists("file") and followed.getsize("file") == len(old))
    with followed.openbin("file") as file:
        assert file.read(1000) == old[:1000]
        emulator.control.write("/file", b"new" * 5_000_000)
        assert file.read(1_000_000) == old[1000:1_001_000]
        emulator.control.delete("/file")
        assert file.read() == old[1_001_000:]
    eventually(lambda: not followed.exists("file"))


def test_a_revision_that_is_gone_is_an_error(followed: DropboxFS, emulator: Emulator) -> None:
    emulator.control.write("/file", bytes(10_000_000))
    eventually(lambda: followed.exists("file"))
    with followed.openbin("file") as file:
        assert file.read(10) == bytes(10)
        error = {".tag": "path", "path": {".tag": "not_found"}}
        emulator.control.fault("files/download", "error", count=None, error=error)
        file.seek(9_000_000)
        with pytest.raises(fs.errors.ResourceNotFound, match="file"):
            file.read(10)


@pytest.mark.parametrize("mode", ["r+", "a", "a+"])
def test_a_foreign_change_is_not_overwritten(followed: DropboxFS, emulator: Emulator, mode: str) -> None:
    emulator.control.write("/file", b"one")
    eventually(lambda: followed.exists("file"))
    file = followed.openbin("file", mode)
    file.write(b"mine")
    emulator.control.write("/file", b"theirs")
    with pytest.raises(VersionConflict, match="changed by someone else"):
        file.close()
    assert file.closed
    file.close()
    assert emulator.control.read("/file") == b"theirs"
    assert followed.readbytes("file") == b"theirs"


def test_a_foreign_deletion_is_not_undone(followed: DropboxFS, emulator: Emulator) -> None:
    emulator.control.write("/file", b"one")
    eventually(lambda: followed.exists("file"))
    file = followed.openbin("file", "r+")
    file.write(b"mine")
    emulator.control.delete("/file")
    with pytest.raises(VersionConflict):
        file.close()
    assert emulator.control.tree() == {}


def test_rewriting_the_same_content_in_place_is_no_conflict(followed: DropboxFS, emulator: Emulator) -> None:
    emulator.control.write("/file", b"one")
    eventually(lambda: followed.exists("file"))
    with followed.openbin("file", "r+") as file:
        file.write(b"one")
    assert emulator.control.read("/file") == b"one"


def test_changing_in_place_begins_with_the_latest_version(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.write("/file", b"one")
    assert account.readbytes("file") == b"one"
    emulator.control.write("/file", b"two")
    account.appendbytes("file", b"!")
    assert emulator.control.read("/file") == b"two!"


def test_an_overwrite_replaces_whatever_is_there(followed: DropboxFS, emulator: Emulator) -> None:
    file = followed.openbin("file", "w")
    file.write(b"mine")
    emulator.control.write("/file", b"theirs")
    file.close()
    assert emulator.control.read("/file") == b"mine"
    assert followed.readbytes("file") == b"mine"


def test_a_file_that_someone_else_has_replaced_is_removed_all_the_same(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.write("/file", b"one")
    assert account.isfile("file")
    emulator.control.write("/file", b"two")
    account.remove("file")
    assert not emulator.control.exists("/file")


def test_a_file_that_someone_else_replaces_while_it_is_removed_goes_as_well(
    followed: DropboxFS, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.control.write("/file", b"one")
    eventually(lambda: followed.isfile("file"))
    delete, newer = followed._parts.client.delete, iter([b"two", b"three"])

    def late(path: str, **others: Any) -> Entry:
        for content in newer:
            emulator.control.write("/file", content)
            break
        return delete(path, **others)

    monkeypatch.setattr(followed._parts.client, "delete", late)
    followed.remove("file")
    assert not emulator.control.exists("/file")
    assert not followed.exists("file")


@pytest.mark.parametrize("change", ["move", "copy"])
def test_nothing_that_someone_else_has_just_put_there_is_overwritten(
    account: DropboxFS, emulator: Emulator, change: str
) -> None:
    account.writetext("mine", "mine")
    assert not account.exists("there")
    emulator.control.write("/there", b"theirs")
    with pytest.raises(fs.errors.DestinationExists):
        getattr(account, change)("mine", "there")
    assert emulator.control.read("/there") == b"theirs"
    assert emulator.control.read("/mine") == b"mine"


def let_a_folder_take_the_place_of_a_file(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.write("/thing", b"one")
    assert account.isfile("thing")
    emulator.control.delete("/thing")
    emulator.control.write("/thing/precious", b"two")


def test_a_folder_that_took_the_place_of_a_file_is_not_removed_as_one(account: DropboxFS, emulator: Emulator) -> None:
    let_a_folder_take_the_place_of_a_file(account, emulator)
    with pytest.raises(fs.errors.FileExpected):
        account.remove("thing")
    assert emulator.control.read("/thing/precious") == b"two"


@pytest.mark.parametrize("how", ["move", "copy"])
def test_a_folder_that_took_the_place_of_a_file_is_not_replaced_as_one(
    account: DropboxFS, emulator: Emulator, how: str
) -> None:
    """Dropbox's own calls do not overwrite: what is in the way is deleted, and a folder with all that it holds."""
    emulator.control.write("/source", b"source")
    let_a_folder_take_the_place_of_a_file(account, emulator)
    with pytest.raises(fs.errors.FileExpected):
        getattr(account, how)("source", "thing", overwrite=True)
    assert emulator.control.read("/thing/precious") == b"two"
    assert emulator.control.read("/source") == b"source"


def test_a_file_that_took_the_place_of_a_folder_is_not_removed_as_one(account: DropboxFS, emulator: Emulator) -> None:
    emulator.control.write("/thing/inner", b"one")
    assert account.isdir("thing")
    emulator.control.delete("/thing")
    emulator.control.write("/thing", b"precious")
    with pytest.raises(fs.errors.DirectoryExpected):
        account.removetree("thing")
    assert emulator.control.read("/thing") == b"precious"


def test_a_missing_file_that_someone_else_has_made_can_be_opened_once_the_feed_tells(
    followed: DropboxFS, emulator: Emulator
) -> None:
    with pytest.raises(fs.errors.ResourceNotFound):
        followed.openbin("file")
    emulator.control.write("/file", b"one")
    eventually(lambda: followed.exists("file"))
    assert followed.readbytes("file") == b"one"
