"""`Base`: the committed content that a draft is written over."""

from __future__ import annotations

from collections.abc import Callable

from fs.base import FS
from fs.errors import ResourceNotFound

from sftp_gateway.files.content import Content, Fingerprint, fingerprint
from sftp_gateway.sftp.status import RefusedError


class Base:
    """Old content, as far as it still counts; none for a new file. Owned by a draft, which closes it.

    If it is the content of another file, `copy_of` is that file's path. `size` and `cut` are under the draft's lock;
    `pread` may be called from any thread. Its methods raise `fs.errors`.
    """

    def __init__(self, content: Content | None, copy_of: str | None = None) -> None:
        self._content = content
        self.copy_of = copy_of
        self.size = content.size if content is not None else 0  # how much of it counts
        self.is_there = content is not None
        # the only version that the commit may replace, if the filesystem has versions
        self.version = content.version if content is not None and copy_of is None else None

    @property
    def fingerprint(self) -> Fingerprint | None:
        """What identifies the version that the commit may replace, if the filesystem has no versions."""
        return self._content.fingerprint if self._content is not None and self.copy_of is None else None

    def know_again(self, as_now: Fingerprint) -> None:
        """Accept the fingerprint that this content has after a rename."""
        if self._content is not None:
            self._content.fingerprint = as_now

    def cut(self, size: int) -> None:
        """Let only the first `size` bytes count from now on."""
        self.size = min(self.size, size)

    def pread(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end`, which both count."""
        return self._content.pread(start, end - start) if self._content is not None and start < end else b""

    def copy_to(self, filesystem: FS, path: str, *, replace: bool) -> bool:
        """Have the filesystem copy this to `path`, if it is the whole of another file that is still the same.

        Returns whether it did; nothing has changed if not.
        """
        if self.copy_of is None or self._content is None or self.size != self._content.size:
            return False
        try:
            now = Content(filesystem, self.copy_of, local=False, quota=self._content.quota)
            now.close()
            if not now.is_same(self._content):
                return False
            filesystem.copy(self.copy_of, path, overwrite=replace)
        except ResourceNotFound:  # it was renamed or removed meanwhile
            return False
        return True

    def check_unchanged(self, filesystem: FS, path: str) -> None:
        """Raise `RefusedError` if the file with this content, at `path` or elsewhere, was changed since.

        For filesystems without versions, whose open files show such changes.
        """
        if self._content is None or self._content.fingerprint is None:
            return
        try:
            now = fingerprint(filesystem, self.copy_of or path)
        except ResourceNotFound:
            if self.copy_of is not None:  # renamed or removed: the open file still has the content
                return
            raise
        if now != self._content.fingerprint:
            raise RefusedError("the file was changed by someone else meanwhile")

    def share(self) -> Content | None:
        """Return the content for another owner, which closes it."""
        return self._content.share() if self._content is not None else None

    def note_time(self, filesystem: FS, path: str, set_time: Callable[[], None]) -> None:
        """Have the file's time set, and accept that as no change of what the commit may replace."""
        content = self._content if self.version is None else None
        is_unchanged = content is not None and fingerprint(filesystem, path) == content.fingerprint
        set_time()
        if content is not None and is_unchanged:
            content.fingerprint = fingerprint(filesystem, path)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._content is not None:
            self._content.close()
