"""Links that need no token: temporary links for reading and for one upload."""

from __future__ import annotations

import re
import secrets
from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.http import Request, Response
from fs_dropbox.emulator.model import metadata, mutations
from fs_dropbox.emulator.model.errors import PlainError, RouteError, WriteError, nested
from fs_dropbox.emulator.model.sessions import SessionError
from fs_dropbox.emulator.model.tree import Revision
from fs_dropbox.emulator.routes.download import check_downloadable, sent
from fs_dropbox.emulator.routes.upload import commit_info, receive
from fs_dropbox.emulator.service import Service
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.answers import download_response, json_response, text_response
from fs_dropbox.emulator.web.context import Context

UPLOAD_ROUTE = "files/get_temporary_upload_link"
USED_UP = "This link is invalid, used or expired"


@registry.route("files/get_temporary_link")
def get_temporary_link(context: Context, arg: Arguments) -> Any:
    """Answer a URL from which anybody can read the file's present content for some hours."""
    path = arg.path("path")
    if not context.user.email_verified:
        raise RouteError("email_not_verified")
    with context.mutation(), nested():
        file, revision = context.view.find_file(path)
        check_downloadable(file)
        token = _add_link(
            context, "temporary_link", context.service.options.temporary_link_seconds, {"rev": revision.rev}
        )
        result = metadata.of_revision(context.view, revision, file=file)
    return {"metadata": result, "link": f"{context.request.base_url}/temporary/{token}/{_url_name(revision)}"}


def _add_link(context: Context, kind: str, seconds: float, link: dict[str, Any]) -> str:
    """Store a link for so many seconds, forget those that are over for a day, and return its token."""
    now = context.service.state.clock()
    links = context.service.state.collection(kind)
    for old in [token for token, known in links.items() if known["expires"] < now - 86400]:
        del links[old]
    token = secrets.token_urlsafe(32)
    links[token] = {**link, "expires": now + seconds}
    return token


def _url_name(revision: Revision) -> str:
    return re.sub(r"[^\w.-]", "_", revision.name, flags=re.ASCII)


@registry.page("GET", "/temporary")
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
        return download_response(sent(service, request, revision, "416"))


@registry.route(UPLOAD_ROUTE)
def get_temporary_upload_link(context: Context, arg: Arguments) -> Any:
    """Answer a URL to which anybody can upload one file once."""
    info = arg.struct("commit_info")
    commit_info(info)
    seconds = arg.get("duration", 14400.0)
    with context.mutation():
        link = {
            "commit_info": info.fields,
            "account": context.account_id,
            "app": context.app.key if context.app is not None else None,
            "path_root": context.path_root.id if context.path_root is not None else None,
        }
        token = _add_link(context, "upload_link", seconds, link)
    return {"link": f"{context.request.base_url}/upload/{token}"}


@registry.page("POST", "/upload")
def use_upload_link(service: Service, request: Request) -> Response:
    """Store the body as the file that the link is for."""
    if request.headers.get("content-type", "").lower() != "application/octet-stream":
        return text_response(400, "Content-Type must be application/octet-stream")
    token = request.path.split("/")[2]
    links = service.state.collection("upload_link")
    with service.state.mutation():
        link = links.get(token)
        if link is None or link["expires"] < service.state.clock():
            raise PlainError(410, USED_UP)
        context = Context(service, UPLOAD_ROUTE, registry.load_attributes()[UPLOAD_ROUTE], request)
        context.account = service.accounts.accounts[link["account"]]
        context.app = service.accounts.apps.get(link["app"])
        context.path_root = service.state.namespaces.get(link["path_root"])
    session = service.sessions.new("sequential", context.account_id)
    try:
        receive(context, session, 0, close=False, content_hash=None)
        incoming, info = service.sessions.incoming(session), commit_info(Arguments(link["commit_info"]))
        with context.write(info.path):
            if token not in links:  # another upload was quicker
                raise PlainError(410, USED_UP)
            mutations.commit(context.view, info, incoming)
            del links[token]
    except (SessionError, WriteError) as error:
        raise PlainError(409, str(error)) from error
    finally:
        session.spool.discard()
    return json_response(200, {"content-hash": incoming.hash})
