"""`Stream`: sends the beginning of a file to the filesystem while the client still sends the rest."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from fs.errors import OperationTimeout

from sftp_gateway.files.spool import Spool

logger = logging.getLogger(__name__)

PIECE_BYTES = 2**20  # how much is handed to a storage at once
FINISH_SECONDS = 600.0
LOOK_SECONDS = 1.0  # between looks at the checkpoint: the filesystem does not tell when it advances
MOST_LOOKS = 60  # while nothing more comes


class Stream:
    """Carries a spool's gapless beginning into a file of the filesystem, in a thread of its own.

    Once the thread has caught up, whoever writes next hands the data to the file directly, as long as the file takes it
    without waiting (`write_now`): no thread is woken, and nothing is read back from the spool. What the file does not
    take is carried by the thread, and so is all that follows until the thread has caught up again.
    Owned by a draft. Thread-safe: one condition, held over `write_now` and over nothing else of the filesystem. What
    was carried cannot be changed any more: a draft whose client rewrites it cancels the stream and uploads everything
    at the end.
    """

    def __init__(
        self,
        spool: Spool,
        open_file: Callable[[], Any],
        *,
        on_progress: Callable[[], None],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin; `on_end` is called by the thread as it ends. Raises RuntimeError where there can be no thread."""
        self._spool = spool
        self._open_file = open_file
        self._on_progress = on_progress
        self._on_end = on_end
        self._condition = threading.Condition()
        # guarded by _condition
        self._end = 0  # how far the spool is gapless
        self._taken = 0  # how far it was given to the file, or is being given
        self._done = 0  # how far the file has taken it
        self._stop = False
        self._cancelled = False
        self._file: Any = None
        self._write_now: Callable[[bytes | memoryview], bool] | None = None  # of the file, if it has that
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="sftp-stream", daemon=True)
        self._thread.start()

    @property
    def lag(self) -> int:
        """How many bytes wait to be carried."""
        return 0 if self.error else self._end - self._done

    def retract(self, offset: int) -> bool:
        """Carry nothing from `offset` on, which is about to change, until `extend` is called again.

        Returns whether that is possible: it is not if some of it was carried already.
        """
        with self._condition:
            if offset < self._taken:
                return False
            self._end = min(self._end, offset)
            return True

    def checkpoint(self) -> tuple[str, int] | None:
        """Return the text with which the filesystem can resume, and how many bytes it has for certain, if it can."""
        tell = getattr(self._file, "checkpoint", None)
        known: tuple[str, int] | None = tell() if tell is not None else None
        return known

    @property
    def tells_what_is_stored(self) -> bool:
        """Whether `stored` can grow before the end."""
        return self.error is None and hasattr(self._file, "checkpoint")

    @property
    def stored(self) -> int:
        """How many bytes the filesystem has for certain, and the spool need not keep."""
        known = self.checkpoint()
        return min(known[1], self._done) if known is not None and self.error is None else 0

    def extend(self, end: int, offset: int = 0, data: bytes | memoryview = b"") -> None:
        """Know that the spool has no gap up to `end`, and that `data` was written to it last (it is not kept here)."""
        with self._condition:
            if end <= self._end:
                return
            if offset == self._done == self._end and offset + len(data) == end and self._take(data):
                self._taken = self._done = end
            self._end = end
            if self._done < end:
                self._condition.notify_all()

    def _take(self, data: bytes | memoryview) -> bool:
        """Hand the file its next bytes directly; return whether it took them. The thread is idle meanwhile."""
        if self._write_now is None or self._stop or self._cancelled or self.error is not None:
            return False
        try:
            return self._write_now(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, the draft's owner is told
            self.error = error
            return False

    def cancel(self) -> None:
        """Discard what was carried; returns at once, and the thread ends once the filesystem lets it."""
        with self._condition:
            self._cancelled = True
            self._condition.notify_all()

    def finish(self) -> tuple[Any, int]:
        """Return the open file and how many bytes it has taken; the caller writes the rest and closes it.

        Raises the error that the file raised, or `OperationTimeout`.
        """
        with self._condition:
            self._stop = True
            self._condition.notify_all()
        self._thread.join(FINISH_SECONDS)
        if self._thread.is_alive():
            self.cancel()
            raise OperationTimeout(msg="the storage does not take the data")
        if self.error is not None:
            raise self.error
        return self._file, self._done

    def _run(self) -> None:
        try:
            file = self._open_file()
            with self._condition:
                self._file = file
                self._write_now = getattr(file, "write_now", None)
            self._carry()
        except Exception as error:  # noqa: BLE001 - whatever it is, the draft's owner is told
            self.error = error
        if self._cancelled or self.error is not None:
            abort(self._file)
        self._on_end()
        self._on_progress()

    def _carry(self) -> None:
        looks = seen = 0
        while True:
            with self._condition:
                self._condition.wait_for(self._has_to_do, LOOK_SECONDS if looks < MOST_LOOKS else None)
                if self._is_over():
                    return
                start = self._taken
                self._taken = end = min(self._end, start + PIECE_BYTES)
            if end > start:
                self._file.write(self._spool.pread(start, end - start))
                with self._condition:
                    self._done = end
            looks, seen = (looks + 1 if self._done == seen else 0), self._done
            self._on_progress()

    def _has_to_do(self) -> bool:
        return self._is_over() or self._end > self._taken

    def _is_over(self) -> bool:
        return self._stop or self._cancelled or self.error is not None


def abort(file: Any) -> None:
    """Discard a file of a filesystem with atomic writes; what goes wrong then changes nothing."""
    if file is None:
        return
    begun = time.monotonic()
    with contextlib.suppress(Exception):
        file.abort()
    if time.monotonic() - begun > FINISH_SECONDS:
        logger.warning("discarding an upload took %.0f s", time.monotonic() - begun)
