"""The change feed over a journal that fails: what it goes on from, and what it says."""

from __future__ import annotations

import logging

import pytest

from fs_dropbox.api.client import Page
from fs_dropbox.entries import Entry
from fs_dropbox.errors import ApiError, AuthError, TransportError
from fs_dropbox.metadata import changes
from fs_dropbox.metadata.cache import MetadataCache
from fs_dropbox.metadata.changes import ChangeFeed
from tests.fs_dropbox.metadata.cached import file
from tests.fs_dropbox.metadata.told_changes import Journal
from tests.waiting import DEADLINE_SECONDS, eventually

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def cache() -> MetadataCache:
    return MetadataCache(ttl_seconds=1000.0)


@pytest.mark.parametrize(
    "error",
    [
        TransportError("reset"),
        TransportError("server"),
        ApiError("files/list_folder/longpoll", ("too_many_requests",), status=429),
        AuthError("files/list_folder/continue", ("expired_access_token",)),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", ["longpoll", "continue"])
def test_after_trouble_it_goes_on_from_the_same_cursor(
    journal: Journal,
    cache: MetadataCache,
    feed: ChangeFeed,
    caplog: pytest.LogCaptureFixture,
    call: str,
    error: Exception,
) -> None:
    cache.put(file("/kept"), cache.epoch())
    journal.fail(call, error, error, error)
    journal.add(file("/a"))
    eventually(lambda: cache.get("/a") == file("/a"))
    eventually(lambda: feed.is_live)
    assert journal.cursors_taken == 1
    assert cache.get("/kept") == file("/kept")
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


@pytest.mark.parametrize(
    "error",
    [
        ApiError("files/list_folder/continue", ("reset",)),
        ApiError("files/list_folder/continue", ("path", "not_found")),
        ApiError("files/list_folder/continue", ("something", "new")),
        KeyError("a bug"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("call", ["longpoll", "continue"])
def test_after_a_reset_it_begins_anew(
    journal: Journal, cache: MetadataCache, feed: ChangeFeed, call: str, error: Exception
) -> None:
    batches: list[list[Entry]] = []
    feed.subscribe(lambda entries: batches.append(list(entries)))
    cache.put(file("/forgotten"), cache.epoch())
    journal.fail(call, error)
    journal.add(file("/lost"))
    eventually(lambda: journal.cursors_taken == 2)
    eventually(lambda: feed.is_live)
    assert cache.get("/forgotten") is None
    assert [] in batches
    journal.add(file("/a"))
    eventually(lambda: cache.get("/a") == file("/a"))


def test_resets_without_end_are_told_of_once(
    journal: Journal, feed: ChangeFeed, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where longpolls are never taken, as of some stand-ins, every one of them ends the cursor."""
    monkeypatch.setattr(changes, "PAUSES_SECONDS", (0.01, 0.02, 0.03, 0.04, 0.05))
    pauses: list[float] = []
    wait = feed._stop.wait
    monkeypatch.setattr(feed._stop, "wait", lambda seconds: pauses.append(seconds) or wait(seconds))
    journal.fail("longpoll", *[ApiError("files/list_folder/longpoll", ("bad_request",), status=400)] * 6)
    eventually(lambda: journal.cursors_taken == 7)
    assert pauses == [0.0, 0.01, 0.02, 0.03, 0.04, 0.04]
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_a_cursor_that_cannot_be_had_is_asked_for_again(journal: Journal, cache: MetadataCache) -> None:
    journal.fail("latest", TransportError("connect"), ApiError("files/list_folder/get_latest_cursor", ("other",)))
    feed = ChangeFeed(journal, cache)
    feed.start()
    feed.start()
    try:
        eventually(lambda: feed.is_live)
    finally:
        feed.stop()
    assert journal.cursors_taken == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TransportError("connect", "connection refused", host="notify.dropboxapi.com"), "connection refused"),
        (AuthError("files/list_folder/longpoll", ("invalid_access_token",)), "fs-dropbox login"),
        (RuntimeError("a bug"), "a bug"),
    ],
)
def test_a_feed_that_is_down_says_why_until_it_is_back(
    journal: Journal,
    feed: ChangeFeed,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    told: str,
) -> None:
    caplog.set_level("INFO")
    assert feed.problem is None
    monkeypatch.setattr(changes, "PAUSES_SECONDS", (DEADLINE_SECONDS, DEADLINE_SECONDS))
    journal.fail("latest", error)
    journal.fail("longpoll", error)
    eventually(lambda: feed.problem)
    assert told in str(feed.problem)
    assert not feed.is_live
    eventually(lambda: "the change feed" in caplog.text)
    assert "is live" not in caplog.text


def test_a_feed_that_is_back_says_so(journal: Journal, feed: ChangeFeed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    journal.fail("longpoll", TransportError("timeout"))
    eventually(lambda: "the change feed is live" in caplog.text)
    assert feed.is_live
    assert feed.problem is None


def test_each_outage_has_its_warning(
    journal: Journal, cache: MetadataCache, feed: ChangeFeed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for path in ("/a", "/b"):
        caplog.clear()
        journal.fail("longpoll", TransportError("timeout"))
        eventually(lambda: "the change feed is live" in caplog.text)
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        journal.add(file(path))
        eventually(lambda path=path: cache.get(path) == file(path))  # type: ignore[misc]


def test_a_look_that_tells_nothing_is_told_to_nobody(
    journal: Journal, feed: ChangeFeed, caplog: pytest.LogCaptureFixture
) -> None:
    """An empty batch says that anything may have changed."""
    caplog.set_level("INFO")
    told: list[object] = []
    feed.subscribe(told.append)
    journal.fail("longpoll", TransportError("timeout"))  # it then looks at what it may have missed
    eventually(lambda: "the change feed is live" in caplog.text)
    journal.add(file("/a"))
    eventually(lambda: told)
    assert told == [[file("/a")]]


def test_a_feed_that_was_down_is_live_once_it_has_caught_up(journal: Journal, feed: ChangeFeed) -> None:
    live: list[bool] = []
    list_folder_continue = journal.list_folder_continue

    def listed(cursor: str) -> Page:
        live.append(feed.is_live)
        return list_folder_continue(cursor)

    journal.list_folder_continue = listed
    journal.fail("longpoll", TransportError("reset"))
    journal.add(file("/a"))
    eventually(lambda: feed.is_live and live)
    assert not live[0]
