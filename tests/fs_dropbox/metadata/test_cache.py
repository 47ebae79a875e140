"""What the metadata cache remembers, and what it refuses to."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from fs_dropbox.entries import Entry
from fs_dropbox.metadata.cache import TRUSTED_SECONDS, UNFOLLOWED_SECONDS, MetadataCache
from fs_dropbox.metadata.known import ABSENT
from tests.fs_dropbox.metadata.cached import Clock, file, folder, followed_cache, gone
from tests.waiting import DEADLINE_SECONDS, eventually


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
    cache.trust(True)
    assert cache.get("/a") == file("/a")
    cache.trust(False)
    assert cache.get("/a") is None
    assert cache.listing("/d") is None


def test_a_feed_of_which_nothing_is_heard_is_not_trusted_for_long() -> None:
    clock = Clock()
    cache = followed_cache(ttl_seconds=30, now=clock)
    cache.put(file("/a"), cache.epoch())
    clock.now += TRUSTED_SECONDS - 1
    assert cache.get("/a") == file("/a")
    clock.now += 1
    assert cache.get("/a") is None


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
    cache.trust(True)
    assert cache.get("/c") == file("/c")


def test_nothing_is_believed_with_a_negative_age() -> None:
    cache = MetadataCache(ttl_seconds=-1)
    cache.put(file("/a"), cache.epoch())
    cache.put_listing("/d", [], cache.epoch())
    assert cache.get("/a") is None
    assert cache.listing("/d") is None


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


def test_what_is_believed_by_its_age_alone_is_doubted() -> None:
    for cache, believed in ((MetadataCache(), False), (followed_cache(), True)):
        cache.put(file("/a"), cache.epoch())
        cache.put_listing("/d", [file("/d/b"), file("/d/c")], cache.epoch())
        for path in ("/a", "/d/b"):
            cache.doubt(path)
        assert [cache.get(path) is not None for path in ("/a", "/d/b")] == [believed, believed]
        assert (cache.listing("/d") is not None) == believed


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
    cache.trust(True)
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


def test_what_is_gone_makes_room_for_others() -> None:
    cache = followed_cache(max_entries=100)
    cache.put_listing("/emptied", [file(f"/emptied/{number}") for number in range(60)], cache.epoch())
    for number in range(60):
        cache.apply(gone(f"/emptied/{number}"))
    cache.put_listing("/new", [file(f"/new/{number}") for number in range(60)], cache.epoch())
    assert cache.listing("/emptied") == []
    assert len(cache.listing("/new") or ()) == 60
