"""`DropboxWalker`: walks a tree from one recursive listing instead of one listing for each folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from fs.info import Info
from fs.path import abspath, normpath
from fs.walk import BoundWalker, Walker
from fs.wrapfs import WrapFS

from fs_dropbox.conventions import errors_at

if TYPE_CHECKING:
    from fs.base import FS

    from fs_dropbox.views.shown import Below

_F = TypeVar("_F", bound="FS")


class DropboxWalker(Walker):
    """PyFilesystem's walker over one recursive listing; with a bounded depth, over a listing of each folder."""

    @classmethod
    def bind(cls, fs: _F) -> BoundWalker[_F]:
        # PyFilesystem's own binds its plain walker, whatever the class.
        return BoundWalker(fs, walker_class=cls)

    def _iter_walk(
        self, fs: FS, path: str, namespaces: Collection[str] | None = None
    ) -> Iterator[tuple[str, Info | None]]:
        filesystem, start = _delegated(fs, path)
        walked: Any = fs
        if self.max_depth is None and hasattr(filesystem, "tree_below"):
            listed: Any = filesystem
            walked = _Listed(fs, listed.tree_below(start), listed.infos)
        walk: Iterator[tuple[str, Info | None]] = super()._iter_walk(walked, path, namespaces=namespaces)
        return walk


class _Listed:
    """A filesystem whose directories are known from a tree; everything else is the filesystem's own."""

    def __init__(self, fs: FS, tree: Below, infos: Callable[..., list[Info]]) -> None:
        self._fs = fs
        self._tree = tree
        self._infos = infos

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fs, name)

    def scandir(self, path: str, namespaces: Collection[str] | None = None) -> Iterator[Info]:
        """Yield what is in a directory."""
        folder = abspath(normpath(_delegated(self._fs, path)[1]))
        with errors_at(path):
            return iter(self._infos(folder, self._tree.children(folder), namespaces or ()))


def _delegated(fs: FS, path: str) -> tuple[FS, str]:
    """Return the filesystem within all wrappers, and the path there."""
    while isinstance(fs, WrapFS):
        fs, path = fs.delegate_path(path)
    return fs, path
