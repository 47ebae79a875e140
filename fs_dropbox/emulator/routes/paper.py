"""Paper docs and other files that can only be exported."""

from __future__ import annotations

from typing import Any

from fs_dropbox.content_hash import ContentHash
from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model import metadata, mutations, paper
from fs_dropbox.emulator.model.errors import PathLookupError, RouteError, WriteError, nested
from fs_dropbox.emulator.model.mutations import CommitInfo, given
from fs_dropbox.emulator.model.tree import File
from fs_dropbox.emulator.routes.download import check_readable
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.context import Context, Download


@registry.route("files/export")
def export(context: Context, arg: Arguments) -> Any:
    """Send a doc in an export format."""
    path = arg.path("path")
    wanted = arg.get("export_format")
    with context.service.state.lock, nested():
        file, _ = context.view.find_file(path)
        if file is None or (path.startswith("rev:") and not context.service.options.export_by_rev):
            raise PathLookupError("not_found")
        check_readable(file)
        made = paper.export(file, context.service.state.contents.bytes_of(file.revision.content_hash), wanted)
        shown = {"name": made.name, "size": len(made.data), "export_hash": ContentHash(made.data).hexdigest()}
        if made.paper_revision is not None:
            shown["paper_revision"] = made.paper_revision
        result = {"export_metadata": shown, "file_metadata": metadata.of_entry(context.view, file, tagged=False)}
    return Download(result, made.data, len(made.data))


def _body(context: Context) -> bytes:
    try:
        body = context.request.read(paper.MAX_DOC_BYTES)
    except ValueError:
        raise RouteError("doc_length_exceeded") from None
    try:
        body.decode()
    except UnicodeDecodeError:
        raise RouteError("content_malformed") from None
    return body


@registry.route("files/paper/create")
def create(context: Context, arg: Arguments) -> Any:
    """Create a Paper doc; a name that is taken gets a number."""
    path = arg.path("path")
    source_format = arg.choice("import_format")
    body = _body(context)
    if not context.user.email_verified:
        raise RouteError("email_unverified")
    if not path.lower().endswith(paper.PAPER_EXTENSION):
        raise RouteError("invalid_file_extension")
    with context.write(path):
        file = _store(context, CommitInfo(path, strict_conflict=True, autorename=True), body)
        paper.mark_as_paper(file, source_format)
        context.service.state.touch(file)
        shown = metadata.of_entry(context.view, file)
    return {
        "url": f"{context.request.base_url}/scl/fi/paper/{file.id[3:]}",
        "result_path": shown["path_display"],
        "file_id": file.id,
        "paper_revision": 1,
    }


def _store(context: Context, info: CommitInfo, body: bytes) -> File:
    try:
        with given(context.service.state.contents, [body]) as content:
            return mutations.commit(context.view, info, content)
    except WriteError as error:
        tag = "insufficient_permissions" if error.union[".tag"] == "no_write_permission" else "invalid_path"
        raise RouteError(tag) from error


@registry.route("files/paper/update")
def update(context: Context, arg: Arguments) -> Any:
    """Change a Paper doc: replace it (policy update: only at the revision given), or add before or after."""
    path = arg.path("path")
    source_format = arg.choice("import_format")
    policy = arg.choice("doc_update_policy")
    at_revision = arg.get("paper_revision")
    body = _body(context)
    with nested(), context.write(path):
        file = context.view.find(path)
        doc = file.extra.get("paper")
        if doc is None or not isinstance(file, File):
            raise PathLookupError("unsupported_content_type")
        if not context.view.can_write(file.namespace):
            raise RouteError("insufficient_permissions")
        if policy == "update" and at_revision != doc["revision"]:
            raise RouteError("revision_mismatch")
        if policy in ("prepend", "append"):
            old = context.service.state.contents.bytes_of(file.revision.content_hash).decode()
            new = paper.convert(body.decode(), source_format, doc["format"])
            body = (f"{new}\n\n{old}" if policy == "prepend" else f"{old}\n\n{new}").encode()
            source_format = doc["format"]
        _store(context, CommitInfo(path, "overwrite", strict_conflict=True), body)
        paper.mark_as_paper(file, source_format, doc["revision"] + 1)
        context.service.state.touch(file)
        return {"paper_revision": file.extra["paper"]["revision"]}
