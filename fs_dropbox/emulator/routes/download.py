"""Contents on their way out: download with ranges, temporary links in both directions, zip files."""

from __future__ import annotations

import re
import secrets
from typing import Any

from .. import metadata
from ..arguments import Arguments
from ..context import Context, Download
from ..dispatch import text_response
from ..errors import PathLookupError, PlainError, RouteError, nested, union
from ..http import Request, Response
from ..registry import Table
from ..service import Service
from ..tree import File, Revision

table = Table()

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def parse_range(header: str | None, size: int, past_end: str) -> tuple[int, int] | None:
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


@table.route("files/download")
def download(context: Context, arg: Arguments) -> Any:
    """Send a file, or the range of it that the request asks for."""
    path = arg.path("path", "ReadPath")
    arg.string("rev", None)
    with context.service.state.lock, nested():
        file, revision = find_content(context, path if arg.fields.get("rev") is None else "rev:" + arg.fields["rev"])
        if file is not None and not file.extra.get("metadata", {}).get("is_downloadable", True):
            raise RouteError("unsupported_file")
        result = metadata.of_revision(context.view, revision, file=file)
        wanted = parse_range(
            context.request.headers.get("range"), revision.size, context.service.options.range_past_end
        )
        start, end = wanted or (0, revision.size)
        reader = context.service.state.contents.read(revision.content_hash, start, end)
    return Download(result, reader, revision.size, start, end, wanted is not None, f'W/"{revision.rev}"')


def find_content(context: Context, path: str) -> tuple[File | None, Revision]:
    """Return the file and revision at a path; revisions out of the history window are gone."""
    file, revision = context.view.find_file(path)
    oldest = context.service.state.clock() - context.service.options.history_seconds
    if file is None and revision.server_modified < oldest:
        raise PathLookupError("not_found")
    return file, revision


@table.route("files/get_temporary_link")
def get_temporary_link(context: Context, arg: Arguments) -> Any:
    """Answer a URL from which anybody can read the file's present content for some hours."""
    path = arg.path("path", "ReadPath")
    if context.account is not None and not context.account.email_verified:
        raise RouteError("email_not_verified")
    with context.mutation(), nested():
        file, revision = find_content(context, path)
        if file is not None and not file.extra.get("metadata", {}).get("is_downloadable", True):
            raise RouteError("unsupported_file")
        token = secrets.token_urlsafe(32)
        expires = context.service.state.clock() + context.service.options.temporary_link_seconds
        context.service.state.collection("temporary_link")[token] = {"rev": revision.rev, "expires": expires}
        result = metadata.of_revision(context.view, revision, file=file)
    return {"metadata": result, "link": f"{context.base_url}/temporary/{token}/{_url_name(revision)}"}


def _url_name(revision: Revision) -> str:
    return re.sub(r"[^\w.-]", "_", revision.name, flags=re.ASCII)


@table.page("GET", "/temporary")
def read_temporary_link(service: Service, request: Request) -> Response:
    """Send the content behind a temporary link."""
    token = request.path.split("/")[2]
    with service.state.lock:
        link = service.state.collection("temporary_link").get(token)
        if link is None:
            return text_response(404, "Not found")
        revision = service.state.revisions.get(link["rev"])
        if revision is None or link["expires"] < service.state.clock():
            return text_response(410, "This link has expired")
        wanted = parse_range(request.headers.get("range"), revision.size, "416")
        start, end = wanted or (0, revision.size)
        reader = service.state.contents.read(revision.content_hash, start, end)
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "ETag": f'"{revision.rev}"'}
    if wanted is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{revision.size}"
    return Response(200 if wanted is None else 206, headers, reader, length=end - start)
