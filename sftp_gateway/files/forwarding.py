"""`Forwarding`: sends a file on to the filesystem while it arrives, and resumes that after a cut."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fs.errors import FSError, OperationFailed

from sftp_gateway.files.spool import DroppedError, Spool
from sftp_gateway.files.stream import Stream

STREAM_FROM_BYTES = 4 * 2**20  # smaller files are one upload at CLOSE
LAG_BYTES = 32 * 2**20  # a client that is further ahead of the storage has to wait for its replies


class Forwarding:
    """The stream of a draft, if it has one, and the checkpoint of an earlier one. Owned by a draft, under its lock.

    `open_file` opens the file in the filesystem, resuming from a checkpoint's text if it is given one; it is called in
    the stream's thread. `streams` bounds how many such threads there are, those included that were cancelled and still
    wait for the filesystem.
    """

    def __init__(
        self,
        spool: Spool,
        open_file: Callable[[str | None], Any],
        *,
        atomic: bool,
        streams: threading.BoundedSemaphore,
        on_progress: Callable[[], None],
    ) -> None:
        self._spool = spool
        self._open_file = open_file
        self._atomic = atomic
        self._streams = streams
        self._on_progress = on_progress
        self._stream: Stream | None = None
        self._may_begin = atomic
        self.resume: tuple[str, int] | None = None  # the checkpoint of an earlier stream: its text, and bytes

    @property
    def is_idle(self) -> bool:
        """Whether nothing of the file has been sent on."""
        return self._stream is None and self.resume is None

    @property
    def is_behind(self) -> bool:
        """Whether the client is too far ahead of the storage."""
        return self.lag > LAG_BYTES

    @property
    def lag(self) -> int:
        """How many bytes wait for the storage to take them."""
        return self._stream.lag if self._stream is not None else 0

    @property
    def checkpoint(self) -> tuple[str, int] | None:
        """What the filesystem has for certain of the uncommitted file: a text to resume with, and bytes."""
        known = self._stream.checkpoint() if self._stream is not None else None
        return known or self.resume

    @property
    def stored(self) -> int:
        """How many bytes the spool does not need any more, unless the current stream fails."""
        return self._stream.stored if self._stream is not None else 0

    @property
    def makes_room(self) -> bool:
        """Whether waiting lets the spool shrink: the storage will confirm more, which the spool can drop then."""
        stream, spool = self._stream, self._spool
        if stream is None or not stream.tells_what_is_stored:
            return False
        return spool.prefix > stream.stored and spool.may_drop(spool.prefix)

    def check(self) -> None:
        """Raise the stream's error, unless it may come from resuming an earlier upload: then begin anew."""
        if self._stream is not None and self._stream.error is not None:
            if not self.may_start_anew(self._stream.error):
                raise self._stream.error
            self.resume = None
            self.cancel()
            self.allow()

    def allow(self) -> None:
        """Let a stream begin, even if there was one before."""
        self._may_begin = self._atomic

    def extend(self, offset: int, data: bytes | memoryview) -> None:
        """Send on what the spool has without a gap; the latest WRITE was `data` at `offset`."""
        if self._stream is None:
            if (
                not self._may_begin
                or self._spool.prefix < STREAM_FROM_BYTES
                or not self._streams.acquire(blocking=False)
            ):
                return
            self._may_begin = False
            try:
                self._stream = Stream(
                    self._spool, self._open, on_progress=self._on_progress, on_end=self._streams.release
                )
            except RuntimeError:  # no more threads: everything is sent at CLOSE
                self._streams.release()
                return
        self._stream.extend(self._spool.prefix, offset, data)

    def rewrite(self, offset: int) -> bool:
        """Know that the bytes from `offset` on change; if some were sent on, give that up and return True.

        Raises `DroppedError` if the spool could not send it all again.
        """
        was_behind = self.is_behind
        is_touched = self._stream is not None and not self._stream.retract(offset)
        if was_behind and not self.is_behind:
            self._on_progress()  # there may be nothing left to wait for
        if is_touched or (self.resume is not None and offset < self.resume[1]):
            if self._spool.dropped:
                raise DroppedError
            self.resume = None
            self.cancel()
            return True
        return False

    def retarget(self) -> None:
        """End a stream whose file is open under an old path; the next one resumes from its checkpoint."""
        if self._stream is not None:
            self.suspend()
            self.allow()

    def suspend(self) -> None:
        """End the stream, and keep its checkpoint to be resumed from."""
        self.resume = self.checkpoint
        self.cancel()

    def cut(self, size: int) -> None:
        """Drop a checkpoint beyond the `size` bytes that are left: what follows them may be different."""
        if self.resume is not None and self.resume[1] > size:
            self.resume = None

    def cancel(self) -> None:
        """End the stream."""
        stream, self._stream = self._stream, None
        self._end(stream)

    def take(self) -> Stream | None:
        """Hand the stream over to be finished, and begin no other. The caller calls `done` with it."""
        stream, self._stream, self._may_begin = self._stream, None, False
        return stream

    def done(self, stream: Stream | None) -> None:
        """Know that the commit is over, well or not; cancel the stream if it was not finished."""
        self.resume = None
        self._end(stream)

    def finish(self, stream: Stream | None) -> tuple[Any, int]:
        """Return the open file and how many bytes it has taken; raises `fs.errors`."""
        return stream.finish() if stream is not None else (self._open(), 0)

    def may_start_anew(self, error: Exception) -> bool:
        """Tell whether an upload may have failed only because it resumed an earlier one."""
        return self.resume is not None and type(error) is OperationFailed and not self._spool.dropped

    def _end(self, stream: Stream | None) -> None:
        if stream is not None:
            stream.cancel()
            self._on_progress()

    def _open(self) -> Any:
        resume = self.resume  # read once: another thread may drop it meanwhile
        if resume is not None:
            try:
                return self._open_file(resume[0])
            except FSError:  # the filesystem does not know it any more: everything is sent again
                self.resume = None
        return self._open_file(None)
