"""`Step`, `Observer`, `Summary`: what making folders equal comes to. Knows no filesystem."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum


class Action(Enum):
    """What happens to one path of the target."""

    FOLDER = "folder"
    COPY = "copy"
    SKIP = "skip"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Step:
    """One path, relative to both sides, and what is done about it."""

    action: Action
    path: str
    size: int = 0
    reason: str = ""


class Observer:
    """Is told how it goes; this one ignores it. Calls come from any thread, one at a time."""

    def planned(self, size: int) -> None:
        """Both sides are listed: so many bytes may have to be copied."""

    def advanced(self, size: int) -> None:
        """So many bytes have been copied, or turned out not to have to be (never with `done` of a skip)."""

    def done(self, step: Step) -> None:
        """A step is done, or in a dry run would be."""

    def failed(self, step: Step, error: Exception) -> None:
        """A step failed; the others go on unless the error is one that no other would escape."""


@dataclass(slots=True)
class Summary:
    """What a run did."""

    copied: int = 0
    copied_bytes: int = 0
    skipped: int = 0
    skipped_bytes: int = 0
    folders: int = 0
    deleted: int = 0
    ignored: int = 0
    """Entries that cannot be mirrored, such as sockets, with a SKIP step that has a reason."""
    failures: list[tuple[Step, Exception]] = field(default_factory=list)
    ended_by: Exception | None = None
    """The failure that no later step would have escaped, such as a full disk; what is missing was not tried."""

    def counts(self) -> dict[str, int]:
        """Return its numbers by name."""
        return {each.name: value for each in fields(self) if isinstance(value := getattr(self, each.name), int)}

    def add(self, part: Summary) -> None:
        """Count in what another run did."""
        for name, count in part.counts().items():
            setattr(self, name, getattr(self, name) + count)
        self.failures += part.failures
        self.ended_by = self.ended_by or part.ended_by
