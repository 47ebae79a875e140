"""`ChangeFeed`: follows the account's journal by longpoll and keeps the cache right. Knows nothing of files."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from fs_dropbox.api.results import Longpoll, Page
from fs_dropbox.api.retry import LONGEST_FREEZE_SECONDS
from fs_dropbox.entries import Entry
from fs_dropbox.errors import ApiError, AuthError, DropboxError, TransportError, reason
from fs_dropbox.metadata.cache import MetadataCache
from fs_dropbox.metadata.known import says_same

LONGPOLL_SECONDS: Final = 30  # the least that Dropbox takes; it adds up to 90 s of its own
PAUSES_SECONDS: Final = (1.0, 2.0, 5.0, 15.0, 60.0)  # after failures in a row
REST_SECONDS: Final = 1.0  # between two looks at the journal: every own change ends the longpoll, too
HASTE_SECONDS: Final = 1.0  # of a longpoll's time: clocks differ, and rounding does
OWN_RESTS: Final = 3  # of these after a look that told of own changes alone
STOP_SECONDS: Final = 2.0

_logger = logging.getLogger(__name__)

Subscriber = Callable[[Sequence[Entry]], None]


class FeedClient(Protocol):
    """The calls that the feed needs."""

    def latest_cursor(self, path: str) -> str: ...

    def list_folder_continue(self, cursor: str) -> Page: ...

    def longpoll(self, cursor: str, timeout_seconds: int, is_over: Callable[[], bool]) -> Longpoll: ...

    def interrupt(self, thread_id: int | None) -> None: ...


class ChangeFeed:
    """One thread that applies foreign changes to the cache within seconds. Owned by DropboxFS.

    Only its thread touches the cursor. While `is_live`, the cache trusts what was asked for since the cursor was taken:
    every change since is applied. `stop()` interrupts the longpoll and is idempotent; a feed is started once.
    """

    def __init__(self, client: FeedClient, cache: MetadataCache) -> None:
        self._client = client
        self._cache = cache
        self._stop = threading.Event()
        self._is_outdated = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # also around going live or not, which takes the cache's
        self._subscribers: list[Subscriber] = []  # guarded by _lock
        self._problem: str | None = None  # replaced by the feed's thread, and by who cannot start it
        # of the feed's thread
        self._cursor: str | None = None
        self._has_lost_changes = False
        self._looked_at = -REST_SECONDS
        self._rests = 1

    @property
    def is_live(self) -> bool:
        """Whether every foreign change up to a longpoll cycle ago has been applied."""
        return self._cache.is_trusting

    @property
    def problem(self) -> str | None:
        """Why the feed is down, in words for people; None while it is not."""
        return self._problem

    def start(self) -> None:
        """Start the thread, once; later calls do nothing. Where the system has no thread left, the next call tries."""
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                thread = threading.Thread(target=self._run, name="fs-dropbox-changes", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    self._problem = str(error)
                else:
                    self._thread = thread

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stop.set()
        self._set_live(False)
        with self._lock:
            thread = self._thread
        deadline = time.monotonic() + STOP_SECONDS
        while thread not in (None, threading.current_thread()) and thread.is_alive() and time.monotonic() < deadline:
            self._client.interrupt(thread.ident)  # again and again: it may be on its way into the call
            thread.join(0.05)

    def renew(self) -> None:
        """Forget everything and begin anew: the cursor is of a tree that is no longer ours. Waits for nothing."""
        self._is_outdated.set()
        self._set_live(False)
        self._cache.clear()
        with self._lock:
            thread = self._thread
        if thread not in (None, threading.current_thread()):
            self._client.interrupt(thread.ident)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` in the feed's thread with each batch of changes, in order; return what ends that.

        A rename is a deletion and an addition. Own changes come too. What happened while the feed was not live may
        come late, or never when Dropbox has reset the cursor: then an empty batch says that anything may have changed.
        """
        with self._lock:
            self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            with self._lock:
                if subscriber in self._subscribers:
                    self._subscribers.remove(subscriber)

        return unsubscribe

    def _run(self) -> None:
        try:
            self._follow_for_ever()
        finally:  # a feed that has ended, by whatever is no Exception, must not seem to be live
            self._set_live(False)

    def _follow_for_ever(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                self._follow()
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it is: the feed goes on
                self._set_live(False)
                if self._stop.is_set():
                    return
                if self._is_outdated.is_set():
                    continue
                self._problem = reason(error) if isinstance(error, DropboxError) else repr(error)
                self._stop.wait(self._note_failure(error, failures))
                failures = min(failures + 1, len(PAUSES_SECONDS) - 1)

    def _note_failure(self, error: Exception, failures: int) -> float:
        """Log a failure, and return the pause that it calls for."""
        level = logging.DEBUG if failures else logging.WARNING
        if _keeps_cursor(error) or self._cursor is None:
            _logger.log(level, "the change feed is down (%s); metadata expires by age until it is back", error)
            return PAUSES_SECONDS[failures]
        self._cursor = None
        self._has_lost_changes = True
        if isinstance(error, ApiError):
            _logger.log(level, "Dropbox has reset the change feed (%s); metadata is asked for anew", error)
        else:
            _logger.error("the change feed has failed; it begins anew", exc_info=error)
        return PAUSES_SECONDS[failures - 1] if failures else 0.0

    def _follow(self) -> None:
        """Go live, then poll and apply once."""
        if self._is_outdated.is_set():
            self._is_outdated.clear()
            self._cursor = None
            self._has_lost_changes = True
        if self._cursor is None:
            self._cursor = self._client.latest_cursor("")
            if self._has_lost_changes:
                self._has_lost_changes = False
                self._cache.clear()
                self._notify(())
            self._cache.follow()
            self._set_live(True)
        elif not self.is_live:
            self._drain()
            self._set_live(True)
        asked_at = time.monotonic()
        poll = self._client.longpoll(self._cursor, LONGPOLL_SECONDS, self._is_over)
        # Dropbox says that there is nothing new once the time is over; a stand-in that does so before has not waited.
        is_hasty = time.monotonic() < asked_at + LONGPOLL_SECONDS - HASTE_SECONDS and not self._is_outdated.is_set()
        rest = self._looked_at + self._rests * REST_SECONDS - time.monotonic()
        if (poll.changes or is_hasty) and not self._stop.wait(max(0.0, rest)):
            self._looked_at = time.monotonic()
            self._rests = 1 if self._drain() else OWN_RESTS
        self._set_live(True)  # once more, for as long as the next longpoll may take
        if poll.backoff_seconds:
            self._stop.wait(min(poll.backoff_seconds, LONGEST_FREEZE_SECONDS))

    def _is_over(self) -> bool:
        """Tell whether nobody waits any more for what is new after the cursor."""
        return self._stop.is_set() or self._is_outdated.is_set()

    def _set_live(self, live: bool) -> None:
        with self._lock:  # whoever stops or outdates the feed has the last word
            live = live and not self._is_over()
            if live and not self.is_live:
                _logger.log(logging.INFO if self._problem else logging.DEBUG, "the change feed is live")
                self._problem = None
            self._cache.trust(live)

    def _drain(self) -> bool:
        """Apply all that happened since the cursor; tell whether anything of it was news.

        Later pages may be as old as the first: own changes that are newer than the request for that one are in no known
        order with what they tell.
        """
        has_more, is_news = True, False
        asked_at = self._cache.epoch()
        while has_more and not self._stop.is_set() and self._cursor is not None:
            page = self._client.list_folder_continue(self._cursor)
            is_news = is_news or not all(says_same(self._cache.get(entry.path_lower), entry) for entry in page.entries)
            self._cache.hear(page.entries, asked_at, has_more=page.has_more)
            self._cursor = page.cursor
            if page.entries:  # an empty batch says that anything may have changed
                self._notify(page.entries)
            has_more = page.has_more
        return is_news

    def _notify(self, entries: Sequence[Entry]) -> None:
        with self._lock:
            subscribers = list(self._subscribers)
        for subscriber in subscribers:
            try:
                subscriber(entries)
            except (Exception, SystemExit):  # the latter would end this thread without a word
                _logger.exception("a subscriber of the change feed failed")


def _keeps_cursor(error: Exception) -> bool:
    """Tell whether the journal can be followed on from the same place, once whatever is wrong is over."""
    if isinstance(error, ApiError):  # `reset`, and answers that are new to us, end a cursor
        return error.is_transient or isinstance(error, AuthError)
    return isinstance(error, TransportError)
