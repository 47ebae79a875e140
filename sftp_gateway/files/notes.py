"""`Note`: keeps what is noted on disk about a file that is being written true, in case the process is killed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sftp_gateway.files.partials import Partials

if TYPE_CHECKING:
    from sftp_gateway.files.draft import Draft

NOTE_BYTES = 2**20
NOTE_SECONDS = 0.1


class Note:
    """What the note on disk says of a draft, if there is one. Owned by the draft, under its lock.

    A note that `grows` is true while the file is written in order: it vouches for all that the spool file holds but the
    last byte. Others vouch for `size` bytes; they are renewed after `NOTE_BYTES`, but not within `NOTE_SECONDS`.
    """

    def __init__(self, draft: Draft, partials: Partials) -> None:
        self._draft = draft
        self._partials = partials
        self.size = 0  # bytes that it vouches for; 0 without a note
        self.grows = False
        self._checkpoint: tuple[str, int] | None = None
        self._moment = 0.0
        self._look_at = NOTE_BYTES  # the offset from which on the filesystem's checkpoint is looked at again

    def written(self, size: int, checkpoint: tuple[str, int] | None, *, grows: bool) -> None:
        """Know what the note says."""
        self.size, self._checkpoint, self.grows = size, checkpoint, grows
        self._moment = time.monotonic()

    def before_write(self, offset: int) -> None:
        """Say no longer that the file is written in order, if it is not."""
        if self.grows and offset > self._draft.spool.prefix:
            self._save(grows=False)

    def after_write(self, end: int) -> None:
        """Note what has come, if it is time for that."""
        if end < self._look_at and self.grows:
            return
        draft = self._draft
        if draft.spool.path is None:
            return
        self._look_at = end + NOTE_BYTES
        if self.grows:
            self.look_again()
        elif self._is_due() and (self._may_grow or draft.lasting >= self.size + NOTE_BYTES):
            self._save(grows=draft.spool.is_gapless)

    def after_truncate(self) -> None:
        """Vouch for no more than there is."""
        if self.size > self._draft.lasting:
            self._save(grows=self.grows)

    def after_rewrite(self) -> None:
        """Say that the filesystem has nothing to go on with any more."""
        if self._checkpoint is not None:
            self._save(grows=self.grows)

    def renew(self) -> None:
        """Say of the file what is true now, where anything was noted."""
        if self.size:
            self._save(grows=self.grows)

    def settle(self) -> None:
        """Say of a file that nobody writes any more what can be continued of it."""
        self._save(grows=False)

    def look_again(self) -> None:
        """Note what the filesystem has for certain, where that is more than was noted."""
        if self.size and self._draft.forwarding.checkpoint not in (None, self._checkpoint):
            self._save(grows=self.grows)

    def noted_checkpoint(self) -> tuple[str, int] | None:
        """Return what the filesystem has, as the note says, which another process may have written last."""
        file = self._draft.spool.path
        return self._partials.checkpoint(file) if file is not None else None

    def _save(self, *, grows: bool) -> None:
        self._partials.save(self._draft, grows)

    @property
    def _may_grow(self) -> bool:
        """Whether the file has no gap any more, or is gone on with."""
        return self.size > 0 and self._draft.spool.is_gapless

    def _is_due(self) -> bool:
        return not self.size or time.monotonic() - self._moment >= NOTE_SECONDS
