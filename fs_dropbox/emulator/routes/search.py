"""Search by name: every word of the query must begin a word of the name or be contained in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model import metadata
from fs_dropbox.emulator.model.errors import BadArgumentError, PathLookupError, nested, union
from fs_dropbox.emulator.model.names import fold
from fs_dropbox.emulator.model.tree import File, Folder
from fs_dropbox.emulator.model.view import View
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.context import Context
from fs_dropbox.emulator.web.paging import Place, cut, place_of

MAX_MATCHES = 10_000
DEFAULT_RESULTS = 100
CATEGORIES = {
    "image": ("png", "jpg", "jpeg", "gif", "bmp", "tif", "tiff", "webp", "heic", "svg"),
    "document": ("doc", "docx", "odt", "rtf", "txt", "md"),
    "pdf": ("pdf",),
    "spreadsheet": ("xls", "xlsx", "ods", "csv"),
    "presentation": ("ppt", "pptx", "odp", "key"),
    "audio": ("mp3", "wav", "flac", "ogg", "m4a"),
    "video": ("mp4", "mov", "avi", "mkv", "webm"),
    "paper": ("paper", "papert"),
}


@registry.route("files/search_v2")
def search(context: Context, arg: Arguments) -> Any:
    """Find entries by name; the file's text is not searched."""
    words = [fold(word) for word in arg.get("query").split()]
    options = arg.struct("options")
    limit = options.get("max_results", DEFAULT_RESULTS)
    return _answer(context, Place(0, limit, {"words": words, **_options(options)}))


def _options(options: Arguments) -> dict[str, Any]:
    return {
        "path": options.path("path", root=True),
        "deleted": options.choice("file_status", "active") == "deleted",
        "extensions": [extension.lower().lstrip(".") for extension in options.get("file_extensions", [])],
        "categories": [category.tag for category in options.unions("file_categories")],
        "newest_first": options.choice("order_by", "relevance") == "last_modified_time",
    }


@registry.route("files/search/continue_v2")
def search_continue(context: Context, arg: Arguments) -> Any:
    """Answer the next matches."""
    place = place_of(context, "search", arg.get("cursor"))
    if place is None:
        raise BadArgumentError("cursor: unsupported cursor type")
    return _answer(context, place)


def _answer(context: Context, place: Place) -> dict[str, Any]:
    query = place.about
    with context.service.state.lock, nested():
        view = context.view
        found = list(_deleted_matches(view, query) if query["deleted"] else _matches(context, view, query))
    if query["newest_first"]:
        found.sort(key=lambda entry: str(entry.get("server_modified", "")), reverse=True)
    page, cursor, has_more = cut(context, "search", found[:MAX_MATCHES], place)
    matches = [{"metadata": union("metadata", metadata=entry), "match_type": union("filename")} for entry in page]
    return {"matches": matches, "has_more": has_more, **({"cursor": cursor} if has_more else {})}


def _matches(context: Context, view: View, query: dict[str, Any]) -> Iterator[metadata.Metadata]:
    newest = context.service.state.clock() - context.service.options.search_lag_seconds
    try:
        start = view.find(query["path"])
    except PathLookupError as error:
        if error.union[".tag"] != "not_found":
            raise
        return  # recorded: nothing is found in a folder that is not there
    if isinstance(start, Folder):
        for _, entry in view.walk(start):
            is_new = isinstance(entry, File) and entry.revision.server_modified > newest
            if not is_new and _is_match(entry.name, isinstance(entry, Folder), query):
                yield metadata.of_entry(view, entry)


def _deleted_matches(view: View, query: dict[str, Any]) -> Iterator[metadata.Metadata]:
    for namespace, lower, display in view.namespaces():
        for parent, graves in namespace.tombstones.items():
            for key, grave in graves.items():
                path = f"{lower}{parent}/{key}"
                inside = path.startswith(fold(query["path"]) + "/")
                if inside and _is_match(grave.name, grave.rev is None, query):
                    yield metadata.of_tombstone(grave, (path, display + grave.display_path))


def _is_match(name: str, is_folder: bool, query: dict[str, Any]) -> bool:
    folded = fold(name)
    if not all(word in folded for word in query["words"]):
        return False
    extension = "" if is_folder else folded.rpartition(".")[2]
    if query["extensions"] and extension not in query["extensions"]:
        return False
    categories = query["categories"]
    if not categories:
        return True
    category = next((name for name, known in CATEGORIES.items() if extension in known), "others")
    return ("folder" if is_folder else category) in categories
