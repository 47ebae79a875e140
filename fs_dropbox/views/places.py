"""Which paths lead into the views `.versions` and `.deleted`, in any folder, and `.shared`, at the top. No I/O.

A view maps the paths below it to entries, whose content is then read like that of any other file. Views are read-only,
in no listing, and cost nothing until somebody enters them by name.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from fs_dropbox.metadata.known import Present

VERSIONS: Final = ".versions"
DELETED: Final = ".deleted"
SHARED: Final = ".shared"


class Place(NamedTuple):
    """Where a path leads: the folder that has the view, and the path below the view, "/" for the view itself."""

    view: str
    folder: str
    below: str


class View(Protocol):
    """What is to be seen at the paths of a view. Thread-safe; raises `fs.errors` errors with the paths of the view."""

    def find(self, place: Place) -> Present | None:
        """Return what is at a place, None where there is nothing."""

    def children(self, path: str, place: Place) -> list[Present]:
        """Return what is in a folder; raises ResourceNotFound or DirectoryExpected."""


def place_of(path: str) -> Place | None:
    """Return the place in a view that a normalised path leads to, None for all others."""
    if "/." not in path:
        return None
    names = path.split("/")[1:]
    for at, name in enumerate(names):
        view = name.lower()
        if view in (VERSIONS, DELETED) or (view == SHARED and at == 0):
            return Place(view, "/" + "/".join(names[:at]), "/" + "/".join(names[at + 1 :]))
    return None
