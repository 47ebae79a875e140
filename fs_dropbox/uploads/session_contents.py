"""`SessionContents`: brings the content of many files into upload sessions, in few calls. Nothing becomes visible.

A thousand small files cost a dozen calls: one starts their sessions, each of a few brings the content of a hundred
(appends take no lock).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, Final

from fs_dropbox.api.client import Client
from fs_dropbox.content_hash import ContentHash
from fs_dropbox.errors import DropboxError
from fs_dropbox.pool import Pool
from fs_dropbox.uploads.checkpoints import Staged
from fs_dropbox.uploads.upload import Uploader

SMALL_BYTES: Final = 4 * 2**20  # larger files go through uploads of their own
APPEND_BYTES: Final = 16 * 2**20
THREADS: Final = 4
# Fewer are cheaper one by one.
LEAST_FILES: Final = 4
PIECE_BYTES: Final = 4 * 2**20


@dataclass(eq=False, kw_only=True)
class Content:
    """What one file is to hold, on its way into a session."""

    index: int
    open: Callable[[], BinaryIO]
    size: int
    staged: Staged | None = None  # the session that has it all
    error: Exception | None = None  # why none will have it

    @property
    def is_alone(self) -> bool:
        """Whether it is to be sent on its own."""
        return self.staged is None and self.error is None


class SessionContents:
    """Thread-safe, holds no lock; owned by BulkUpload and Staging.

    At most `THREADS` groups of `APPEND_BYTES` are in memory, within what all uploads of the filesystem may have.
    """

    def __init__(self, client: Client, uploader: Uploader) -> None:
        self._client = client
        self._uploader = uploader

    def send(self, pool: Pool, contents: Sequence[Content]) -> None:
        """Send the small ones of up to a thousand contents, where they are enough to be worth it."""
        small = [item for item in contents if item.size <= SMALL_BYTES]
        shared = self._uploader.small_files
        if len(small) < LEAST_FILES or shared.most_files == 1:
            return
        try:
            sessions = self._client.session_start_batch(len(small))
        except DropboxError as error:
            if error.is_not_taken:
                shared.shrink(1)
            else:
                _fail(small, error)
            return
        list(pool.map(self._append, _groups(zip(small, sessions, strict=True), shared.most_files)))

    def _append(self, group: Sequence[tuple[Content, str]]) -> None:
        """Send the content of one group."""
        expected = sum(item.size for item, _ in group)
        self._uploader.sending.take(expected)
        try:
            read = list(_read(group))
            parts = [(staged.session_id, data) for _, staged, data in read]
            errors = self._client.session_append_batch(parts) if parts else []
        except DropboxError as error:
            if error.is_not_taken:
                self._uploader.small_files.shrink(len(read) // 2)
            else:
                _fail([item for item, *_ in read], error)  # nothing of them can be visible
            return
        finally:
            self._uploader.sending.give(expected)
        for (item, staged, _), refused in zip(read, errors, strict=True):
            if refused is None:  # whatever is wrong with a session, the file has another chance without one
                item.staged = staged


def _read(group: Sequence[tuple[Content, str]]) -> Iterator[tuple[Content, Staged, bytes]]:
    """Yield each content that is as small as was told, with what its session will have."""
    for item, session in group:
        try:
            with closing(item.open()) as file:
                data = _read_whole(file, item.size + 1)
        except Exception as error:  # noqa: BLE001 - it is not ours; the file's result tells
            item.error = error
            continue
        if len(data) <= item.size:  # else it has grown; who knows how far
            yield item, Staged(session, len(data), ContentHash(data).hexdigest()), data


def _fail(items: Iterable[Content], error: Exception) -> None:
    for item in items:
        item.error = error


def pieces(item: Content) -> Generator[bytes, None, None]:
    """Yield a content piece by piece; closes it where it is given up."""
    with closing(item.open()) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _groups(items: Iterable[tuple[Content, str]], most: int) -> Iterator[list[tuple[Content, str]]]:
    """Yield what goes into one append_batch: its argument travels in a header, which is bounded."""
    group: list[tuple[Content, str]] = []
    size = 0
    for item, session in items:
        if group and (len(group) == most or size + item.size > APPEND_BYTES):
            yield group
            group, size = [], 0
        group.append((item, session))
        size += item.size
    if group:
        yield group


def _read_whole(file: BinaryIO, most: int) -> bytes:
    """Read up to so many bytes, of files too that give less at a time."""
    read: list[bytes] = []
    while most > 0 and (piece := file.read(most)):
        read.append(piece)
        most -= len(piece)
    return b"".join(read)
