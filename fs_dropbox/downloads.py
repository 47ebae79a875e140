"""`Download`: the content of one revision from start to end, whatever becomes of connections. Knows no io objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Final

from fs_dropbox import routes
from fs_dropbox.calls import Caller
from fs_dropbox.entries import FileEntry, decode_file
from fs_dropbox.errors import TransportError
from fs_dropbox.transport import Answer

_CHUNK_BYTES: Final = 256 * 1024
_RESUMPTIONS: Final = 5


class Download:
    """A file's content in chunks; `entry` says which revision it is. For one thread at a time; close it, or iterate it
    to the end. Broken connections are resumed with ranges of the same revision; the caller checks the content hash."""

    def __init__(self, caller: Caller, path: str, start: int = 0) -> None:
        self._caller = caller
        self._position = start
        self._answer: Answer | None = None
        self._answer = self._open(path)
        self.entry: FileEntry = decode_file(self._answer.result)
        begin_range(caller, self._answer, start, self.entry.size)

    def __iter__(self) -> Iterator[bytes]:
        failures = 0
        while self._position < self.entry.size:
            try:
                if self._answer is None:
                    self._answer = self._open(f"rev:{self.entry.rev}")
                    begin_range(self._caller, self._answer, self._position, self.entry.size)
                chunk = self._caller.read(routes.DOWNLOAD, self._answer, _CHUNK_BYTES)
                if not chunk:
                    raise TransportError("cut", route=routes.DOWNLOAD.name)
            except TransportError as error:
                self.close()
                failures += 1
                if not error.is_transient or failures > _RESUMPTIONS:
                    raise
                self._caller.pause_after(failures)
                continue
            failures = 0
            self._position += len(chunk)
            yield chunk
        self.close()

    def __enter__(self) -> Download:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the rest. Idempotent."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _open(self, path: str) -> Answer:
        headers = range_header(self._position, None) if self._position else IDENTITY
        return self._caller.request(routes.DOWNLOAD, {"path": path}, headers=headers, receive=lambda answer: answer)


# Compressed bodies cannot be counted against Content-Length and ranges.
IDENTITY: Final[Mapping[str, str]] = {"Accept-Encoding": "identity"}


def range_header(start: int, end: int | None) -> Mapping[str, str]:
    """Return the headers that ask for bytes [start, end), or from start on."""
    return {**IDENTITY, "Range": f"bytes={start}-{'' if end is None else end - 1}"}


def read_range(caller: Caller, answer: Answer, start: int, end: int, piece_bytes: int) -> list[bytes]:
    """Return the body of a ranged download: bytes [start, end) or as many of them as the file has, in pieces."""
    size = int(answer.result["size"])
    end = min(end, size)
    try:
        begin_range(caller, answer, start, end)
        pieces: list[bytes] = []
        missing = end - start
        while missing > 0:
            piece = _read_fully(caller, answer, min(missing, piece_bytes))
            pieces.append(piece)
            missing -= len(piece)
        if _is_part(answer) or end == size:
            _finish(caller, answer)
    finally:
        answer.close()
    return pieces


def _read_fully(caller: Caller, answer: Answer, size: int) -> bytes:
    """Return the next bytes of a body, all of them; raises TransportError where it ends before."""
    piece = caller.read(routes.DOWNLOAD, answer, size)
    while len(piece) < size:  # seldom: the answer comes in chunks of its own
        more = caller.read(routes.DOWNLOAD, answer, size - len(piece))
        if not more:
            answer.close()
            raise TransportError("cut", route=routes.DOWNLOAD.name)
        piece += more
    return piece


def begin_range(caller: Caller, answer: Answer, start: int, end: int) -> None:
    """Read on to the first byte of [start, end); raise TransportError where the body does not hold these bytes.

    Servers may ignore that a range was asked for, and send the whole file.
    """
    assert answer.response is not None
    if not _is_part(answer):
        while start > 0:
            start -= len(_read_fully(caller, answer, min(start, _CHUNK_BYTES)))
        return
    sent = answer.response.headers.get("content-range", "")
    if sent.partition("/")[0] != f"bytes {start}-{end - 1}":
        answer.close()
        raise TransportError("protocol", "not the range that was asked for", route=routes.DOWNLOAD.name)


def _is_part(answer: Answer) -> bool:
    assert answer.response is not None
    return answer.response.status_code == 206


def _finish(caller: Caller, answer: Answer) -> None:
    """Read the end of the body, so that its connection goes back to the pool."""
    if caller.read(routes.DOWNLOAD, answer, 1):
        raise TransportError("protocol", "more than the range that was asked for", route=routes.DOWNLOAD.name)
