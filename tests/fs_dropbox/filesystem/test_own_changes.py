"""Own changes are seen at once, also where threads that do things at random seldom come."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from fs_dropbox.errors import TransportError


def test_a_folder_is_made_again_though_its_absence_was_believed(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    account = open_dropbox(change_feed=False, cache_ttl_seconds=3600)
    assert account.listdir("/") == []
    emulator.control.seed("/a/b/c")
    account.makedirs("a/b/c", recreate=True)
    assert account.isdir("a/b")


def test_looking_first_is_not_kept_from_it_by_a_missing_folder(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    account = open_dropbox(change_feed=False, cache_ttl_seconds=3600)
    assert account.listdir("/") == []
    emulator.control.write("/a/file", b"one")
    account.appendbytes("a/file", b", two")
    assert emulator.control.read("/a/file") == b"one, two"
    assert account.listdir("/") == ["a"]
    emulator.control.write("/b/file", b"one")
    account.remove("b/file")
    assert not emulator.control.exists("/b/file")


@pytest.mark.parametrize("cache", [True, False])
def test_a_walk_meets_what_was_changed_during_it(open_dropbox: Callable[..., DropboxFS], cache: bool) -> None:
    account = open_dropbox(cache=cache)
    account.makedirs("a/b/c")
    account.writebytes("a/b/c/old", b"1")
    if cache:
        account.forget("/")
    walk = account.walk.info("/")
    assert next(walk)[0] == "/a"
    account.remove("a/b/c/old")
    account.writebytes("a/b/c/new", b"1")
    account.makedir("a/b/d")
    if cache:
        account.forget("a/b/d")  # and so what is in the folder above is not known any more
    assert sorted(path for path, _ in walk) == ["/a/b", "/a/b/c", "/a/b/c/new", "/a/b/d"]


@pytest.mark.parametrize("path", ["/file", "/Notes.paper.md"])
def test_forgetting_waits_for_nothing(open_dropbox: Callable[..., DropboxFS], emulator: Emulator, path: str) -> None:
    """Whatever may be meant by the path."""
    account = open_dropbox(change_feed=False, cache_ttl_seconds=3600)
    assert not account.exists(path)
    emulator.control.write(path, b"content")
    account.forget(path)
    before = emulator.control.calls()
    account.forget(path)
    assert emulator.control.calls() == before
    assert account.readbytes(path) == b"content"


def test_all_that_was_uploaded_together_is_seen_with_the_first_result(dropbox_fs: DropboxFS) -> None:
    assert dropbox_fs.listdir("/") == []
    files = [(f"/{number}", partial(io.BytesIO, b"1"), 1, None) for number in range(5)]
    results = dropbox_fs.upload_files(files)
    assert next(results)[1] is None
    assert len(dropbox_fs.listdir("/")) == 5
    results.close()  # type: ignore[attr-defined]


def test_what_was_committed_before_an_upload_was_given_up_is_seen(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator
) -> None:
    account = open_dropbox(change_feed=False)
    assert account.listdir("/") == []
    large = bytes(20 * 2**20)
    files = [(f"/{number}", partial(io.BytesIO, large), len(large), None) for number in range(2)]
    results = account.upload_files([*files, ("/small", partial(io.BytesIO, b"1"), 1, None)])
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert sorted(account.listdir("/")) == sorted(path[1:] for path in emulator.control.tree())


def test_a_change_of_case_leaves_no_trace(open_dropbox: Callable[..., DropboxFS], emulator: Emulator) -> None:
    """Not even where somebody has listed the folder in the middle of it."""
    emulator.control.options(case_only_move="rename")
    account = open_dropbox(change_feed=False)
    account.makedir("d")
    account.writebytes("d/name", b"1")
    account.forget("/d")
    client = account._parts.client
    move = client.move
    late: list[tuple[int, list[Any]]] = []

    def listed_in_the_middle(*arguments: Any, **more: Any) -> Any:
        moved = move(*arguments, **more)
        if not late:
            late.append((account._parts.catalog.epoch(), list(client.list_folder("/d").entries)))
        return moved

    client.move = listed_in_the_middle
    account.move("d/name", "d/NAME", overwrite=True)
    [(epoch, entries)] = late
    assert entries[0].name.endswith(".renaming")
    account._parts.catalog._cache.put_listing("/d", entries, epoch)
    assert account.listdir("d") == ["NAME"]


def test_what_was_removed_to_make_way_comes_back_where_nobody_knew_that_it_was(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    """The answer to the removal is lost, and so is the look at what became of it: nothing takes its place then."""
    account = open_dropbox(change_feed=False)
    for name in ("source", "target"):
        emulator.control.write(f"/{name}", name.encode())
    client = account._parts.client
    delete = client.delete

    def lost(*arguments: Any, **options: Any) -> Any:
        delete(*arguments, **options)
        error = TransportError("reset")
        error.is_unsettled = True
        raise error

    client.delete = lost
    with pytest.raises(fs.errors.RemoteConnectionError, match="not known"):
        account.move("source", "target", overwrite=True)
    assert [emulator.control.read(f"/{name}") for name in ("source", "target")] == [b"source", b"target"]
    assert account.readtext("target") == "target"
