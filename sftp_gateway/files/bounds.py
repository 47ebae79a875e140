"""`Bounds`: which sizes and gaps of a file that is being written are refused, and which of its WRITEs were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftp_gateway.files.allowance import Room
from sftp_gateway.files.intervals import Intervals
from sftp_gateway.sftp.status import RefusedError

if TYPE_CHECKING:
    from sftp_gateway.files.draft import Draft

_MOST_RANGES = 1000  # a client could have every second byte refused


class Bounds:
    """The limits of a draft: its user's quota, the spool quota, and gaps in what its client takes for sent.

    Owned by the draft, under its lock.
    """

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self.room: Room | None = None  # what its user's quota leaves for it, as far as is known
        self._goes_on: tuple[int, int] | None = None  # the range that its client takes for sent: no gaps may be there
        self._unstored = Intervals()  # of WRITEs that failed
        self._reason: Exception = RefusedError("")  # of the last one

    def check_growth(self, size: int, *, zeros_to: int) -> None:
        """Refuse a size that the quotas do not allow, or that is absurd: its zeros would be stored for days."""
        draft = self._draft
        room = self.room.size if self.room is not None else size
        if size > max(room, draft.size):
            raise RefusedError(f"your quota is used up: no more than {room:,} bytes are left for this file")
        if zeros_to - draft.base.size - draft.spool.used > draft.spool.quota.limit:
            self.check_unstored()  # if the gap is there because WRITEs were refused, their reason is the better one
            raise RefusedError("the gateway's space for unfinished uploads would be used up")

    def check_unstored(self) -> None:
        """Raise the error of a failed WRITE whose bytes were not sent again: clients CLOSE even after such errors."""
        if self._unstored:
            raise self._reason

    def goes_on(self, *, since: int) -> None:
        """Know that the client resumes: it takes all that it sees, from `since` on, for what it has sent itself."""
        self._goes_on = since, self._draft.size

    def may_end_anywhere(self) -> None:
        """Know that the client does not resume: it has set the size itself."""
        self._goes_on = None

    def check_going_on(self) -> None:
        """Refuse to commit zeros or old content where a client takes them for what it has sent earlier."""
        draft = self._draft
        since, at = self._goes_on or (0, draft.size)
        if not draft.base.size <= at < draft.size:
            return
        if draft.spool.missing(at, at + 1):
            raise RefusedError("its upload was cut off, and not all of it could be kept: upload the whole file again")
        if draft.spool.missing(since, at):
            raise RefusedError(
                "the upload that was to replace this file was cut off or refused, and this is still the old version:"
                " upload the whole file again (for a day nothing can be appended to it)"
            )

    def refused(self, start: int, end: int, error: Exception) -> None:
        """Know that a WRITE of [start, end) has failed."""
        self._reason = error
        self._unstored.add(start, end)
        if len(self._unstored) > _MOST_RANGES:
            self._unstored.add(0, self._unstored.end)

    def taken(self, start: int, end: int) -> None:
        """Know that a WRITE of [start, end) has succeeded, perhaps after it had failed before."""
        self._unstored.remove(start, end)

    def forget_refused(self) -> None:
        """Forget failed WRITEs: their client is gone."""
        self._unstored = Intervals()
