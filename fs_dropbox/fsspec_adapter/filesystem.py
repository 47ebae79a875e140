"""`DropboxFileSystem`: the same filesystem for programs that speak fsspec (pandas, Dask, DuckDB, Hugging Face).

fsspec.open("dropbox://Reports/2026.csv", connection="Dropbox (Ann)")   a connection that `fs-dropbox login` stored
fsspec.filesystem("dropbox", app_key=…, app_secret=…, refresh_token=…)  the arguments of DropboxFS
fsspec.open("dropbox://APP_KEY~APP_SECRET:REFRESH_TOKEN@/Reports/2026.csv")
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final

import fs.errors
from fs.base import FS
from fs.info import Info
from fs.mode import Mode
from fs.opener.parse import parse_fs_url
from fs.path import abspath, basename, dirname, join, normpath
from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.compression import compr
from fsspec.core import get_compression
from fsspec.utils import isfilelike

from fs_dropbox.files.text_files import text_file
from fs_dropbox.fsspec_adapter import bulk
from fs_dropbox.fsspec_adapter.accounts import Accounts
from fs_dropbox.fsspec_adapter.files import CompressedFile, DropboxFile
from fs_dropbox.fsspec_adapter.os_errors import os_errors
from fs_dropbox.fsspec_adapter.patterns import LiteralNames
from fs_dropbox.fsspec_adapter.transactions import OwnTransactions
from fs_dropbox.opener import arguments, folder_of

_NAMESPACES: Final = ("basic", "details", "dropbox")
_SECRETS: Final = ("app_secret", "refresh_token", "access_token", "token", "fs_url")
_SCHEME: Final = "dropbox://"


class DropboxFileSystem(OwnTransactions, LiteralNames):
    """A Dropbox account in fsspec's terms. Thread-safe; equal options share one account and its cache.

    Arguments:
        connection: name of a connection that `fs-dropbox login` stored; without any argument the default one.
        fs_url: an FS URL, see `fs_dropbox.opener`. (Not `url`: so fsspec's own functions call the path they take.)
        arguments: those of `DropboxFS`; `token` is an access token, as for dropboxdrivefs.

    Opened on first use. Errors are OSError with number and path. Paths begin with a slash, and are matched as Dropbox
    does: without regard to case. Pickles and `to_json()` hold the credentials that were given.
    """

    protocol = "dropbox"
    root_marker = "/"
    _accounts = Accounts()

    def __init__(self, connection: str | None = None, fs_url: str | None = None, **options: Any) -> None:
        super().__init__(connection=connection, fs_url=fs_url, **options)
        named = {"connection": connection, "fs_url": fs_url}
        ignored = ("use_listings_cache", "listings_expiry_time", "max_paths", "asynchronous", "loop")
        given = {name: value for name, value in options.items() if name not in ignored}
        self._options = {name: value for name, value in named.items() if value is not None} | given

    @property
    def filesystem(self) -> FS:
        """The PyFilesystem behind it."""
        with os_errors("/"):
            return self._accounts.get(self._options)

    @property
    def fsid(self) -> str:
        return f"dropbox_{self._fs_token}"

    @classmethod
    def clear_instance_cache(cls) -> None:
        """Forget all instances and close their accounts."""
        super().clear_instance_cache()
        cls._accounts.close()

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget what is cached at and below a path: what is cached follows Dropbox, but by seconds."""
        super().invalidate_cache(path)
        filesystem: Any = self._accounts.known(self._options)
        if filesystem is not None:
            with suppress(fs.errors.FSError):  # of a path that cannot be, or is in a view: nothing is kept of it
                filesystem.forget(self._strip_protocol(path or "/"))

    def to_dict(self, *, include_password: bool = True) -> dict[str, Any]:
        described: dict[str, Any] = super().to_dict(include_password=include_password)
        if not include_password:
            described = {name: value for name, value in described.items() if name not in _SECRETS}
        return described

    # Paths

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text: str = os.fspath(path)
        if _has_credentials(text):
            text = folder_of(parse_fs_url(text))
        else:
            text = text.removeprefix(_SCHEME).removeprefix("dropbox::")
        return abspath(normpath(text))

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        return arguments(parse_fs_url(path)) if _has_credentials(path) else {}

    # Looking

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        with os_errors(path):
            return _details(path, self.filesystem.getinfo(path, _NAMESPACES))

    def ls(self, path: str, detail: bool = True, refresh: bool = False, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        if refresh:
            self.invalidate_cache(path)
        with os_errors(path):
            filesystem = self.filesystem
            info = filesystem.getinfo(path, _NAMESPACES)
            if info.is_dir:
                found = [_details(join(path, child.name), child) for child in filesystem.scandir(path, _NAMESPACES)]
            else:
                found = [_details(path, info)]
        found.sort(key=lambda entry: str(entry["name"]))
        return found if detail else [entry["name"] for entry in found]

    def exists(self, path: str, **_: Any) -> bool:
        """Tell whether there is something; raises OSError where that cannot be told."""
        return self._type(path) != ""

    def isdir(self, path: str) -> bool:
        return self._type(path) == "directory"

    def isfile(self, path: str) -> bool:
        return self._type(path) == "file"

    def _type(self, path: str) -> str:
        """Return what there is, "" for nothing; raises OSError where that cannot be told."""
        try:
            return str(self.info(path)["type"])
        except (FileNotFoundError, NotADirectoryError):
            return ""

    def walk(
        self, path: str, maxdepth: int | None = None, topdown: bool = True, on_error: Any = "omit", **options: Any
    ) -> Iterator[Any]:
        """Walk as `os.walk()` does: what is gone meanwhile is left out, what cannot be listed is an error."""

        def unless_absent(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise error

        on_error = unless_absent if on_error == "omit" else on_error
        yield from super().walk(path, maxdepth=maxdepth, topdown=topdown, on_error=on_error, **options)

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any
    ) -> Any:
        """Return everything below, asked for with one recursive listing."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        path = self._strip_protocol(path)
        found = {entry["name"]: entry for entry in self._below(path, maxdepth, withdirs)}
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    def _below(self, path: str, maxdepth: int | None, withdirs: bool) -> Iterator[dict[str, Any]]:
        try:
            top = self.info(path)
        except FileNotFoundError:
            return
        if top["type"] == "file" or withdirs:
            yield top
        if top["type"] == "file":
            return
        with os_errors(path):
            for below, info in self.filesystem.walk.info(path, namespaces=_NAMESPACES, max_depth=maxdepth):
                if withdirs or not info.is_dir:
                    yield _details(below, info)

    def created(self, path: str) -> datetime:
        """Return when Dropbox stored this content: it knows no earlier time."""
        return self._time(path, "server_modified")

    def modified(self, path: str) -> datetime:
        return self._time(path, "modified")

    def _time(self, path: str, name: str) -> datetime:
        found: datetime | None = self.info(path)[name]
        if found is None:
            raise IsADirectoryError(f"Dropbox keeps no times of folders: {path}")
        return found

    def checksum(self, path: str) -> int:
        return int(self.ukey(path)[:16], 16)

    def ukey(self, path: str) -> str:
        """Return a text that changes with the content: Dropbox's content hash."""
        return str(self.info(path)["content_hash"] or super().ukey(path))

    def sign(self, path: str, **_: Any) -> str:
        """Return a link to the content; it lasts four hours, whatever is asked for."""
        path = self._strip_protocol(path)
        with os_errors(path):
            return str(self.filesystem.geturl(path, purpose="download"))

    # Opening

    def _open(self, path: str, mode: str = "rb", autocommit: bool = True, **options: Any) -> DropboxFile:
        for name in ("block_size", "cache_options", "size"):  # of fsspec's own caches, which are not in use
            options.pop(name, None)
        # To zarr a chunk that is missing is one of zeros: none that another process has just stored may seem to be.
        options.setdefault("believe_absence", False)
        with os_errors(path):
            try:
                binary = self.filesystem.openbin(path, mode, **options)
            except fs.errors.ResourceNotFound:
                if mode.startswith("r"):
                    raise
                # As elsewhere in fsspec, and at Dropbox, the folders above come with the file.
                self.filesystem.makedirs(dirname(path), recreate=True)
                binary = self.filesystem.openbin(path, mode, **options)
        return DropboxFile(self, path, mode, binary, autocommit=autocommit)

    def open(self, path: str, mode: str = "rb", compression: str | None = None, **options: Any) -> Any:
        """Open a file, also as text and compressed; an exception in its `with` block discards what was written."""
        path = self._strip_protocol(path)
        text = {"encoding": "utf-8", "errors": None, "newline": None}
        text |= {name: options.pop(name) for name in list(options) if name in text}
        binary_mode = mode if "b" in mode else mode.replace("t", "") + "b"
        file = super().open(path, binary_mode, **options)
        codec = get_compression(path, compression)
        if codec is not None:
            file = CompressedFile(compr[codec](file, mode=mode[0]), file)
        return file if "b" in mode else text_file(file, Mode(mode), **text)  # type: ignore[arg-type]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """Return the content, or a slice of it as Python has slices."""
        with self.open(path, "rb", **options) as file:
            begin, stop, _ = slice(start, end).indices(file.size)
            file.seek(begin)
            return bytes(file.read(max(stop - begin, 0)))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        """Store a content, with the mode "create" where nothing is."""
        with self.open(path, "xb" if mode == "create" else "wb", **options) as file:
            file.write(value)

    def get_file(self, rpath: str, lpath: Any = None, callback: Callback = DEFAULT_CALLBACK, **options: Any) -> None:
        """Download a file, whole or not at all, or make a folder like one."""
        if lpath is None or isfilelike(lpath) or options or self.isdir(rpath):
            super().get_file(rpath, lpath, callback=callback, **options)
            return
        bulk.get(self.filesystem, self._strip_protocol(rpath), os.fspath(lpath), callback)

    def touch(self, path: str, truncate: bool = True, **_: Any) -> None:
        """Create an empty file; an existing one is emptied, or with truncate=False left alone, its time as well."""
        if truncate or not self.exists(path):
            self.pipe_file(path, b"")

    def put(
        self,
        lpath: Any,
        rpath: Any,
        recursive: bool = False,
        callback: Callback = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **options: Any,
    ) -> None:
        """Upload files and folders, many in few calls; where one cannot be stored the others are, and it is told."""
        if options or self._intrans:  # a transaction stores what it opens, at its end
            super().put(lpath, rpath, recursive=recursive, callback=callback, maxdepth=maxdepth, **options)
            return
        pairs = bulk.Pairs()
        super().put(lpath, rpath, recursive=recursive, callback=pairs, maxdepth=maxdepth)
        found = [(os.fspath(local), self._strip_protocol(remote)) for local, remote in pairs.found]
        if len(found) > 1:
            bulk.put(self.filesystem, found, callback)
        else:  # as lists they are taken as they are: nothing is looked for twice
            super().put([local for local, _ in found], [remote for _, remote in found], callback=callback)

    def pipe(self, path: Any, value: bytes | None = None, **options: Any) -> None:
        """Store a content, or many by path, in few calls, as `put` does."""
        if isinstance(path, dict) and not options and not self._intrans:
            bulk.pipe(self.filesystem, {self._strip_protocol(each): value for each, value in path.items()})
        else:
            super().pipe(path, value, **options)

    # Changing

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        path = self._strip_protocol(path)
        with self._file_exists(path), os_errors(path):
            (self.filesystem.makedirs if create_parents else self.filesystem.makedir)(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        path = self._strip_protocol(path)
        with self._file_exists(path), os_errors(path):
            self.filesystem.makedirs(path, recreate=exist_ok)

    @contextmanager
    def _file_exists(self, path: str) -> Iterator[None]:
        """Raise FileExistsError, as `os.mkdir` does, where a folder is to be made of what is a file."""
        try:
            yield
        except NotADirectoryError as error:
            if self.isfile(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
            raise

    def rmdir(self, path: str) -> None:
        path = self._strip_protocol(path)
        with os_errors(path):
            self.filesystem.removedir(path)

    def rm_file(self, path: str) -> None:
        path = self._strip_protocol(path)
        with os_errors(path):
            self.filesystem.remove(path)

    def rm(self, path: str | Iterable[str], recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files, many of one folder in few calls, and with `recursive` folders, each in one call."""
        found = self.expand_path(path, recursive=recursive and maxdepth is not None, maxdepth=maxdepth)[::-1]
        files: list[str] = []
        folders: list[str] = []
        for one in found:
            (folders if self.isdir(one) else files).append(one)
        if folders and not recursive and maxdepth is None:
            raise IsADirectoryError(f"{folders[0]} is a folder: give recursive=True")
        bulk.remove(self.filesystem, files)
        for folder in folders:
            if maxdepth is not None:
                self.rmdir(folder)
            else:
                with os_errors(folder):
                    self.filesystem.removetree(folder)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy a file, or make a folder like one, without the bytes passing here."""
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        with os_errors():
            if self.filesystem.isdir(path1):
                self.filesystem.makedirs(path2, recreate=True)
                return
            self.filesystem.makedirs(dirname(path2), recreate=True)
            self.filesystem.copy(path1, path2, overwrite=True)

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **_: Any) -> None:
        """Move a file or a folder in one call; of lists and patterns one after the other.

        With `maxdepth` only files that are no deeper; the others stay, and so do the folders.
        """
        if not isinstance(path1, str) or maxdepth is not None or self.is_pattern(path1):
            # What is found now, and nothing that comes meanwhile: fsspec copies, and removes what is found then.
            for pair in bulk.moves(self, path1, path2, recursive=recursive, maxdepth=maxdepth):
                self._mv_one(*pair)
            return
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        is_folder = self.isdir(source)
        if is_folder and not recursive:
            raise IsADirectoryError(f"{source} is a folder: give recursive=True")
        if self.isdir(target) or str(path2).endswith("/"):
            target = join(target, basename(source))
        self._mv_one(source, target, is_folder)

    def _mv_one(self, source: str, target: str, is_folder: bool) -> None:
        with os_errors():
            self.filesystem.makedirs(dirname(target), recreate=True)
            if is_folder:
                self.filesystem.movedir(source, target, create=True)
            else:
                self.filesystem.move(source, target, overwrite=True)


def _has_credentials(path: str) -> bool:
    """Tell an FS URL from the path of a folder with an "@" in its name."""
    user, at, _ = path.removeprefix(_SCHEME).partition("/")[0].rpartition("@")
    return path.startswith(_SCHEME) and bool(at) and ":" in user


def _details(path: str, info: Info) -> dict[str, Any]:
    """Return what fsspec wants to know; times are aware datetimes, None for folders.

    Files have `mtime` as well, in seconds: pyarrow, universal_pathlib and fsspec's FUSE look for it.
    """
    described: dict[str, Any] = {"name": path, "type": "directory" if info.is_dir else "file"}
    described["size"] = 0 if info.is_dir else info.size
    described["modified"] = None if info.is_dir else info.modified
    if info.modified is not None and not info.is_dir:
        described["mtime"] = info.modified.timestamp()
    stored = info.get("dropbox", "server_modified")
    described["server_modified"] = datetime.fromtimestamp(stored, UTC) if stored else None
    return described | {name: info.get("dropbox", name) for name in ("id", "rev", "content_hash")}
