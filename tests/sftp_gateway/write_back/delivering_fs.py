"""`CloudFS`: a process's way to the cloud of random deliveries, which fails, loses answers and remembers what was."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime
from typing import Any

from fs import errors
from fs.base import FS
from fs.info import Info
from fs.path import basename, dirname

from sftp_gateway.files.folding import fold_path
from tests.sftp_gateway.write_back.delivering_cloud import Cloud, Node, Staged

_FOR_GOOD = (
    errors.FileExists,
    errors.InvalidPath,
    errors.ResourceReadOnly,
    errors.FileExpected,
    errors.DirectoryExpected,
)


class Handle(io.RawIOBase):
    """A file that is written; nobody sees it before `close()`."""

    def __init__(self, fs: CloudFS, path: str, expected: str | None, modified: datetime | None) -> None:
        super().__init__()
        self.modified = modified
        self._fs, self._path, self._expected = fs, path, expected
        self._content = bytearray()
        self._over = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._fs.passes("write", self._path)
        self._content += data
        return len(data)

    def abort(self) -> None:
        self._over = True

    def close(self) -> None:
        super().close()
        if not self._over:
            self._over = True
            self._fs.commit(self._path, bytes(self._content), self.modified, self._expected)


class Version(io.BytesIO):
    """A committed version that is read."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.content or b"")
        self.version = node.version

    def pread(self, offset: int, size: int) -> bytes:
        return self.getvalue()[offset : offset + size]


class CloudFS(FS):
    """One process's way to the cloud: may remember what was, as far as nobody tells otherwise; see `forget`."""

    def __init__(self, cloud: Cloud, *, staging: bool, remembers: bool) -> None:
        super().__init__()
        self._meta = {"atomic_writes": True, "network": True, "case_insensitive": True, "thread_safe": True}
        self._meta |= {"staged_uploads": staging}
        self.cloud = cloud
        self.passes: Callable[[str, str], None] = lambda operation, path: None
        self.passed: Callable[[str, str], None] = lambda operation, path: None
        self.is_lost: Callable[[str, str], bool] = lambda operation, path: (
            False
        )  # the call is carried out late, or never
        self._remembers = remembers
        self._known: dict[str, Node | None] = {}  # by folded path
        self.told: Callable[[], None] = lambda: None  # everybody hears of a change that is no delivery's

    # -- what is remembered

    def forget(self, path: str) -> None:
        """Forget what is at, above and below a path."""
        key = fold_path(path)
        for each in list(self._known):
            if each == key or each.startswith(key.rstrip("/") + "/") or key.startswith(each.rstrip("/") + "/"):
                del self._known[each]

    def _find(self, path: str) -> Node | None:
        key = fold_path(path)
        if not self._remembers:
            return self.cloud.find(path)
        if key not in self._known:
            self._known[key] = self.cloud.find(path)
        return self._known[key]

    # -- the filesystem

    def getinfo(self, path: str, namespaces: Any = None) -> Info:
        self.passes("getinfo", path)
        if path != "/" and self._find(path) is None:
            raise errors.ResourceNotFound(path)
        node = self._find(path)
        if node is not None and node != self.cloud.find(path):
            size = len(node.content or b"")
            details = {"type": 2 if node.content is not None else 1, "size": size, "modified": node.modified}
            return Info({"basic": {"name": basename(node.path), "is_dir": node.content is None}, "details": details})
        return self.cloud.info(path)

    def cached_info(self, path: str, namespaces: Any = None) -> Info | None:
        if fold_path(path) not in self._known:
            return None
        node = self._known[fold_path(path)]
        if node is None:
            raise errors.ResourceNotFound(path)
        return self.cloud.info(path) if node == self.cloud.find(path) else None

    def listdir(self, path: str) -> list[str]:
        return [info.name for info in self.scandir(path)]

    def scandir(self, path: str, namespaces: Any = None, page: Any = None) -> Any:
        self.passes("scandir", path)
        if path != "/":
            node = self._find(path)
            if node is None:
                raise errors.ResourceNotFound(path)
            if node.content is not None:
                raise errors.DirectoryExpected(path)
        keys = [key for key in self.cloud.nodes if dirname(key) == fold_path(path)]
        known = [key for key, node in self._known.items() if dirname(key) == fold_path(path)]
        for key in dict.fromkeys(keys + known):
            if self._find(key) is not None:
                yield self.getinfo(key)

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        self.passes("open", path)
        if "r" in mode:
            node = self.cloud.find(path)
            if node is None:
                raise errors.ResourceNotFound(path)
            if node.content is None:
                raise errors.FileExpected(path)
            return Version(node)
        self.cloud.needs_directory(dirname(path), path)
        expected = "" if "x" in mode else options.get("expected_version")
        return Handle(self, path, expected, options.get("modified"))

    def commit(self, path: str, content: bytes, modified: datetime | None, expected: str | None) -> None:
        moment = int(modified.timestamp()) if modified is not None else 1
        self._call(
            "commit",
            path,
            lambda: self.cloud.commit(path, content, moment, expected=expected, by="plain", parents=False),
        )

    def makedir(self, path: str, permissions: Any = None, recreate: bool = False) -> Any:
        def make() -> None:
            there = self.cloud.find(path)
            if not (recreate and (path == "/" or (there is not None and there.content is None))):
                self.cloud.makedir(path)

        self._call("makedir", path, make)
        return self.opendir("/")

    def removedir(self, path: str) -> None:
        def remove() -> None:
            node = self.cloud.find(path)
            if node is None:
                raise errors.ResourceNotFound(path)
            if node.content is not None:
                raise errors.DirectoryExpected(path)
            if self.cloud.below(path):
                raise errors.DirectoryNotEmpty(path)
            self.cloud.removetree(path)

        self._call("removedir", path, remove)

    def remove(self, path: str) -> None:
        self._call("remove", path, lambda: self.cloud.remove(path))

    def move(self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False) -> None:
        self._call("move", src_path, lambda: self.cloud.move(src_path, dst_path, overwrite=overwrite))
        self.forget(dst_path)

    def movedir(self, src_path: str, dst_path: str, create: bool = False, preserve_time: bool = False) -> None:
        self._call("movedir", src_path, lambda: self.cloud.move(src_path, dst_path, overwrite=False))
        self.forget(dst_path)

    def copy(self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False) -> None:
        def make() -> None:
            node = self.cloud.find(src_path)
            if node is None or node.content is None:
                raise errors.ResourceNotFound(src_path)
            expected = None if overwrite else ""
            self.cloud.commit(dst_path, node.content, node.modified, expected=expected, by="copy", parents=False)

        self._call("copy", src_path, make)
        self.forget(dst_path)

    def setinfo(self, path: str, info: Any) -> None:
        self.getinfo(path)

    def _call(self, operation: str, path: str, work: Callable[[], object]) -> None:
        """Carry out a change, unless it is refused, or lost on its way there or back."""
        self.passes(operation, path)
        try:
            work()
        finally:
            self.forget(path)
            self.told()
        self.passed(operation, path)

    # -- many at once

    def stage_files(self, sources: Any) -> Any:
        self.passes("stage", "")
        for index, (open_file, size) in enumerate(sources):
            with open_file() as file:
                content = file.read()
            assert len(content) == size
            try:
                self.passes("stage one", "")
            except errors.FSError as error:
                yield index, error
                continue
            token = f"token {len(self.cloud.staged)}"
            self.cloud.staged[token] = Staged(content)
            yield index, token

    def commit_files(self, files: Any) -> Any:
        files = list(files)
        self.passes("bulk", "")
        for index, (path, token, modified, expected) in enumerate(files):
            try:
                self.passes("commit", path)
                finish = self._finisher(path, token, int(modified.timestamp()), expected)
                if self.is_lost("commit", path):
                    self.cloud.late.append((token, finish))
                    raise errors.RemoteConnectionError(path, msg="nobody knows")
                try:
                    outcome = finish()
                except _FOR_GOOD:  # by now an earlier call is refused as well
                    self.cloud.late[:] = [late for late in self.cloud.late if late[0] != token]
                    raise
                finally:
                    self.forget(path)
                self.passed("commit", path)
            except errors.FSError as error:
                yield index, error
            else:
                yield index, outcome

    def _finisher(self, path: str, token: str, modified: int, expected: str | None) -> Callable[[], bool]:
        def finish() -> bool:
            staged = self.cloud.staged[token]
            if staged.stored or staged.forgotten:
                return staged.stored
            self.cloud.commit(path, staged.content, modified, expected=expected, by=f"staged {token}", parents=True)
            staged.stored = True
            return True

        return finish
