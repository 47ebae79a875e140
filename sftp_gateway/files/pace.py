"""`Pace`: how far the storage is behind the client: when the client must wait, and what the spool can drop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sftp_gateway.files.draft import Draft

THIN_BYTES = 16 * 2**20  # less is not worth a hole in the spool file


class Pace:
    """Flow control of one draft. Owned by the draft, whose `lock` it takes."""

    def __init__(self, draft: Draft, lock: AbstractContextManager[object]) -> None:
        self._draft = draft
        self._lock = lock
        self._caught_up: list[Callable[[], None]] = []
        self.is_thin = False  # the spool has dropped its beginning: the upload cannot be continued once it is cut off

    @property
    def is_behind(self) -> bool:
        """Whether the client must wait: it is far ahead of the storage, or the storage has to make room first."""
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
        """Drop from the spool what the filesystem has for certain, if that is much; return whether it did.

        The upload cannot be continued then once it is cut off, and what was dropped can be neither read nor written.
        """
        draft, spool = self._draft, self._draft.spool
        with self._lock:
            end = draft.forwarding.stored
            is_much = end - spool.dropped >= (at_least or THIN_BYTES)
            if not draft.is_open or not is_much or not spool.may_drop(end):
                return False
            was_thin, self.is_thin = self.is_thin, True
            with contextlib.suppress(OSError):  # while the note stands, nothing may be dropped
                draft.note.renew()  # first: after a crash nobody may take the hole's zeros for content
                if spool.drop_before(end):
                    return True
            self.is_thin = was_thin
            return False

    def advanced(self) -> None:
        """Know that the storage has taken more, or takes no more: wake those who wait for that."""
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
