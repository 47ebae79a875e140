"""Moving a directory into another that exists already: a file that others add meanwhile is never deleted."""

from __future__ import annotations

from collections.abc import Callable

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator

CACHES = [{"change_feed": False, "cache_ttl_seconds": 3600}, {"cache": False}]


@pytest.mark.parametrize("cache", CACHES, ids=["late", "none"])
@pytest.mark.parametrize("where", ["/from/theirs", "/from/sub/theirs", "/from/new/theirs"])
def test_what_others_have_added_goes_along(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, where: str, cache: dict[str, object]
) -> None:
    account = open_dropbox(**cache)
    for path in ("/from/ours", "/from/sub/ours", "/to/sub/there"):
        account.makedirs(path.rpartition("/")[0], recreate=True)
        account.writetext(path, path)
    assert sorted(account.walk.files("/from")) == ["/from/ours", "/from/sub/ours"]
    emulator.control.write(where, b"precious")
    account.movedir("/from", "/to", create=True)
    assert emulator.control.read(where.replace("/from", "/to")) == b"precious"
    assert emulator.control.read("/to/sub/there") == b"/to/sub/there"
    assert emulator.control.read("/to/sub/ours") == b"/from/sub/ours"
    assert not emulator.control.exists("/from")
    assert not account.exists("/from")


def test_a_move_over_a_file_that_fails_brings_back_what_was_really_there(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    account = open_dropbox(change_feed=False, cache_ttl_seconds=3600)
    account.writetext("/source", "source")
    account.writetext("/target", "known")
    emulator.control.write("/target", b"newer than known")
    error = {".tag": "insufficient_quota"}
    emulator.control.fault("files/move_v2", "error", error=error, count=None)
    with pytest.raises(fs.errors.InsufficientStorage):
        account.move("/source", "/target", overwrite=True)
    assert emulator.control.read("/target") == b"newer than known"
    assert emulator.control.read("/source") == b"source"


@pytest.mark.parametrize("source", ["/b/c", "/b/x/c"])
def test_a_directory_with_one_in_it_that_would_take_its_own_place_stays(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, source: str
) -> None:
    """Merged into what it is moved out of, it would be moved once more, over what is beside it."""
    account = open_dropbox(change_feed=False)
    below = source.removeprefix("/b")
    emulator.control.write(f"{source}{below}/f", b"deep")
    emulator.control.write("/b/f", b"precious")
    before = emulator.control.tree()
    with pytest.raises(fs.errors.OperationFailed, match="its own place"):
        account.movedir(source, "/b")
    assert emulator.control.tree() == before
    account.removetree(f"{source}{below}")
    account.writebytes(f"{source}/new", b"new")
    account.movedir(source, "/b")
    assert emulator.control.read("/b/new") == b"new"
    assert emulator.control.read("/b/f") == b"precious"
