"""`History`: earlier versions of files, and what was deleted; found, listed, restored. No HTTP."""

from __future__ import annotations

import re
import threading
from concurrent.futures import Executor
from typing import Final

import fs.errors
from cachetools import TTLCache
from fs.path import combine, dirname

from fs_dropbox import paths
from fs_dropbox.api.client import Client
from fs_dropbox.conventions import path_error
from fs_dropbox.entries import DeletedEntry, FileEntry, FolderEntry
from fs_dropbox.errors import fs_errors
from fs_dropbox.metadata.catalog import Catalog
from fs_dropbox.metadata.known import Present
from fs_dropbox.pool import map_in

KEPT_SECONDS: Final = 30.0
_REV: Final = re.compile(r"[0-9a-f]{9,}")
_KEPT: Final = 2_000
_KEPT_DELETED: Final = 100_000  # deleted paths, of all listings that are kept


class History:
    """What was at a path before. Paths are those of files in Dropbox. Owned by DropboxFS; raises `fs.errors` errors.

    Thread-safe: one leaf lock over what is kept, for `KEPT_SECONDS`, so that looking around costs little; calls run
    unlocked. Dropbox tells of a deleted path neither whether it was a folder nor its size: its revisions do, with one
    call each, several at once.
    """

    def __init__(self, client: Client, catalog: Catalog, executor: Executor) -> None:
        self._client = client
        self._catalog = catalog
        self._executor = executor
        self._lock = threading.Lock()
        # guarded by _lock; by key, and by the present rev or the catalog's epoch: own changes count at once
        self._last: TTLCache[tuple[str, int], Present | None] = TTLCache(_KEPT, KEPT_SECONDS)
        self._below: TTLCache[tuple[str, int], list[DeletedEntry]] = TTLCache(
            _KEPT_DELETED, KEPT_SECONDS, getsizeof=_weight
        )
        self._versions: TTLCache[tuple[str, str | int], list[FileEntry]] = TTLCache(_KEPT, KEPT_SECONDS)

    def versions(self, path: str) -> list[FileEntry]:
        """Return the latest revisions of a file, present or deleted, newest first; ResourceNotFound, FileExpected."""
        if path == "/":  # of which Dropbox cannot be asked
            raise fs.errors.FileExpected(path)
        with fs_errors(path):
            return self._client.list_revisions(paths.to_api(path))

    def version(self, path: str, rev: str) -> FileEntry:
        """Return a revision of a file; raises ResourceNotFound where the file has none of this name."""
        with fs_errors(path):
            for entry in self._client.revisions(paths.to_api(path)):
                if entry.rev == rev:
                    return entry
        raise _no_revision(path, rev)

    def known_versions(self, path: str, rev: str) -> list[FileEntry]:
        """Return what `versions` did moments ago, for as long as `rev` is the present one ("" of a deleted file)."""
        key = paths.key(path), rev or self._catalog.epoch()  # a file may come and go again, and has versions more then
        with self._lock:
            known = self._versions.get(key)
        if known is None:
            known = self.versions(path)
            with self._lock:
                self._versions[key] = known
        return known

    def last(self, path: str) -> Present | None:
        """Return what was deleted at a path where nothing is now: the last revision of a file, a folder, None."""
        key = paths.key(path)
        kept = key, self._catalog.epoch()
        with self._lock:
            if kept in self._last:
                return self._last[kept]
        deleted: Present | None
        try:
            with fs_errors(path):
                revisions = self._client.list_revisions(paths.to_api(path), limit=1)
            deleted = revisions[0] if revisions else None
        except fs.errors.FileExpected:
            deleted = FolderEntry(paths.name(path), key, path, "")
        except fs.errors.ResourceNotFound:
            deleted = None
        with self._lock:
            self._last[kept] = deleted
        return deleted

    def deleted(self, path: str) -> list[Present]:
        """Return what was deleted in a folder that is there, or that was deleted itself."""
        if self._catalog.find(path) is not None:
            self._catalog.require_folder(path)
            here = self._listing(path, recursive=False)
            return self._looked_up([combine(path, each.name) for each in here])
        if not isinstance(self.last(path), FolderEntry):
            raise fs.errors.ResourceNotFound(path)
        key, below = paths.key(path), self._deleted_below(path)
        folders = {paths.parent(each.path_lower) for each in below}
        here = [each for each in below if paths.parent(each.path_lower) == key]
        found: list[Present] = [
            FolderEntry(each.name, each.path_lower, each.path_display, "")
            for each in here
            if each.path_lower in folders
        ]
        epoch = self._catalog.epoch()
        with self._lock:
            self._last.update({(each.path_lower, epoch): each for each in found})
        return found + self._looked_up([combine(path, each.name) for each in here if each.path_lower not in folders])

    def deleted_below(self, path: str) -> list[FileEntry]:
        """Return every deleted file at any depth below a folder, from one listing and a call for each of them."""
        below = self._deleted_below(path)
        folders = {paths.parent(each.path_lower) for each in below}
        found = self._looked_up([each.path_display for each in below if each.path_lower not in folders])
        return [entry for entry in found if isinstance(entry, FileEntry)]

    def _looked_up(self, deleted: list[str]) -> list[Present]:
        return [entry for entry in map_in(self._executor, self.last, deleted) if entry is not None]

    def restore(self, path: str, rev: str | None = None) -> list[FileEntry]:
        """Make a revision of a file its present content; without one, bring back what was deleted at or below a path.

        Returns the files that have come back; raises ResourceNotFound where there was nothing.
        """
        if rev is not None:
            if not _REV.fullmatch(rev):  # as Dropbox puts it, the request would be a bad one
                raise _no_revision(path, rev)
            return [self._restore(path, rev)]
        if self._catalog.find_latest(path) is None:
            self._forget()
            deleted = self.last(path)
            if deleted is None:
                raise fs.errors.ResourceNotFound(path)
            if isinstance(deleted, FileEntry):
                return [self._restore(path, deleted.rev)]
        elif not isinstance(self._catalog.find(path), FolderEntry):
            why = "it is there; name the revision that is to come back"
            raise path_error(fs.errors.FileExists, path, why)
        self._forget()
        return [self._restore(each.path_display, each.rev) for each in self.deleted_below(path)]

    def _restore(self, path: str, rev: str) -> FileEntry:
        since = self._catalog.epoch()
        try:
            with fs_errors(path):
                entry = self._client.restore(paths.to_api(path), rev)
            self._catalog.applied(entry, since)
        except BaseException:
            self._catalog.forget(path)  # it may have come back all the same
            raise
        finally:
            self._forget()
        return entry

    def _forget(self) -> None:
        with self._lock:
            self._last.clear()
            self._below.clear()
            self._versions.clear()

    def _deleted_below(self, path: str) -> list[DeletedEntry]:
        """Return the deleted paths below a folder, present or deleted itself.

        Dropbox lists what is there: a folder that was deleted is looked for in the nearest folder above that is not.
        """
        key, epoch = paths.key(path), self._catalog.epoch()
        found = self._kept_below(key, epoch)
        start = path
        while found is None:
            try:
                found = self._listing(start, recursive=True)
            except fs.errors.ResourceNotFound:
                if start == "/":
                    raise
                start = dirname(start)
            else:
                with self._lock:
                    if len(found) < _KEPT_DELETED:
                        self._below[paths.key(start), epoch] = found
        return [each for each in found if each.path_lower != key and paths.is_under(each.path_lower, key)]

    def _kept_below(self, key: str, epoch: int) -> list[DeletedEntry] | None:
        """Return what was deleted below a key, or below one above it, if that was listed moments ago."""
        with self._lock:
            while True:
                found = self._below.get((key, epoch))
                if found is not None or not key:
                    return found
                key = paths.parent(key)

    def _listing(self, path: str, *, recursive: bool) -> list[DeletedEntry]:
        deleted: dict[str, DeletedEntry] = {}
        with fs_errors(path):
            for page in self._client.pages(paths.to_api(path), recursive=recursive, include_deleted=True):
                for entry in page.entries:
                    if isinstance(entry, DeletedEntry) and not paths.is_between(entry.path_lower):
                        deleted[entry.path_lower] = entry
                    else:
                        deleted.pop(entry.path_lower, None)
        return list(deleted.values())


def _no_revision(path: str, rev: str) -> fs.errors.ResourceNotFound:
    return path_error(fs.errors.ResourceNotFound, path, f"the file has no revision {rev}")


def _weight(found: list[DeletedEntry]) -> int:
    return len(found) + 1
