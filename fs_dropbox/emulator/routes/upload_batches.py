"""Upload sessions by the thousand: start_batch, append_batch, finish_batch."""

from __future__ import annotations

from collections import deque
from typing import Any

from fs_dropbox.content_hash import ContentHash
from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model import metadata, mutations
from fs_dropbox.emulator.model.errors import RouteError, union
from fs_dropbox.emulator.model.sessions import Append, SessionError, UploadSession
from fs_dropbox.emulator.routes.batches import run_batch
from fs_dropbox.emulator.routes.upload import commit_incoming, commit_info, finish_errors
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.context import Context


@registry.route("files/upload_session/start_batch")
def start_batch(context: Context, arg: Arguments) -> Any:
    """Begin several upload sessions."""
    number = arg.get("num_sessions")
    kind = arg.choice("session_type", "sequential")
    sessions = [context.service.sessions.new(kind, context.account_id) for _ in range(number)]
    with context.mutation():
        for session in sessions:
            context.service.sessions.register(session)
    return {"session_ids": [session.id for session in sessions]}


class _Part:
    """One entry of append_batch: its share of the body goes to an append, or nowhere once it has failed."""

    def __init__(self, context: Context, entry: Arguments) -> None:
        self._context = context
        cursor = entry.struct("cursor")
        self._session_id, self._offset = cursor.get("session_id"), cursor.get("offset")
        self.length: int = entry.get("length")
        self._close = entry.get("close", False)
        self._session: UploadSession | None = None
        self._append: Append | None = None
        self.failure: dict[str, Any] | None = None

    def begin(self) -> None:
        """Open the append."""
        limit = self._context.service.options.max_file_bytes
        try:
            self._session = self._context.service.sessions.get(self._session_id, self._context.account_id)
            self._append = self._session.append(self._offset, close=self._close, max_file_bytes=limit, size=self.length)
        except SessionError as error:
            self.failure = error.union

    def write(self, block: memoryview) -> None:
        """Take the next bytes of the share."""
        if self.failure is None and self._append is not None:
            try:
                self._append.write(block)
            except SessionError as error:
                self.failure = error.union

    def complete(self) -> dict[str, Any]:
        """Count the bytes and return the entry's result."""
        if self.failure is None and self._append is not None and self._session is not None:
            try:
                self._append.complete(close=self._close)
                self._context.service.sessions.register(self._session)
            except SessionError as error:
                self.failure = error.union
        return union("success") if self.failure is None else union("failure", failure=self.failure)

    def end(self) -> None:
        """Release the file."""
        if self._append is not None:
            self._append.end()


@registry.route("files/upload_session/append_batch")
def append_batch(context: Context, arg: Arguments) -> Any:
    """Append to several upload sessions; the body is all their bytes, one after the other."""
    parts = [_Part(context, entry) for entry in arg.structs("entries")]
    content_hash = arg.get("content_hash")
    total = sum(part.length for part in parts)
    if total > context.service.options.max_request_bytes:
        raise RouteError("payload_too_large")
    if context.request.length is not None and context.request.length != total:
        raise RouteError("length_mismatch")
    check = ContentHash()
    try:
        _distribute(context, parts, total, check)
        if content_hash is not None and content_hash != check.hexdigest():
            raise RouteError("content_hash_mismatch")
        with context.mutation():
            return {"entries": [part.complete() for part in parts]}
    finally:
        for part in parts:
            part.end()


def _distribute(context: Context, parts: list[_Part], total: int, check: ContentHash) -> None:
    for part in parts:
        part.begin()
    waiting = deque(parts)
    left = parts[0].length if parts else 0
    for block in context.request.blocks():
        check.update(block)
        total -= len(block)
        if total < 0:
            raise RouteError("length_mismatch")
        rest = block
        while rest:
            while left == 0:
                waiting.popleft().end()
                left = waiting[0].length
            share = rest[:left]
            waiting[0].write(share)
            left -= len(share)
            rest = rest[len(share) :]
    if total != 0:
        raise RouteError("length_mismatch")


@registry.route("files/upload_session/finish_batch_v2", "files/upload_session/finish_batch")
def finish_batch(context: Context, arg: Arguments) -> Any:
    """Commit several closed sessions: at once (v2), or as a job."""
    entries = arg.structs("entries")
    cursors = [entry.struct("cursor") for entry in entries]
    places = [(cursor.get("session_id"), cursor.get("offset")) for cursor in cursors]
    infos = [commit_info(entry.struct("commit")) for entry in entries]

    def work(index: int) -> dict[str, Any]:
        return _finish(context, *places[index], infos[index])

    results = run_batch(context, [[info.path] for info in infos], work, finish_errors)
    if context.route == "files/upload_session/finish_batch_v2":
        return {"entries": results}
    return context.launch("finish_batch", union("complete", entries=results), as_job=True)


def _finish(context: Context, session_id: str, offset: int, info: mutations.CommitInfo) -> metadata.Metadata:
    sessions = context.service.sessions
    if (done := sessions.repeated(session_id)) is not None:
        return dict(done)
    session = sessions.get(session_id, context.account_id)
    if not session.closed:
        raise SessionError("concurrent_session_not_closed" if session.is_concurrent else "not_closed")
    session.check_end(offset)
    return commit_incoming(context, session, info, sessions.incoming(session))
