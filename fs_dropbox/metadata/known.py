"""What may be known of a key: an entry, that there is none, what is in it; and since when. No logic but `says_same`."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from fs_dropbox.entries import DeletedEntry, Entry, FileEntry, FolderEntry

Present = FileEntry | FolderEntry


class Absence(enum.Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absence.ABSENT


@dataclass(slots=True)
class Slot:
    """What is known of one key."""

    value: Present | Absence
    stored: float
    epoch: int  # of what it tells
    asked: int  # epoch at which Dropbox was asked


@dataclass(slots=True)
class Listing:
    """What is known to be in a folder."""

    children: dict[str, Present]
    stored: float
    epoch: int
    asked: int


def says_same(known: Present | Absence | None, entry: Entry) -> bool:
    """Tell whether a change leads to what is known already."""
    if isinstance(entry, DeletedEntry):
        return known is ABSENT
    if isinstance(entry, FileEntry):
        return isinstance(known, FileEntry) and (known.rev, known.name) == (entry.rev, entry.name)
    return isinstance(known, FolderEntry) and (known.id, known.name) == (entry.id, entry.name)
