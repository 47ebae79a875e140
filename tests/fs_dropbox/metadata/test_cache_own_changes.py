"""What the metadata cache makes of own changes, and of answers and news that are older or newer than these."""

from __future__ import annotations

from typing import Any

import pytest

from fs_dropbox.entries import FolderEntry
from fs_dropbox.metadata.cache import MetadataCache
from fs_dropbox.metadata.known import ABSENT, says_same
from tests.fs_dropbox.metadata.cached import file, folder, followed_cache, gone


def test_a_local_change_amends_the_listing(cache: MetadataCache) -> None:
    cache.put_listing("", [file("/a")], cache.epoch())
    cache.apply(file("/B"))
    cache.apply(gone("/a"))
    assert cache.listing("") == [file("/B")]
    assert cache.get("/a") is ABSENT


def test_the_epoch_rule_keeps_late_answers_out(cache: MetadataCache) -> None:
    epoch = cache.epoch()
    cache.apply(file("/a", "222222222"))
    cache.put(file("/a", "111111111"), epoch)
    cache.put_absent("/a", epoch)
    cache.put_listing("", [], epoch)
    assert cache.get("/a") == file("/a", "222222222")
    assert cache.listing("") == [file("/a", "222222222")]


def test_the_epoch_rule_holds_below_a_removed_folder(cache: MetadataCache) -> None:
    epoch = cache.epoch()
    cache.apply(gone("/d"))
    cache.put(file("/d/x"), epoch)
    cache.put_listing("/d/e", [file("/d/e/y")], epoch)
    assert cache.get("/d/x") is ABSENT
    assert cache.listing("/d/e") is None


def test_an_answer_from_before_an_entry_denies_no_folder_above_it(cache: MetadataCache) -> None:
    """Creating something creates what is missing above it."""
    epoch = cache.epoch()
    cache.apply_created(folder("/a/b/c"), cache.epoch())
    cache.put_listing("/a", [folder("/a/other")], epoch)
    cache.put_absent("/a/b", epoch)
    cache.put_absent("/a", epoch)
    assert cache.get("/a/b/x") is None
    assert isinstance(cache.get("/a/b/c"), FolderEntry)
    assert cache.listing("/a") is None
    now = cache.epoch()
    cache.put_listing("/a", [folder("/a/b"), folder("/a/other")], now)
    assert isinstance(cache.get("/a/b"), FolderEntry)


def test_what_is_put_into_a_known_folder_keeps_no_answer_about_those_above_out(cache: MetadataCache) -> None:
    epoch = cache.epoch()
    cache.put(folder("/a/b"), epoch)
    cache.apply(file("/a/b/f"))
    cache.put_listing("/a", [folder("/a/b")], epoch)
    assert cache.listing("/a") == [folder("/a/b")]


def test_a_feed_answer_older_than_an_own_change_is_not_taken_over(cache: MetadataCache) -> None:
    """The echo of our first version may come after our second; which of them is newer, nothing tells."""
    epoch = cache.epoch()
    cache.apply(file("/a", "222222222"))
    cache.hear([file("/a", "111111111")], epoch)
    assert cache.get("/a") is None
    cache.hear([file("/a", "333333333")], cache.epoch())
    assert cache.get("/a") == file("/a", "333333333")


def test_the_echo_of_an_own_change_changes_nothing(cache: MetadataCache) -> None:
    cache.put_listing("", [file("/b")], cache.epoch())
    epoch = cache.epoch()
    cache.apply(file("/a", "222222222"))
    cache.apply(folder("/d"))
    cache.apply(gone("/b"))
    for echo in (file("/a", "222222222"), folder("/d"), gone("/b")):
        cache.hear([echo], epoch)
    assert cache.listing("") == [file("/a", "222222222"), folder("/d")]
    cache.hear([file("/A", "222222222")], epoch)  # but this is a rename
    assert cache.get("/a") is None


def test_only_the_very_same_is_an_echo() -> None:
    assert says_same(file("/a"), file("/a"))
    assert says_same(folder("/a"), folder("/a"))
    assert says_same(ABSENT, gone("/a"))
    others: list[Any] = [file("/a", "2222222222"), file("/A"), folder("/a"), gone("/a")]
    assert not any(says_same(file("/a"), other) for other in others)
    assert not any(says_same(None, other) for other in (file("/a"), folder("/a"), gone("/a")))
    assert not says_same(ABSENT, file("/a"))
    assert not says_same(folder("/a"), folder("/a")._replace(id="id:made anew"))
    assert not says_same(folder("/a"), folder("/A"))
    assert not says_same(folder("/a"), gone("/a"))


def test_a_folder_of_our_own_is_empty_unless_something_was_heard_of_it(cache: MetadataCache) -> None:
    epoch = cache.epoch()
    cache.apply_created(folder("/d"), epoch)
    assert cache.listing("/d") == []
    assert cache.get("/d/a") is ABSENT
    cache.apply(file("/e/a"))
    cache.apply_created(folder("/e"), epoch)
    assert cache.get("/e") == folder("/e")
    assert cache.listing("/e") is None
    cache.apply(gone("/f"))
    cache.apply_created(folder("/f"), epoch)
    assert cache.listing("/f") is None


def test_a_deletion_is_not_undone_when_its_listing_is_dropped() -> None:
    cache = followed_cache(max_entries=1000)
    cache.put(file("/d/a"), cache.epoch())
    cache.put_listing("/d", [file("/d/a")], cache.epoch())
    cache.apply(gone("/d/a"))
    cache.put_listing("/big", [file(f"/big/{number}") for number in range(999)], cache.epoch())
    assert cache.listing("/d") is None
    assert cache.get("/d/a") is not file("/d/a")
    assert cache.get("/d/a") in (None, ABSENT)


def test_held_keys_keep_their_face_until_own_calls_are_over(cache: MetadataCache) -> None:
    cache.put_listing("", [file("/a", "111111111"), file("/b")], cache.epoch())
    with cache.hold({"/a": file("/a", "111111111")}):
        late = cache.epoch()
        cache.hear([gone("/a")], cache.epoch())
        cache.hear([gone("/b")], cache.epoch())
        assert cache.get("/a") == file("/a", "111111111")
        assert cache.get("/b") is ABSENT
        cache.apply(file("/a", "222222222"))
    cache.put(file("/a", "111111111"), late)
    assert cache.get("/a") == file("/a", "222222222")
    cache.hear([gone("/a")], cache.epoch())
    assert cache.get("/a") is ABSENT


def test_many_removed_folders_stay_removed(cache: MetadataCache) -> None:
    """Bounds on what is remembered of changes must not bring anything back."""
    for number in range(30_000):
        cache.put(file(f"/{number}/x"), cache.epoch())
        cache.apply(gone(f"/{number}"))
    for number in range(30_000):
        assert cache.get(f"/{number}/x") in (None, ABSENT)


def test_in_more_folders_than_are_remembered_what_is_removed_stays_removed() -> None:
    cache = followed_cache(max_entries=50)
    for number in range(300):
        cache.put(file(f"/{number}/x"), cache.epoch())
        assert cache.get(f"/{number}/x") == file(f"/{number}/x")
        cache.apply(gone(f"/{number}"))
        assert cache.get(f"/{number}/x") in (None, ABSENT)


def test_an_own_creation_is_denied_by_no_listing_from_before_though_a_folder_above_is_known(
    cache: MetadataCache,
) -> None:
    """Somebody may have seen the folders above between their creation and the end of the call that made them."""
    since = cache.epoch()
    cache.put(folder("/a/b"), since)
    cache.apply_created(folder("/a/b/c/d"), since)
    cache.put_listing("/a", [], since)
    cache.put_listing("/a/b", [], since)
    assert cache.get("/a/b") == folder("/a/b")
    assert cache.get("/a/b/c") is None
    assert cache.get("/a/b/c/d") == folder("/a/b/c/d")


def test_a_listing_from_before_has_no_file_where_own_changes_need_a_folder(cache: MetadataCache) -> None:
    since = cache.epoch()
    cache.apply_created(folder("/a/b/c"), since)
    cache.put_listing("/a", [file("/a/b")], since)
    cache.put(file("/a/b"), since)
    assert cache.get("/a/b") is None


def test_a_removal_that_the_feed_tells_late_denies_nothing_made_since(cache: MetadataCache) -> None:
    """Whatever was in the folder before is in doubt, though."""
    cache.put_listing("/d", [folder("/d/e"), file("/d/old")], cache.epoch())
    since = cache.epoch()
    cache.apply(file("/d/e/new"), since=since)
    cache.hear([gone("/d")], since)
    assert cache.get("/d/e/new") is None
    assert cache.get("/d/old") is None
    assert cache.listing("/d") is None


def test_an_own_change_that_ends_after_a_newer_one_was_heard_of_undoes_nothing(cache: MetadataCache) -> None:
    since = cache.epoch()
    cache.hear([file("/a", "222222222"), gone("/d"), file("/e")], cache.epoch())
    cache.apply(file("/a", "111111111"), since=since)
    cache.apply_created(folder("/d"), since)
    cache.apply(gone("/e"), since=since)
    assert cache.get("/a") is None  # which was first, nobody knows
    assert cache.get("/d") is None
    assert cache.get("/e") is None
    echoed = cache.epoch()
    cache.hear([file("/b", "333333333")], cache.epoch())
    cache.apply(file("/b", "333333333"), since=echoed)
    assert cache.get("/b") == file("/b", "333333333")


def test_what_was_gone_before_an_own_creation_may_be_gone_after_it(cache: MetadataCache) -> None:
    cache.put_absent("/d", cache.epoch())
    since = cache.epoch()
    cache.hear([gone("/d")], cache.epoch())
    cache.apply_created(folder("/d"), since)
    assert cache.get("/d") is None


def test_own_changes_that_end_in_another_order_than_they_were_made(cache: MetadataCache) -> None:
    since = cache.epoch()
    cache.apply(gone("/d"), since=since)
    cache.apply(file("/d/new"), since=since)
    cache.apply(file("/e/new"), since=since)
    cache.apply(gone("/e"), since=since)
    assert [cache.get(key) for key in ("/d", "/d/new", "/e", "/e/new")] == [None] * 4


def test_an_own_removal_outlasts_a_whole_tree_from_before(cache: MetadataCache) -> None:
    """Though it was seen to be gone before the call had ended."""
    since = cache.epoch()
    cache.put_listing("", [], since)
    cache.apply(gone("/d"), since=since)
    cache.put_listing("/d", [folder("/d/sub")], since)
    cache.put_listing("/d/sub", [file("/d/sub/x")], since)
    cache.put(file("/d/y"), since)
    for key in ("/d/sub", "/d/sub/x", "/d/y"):
        assert cache.get(key) is ABSENT
    assert cache.listing("/d/sub") is None


def test_an_own_removal_twice_outlasts_what_came_in_between(cache: MetadataCache) -> None:
    since = cache.epoch()
    cache.apply(gone("/d"), since=since)
    late = cache.epoch()
    cache.apply(gone("/d/e"), since=since)
    cache.put(folder("/d/e"), late)
    assert cache.get("/d/e") is ABSENT


def test_what_the_feed_tells_to_be_gone_takes_all_below_though_that_was_known(cache: MetadataCache) -> None:
    epoch = cache.epoch()
    cache.put(file("/d/x"), epoch)
    cache.put_listing("/d/sub", [file("/d/sub/y")], epoch)
    cache.put_listing("", [], epoch)
    cache.hear([gone("/d")], cache.epoch())
    assert cache.get("/d/x") is ABSENT
    assert cache.listing("/d/sub") is None


def test_an_own_folder_proves_that_what_was_there_has_gone(cache: MetadataCache) -> None:
    since = cache.epoch()
    cache.apply(file("/d/x"), since=since)
    cache.apply_created(folder("/d"), since)  # somebody has removed the first one, before or after
    assert cache.get("/d/x") is None
    late = cache.epoch()
    cache.put_listing("/e/sub", [file("/e/sub/x")], late)
    cache.apply_created(folder("/e"), late)
    assert cache.listing("/e/sub") is None


def test_a_call_that_may_have_taken_place_leaves_no_denial_above_it(cache: MetadataCache) -> None:
    epoch = cache.epoch()
    cache.put_listing("", [], epoch)
    cache.forget_tree("/a/b/c")
    assert cache.get("/a/b/c") is None
    cache.put_absent("/a", epoch)
    cache.put_listing("", [], epoch)
    assert cache.get("/a") is None


def test_what_is_shown_of_a_held_key_outlasts_the_listing_that_it_was_in(cache: MetadataCache) -> None:
    cache.put_listing("", [file("/a"), file("/b")], cache.epoch())
    with cache.hold({"/a": file("/a")}):
        since = cache.epoch()
        cache.hear([file("/b", "999999999")], cache.epoch())
        cache.apply(file("/b", "222222222"), since=since)
        assert cache.listing("") is None, "nobody knows which of the two was first"
        assert cache.get("/a") == file("/a")
        assert cache.updated("", [file("/c")], cache.epoch()) == [file("/c"), file("/a")]
        cache.apply(file("/a", "222222222"), since=cache.epoch())
        assert cache.get("/a") == file("/a", "222222222")
    assert cache.get("/a") == file("/a", "222222222")
    with cache.hold({"/a": file("/a", "222222222")}), cache.hold({"/a": file("/a", "222222222")}):
        cache.apply(gone("/a"))
        assert cache.get("/a") is ABSENT
    cache.apply(file("/a"))
    assert cache.get("/a") == file("/a")


def test_what_is_heard_of_a_held_file_is_not_lost(cache: MetadataCache) -> None:
    with cache.hold({"/a": file("/a", "111111111")}):
        since = cache.epoch()
        cache.hear([file("/a", "999999999")], cache.epoch())
        cache.apply(file("/a", "222222222"), since=since)
    assert cache.get("/a") is None


def test_a_page_with_more_to_come_denies_nothing_of_our_own(cache: MetadataCache) -> None:
    cache.apply_created(folder("/d"), cache.epoch())
    cache.apply(file("/d/x"))
    cache.put_listing("/e", [file("/e/x")], cache.epoch())
    cache.hear([gone("/d"), gone("/e")], cache.epoch(), has_more=True)
    assert cache.get("/d") is None
    assert cache.get("/d/x") is None
    assert cache.get("/e/x") is ABSENT  # of which nobody here has changed anything


def test_own_changes_are_newer_also_when_there_are_too_many_to_remember(
    cache: MetadataCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fs_dropbox.metadata.epochs.KEYS_KEPT", 10)
    since = cache.epoch()
    cache.apply(file("/a", "222222222"), since=since)
    for number in range(20):
        cache.apply(file(f"/{number}"))
    cache.put(file("/a", "111111111"), since)
    cache.put_listing("", [], since)
    cache.hear([file("/a", "111111111"), gone("/19")], since)
    assert cache.get("/a") is None
    assert cache.get("/19") is None
