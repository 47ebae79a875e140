"""`Catalog`: what is where in the account: from the cache where known, else from the API, once for all who ask."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import lru_cache, partial
from itertools import chain, islice
from typing import TypeVar

import fs.errors
from fs.path import dirname

from fs_dropbox import paths
from fs_dropbox.api.client import Client
from fs_dropbox.api.results import all_placed
from fs_dropbox.entries import DeletedEntry, Entry, FileEntry, FolderEntry, FoundFolder, SupersededEntry
from fs_dropbox.errors import ApiError, DropboxError, fs_errors
from fs_dropbox.metadata.cache import MetadataCache
from fs_dropbox.metadata.finding import Finding
from fs_dropbox.metadata.known import ABSENT, Absence, Present
from fs_dropbox.metadata.listings import Listings
from fs_dropbox.metadata.lookups import Lookups
from fs_dropbox.metadata.single_flight import SingleFlight
from fs_dropbox.metadata.subtrees import Subtrees

T = TypeVar("T")

_logger = logging.getLogger(__name__)

ROOT = FolderEntry("", "", "", "")
# A listing whose cursor Dropbox gives up on begins anew.
_ATTEMPTS = 3


class Catalog(Finding):
    """Looks up entries and listings by PyFilesystem path. Thread-safe; owned by DropboxFS; holds no lock of its own.

    Every method raises `fs.errors` errors with the caller's path. Calls under way are shared by those who ask for the
    same while nothing has changed: the epoch is part of what makes two calls equal, so that nobody who has just written
    gets an answer from before.
    """

    def __init__(
        self,
        client: Client,
        cache: MetadataCache,
        *,
        on_use: Callable[[], None] = lambda: None,
        submit: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """`submit` has work done in another thread: trees are listed ahead of those who walk them."""
        self._client = client
        self._cache = cache
        self._flights = SingleFlight()
        self._listings: Listings[Present] = Listings()
        self._lookups = Lookups()
        self._subtrees = Subtrees()
        self._submit = submit
        self._on_use = on_use

    def find(self, path: str) -> Present | None:
        """Return the entry at a path, None where there is nothing: no call where it is known, else one.

        After a few lookups in one folder that call is for the listing they are all in: see `Lookups`.
        """
        return self._find(path, may_list=self._cache.remembers)

    def find_latest(self, path: str) -> Present | None:
        """Return the entry at a path as `find` does, but never one that is believed by its age alone."""
        self.doubt(path)
        return self._find(path, may_list=False)

    def find_all_latest(self, wanted: Sequence[str]) -> list[Present | None]:
        """Return what is at each of many paths as `find_latest` does, in few calls where many are in one folder."""
        for path in wanted:
            self.doubt(path)
        return [self.find(path) for path in wanted]

    def known(self, path: str) -> Present | None:
        """Return the entry at a path if that is known without a call; raises ResourceNotFound where its absence is."""
        key = paths.key(path)
        if not key:
            return ROOT
        self._on_use()
        known = self._cache.get(key)
        if known is ABSENT:
            raise fs.errors.ResourceNotFound(path)
        return known

    def look_again(self, path: str) -> None:
        """Ask Dropbox whether there is something at a path by now."""
        self._ask(path, paths.key(path))

    def require_parent(self, path: str) -> None:
        """Check that the folder above `path` exists; raises ResourceNotFound or DirectoryExpected."""
        above = self.find(dirname(path))
        if above is None:
            raise fs.errors.ResourceNotFound(path)
        if not isinstance(above, FolderEntry):
            raise fs.errors.DirectoryExpected(dirname(path))

    def children(self, path: str) -> list[Present]:
        """Return all children of a folder; raises ResourceNotFound or DirectoryExpected."""
        return list(chain.from_iterable(self.pages(path)))

    def pages(self, path: str) -> Iterator[list[Present]]:
        """Yield all children of a folder as they become known; raises as `children` does, the iterator as well."""
        listing = self.known_children(path)
        if listing is not None:
            yield listing
            return
        key = paths.key(path)
        if self._cache.get(key) is ABSENT:
            raise fs.errors.ResourceNotFound(path)
        epoch = self._cache.epoch()
        with fs_errors(path):
            yield from self._listings.join((key, epoch), lambda: self._fetch_listing(path, key, epoch))

    def known_children(self, path: str) -> list[Present] | None:
        """Return all children of a folder if they are known without a call."""
        self._on_use()
        return self._cache.listing(paths.key(path))

    def is_empty(self, path: str) -> bool:
        """Tell whether a folder has no children; asks Dropbox: deletion is recursive, so the cache is no proof."""
        with fs_errors(path):
            pages = self._client.pages(paths.to_api(path), limit=1)
            return all(isinstance(entry, DeletedEntry) for page in pages for entry in page.entries)

    def tree(self, path: str) -> Tree:
        """Return what is below a folder, from one recursive listing unless the cache has it all.

        Where that fails (Dropbox advises against it for huge trees), nothing is lost: listings are then asked for one
        by one.
        """
        key = paths.key(path)
        self._on_use()
        listings: Mapping[str, list[Present]] = {}
        epoch = self._cache.epoch()
        if not self._is_known(key):
            with suppress(DropboxError, TimeoutError):
                listings = self._flights.do(("tree", key, epoch), lambda: self._fetch_tree(path, key, epoch) or {})
        return Tree(self, self._cache, listings, epoch)

    def epoch(self) -> int:
        """Return the epoch before an own call, which whatever takes over what that has changed wants."""
        return self._cache.epoch()

    def applied(self, entry: FileEntry, since: int) -> None:
        """Take over which file an own call sent at `since` has made, so that it is seen at once."""
        if isinstance(entry, SupersededEntry):
            self._cache.forget_tree(entry.path_lower)
        else:
            self._cache.apply(entry, since=since)

    def created(self, entry: FolderEntry, since: int) -> None:
        """Take over that an own call has made a folder, which is empty unless it was only found."""
        if isinstance(entry, FoundFolder):
            self.copied(entry, since)
        else:
            self._cache.apply_created(entry, since)

    def removed(self, path: str, since: int) -> None:
        """Take over that an own call has left nothing at `path`."""
        self._cache.apply(DeletedEntry(paths.name(path), paths.key(path), path), since=since)

    def copied(self, target: Present, since: int) -> None:
        """Take over that by an own call `target` has come into being with all that it holds."""
        self._cache.apply(target, since=since, with_contents=isinstance(target, FolderEntry))

    def moved(self, source: str, target: Present, since: int) -> None:
        """Take over that what was at `source` is `target` now. The new one appears before the old one goes."""
        self.copied(target, since)
        if paths.key(source) != target.path_lower:
            self.removed(source, since)

    def hold(self, shown: Mapping[str, Present | None]) -> AbstractContextManager[None]:
        """Show this at some paths while own calls go through states that nobody is to see."""
        return self._cache.hold({paths.key(path): ABSENT if entry is None else entry for path, entry in shown.items()})

    def doubt(self, path: str) -> None:
        """Let nothing be known of a path by its age alone: before changes that must hit nothing else."""
        self._cache.doubt(paths.key(path))

    def forget(self, path: str) -> None:
        """Forget what is known at and below `path`, after a call whose outcome is not known."""
        self._cache.forget_tree(paths.key(path))

    def _find(self, path: str, *, may_list: bool) -> Present | None:
        key = paths.key(path)
        if not key:
            return ROOT
        self._on_use()
        known = self._cache.get(key)
        if known is None:
            told = (self._look_around(path, key) if may_list else None) or self._ask(path, key)
            # What was on its way before an own call began may tell of a state that nobody is to see.
            known = self._cache.get(key) or told
        return None if known is ABSENT else known

    def _ask(self, path: str, key: str) -> Present | Absence:
        epoch = self._cache.epoch()
        return self._share(path, ("entry", key, epoch), lambda: self._fetch(path, key, epoch))

    def _look_around(self, path: str, key: str) -> Present | Absence | None:
        """Ask for the listing that a name is in, if that is worth it; return what it says of the name, else None."""
        folder = paths.parent(key)
        epoch = self._cache.epoch()
        # A first page that is on its way costs nothing more.
        is_coming = self._flights.is_under_way(("beginning", folder, 1, epoch))
        pages = 1 if is_coming else self._lookups.note(folder, key)
        if not pages:
            return None
        try:
            entries, is_whole = self._share(
                path,
                ("beginning", folder, pages, epoch),
                lambda: self._fetch_beginning(dirname(path), folder, pages, epoch),
            )
        except fs.errors.FSError as error:
            if isinstance(error.__cause__, ApiError) and not error.__cause__.is_rate_limit:
                return None  # asking for the name itself tells more
            raise
        return entries.get(key, ABSENT if is_whole and key.isascii() else None)

    def _share(self, path: str, flight: object, work: Callable[[], T]) -> T:
        with fs_errors(path):
            return self._flights.do(flight, work)

    def _fetch(self, path: str, key: str, epoch: int) -> Present | Absence:
        try:
            entry = self._client.get_metadata(paths.to_api(path))
        except ApiError as error:
            if not error.is_not_found:
                raise
            self._cache.put_absent(key, epoch)
            return ABSENT
        self._cache.put(entry, epoch)
        return entry

    def _fetch_listing(self, path: str, key: str, epoch: int) -> Iterator[list[Present]]:
        """Yield the children of a folder that each page adds, and store them all in the end."""
        self._list_ahead(key)
        began = time.monotonic()
        children: dict[str, Present] = {}
        yielded: set[str] = set()
        for entries in self._pages(path, recursive=False):
            told: dict[str, Present] = {}
            _apply(told, entries)
            told.pop(key, None)
            # With what own calls have changed since: Dropbox may tell of a state that nobody is to see.
            known = self._cache.updated(key, told.values(), epoch)
            shown = told.values() if known is None else known
            new = [entry for entry in shown if entry.path_lower not in yielded]
            yielded.update(entry.path_lower for entry in new)
            _apply(children, entries)
            if new:
                yield new
        children.pop(key, None)
        self._cache.put_listing(key, children.values(), epoch, age_seconds=time.monotonic() - began)

    def _fetch_beginning(self, path: str, key: str, most: int, epoch: int) -> tuple[Mapping[str, Present], bool]:
        """Return the children of a folder that so many pages tell of, and whether these are all."""
        children: dict[str, Present] = {}
        for page in islice(self._client.pages(paths.to_api(path)), most):
            _apply(children, all_placed(page.entries, path))
        children.pop(key, None)
        self._lookups.listed(key, is_whole=not page.has_more)
        if page.has_more:
            for entry in children.values():
                self._cache.put(entry, epoch)
        else:
            self._cache.put_listing(key, children.values(), epoch)
        return children, not page.has_more

    def _list_ahead(self, key: str) -> None:
        """Have a whole tree listed if the folder of this key is one of many in it that are being listed."""
        if self._submit is None or not self._cache.remembers:
            return
        wanted = self._subtrees.note(key)
        if wanted is not None:
            with suppress(RuntimeError):  # the executor has ended, with its filesystem
                self._submit(partial(self._fetch_ahead, *wanted))

    def _fetch_ahead(self, key: str, pages: int) -> None:
        is_whole = False
        try:
            is_whole = self._fetch_tree(key, key, self._cache.epoch(), pages=pages) is not None
        except DropboxError:
            pass  # whoever walks the tree goes on without
        finally:
            self._subtrees.listed(key, is_whole=is_whole)

    def _fetch_tree(
        self, path: str, key: str, epoch: int, *, pages: int | None = None
    ) -> Mapping[str, list[Present]] | None:
        """Return what is in each folder of a tree, and store it; None where it has more `pages` than that."""
        began = time.monotonic()
        entries: dict[str, Present] = {}
        gone: set[str] = set()
        for number, page in enumerate(self._pages(path, recursive=True)):
            if number == pages:
                return None
            _apply(entries, page)
            gone.update(entry.path_lower for entry in page if isinstance(entry, DeletedEntry))
        gone -= entries.keys()
        if gone:
            entries = {below: entry for below, entry in entries.items() if gone.isdisjoint(paths.ancestors(below))}
        own = entries.pop(key, None)
        if own is not None:
            self._cache.put(own, epoch)
        listings: dict[str, list[Present]] = defaultdict(list)
        listings[key] = []
        for entry in entries.values():
            listings[paths.parent(entry.path_lower)].append(entry)
            if isinstance(entry, FolderEntry):
                listings[entry.path_lower]  # an empty folder has a listing too
        age_seconds = time.monotonic() - began
        for folder, children in listings.items():
            self._cache.put_listing(folder, children, epoch, age_seconds=age_seconds)
        return listings

    def _pages(self, path: str, *, recursive: bool) -> Iterator[list[Entry]]:
        """Yield what each page of a listing tells; begin anew, and tell things twice, where Dropbox gives up."""
        for attempt in range(_ATTEMPTS):
            try:
                for page in self._client.pages(paths.to_api(path), recursive=recursive):
                    yield all_placed(page.entries, path, recursive=recursive)
            except ApiError as error:
                if error.tag[:1] != ("reset",) or attempt + 1 == _ATTEMPTS:
                    raise
            else:
                return

    def _is_known(self, key: str) -> bool:
        """Tell whether every listing from `key` down is in the cache."""
        folders = [key]
        while folders:
            listing = self._cache.listing(folders.pop())
            if listing is None:
                return False
            folders += [entry.path_lower for entry in listing if isinstance(entry, FolderEntry)]
        return True


def _apply(entries: dict[str, Present], page: Iterable[Entry]) -> None:
    """Take over what a page tells, deletions included: a listing goes on with what happens meanwhile."""
    for entry in page:
        if isinstance(entry, (FileEntry, FolderEntry)):
            hidden = entries.get(entry.path_lower)
            if hidden is not None and hidden.id != entry.id and hidden.name != entry.name:
                _tell_hidden(hidden.path_display, entry.path_display)
            entries[entry.path_lower] = entry
        else:
            entries.pop(entry.path_lower, None)


@lru_cache(maxsize=1000)  # once is enough, though it is listed again and again
def _tell_hidden(hidden: str, shown: str) -> None:
    """Log that Dropbox keeps two names apart which `paths.key` takes for one: in other scripts it may know better."""
    _logger.error("%r cannot be seen here: Dropbox keeps it and %r apart, and here both names are one", hidden, shown)


class Tree:
    """The folders below one, looked at from one listing of them all: for a walk. Thread-safe, immutable."""

    def __init__(
        self, catalog: Catalog, cache: MetadataCache, listings: Mapping[str, list[Present]], epoch: int
    ) -> None:
        self._catalog = catalog
        self._cache = cache
        self._listings = listings  # asked for at the epoch
        self._epoch = epoch

    def children(self, path: str) -> list[Present]:
        """Return all children of a folder: as the cache knows them, or as they were if they are so still, or from
        Dropbox."""
        key = paths.key(path)
        known = self._cache.listing(key)
        if known is None and (listed := self._listings.get(key)) is not None:
            known = self._cache.updated(key, listed, self._epoch)
        return self._catalog.children(path) if known is None else known
