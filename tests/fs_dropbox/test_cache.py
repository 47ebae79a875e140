"""What the metadata cache remembers, and what it refuses to."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from fs_dropbox.cache import ABSENT, MetadataCache
from fs_dropbox.entries import DeletedEntry, FileEntry, FolderEntry
from fs_dropbox.single_flight import SingleFlight
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


def test_what_was_asked_for_before_the_feed_follows_expires_by_age() -> None:
    clock = Clock()
    cache = MetadataCache(ttl_seconds=30, now=clock)
    cache.put(file("/a"), cache.epoch())
    early = cache.epoch()
    cache.follow()
    cache.trust(True)
    cache.put(file("/b"), early)
    cache.put(file("/c"), cache.epoch())
    assert cache.get("/a") == file("/a")
    clock.now += 31
    assert cache.get("/a") is None
    assert cache.get("/b") is None
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
    with cache.hold("/a"):
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
