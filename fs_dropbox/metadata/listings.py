"""`Listings`: listings under way, page by page, each asked for once for all who read it. Knows no paths, no cache."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar
from weakref import WeakValueDictionary

from fs_dropbox.errors import TransportError

T = TypeVar("T")

JOIN_SECONDS: Final = 10.0  # who comes later gets a listing of its own: the first page of this one is old
WAIT_SECONDS: Final = 300.0  # above every deadline of a call: a bound, not a policy


class SharedListing(Generic[T]):
    """The pages of one listing. Thread-safe: one condition, a leaf; pages are fetched unlocked.

    Whoever needs a page first fetches it, the others wait for it; when nobody reads on, nothing more is fetched.
    """

    def __init__(self, pages: Iterator[list[T]], began: float) -> None:
        self.began = began
        self._source = pages  # advanced by one thread at a time
        self._changed = threading.Condition()
        # guarded by _changed
        self._pages: list[list[T]] = []
        self._is_fetching = False
        self._end: Exception | None = None  # StopIteration after the last page, else what went wrong

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come."""
        with self._changed:
            return self._end is not None

    def __iter__(self) -> Iterator[list[T]]:
        """Yield the pages from the first one; raises what fetching one raised, TimeoutError after the bound."""
        at = 0
        while (page := self._page(at)) is not None:
            yield page
            at += 1

    def _page(self, at: int) -> list[T] | None:
        with self._changed:
            while True:
                if at < len(self._pages):
                    return self._pages[at]
                if isinstance(self._end, StopIteration):
                    return None
                if self._end is not None:
                    raise self._end
                if not self._is_fetching:
                    self._is_fetching = True
                    break
                if not self._changed.wait(WAIT_SECONDS):
                    raise TimeoutError(f"no answer within {WAIT_SECONDS:g} s")
        return self._fetch()

    def _fetch(self) -> list[T] | None:
        page: list[T] | None = None
        end: Exception | None = None
        try:
            page = next(self._source)
        except StopIteration as error:
            end = error
        except BaseException as error:
            end = error if isinstance(error, Exception) else TransportError("interrupted")
            raise
        finally:
            with self._changed:
                self._is_fetching = False
                self._end = end
                if page is not None:
                    self._pages.append(page)
                self._changed.notify_all()
        return page


class Listings(Generic[T]):
    """Finds the listing under way that somebody else has begun. Thread-safe: one lock; owned by the Catalog.

    Listings are kept by those who read them.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._under_way: WeakValueDictionary[object, SharedListing[T]] = WeakValueDictionary()  # guarded by _lock

    def join(self, key: object, begin: Callable[[], Iterator[list[T]]]) -> SharedListing[T]:
        """Return the listing with an equal key that has begun just now and goes on, else a new one of `begin()`."""
        with self._lock:
            listing = self._under_way.get(key)
            if listing is None or listing.has_ended or self._now() - listing.began > JOIN_SECONDS:
                listing = self._under_way[key] = SharedListing(begin(), self._now())
            return listing
