"""`DropboxFS`: a Dropbox account as a PyFilesystem. Owns what it is composed of; knows no HTTP, no JSON, no SDK."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import IO, Any, BinaryIO, Self

import fs.errors
from fs.enums import ResourceType
from fs.info import Info
from fs.mode import Mode
from fs.path import abspath, normpath
from fs.permissions import Permissions

from fs_dropbox import paths
from fs_dropbox.api.auth import Credentials
from fs_dropbox.api.retry import OPEN_SECONDS
from fs_dropbox.conventions import as_given, binary_mode, errors_at, path_error
from fs_dropbox.entries import FileEntry, FolderEntry
from fs_dropbox.errors import opening
from fs_dropbox.files.read_file import COPY_BYTES
from fs_dropbox.files.text_files import text_file
from fs_dropbox.filesystem.about import ABILITIES
from fs_dropbox.filesystem.assembly import assemble
from fs_dropbox.filesystem.beyond import Beyond
from fs_dropbox.filesystem.options import Options
from fs_dropbox.filesystem.subfolder import DropboxSubFS, OpensFolders
from fs_dropbox.filesystem.walker import DropboxWalker
from fs_dropbox.views.documents import Show


class DropboxFS(OpensFolders, Beyond):
    """A Dropbox account, or what an app may see of it.

    Thread-safe, and no lock is held over a request. Close it: it owns threads and connections.

    Arguments:
        app_key, app_secret: of the app; without a secret for PKCE apps.
        refresh_token: from `fs-dropbox login`.
        access_token: instead of a refresh token; lasts four hours.
        member: e-mail address or id of the team member to act as (needs a team's token).
        admin: the same of the administrator to act as, who sees what belongs to the team and, by `root`, to members.
        email: with an access token: the address that the token must belong to.
        root: "auto" (the team's space where there is one), "home", or a namespace id.
        cache: keep metadata; False asks Dropbox each time.
        cache_ttl_seconds: how long metadata is believed while the change feed is not live.
        change_feed: follow foreign changes live (one thread).
        api_host: "host:port" of a stand-in for Dropbox, "http://host:port" of one without TLS.
        ca_certs: path of a PEM file of certificate authorities to trust instead of the usual.
        timeout_seconds: bound of each wait for the network.
        open_seconds: how long opening tries to reach Dropbox.
        documents: how Paper and Google documents are shown: "export" as what they are exported as, "as_is" by their own
            names and unreadable, "hide" not in listings.
        export: the formats to prefer for them, such as ("html",); a default by kind for others.
        views: whether `.versions` and `.deleted` in every folder, and `/.shared`, can be entered.

    Raises:
        fs.errors.CreateFailed: the credentials are refused, or make no sense.
        fs.errors.RemoteConnectionError: Dropbox cannot be reached; its `reason` says where, why, and what to check.
    """

    _meta = dict(ABILITIES)
    walker_class = DropboxWalker

    def __init__(
        self,
        app_key: str | None = None,
        app_secret: str | None = None,
        refresh_token: str | None = None,
        *,
        access_token: str | None = None,
        member: str | None = None,
        email: str | None = None,
        root: str = "auto",
        cache: bool = True,
        cache_ttl_seconds: float = 30.0,
        change_feed: bool = True,
        api_host: str | None = None,
        ca_certs: str | None = None,
        timeout_seconds: float = 60.0,
        open_seconds: float = OPEN_SECONDS,
        admin: str | None = None,
        documents: Show = "export",
        export: str | Sequence[str] = (),
        views: bool = False,
    ) -> None:
        super().__init__()
        # PyFilesystem's base class takes a lock around whole transfers: nothing here needs it.
        self._lock = contextlib.nullcontext()  # type: ignore[assignment]
        self._process = os.getpid()
        with opening():
            self._parts = assemble(
                Credentials(app_key, app_secret, refresh_token, access_token, member, email, admin),
                Options(
                    root=root,
                    api_host=api_host,
                    ca_certs=ca_certs,
                    timeout_seconds=timeout_seconds,
                    open_seconds=open_seconds,
                    ttl_seconds=cache_ttl_seconds if cache else -1.0,
                    change_feed=change_feed and cache,
                    documents=documents,
                    export=export.split(",") if isinstance(export, str) else export,
                    views=views,
                ),
            )
        self._shown = self._parts.shown

    def __repr__(self) -> str:
        return f"<DropboxFS {self._parts.account.email!r}{' closed' if self.isclosed() else ''}>"

    def __str__(self) -> str:
        return f"<dropbox {self._parts.account.email}>"

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Discard open writes, end every thread and close every connection. Idempotent."""
        if self.isclosed():
            return
        super().close()
        if hasattr(self, "_parts"):  # without, the constructor has failed
            self._parts.close()

    def __del__(self) -> None:
        """Close it in a thread of its own: the garbage collector comes in any, whatever that has locked just now."""
        if hasattr(self, "_parts") and not self.isclosed() and not sys.is_finalizing():
            with contextlib.suppress(RuntimeError):  # no thread is left, or the program ends
                threading.Thread(target=self._parts.close, name="fs-dropbox-close", daemon=True).start()

    def isclosed(self) -> bool:
        """Tell whether it is closed: in a process that was forked since it is, as all it has is the parent's."""
        return super().isclosed() or os.getpid() != self._process

    # Looking

    @as_given
    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        return self._shown.info(self.validatepath(path), namespaces or ())

    def exists(self, path: str) -> bool:
        return self._shown.find(self.validatepath(path)) is not None

    def isdir(self, path: str) -> bool:
        return isinstance(self._shown.find(self.validatepath(path)), FolderEntry)

    def isfile(self, path: str) -> bool:
        return isinstance(self._shown.find(self.validatepath(path)), FileEntry)

    def islink(self, path: str) -> bool:
        return bool(self.getinfo(path, ("link",)).is_link)

    def gettype(self, path: str) -> ResourceType:
        return self.getinfo(path, ("details",)).type

    @as_given
    def listdir(self, path: str) -> list[str]:
        return [entry.name for entry in self._shown.children(self.validatepath(path))]

    @as_given
    def scandir(
        self, path: str, namespaces: Collection[str] | None = None, page: tuple[int, int] | None = None
    ) -> Iterator[Info]:
        _path = self.validatepath(path)
        if page:  # of one order for all pages: Dropbox has none
            entries = sorted(self._shown.children(_path), key=attrgetter("name"))
            return iter(self._shown.infos(_path, entries[slice(*page)], namespaces or ()))
        pages = self._shown.pages(_path)
        first = next(pages, [])  # what is wrong is told by this call; what follows is asked for when it is wanted
        listed = itertools.chain((first,), pages)
        return (info for entries in listed for info in self._shown.infos(_path, entries, namespaces or ()))

    def getmeta(self, namespace: str = "standard") -> Mapping[str, object]:
        """Return what is known of the filesystem: "standard"; "dropbox", whose account it is and how it is shown;
        "account", {"id": what is the same for every token of the account};
        "state", whether Dropbox holds writers up ("throttled") and foreign changes are heard of ("followed");
        "usage" asks Dropbox, once a minute at most, for {"used": bytes, "total": bytes}."""
        return self._parts.about.meta(namespace)

    @as_given
    def geturl(self, path: str, purpose: str = "download") -> str:
        """Return a link: purpose "download" lasts four hours, "share" is Dropbox's shared link."""
        _path = self.validatepath(path)
        if purpose not in ("download", "share"):
            raise fs.errors.NoURL(path, purpose)
        return self._parts.links.download(_path) if purpose == "download" else self._parts.links.share(_path)

    def hasurl(self, path: str, purpose: str = "download") -> bool:
        """Tell whether there can be a link; makes none."""
        if purpose == "download":
            return self.isfile(path)
        return purpose == "share" and not self.is_viewed(path) and self.exists(path)

    @as_given
    def hash(self, path: str, name: str) -> str:
        """Return a hash of a file; "dropbox" (or "content_hash") is known without reading it."""
        if name in ("dropbox", "content_hash"):
            known = self._shown.require_file(self.validatepath(path))
            if known.content_hash is not None and known.is_downloadable:
                return known.content_hash
            raise fs.errors.UnsupportedHash("Dropbox has no content hash of this file")
        return str(super().hash(path, name))

    def validatepath(self, path: str) -> str:
        """Return the normalised path; raises InvalidPath or InvalidCharsInPath for what Dropbox would refuse."""
        self.check()
        if not isinstance(path, str):
            raise TypeError(f"paths must be unicode (not {type(path).__name__})")
        _path = abspath(normpath(path))
        reason = paths.check_path(_path)
        if reason is not None:
            invalid = any(character in _path for character in paths.REFUSED_CHARACTERS)
            raise path_error(fs.errors.InvalidCharsInPath if invalid else fs.errors.InvalidPath, path, reason)
        return str(_path)

    # Opening

    @as_given
    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> BinaryIO:
        """Open a binary file.

        Options: `expected_version` commits only over that rev; `modified` (aware datetime) is the time to store;
        `seekable=False` writes from the first byte to the last, without a copy on local disk; with it, `resume` (what
        `checkpoint()` of an earlier file told) does not send again what Dropbox has: write all bytes once more;
        `version` reads that rev of a file, present or deleted; with `believe_absence=False` a file to read is missing
        only where Dropbox has just said so: another process may have stored it since it was last looked for.
        """
        _mode = binary_mode(mode)
        _path = self.validatepath(path)
        if _path == "/":
            raise fs.errors.FileExpected(path)
        if not _mode.writing:
            version = options.get("version")
            if version:
                return self._parts.files.read(_path, self._parts.history.version(_path, version))  # type: ignore[return-value]
            return self._shown.open(_path, believe_absence=options.get("believe_absence", True))  # type: ignore[return-value]
        real = self._shown.real(_path)
        with errors_at(path):
            return self._parts.files.open(real, _mode, **options)  # type: ignore[return-value]

    def open(
        self,
        path: str,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str = "",
        **options: Any,
    ) -> IO[Any]:
        _mode = Mode(mode)
        _mode.validate()
        binary = self.openbin(path, mode=mode.replace("t", ""), buffering=buffering, **options)
        if not _mode.text:
            return binary
        return text_file(binary, _mode, encoding=encoding or "utf-8", errors=errors, newline=newline)

    # Changing

    @as_given
    def makedir(self, path: str, permissions: Permissions | None = None, recreate: bool = False) -> DropboxSubFS:
        self._parts.folders.make(self._changeable(path), recreate=recreate)
        return self.opendir(path)

    @as_given
    def makedirs(self, path: str, permissions: Permissions | None = None, recreate: bool = False) -> DropboxSubFS:
        self._parts.folders.make_all(self._changeable(path), recreate=recreate)
        return self.opendir(path)

    @as_given
    def remove(self, path: str) -> None:
        self._parts.server_side.remove_file(self._changeable(path))

    @as_given
    def removedir(self, path: str) -> None:
        _path = self._changeable(path)
        if _path == "/":
            raise fs.errors.RemoveRootError(path)
        self._parts.server_side.remove_folder(_path)

    @as_given
    def removetree(self, dir_path: str) -> None:
        self._parts.server_side.remove_tree(self._changeable(dir_path))

    @as_given
    def copy(self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False) -> None:
        _src, _dst = self.validatepath(src_path), self.validatepath(dst_path)
        if self._shown.is_viewed(_src) and not self._shown.is_viewed(_dst):
            super().copy(src_path, dst_path, overwrite=overwrite)  # a version, or from an account of someone else
        else:
            self._parts.server_side.copy_file(*self._shown.pair(_src, _dst), overwrite=overwrite)

    @as_given
    def move(self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False) -> None:
        _src, _dst = self._shown.pair(self.validatepath(src_path), self.validatepath(dst_path))
        self._parts.server_side.move_file(_src, _dst, overwrite=overwrite)

    @as_given
    def copydir(self, src_path: str, dst_path: str, create: bool = False, preserve_time: bool = False) -> None:
        self._parts.server_side.copy_folder(self._changeable(src_path), self._changeable(dst_path), create=create)

    @as_given
    def movedir(self, src_path: str, dst_path: str, create: bool = False, preserve_time: bool = False) -> None:
        self._parts.server_side.move_folder(self._changeable(src_path), self._changeable(dst_path), create=create)

    @as_given
    def setinfo(self, path: str, info: Mapping[str, Mapping[str, object]]) -> None:
        """Check that the path exists; Dropbox has no call to change times, owners or permissions."""
        self.getinfo(path)

    def create(self, path: str, wipe: bool = False) -> bool:
        try:
            with self.openbin(path, "wb" if wipe else "xb"):
                pass
        except (fs.errors.FileExists, fs.errors.FileExpected):
            if wipe:
                raise
            return False
        return True

    def touch(self, path: str) -> None:
        """Create an empty file where there is nothing; an existing one keeps its time."""
        if not self.exists(path):
            self.create(path)

    def upload(self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any) -> None:
        with self.openbin(path, "wb", seekable=False, **options) as target:
            while data := file.read(chunk_size or COPY_BYTES):
                target.write(data)

    def download(self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any) -> None:
        with self.openbin(path, "rb") as source:
            while data := source.read(chunk_size or COPY_BYTES):
                file.write(data)
