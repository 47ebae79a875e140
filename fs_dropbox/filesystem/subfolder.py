"""`DropboxSubFS`: a folder of the account as a filesystem of its own, with all that the whole one can do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import fs.errors
from fs.error_tools import unwrap_errors
from fs.info import Info
from fs.subfs import SubFS

from fs_dropbox.conventions import StoresWhole

if TYPE_CHECKING:
    from fs_dropbox.uploads.bulk import File
    from fs_dropbox.uploads.staging import Source, StagedFile

F = TypeVar("F", bound=SubFS[Any])


class OpensFolders(StoresWhole):
    """What opens a folder as a filesystem of its own that can do what the whole one can."""

    @overload  # type: ignore[override]  # for an argument that may be either, the base class's word is enough
    def opendir(self, path: str, factory: None = None) -> DropboxSubFS: ...

    @overload
    def opendir(self, path: str, factory: Callable[[Any, str], F]) -> F: ...

    def opendir(self, path: str, factory: Callable[[Any, str], Any] | None = None) -> Any:
        return super().opendir(path, factory=factory or DropboxSubFS)


class DropboxSubFS(OpensFolders, SubFS[Any]):  # type: ignore[misc]  # as above
    """What `opendir` gives. PyFilesystem's own SubFS copies folders file by file, and hides what it does not know.

    Owns nothing; as thread-safe as the filesystem that it is a folder of.
    """

    def __enter__(self) -> Self:
        return self

    def cached_info(self, path: str, namespaces: Collection[str] | None = None) -> Info | None:
        """Return what `getinfo` would, None where Dropbox would have to be asked; see `DropboxFS.cached_info`."""
        found: Info | None = self._delegated("cached_info", path, namespaces)
        return found

    def cached_listing(self, path: str, namespaces: Collection[str] | None = None) -> Iterator[Info] | None:
        """Return what `scandir` would, None where Dropbox would have to be asked; see `DropboxFS.cached_listing`."""
        found: Iterator[Info] | None = self._delegated("cached_listing", path, namespaces)
        return found

    def upload_files(self, files: Iterable[File]) -> Iterator[tuple[int, Exception | None]]:
        """Upload many files in few calls; see `DropboxFS.upload_files`."""
        self.check()
        given: dict[int, str] = {}  # of files that have no result yet

        def delegated() -> Iterator[File]:
            for index, (path, open_file, size, modified) in enumerate(files):
                given[index] = path
                yield self.delegate_path(path)[1], open_file, size, modified

        for index, error in self.delegate_fs().upload_files(delegated()):
            path = given.pop(index)
            if isinstance(error, fs.errors.ResourceError):
                error.path = path
            yield index, error

    def stage_files(self, sources: Iterable[Source]) -> Iterator[tuple[int, str | Exception]]:
        """Send content ahead; see `DropboxFS.stage_files`."""
        self.check()
        yield from self.delegate_fs().stage_files(sources)

    def commit_files(self, files: Iterable[StagedFile]) -> Iterator[tuple[int, bool | Exception]]:
        """Make what was staged visible; see `DropboxFS.commit_files`."""
        self.check()
        given = list(files)
        delegated = [(self.delegate_path(path)[1], *others) for path, *others in given]
        for index, outcome in self.delegate_fs().commit_files(delegated):
            if isinstance(outcome, fs.errors.ResourceError):
                outcome.path = given[index][0]
            yield index, outcome

    def remove_files(self, wanted: Iterable[str]) -> None:
        """Remove files, many of one directory in few calls; see `DropboxFS.remove_files`."""
        self.check()
        given = {self.delegate_path(path)[1]: path for path in wanted}
        with unwrap_errors(given):
            self.delegate_fs().remove_files(given)

    def copy(self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False) -> None:
        self._transfer("copy", src_path, dst_path, overwrite=overwrite, preserve_time=preserve_time)

    def copydir(self, src_path: str, dst_path: str, create: bool = False, preserve_time: bool = False) -> None:
        self._transfer("copydir", src_path, dst_path, create=create, preserve_time=preserve_time)

    def check_writable(self, path: str) -> None:
        """Raise what whoever writes there would meet; see `DropboxFS.check_writable`."""
        self._delegated("check_writable", path)

    def is_viewed(self, path: str) -> bool:
        """Tell whether a path leads into a view; see `DropboxFS.is_viewed`."""
        return bool(self._delegated("is_viewed", path))

    def forget(self, path: str) -> None:
        """Drop what is cached at and below a path; see `DropboxFS.forget`."""
        self._delegated("forget", path)

    def versions(self, path: str) -> list[Info]:
        """Return the revisions of a file; see `DropboxFS.versions`."""
        return list(self._delegated("versions", path))

    def deleted(self, path: str = "/") -> list[Info]:
        """Return what was deleted in a directory; see `DropboxFS.deleted`."""
        return list(self._delegated("deleted", path))

    def restore(self, path: str, rev: str | None = None) -> int:
        """Bring back a revision, or what was deleted; see `DropboxFS.restore`."""
        return int(self._delegated("restore", path, rev))

    def _delegated(self, method: str, path: str, *arguments: object) -> Any:
        self.check()
        _fs, _path = self.delegate_path(path)
        with unwrap_errors(path):
            return getattr(_fs, method)(_path, *arguments)

    def _transfer(self, method: str, source: str, target: str, **options: bool) -> None:
        self.check()
        _fs, _source = self.delegate_path(source)
        _target = self.delegate_path(target)[1]
        with unwrap_errors({_source: source, _target: target}):
            getattr(_fs, method)(_source, _target, **options)


class ClosingDropboxSubFS(DropboxSubFS):
    """The same, which closes the account with itself."""

    def close(self) -> None:
        self.delegate_fs().close()
        super().close()
