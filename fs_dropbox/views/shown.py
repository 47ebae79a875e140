"""`Shown`: what users of the filesystem see at a path: what the account has, documents as exports, views. No HTTP."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Protocol

import fs.errors
from fs.info import Info

from fs_dropbox import paths
from fs_dropbox.conventions import errors_at, path_error
from fs_dropbox.entries import FileEntry, FolderEntry, root_info, to_info
from fs_dropbox.files.read_file import DropboxFile
from fs_dropbox.metadata.catalog import Catalog
from fs_dropbox.metadata.finding import Finding
from fs_dropbox.metadata.known import Present
from fs_dropbox.views.documents import Documents, has_no_bytes, is_document_name
from fs_dropbox.views.permits import read_only
from fs_dropbox.views.places import SHARED, Place, View, place_of
from fs_dropbox.views.shared_folders import SharedFolders


class Below(Protocol):
    """The folders below one, as a walk looks at them."""

    def children(self, path: str) -> list[Present]: ...


class Shown(Finding):
    """Looks up what is shown by PyFilesystem path, and what such a path means in Dropbox.

    Thread-safe, lock-free; owned by DropboxFS. Every method raises `fs.errors` errors with the caller's path. A folder
    that others share and that is not mounted is a root of its own, with a `Shown` of its own.
    """

    def __init__(
        self,
        catalog: Catalog,
        documents: Documents,
        read: Callable[[str, FileEntry], DropboxFile],
        *,
        views: Mapping[str, View],
        shared: SharedFolders | None,
    ) -> None:
        """Set up; `read` opens an entry under the path that its reader gave; `shared` is one of the views."""
        self._catalog = catalog
        self._documents = documents
        self._read = read
        self._shared = shared
        self._views: Mapping[str, View] = {**views, **({SHARED: shared} if shared is not None else {})}

    def find(self, path: str) -> Present | None:
        """Return what is shown at a path, None where there is nothing."""
        place = self._place(path)
        if place is not None:
            return self._find_in_view(path, place)
        entry = self._catalog.find(path)
        original = self._documents.original(path) if entry is None else None
        if original is None:
            return entry
        document = self._catalog.find(original)
        return self._documents.named(document) if document and self._documents.is_shown_at(document, path) else None

    def _find_in_view(self, path: str, place: Place) -> Present | None:
        if not self._leads_into_a_shared_folder(place):
            return self._views[place.view].find(place)
        try:
            shown, inner = self._at(path)
        except fs.errors.ResourceNotFound:
            return None
        with errors_at(path):
            return shown.find(inner) if inner != "/" else FolderEntry(paths.name(path), "", "", "")

    def known(self, path: str) -> Present | None:
        """Return what `find` would if that needs no call; raises ResourceNotFound where absence is known."""
        if self._place(path) is not None:
            return None
        original = self._documents.original(path)
        if original is None:
            return self._catalog.known(path)
        try:
            return self._catalog.known(path)
        except fs.errors.ResourceNotFound as absent:
            with errors_at(path):
                document = self._catalog.known(original)
            if document is None:
                return None
            if not self._documents.is_shown_at(document, path):
                raise absent
            return self._documents.named(document)

    def children(self, path: str) -> list[Present]:
        """Return what is shown in a folder; raises ResourceNotFound or DirectoryExpected."""
        place = self._place(path)
        if place is None:
            return self._documents.listed(self._catalog.children(path))
        if not self._leads_into_a_shared_folder(place):
            return self._documents.listed(self._views[place.view].children(path, place))
        shown, inner = self._at(path)
        with errors_at(path):
            return shown.children(inner)

    def pages(self, path: str) -> Iterator[list[Present]]:
        """Yield what is shown in a folder as it becomes known; raises as `children` does, the iterator as well."""
        if self._place(path) is not None:
            yield self.children(path)
            return
        everything: list[Present] = []
        for page in self._catalog.pages(path):
            everything += page
            yield [entry for entry in page if not has_no_bytes(entry)]
        # How a document is shown depends on all the other names.
        if any(map(has_no_bytes, everything)):
            yield [entry for entry in self._documents.listed(everything) if has_no_bytes(entry)]

    def below(self, path: str) -> Below:
        """Return what is below a folder, from one recursive listing; in a view, from a listing of each folder."""
        if self._place(path) is not None:
            return self
        return _Listed(self._catalog.tree(path), self._documents)

    def open(self, path: str, *, believe_absence: bool = True) -> DropboxFile:
        """Open the file at a path for reading."""
        shown, inner = self._at(path)
        with errors_at(path):
            if not believe_absence:
                shown._doubt_absence(inner)
            entry = shown.require_file(inner)
        return shown._read(path, entry)

    def _doubt_absence(self, path: str) -> None:
        """Have Dropbox asked where it would be told, without a call, that there is nothing at a path."""
        try:
            self.known(path)
        except fs.errors.ResourceNotFound:
            for each in self.meant(path):
                self._catalog.look_again(each)

    # What is told of entries

    def info(self, path: str, namespaces: Collection[str]) -> Info:
        """Return what is asked for of the entry at a path; raises ResourceNotFound."""
        if path == "/":
            return root_info(namespaces)
        return self.infos(path, [self.require(path)], namespaces)[0]

    def known_info(self, path: str, namespaces: Collection[str]) -> Info | None:
        """Return what `info` does if that needs no call, else None; raises ResourceNotFound."""
        if path == "/":
            return root_info(namespaces)
        entry = self.known(path)
        if entry is not None and "details" in namespaces:
            entry = self._documents.known_size(entry)
        return None if entry is None else to_info(entry, namespaces)

    def known_infos(self, path: str, namespaces: Collection[str]) -> Iterator[Info] | None:
        """Yield what `infos` of `children` returns if that needs no call, else return None.

        Each is made when it is asked for: whoever has many directories open has next to no memory for that.
        """
        entries = None if self._place(path) is not None else self._catalog.known_children(path)
        if entries is None:
            return None
        listed = self._documents.listed(entries)
        known = [self._documents.known_size(entry) for entry in listed] if "details" in namespaces else listed
        if any(entry is None for entry in known):
            return None
        return (to_info(entry, namespaces) for entry in known if entry is not None)

    def infos(self, path: str, entries: Iterable[Present], namespaces: Collection[str]) -> list[Info]:
        """Return what is asked for of entries at or in a path."""
        if "details" in namespaces:
            entries = self._at(path)[0]._documents.sized(path, entries)
        return [to_info(entry, namespaces) for entry in entries]

    def _at(self, path: str) -> tuple[Shown, str]:
        """Return who shows what is at a path, and the path there; raises ResourceNotFound."""
        place = self._place(path)
        if place is None or self._shared is None or not self._leads_into_a_shared_folder(place):
            return self, path
        return self._shared.enter(path, place)

    @staticmethod
    def _leads_into_a_shared_folder(place: Place) -> bool:
        return place.view == SHARED and place.below != "/"

    # What paths mean in Dropbox

    def real(self, path: str) -> str:
        """Return the path in Dropbox of what is shown at a path, in no view; raises ResourceReadOnly for those."""
        self._refuse_views(path)
        original = self._documents.original(path)
        if original is None or self._catalog.find(path) is not None:
            return path
        return original if self._documents.is_shown_at(self._catalog.find(original), path) else path

    def meant(self, path: str) -> list[str]:
        """Return the paths of which `real` returns one, without a look at what is there; raises as that does."""
        self._refuse_views(path)
        original = self._documents.original(path)
        return [path] if original is None else [path, original]

    def replaceable(self, path: str) -> str:
        """Return the path in Dropbox of a file to replace unseen, whatever is there; raises ResourceReadOnly."""
        real = self.real(path)
        existing = self._catalog.find(real) if is_document_name(real) else None
        if has_no_bytes(existing):
            raise read_only(path, existing)
        return real

    def pair(self, source: str, target: str) -> tuple[str, str]:
        """Return the paths in Dropbox to copy or move a file from and to: a document keeps its own extension."""
        real_source, real_target = self.real(source), self.real(target)
        entry = self._catalog.find(real_source)
        existing = self._catalog.find(real_target)
        if has_no_bytes(existing) and existing != entry:
            raise read_only(target, existing)
        if has_no_bytes(entry):
            return real_source, self._documents.target(entry, target)
        return real_source, real_target

    def is_viewed(self, path: str) -> bool:
        """Tell whether a path leads into a view."""
        return self._place(path) is not None

    def _refuse_views(self, path: str) -> None:
        place = self._place(path)
        if place is not None:
            raise path_error(fs.errors.ResourceReadOnly, path, f"nothing can be changed in {place.view}")

    def _place(self, path: str) -> Place | None:
        return place_of(path) if self._views else None


class _Listed:
    """What is below a folder, as it is shown."""

    def __init__(self, tree: Below, documents: Documents) -> None:
        self._tree = tree
        self._documents = documents

    def children(self, path: str) -> list[Present]:
        return self._documents.listed(self._tree.children(path))
