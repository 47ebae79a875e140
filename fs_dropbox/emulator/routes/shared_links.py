"""Shared links: made, listed, changed and revoked by their owners, read by whoever has them."""

from __future__ import annotations

import re
from html import escape
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.http import Request, Response
from fs_dropbox.emulator.model import metadata
from fs_dropbox.emulator.model.accounts import Account
from fs_dropbox.emulator.model.errors import BadArgumentError, CallError, PathLookupError, RouteError, nested, union
from fs_dropbox.emulator.model.tree import Entry, File, Folder
from fs_dropbox.emulator.people import shared_links
from fs_dropbox.emulator.people.shared_links import Link
from fs_dropbox.emulator.routes.download import check_downloadable, sent
from fs_dropbox.emulator.routes.zips import zip_body
from fs_dropbox.emulator.service import Service
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.answers import download_response, text_response
from fs_dropbox.emulator.web.context import Context
from fs_dropbox.emulator.web.paging import Place, cut, place_of

PAGE = 50


def web_url(context: Context) -> str:
    """Return the address of the web site by which the caller can reach the emulator."""
    return re.sub(r"://[a-z]+\.dropboxapi\.com", "://www.dropbox.com", context.request.base_url)


def _encode(context: Context, link: Link, entry: Entry, shown: Entry | None = None) -> dict[str, Any]:
    url = web_url(context) + link.path(entry)
    path = context.view.path_of(shown or entry) if context.account is not None else None
    path_lower = path[0] if path is not None else None
    return shared_links.metadata_of(context.service, link, url, shown or entry, context.account, path_lower)


@registry.route("sharing/create_shared_link_with_settings")
def create(context: Context, arg: Arguments) -> Any:
    """Make a link."""
    path = arg.path("path")
    settings = arg.struct("settings")
    if not context.user.email_verified:
        raise RouteError("email_not_verified")
    with nested(), context.mutation():
        entry = _entry(context, path)
        for link, linked in _links(context):
            if linked is entry:
                raise _already(_encode(context, link, entry) if not settings.fields else None)
        return _encode(context, shared_links.create(context.service, context.user, entry, settings), entry)


def _links(context: Context) -> list[tuple[Link, Entry]]:
    """Return the caller's links; an app with an app folder knows those into it only."""
    links = shared_links.links_of(context.service, context.user)
    if context.app is None or not context.app.app_folder:
        return links
    return [(link, entry) for link, entry in links if context.view.path_of(entry) is not None]


def _already(existing: dict[str, Any] | None) -> RouteError:
    tag = "shared_link_already_exists"
    return RouteError(union(tag) if existing is None else union(tag, **{tag: union("metadata", metadata=existing)}))


def _entry(context: Context, path: str) -> Entry:
    if not path.startswith("rev:"):
        return context.view.find(path)
    file, _ = context.view.find_file(path)
    if file is None:
        raise PathLookupError("not_found")
    return file


@registry.route("sharing/list_shared_links")
def list_links(context: Context, arg: Arguments) -> Any:
    """List the caller's links: all of them in pages, or those that lead to a path (directly, or by a parent)."""
    path = arg.get("path")
    direct_only = arg.get("direct_only", False)
    cursor = arg.get("cursor")
    with nested(), context.service.state.lock:
        links = _links(context)
        if path is not None:
            wanted = _entry(context, arg.path("path"))
            places = {wanted} if direct_only else {wanted, *_parents(context, wanted)}
            return {"links": [_encode(context, k, entry) for k, entry in links if entry in places], "has_more": False}
        place = Place(0, PAGE) if cursor is None else place_of(context, "shared_links", cursor)
        if place is None:
            raise RouteError("reset")
        page, following, has_more = cut(context, "shared_links", links, place)
        return {"links": [_encode(context, *one) for one in page], "has_more": has_more, "cursor": following}


def _parents(context: Context, entry: Entry) -> list[Entry]:
    path = context.view.path_of(entry)
    if path is None:
        return []
    components = path[0].split("/")
    return [context.view.find("/".join(components[:depth])) for depth in range(2, len(components))]


@registry.route("sharing/get_shared_link_metadata")
def get_metadata(context: Context, arg: Arguments) -> Any:
    """Answer what a link shows, or what is at a path below it."""
    with context.service.state.lock:
        link, entry, shown = _shown(context, arg)
        return _encode(context, link, entry, shown)


def _shown(context: Context, arg: Arguments) -> tuple[Link, Entry, Entry]:
    path = arg.get("path") or ""
    link, entry = shared_links.resolve(context.service, arg.get("url"))
    shared_links.check_reader(context.service, link, context.account, arg.get("link_password"))
    try:
        return link, entry, shared_links.below(context.service, entry, path)
    except PathLookupError as error:
        raise RouteError("shared_link_not_found") from error


@registry.route("sharing/get_shared_link_file")
def get_file(context: Context, arg: Arguments) -> Any:
    """Send the file behind a link."""
    with context.service.state.lock:
        link, entry, shown = _shown(context, arg)
        if not isinstance(shown, File):
            raise RouteError("shared_link_is_directory")
        owns = context.account is not None and context.account.account_id == link.owner
        if not (link.allow_download or owns):
            raise RouteError("shared_link_access_denied")
        try:
            check_downloadable(shown)
        except CallError as error:
            raise RouteError("unsupported_link_type") from error
        service, result = context.service, _encode(context, link, entry, shown)
        return sent(service, context.request, shown.revision, service.options.range_past_end, result)


@registry.route("sharing/modify_shared_link_settings")
def modify(context: Context, arg: Arguments) -> Any:
    """Change a link's settings."""
    settings = arg.struct("settings")
    with context.mutation():
        link, entry = _own(context, arg.get("url"))
        if arg.get("remove_expiration", False):
            link.expires = None
        shared_links.apply(context.service, link, context.user, settings)
        shared_links.store(context.service, link)
        return _encode(context, link, entry)


@registry.route("sharing/revoke_shared_link")
def revoke(context: Context, arg: Arguments) -> Any:
    """End a link."""
    url = arg.get("url")
    if not shared_links.FORM.fullmatch(url):
        raise RouteError("shared_link_malformed")
    with context.mutation():
        link, _ = _own(context, url)
        del shared_links.collection(context.service)[link.key]


def _own(context: Context, url: str) -> tuple[Link, Entry]:
    link, entry = shared_links.resolve(context.service, url)
    owner = context.service.accounts.accounts[link.owner]
    is_admin = context.admin is not None and owner.team_id == context.admin.team_id
    if link.owner != context.account_id and not is_admin:
        raise RouteError("shared_link_access_denied")
    return link, entry


# Listing the folder behind a link ------------------------------------------------


def list_folder(context: Context, arg: Arguments) -> Any:
    """Answer files/list_folder with `shared_link`: the path is relative to the link."""
    shared = arg.struct("shared_link")
    url, password = shared.get("url"), shared.get("password")
    path = arg.path("path", root=True)
    if arg.get("recursive", False):
        raise BadArgumentError("recursive: not supported for shared links")
    document = {"url": url, "password": password, "path": path}
    return _list_below(context, Place(0, arg.get("limit", context.service.options.page_size), document))


def list_folder_continue(context: Context, cursor: str) -> Any:
    """Answer files/list_folder/continue for a cursor of list_folder() above; None for any other cursor."""
    place = place_of(context, "link_page", cursor)
    return None if place is None else _list_below(context, place)


def _list_below(context: Context, place: Place) -> Any:
    service, document = context.service, place.about
    with nested(), service.state.lock:
        try:
            link, entry = shared_links.resolve(service, document["url"])
            shared_links.check_reader(service, link, context.account, document["password"])
        except RouteError as error:
            raise PathLookupError("not_found") from error
        folder = shared_links.below(service, entry, document["path"])
        if not isinstance(folder, Folder):
            raise PathLookupError("not_folder")
        children = [folder.inner.children[key] for key in folder.inner.order()]
        page, cursor, has_more = cut(context, "link_page", children, place)
        # Recorded: entries have paths where they lie in the caller's own Dropbox. An app alone has none.
        view = context.view if context.account is not None else service.view(None, folder.namespace)
        entries = [metadata.of_entry(view, child) for child in page]
        for shown in entries if context.account is None else ():
            del shown["path_lower"], shown["path_display"]
    return {"entries": entries, "cursor": cursor, "has_more": has_more}


# The link itself, in a browser or with curl ---------------------------------------


@registry.page("GET", "/scl")
def open_link(service: Service, request: Request) -> Response:
    """Send the file or a zip file of the folder for ?dl=1 and ?raw=1, else a page that shows what the link is for."""
    with service.state.lock:
        try:
            link, entry = shared_links.resolve(service, _full_url(request))
            shared_links.check_reader(service, link, None, request.query.get("password"))
        except CallError as refusal:
            status = 403 if "access_denied" in str(refusal) else 404
            return text_response(status, "This link needs a password or a sign-in." if status == 403 else "Not found")
        if request.query.get("dl") != "1" and request.query.get("raw") != "1":
            return _preview(service, link, entry)
        if not link.allow_download:
            return text_response(403, "The owner of this link has turned off downloads.")
        if isinstance(entry, Folder):
            body = zip_body(service.state.contents, shared_links.view_of(service, entry), entry)
            headers = {"Content-Type": "application/zip", "Content-Disposition": _attachment(entry.name + ".zip")}
            return Response(200, headers, body)
        assert isinstance(entry, File)
        try:
            check_downloadable(entry)
        except CallError:
            return text_response(403, "This file cannot be downloaded.")
        response = download_response(sent(service, request, entry.revision, "416"))
        disposition = _attachment(entry.name) if request.query.get("dl") == "1" else "inline"
        response.headers["Content-Disposition"] = disposition
        return response


def _full_url(request: Request) -> str:
    return f"{request.base_url}{quote(request.path)}?rlkey={request.query.get('rlkey', '')}"


def _attachment(name: str) -> str:
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"


def _preview(service: Service, link: Link, entry: Entry) -> Response:
    owner: Account = service.accounts.accounts[link.owner]
    parts = urlsplit(link.path(entry))
    download = urlunsplit(parts._replace(query=parts.query.replace("dl=0", "dl=1")))
    text = (
        f"<!DOCTYPE html><title>{escape(entry.name)}</title><h1>{escape(entry.name)}</h1>"
        f'<p>Shared by {escape(owner.display_name)}. <a href="{escape(download)}">Download</a></p>\n'
    )
    return Response(200, {"Content-Type": "text/html; charset=utf-8"}, text.encode())
