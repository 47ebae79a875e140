"""The change feed over a journal that the test writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from fs_dropbox.api.client import Longpoll, Page
from fs_dropbox.entries import DeletedEntry, FileEntry, FolderEntry
from fs_dropbox.metadata import changes
from fs_dropbox.metadata.cache import MetadataCache
from fs_dropbox.metadata.changes import ChangeFeed
from fs_dropbox.metadata.known import ABSENT
from tests.fs_dropbox.metadata.cached import Clock, file
from tests.fs_dropbox.metadata.told_changes import Journal
from tests.waiting import DEADLINE_SECONDS, eventually

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def cache() -> MetadataCache:
    return MetadataCache(ttl_seconds=1000.0)


def test_what_is_outdated_again_before_it_is_live_is_not_waited_for(journal: Journal, cache: MetadataCache) -> None:
    """The interruption comes while the feed waits for nothing yet."""
    feed = ChangeFeed(journal, cache)
    latest_cursor = journal.latest_cursor
    trust, trusted = cache.trust, []  # with how many cursors it was live

    def trust_and_note(live: bool) -> None:
        if live:
            trusted.append(journal.cursors_taken)
        trust(live)

    cache.trust = trust_and_note

    def latest_and_outdated(path: str) -> str:
        journal.latest_cursor = latest_cursor
        feed.renew()
        return latest_cursor(path)

    journal.latest_cursor = latest_and_outdated
    feed.start()
    try:
        eventually(lambda: feed.is_live)
        assert journal.cursors_taken == 2
        assert trusted == [2], "what the first cursor follows is no longer ours"
    finally:
        feed.stop()


def test_what_is_outdated_while_it_goes_live_is_not_live(journal: Journal, cache: MetadataCache) -> None:
    feed = ChangeFeed(journal, cache)
    latest_cursor, trust = journal.latest_cursor, cache.trust
    goes_live, may_go_live, begins_anew, may_begin_anew = (threading.Event() for _ in range(4))

    def trust_slowly(live: bool) -> None:
        if live:
            goes_live.set()
            may_go_live.wait(DEADLINE_SECONDS)
        trust(live)

    def latest_slowly(path: str) -> str:
        if goes_live.is_set():
            begins_anew.set()
            may_begin_anew.wait(DEADLINE_SECONDS)
        return latest_cursor(path)

    cache.trust = trust_slowly
    journal.latest_cursor = latest_slowly
    feed.start()
    try:
        goes_live.wait(DEADLINE_SECONDS)
        renewing = threading.Thread(target=feed.renew)
        renewing.start()
        renewing.join(0.2)  # it waits for the feed, or is over long before
        may_go_live.set()
        renewing.join(DEADLINE_SECONDS)
        assert begins_anew.wait(DEADLINE_SECONDS)
        assert not feed.is_live
        may_begin_anew.set()
        eventually(lambda: feed.is_live)
    finally:
        may_begin_anew.set()
        feed.stop()


def test_changes_reach_the_cache_in_order_over_all_pages(
    journal: Journal, cache: MetadataCache, feed: ChangeFeed
) -> None:
    journal.add(file("/a"), file("/b"), DeletedEntry("a", "/a", "/a"), file("/b", "2222222222"), file("/c"))
    eventually(lambda: cache.get("/c") == file("/c"))
    assert cache.get("/a") is ABSENT
    assert cache.get("/b") == file("/b", "2222222222")


def test_later_pages_from_before_an_own_change_do_not_undo_it(
    journal: Journal, cache: MetadataCache, feed: ChangeFeed
) -> None:
    """They may be as old as the first."""
    removed = DeletedEntry("b", "/b", "/b")
    feed.subscribe(lambda entries: cache.apply(removed) if entries[0] == file("/a") else None)
    journal.add(file("/a"), file("/b"), file("/b", "2222222222"), file("/c"), file("/a", "3333333333"), file("/d"))
    eventually(lambda: cache.get("/d") == file("/d"))
    assert cache.get("/b") is None  # nobody knows which was first
    assert cache.get("/a") == file("/a", "3333333333")
    assert cache.get("/c") == file("/c")


def test_later_pages_from_before_an_own_removal_bring_nothing_below_it_back(
    journal: Journal, cache: MetadataCache, feed: ChangeFeed
) -> None:
    removed = DeletedEntry("folder", "/folder", "/folder")
    feed.subscribe(lambda entries: cache.apply(removed) if entries[0] == file("/a") else None)
    journal.add(file("/a"), file("/b"), file("/folder/in it"), file("/c"))
    eventually(lambda: cache.get("/c") == file("/c"))
    assert cache.get("/folder/in it") is None  # nobody knows which was first


def test_pages_that_tell_of_a_folder_first_do_not_undo_an_own_removal_in_it(
    journal: Journal, cache: MetadataCache, feed: ChangeFeed
) -> None:
    removed = DeletedEntry("sub", "/folder/mid/sub", "/folder/mid/sub")
    feed.subscribe(lambda entries: cache.apply(removed) if entries[0] == file("/a") else None)
    folders = [FolderEntry(path.rpartition("/")[2], path, path, path) for path in ("/folder", "/folder/mid/sub")]
    journal.add(file("/a"), file("/b"), *folders, file("/folder/mid/sub/in it"), file("/c"))
    eventually(lambda: cache.get("/c") == file("/c"))
    assert cache.get("/folder") == folders[0]
    assert cache.get("/folder/mid/sub") is None  # nobody knows which was first
    assert cache.get("/folder/mid/sub/in it") is None


def test_what_replaces_a_removed_folder_is_known(journal: Journal, cache: MetadataCache, feed: ChangeFeed) -> None:
    gone = DeletedEntry("folder", "/folder", "/folder")
    journal.add(file("/folder/old"), gone, file("/folder/new"), file("/c"))
    eventually(lambda: cache.get("/c") == file("/c"))
    assert cache.get("/folder/new") == file("/folder/new")
    assert cache.get("/folder") is not ABSENT


def test_a_feed_that_was_never_started_costs_nothing(journal: Journal, cache: MetadataCache) -> None:
    feed = ChangeFeed(journal, cache)
    assert not feed.is_live
    feed.stop()
    feed.start()
    assert journal.cursors_taken == 0
    assert not feed.is_live


def test_stop_is_quick_and_ends_the_trust(journal: Journal) -> None:
    cache = MetadataCache(ttl_seconds=-1.0)
    feed = ChangeFeed(journal, cache)
    feed.start()
    eventually(lambda: feed.is_live)
    cache.put(file("/a"), cache.epoch())
    assert cache.get("/a") == file("/a")
    started = time.monotonic()
    feed.stop()
    feed.stop()
    assert time.monotonic() - started < 10.0
    assert journal.interrupted.is_set()
    assert not feed.is_live
    assert cache.get("/a") is None


def test_backoff_without_end_is_no_failure(
    journal: Journal, feed: ChangeFeed, caplog: pytest.LogCaptureFixture
) -> None:
    """Python cannot even wait for ever; the feed would lose its cursor, and the cache all that it knows."""
    journal.backoff_seconds = float("inf")
    journal.add(file("/a"))
    eventually(lambda: journal.looks)
    feed.stop()
    assert (journal.cursors_taken, feed.problem, caplog.messages) == (1, None, [])


def test_backoff_is_honoured(journal: Journal, cache: MetadataCache, feed: ChangeFeed) -> None:
    journal.backoff_seconds = 0.3
    journal.add(file("/a"))
    eventually(lambda: cache.get("/a") == file("/a"))
    journal.add(file("/b"))
    eventually(lambda: cache.get("/b") == file("/b"))
    assert journal.polls[-1] - journal.polls[-2] >= 0.3


def test_own_changes_do_not_wake_it_more_than_its_rest_allows(
    journal: Journal, cache: MetadataCache, feed: ChangeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "REST_SECONDS", 0.3)
    before, began = len(journal.polls), time.monotonic()
    for number in range(20):
        journal.add(file(f"/{number}"))
        time.sleep(0.01)
    eventually(lambda: cache.get("/19") == file("/19"))
    assert len(journal.polls) - before <= 3 + (time.monotonic() - began) / 0.3


def test_it_rests_longer_after_own_changes_alone(
    journal: Journal, cache: MetadataCache, feed: ChangeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "REST_SECONDS", 0.4)

    def seconds_between_looks(first: FileEntry, second: FileEntry) -> float:
        for entry in (first, second):
            polls = len(journal.polls)
            journal.add(entry)
            eventually(lambda polls=polls: len(journal.polls) > polls)  # type: ignore[misc]
        return journal.polls[-1] - journal.polls[-2]

    for name in ("/own", "/own too"):
        cache.apply(file(name))
    seconds_between_looks(file("/foreign"), file("/and another"))
    assert seconds_between_looks(file("/own"), file("/own too")) >= 1.15
    foreign = (seconds_between_looks(file(f"/{number}"), file(f"/{number}'")) for number in range(10))
    assert any(0.35 <= seconds < 1.15 for seconds in foreign)  # a busy machine makes some of them longer
    newer = (seconds_between_looks(file("/own", f"{number}"), file("/own", f"{number}'")) for number in range(10))
    assert any(0.35 <= seconds < 1.15 for seconds in newer)


def test_a_subscriber_that_wants_to_exit_does_not_end_the_feed(
    journal: Journal, cache: MetadataCache, feed: ChangeFeed, caplog: pytest.LogCaptureFixture
) -> None:
    def leave(entries: object) -> None:
        raise SystemExit

    feed.subscribe(leave)
    for path in ("/a", "/b"):
        journal.add(file(path))
        eventually(lambda path=path: cache.get(path) == file(path))  # type: ignore[misc]
    assert feed.is_live
    assert "a subscriber of the change feed failed" in caplog.text


def test_only_what_was_asked_for_since_the_cursor_is_followed(journal: Journal) -> None:
    """What has changed before the cursor was taken, the feed never tells."""
    cache = MetadataCache(ttl_seconds=-1.0)
    feed = ChangeFeed(journal, cache)
    latest_cursor = journal.latest_cursor
    cache.put(file("/before"), cache.epoch())

    def latest(path: str) -> str:
        cache.put(file("/while"), cache.epoch())
        return latest_cursor(path)

    journal.latest_cursor = latest
    feed.start()
    try:
        eventually(lambda: feed.is_live)
        cache.put(file("/since"), cache.epoch())
        assert [cache.get(key) for key in ("/before", "/while", "/since")] == [None, None, file("/since")]
    finally:
        feed.stop()


def test_a_tree_that_is_no_longer_ours_is_followed_no_longer(
    journal: Journal, cache: MetadataCache, feed: ChangeFeed
) -> None:
    cache.put(file("/theirs"), cache.epoch())
    looks = journal.looks
    feed.renew()
    assert journal.interrupted.is_set(), "it waits for what happens in the old one"
    assert cache.get("/theirs") is None
    eventually(lambda: feed.is_live)
    assert journal.cursors_taken == 2
    assert journal.looks == looks, "nothing of the old one is heard any more"


def test_a_page_that_was_asked_for_before_an_own_change_does_not_undo_it(
    journal: Journal, cache: MetadataCache, feed: ChangeFeed
) -> None:
    list_folder_continue = journal.list_folder_continue

    def listed(cursor: str) -> Page:
        page = list_folder_continue(cursor)
        cache.apply(file("/a", "2222222222"), since=cache.epoch())
        return page

    journal.list_folder_continue = listed
    journal.add(file("/a"), file("/b"))
    eventually(lambda: cache.get("/b") == file("/b"))
    assert cache.get("/a") is None, "nobody knows which of the two was first"


def test_a_stand_in_that_does_not_wait_is_asked_seldom(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "REST_SECONDS", 0.2)

    def longpoll(cursor: str, timeout_seconds: int, is_over: Callable[[], bool]) -> Longpoll:
        journal.polls.append(time.monotonic())
        return Longpoll(False, 0.0)

    journal.longpoll = longpoll
    feed = ChangeFeed(journal, MetadataCache())
    feed.start()
    try:
        eventually(lambda: len(journal.polls) >= 4)
    finally:
        feed.stop()
    assert journal.polls[3] - journal.polls[0] > 0.5


def test_after_the_sleep_of_a_machine_the_feed_is_not_trusted_until_it_is_heard_of(journal: Journal) -> None:
    """The connection of its longpoll is dead then, which takes minutes to be noticed."""
    clock = Clock()
    cache = MetadataCache(now=clock)
    feed = ChangeFeed(journal, cache)
    feed.start()
    try:
        eventually(lambda: feed.is_live and journal.polls)
        cache.put(file("/a"), cache.epoch())
        clock.now += 3600
        assert not feed.is_live
        assert cache.get("/a") is None
        journal.add(file("/a", "2222222222"))
        eventually(lambda: feed.is_live)
        assert cache.get("/a") == file("/a", "2222222222")
    finally:
        feed.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_feed_that_ends_does_not_seem_to_be_live(journal: Journal, feed: ChangeFeed) -> None:
    journal.fail("longpoll", GeneratorExit())  # type: ignore[arg-type]
    eventually(lambda: not feed.is_live)
