"""`Pace`: how the storage keeps up with what is written: who waits for that, and what need not be kept here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sftp_gateway.files.draft import Draft

THIN_BYTES = 16 * 2**20  # how much is given back to the disk at least, at once


class Pace:
    """What a draft's client and the local disk hear of the storage. Owned by the draft, whose `lock` it takes."""

    def __init__(self, draft: Draft, lock: AbstractContextManager[object]) -> None:
        self._draft = draft
        self._lock = lock
        self._caught_up: list[Callable[[], None]] = []
        self.is_thin = False  # what the storage has is not all here any more: it cannot be continued

    @property
    def is_behind(self) -> bool:
        """Whether the client is to be held back: it is far ahead of the storage, or that is to make room first."""
        forwarding, quota = self._draft.forwarding, self._draft.spool.quota
        return forwarding.is_behind or (quota.is_short and forwarding.makes_room)

    def when_caught_up(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, from any thread, when the storage has caught up or the stream is over."""
        with self._lock:
            if self.is_behind:
                self._caught_up.append(callback)
                return
        callback()

    def thin(self, *, at_least: int | None = None) -> bool:
        """Keep on disk no longer what the filesystem has for certain, where that is much; tell whether.

        What is left cannot be continued once it is cut off, and what was dropped can be neither read nor written.
        """
        draft, spool = self._draft, self._draft.spool
        with self._lock:
            end = draft.forwarding.stored
            is_much = end - spool.dropped >= (at_least or THIN_BYTES)
            if not draft.is_open or not is_much or not spool.may_drop(end):
                return False
            was_thin, self.is_thin = self.is_thin, True
            with contextlib.suppress(OSError):  # what cannot be forgotten is not dropped
                draft.note.renew()  # before: whoever comes after a crash is not to take zeros for content
                if spool.drop_before(end):
                    return True
            self.is_thin = was_thin
            return False

    def advanced(self) -> None:
        """Know that the storage has more, or that it gets no more."""
        with self._lock:
            if self._draft.is_open:
                self._draft.note.look_again()
                if self._draft.spool.quota.is_short:
                    self.thin(at_least=1)
            if self.is_behind:
                return
            callbacks, self._caught_up = self._caught_up, []
        for callback in callbacks:
            callback()
