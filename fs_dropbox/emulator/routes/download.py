"""Contents on their way out, whole or in ranges."""

from __future__ import annotations

import re
from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.http import Request
from fs_dropbox.emulator.model import metadata
from fs_dropbox.emulator.model.errors import PathLookupError, PlainError, RouteError, nested, union
from fs_dropbox.emulator.model.tree import File, Revision
from fs_dropbox.emulator.service import Service
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.context import Context, Download

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def sent(service: Service, request: Request, revision: Revision, past_end: str, result: Any = None) -> Download:
    """Return a content, or the range of it that the request asks for. Needs State.lock."""
    wanted = _parse_range(request.headers.get("range"), revision.size, past_end)
    start, end = wanted or (0, revision.size)
    reader = service.state.contents.read(revision.content_hash, start, end)
    return Download(result, reader, revision.size, start, end, wanted is not None, f'W/"{revision.rev}"')


def _parse_range(header: str | None, size: int, past_end: str) -> tuple[int, int] | None:
    """Return the bytes [start, end) that a Range header asks for, or None for all of them."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start < size and start < end:
        return start, end
    if past_end == "416":
        raise PlainError(416, "Requested Range Not Satisfiable")
    if past_end == "409":
        raise RouteError({"reason": union("range", range=union("not_satisfiable")), **union("range")})
    return None


@registry.route("files/download")
def download(context: Context, arg: Arguments) -> Any:
    """Send a file, or the range of it that the request asks for."""
    path = arg.path("path")
    rev = arg.get("rev")
    with context.service.state.lock, nested():
        file, revision = context.view.find_file(f"rev:{rev}" if rev is not None else path)
        check_downloadable(file)
        result = metadata.of_revision(context.view, revision, file=file)
        return sent(context.service, context.request, revision, context.service.options.range_past_end, result)


def check_downloadable(file: File | None) -> None:
    """Refuse what has no bytes of its own and must be exported, and what nobody may read."""
    if file is None:
        return
    check_readable(file)
    if not file.extra.get("metadata", {}).get("is_downloadable", True):
        raise RouteError("unsupported_file")


def check_readable(file: File) -> None:
    """Refuse a file whose content is blocked for legal reasons."""
    if file.extra.get("restricted"):
        raise PathLookupError("restricted_content")
