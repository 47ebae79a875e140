"""A change feed over a journal that the test writes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fs_dropbox.metadata import changes
from fs_dropbox.metadata.cache import MetadataCache
from fs_dropbox.metadata.changes import ChangeFeed
from tests.fs_dropbox.metadata.told_changes import Journal
from tests.waiting import eventually


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed rests for next to no time."""
    monkeypatch.setattr(changes, "PAUSES_SECONDS", (0.02, 0.02))
    monkeypatch.setattr(changes, "REST_SECONDS", 0.0)


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def feed(quick: None, journal: Journal, cache: MetadataCache) -> Iterator[ChangeFeed]:
    feed = ChangeFeed(journal, cache)
    feed.start()
    eventually(lambda: feed.is_live)
    yield feed
    feed.stop()
