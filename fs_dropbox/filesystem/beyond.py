"""`Beyond`: what DropboxFS can do that is in no contract of PyFilesystem's. Knows no HTTP, no JSON, no SDK."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

import fs.errors
from fs.base import FS
from fs.error_tools import unwrap_errors
from fs.info import Info

from fs_dropbox.conventions import as_given, errors_at
from fs_dropbox.entries import FileEntry, FolderEntry, to_info
from fs_dropbox.filesystem.assembly import Parts
from fs_dropbox.metadata.changes import Subscriber
from fs_dropbox.uploads import bulk, staging
from fs_dropbox.views.shown import Below, Shown

HISTORY_NAMESPACES: Final = ("details", "dropbox")


class Beyond(FS):
    """The half of DropboxFS that others find by its abilities (docs/architecture.md, "The seam"), history included.

    Its heir sets the attributes, and defines `validatepath`.
    """

    _parts: Parts
    _shown: Shown

    def cached_info(self, path: str, namespaces: Collection[str] | None = None) -> Info | None:
        """Return what `getinfo` would, None where Dropbox would have to be asked; never waits."""
        return self._shown.known_info(self.validatepath(path), namespaces or ())

    def cached_listing(self, path: str, namespaces: Collection[str] | None = None) -> Iterator[Info] | None:
        """Return all that `scandir` would, None where Dropbox would have to be asked; never waits."""
        return self._shown.known_infos(self.validatepath(path), namespaces or ())

    def tree_below(self, path: str) -> Below:
        """Return what is below a directory, asked for with one recursive listing; raises nothing but for bad paths."""
        return self._shown.below(self.validatepath(path))

    def infos(self, path: str, entries: Iterable[FileEntry | FolderEntry], namespaces: Collection[str]) -> list[Info]:
        """Return what is asked for of entries that `tree_below` gave for a directory."""
        return self._shown.infos(path, entries, namespaces)

    @as_given
    def versions(self, path: str) -> list[Info]:
        """Return the latest revisions of a file, present or deleted, newest first, 100 at most.

        They have the namespaces details and dropbox: `info.get("dropbox", "rev")` is what `restore` takes, and
        `openbin(path, version=rev)`.
        """
        found = self._parts.history.versions(self._changeable(path))
        return [to_info(entry, HISTORY_NAMESPACES) for entry in found]

    @as_given
    def deleted(self, path: str = "/") -> list[Info]:
        """Return what was deleted in a directory, as it was last, with the namespaces details and dropbox."""
        found = self._parts.history.deleted(self._changeable(path))
        return [to_info(entry, HISTORY_NAMESPACES) for entry in found]

    @as_given
    def restore(self, path: str, rev: str | None = None) -> int:
        """Make a revision of a file the present one; without one, bring back all that was deleted at or below a path.

        Returns how many files have come back.
        """
        return len(self._parts.history.restore(self._changeable(path), rev))

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with each batch of changes, in order, in a thread of the filesystem; return what ends that.

        A batch has a FileEntry, FolderEntry or DeletedEntry (`fs_dropbox.entries`) for each change, own ones as well; a
        rename is a deletion and an addition. An empty batch says that anything may have changed: Dropbox has lost
        track. What a subscriber raises is logged. Raises Unsupported where the change feed is off.
        """
        self.check()
        feed = self._parts.feed
        if feed is None:
            raise fs.errors.Unsupported(msg="the change feed is off")
        feed.start()
        return feed.subscribe(subscriber)

    @property
    def feed_is_live(self) -> bool:
        """Whether foreign changes are being followed right now."""
        return self._parts.feed is not None and self._parts.feed.is_live

    @property
    def feed_problem(self) -> str | None:
        """Why foreign changes are not being followed although they should be: then metadata expires by age."""
        return self._parts.feed.problem if self._parts.feed is not None else None

    @as_given
    def check_writable(self, path: str) -> None:
        """Raise what `openbin` would for whoever writes there, whatever the mode: a view, a document, a locked file."""
        _path = self._changeable(path)
        with errors_at(path):
            self._parts.files.check_writable(_path)

    def is_viewed(self, path: str) -> bool:
        """Tell whether a path leads into a view (`views=on`), which is in no listing; asks nobody."""
        return self._shown.is_viewed(self.validatepath(path))

    def upload_files(self, files: Iterable[bulk.File]) -> Iterator[tuple[int, Exception | None]]:
        """Upload many files in few calls; each replaces what is there, as `openbin(path, "wb")` and `close()` would.

        `files` yields (path, function that opens the content for reading, size in bytes, aware time to store or None).
        Yields (position in `files`, None or the error) for each once, as they become known: an `fs.errors` error, or
        what reading the content raised. Equal content over the same path makes no second revision, so that whatever
        failed may be tried again. Two files of one path are stored in their order. Nothing is sent before the first
        result is asked for; closing the iterator early gives up what has not been sent.
        """
        return self._parts.bulk.run(files, lambda path: self._shown.replaceable(self.validatepath(path)))

    def stage_files(self, sources: Iterable[staging.Source]) -> Iterator[tuple[int, str | Exception]]:
        """Send the content of files to Dropbox, where nothing of it is visible before `commit_files`.

        `sources` yields (function that opens the content for reading, size in bytes). Yields (position in `sources`, a
        token or the error) for each once. A token is text for `commit_files`, good for a week in any process.
        """
        return self._parts.staging.stage(sources)

    def commit_files(self, files: Iterable[staging.StagedFile]) -> Iterator[tuple[int, bool | Exception]]:
        """Make what was staged visible: what a token stands for once at most, however often that is asked for.

        `files` yields (path, token, aware time to store, expected): with expected None the file replaces what is there,
        with "" it must be new, else it replaces that version alone. Folders above it that are missing are made. Yields
        (position in `files`, outcome) once for each: True where it is, or has been, visible; False where it is not and
        nothing of the token ever will be; or an `fs.errors` error. After an error the token may become visible yet,
        until asking again, with the same time as before, gives True or False.
        """
        return self._parts.staging.commit(files, lambda path: self._shown.replaceable(self.validatepath(path)))

    def remove_files(self, wanted: Iterable[str]) -> None:
        """Remove files, many of one directory in few calls.

        Where some cannot be removed the others are, and the error of the first is raised.
        """
        given = {self._changeable(path): path for path in wanted}
        with unwrap_errors(given):
            self._parts.server_side.remove_files(list(given))

    def forget(self, path: str) -> None:
        """Drop what is cached at and below a path, because another process has changed it. Waits for nothing."""
        for each in self._shown.meant(self.validatepath(path)):
            self._parts.catalog.forget(each)

    def _changeable(self, path: str) -> str:
        """Return the path in Dropbox of what is shown at a path; raises for what is in a view."""
        return self._shown.real(self.validatepath(path))
