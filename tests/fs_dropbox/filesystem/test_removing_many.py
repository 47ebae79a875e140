"""Many files are removed in few calls, and no others than those that were meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from tests.waiting import eventually


@pytest.mark.parametrize("followed", [True, False], ids=["followed", "not followed"])
def test_many_files_are_removed_in_few_calls(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, followed: bool
) -> None:
    for number in range(30):
        emulator.control.seed(f"/In/File {number}", b"x")
    emulator.control.seed("/In/Folder/below", b"x")
    emulator.control.seed("/Other/one", b"x")
    account = open_dropbox(change_feed=followed)
    account.listdir("In")
    if followed:
        eventually(lambda: account.feed_is_live)
    emulator.control.reset_counts()
    account.remove_files([*(f"/In/FILE {number}" for number in range(29)), "other/One"])
    calls = emulator.control.calls()
    assert (calls["files/delete_batch"], calls["files/delete_v2"]) == (1, 1)
    assert calls["files/get_metadata"] + calls["files/list_folder"] <= 6
    assert sorted(account.listdir("In")) == ["File 29", "Folder"]
    assert sorted(emulator.control.tree()) == ["/In", "/In/File 29", "/In/Folder", "/In/Folder/below", "/Other"]


def test_of_many_files_those_that_can_be_removed_are(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    for number in range(8):
        emulator.control.seed(f"/Top/In/File {number}", b"x")
    account = open_dropbox(change_feed=False)
    account.listdir("Top/In")
    emulator.control.delete("/Top/In/File 3")
    emulator.control.seed("/Top/In/File 3/below", b"x")  # no batch may take the folder for the file
    emulator.control.delete("/Top/In/File 4")
    emulator.control.write("/Top/In/File 5", b"newer")
    with account.opendir("Top") as top:
        with pytest.raises(fs.errors.FileExpected) as refused:
            top.remove_files(f"In/File {number}" for number in range(8))
        assert refused.value.path == "In/File 3"
        with pytest.raises(fs.errors.ResourceNotFound) as missing:
            top.remove_files(["In/File 5", "In/file 6"])
        assert missing.value.path == "In/File 5"
    assert sorted(emulator.control.tree()) == ["/Top", "/Top/In", "/Top/In/File 3", "/Top/In/File 3/below"]
    with pytest.raises(fs.errors.InvalidPath):
        account.remove_files(["/desktop.ini"])


def test_a_batch_removes_no_version_but_the_one_that_was_looked_at(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that one which is carried out late takes nothing that came after it; here a newer version goes on its own."""
    for number in range(5):
        emulator.control.seed(f"/In/{number}", b"x")
    account = open_dropbox(change_feed=False)
    delete = account._parts.client.batches.delete

    def late(wanted: Any) -> Any:
        emulator.control.write("/In/3", b"newer")
        outcomes = delete(wanted)
        assert emulator.control.tree("/In") == {"/In/3": 5}
        return outcomes

    monkeypatch.setattr(account._parts.client.batches, "delete", late)
    account.remove_files([f"/In/{number}" for number in range(5)])
    assert not emulator.control.tree("/In")
