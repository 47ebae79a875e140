"""`SharedFolders`: folders that others share and that are not mounted, as the view `.shared`. No HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import fs.errors
from cachetools import TTLCache

from fs_dropbox import paths
from fs_dropbox.api.sharing import SharedFolder
from fs_dropbox.entries import FolderEntry
from fs_dropbox.errors import fs_errors
from fs_dropbox.metadata.known import Present
from fs_dropbox.views.places import Place

if TYPE_CHECKING:
    from fs_dropbox.views.shown import Shown

KEPT_SECONDS: Final = 30.0


class SharedFolders:
    """Each of them by its name, with its id where two have the same; entered, it is a root of its own.

    Thread-safe: one lock over what is kept, a leaf; the list is asked for unlocked. Owned by DropboxFS.
    """

    def __init__(self, list_folders: Callable[[], list[SharedFolder]], open_root: Callable[[str], Shown]) -> None:
        self._list_folders = list_folders
        self._open_root = open_root
        self._lock = threading.Lock()
        # guarded by _lock
        self._listed: TTLCache[str, dict[str, SharedFolder]] = TTLCache(1, KEPT_SECONDS)
        self._roots: dict[str, Shown] = {}  # namespace id -> what is shown in it; as many as were entered

    def find(self, place: Place) -> Present | None:
        """Return the view itself; what is in it is found by `enter`."""
        return FolderEntry(place.view, "", "", "")

    def children(self, path: str, place: Place) -> list[Present]:  # noqa: ARG002 - as all views have it
        """Return a folder for each."""
        return [FolderEntry(name, "", "", "") for name in self._names(path)]

    def enter(self, path: str, place: Place) -> tuple[Shown, str]:
        """Return what is shown in the folder that a path leads through, and the path there; or ResourceNotFound."""
        name, _, below = place.below.lstrip("/").partition("/")
        names = {paths.key(known): folder for known, folder in self._names(path).items()}
        folder = names.get(paths.key(name))
        if folder is None:
            raise fs.errors.ResourceNotFound(path)
        with self._lock:
            if folder.namespace_id not in self._roots:
                self._roots[folder.namespace_id] = self._open_root(folder.namespace_id)
            return self._roots[folder.namespace_id], f"/{below}"

    def _names(self, path: str) -> dict[str, SharedFolder]:
        with self._lock:
            known = self._listed.get("")
        if known is not None:
            return known
        with fs_errors(path):
            folders = self._list_folders()
        seen = [paths.key(folder.name) for folder in folders]
        names = {
            folder.name if seen.count(key) == 1 else f"{folder.name} ({folder.namespace_id})": folder
            for key, folder in zip(seen, folders, strict=True)
        }
        with self._lock:
            self._listed[""] = names
        return names
