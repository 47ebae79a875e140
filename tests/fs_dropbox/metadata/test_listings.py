"""Listings under way that many read: each page is asked for once, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.api.results import Page
from fs_dropbox.emulator import Emulator
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import TransportError
from fs_dropbox.metadata.listings import JOIN_SECONDS, Listings
from fs_dropbox.metadata.lookups import CALM_SECONDS, FIRST_LOOKUPS, LARGE_SECONDS, WINDOW_SECONDS, Lookups

DEADLINE_SECONDS = 30.0


class Source:
    """Begins listings of numbered pages; a page waits until it is let go."""

    def __init__(self, pages: int = 3, error: Exception | None = None) -> None:
        self.fetched: list[int] = []
        self.now = 0.0
        self.let_go = threading.Event()
        self.let_go.set()
        self.listings: Listings[int] = Listings(now=lambda: self.now)
        self._pages = pages
        self._error = error

    def begin(self) -> Iterator[list[int]]:
        for number in range(self._pages):
            self.fetched.append(number)
            assert self.let_go.wait(DEADLINE_SECONDS)
            yield [number]
        if self._error is not None:
            raise self._error

    def read(self) -> list[int]:
        return [entry for page in self.listings.join("key", self.begin) for entry in page]


def test_all_who_come_at_once_share_each_page() -> None:
    source = Source()
    source.let_go.clear()
    together = threading.Barrier(20)

    def read(_: int) -> list[int]:
        listing = source.listings.join("key", source.begin)
        together.wait(DEADLINE_SECONDS)
        source.let_go.set()
        return [entry for page in listing for entry in page]

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(read, range(20))) == [[0, 1, 2]] * 20
    assert source.fetched == [0, 1, 2]


def test_who_leaves_holds_up_nobody() -> None:
    source = Source()
    first = iter(source.listings.join("key", source.begin))
    second = iter(source.listings.join("key", source.begin))
    assert next(first) == next(second) == [0]
    del first
    assert list(second) == [[1], [2]]


def test_a_failure_is_told_to_all_and_not_remembered() -> None:
    source = Source(error=OSError("broken off"))
    first = iter(source.listings.join("key", source.begin))
    second = iter(source.listings.join("key", source.begin))
    for reader in (first, second):
        with pytest.raises(OSError, match="broken off"):
            list(reader)
    assert source.fetched == [0, 1, 2]
    with pytest.raises(OSError, match="broken off"):
        source.read()
    assert source.fetched == [0, 1, 2] * 2


def test_an_interruption_is_no_end() -> None:
    def begin() -> Iterator[list[int]]:
        yield [0]
        raise KeyboardInterrupt

    listing = Listings[int]().join("key", begin)
    with pytest.raises(KeyboardInterrupt):
        list(listing)
    with pytest.raises(TransportError, match="the operation was cancelled"):
        list(listing)


def test_nobody_joins_what_has_ended_or_is_old() -> None:
    source = Source()
    listing = source.listings.join("key", source.begin)
    assert source.listings.join("key", source.begin) is listing
    assert source.listings.join("other", source.begin) is not listing
    source.now += JOIN_SECONDS + 1
    assert source.listings.join("key", source.begin) is not listing
    listing = source.listings.join("key", source.begin)
    list(listing)
    assert source.listings.join("key", source.begin) is not listing


def _noted(lookups: Lookups, count: int, *, start: int = 0, folder: str = "/f") -> list[int]:
    return [lookups.note(folder, f"{folder}/{number}") for number in range(start, start + count)]


def test_lookups_of_one_name_or_far_apart_are_no_reason_to_list() -> None:
    now = [0.0]
    lookups = Lookups(now=lambda: now[0])
    assert not any(lookups.note("/f", "/f/same") for _ in range(100))
    for number in range(100):
        now[0] += WINDOW_SECONDS + 1
        assert not lookups.note("/f", f"/f/{number}")


def test_each_try_that_did_not_help_waits_for_more_lookups() -> None:
    now = [0.0]
    lookups = Lookups(now=lambda: now[0])
    pages = _noted(lookups, 1000)
    assert pages[: FIRST_LOOKUPS + 1] == [0] * FIRST_LOOKUPS + [1]
    assert sum(pages) <= 1000 / 3
    assert len([each for each in pages if each]) <= 8
    lookups.listed("/f", is_whole=False)
    now[0] += CALM_SECONDS + 1
    assert not any(_noted(lookups, 50, start=1000))
    now[0] += LARGE_SECONDS
    assert _noted(lookups, FIRST_LOOKUPS + 1, start=2000)[-1] == 1


def test_a_listing_that_lasted_is_made_again_as_early() -> None:
    now = [0.0]
    lookups = Lookups(now=lambda: now[0])
    for start in range(0, 100, 10):
        assert _noted(lookups, FIRST_LOOKUPS + 1, start=start)[-1] == 1
        lookups.listed("/f", is_whole=True)
        now[0] += CALM_SECONDS + 1


def test_what_is_deleted_while_a_tree_is_listed_is_not_in_it(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropbox tells of it on a later page: of a folder alone, not of what was in it."""
    monkeypatch.setattr("fs_dropbox.api.client.PAGE_ENTRIES", 10)
    for folder in "ab":
        for number in range(20):
            emulator.control.seed(f"/tree/{folder}/{number:02}", b"1")
    account = open_dropbox(change_feed=False)
    first_page = account._parts.client.list_folder

    def list_folder(*arguments: object, **options: object) -> object:
        page = first_page(*arguments, **options)  # type: ignore[arg-type]
        emulator.control.delete("/tree/a")
        return page

    monkeypatch.setattr(account._parts.client, "list_folder", list_folder)
    assert {path[:7] for path in account.walk.files("/tree")} == {"/tree/b"}
    assert account.listdir("/tree") == ["b"]
    assert not any(account.exists(f"/tree/a/{number:02}") for number in range(20))


def test_documents_come_last_by_their_names(
    open_dropbox: Callable[..., DropboxFS], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later page may have a file that takes a document's name."""
    monkeypatch.setattr("fs_dropbox.api.client.PAGE_ENTRIES", 2)
    emulator.control.make_paper("/docs/Plan.paper", "# Plan")
    emulator.control.make_paper("/docs/Notes.paper", "# Notes")
    for name in ("a", "b", "z", "Notes.paper.md"):
        emulator.control.seed(f"/docs/{name}", b"1")
    account = open_dropbox(change_feed=False)
    names = [info.name for info in account.scandir("/docs")]
    assert set(names[:4]) == {"a", "b", "z", "Notes.paper.md"}
    assert set(names[4:]) == {"Plan.paper.md", "Notes.paper"}


@pytest.mark.parametrize("recursive", [False, True])
def test_names_that_dropbox_keeps_apart_and_we_do_not_are_told_of_once(
    open_dropbox: Callable[..., DropboxFS],
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    recursive: bool,
) -> None:
    for name in ("One", "other"):
        emulator.control.seed(f"/folder/{name} {recursive}", b"1")
    account = open_dropbox(cache=False)
    list_folder = account._parts.client.list_folder

    def listed(path: str, **options: Any) -> Page:
        page = list_folder(path, **options)
        one = next(entry for entry in page.entries if entry.name.startswith("One"))
        assert isinstance(one, FileEntry)
        beside = one._replace(name=one.name.upper(), path_display=one.path_display.upper(), id="id:beside")
        return replace(page, entries=[*page.entries, beside])

    monkeypatch.setattr(account._parts.client, "list_folder", listed)
    for _ in range(3):
        names = sorted(account.walk.files("/folder") if recursive else account.listdir("folder"))
        assert [name.rpartition("/")[2] for name in names] == [f"ONE {recursive}".upper(), f"other {recursive}"]
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert f"'/folder/One {recursive}' cannot be seen here" in record.getMessage()
    assert repr(f"/folder/One {recursive}".upper()) in record.getMessage()
