"""`WriteBackFS`: a filesystem whose files are acknowledged when they are on local disk, and delivered later."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from fs import errors
from fs.base import FS
from fs.info import Info
from fs.path import dirname
from fs.permissions import Permissions
from fs.subfs import SubFS

from sftp_gateway.sftp.status import RefusedError
from sftp_gateway.write_back.between import Between, WriteBackLimits
from sftp_gateway.write_back.delivery import Delivery
from sftp_gateway.write_back.elsewhere import Elsewhere
from sftp_gateway.write_back.journal import Journal
from sftp_gateway.write_back.journal_rows import ConflictError, Pending
from sftp_gateway.write_back.outgoing import Outgoing
from sftp_gateway.write_back.pending_directories import PendingDirectories
from sftp_gateway.write_back.pending_files import info_of

_STOP_SECONDS = 5.0


class WriteBackFS(FS):
    """Another filesystem together with the files that are still to be delivered to it: every call sees those as well.

    `openbin(path, "w" or "x", write_back=True)` gives a file whose `close()` returns when its content is on local disk
    and in the journal. All other changes are the filesystem's own calls; if they concern pending files, they change
    only the journal (if the files have not left yet), or wait until the files are delivered. Owned by an account.
    Thread-safe. The filesystem needs atomic writes (docs/architecture.md, "The seam"). Raises `RefusedError` as well as
    `fs.errors`.
    """

    def __init__(
        self, filesystem: FS, journal: Journal, *, label: str = "", limits: WriteBackLimits | None = None
    ) -> None:
        super().__init__()
        limits = limits or WriteBackLimits()
        self.journal = journal
        self._elsewhere = Elsewhere(filesystem, journal)
        self.is_viewed: Callable[[str], bool] | None = getattr(filesystem, "is_viewed", None)
        self._filesystem = filesystem
        self._inner = PendingDirectories(filesystem, journal.directories)
        self._between = Between(self._inner, journal, self._elsewhere, limits)
        self._delivery = Delivery(filesystem, journal, label=label, delay_seconds=limits.delay_seconds)
        self._delivery.start()

    def close(self) -> None:
        """End the delivery, which closes the journal; pending files wait for the next delivery. Idempotent."""
        if self.isclosed():
            return
        super().close()
        self._delivery.stop(_STOP_SECONDS)
        self._filesystem.close()  # breaks off what is under way
        self._delivery.stop(_STOP_SECONDS)

    @property
    def is_busy(self) -> bool:
        """Whether this process still has something to deliver; also if its disk fails to tell."""
        try:
            return self._delivery.is_mine and self.journal.is_live("/")
        except sqlite3.Error:
            return True

    def drain(self, seconds: float) -> bool:
        """Deliver as much as possible within `seconds`; tell whether that was all."""
        try:
            if self.journal.is_live("/"):
                self.journal.hurry("/")
                self.journal.wait(lambda: not self.journal.is_live("/"), seconds)
            return not self.journal.is_live("/")
        except sqlite3.Error:  # its disk is full or broken: what waits in it waits for the next start
            return False

    # -- looking

    def getmeta(self, namespace: str = "standard") -> Mapping[str, object]:
        """Return the filesystem's meta information, changed by what write-back adds."""
        meta = self._filesystem.getmeta(namespace)
        if namespace != "standard":
            return meta
        return {**meta, "network": True, "write_back": True, "at_once_bytes": self._between.inline}

    def validatepath(self, path: str) -> str:
        return self._filesystem.validatepath(path)

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        info = self._look(path, namespaces, self._inner.getinfo)
        assert info is not None
        return info

    def cached_info(self, path: str, namespaces: Collection[str] | None = None) -> Info | None:
        """Return the Info if that needs no waiting; raises ResourceNotFound if the path is known to be absent."""
        return self._look(path, namespaces, self._inner.cached_info)

    def _look(
        self, path: str, namespaces: Collection[str] | None, in_storage: Callable[..., Info | None]
    ) -> Info | None:
        pending = self._elsewhere.find(path)
        if pending is not None and not pending.failed:
            return info_of(pending)
        try:
            return in_storage(path, namespaces)
        except errors.ResourceNotFound:
            if pending is None:
                raise
            return info_of(pending)

    def listdir(self, path: str) -> list[str]:
        return [info.name for info in self.scandir(path)]

    def scandir(
        self, path: str, namespaces: Collection[str] | None = None, page: tuple[int, int] | None = None
    ) -> Iterator[Info]:
        pages = self._scan(path, namespaces)
        return iter(list(pages)[page[0] : page[1]]) if page is not None else pages

    def cached_listing(self, path: str, namespaces: Collection[str] | None = None) -> Iterator[Info] | None:
        """Return what `scandir` would if that needs no waiting, else None."""
        if self._elsewhere.find(path) is not None:
            return None
        children = self._pending_in(path)
        infos = self._inner.cached_listing(path, namespaces)
        return None if infos is None else self._with_pending(infos, children)

    def _scan(self, path: str, namespaces: Collection[str] | None) -> Iterator[Info]:
        self._refuse_file(path)
        children = self._pending_in(path)
        yield from self._with_pending(self._inner.scandir(path, namespaces=namespaces), children)

    def _pending_in(self, path: str) -> dict[str, Pending]:
        children = self.journal.children(path)
        self._elsewhere.find_below(path)  # what is not among them any more
        return children

    def _with_pending(self, infos: Iterable[Info], children: dict[str, Pending]) -> Iterator[Info]:
        for info in infos:
            pending = children.pop(self.journal.fold(info.name), None)
            yield info if pending is None or pending.failed else info_of(pending, info.name)
        for pending in children.values():
            yield info_of(pending)

    # -- files

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> BinaryIO:
        """Open a file. Options: those of the filesystem, `write_back`, and with that `at_once`.

        A file that is to be stored `at_once` raises `NotAtOnceError`, with nothing changed, if it had to wait for more
        than the local disk.
        """
        write_back, at_once = options.pop("write_back", False), options.pop("at_once", False)
        if set(mode) <= {"r", "b"}:
            return self._open_for_reading(path, mode)
        if set(mode) <= {"w", "x", "b"}:
            exclusive = "x" in mode
            return Outgoing(  # type: ignore[return-value]
                self._between, path, options, exclusive=exclusive, local=write_back, at_once=at_once
            )
        self._between.deliver(path)
        file: BinaryIO = self._inner.openbin(path, mode, buffering, **options)
        return file

    def _open_for_reading(self, path: str, mode: str) -> BinaryIO:
        while True:
            pending = self._elsewhere.find(path)
            if pending is None or pending.failed:
                try:
                    file: BinaryIO = self._inner.openbin(path, mode)
                except errors.ResourceNotFound:
                    if pending is None:
                        raise
                else:
                    return file
            assert pending is not None
            try:
                return self._between.reader(pending)  # type: ignore[return-value]
            except FileNotFoundError:
                if self.journal.get(pending.id) is not None:
                    raise RefusedError("its copy on the gateway's disk is damaged") from None
                continue  # delivered just now

    # -- names

    def makedir(self, path: str, permissions: Permissions | None = None, recreate: bool = False) -> SubFS[FS]:
        if self._elsewhere.find(path) is not None:
            raise errors.DirectoryExists(path)
        self._inner.makedir(path, permissions, recreate)
        return self.opendir(path)

    def makedir_later(self, path: str) -> None:
        """Make a directory, which the storage gets when a file is delivered into it, or a moment later."""
        if self._elsewhere.find(path) is not None:
            raise errors.DirectoryExists(path)
        self._refuse_file(dirname(path))
        if not self._between.has_room(0):
            self._inner.makedir(path)
            return
        self._inner.makedir_later(path)
        self.journal.bell.ring()

    def removedir(self, path: str) -> None:
        self._refuse_file(path)
        if self.journal.is_shown_below(path):
            raise errors.DirectoryNotEmpty(path)
        self._between.once_settled(lambda: self._inner.removedir(path))
        self.journal.hide_failed(path)

    def remove(self, path: str) -> None:
        pending = self._elsewhere.find(path)
        if pending is None:
            self._inner.remove(path)
            return
        if self._discard(path):
            return
        self._between.deliver(path)
        if self._failed(pending) and self._discard(path):
            return
        self._refuse_failed(pending)
        self._inner.remove(path)
        self.journal.hide_failed(path)

    def _discard(self, path: str) -> bool:
        """Drop what is pending if the storage does not have it yet; tell whether."""
        committed = not self._between.is_absent(path)
        return self._between.once_settled(lambda: self.journal.discard(path, committed=committed))

    def move(self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False) -> None:
        pending = self._elsewhere.find(src_path)
        if pending is not None and self._rename(src_path, dst_path, overwrite=overwrite):
            return
        self._between.deliver(src_path)
        if self._failed(pending) and self._rename(src_path, dst_path, overwrite=overwrite):
            return
        self._refuse_failed(pending)
        self._between.deliver(dst_path)
        self._inner.move(src_path, dst_path, overwrite=overwrite, preserve_time=preserve_time)
        self.journal.hide_failed(src_path)
        self.journal.hide_failed(dst_path)

    def _rename(self, source: str, target: str, *, overwrite: bool) -> bool:
        """Rename what is pending if the storage does not have it yet; tell whether."""
        parent = dirname(target)
        if parent != "/" and not self.isdir(parent):
            raise errors.ResourceNotFound(target)
        committed = not self._between.is_absent(source)
        occupied = not self._between.is_absent(target)
        try:
            return self._between.once_settled(
                lambda: self.journal.rename(source, target, replace=overwrite, occupied=occupied, committed=committed)
            )
        except ConflictError:
            raise errors.DestinationExists(target) from None

    def movedir(self, src_path: str, dst_path: str, create: bool = False, preserve_time: bool = False) -> None:
        self._between.deliver(src_path)
        self._between.deliver(dst_path)
        self._inner.movedir(src_path, dst_path, create=create, preserve_time=preserve_time)
        self.journal.hide_failed(src_path)
        self.journal.hide_failed(dst_path)
        self.journal.move_failed(src_path, dst_path)

    def copy(self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False) -> None:
        pending = self._elsewhere.find(src_path)
        self._between.deliver(src_path)
        self._refuse_failed(pending)
        self._between.deliver(dst_path)
        self._inner.copy(src_path, dst_path, overwrite=overwrite, preserve_time=preserve_time)
        self.journal.hide_failed(dst_path)

    def setinfo(self, path: str, info: Mapping[str, Mapping[str, object]]) -> None:
        """Set the time that a pending file will have; nothing else of it can be set."""
        modified: Any = info.get("details", {}).get("modified")
        if self._elsewhere.find(path) is None:
            self._inner.setinfo(path, info)
        elif modified is not None:
            self.journal.set_modified(path, int(modified))

    def _failed(self, pending: Pending | None) -> Pending | None:
        """Return what was pending if the storage has refused it permanently since."""
        now = self.journal.get(pending.id) if pending is not None and not pending.failed else None
        return now if now is not None and now.failed else None

    def _refuse_failed(self, pending: Pending | None) -> None:
        """Raise `RefusedError` if a pending file was refused: the request meant that, not what the storage has."""
        failed = self._failed(pending)
        if failed is not None:
            raise RefusedError(f"what was uploaded there was refused: {failed.reason}")

    def _refuse_file(self, path: str) -> None:
        pending = self._elsewhere.find(path)
        if pending is not None and not pending.failed:
            raise errors.DirectoryExpected(path)
