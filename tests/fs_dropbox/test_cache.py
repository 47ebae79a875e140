"""What the metadata cache remembers, and what it refuses to."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from fs_dropbox.entries import DeletedEntry, Entry, FileEntry, FolderEntry
from fs_dropbox.metadata.cache import ABSENT, UNFOLLOWED_SECONDS, MetadataCache
from fs_dropbox.metadata.known import says_same
from fs_dropbox.metadata.single_flight import SingleFlight
from tests.waiting import DEADLINE_SECONDS, eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def file(path: str, rev: str = "0123456789") -> FileEntry:
    return FileEntry(path.rpartition("/")[2], path.lower(), path, f"id:{path}", rev, 1, NOW, NOW)


def folder(path: str) -> FolderEntry:
    return FolderEntry(path.rpartition("/")[2], path.lower(), path, f"id:{path}")


def gone(path: str) -> DeletedEntry:
    return DeletedEntry(path.rpartition("/")[2], path.lower(), path)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def followed_cache(**arguments: Any) -> MetadataCache:
    """Return a cache with a live change feed."""
    cache = MetadataCache(**arguments)
    cache.follow()
    cache.trust(True)
    return cache


@pytest.fixture
def cache() -> MetadataCache:
    return followed_cache()


def test_nothing_is_known_at_first(cache: MetadataCache) -> None:
    assert cache.get("/a") is None
    assert cache.listing("") is None


def test_entries_and_absences_are_remembered(cache: MetadataCache) -> None:
    epoch = cache.epoch()
    cache.put(file("/A"), epoch)
    cache.put_absent("/b", epoch)
    assert cache.get("/a") == file("/A")
    assert cache.get("/b") is ABSENT


def test_a_complete_listing_proves_absence_also_below(cache: MetadataCache) -> None:
    cache.put_listing("", [file("/a"), folder("/d")], cache.epoch())
    assert cache.get("/a") == file("/a")
    assert cache.get("/missing") is ABSENT
    assert cache.get("/missing/below") is ABSENT
    assert cache.get("/d/unknown") is None
    # Dropbox lowers other scripts by tables of its own, so that only ASCII proves anything.
    assert cache.get("/ꙋ") is None


def test_a_listing_is_no_proof_of_absence_for_names_that_dropbox_may_lower_otherwise() -> None:
    """Nor of what is below them."""
    cache = followed_cache()
    cache.put_listing("", [], cache.epoch())
    assert [cache.get(key) for key in ("/a", "/a/b", "/a/b/c")] == [ABSENT] * 3
    assert [cache.get(key) for key in ("/\u0130", "/\u0130/b", "/\u0130/b/c")] == [None] * 3
    cache.put_listing("/d", [], cache.epoch())
    assert cache.get("/d/\u0130/c") is None


def test_metadata_expires_by_age_unless_the_feed_is_live() -> None:
    clock = Clock()
    cache = followed_cache(ttl_seconds=30, now=clock)
    cache.put(file("/a"), cache.epoch())
    cache.put_listing("/d", [], cache.epoch())
    clock.now += 1000
    assert cache.get("/a") == file("/a")
    cache.trust(False)
    assert cache.get("/a") is None
    assert cache.listing("/d") is None


def test_what_was_asked_for_before_the_feed_follows_expires_soon() -> None:
    clock = Clock()
    cache = MetadataCache(ttl_seconds=30, now=clock)
    cache.put(file("/a"), cache.epoch())
    early = cache.epoch()
    cache.follow()
    cache.trust(True)
    cache.put(file("/b"), early)
    cache.put(file("/c"), cache.epoch())
    assert cache.get("/a") == file("/a")
    clock.now += UNFOLLOWED_SECONDS + 1
    assert cache.get("/a") is None
    assert cache.get("/b") is None
    clock.now += 1000
    assert cache.get("/c") == file("/c")


def test_nothing_is_believed_with_a_negative_age() -> None:
    cache = MetadataCache(ttl_seconds=-1)
    cache.put(file("/a"), cache.epoch())
    cache.put_listing("/d", [], cache.epoch())
    assert cache.get("/a") is None
    assert cache.listing("/d") is None


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


def test_a_late_listing_is_brought_up_to_date(cache: MetadataCache) -> None:
    """Otherwise nobody could list a folder that others write to all the time."""
    epoch = cache.epoch()
    cache.apply(file("/d/new"))
    cache.apply(file("/d/changed", "222222222"))
    cache.apply(gone("/d/gone"))
    cache.apply(file("/other/x"))
    cache.put_listing("/d", [file("/d/old"), file("/d/changed", "111111111"), file("/d/gone")], epoch)
    assert cache.listing("/d") == [file("/d/old"), file("/d/changed", "222222222"), file("/d/new")]
    assert cache.get("/d/gone") is ABSENT
    assert cache.get("/d/never") is ABSENT


def test_a_late_listing_is_not_stored_where_a_change_since_is_not_known(cache: MetadataCache) -> None:
    epoch = cache.epoch()
    cache.apply(file("/d/a"))
    cache.forget_tree("/d/a")
    cache.put_listing("/d", [file("/d/a")], epoch)
    assert cache.listing("/d") is None
    assert cache.get("/d/a") is None


def test_a_listing_that_took_long_is_as_old_as_its_beginning() -> None:
    clock = Clock()
    cache = MetadataCache(ttl_seconds=30, now=clock)
    cache.put_listing("/d", [file("/d/a")], cache.epoch(), age_seconds=20)
    clock.now += 9
    assert cache.listing("/d") is not None
    clock.now += 2
    assert cache.listing("/d") is None


def test_the_epoch_rule_holds_below_a_removed_folder(cache: MetadataCache) -> None:
    epoch = cache.epoch()
    cache.apply(gone("/d"))
    cache.put(file("/d/x"), epoch)
    cache.put_listing("/d/e", [file("/d/e/y")], epoch)
    assert cache.get("/d/x") is ABSENT
    assert cache.listing("/d/e") is None


def test_deletion_drops_the_subtree_a_folder_keeps_it_a_file_replaces_it(cache: MetadataCache) -> None:
    cache.put_listing("/d", [file("/d/x")], cache.epoch())
    cache.apply(folder("/d"))
    assert cache.get("/d/x") == file("/d/x")
    cache.apply(file("/d"))
    assert cache.listing("/d") is None
    cache.apply(folder("/d"))
    cache.put_listing("/d", [file("/d/x")], cache.epoch())
    cache.apply(gone("/d"))
    assert cache.get("/d/x") is ABSENT
    assert cache.get("/d") is ABSENT


def test_an_entry_revives_the_folders_above_it(cache: MetadataCache) -> None:
    cache.put_absent("/d", cache.epoch())
    cache.apply(file("/d/e/x"))
    assert cache.get("/d") is None
    cache.put_listing("", [], cache.epoch())
    cache.apply(file("/d/e/x"))
    assert cache.get("/d") is None


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


def test_absence_above_is_doubted_too_unless_it_is_followed() -> None:
    cache = MetadataCache()
    cache.put_absent("/a", cache.epoch())
    cache.put_listing("/x", [], cache.epoch())
    cache.doubt("/a/b")
    cache.doubt("/x/y/z")
    assert cache.get("/a/b") is None
    assert cache.get("/x/y/z") is None
    cache = followed_cache()
    cache.put_listing("", [], cache.epoch())
    cache.doubt("/a/b")
    assert cache.get("/a/b") is ABSENT


def test_a_listing_of_what_nobody_is_to_see_is_not_believed(cache: MetadataCache) -> None:
    cache.put(file("/d/a"), cache.epoch())
    with cache.hold({"/d/a": file("/d/a"), "/d/between": ABSENT}):
        epoch = cache.epoch()
        cache.put_listing("/d", [file("/d/between")], epoch)
        cache.put_absent("/d/a", epoch)
        cache.put(file("/d/a", "222222222"), epoch)
        assert cache.get("/d/a") == file("/d/a")
        assert cache.listing("/d") == [file("/d/a")]
    with cache.hold({"/d/a": file("/d/a")}):
        cache.put_listing("/d", [file("/d/b")], cache.epoch())
        assert cache.listing("/d") == [file("/d/b"), file("/d/a")]
        cache.forget_tree("/d/a")  # as after a call of which nobody knows the outcome
        assert cache.get("/d/a") is None


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


def test_an_answer_from_before_the_feed_is_no_part_of_what_is_followed() -> None:
    clock = Clock()
    cache = MetadataCache(now=clock)
    early = cache.epoch()
    cache.follow()
    cache.trust(True)
    cache.put_listing("", [file("/a", "222222222")], cache.epoch())
    cache.put(file("/a", "111111111"), early)
    cache.put_absent("/a", early)
    cache.put_listing("", [], early)
    assert cache.listing("") == [file("/a", "222222222")]
    cache.apply(file("/b"), since=early)  # after which somebody may have changed it, before the feed began
    clock.now += 1000
    assert cache.get("/b") is None


def test_a_page_counts_at_once(cache: MetadataCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may tell of a removal before an own change, and then of the latter."""
    cache.apply_created(folder("/d"), cache.epoch())
    cache.apply(file("/d/x"))
    hear = cache._hear_locked
    looking: list[Future[object]] = []

    def look_after_each(entry: Entry, since: int) -> None:
        hear(entry, since)
        looking.append(pool.submit(cache.get, "/d/x"))
        eventually(looking[-1].running)

    monkeypatch.setattr(cache, "_hear_locked", look_after_each)
    with ThreadPoolExecutor(3) as pool:
        cache.hear([gone("/d"), folder("/d"), file("/d/x")], cache.epoch())
        assert [each.result(DEADLINE_SECONDS) for each in looking] == [file("/d/x")] * 3


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


def test_a_listing_is_brought_up_to_date_or_refused(cache: MetadataCache) -> None:
    epoch = cache.epoch()
    listed = [file("/d/a"), file("/d/b")]
    assert cache.updated("/d", listed, epoch) == listed
    cache.apply(gone("/d/a"))
    assert cache.updated("/d", listed, epoch) == [file("/d/b")]
    cache.forget_tree("/d/b")
    assert cache.updated("/d", listed, epoch) is None
    cache.apply(gone("/d"))
    assert cache.updated("/d", [], epoch) is None


def test_clear_forgets_and_keeps_answers_under_way_out(cache: MetadataCache) -> None:
    epoch = cache.epoch()
    cache.put(file("/a"), epoch)
    cache.clear()
    cache.put(file("/a"), epoch)
    assert cache.get("/a") is None


def test_memory_is_bounded() -> None:
    cache = followed_cache(max_entries=5000)
    for number in range(100):
        cache.put_listing(f"/{number}", [file(f"/{number}/{child}") for child in range(200)], cache.epoch())
    for number in range(20_000):
        cache.put(file(f"/single/{number}"), cache.epoch())
        cache.apply(file(f"/changed/{number}"))
    known = sum(len(cache.listing(f"/{number}") or ()) for number in range(100))
    assert 0 < known <= 5000
    assert sum(cache.get(f"/single/{number}") is not None for number in range(20_000)) <= 1000


def test_a_folder_with_more_in_it_than_fits_is_not_remembered_and_breaks_nothing() -> None:
    cache = followed_cache(max_entries=100)
    cache.put_listing("/large", [file(f"/large/{number}") for number in range(500)], cache.epoch())
    assert cache.listing("/large") is None
    cache.put_listing("/grows", [file(f"/grows/{number}") for number in range(90)], cache.epoch())
    for number in range(90, 200):
        cache.apply(file(f"/grows/{number}"))
        assert len(cache.listing("/grows") or ()) in (0, number + 1)
    assert cache.listing("/grows") is None
    assert cache.get("/grows/199") == file("/grows/199")


def test_equal_calls_in_flight_are_one() -> None:
    flights = SingleFlight()
    gate = threading.Event()
    calls = []

    def work() -> int:
        calls.append(1)
        assert gate.wait(DEADLINE_SECONDS)
        return len(calls)

    with ThreadPoolExecutor(20) as pool:
        asking = [pool.submit(flights.do, "key", work) for _ in range(20)]
        eventually(lambda: len(flights._calls) == 1 and len(flights._calls["key"]._condition._waiters) == 19)  # type: ignore[attr-defined]
        gate.set()
        results = [call.result(DEADLINE_SECONDS) for call in asking]
    assert len(calls) == 1
    assert results == [1] * 20
    assert flights.do("key", lambda: 99) == 99


def test_an_error_is_shared_and_forgotten() -> None:
    flights = SingleFlight()

    def fail() -> None:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        flights.do("key", fail)
    assert flights.do("key", lambda: 1) == 1
