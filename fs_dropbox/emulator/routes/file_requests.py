"""File requests: places where others can upload without an account."""

from __future__ import annotations

import secrets
from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model import mutations
from fs_dropbox.emulator.model.errors import PathLookupError, RouteError, WriteError, union
from fs_dropbox.emulator.model.storage import Collection
from fs_dropbox.emulator.model.times import format_time
from fs_dropbox.emulator.model.tree import File, Folder
from fs_dropbox.emulator.routes.shared_links import web_url
from fs_dropbox.emulator.web import paging, registry
from fs_dropbox.emulator.web.context import Context

MAX_REQUESTS = 4000
PAYING = ("pro", "business")


def _requests(context: Context) -> Collection:
    return context.service.state.collection("file_request")


def _mine(context: Context) -> dict[str, dict[str, Any]]:
    """Return the caller's requests by id, oldest first; an app folder app has those below its folder only."""
    mine = {i: d for i, d in _requests(context).items() if d["account"] == context.account_id}
    assert context.app is not None
    return {i: d for i, d in mine.items() if not context.app.app_folder or _path(context, d) is not None}


def _path(context: Context, document: dict[str, Any]) -> str | None:
    entry = context.service.state.entries.get(document["folder_id"])
    path = context.view.path_of(entry) if isinstance(entry, Folder) else None
    return path[1] if path is not None else None


def _encode(context: Context, request_id: str, document: dict[str, Any]) -> dict[str, Any]:
    shown = {
        "id": request_id,
        "url": f"{web_url(context)}/request/{request_id}",
        "title": document["title"],
        "created": format_time(document["created"]),
        "is_open": document["is_open"],
        "file_count": document["file_count"],
    }
    path = _path(context, document)
    if path is not None:
        shown["destination"] = path
    for name in ("deadline", "description"):
        if document[name] is not None:
            shown[name] = document[name]
    return shown


def _deadline(context: Context, deadline: Arguments) -> dict[str, Any]:
    """Read file_requests.FileRequestDeadline; plans without this feature are refused."""
    seconds = deadline.timestamp("deadline")
    late = deadline.choice("allow_late_uploads")
    if context.user.account_type not in PAYING:
        raise RouteError("validation_error")
    assert seconds is not None
    shown: dict[str, Any] = {"deadline": format_time(seconds)}
    return {**shown, "allow_late_uploads": union(late)} if late else shown


def _folder(context: Context, path: str) -> Folder:
    """Return the destination, created when missing."""
    view = context.view
    try:
        entry = view.find(path)
    except PathLookupError as error:
        if error.union[".tag"] != "not_found":
            raise RouteError("invalid_location" if context.route.endswith("create") else "not_found") from error
        try:
            return mutations.create_folder(view, path)
        except WriteError as refusal:
            tag = refusal.union[".tag"]
            raise RouteError(tag if tag == "no_write_permission" else "not_a_folder") from refusal
    if isinstance(entry, File):
        raise RouteError("not_a_folder")
    assert isinstance(entry, Folder)
    if not view.can_write(entry.inner.namespace):
        raise RouteError("no_write_permission")
    return entry


@registry.route("file_requests/create")
def create(context: Context, arg: Arguments) -> Any:
    """Open a request for files that go to a folder."""
    title, path = arg.get("title"), arg.path("destination")
    is_open = arg.get("open", True)
    if not context.user.email_verified:
        raise RouteError("email_unverified")
    with context.write(path):
        if len(_mine(context)) >= MAX_REQUESTS:
            raise RouteError("rate_limit")
        limit = _deadline(context, arg.struct("deadline")) if arg.get("deadline") is not None else None
        document = {
            "account": context.account_id,
            "folder_id": _folder(context, path).id,
            "title": title,
            "description": arg.get("description"),
            "deadline": limit,
            "created": context.service.state.now(),
            "is_open": is_open,
            "file_count": 0,
        }
        request_id = secrets.token_hex(10)
        _requests(context)[request_id] = document
        return _encode(context, request_id, document)


def _get(context: Context, arg: Arguments) -> tuple[str, dict[str, Any]]:
    request_id = arg.get("id")
    document = _mine(context).get(request_id)
    if document is None:
        raise RouteError("not_found")
    return request_id, document


@registry.route("file_requests/get")
def get(context: Context, arg: Arguments) -> Any:
    """Answer one request."""
    with context.service.state.lock:
        return _encode(context, *_get(context, arg))


@registry.route("file_requests/update")
def update(context: Context, arg: Arguments) -> Any:
    """Change a request."""
    deadline = arg.union("deadline", "no_update")
    with context.mutation():
        request_id, old = _get(context, arg)
        document = {
            **old,
            "title": arg.get("title", old["title"]),
            "description": arg.get("description", old["description"]),
            "is_open": arg.get("open", old["is_open"]),
        }
        if arg.get("destination") is not None:
            document["folder_id"] = _folder(context, arg.path("destination")).id
        if deadline.tag == "update":
            document["deadline"] = _deadline(context, deadline) if deadline.get("deadline") is not None else None
        _requests(context)[request_id] = document
        return _encode(context, request_id, document)


@registry.route("file_requests/list_v2", "file_requests/list/continue")
def list_requests(context: Context, arg: Arguments) -> Any:
    """List the caller's requests in pages."""
    with context.service.state.lock:
        mine = list(_mine(context).items())
        return paging.answer(context, arg, "file_requests", mine, lambda one: _encode(context, *one))


@registry.route("file_requests/count")
def count(context: Context, arg: Arguments) -> Any:
    """Count the requests, open and closed."""
    del arg
    with context.service.state.lock:
        return {"file_request_count": len(_mine(context))}


@registry.route("file_requests/delete")
def delete(context: Context, arg: Arguments) -> Any:
    """Delete closed requests, all of them or none."""
    ids = arg.get("ids")
    with context.mutation():
        mine = _mine(context)
        if not all(request_id in mine for request_id in ids):
            raise RouteError("not_found")
        if any(mine[request_id]["is_open"] for request_id in ids):
            raise RouteError("file_request_open")
        return _delete(context, {request_id: mine[request_id] for request_id in ids})


@registry.route("file_requests/delete_all_closed")
def delete_all_closed(context: Context, arg: Arguments) -> Any:
    """Delete all closed requests."""
    del arg
    with context.mutation():
        return _delete(context, {i: document for i, document in _mine(context).items() if not document["is_open"]})


def _delete(context: Context, documents: dict[str, dict[str, Any]]) -> Any:
    shown = [_encode(context, *one) for one in documents.items()]
    for request_id in documents:
        del _requests(context)[request_id]
    return {"file_requests": shown}
