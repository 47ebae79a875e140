"""`Forwarding`: what of a file goes to the filesystem before its commit, and goes on after its upload was cut off."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fs.errors import FSError, OperationFailed

from sftp_gateway.files.spool import DroppedError, Spool
from sftp_gateway.files.stream import Stream

STREAM_FROM_BYTES = 4 * 2**20  # smaller files are one upload at CLOSE
LAG_BYTES = 32 * 2**20  # a client that is further ahead of the storage gets its answers later


class Forwarding:
    """The stream of a draft, if it has one, and the checkpoint of an earlier one. Owned by a draft, under its lock.

    `open_file` opens the file in the filesystem, going on with a checkpoint's text where it is given one; it is called
    in the stream's thread. There are as many such threads at once as `streams` allows, also of those that were
    cancelled and still wait for the filesystem.
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
        self.resume: tuple[str, int] | None = None  # of an upload that was cut off: a text to go on with, and bytes

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
        """How many bytes that could be sent on wait for the storage to take them."""
        return self._stream.lag if self._stream is not None else 0

    @property
    def checkpoint(self) -> tuple[str, int] | None:
        """What the filesystem has for certain of a file that is not committed yet: a text to go on with, and bytes."""
        known = self._stream.checkpoint() if self._stream is not None else None
        return known or self.resume

    @property
    def stored(self) -> int:
        """How many bytes are not needed here as long as the stream that is under way comes to its end."""
        return self._stream.stored if self._stream is not None else 0

    @property
    def makes_room(self) -> bool:
        """Whether the storage is yet to say that it has more of what is in the spool, which may go from there then."""
        stream, spool = self._stream, self._spool
        if stream is None or not stream.tells_what_is_stored:
            return False
        return spool.prefix > stream.stored and spool.may_drop(spool.prefix)

    def check(self) -> None:
        """Raise what the storage refused, but for what went wrong only because an earlier upload was gone on with."""
        if self._stream is not None and self._stream.error is not None:
            if not self.may_start_anew(self._stream.error):
                raise self._stream.error
            self.resume = None
            self.cancel()
            self.allow()

    def allow(self) -> None:
        """Let a stream begin, once more if there was one."""
        self._may_begin = self._atomic

    def extend(self, offset: int, data: bytes | memoryview) -> None:
        """Send on what the spool has without a gap; the last that came is `data` at `offset`."""
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
            except RuntimeError:  # no more threads: all of it is sent at CLOSE
                self._streams.release()
                return
        self._stream.extend(self._spool.prefix, offset, data)

    def rewrite(self, offset: int) -> bool:
        """Note that the bytes from `offset` change; tell whether such were sent, which is of no use any more then.

        Raises `DroppedError` where nobody could send it anew.
        """
        was_behind = self.is_behind
        is_touched = self._stream is not None and not self._stream.retract(offset)
        if was_behind and not self.is_behind:
            self._on_progress()  # there may be nothing left to get on with
        if is_touched or (self.resume is not None and offset < self.resume[1]):
            if self._spool.dropped:
                raise DroppedError
            self.resume = None
            self.cancel()
            return True
        return False

    def retarget(self) -> None:
        """End a stream whose file is open under an old path; the next goes on with what is there."""
        if self._stream is not None:
            self.suspend()
            self.allow()

    def suspend(self) -> None:
        """End the stream, to be gone on with."""
        self.resume = self.checkpoint
        self.cancel()

    def cut(self, size: int) -> None:
        """Do not go on with what has more than the `size` bytes that are left: they may be followed by others."""
        if self.resume is not None and self.resume[1] > size:
            self.resume = None

    def cancel(self) -> None:
        """End the stream."""
        stream, self._stream = self._stream, None
        self._end(stream)

    def take(self) -> Stream | None:
        """Hand the stream over to be finished; no other begins. `done` is to be called with it."""
        stream, self._stream, self._may_begin = self._stream, None, False
        return stream

    def done(self, stream: Stream | None) -> None:
        """Note that the file is committed, or could not be; a stream that was not finished is of no use any more."""
        self.resume = None
        self._end(stream)

    def finish(self, stream: Stream | None) -> tuple[Any, int]:
        """Return the open file and how many bytes it has taken; raises `fs.errors`."""
        return stream.finish() if stream is not None else (self._open(), 0)

    def may_start_anew(self, error: Exception) -> bool:
        """Tell whether an upload may have failed only because it went on with an earlier one."""
        return self.resume is not None and type(error) is OperationFailed and not self._spool.dropped

    def _end(self, stream: Stream | None) -> None:
        if stream is not None:
            stream.cancel()
            self._on_progress()

    def _open(self) -> Any:
        resume = self.resume  # once: another thread may find it of no use meanwhile
        if resume is not None:
            try:
                return self._open_file(resume[0])
            except FSError:  # it was forgotten, or is too old: everything is sent again
                self.resume = None
        return self._open_file(None)
