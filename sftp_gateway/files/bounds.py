"""`Bounds`: which sizes and gaps of a file that is being written are refused, and what of it was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftp_gateway.files.allowance import Room
from sftp_gateway.files.intervals import Intervals
from sftp_gateway.sftp.status import RefusedError

if TYPE_CHECKING:
    from sftp_gateway.files.draft import Draft

_MOST_RANGES = 1000  # a client can have every second byte refused


class Bounds:
    """What a draft may not become, by its user's quota and the room for spools, or for what its client may believe.

    Owned by the draft, under its lock.
    """

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self.room: Room | None = None  # what its user's quota leaves for it, as far as is known
        self._goes_on: tuple[int, int] | None = None  # from where to where nothing may be missing
        self._unstored = Intervals()  # of WRITEs that failed
        self._reason: Exception = RefusedError("")  # of the last one

    def check_growth(self, size: int, *, zeros_to: int) -> None:
        """Refuse sizes that nobody could have sent: the zeros in between would be stored for days."""
        draft = self._draft
        room = self.room.size if self.room is not None else size
        if size > max(room, draft.size):
            raise RefusedError(f"your quota is used up: no more than {room:,} bytes are left for this file")
        if zeros_to - draft.base.size - draft.spool.used > draft.spool.quota.limit:
            self.check_unstored()  # what is missing in between was refused, for this reason
            raise RefusedError("the gateway's space for unfinished uploads would be used up")

    def check_unstored(self) -> None:
        """Raise what a WRITE failed with, of what was not sent again: clients close what they could not write, too."""
        if self._unstored:
            raise self._reason

    def goes_on(self, *, since: int) -> None:
        """Know that the client may take more for sent than there is, and what is there from `since` on for its own."""
        self._goes_on = since, self._draft.size

    def may_end_anywhere(self) -> None:
        """Know that the client knows what there is."""
        self._goes_on = None

    def check_going_on(self) -> None:
        """Refuse zeros, and what is to be replaced, for what a client takes for sent by an upload without an end."""
        draft = self._draft
        since, at = self._goes_on or (0, draft.size)
        if not draft.base.size <= at < draft.size:
            return
        if draft.spool.missing(at, at + 1):
            raise RefusedError("its upload was cut off, and not all that had been sent could be kept: begin it anew")
        if draft.spool.missing(since, at):
            raise RefusedError(
                "this is still the old version, which an upload was to replace that was cut off or refused:"
                " begin it anew, as a whole; for a day you cannot add to it"
            )

    def refused(self, start: int, end: int, error: Exception) -> None:
        """Know that what a client has sent was not taken."""
        self._reason = error
        self._unstored.add(start, end)
        if len(self._unstored) > _MOST_RANGES:
            self._unstored.add(0, self._unstored.end)

    def taken(self, start: int, end: int) -> None:
        """Know that what a client has sent was taken, perhaps once more."""
        self._unstored.remove(start, end)

    def forget_refused(self) -> None:
        """Know that the client of what was refused is gone."""
        self._unstored = Intervals()
