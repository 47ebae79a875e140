"""How the content of a document is fetched: one revision, whole, checked. Knows no HTTP, no cache."""

from __future__ import annotations

from typing import Final

from fs_dropbox.api import routes
from fs_dropbox.api.calls import Caller
from fs_dropbox.api.downloads import of_revision
from fs_dropbox.api.transport import Answer
from fs_dropbox.content_hash import ContentHash
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, TransportError

LARGEST_BYTES: Final = 256 * 2**20  # an export is held whole; Paper and Google end theirs long before
PIECE_BYTES: Final = 2**20


def export(caller: Caller, entry: FileEntry, export_format: str | None) -> bytes:
    """Return what a revision of a document is exported as, in the format that Dropbox proposes unless one is given.

    It is asked for by its rev; where Dropbox does not take that, by its id, if that is still the same revision.
    """
    return of_revision(entry.rev, entry.id, lambda path, rev: _export(caller, path, export_format, rev))


def _export(caller: Caller, path: str, export_format: str | None, rev: str | None) -> bytes:
    argument = {"path": path, **({"export_format": export_format} if export_format else {})}

    def receive(answer: Answer) -> bytes:
        pieces, size = [], 0
        while piece := caller.read(routes.EXPORT, answer, PIECE_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > LARGEST_BYTES:
                raise ApiError(routes.EXPORT.name, ("export_too_large",))
        content = b"".join(pieces)
        told = answer.result["export_metadata"].get("export_hash")
        if told and told != ContentHash(content).hexdigest():
            raise TransportError("cut", route=routes.EXPORT.name)
        if rev is not None and answer.result["file_metadata"]["rev"] != rev:
            raise ApiError(routes.EXPORT.name, ("path", "not_found"))  # that revision is gone
        return content

    return caller.request(routes.EXPORT, argument, receive=receive)
