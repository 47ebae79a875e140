"""`DropboxWalker`: walks a tree from one recursive listing instead of one listing for each folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, TypeVar

from fs.info import Info
from fs.walk import BoundWalker, Walker
from fs.wrapfs import WrapFS

if TYPE_CHECKING:
    from fs.base import FS

_F = TypeVar("_F", bound="FS")


class DropboxWalker(Walker):
    """PyFilesystem's walker, after the listings below the start have been brought into the cache."""

    @classmethod
    def bind(cls, fs: _F) -> BoundWalker[_F]:
        # PyFilesystem's own binds its plain walker, whatever the class.
        return BoundWalker(fs, walker_class=cls)

    def _iter_walk(
        self, fs: FS, path: str, namespaces: Collection[str] | None = None
    ) -> Iterator[tuple[str, Info | None]]:
        wrapped, start = fs, path
        while isinstance(wrapped, WrapFS):
            wrapped, start = wrapped.delegate_path(start)
        warm = getattr(wrapped, "warm", None)
        if warm is not None and self.max_depth is None:
            warm(start)
        walk: Iterator[tuple[str, Info | None]] = super()._iter_walk(fs, path, namespaces=namespaces)
        return walk
