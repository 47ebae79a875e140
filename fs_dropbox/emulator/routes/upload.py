"""Uploads in one call and in upload sessions: bytes stream to a spool while they are hashed, commits follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fs_dropbox.content_hash import ContentHash
from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model import metadata, mutations
from fs_dropbox.emulator.model.errors import RouteError, WriteError, union
from fs_dropbox.emulator.model.sessions import Incoming, SessionError, UploadSession
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.context import Context


def commit_info(arg: Arguments) -> mutations.CommitInfo:
    """Read a files.CommitInfo."""
    mode, groups = arg.union("mode", "add"), arg.get("property_groups")
    return mutations.CommitInfo(
        path=arg.path("path"),
        mode=mode.tag,  # type: ignore[arg-type]
        rev=mode.get("update", ""),
        autorename=arg.get("autorename", False),
        client_modified=arg.timestamp("client_modified"),
        strict_conflict=arg.get("strict_conflict", False),
        template=groups[0]["template_id"] if groups else "",
    )


def receive(context: Context, session: UploadSession, offset: int, *, close: bool, content_hash: str | None) -> None:
    """Append the request's body to a session, or raise SessionError; nothing counts unless all of it is right."""
    options = context.service.options
    length = context.request.length
    if length is not None and length > options.max_request_bytes:
        raise SessionError("payload_too_large")
    append = session.append(
        offset, close=close, max_file_bytes=options.max_file_bytes, size=length, check=content_hash is not None
    )
    try:
        for block in context.request.blocks():
            if append.size + len(block) > options.max_request_bytes:
                raise SessionError("payload_too_large")
            append.write(block)
        if content_hash is not None and content_hash != append.content_hash():
            raise SessionError("content_hash_mismatch")
        append.complete(close=close)
    finally:
        append.end()


def receive_nothing(context: Context, content_hash: str | None, refusal: SessionError) -> None:
    """Raise the refusal if the request has a body, and SessionError if its hash is not that of no bytes."""
    if next(iter(context.request.blocks()), None) is not None:
        raise refusal
    if content_hash not in (None, ContentHash().hexdigest()):
        raise SessionError("content_hash_mismatch")


@contextmanager
def session_errors() -> Iterator[None]:
    """Make the failures of a session the route's own error."""
    try:
        yield
    except SessionError as error:
        raise RouteError(error.union) from error


@registry.route("files/upload")
def upload(context: Context, arg: Arguments) -> Any:
    """Store a file in one call."""
    info = commit_info(arg)
    content_hash = arg.get("content_hash")
    sessions = context.service.sessions
    session = sessions.new("sequential", context.account_id)
    try:
        with session_errors():
            receive(context, session, 0, close=False, content_hash=content_hash)
            return commit(context, session, info)
    except WriteError as error:
        sessions.register(session)
        raise RouteError({".tag": "path", "reason": error.union, "upload_session_id": session.id}) from error
    except BaseException:
        session.spool.discard()
        raise


def commit(context: Context, session: UploadSession, info: mutations.CommitInfo) -> metadata.Metadata:
    """Make a session's bytes a file, or raise WriteError or SessionError."""
    incoming = context.service.sessions.incoming(session)
    with context.write(info.path):
        return commit_incoming(context, session, info, incoming)


def commit_incoming(
    context: Context, session: UploadSession, info: mutations.CommitInfo, incoming: Incoming
) -> metadata.Metadata:
    """Do commit()'s work. Needs the write lock."""
    file = mutations.commit(context.view, info, incoming)
    result = metadata.of_entry(context.view, file, tagged=False)
    context.service.sessions.finish(session, result)
    if info.template:  # the file is stored all the same, as it is documented
        missing = union("template_not_found", template_not_found=info.template)
        raise SessionError("properties_error", properties_error=missing)
    return result


@registry.route("files/upload_session/start")
def session_start(context: Context, arg: Arguments) -> Any:
    """Begin an upload session."""
    close = arg.get("close", False)
    content_hash = arg.get("content_hash")
    kind = arg.choice("session_type", "sequential")
    if kind == "concurrent" and close:
        raise RouteError("concurrent_session_close_not_allowed")
    session = context.service.sessions.new(kind, context.account_id)
    try:
        with session_errors():
            if session.is_concurrent:
                receive_nothing(context, content_hash, SessionError("concurrent_session_data_not_allowed"))
            else:
                receive(context, session, 0, close=close, content_hash=content_hash)
    except BaseException:
        session.spool.discard()
        raise
    context.service.sessions.register(session)
    return {"session_id": session.id}


@registry.route("files/upload_session/append_v2")
def session_append(context: Context, arg: Arguments) -> Any:
    """Append to an upload session."""
    cursor = arg.struct("cursor")
    _append(context, cursor, close=arg.get("close", False), content_hash=arg.get("content_hash"))


@registry.route("files/upload_session/append")
def session_append_v1(context: Context, arg: Arguments) -> Any:
    """Append to an upload session, in the form of former years."""
    _append(context, arg, close=False, content_hash=None)


def _append(context: Context, cursor: Arguments, *, close: bool, content_hash: str | None) -> None:
    session_id, offset = cursor.get("session_id"), cursor.get("offset")
    with session_errors():
        session = context.service.sessions.get(session_id, context.account_id)
        receive(context, session, offset, close=close, content_hash=content_hash)
    context.service.sessions.register(session)


@registry.route("files/upload_session/finish")
def session_finish(context: Context, arg: Arguments) -> Any:
    """Append the last bytes and commit."""
    cursor = arg.struct("cursor")
    session_id, offset = cursor.get("session_id"), cursor.get("offset")
    info = commit_info(arg.struct("commit"))
    content_hash = arg.get("content_hash")
    sessions = context.service.sessions
    if (done := sessions.repeated(session_id)) is not None:
        return done
    with finish_errors():
        session = sessions.get(session_id, context.account_id)
        receive_last(context, session, offset, content_hash)
        return commit(context, session, info)


def receive_last(context: Context, session: UploadSession, offset: int, content_hash: str | None) -> None:
    """Append what comes with finish; it stays appended when the commit fails."""
    if session.is_concurrent or session.closed:
        tag = "concurrent_session_data_not_allowed" if session.is_concurrent else "closed"
        receive_nothing(context, content_hash, SessionError(tag))
        session.check_end(offset)
        return
    receive(context, session, offset, close=False, content_hash=content_hash)
    context.service.sessions.register(session)


_FINISH_TAGS = frozenset(
    {
        "concurrent_session_data_not_allowed",
        "concurrent_session_not_closed",
        "concurrent_session_missing_data",
        "payload_too_large",
        "content_hash_mismatch",
        "properties_error",
        "too_many_write_operations",
    }
)


@contextmanager
def finish_errors() -> Iterator[None]:
    """Wrap failures into files.UploadSessionFinishError."""
    try:
        yield
    except (SessionError, WriteError) as error:
        if error.union[".tag"] in _FINISH_TAGS:
            raise RouteError(error.union) from error
        field = "lookup_failed" if isinstance(error, SessionError) else "path"
        raise RouteError(union(field, **{field: error.union})) from error
