"""Trees that are listed folder by folder: a recursive listing instead of many calls, and never much in vain."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.emulator import Emulator
from fs_dropbox.metadata.subtrees import (
    FIRST_FOLDERS,
    FOLDERS_GROW,
    MOST_FOLDERS,
    MOST_PAGES,
    WINDOW_SECONDS,
    Subtrees,
)
from tests.waiting import eventually


def listed(account: DropboxFS, folder: str, *, backwards: bool, depth_first: bool) -> int:
    """List a tree as a client does; return how many files it has."""
    waiting, files = [folder], 0
    while waiting:
        path = waiting.pop(-1 if depth_first else 0)
        for info in sorted(account.scandir(path), key=lambda info: info.name, reverse=backwards):
            if info.is_dir:
                waiting.append(f"{path}/{info.name}")
            else:
                files += 1
    return files


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("depth_first", [False, True])
def test_a_tree_that_is_listed_folder_by_folder_costs_few_calls(
    emulator: Emulator, dropbox_fs: DropboxFS, backwards: bool, depth_first: bool
) -> None:
    for number in range(200):
        emulator.control.seed(f"/many/top{number % 8}/folder{number}/file", b"x")
    dropbox_fs.listdir("/")
    eventually(lambda: dropbox_fs.feed_is_live)
    emulator.control.latency(delay_seconds=0.02)
    emulator.control.reset_counts()
    assert listed(dropbox_fs, "/many", backwards=backwards, depth_first=depth_first) == 200
    calls = emulator.control.calls()
    assert sum(count for route, count in calls.items() if "longpoll" not in route) < 70, calls


def test_what_was_listed_ahead_is_as_new_as_a_listing(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    for number in range(20):
        emulator.control.seed(f"/tree/{number}/file", b"x")
    for number in range(10):
        dropbox_fs.listdir(f"/tree/{number}")
    dropbox_fs.writebytes("/tree/15/own", b"x")
    assert sorted(dropbox_fs.listdir("/tree/15")) == ["file", "own"]
    dropbox_fs.removetree("/tree/16")
    assert "16" not in dropbox_fs.listdir("/tree")


def test_without_a_cache_nothing_is_listed_ahead(emulator: Emulator, open_dropbox: Callable[..., DropboxFS]) -> None:
    for number in range(20):
        emulator.control.seed(f"/tree/{number}/file", b"x")
    account = open_dropbox(cache=False)
    emulator.control.reset_counts()
    assert listed(account, "/tree", backwards=False, depth_first=False) == 20
    assert emulator.control.calls() == {"files/list_folder": 21}


def note(subtrees: Subtrees, parent: str, count: int, start: int = 0) -> list[tuple[str, int]]:
    answers = [subtrees.note(f"{parent}/{number}") for number in range(start, start + count)]
    return [answer for answer in answers if answer is not None]


def test_a_few_folders_or_one_again_and_again_are_no_reason() -> None:
    subtrees = Subtrees()
    assert not note(subtrees, "/a", FIRST_FOLDERS - 1)
    assert not any(subtrees.note("/b/same") for _ in range(100))
    assert subtrees.note("") is None


def test_what_lies_far_apart_has_nothing_to_do_with_each_other() -> None:
    now = [0.0]
    subtrees = Subtrees(now=lambda: now[0])
    for number in range(100):
        assert subtrees.note(f"/a/{number}") is None
        now[0] += WINDOW_SECONDS + 1


def test_it_climbs_with_as_many_pages_as_the_listings_were_worth() -> None:
    subtrees = Subtrees()
    for top in ("/a", "/b"):
        assert subtrees.note(top) is None
        assert note(subtrees, top, FIRST_FOLDERS) == [(top, 2)]
        subtrees.listed(top, is_whole=True)
    assert subtrees.note("/c") == ("", 3), "nine listings below it"


def test_only_one_at_a_time() -> None:
    subtrees = Subtrees()
    assert len(note(subtrees, "/a", 100)) == 1


def test_trees_that_are_too_large_cost_little() -> None:
    subtrees = Subtrees()
    pages = 0
    for number in range(3000):
        wanted = subtrees.note(f"/large/{number}")
        if wanted is not None:
            pages += wanted[1] + 1
            subtrees.listed("/large", is_whole=False)
        assert pages <= max(3, number), "more calls in vain than listings"
    assert pages < 3 + 5 * (MOST_PAGES + 1)
    assert FOLDERS_GROW > 1


def test_what_is_kept_of_a_tree_that_is_always_too_large_is_bounded() -> None:
    subtrees = Subtrees()
    tries = [0]
    for number in range(10 * MOST_FOLDERS):
        if subtrees.note(f"/large/{number}") is not None:
            tries.append(number)
            subtrees.listed("/large", is_whole=False)
    assert max(later - earlier for earlier, later in pairwise(tries)) == MOST_FOLDERS
