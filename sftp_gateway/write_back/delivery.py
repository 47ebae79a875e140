"""`Delivery`: carries what is pending in a journal to the storage, in order for each path, until it is there."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

from fs import errors
from fs.base import FS

from sftp_gateway.files.stream import PIECE_BYTES
from sftp_gateway.logs import log_event
from sftp_gateway.sftp.status import status_of
from sftp_gateway.write_back.directory_rows import PendingDirectory
from sftp_gateway.write_back.journal import Journal
from sftp_gateway.write_back.journal_rows import Outcome, Outlook, Pending
from sftp_gateway.write_back.refusals import MAX_BACKOFF_SECONDS, is_for_good, pause, tells_of_the_file
from sftp_gateway.write_back.sending import Sender

LANES = 4  # deliveries at once
BULK_FILES = 1000
BULK_BYTES = 64 * 2**20
SMALL_BYTES = 4 * 2**20  # larger files are no part of a bulk
QUIET_SECONDS = 1.0  # without a new file, after which the waiting ones are sent
LOOK_SECONDS = 30.0  # the longest that the delivering process sleeps if nobody wakes it
LOCK_SECONDS = 2.0  # how often the other processes check whether it has died
TIDY_SECONDS = 10.0
DIRECTORIES = 8  # made by one thread, one after the other
LOCK_NAME = "delivery.lock"

_logger = logging.getLogger(__name__)


class Delivery:
    """The threads that deliver one account's files; of several processes, only one delivers.

    Owned by a `WriteBackFS`. Thread-safe. One thread at a time leads: it sleeps until the journal's bell rings or its
    own reckoning says that something is due, chooses what to send, and hands the lead on before sending it. The
    process that delivers holds a lock on a file in the journal's directory; when it dies, another takes over.
    """

    def __init__(self, filesystem: FS, journal: Journal, *, label: str, delay_seconds: float) -> None:
        self._filesystem: Any = filesystem
        self._journal = journal
        self._label = label
        self._delay_seconds = delay_seconds
        self._sender = Sender(filesystem, journal)
        self._forget: Callable[[str], None] = getattr(filesystem, "forget", lambda _path: None)
        self._lock_path = journal.vault.directory / LOCK_NAME
        self._stopping = threading.Event()
        self._leading = threading.Lock()
        # guarded by _leading
        self._lock_descriptor = -1
        self._is_untidy = True
        self._tidied_at = time.monotonic()
        self._lock = threading.Lock()  # a leaf
        # guarded by _lock
        self._bulk_is_under_way = False
        self._trouble = ""
        self._users = 1  # the owner, until it calls `stop`, and the threads
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin to deliver as soon as no other process does. Raises RuntimeError if no thread can be started."""
        for number in range(LANES):
            thread = threading.Thread(target=self._run, name=f"sftp-delivery-{number}", daemon=True)
            with self._lock:
                self._users += 1
            try:
                thread.start()
            except RuntimeError:
                self._leave()
                if not number:
                    raise
                return  # one thread is enough; more are only quicker

    def stop(self, seconds: float) -> bool:
        """Start nothing new, and wait for what is under way; return whether all of it has ended. Idempotent.

        The last to end, however late, closes the journal and lets another delivery take over.
        """
        if not self._stopping.is_set():
            self._stopping.set()
            self._journal.bell.ring(urgent=True)
            self._leave()
        return self._ended.wait(seconds)

    @property
    def is_mine(self) -> bool:
        """Whether it is this process that delivers."""
        return self._lock_descriptor >= 0

    # -- within

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
        if self._lock_descriptor >= 0:
            self._tell_what_is_left()
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1
        self._journal.close()
        self._ended.set()

    def _tell_what_is_left(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # a full disk; the next start tells what waits
            files = self._journal.totals().waiting
            if files:
                reason = "this process ends before they are delivered; the next one goes on"
                log_event("delayed", level=logging.WARNING, user=self._label, files=files, reason=reason)

    def _serve(self) -> None:
        while not self._stopping.is_set():
            with self._leading:  # for as long as there is nothing to do
                work = self._lead()
            if work is None:
                return
            work()
            self._journal.bell.ring(urgent=True)  # later files of the same paths may go now

    def _carry(self, sending: list[Pending]) -> None:
        with self._put_back_by(partial(self._journal.put_back, sending)):
            self._deliver(sending)
        if self._is_bulk(sending[0]):
            with self._lock:
                self._bulk_is_under_way = False

    def _make(self, directories: list[PendingDirectory]) -> None:
        with self._put_back_by(partial(self._journal.directories.put_back, directories)):
            for directory in directories:
                self._make_one(directory)

    def _make_one(self, directory: PendingDirectory) -> None:
        """Make a directory; a failure is recorded and retried, or only logged if a retry is pointless."""
        rows = self._journal.directories
        try:
            self._forget(directory.path)  # another process may have removed what was there
            self._filesystem.makedirs(directory.path, recreate=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is recorded, and retried if that makes sense
            reason = status_of(error)[1]
            if not is_for_good(error, directory.attempts):
                rows.failed(directory.key, reason, time.time() + pause(directory.attempts))
                return
            rows.dropped(directory.key)
            path = directory.path + "/"
            log_event("undeliverable", level=logging.ERROR, user=self._label, path=path, reason=reason)
        else:
            rows.made(directory.path)

    def _lead(self) -> Callable[[], None] | None:
        """Wait until there is something to do, and return it; None at the end."""
        while not self._stopping.is_set():
            try:
                if not self._is_in_charge():
                    self._stopping.wait(LOCK_SECONDS)
                    continue
                chosen, seconds, is_settled = self._choose()
                if chosen and (sending := self._journal.send(chosen)):
                    with self._lock:
                        self._bulk_is_under_way |= self._is_bulk(sending[0])
                    self._is_untidy = True
                    return partial(self._carry, sending)
                if not chosen:
                    now = time.time()
                    rows = self._journal.directories
                    directories, later = rows.due(now, quiet_seconds=self._quiet_seconds, limit=DIRECTORIES)
                    if directories and (making := rows.send(directories)):
                        return partial(self._make, making)
                    seconds = seconds if later is None else min(seconds, later - now)
                    self._journal.bell.wait(min(seconds, self._tidy()), urgent=is_settled)
            except sqlite3.Error as error:
                _logger.error("the journal of %s fails: %s", self._label, error)
                self._journal.bell.wait(MAX_BACKOFF_SECONDS)
            except Exception:
                _logger.exception("what of %s is to be delivered is not known", self._label)
                self._stopping.wait(QUIET_SECONDS)
        return None

    @contextlib.contextmanager
    def _put_back_by(self, note: Callable[[], None]) -> Iterator[None]:
        """After an unexpected error, put back what was being delivered: its outcome is unknown."""
        try:
            yield
        except Exception:
            _logger.exception("whether what was sent for %s arrived is not known", self._label)
            while not self._stopping.wait(QUIET_SECONDS):  # if it is stopping, the next start does it
                with contextlib.suppress(sqlite3.Error):
                    note()
                    return

    @property
    def _quiet_seconds(self) -> float:
        return min(QUIET_SECONDS, self._delay_seconds)

    def _is_in_charge(self) -> bool:
        if self._lock_descriptor >= 0:
            return True
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._journal.bell.listen()  # before the first look: nothing is missed
            self._journal.recover()
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._lock_descriptor = descriptor
        return True

    def _choose(self) -> tuple[list[Pending], float, bool]:
        """Return what to send now; or nothing, how long to wait, and whether new files would make no difference."""
        now = time.time()
        with self._lock:
            passed_over = SMALL_BYTES if self._bulk_is_under_way else -1
        outlook = self._journal.outlook(now, passed_over)
        seconds = self._worth_waiting(outlook, now)
        if seconds > 0:
            return [], min(seconds, LOOK_SECONDS), True
        due = self._journal.due(now, passed_over, limit=BULK_FILES) if outlook.count else []
        if not due:
            until = now + LOOK_SECONDS if outlook.retry is None else min(now + LOOK_SECONDS, outlook.retry)
            return [], until - now, False
        if not self._is_bulk(due[0]):
            return due[:1], 0.0, False
        small = [pending for pending in due if pending.size <= SMALL_BYTES]
        sizes = itertools.accumulate(pending.size for pending in small)
        return [pending for pending, size in zip(small, sizes, strict=True) if size <= BULK_BYTES], 0.0, False

    def _is_bulk(self, first: Pending) -> bool:
        return self._sender.has_staging and first.size <= SMALL_BYTES

    def _worth_waiting(self, outlook: Outlook, now: float) -> float:
        """Return for how many more seconds to wait for files that could go along."""
        if not outlook.count or outlook.is_hurried or outlook.attempts:  # these have waited
            return 0.0
        if outlook.count >= BULK_FILES or outlook.size >= BULK_BYTES:
            return 0.0
        quiet = outlook.latest + self._quiet_seconds
        seconds = min(quiet, outlook.oldest + self._delay_seconds) - now
        return seconds if seconds <= self._delay_seconds else 0.0  # the clock was ahead when they were acknowledged

    def _deliver(self, sending: list[Pending]) -> None:
        started = time.monotonic()
        outcomes = []
        whole = []
        for pending in sending:
            if pending.staged is not None or self._journal.is_whole(pending):
                whole.append(pending)
            else:
                outcomes.append(Outcome(pending.id, "its copy on the gateway's disk is damaged", permanent=True))
        outcomes += [self._outcome(pending, error) for pending, error in self._sender.send(whole)]
        self._journal.settle(outcomes)
        self._report(sending, outcomes, time.monotonic() - started)

    def _outcome(self, pending: Pending, error: Exception | None) -> Outcome:
        """Decide what an error means: done all the same, to be tried again, or refused for good."""
        if error is None:
            return Outcome(pending.id)
        reason = status_of(error)[1]
        permanent = is_for_good(error, pending.attempts)
        if pending.mode != "replace" and tells_of_the_file(error):
            there = self._what_is_there(pending)
            if there == "ours":  # it had arrived before, and only nobody knew
                return Outcome(pending.id)
            permanent = permanent or there == "another"
        return Outcome(pending.id, reason, permanent, time.time() + pause(pending.attempts))

    def _what_is_there(self, pending: Pending) -> str:
        """Compare what the storage has with what was to be stored: "ours", "another" version, "" if nobody knows."""
        try:
            with contextlib.closing(self._filesystem.openbin(pending.path, "r")) as there:
                if pending.expected is not None and there.version == pending.expected:
                    return ""
                with self._journal.open(pending) as ours:
                    return "ours" if same_content(there, ours) else "another"
        except errors.ResourceNotFound:
            return "another" if pending.mode == "update" else ""
        except (errors.FSError, OSError):
            return ""

    def _report(self, sending: list[Pending], outcomes: list[Outcome], seconds: float) -> None:
        by_id = {pending.id: pending for pending in sending}
        arrived = [by_id[outcome.id] for outcome in outcomes if not outcome.reason]
        if arrived:
            size = sum(pending.size for pending in arrived)
            log_event("delivered", user=self._label, files=len(arrived), bytes=size, seconds=round(seconds, 3))
        for outcome in outcomes:
            if outcome.permanent:
                pending = by_id[outcome.id]
                log_event(
                    "undeliverable",
                    level=logging.ERROR,
                    user=self._label,
                    path=pending.path,
                    bytes=pending.size,
                    id=pending.id,
                    reason=outcome.reason,
                )
        delayed = [outcome for outcome in outcomes if outcome.reason and not outcome.permanent]
        trouble = delayed[0].reason if delayed else ""
        with self._lock:
            is_news, self._trouble = bool(trouble) and trouble != self._trouble, trouble
        if is_news:
            log_event("delayed", level=logging.WARNING, user=self._label, files=len(delayed), reason=trouble)

    def _tidy(self) -> float:
        """Keep the journal's file small, now and then; return the seconds until that is due again."""
        if not self._is_untidy:
            return LOOK_SECONDS
        left = self._tidied_at + TIDY_SECONDS - time.monotonic()
        if left > 0:
            return left
        self._tidied_at, self._is_untidy = time.monotonic(), False
        self._journal.tidy()
        return LOOK_SECONDS


def same_content(one: Any, other: Any) -> bool:
    """Tell whether two open files hold the same bytes."""
    while True:
        piece = cast(bytes, one.read(PIECE_BYTES))
        while len(piece) < PIECE_BYTES and (more := one.read(PIECE_BYTES - len(piece))):
            piece += more
        if piece != other.read(len(piece) or 1):
            return False
        if not piece:
            return True
