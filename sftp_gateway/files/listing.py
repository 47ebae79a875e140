"""Listings of filesystems where a single unreadable entry, such as a broken link, fails the whole listing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fs import errors
from fs.info import Info
from fs.path import join

from sftp_gateway.sftp import attributes

_ITS_OWN: Final = (errors.ResourceNotFound, errors.PermissionDenied)  # wrong with one entry, and nothing else


def list_at_once(filesystem: Any, path: str, namespaces: list[str]) -> list[Info]:
    """Return what is in a directory, without entries that nobody can look at (broken links). Raises `fs.errors`.

    It raises for an entry that cannot be looked at just now: left out, it would be removed by whoever mirrors this.
    """
    try:
        return list(filesystem.scandir(path, namespaces=namespaces))
    except errors.FSError:
        skipped = errors.FSError if filesystem.getmeta().get("network") is False else _ITS_OWN
        infos = []
        for name in filesystem.listdir(path):
            try:
                infos.append(filesystem.getinfo(join(path, name), namespaces))
            except skipped:
                continue
        return infos


def sizes_below(filesystem: Any, path: str) -> Iterator[int]:
    """Yield the size of each file below a directory; links to directories are not followed. Raises `fs.errors`."""
    directories = [path]
    while directories:
        path = directories.pop()
        for info in list_at_once(filesystem, path, ["details", "link"]):
            if not attributes.is_directory(info):
                yield attributes.from_info(info).size or 0
            elif not info.get("link", "target"):
                directories.append(join(path, info.name))
