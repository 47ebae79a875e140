"""How a range of a file's content is asked for, and taken out of the answer: all of it or an error. No io objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from fs_dropbox.api import routes
from fs_dropbox.api.calls import Caller
from fs_dropbox.api.transport import Answer
from fs_dropbox.errors import ApiError, TransportError

T = TypeVar("T")

_PIECE_BYTES: Final = 256 * 1024
_REV_NOT_TAKEN: Final = (("path", "not_found"), ("path", "malformed_path"), ("bad_request",))


def of_revision(rev: str, elsewhere: str, ask: Callable[[str, str | None], T]) -> T:
    """Return what `ask` does of a revision: by its rev, or where that is not taken, by what else leads there.

    Then `ask` is given the rev, too, and raises ApiError ("path", "not_found") where another one is there by now.
    """
    try:
        return ask(f"rev:{rev}", None)
    except ApiError as error:
        if error.tag not in _REV_NOT_TAKEN or not elsewhere:
            raise
        refused = error
    try:
        return ask(elsewhere, rev)
    except ApiError as error:
        raise (refused if error.tag == ("path", "not_found") else error) from None


def download(caller: Caller, path: str, start: int, end: int, piece_bytes: int, rev: str | None = None) -> list[bytes]:
    """Return bytes [start, end) of what is at a path (or "rev:…"), in pieces; where `rev` is given, of that alone."""

    def receive(answer: Answer) -> list[bytes]:
        if rev is not None and answer.result["rev"] != rev:
            raise ApiError(routes.DOWNLOAD.name, ("path", "not_found"))
        return read_range(caller, answer, start, end, piece_bytes)

    return caller.request(routes.DOWNLOAD, {"path": path}, headers=range_header(start, end), receive=receive)


def range_header(start: int, end: int) -> Mapping[str, str]:
    """Return the headers that ask for bytes [start, end)."""
    # Compressed bodies cannot be counted against Content-Length and ranges.
    return {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}


def read_range(caller: Caller, answer: Answer, start: int, end: int, piece_bytes: int) -> list[bytes]:
    """Return the body of a ranged download: bytes [start, end) or as many of them as the file has, in pieces."""
    size = int(answer.result["size"])
    end = min(end, size)
    _begin_range(caller, answer, start, end)
    pieces: list[bytes] = []
    missing = end - start
    while missing > 0:
        piece = _read_fully(caller, answer, min(missing, piece_bytes))
        pieces.append(piece)
        missing -= len(piece)
    if _is_part(answer) or end == size:
        _finish(caller, answer)
    return pieces


def _read_fully(caller: Caller, answer: Answer, size: int) -> bytes:
    """Return the next bytes of a body, all of them; raises TransportError where it ends before."""
    piece = caller.read(routes.DOWNLOAD, answer, size)
    while len(piece) < size:  # seldom: the answer comes in chunks of its own
        more = caller.read(routes.DOWNLOAD, answer, size - len(piece))
        if not more:
            raise TransportError("cut", route=routes.DOWNLOAD.name)
        piece += more
    return piece


def _begin_range(caller: Caller, answer: Answer, start: int, end: int) -> None:
    """Read on to the first byte of [start, end); raise TransportError where the body does not hold these bytes.

    Servers may ignore that a range was asked for, and send the whole file.
    """
    assert answer.response is not None
    if not _is_part(answer):
        while start > 0:
            start -= len(_read_fully(caller, answer, min(start, _PIECE_BYTES)))
        return
    sent = answer.response.headers.get("content-range", "")
    if sent.partition("/")[0] != f"bytes {start}-{end - 1}":
        raise TransportError("protocol", "not the range that was asked for", route=routes.DOWNLOAD.name)


def _is_part(answer: Answer) -> bool:
    assert answer.response is not None
    return answer.response.status_code == 206


def _finish(caller: Caller, answer: Answer) -> None:
    """Read the end of the body, so that its connection goes back to the pool."""
    if caller.read(routes.DOWNLOAD, answer, 1):
        raise TransportError("protocol", "more than the range that was asked for", route=routes.DOWNLOAD.name)
