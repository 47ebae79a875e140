"""`Tree`: one shared filesystem with the overlay of files being written; `TreeView`: what one session sees of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from fs.base import FS


class Rights(enum.Enum):
    """What a session may do in its view."""

    READ_WRITE = "read-write"
    READ_ONLY = "read-only"
    WRITE_ONLY = "write-only"  # a drop box: upload, mkdir; names are listed, contents are not read, nothing is removed


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """Bounds of one tree; sizes are bytes."""

    spool_quota: int = 10 * 2**30  # of all files being written and of kept partial uploads
    spool_memory: int = 2**20  # a file is kept in memory up to this size
    partial_seconds: float = 86400.0  # how long an upload that was cut off can be continued
    commit_wait_seconds: float = 120.0  # how long a reader waits for a commit of the same path


class Tree:
    """One shared filesystem, its open writes and its partial uploads; one for all sessions of an account. Thread-safe.

    The tree does not own `filesystem`: whoever opened it closes it, after `close()`.
    """

    def __init__(self, filesystem: FS, *, spool_folder: Path, limits: TreeLimits = TreeLimits()) -> None:
        self.filesystem = filesystem
        self.spool_folder = spool_folder
        self.limits = limits

    def view(self, root: str = "/", *, rights: Rights = Rights.READ_WRITE) -> TreeView:
        """Return what one session sees: the folder `root` as "/"; no client path leads out of it."""
        raise NotImplementedError

    def close(self) -> None:
        """Abort what is still being written. Idempotent."""
        raise NotImplementedError


class TreeView:
    """What one session sees of a tree; made by `Tree.view`, one for each session."""
