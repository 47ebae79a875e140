"""`DropboxWalker`: walks a tree from one recursive listing instead of one listing for each folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from fs.info import Info
from fs.walk import Walker

if TYPE_CHECKING:
    from fs.base import FS


class DropboxWalker(Walker):
    """PyFilesystem's walker, after the listings below the start have been brought into the cache."""

    def _iter_walk(
        self, fs: FS, path: str, namespaces: Collection[str] | None = None
    ) -> Iterator[tuple[str, Info | None]]:
        wrapped, start = fs.delegate_path(path)
        warm = getattr(wrapped, "warm", None)
        if warm is not None:
            warm(start)
        walk: Iterator[tuple[str, Info | None]] = super()._iter_walk(fs, path, namespaces=namespaces)
        return walk
