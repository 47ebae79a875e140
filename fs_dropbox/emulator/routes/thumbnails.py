"""Thumbnails and previews. The pictures are grey, but have the right format and size; previews are not made."""

from __future__ import annotations

import base64
import re
from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model import images, metadata
from fs_dropbox.emulator.model.errors import PathLookupError, RouteError, nested, union
from fs_dropbox.emulator.model.tree import Entry, File, Revision
from fs_dropbox.emulator.people import shared_links
from fs_dropbox.emulator.routes.download import check_readable
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.context import Context, Download

MAX_SOURCE_BYTES = 20 * 1024 * 1024
MAX_BATCH = 25
SIZE = re.compile(r"w(\d+)h(\d+)")
# What the service makes previews of: as PDF, and as HTML.
PREVIEWED = re.compile(
    r"ai|docx?|docm|eps|gdoc|gslides|odp|odt|pps[mx]?|ppt[mx]?|rtf|csv|ods|xlsx?|xlsm|gsheet", re.IGNORECASE
)


def _picture(context: Context, arg: Arguments, file: File | None, revision: Revision) -> bytes:
    """Return a thumbnail, or raise ThumbnailError's tags."""
    if file is not None:
        check_readable(file)
    if revision.name.rpartition(".")[2].lower() not in images.EXTENSIONS:
        raise RouteError("unsupported_extension")
    if (
        not images.is_image(context.service.state.contents.bytes_of(revision.content_hash, 16))
        or revision.size > MAX_SOURCE_BYTES
    ):
        raise RouteError("unsupported_image")
    picture_format = arg.choice("format", "jpeg")
    size = SIZE.fullmatch(arg.choice("size", "w64h64"))
    assert size is not None
    if picture_format == "webp":
        raise RouteError("conversion_error")
    make = images.grey_png if picture_format == "png" else images.grey_jpeg
    return make(int(size[1]), int(size[2]))


@registry.route("files/get_thumbnail")
def get_thumbnail(context: Context, arg: Arguments) -> Any:
    """Send a thumbnail of a picture."""
    path = arg.path("path")
    with context.service.state.lock, nested():
        file, revision = context.view.find_file(path)
        picture = _picture(context, arg, file, revision)
        return Download(metadata.of_revision(context.view, revision, file=file), picture, len(picture))


@registry.route("files/get_thumbnail_v2")
def get_thumbnail_v2(context: Context, arg: Arguments) -> Any:
    """Send a thumbnail of a picture at a path, or behind a shared link."""
    resource = arg.union("resource")
    with context.service.state.lock, nested():
        if resource.tag == "path":
            file, revision = context.view.find_file(resource.path("path"))
            shown = {"file_metadata": metadata.of_revision(context.view, revision, file=file)}
            picture = _picture(context, arg, file, revision)
            return Download(shown, picture, len(picture))
        try:
            link, entry = shared_links.resolve(context.service, resource.get("url"))
            shared_links.check_reader(context.service, link, context.account, resource.get("password"))
        except RouteError as error:
            is_missing = error.error[".tag"] == "shared_link_not_found"
            raise RouteError("not_found" if is_missing else "access_denied") from error
        target: Entry = shared_links.below(context.service, entry, resource.get("path") or "")
        if not isinstance(target, File):
            raise PathLookupError("not_file")
        minimal = {"url": resource.get("url"), "id": target.id, "rev": target.revision.rev}
        picture = _picture(context, arg, target, target.revision)
        return Download({"link_metadata": minimal}, picture, len(picture))


@registry.route("files/get_thumbnail_batch")
def get_thumbnail_batch(context: Context, arg: Arguments) -> Any:
    """Answer the thumbnails of several pictures, in base64."""
    entries = arg.structs("entries")
    if len(entries) > MAX_BATCH:
        raise RouteError("too_many_files")
    results = []
    with context.service.state.lock:
        for entry in entries:
            try:
                with nested():
                    file, revision = context.view.find_file(entry.path("path"))
                    picture = base64.b64encode(_picture(context, entry, file, revision)).decode()
                    shown = metadata.of_revision(context.view, revision, file=file)
                    results.append(union("success", metadata=shown, thumbnail=picture))
            except RouteError as error:
                results.append(union("failure", failure=error.error))
    return {"entries": results}


@registry.route("files/get_preview")
def get_preview(context: Context, arg: Arguments) -> Any:
    """Refuse with the documented reason: the emulator has no converter."""
    path = arg.path("path")
    with context.service.state.lock, nested():
        _, revision = context.view.find_file(path)
    known = PREVIEWED.fullmatch(revision.name.rpartition(".")[2])
    raise RouteError("unsupported_content" if known else "unsupported_extension")
