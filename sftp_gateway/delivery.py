"""`Delivery`: carries the pending files of a journal to the storage, in order for each path, until they are there."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

from fs import errors
from fs.base import FS
from fs.path import dirname

from sftp_gateway.journal import Journal, Outcome, Pending
from sftp_gateway.logs import log_event
from sftp_gateway.status import status_of
from sftp_gateway.stream import abort

LANES = 4  # deliveries at once
BULK_FILES = 1000
BULK_BYTES = 64 * 2**20
SMALL_BYTES = 4 * 2**20  # larger files are no part of a bulk
QUIET_SECONDS = 1.0  # without a new file, after which what is there is sent
LOOK_SECONDS = 0.25  # how often the process that delivers looks for new files
LOCK_SECONDS = 1.0  # how often another looks whether that one is gone
TIDY_SECONDS = 10.0
MAX_BACKOFF_SECONDS = 300.0
MAX_ATTEMPTS = 20  # for what the storage refuses without saying that it is for good
PIECE_BYTES = 2**20
LOCK_NAME = "delivery.lock"

_logger = logging.getLogger(__name__)

# What no repetition changes; everything else may pass.
_FOR_GOOD = (
    errors.InvalidPath,
    errors.FileExpected,
    errors.DirectoryExpected,
    errors.FileExists,
    errors.DirectoryExists,
    errors.DestinationExists,
    errors.Unsupported,
    errors.ResourceReadOnly,
    errors.IllegalBackReference,
)
# What passes by itself or is put right by people, after however long a time.
_PASSING = (
    errors.PermissionDenied,
    errors.InsufficientStorage,
    errors.RemoteConnectionError,
    errors.OperationTimeout,
    errors.ResourceLocked,
    errors.FilesystemClosed,
)


class Delivery:
    """The threads that deliver one account's files; of several processes, those of one are at work.

    Owned by a `WriteBackFS`. Thread-safe: one lock, held over the journal while a thread chooses what to send, and one
    condition, a leaf, on which the threads sleep. The process that delivers holds a lock on a file in the journal's
    folder; when it dies, another takes that over.
    """

    def __init__(
        self,
        filesystem: FS,
        journal: Journal,
        *,
        label: str,
        delay_seconds: float,
        on_delivered: Callable[[list[Pending]], None],
    ) -> None:
        self._filesystem: Any = filesystem
        self._journal = journal
        self._label = label
        self._delay_seconds = delay_seconds
        self._on_delivered = on_delivered
        self._has_bulk = bool(filesystem.getmeta().get("bulk_uploads")) and hasattr(filesystem, "upload_files")
        self._lock_path = journal.vault.folder / LOCK_NAME
        self._condition = threading.Condition()
        self._stopping = False  # guarded by _condition
        self._choosing = threading.Lock()
        # guarded by _choosing
        self._lock_descriptor = -1
        self._bulk_is_under_way = False
        self._trouble = ""
        self._tidied_at = time.monotonic()
        self._threads = [
            threading.Thread(target=self._serve, name=f"sftp-delivery-{number}", daemon=True) for number in range(LANES)
        ]

    def start(self) -> None:
        """Begin to deliver, as soon as no other process does."""
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> bool:
        """Begin nothing more, and wait for what is under way; tell whether all has ended. Idempotent."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        ended = not any(thread.is_alive() for thread in self._threads)
        with self._choosing:
            if ended and self._lock_descriptor >= 0:
                os.close(self._lock_descriptor)
                self._lock_descriptor = -1
        return ended

    def wake(self) -> None:
        """Look again what there is to do."""
        with self._condition:
            self._condition.notify_all()

    @property
    def is_mine(self) -> bool:
        """Whether it is this process that delivers."""
        return self._lock_descriptor >= 0

    # -- within

    def _serve(self) -> None:
        while not self._stopping:
            try:
                wait = self._take_turn()
            except sqlite3.Error as error:
                _logger.error("the journal of %s fails: %s", self._label, error)
                wait = MAX_BACKOFF_SECONDS
            except Exception:
                _logger.exception("a file of %s could not be delivered", self._label)
                wait = QUIET_SECONDS
            with self._condition:
                if wait > 0 and not self._stopping:
                    self._condition.wait(wait)

    def _take_turn(self) -> float:
        """Deliver what is due; return for how long there is nothing to do."""
        with self._choosing:
            if not self._is_in_charge():
                return LOCK_SECONDS
            chosen, wait = self._choose()
            if not chosen:
                self._tidy()
                return wait
            is_bulk = self._has_bulk and _is_small(chosen[0])
            self._bulk_is_under_way |= is_bulk
        try:
            self._deliver(self._journal.send(chosen))
        finally:
            if is_bulk:
                with self._choosing:
                    self._bulk_is_under_way = False
        return 0.0

    def _is_in_charge(self) -> bool:
        if self._lock_descriptor >= 0:
            return True
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._journal.recover()
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._lock_descriptor = descriptor
        return True

    def _choose(self) -> tuple[list[Pending], float]:
        """Return what is to be sent now; or nothing, and how long to wait."""
        due, hurried = self._journal.due(BULK_FILES)
        if self._bulk_is_under_way:
            due = [pending for pending in due if not _is_small(pending)]
        if not due:
            return [], LOOK_SECONDS
        if not hurried and self._is_worth_waiting(due):
            return [], LOOK_SECONDS
        if not self._has_bulk or not _is_small(due[0]):
            return due[:1], 0.0
        small = [pending for pending in due if _is_small(pending)]
        sizes = itertools.accumulate(pending.size for pending in small)
        return [pending for pending, size in zip(small, sizes, strict=True) if size <= BULK_BYTES], 0.0

    def _is_worth_waiting(self, due: list[Pending]) -> bool:
        """Tell whether more files may come soon that could go along."""
        if len(due) >= BULK_FILES or sum(pending.size for pending in due) >= BULK_BYTES:
            return False
        if any(pending.attempts for pending in due):  # these have waited
            return False
        now = time.time()
        is_quiet = now - self._journal.latest() >= min(QUIET_SECONDS, self._delay_seconds)
        return not is_quiet and now - min(pending.acknowledged for pending in due) < self._delay_seconds

    def _deliver(self, sending: list[Pending]) -> None:
        if not sending:
            return
        started = time.monotonic()
        outcomes = []
        whole = []
        for pending in sending:
            if self._journal.is_whole(pending):
                whole.append(pending)
            else:
                outcomes.append(Outcome(pending.id, "its copy on the gateway's disk is damaged", permanent=True))
        outcomes += [self._outcome(pending, error) for pending, error in self._send_all(whole)]
        self._journal.settle(outcomes)
        self._report(sending, outcomes, time.monotonic() - started)

    def _send_all(self, sending: list[Pending]) -> Iterator[tuple[Pending, Exception | None]]:
        """Send files; yield each of them once, with what went wrong."""
        if len(sending) <= 1:
            for pending in sending:
                yield pending, self._try(pending)
            return
        left = dict(enumerate(sending))
        failure: Exception = errors.OperationFailed(msg="the storage said nothing of it")
        try:
            for index, error in self._filesystem.upload_files([self._in_bulk(pending) for pending in sending]):
                pending = left.pop(index)
                # A folder that somebody has removed is made again.
                yield pending, self._try(pending) if isinstance(error, errors.ResourceNotFound) else error
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest is tried again
            failure = error
        for pending in left.values():
            yield pending, failure

    def _in_bulk(self, pending: Pending) -> tuple[str, Callable[[], BinaryIO], int, datetime]:
        return (
            pending.path,
            functools.partial(self._journal.open, pending),
            pending.size,
            datetime.fromtimestamp(pending.modified, UTC),
        )

    def _try(self, pending: Pending) -> Exception | None:
        """Send one file; return what went wrong."""
        try:
            try:
                self._send(pending)
            except errors.ResourceNotFound:
                self._filesystem.makedirs(dirname(pending.path), recreate=True)
                self._send(pending)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is noted and tried again, unless that is vain
            return error
        return None

    def _send(self, pending: Pending) -> None:
        options: dict[str, Any] = {"seekable": False}
        if pending.expected is not None:
            options["expected_version"] = pending.expected
        with self._journal.open(pending) as content:
            file = self._filesystem.openbin(pending.path, "xb" if pending.mode == "create" else "wb", **options)
            try:
                while piece := content.read(PIECE_BYTES):
                    file.write(piece)
                file.modified = datetime.fromtimestamp(pending.modified, UTC)
            except BaseException:
                abort(file)
                raise
            file.close()

    def _outcome(self, pending: Pending, error: Exception | None) -> Outcome:
        """Decide what an error means: done all the same, to be tried again, or refused for good."""
        if error is None:
            return Outcome(pending.id)
        reason = status_of(error)[1]
        permanent = isinstance(error, _FOR_GOOD)
        if pending.mode != "replace" and isinstance(error, errors.FSError) and not isinstance(error, _PASSING):
            there = self._what_is_there(pending)
            if there == "ours":  # it had arrived before, and only nobody knew
                return Outcome(pending.id)
            permanent = permanent or there == "another"
        if isinstance(error, errors.FSError) and not isinstance(error, _PASSING):
            permanent = permanent or pending.attempts + 1 >= MAX_ATTEMPTS
        delay = min(2.0 ** min(pending.attempts, 20), MAX_BACKOFF_SECONDS)
        return Outcome(pending.id, reason, permanent, time.time() + delay)

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
            self._on_delivered(arrived)
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
        with self._choosing:
            is_news, self._trouble = bool(trouble) and trouble != self._trouble, trouble
        if is_news:
            log_event("delayed", level=logging.WARNING, user=self._label, files=len(delayed), reason=trouble)

    def _tidy(self) -> None:
        """Keep the journal's file small, now and then."""
        if time.monotonic() - self._tidied_at >= TIDY_SECONDS:
            self._tidied_at = time.monotonic()
            self._journal.tidy()


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


def _is_small(pending: Pending) -> bool:
    return pending.mode == "replace" and pending.size <= SMALL_BYTES
