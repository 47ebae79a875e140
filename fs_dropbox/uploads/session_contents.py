"""`SessionContents`: brings the content of many files into upload sessions, in few calls. Nothing becomes visible.

A thousand small files cost a dozen calls: one starts their sessions, each of a few brings the content of a hundred
(appends take no lock).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, Generic, TypeVar

from fs_dropbox.api.client import Client
from fs_dropbox.content_hash import ContentHash
from fs_dropbox.errors import ApiError, TransportError
from fs_dropbox.pool import Pool

if TYPE_CHECKING:
    from fs_dropbox.uploads.upload import Uploader

SMALL_BYTES: Final = 4 * 2**20  # larger files go through uploads of their own
APPEND_BYTES: Final = 16 * 2**20
THREADS: Final = 4
# Fewer are cheaper one by one.
LEAST_FILES: Final = 4
PIECE_BYTES: Final = 4 * 2**20


@dataclass(slots=True, eq=False)
class Content:
    """What one file is to hold, on its way into a session."""

    index: int
    open: Callable[[], BinaryIO]
    size: int
    session: str = ""
    content_hash: str = ""
    is_appended: bool = False  # its session has it all; only then a commit can be in doubt


C = TypeVar("C", bound=Content)


@dataclass(slots=True)
class Sent(Generic[C]):
    """What became of some contents: in sessions, closed; to be sent each on its own; failed, and why."""

    appended: list[C]
    alone: list[C]
    failed: list[tuple[C, Exception]]


class SessionContents:
    """Thread-safe, holds no lock; owned by BulkUpload and Staging.

    At most `THREADS` groups of `APPEND_BYTES` are in memory, within what all uploads of the filesystem may have.
    """

    def __init__(self, client: Client, uploader: Uploader) -> None:
        self._client = client
        self._uploader = uploader

    def send(self, pool: Pool, contents: Sequence[C]) -> Sent[C]:
        """Send the small ones of up to a thousand contents, where they are enough to be worth it."""
        small = [item for item in contents if item.size <= SMALL_BYTES]
        shared = self._uploader.small_files
        if len(small) < LEAST_FILES or shared.most_files == 1:
            return Sent([], list(contents), [])
        sent = Sent([], [item for item in contents if item.size > SMALL_BYTES], [])
        try:
            sessions = self._client.session_start_batch(len(small))
        except (ApiError, TransportError) as error:
            if error.is_not_taken:
                shared.shrink(1)
                return Sent([], list(contents), [])
            sent.failed = [(item, error) for item in small]
            return sent
        for item, session in zip(small, sessions, strict=True):
            item.session = session
        for group in pool.map(self._append, _groups(small, shared.most_files)):
            sent.appended += group.appended
            sent.alone += group.alone
            sent.failed += group.failed
        return sent

    def _append(self, group: list[C]) -> Sent[C]:
        """Send the content of one group."""
        expected = sum(item.size for item in group)
        self._uploader.sending.take(expected)
        try:
            parts, read, result = self._read(group)
            try:
                errors = self._client.session_append_batch(parts) if parts else []
            except (ApiError, TransportError) as error:
                if error.is_not_taken:
                    self._uploader.small_files.shrink(len(read) // 2)
                    result.alone += read
                else:
                    result.failed += [(item, error) for item in read]  # nothing of them can be visible
                return result
        finally:
            self._uploader.sending.give(expected)
        for item, refused in zip(read, errors, strict=True):
            item.is_appended = refused is None
            # Whatever is wrong with a session, the file has another chance without one.
            (result.appended if item.is_appended else result.alone).append(item)
        return result

    def _read(self, group: list[C]) -> tuple[list[tuple[str, bytes]], list[C], Sent[C]]:
        parts: list[tuple[str, bytes]] = []
        read: list[C] = []
        result: Sent[C] = Sent([], [], [])
        for item in group:
            try:
                with closing(item.open()) as file:
                    data = _read_whole(file, item.size + 1)
            except Exception as error:  # noqa: BLE001 - it is not ours; the file's result tells
                result.failed.append((item, error))
                continue
            if len(data) > item.size:
                result.alone.append(item)  # it has grown; who knows how far
                continue
            item.size, item.content_hash = len(data), ContentHash(data).hexdigest()
            parts.append((item.session, data))
            read.append(item)
        return parts, read, result


def pieces(item: Content) -> Generator[bytes, None, None]:
    """Yield a content piece by piece; closes it where it is given up."""
    with closing(item.open()) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _groups(items: Iterable[C], most: int) -> Iterator[list[C]]:
    """Yield what goes into one append_batch: its argument travels in a header, which is bounded."""
    group: list[C] = []
    size = 0
    for item in items:
        if group and (len(group) == most or size + item.size > APPEND_BYTES):
            yield group
            group, size = [], 0
        group.append(item)
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
