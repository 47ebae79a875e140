"""`Note`: keeps the note on disk about a file that is being written up to date, in case the process is killed."""

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

    A note that `grows` stays true while the file is written in order: it covers all of the spool file but the last
    byte. Other notes cover `size` bytes; they are rewritten every `NOTE_BYTES`, but not more often than every
    `NOTE_SECONDS`.
    """

    def __init__(self, draft: Draft, partials: Partials) -> None:
        self._draft = draft
        self._partials = partials
        self.size = 0  # bytes that it covers; 0 without a note
        self.grows = False
        self._checkpoint: tuple[str, int] | None = None
        self._moment = 0.0
        self._look_at = NOTE_BYTES  # at this offset the filesystem's checkpoint is looked at again

    def written(self, size: int, checkpoint: tuple[str, int] | None, *, grows: bool) -> None:
        """Know what the note says."""
        self.size, self._checkpoint, self.grows = size, checkpoint, grows
        self._moment = time.monotonic()

    def before_write(self, offset: int) -> None:
        """Before a WRITE out of order: make the note cover a fixed size."""
        if self.grows and offset > self._draft.spool.prefix:
            self._save(grows=False)

    def after_write(self, end: int) -> None:
        """Rewrite the note if it is time for that."""
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
        """Cover no more than there is."""
        if self.size > self._draft.lasting:
            self._save(grows=self.grows)

    def after_rewrite(self) -> None:
        """Forget the filesystem's checkpoint: what it has sent was rewritten since."""
        if self._checkpoint is not None:
            self._save(grows=self.grows)

    def renew(self) -> None:
        """Rewrite the note, if there is one."""
        if self.size:
            self._save(grows=self.grows)

    def settle(self) -> None:
        """Write the final note of a file that nobody writes any more."""
        self._save(grows=False)

    def look_again(self) -> None:
        """Note the filesystem's checkpoint, if it has advanced."""
        if self.size and self._draft.forwarding.checkpoint not in (None, self._checkpoint):
            self._save(grows=self.grows)

    def noted_checkpoint(self) -> tuple[str, int] | None:
        """Return the checkpoint in the note on disk, which another process may have written."""
        file = self._draft.spool.path
        return self._partials.checkpoint(file) if file is not None else None

    def _save(self, *, grows: bool) -> None:
        self._partials.save(self._draft, grows)

    @property
    def _may_grow(self) -> bool:
        """Whether the note can become one that grows: the file has no gap any more."""
        return self.size > 0 and self._draft.spool.is_gapless

    def _is_due(self) -> bool:
        return not self.size or time.monotonic() - self._moment >= NOTE_SECONDS
