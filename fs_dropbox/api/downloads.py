"""How content is asked for, a range of a file or a document's export, and taken out of the answer: all or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from fs_dropbox.api import routes
from fs_dropbox.api.calls import Caller
from fs_dropbox.api.transport import Answer
from fs_dropbox.content_hash import ContentHash
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, TransportError

T = TypeVar("T")

LARGEST_EXPORT_BYTES: Final = 256 * 2**20  # it is held whole; Paper and Google end theirs long before
_PIECE_BYTES: Final = 256 * 1024
_EXPORT_PIECE_BYTES: Final = 2**20
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
        return _read_range(caller, answer, start, end, piece_bytes)

    # Compressed bodies cannot be counted against Content-Length and ranges.
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
    return caller.request(routes.DOWNLOAD, {"path": path}, headers=headers, receive=receive)


def export(caller: Caller, entry: FileEntry, export_format: str | None) -> bytes:
    """Return what a revision of a document is exported as, in the format that Dropbox proposes unless one is given.

    It is asked for by its rev; where Dropbox does not take that, by its id, if that is still the same revision.
    """
    return of_revision(entry.rev, entry.id, lambda path, rev: _export(caller, path, export_format, rev))


def _export(caller: Caller, path: str, export_format: str | None, rev: str | None) -> bytes:
    argument = {"path": path, **({"export_format": export_format} if export_format else {})}

    def receive(answer: Answer) -> bytes:
        pieces, size = [], 0
        while piece := caller.read(routes.EXPORT, answer, _EXPORT_PIECE_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > LARGEST_EXPORT_BYTES:
                raise ApiError(routes.EXPORT.name, ("export_too_large",))
        content = b"".join(pieces)
        told = answer.result["export_metadata"].get("export_hash")
        if told and told != ContentHash(content).hexdigest():
            raise TransportError("cut", route=routes.EXPORT.name)
        if rev is not None and answer.result["file_metadata"]["rev"] != rev:
            raise ApiError(routes.EXPORT.name, ("path", "not_found"))  # that revision is gone
        return content

    return caller.request(routes.EXPORT, argument, receive=receive)


def _read_range(caller: Caller, answer: Answer, start: int, end: int, piece_bytes: int) -> list[bytes]:
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
