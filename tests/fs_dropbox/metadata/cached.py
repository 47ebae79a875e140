"""Entries as Dropbox tells of them, and a cache that follows its changes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fs_dropbox.entries import DeletedEntry, FileEntry, FolderEntry
from fs_dropbox.metadata.cache import MetadataCache

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def file(path: str, rev: str = "0123456789") -> FileEntry:
    return FileEntry(path.rpartition("/")[2], path.lower(), path, f"id:{path}", rev, 1, NOW, NOW)


def folder(path: str) -> FolderEntry:
    return FolderEntry(path.rpartition("/")[2], path.lower(), path, f"id:{path}")


def gone(path: str) -> DeletedEntry:
    return DeletedEntry(path.rpartition("/")[2], path.lower(), path)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def followed_cache(**arguments: Any) -> MetadataCache:
    """Return a cache with a live change feed."""
    cache = MetadataCache(**arguments)
    cache.follow()
    cache.trust(True)
    return cache
