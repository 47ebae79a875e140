"""`LiteralNames`: which paths are patterns."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from fsspec.core import has_magic
from fsspec.spec import AbstractFileSystem


class LiteralNames(AbstractFileSystem):  # type: ignore[misc]
    """For a filesystem whose files have names like `report[1].csv`: what exists under a name is meant by it.

    fsspec takes that for a pattern, even from its own listing: it would read or remove `report1.csv`.
    """

    def is_pattern(self, path: str) -> bool:
        """Tell whether a path stands for what matches it; raises OSError where that cannot be told."""
        return bool(has_magic(path)) and not self.exists(path)

    def expand_path(
        self,
        path: str | os.PathLike[str] | Iterable[str],
        recursive: bool = False,
        maxdepth: int | None = None,
        assume_literal: bool = False,
        **options: Any,
    ) -> list[str]:
        """Return what paths and patterns stand for, with `recursive` also what is below."""
        given = self._strip_protocol([path] if isinstance(path, (str, os.PathLike)) else list(path))
        meant = [] if assume_literal else [one for one in given if has_magic(one) and self.exists(one)]
        found: set[str] = set()
        for paths, literal in ((meant, True), ([one for one in given if one not in meant], assume_literal)):
            if paths or not given:
                found |= set(super().expand_path(paths, recursive, maxdepth, assume_literal=literal, **options))
        return sorted(found)
