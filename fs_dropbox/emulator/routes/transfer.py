"""Contents that come from elsewhere: another account's by a copy reference, one behind a URL of the emulator."""

from __future__ import annotations

import re
import secrets
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model import metadata, mutations
from fs_dropbox.emulator.model.errors import CallError, RouteError, nested, union
from fs_dropbox.emulator.model.mutations import CommitInfo, Given
from fs_dropbox.emulator.model.times import format_time
from fs_dropbox.emulator.model.tree import File, Folder, Revision
from fs_dropbox.emulator.people import shared_links
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.context import Context

COPY_REFERENCE_SECONDS = 30 * 365 * 86400


# Copy references ------------------------------------------------------------------


@registry.route("files/copy_reference/get")
def get_copy_reference(context: Context, arg: Arguments) -> Any:
    """Answer a text by which another account can copy an entry."""
    path = arg.path("path")
    with nested(), context.mutation():
        entry = context.view.find(path)
        reference = secrets.token_urlsafe(24)
        assert context.app is not None
        assert context.grant is not None
        document = {"entry_id": entry.id, "app": context.app.key, "grant": context.grant.grant_id}
        context.service.state.collection("copy_reference")[reference] = document
        return {
            "metadata": metadata.of_entry(context.view, entry),
            "copy_reference": reference,
            "expires": format_time(context.service.state.clock() + COPY_REFERENCE_SECONDS),
        }


@registry.route("files/copy_reference/save")
def save_copy_reference(context: Context, arg: Arguments) -> Any:
    """Copy what a reference stands for into the caller's Dropbox."""
    reference, path = arg.get("copy_reference"), arg.path("path")
    service = context.service
    with nested(), context.write(path):
        document = service.state.collection("copy_reference").get(reference)
        if document is None:
            raise RouteError("invalid_copy_reference")
        assert context.app is not None
        if document["app"] != context.app.key or service.accounts.grants[document["grant"]].revoked:
            raise RouteError("no_permission")
        source = service.state.entries.get(document["entry_id"])
        if source is None:
            raise RouteError("not_found")
        view = context.view
        target = view.target(path)
        view.check_write(target.namespace)
        name = mutations.name_for(target, autorename=False)
        content = source.inner if isinstance(source, Folder) else source
        mutations.check_subtree(view, content)
        mutations.check_quota(view, target.namespace, content.total_bytes())
        copy = service.state.duplicate(source, mutations.make_parents(view, target), name)
        return {"metadata": metadata.of_entry(view, copy)}


# URLs -----------------------------------------------------------------------------


@registry.route("files/save_url")
def save_url(context: Context, arg: Arguments) -> Any:
    """Store what is behind a URL. The emulator reaches its own links only; everything else fails to download."""
    path, url = arg.path("path"), arg.get("url")
    if not re.match(r"https?://[^/\[\]]+(?:/|$)", url):
        raise RouteError("invalid_url")
    with nested(), context.write(path):
        revision = _behind(context, url)
        if revision is None:
            return context.launch("save_url", union("failed", failed=union("download_failed")), as_job=True, force=True)
        info = CommitInfo(path, autorename=True)
        known = Given(context.service.state.contents, revision.content_hash, revision.size)
        file = mutations.commit(context.view, info, known)
        done = union("complete", **metadata.of_entry(context.view, file, tagged=False))
    return context.launch("save_url", done, as_job=True)


def _behind(context: Context, url: str) -> Revision | None:
    """Return the content behind a temporary link or a shared link of the emulator, or None."""
    service, parts = context.service, urlsplit(url)
    temporary = re.fullmatch(r"/temporary/([^/]+)/.*", parts.path)
    if temporary is not None:
        link = service.state.collection("temporary_link").get(temporary[1])
        if link is None or link["expires"] < service.state.clock():
            return None
        return service.state.revisions.get(link["rev"])
    try:
        shared, entry = shared_links.resolve(service, url)
        shared_links.check_reader(service, shared, None, parse_qs(parts.query).get("password", [None])[0])
    except CallError:
        return None
    return entry.revision if isinstance(entry, File) and shared.allow_download else None
