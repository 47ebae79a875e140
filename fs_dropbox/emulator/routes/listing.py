"""Listings, cursors and the change feed: list_folder and its siblings, longpoll."""

from __future__ import annotations

import random
import time
from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.http import DroppedError
from fs_dropbox.emulator.model.cursors import Cursor, Page, has_changes, read_page
from fs_dropbox.emulator.model.errors import BadArgumentError, PathLookupError, RouteError, nested
from fs_dropbox.emulator.model.tree import Folder
from fs_dropbox.emulator.model.view import View
from fs_dropbox.emulator.routes import shared_links
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.context import Context

ABANDONED_CHECK_SECONDS = 0.25


@registry.route("files/list_folder")
def list_folder(context: Context, arg: Arguments) -> Any:
    """List the first page of a folder, or of what a shared link leads to."""
    if arg.get("shared_link") is not None:
        return shared_links.list_folder(context, arg)
    with context.service.state.lock, nested():
        cursor = _new_cursor(context, arg)
        return _answer(context, read_page(_view_of(context, cursor), cursor))


@registry.route("files/list_folder/get_latest_cursor")
def get_latest_cursor(context: Context, arg: Arguments) -> Any:
    """Answer a cursor for now, without entries."""
    with context.service.state.lock, nested():
        cursor = _new_cursor(context, arg, listing=False)
        return {"cursor": context.service.cursors.encode(cursor)}


def _new_cursor(context: Context, arg: Arguments, *, listing: bool = True) -> Cursor:
    path = arg.path("path", root=True)
    if path.startswith("//"):
        # Malformed for other routes, but not here: rclone lists what is below its root as "//folder".
        path = f"/{path.lstrip('/')}"
    view = context.view
    folder = view.find(path)
    if not isinstance(folder, Folder):
        raise PathLookupError("not_folder")
    inner = folder.inner
    # What is not mounted in the view (by ns:) is listed for itself, with paths relative to its namespace.
    root = view.root if view.prefix_of(inner.namespace) is not None else inner.namespace
    return Cursor(
        account=context.account_id,
        root=root.id,
        everything=view.sees_everything,
        namespace=inner.namespace.id,
        path=inner.key_path(),
        recursive=arg.get("recursive", False),
        deleted=arg.get("include_deleted", False),
        mounted=arg.get("include_mounted_folders", True),
        non_downloadable=arg.get("include_non_downloadable_files", True),
        media_info=arg.get("include_media_info", False),
        limit=arg.get("limit"),
        sequence=context.service.state.sequence,
        epoch=context.service.cursors.epoch,
        after=() if listing else None,
    )


def _answer(context: Context, page: Page) -> Any:
    cursor = context.service.cursors.encode(page.cursor)
    return {"entries": page.entries, "cursor": cursor, "has_more": page.has_more}


@registry.route("files/list_folder/continue")
def list_folder_continue(context: Context, arg: Arguments) -> Any:
    """List the next page, or what has changed."""
    text = arg.get("cursor")
    by_link = shared_links.list_folder_continue(context, text)
    if by_link is not None:
        return by_link
    cursor = context.service.cursors.decode(text)
    if cursor.account != context.account_id:
        raise BadArgumentError("cursor: was given to another user")
    with context.service.state.lock, nested():
        return _answer(context, read_page(_view_of(context, cursor), cursor))


@registry.route("files/list_folder/longpoll")
def longpoll(context: Context, arg: Arguments) -> Any:
    """Wait until something changes or the time is over."""
    cursor = context.service.cursors.decode(arg.get("cursor"))
    if cursor.media_info:
        raise BadArgumentError("cursor: unsupported cursor type")
    seconds = arg.get("timeout", 30)
    service, state = context.service, context.service.state
    deadline = time.monotonic() + seconds + random.uniform(0, service.options.longpoll_jitter_seconds)
    with state.changed:
        while True:
            if cursor.epoch != service.cursors.epoch:
                raise RouteError("reset")
            try:
                changes = has_changes(_view_of(context, cursor), cursor)
            except PathLookupError:
                changes = True  # the folder is gone: continue tells
            left = deadline - time.monotonic()
            if changes or left <= 0 or service.stopping.is_set():
                break
            if context.request.is_abandoned:
                raise DroppedError
            state.changed.wait(min(left, ABANDONED_CHECK_SECONDS))
    result: dict[str, Any] = {"changes": changes}
    if service.options.longpoll_backoff_seconds is not None:
        result["backoff"] = service.options.longpoll_backoff_seconds
    return result


def _view_of(context: Context, cursor: Cursor) -> View:
    service = context.service
    account = service.accounts.accounts.get(cursor.account or "")
    root = service.state.namespaces.get(cursor.root)
    if root is None:
        raise PathLookupError("not_found")
    view = service.view(account, root, everything=cursor.everything)
    if not view.can_see(root):  # no longer
        raise PathLookupError("not_found")
    return view
