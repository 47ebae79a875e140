"""`Looking`: what a client sees at a path: committed files, and what is being written in their place."""

from __future__ import annotations

import contextlib
import marshal
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from fs import errors
from fs.info import Info
from fs.path import basename, dirname, join

from sftp_gateway.files.draft import Draft, State
from sftp_gateway.files.listing import list_at_once
from sftp_gateway.files.overlay import Overlay
from sftp_gateway.sftp import attributes
from sftp_gateway.sftp.packets import Attributes

_USAGE = {"total", "used"}
_PACKED_AT_ONCE = 100


class Looking:
    """Attributes, listings and drafts by path, in the filesystem's own paths. Owned by a `Store`. Thread-safe.

    Every method raises `fs.errors`.
    """

    def __init__(
        self, filesystem: Any, overlay: Overlay, *, local: bool, atomic: bool, follow: Callable[..., None] | None
    ) -> None:
        """Look at `filesystem`. If it is `local`, its calls never wait; if it is `atomic`, listings can be streamed.

        `follow` brings other processes' drafts into the overlay; with `at_once=True` it always looks.
        """
        self._filesystem = filesystem
        self._cached_info = getattr(filesystem, "cached_info", None)
        self._cached_listing = getattr(filesystem, "cached_listing", None)
        self._forget = getattr(filesystem, "forget", None)
        self._overlay = overlay
        self._local = local
        self._atomic = atomic
        self._follow = follow
        self._has_usage: bool | None = None

    def current(self, path: str, *, at_once: bool = False) -> Draft | None:
        """Return the draft that is seen at `path`; with `at_once` even one that another process has just left."""
        if self._follow is not None:
            self._follow(at_once=at_once)
        draft = self._overlay.top(path)
        return draft if draft is not None and draft.state is not State.ENDED else None

    def stat(self, path: str) -> Attributes:
        """Return the attributes of what is at `path`, written or being written."""
        draft = self.current(path)
        if draft is not None and draft.state is State.OPEN:
            return of_draft(draft)
        try:
            return self.committed(path)
        except errors.ResourceNotFound:
            draft = draft or self.current(path, at_once=True)
            if draft is not None and draft.state is not State.ENDED:
                return of_draft(draft)
            raise

    def committed(self, path: str) -> Attributes:
        """Return the attributes of the committed file or directory at `path`, whatever is being written there."""
        return attributes.from_info(self._filesystem.getinfo(path, ["details"]))

    def quick_stat(self, path: str) -> Attributes | None:
        """Return the attributes if that is possible without waiting."""
        if self._local:
            return self.stat(path)
        draft = self.current(path)
        if draft is not None and draft.state is State.OPEN:
            return of_draft(draft)
        if self._cached_info is None or draft is not None:
            return None
        try:
            info = self._cached_info(path, ["details"])
        except errors.ResourceNotFound:
            if self.current(path, at_once=True) is not None:
                return None
            raise
        return None if info is None else attributes.from_info(info)

    def is_known_to_be_new(self, path: str) -> bool:
        """Tell, without waiting, whether it is known that `path` is free and its parent is a directory."""
        if self._cached_info is None or self.current(path, at_once=True) is not None:
            return False
        try:
            self._cached_info(path)
        except errors.ResourceNotFound:
            with contextlib.suppress(errors.FSError):
                parent = self._cached_info(dirname(path))
                return parent is not None and attributes.is_directory(parent)
        except errors.FSError:  # whatever is wrong, the slow way reports it
            pass
        return False

    def doubt(self, path: str) -> bool:
        """Forget that something is missing at a path or above it, if another process may have made it since.

        Returns whether there is anything to look up again.
        """
        if self._follow is None or self._cached_info is None or self._forget is None:
            return False
        missing = ""
        while path != "/":
            try:
                self._cached_info(path)
            except errors.ResourceNotFound:
                missing = path
            except errors.FSError:  # whatever is wrong, it was reported
                return False
            path = dirname(path)
        if missing:
            self._forget(missing)
        return bool(missing)

    def scan(self, path: str) -> Iterator[tuple[str, Attributes]]:
        """Yield name and attributes of everything in a directory, what is being written included."""
        drafts = self._drafts_in(path)
        try:
            entries = self._with_drafts(path, self._infos(path), drafts, self._filesystem.getinfo)
            yield from entries if self._atomic else _packed(entries)
        except errors.ResourceNotFound:
            self.check_no_draft(path)
            raise

    def quick_scan(self, path: str) -> Iterator[tuple[str, Attributes]] | None:
        """Return what `scan` yields if that is possible without waiting."""
        if self._cached_listing is None or self._cached_info is None:
            return None
        drafts = self._drafts_in(path)
        try:
            infos = self._cached_listing(path, ["details"])
        except errors.ResourceNotFound:
            self.check_no_draft(path)
            raise
        return None if infos is None else self._with_drafts(path, infos, drafts, self._cached_info)

    def check_no_draft(self, path: str) -> None:
        """Raise `DirectoryExpected` if a file is being written at `path`."""
        if self.current(path) is not None:
            raise errors.DirectoryExpected(path)

    def _drafts_in(self, path: str) -> dict[str, Draft]:
        if self._follow is not None:
            self._follow(at_once=True)
        return self._overlay.children(path)

    def _with_drafts(
        self,
        directory: str,
        infos: Iterable[Info],
        drafts: dict[str, Draft],
        find: Callable[[str, list[str]], Info | None],
    ) -> Iterator[tuple[str, Attributes]]:
        directory = self._overlay.fold(directory)
        for info in infos:
            raw: Any = info.raw
            name: str = raw["basic"]["name"]
            key = self._overlay.fold(name)
            draft = drafts.pop(key, None) if drafts else None
            if draft is None or draft.state is State.PARTIAL:
                yield name, attributes.from_info(info)
            else:
                yield from self._now(join(directory, key), draft, find, name)
        for key, draft in drafts.items():
            yield from self._now(join(directory, key), draft, find)

    def _now(
        self, key: str, draft: Draft, find: Callable[[str, list[str]], Info | None], name: str = ""
    ) -> Iterator[tuple[str, Attributes]]:
        """Yield what is there now of a `draft` that was there when the listing began: it may be committed or gone."""
        current = self._overlay.top(key)
        if current is not None and current.state is not State.ENDED:
            yield name or basename(current.path), of_draft(current)
        elif self._overlay.fold(draft.path) == key:
            with contextlib.suppress(errors.ResourceNotFound):  # removed, or given up
                info = find(draft.path, ["details"])
                yield name or basename(draft.path), of_draft(draft) if info is None else attributes.from_info(info)

    def has_usage(self) -> bool:
        """Tell whether the filesystem knows how full it is; asks it once."""
        if self._has_usage is None:
            try:
                told = set(self._filesystem.getmeta("usage") or ())  # some do not know this namespace
                self._has_usage = told >= _USAGE or self._filesystem.hassyspath("/")
            except errors.FSError:
                return False
        return self._has_usage

    def usage(self) -> tuple[int, int]:
        """Return total and used bytes of the account, or of the disk that a local directory is on."""
        usage = self._filesystem.getmeta("usage") or {}
        if usage.keys() >= _USAGE:  # a wrapper may answer with something else
            return int(usage["total"]), int(usage["used"])
        try:
            disk = shutil.disk_usage(self._filesystem.getsyspath("/"))
        except OSError as error:
            raise errors.OperationFailed("/", exc=error, msg="the disk does not tell how full it is") from error
        return disk.total, disk.total - disk.free

    def _infos(self, path: str) -> Iterable[Info]:
        """List a directory; as a whole if not atomic, as many filesystems hold a lock meanwhile."""
        if self._atomic:
            infos: Iterable[Info] = self._filesystem.scandir(path, namespaces=["details"])
            return infos
        return list_at_once(self._filesystem, path, ["details"])


def of_draft(draft: Draft) -> Attributes:
    """Return the attributes of what is being written: the bytes received so far."""
    modified = draft.modified if draft.modified is not None else draft.touched
    return attributes.file_attributes(draft.size, modified)


def _packed(entries: Iterator[tuple[str, Attributes]]) -> Iterator[tuple[str, Attributes]]:
    """Read all entries at once, and yield them from a compressed copy: a client may open a thousand large directories.

    An entry that waits takes some twenty bytes; its `Info` would take a thousand.
    """
    waiting: deque[bytes] = deque()
    while part := [(name, tuple(value)) for name, value in islice(entries, _PACKED_AT_ONCE)]:
        waiting.append(zlib.compress(marshal.dumps(part), 1))
    while waiting:
        for name, value in marshal.loads(zlib.decompress(waiting.popleft())):
            yield name, Attributes(*value)
