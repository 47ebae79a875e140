"""The views `.versions` and `.deleted`: what was in a folder before. No HTTP."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Final

import fs.errors
from fs.path import combine, dirname

from fs_dropbox import paths
from fs_dropbox.entries import FileEntry, FolderEntry
from fs_dropbox.metadata.catalog import Catalog
from fs_dropbox.metadata.known import Present
from fs_dropbox.views.documents import Documents
from fs_dropbox.views.history import History
from fs_dropbox.views.places import Place

# 2026-11-21T10-31-09Z_015f3a9c04b2e10000000012ab34.txt: when the version was stored, its rev, the extension.
_VERSION: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ_([0-9a-f]{9,})(\..*)?", re.DOTALL)


class _PastView(ABC):
    """What `.versions` and `.deleted` have in common: a folder of its own in every folder that is there."""

    def __init__(self, catalog: Catalog, history: History, documents: Documents) -> None:
        self._catalog = catalog
        self._history = history
        self._documents = documents

    def find(self, place: Place) -> Present | None:
        if place.below == "/":
            return _folder(place.view) if isinstance(self._catalog.find(place.folder), FolderEntry) else None
        return self._find(_real(place))

    @abstractmethod
    def _find(self, real: str) -> Present | None:
        """Return what the view shows for this path of the account."""


class Versions(_PastView):
    """`.versions`: the folders as they are, each file a folder of its versions. `path/<when stored>_<rev>.<ext>`."""

    def _find(self, real: str) -> Present | None:
        if _VERSION.fullmatch(paths.name(real)):
            key = paths.key(paths.name(real))
            return next((each for each in self._versions(dirname(real)) if paths.key(each.name) == key), None)
        entry = self._catalog.find(real)
        if isinstance(entry, FolderEntry):
            return entry
        name = entry.name if entry is not None else paths.name(real)
        return _folder(name) if entry is not None or self._versions(real) else None

    def children(self, path: str, place: Place) -> list[Present]:
        real = _real(place)
        entry = self._catalog.find(real)
        if isinstance(entry, FolderEntry):
            return [
                _folder(each.name) if isinstance(each, FileEntry) else each for each in self._catalog.children(real)
            ]
        if _VERSION.fullmatch(paths.name(real)) and self.find(place) is not None:
            raise fs.errors.DirectoryExpected(path)
        versions = self._versions(real)
        if not versions:
            raise fs.errors.ResourceNotFound(path)
        return list(versions)

    def _versions(self, real: str) -> list[Present]:
        """Return the versions of a file under their names, none where there never was a file."""
        entry = self._catalog.find(real)
        if isinstance(entry, FolderEntry):
            return []
        try:
            found = self._history.known_versions(real, entry.rev if entry is not None else "")
        except (fs.errors.ResourceNotFound, fs.errors.FileExpected):
            return []
        return [self._named(each) for each in found]

    def _named(self, entry: FileEntry) -> Present:
        extension = paths.extension(self._documents.named(entry).name)
        stored = f"{entry.server_modified:%Y-%m-%dT%H-%M-%SZ}_{entry.rev}"
        return entry._replace(name=f"{stored}.{extension}" if extension else stored)


class Deleted(_PastView):
    """`.deleted`: the folders as they are, and in them what was deleted there: each file its last revision."""

    def _find(self, real: str) -> Present | None:
        entry = self._catalog.find(real)
        if entry is not None:
            return entry if isinstance(entry, FolderEntry) else None
        deleted = self._history.last(real)
        original = self._documents.original(real) if deleted is None else None
        if original is not None and self._catalog.find(original) is None:
            document = self._history.last(original)
            if self._documents.is_shown_at(document, real):
                return document
        return deleted

    def children(self, path: str, place: Place) -> list[Present]:
        real = _real(place)
        entry = self._catalog.find(real)
        if entry is None:
            found = self._history.last(real)
            if found is None:
                raise fs.errors.ResourceNotFound(path)
            if not isinstance(found, FolderEntry):
                raise fs.errors.DirectoryExpected(path)
            return self._history.deleted(real)
        if not isinstance(entry, FolderEntry):
            raise fs.errors.ResourceNotFound(path)
        folders = [each for each in self._catalog.children(real) if isinstance(each, FolderEntry)]
        there = {paths.key(each.name) for each in folders}
        return [*folders, *(each for each in self._history.deleted(real) if paths.key(each.name) not in there)]


def _real(place: Place) -> str:
    return str(combine(place.folder, place.below.lstrip("/"))) if place.below != "/" else place.folder


def _folder(name: str) -> FolderEntry:
    return FolderEntry(name, "", "", "")
