"""`ServerSide`: copy, move and remove as Dropbox's own calls: no content travels, whatever the size of the tree."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import TypeAlias

import fs.errors
from fs.path import combine, dirname, isparent, iteratepath, join

from fs_dropbox import paths
from fs_dropbox.api.client import Client
from fs_dropbox.conventions import path_error
from fs_dropbox.entries import DeletedEntry, Entry, FileEntry, FolderEntry
from fs_dropbox.errors import ApiError, DropboxError, VersionConflict, fs_errors, reason
from fs_dropbox.filesystem.batches import LEAST_CHILDREN, Batches, Children, groups
from fs_dropbox.metadata.catalog import Catalog
from fs_dropbox.metadata.known import Present

_ATTEMPTS = 3

_logger = logging.getLogger(__name__)

# Copies or moves what is at one path, and was known to be there, to another.
Call: TypeAlias = Callable[[str, str, Present], Present]


class ServerSide:
    """Changes trees by server-side calls. Thread-safe, lock-free; owned by DropboxFS; raises `fs.errors` errors."""

    def __init__(self, client: Client, catalog: Catalog) -> None:
        self._client = client
        self._catalog = catalog
        self._batches = Batches(client, catalog)

    def copy_file(self, source: str, target: str, *, overwrite: bool) -> None:
        """Copy one file."""
        self._transfer_file(source, target, overwrite=overwrite, call=self._copy)

    def move_file(self, source: str, target: str, *, overwrite: bool) -> None:
        """Move or rename one file; a new case of the same name is a rename too."""
        if paths.key(source) == paths.key(target) and paths.spelling(source) != paths.spelling(target):
            self._change_case(source, target, self._catalog.require_file(source))
        else:
            self._transfer_file(source, target, overwrite=overwrite, call=self._move)

    def copy_folder(self, source: str, target: str, *, create: bool) -> None:
        """Copy the contents of a folder: one call where the target is new, else a few for the children that are."""
        self._transfer_folder(source, target, create=create, call=self._copy)

    def move_folder(self, source: str, target: str, *, create: bool) -> None:
        """Move the contents of a folder, and the folder with them."""
        if paths.key(source) == paths.key(target):
            renamed = self._catalog.require_folder(source)
            if paths.spelling(source) != paths.spelling(target):
                self._change_case(source, target, renamed)
            return
        if isparent(paths.key(target) or "/", paths.key(source)):
            way = iteratepath(source)[len(iteratepath(target)) :]
            if isinstance(self._catalog.find_latest(join(source, *way)), FolderEntry):
                # It would be merged into what it is moved out of, and that once more into the target.
                raise fs.errors.OperationFailed(target, msg="'{path}': a directory in it would take its own place")
        self._transfer_folder(source, target, create=create, call=self._move)
        for _ in range(_ATTEMPTS):
            folder = self._catalog.find(source)
            if folder is None:
                return
            if not self._holds_files(source):
                self._delete_tree(source, folder)
                return
            self._transfer_folder(source, target, create=True, call=self._move)  # what nobody here knew of
        raise fs.errors.DirectoryNotEmpty(source)

    def remove_file(self, path: str) -> None:
        """Delete one file and never a folder: the rev goes along, so that what became a folder meanwhile is refused."""
        for attempt in range(_ATTEMPTS):
            # Dropbox has the rev for files only: a folder may be deleted all the same, so this looks first.
            entry = self._catalog.find_latest(path)
            if entry is None:
                raise fs.errors.ResourceNotFound(path)
            if not isinstance(entry, FileEntry):
                raise fs.errors.FileExpected(path)
            since = self._catalog.epoch()
            with fs_errors(path):
                try:
                    with self._forgetting(path):
                        gone = self._client.delete(paths.to_api(path), parent_rev=entry.rev, entry_id=entry.id)
                        self._removed(path, gone, since)
                        return
                except ApiError as error:
                    if "conflict" not in error.tag or attempt + 1 == _ATTEMPTS:
                        raise
                    # Another version is there now; it is to go as well.

    def remove_files(self, wanted: Sequence[str]) -> None:
        """Delete many files and no folder, those of one folder in few calls.

        Where some cannot be deleted the others are, and the error of the first is raised.
        """
        alone: list[str] = []
        together: dict[str, dict[FileEntry, str]] = defaultdict(dict)
        for path, entry in zip(wanted, self._catalog.find_all_latest(wanted), strict=True):
            if isinstance(entry, FileEntry):
                together[dirname(path)][entry] = path
            else:
                alone.append(path)
        for folder, files in together.items():
            left = self._in_batches(list(files), partial(self._batches.remove, folder))
            alone += [files[entry] for entry in left if isinstance(entry, FileEntry)]
        problems: list[fs.errors.FSError] = []
        for path in alone:
            try:
                self.remove_file(path)
            except fs.errors.FSError as error:
                problems.append(error)
        if problems:
            raise problems[0]

    def remove_folder(self, path: str) -> None:
        """Delete an empty folder. Dropbox deletes recursively, so what appears after the look goes too."""
        folder = self._catalog.require_folder(path)
        if not self._catalog.is_empty(path):
            raise fs.errors.DirectoryNotEmpty(path)
        self._delete_tree(path, folder)

    def remove_tree(self, path: str) -> None:
        """Delete a folder with all that it holds in one call; of the root, what it holds. Never a file, so it looks."""
        self._catalog.doubt(path)
        folder = self._catalog.require_folder(path)
        if path != "/":
            self._delete_tree(path, folder)
            return
        self._empty(path)

    def _empty(self, path: str) -> None:
        """Delete what a folder holds."""
        for child in self._in_batches(self._catalog.children(path), partial(self._batches.remove, path)):
            self._delete_tree(combine(path, child.name), child)

    def _in_batches(self, children: Children, change: Callable[[Children], Children]) -> Iterator[Present]:
        """Change children in groups that are worth a batch; yield those that have to be changed one by one."""
        for group in groups(children):
            yield from change(group) if len(group) >= LEAST_CHILDREN else group

    def _holds_files(self, path: str) -> bool:
        """Tell whether files are below a folder; asks Dropbox: deletion is recursive, so the cache is no proof."""
        self._catalog.forget(path)
        tree = self._catalog.tree(path)
        folders = [path]
        while folders:
            folder = folders.pop()
            for child in tree.children(folder):
                if isinstance(child, FileEntry):
                    return True
                folders.append(combine(folder, child.name))
        return False

    def _delete_tree(self, path: str, entry: Present, *, is_emptied: bool = False) -> None:
        since = self._catalog.epoch()
        with fs_errors(path), self._forgetting(path):
            try:
                gone = self._client.delete(paths.to_api(path), entry_id=entry.id)
            except ApiError as error:
                if "too_many_files" in error.tag and not is_emptied:
                    self._catalog.forget(path)
                    self._empty(path)
                    self._delete_tree(path, entry, is_emptied=True)
                    return
                if not error.is_not_found:
                    raise
                gone = entry
            self._removed(path, gone, since)

    def _removed(self, path: str, gone: Entry, since: int) -> None:
        """Take over a removal; one that was only found to have taken place may have had a successor since."""
        if isinstance(gone, DeletedEntry):
            self._catalog.forget(path)
        else:
            self._catalog.removed(path, since)

    def _transfer_file(self, source: str, target: str, *, overwrite: bool, call: Call) -> None:
        same = paths.key(source) == paths.key(target)
        entry = self._catalog.find(source)
        existing = entry if same else self._catalog.find(target)
        if existing is not None and not overwrite:
            raise fs.errors.DestinationExists(target)
        if entry is None:
            raise fs.errors.ResourceNotFound(source)
        if not isinstance(entry, FileEntry):
            raise fs.errors.FileExpected(source)
        if not same:
            self._put_at(target, existing, entry, overwrite=overwrite, call=lambda: call(source, target, entry))

    def _put_at(
        self,
        target: str,
        existing: Present | None,
        entry: FileEntry,
        *,
        overwrite: bool,
        call: Callable[[], object],
        attempt: int = 1,
    ) -> None:
        """Put a file where nothing or another file is; look again where something else is there than was known."""
        if existing is not None:
            existing = self._catalog.find_latest(target)  # what took its place, a folder even, would be deleted
        if isinstance(existing, FolderEntry):
            raise fs.errors.FileExpected(target)
        if existing is not None and existing.id == entry.id:  # others have moved it, or Dropbox folds case otherwise
            raise fs.errors.OperationFailed(target, msg="'{path}': this is the same file already")
        try:
            if existing is None:
                self._catalog.require_parent(target)
                call()
            else:
                self._replace(target, existing, call)
        except (fs.errors.DestinationExists, VersionConflict):
            if not overwrite or attempt == _ATTEMPTS:
                raise
            # What was known of the target is forgotten already, as after every call that fails.
            found = self._catalog.find(target)
            self._put_at(target, found, entry, overwrite=True, call=call, attempt=attempt + 1)

    def _replace(self, target: str, existing: FileEntry, call: Callable[[], object]) -> None:
        """Put something else where a file is. Dropbox's own calls never overwrite: the old one goes first, and comes
        back where nothing could take its place. Users of the cache never see the gap."""
        with self._catalog.hold({target: existing}):
            try:
                with fs_errors(target):
                    self._make_way(target, existing)
            except BaseException as error:
                self._catalog.forget(target)
                if _may_be_done(error.__cause__ or error):
                    self._bring_back(target, existing, error)
                raise
            try:
                call()
            except BaseException as error:
                self._catalog.forget(target)
                self._bring_back(target, existing, error)
                raise

    def _make_way(self, target: str, existing: FileEntry) -> None:
        """Delete this version of a file, unless it is gone already."""
        try:
            self._client.delete(paths.to_api(target), parent_rev=existing.rev, entry_id=existing.id)
        except ApiError as error:
            if not error.is_not_found:
                raise

    def _bring_back(self, target: str, existing: FileEntry, problem: BaseException) -> None:
        """Restore a file where there is nothing now: what is there is its successor, or someone else's.

        Raises OperationFailed, which tells how to, where Dropbox does not let it come back either.
        """
        path = paths.to_api(target)
        try:
            since = self._catalog.epoch()
            if self._client.find(path) is None:
                with self._forgetting(target):
                    self._catalog.copied(self._client.bring_back(path, existing.rev), since)
        except DropboxError as error:
            _logger.error("%s may be gone, and could not be brought back: %s", target, error)
            what = str(problem) or "broken off"  # by Ctrl-C, for one
            told = f"{what}; if the file that was there is gone, restore its rev {existing.rev}"
            raise path_error(fs.errors.OperationFailed, target, told, cause=error) from problem

    def _transfer_folder(self, source: str, target: str, *, create: bool, call: Call) -> None:
        existing = self._catalog.find(target)
        if existing is None and not create:
            raise fs.errors.ResourceNotFound(target)
        folder = self._catalog.require_folder(source)
        if paths.key(source) == paths.key(target):
            return
        if isparent(paths.key(source) or "/", paths.key(target) or "/"):
            raise fs.errors.OperationFailed(target, msg="'{path}': a directory cannot be put into itself")
        if isinstance(existing, FileEntry):
            raise fs.errors.DirectoryExpected(target)
        if existing is None:
            self._catalog.require_parent(target)
            try:
                call(source, target, folder)
            except fs.errors.FSError as error:
                if "too_many_files" not in getattr(error.__cause__, "tag", ()):
                    raise
            else:
                return
            since = self._catalog.epoch()
            with self._forgetting(target), fs_errors(target):
                self._catalog.created(self._client.create_folder(paths.to_api(target)), since)
        children = self._catalog.children(source)
        taken: set[str] = set()
        if len(children) >= LEAST_CHILDREN:
            taken = {paths.key(child.name) for child in self._catalog.children(target)}
        new = [child for child in children if paths.key(child.name) not in taken]
        together = self._batches.copy if call == self._copy else self._batches.move
        left = self._in_batches(new, partial(together, source, target))
        for child in chain(left, (child for child in children if paths.key(child.name) in taken)):
            below, onto = combine(source, child.name), combine(target, child.name)
            if isinstance(child, FolderEntry):
                self._transfer_folder(below, onto, create=True, call=call)
            else:
                self._transfer_file(below, onto, overwrite=True, call=call)

    def _copy(self, source: str, target: str, _: Present) -> Present:
        since = self._catalog.epoch()
        with self._forgetting(target), fs_errors(source, target=target):
            entry = self._client.copy(paths.to_api(source), paths.to_api(target))
            self._catalog.copied(entry, since)
        return entry

    def _move(self, source: str, target: str, moved: Present) -> Present:
        since = self._catalog.epoch()
        with self._forgetting(source, target), fs_errors(source, target=target):
            entry = self._client.move(paths.to_api(source), paths.to_api(target), source_id=moved.id)
            self._catalog.moved(source, entry, since)
        return entry

    def _change_case(self, source: str, target: str, moved: Present) -> None:
        """Rename to another spelling of the same name, which one move cannot do: two can."""
        between = paths.between(dirname(source))
        with self._catalog.hold({source: moved, between: None}):
            since = self._catalog.epoch()
            with self._forgetting(source, between), fs_errors(source):
                is_between = False
                try:
                    self._client.move(paths.to_api(source), paths.to_api(between), source_id=moved.id)
                    is_between = True
                    entry = self._client.move(paths.to_api(between), paths.to_api(target), source_id=moved.id)
                except BaseException as error:
                    if is_between or _may_be_done(error):
                        self._move_back(between, source, moved, error, is_begun=is_between)
                    raise
                self._catalog.moved(source, entry, since)
                self._catalog.removed(between, since)
        if entry.name != paths.name(paths.spelling(target)):
            raise fs.errors.OperationFailed(target, msg="'{path}': Dropbox keeps another spelling")

    def _move_back(self, between: str, source: str, moved: Present, problem: BaseException, *, is_begun: bool) -> None:
        """Undo the first half of a rename, unless the second took place after all, or the first did not.

        Raises OperationFailed, which tells where to look, where that cannot be done: others may have taken its place,
        or Dropbox may carry out the first half yet.
        """
        try:
            self._client.move(paths.to_api(between), paths.to_api(source), source_id=moved.id)
        except DropboxError as error:
            is_over = is_begun or not isinstance(problem, DropboxError)
            if is_over and isinstance(error, ApiError) and error.tag == ("from_lookup", "not_found"):
                return
            _logger.error("%s may be at %s now, and could not be moved back: %s", source, between, error)
            what = reason(problem) if isinstance(problem, DropboxError) else "broken off"
            told = f"{what}; it may be at {between} now"
            raise path_error(fs.errors.OperationFailed, source, told, cause=error) from problem

    @contextmanager
    def _forgetting(self, *changed: str) -> Iterator[None]:
        """After a change that fails, of which not all may be known or taken over, forget what is known of its paths."""
        try:
            yield
        except BaseException:
            for path in changed:
                self._catalog.forget(path)
            raise


def _may_be_done(error: BaseException) -> bool:
    """Tell whether a change that ended with this error may have been carried out: broken off, for one, by Ctrl-C."""
    return not isinstance(error, DropboxError) or error.is_unsettled
