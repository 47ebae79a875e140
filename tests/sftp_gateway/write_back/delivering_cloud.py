"""A storage as Dropbox is one, for random deliveries: names that fold, versions, content that is sent ahead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fs import errors
from fs.info import Info
from fs.path import basename, dirname, isparent, join, recursepath

from sftp_gateway.files.folding import fold_path, moved


@dataclass(frozen=True)
class Node:
    """A file, or a directory, which has no content."""

    path: str
    content: bytes | None
    version: str = ""
    modified: int = 0


@dataclass
class Staged:
    """Content that was sent ahead. `stored`: it is or has been visible."""

    content: bytes
    stored: bool = False
    forgotten: bool = False


class Cloud:
    """What the account holds, shared by all who use it. `on_commit` hears of each file before it becomes visible."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.staged: dict[str, Staged] = {}
        self.late: list[tuple[str, Callable[[], object]]] = []  # by token: calls whose clients have given up
        self.refused: dict[str, Exception] = {}  # by folded path
        self.full = False
        self.on_make: Callable[[str], None] = lambda _: None  # hears of each directory
        self.on_commit: Callable[[str, bytes, Node | None, int, str], None] = lambda *_: None
        self._count = 0

    def find(self, path: str) -> Node | None:
        return self.nodes.get(fold_path(path))

    def files(self) -> dict[str, bytes]:
        return {key: node.content for key, node in self.nodes.items() if node.content is not None}

    def below(self, path: str) -> list[str]:
        return [key for key in self.nodes if key != "/" and isparent(fold_path(path), key) and key != fold_path(path)]

    def info(self, path: str) -> Info:
        node = self.find(path)
        if path == "/":
            return Info({"basic": {"name": "", "is_dir": True}, "details": {"type": 1}})
        if node is None:
            raise errors.ResourceNotFound(path)
        is_file = node.content is not None
        details = {"type": 2 if is_file else 1, "size": len(node.content or b""), "modified": node.modified}
        return Info({"basic": {"name": basename(node.path), "is_dir": not is_file}, "details": details})

    def commit(self, path: str, content: bytes, modified: int, *, expected: str | None, by: str, parents: bool) -> None:
        key, there = fold_path(path), self.find(path)
        if key in self.refused:
            raise self.refused[key]
        if self.full:
            raise errors.InsufficientStorage(path)
        for above in recursepath(dirname(path)):
            node = self.find(above)
            if node is not None and node.content is not None:
                raise errors.DirectoryExpected(above)
        if there is not None and there.content is None:
            raise errors.FileExpected(path)
        if expected == "" and there is not None:
            raise errors.FileExists(path)
        if expected and (there is None or there.version != expected):
            if there is None or there.content != content:
                raise errors.OperationFailed(path, msg="the file was changed by someone else meanwhile")
            return
        if parents:
            self.makedirs(dirname(path))
        elif dirname(path) != "/" and self.find(dirname(path)) is None:
            raise errors.ResourceNotFound(path)
        self.on_commit(path, content, there, modified, by)
        if there is not None and there.content == content:
            return  # no new version
        self._count += 1
        self.nodes[key] = Node(there.path if there else self.spelled(path), content, f"v{self._count}", modified)

    def spelled(self, path: str) -> str:
        above = self.find(dirname(path))
        return join(above.path if above is not None else "/", basename(path))

    def makedirs(self, path: str) -> None:
        for each in recursepath(path)[1:]:
            if (node := self.find(each)) is None:
                self._make(each)
            elif node.content is not None:
                raise errors.DirectoryExpected(each)

    def makedir(self, path: str) -> None:
        if self.find(path) is not None:
            raise errors.DirectoryExists(path)
        self.needs_directory(dirname(path), path)
        self._make(path)

    def _make(self, path: str) -> None:
        self.nodes[fold_path(path)] = Node(self.spelled(path), None)
        self.on_make(fold_path(path))

    def needs_directory(self, path: str, told: str) -> None:
        node = self.find(path)
        if path != "/" and node is None:
            raise errors.ResourceNotFound(told)
        if node is not None and node.content is not None:
            raise errors.DirectoryExpected(told)

    def remove(self, path: str) -> None:
        node = self.find(path)
        if node is None:
            raise errors.ResourceNotFound(path)
        if node.content is None:
            raise errors.FileExpected(path)
        del self.nodes[fold_path(path)]

    def removetree(self, path: str) -> None:
        for key in [*self.below(path), fold_path(path)]:
            self.nodes.pop(key, None)

    def move(self, source: str, target: str, *, overwrite: bool) -> None:
        node, there = self.find(source), self.find(target)
        if node is None:
            raise errors.ResourceNotFound(source)
        self.needs_directory(dirname(target), target)
        same = fold_path(source) == fold_path(target)
        if there is not None and not same and (not overwrite or there.content is None or node.content is None):
            raise errors.DestinationExists(target)
        if fold_path(target).startswith(fold_path(source) + "/"):
            raise errors.OperationFailed(source, msg="into itself")
        keys = [fold_path(source), *self.below(source)]
        gone = {key: self.nodes.pop(key) for key in keys}
        to = self.spelled(target)
        for each in gone.values():
            path = moved(each.path, source, to)
            self.nodes[fold_path(path)] = Node(path, each.content, each.version, each.modified)
            if each.content is None:
                self.on_make(fold_path(path))
