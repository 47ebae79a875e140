"""`Storing`: puts what a draft holds into the filesystem."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from fs.base import FS
from fs.errors import OperationFailed

from sftp_gateway.files import local_upload, plain_upload
from sftp_gateway.files.stream import PIECE_BYTES, Stream, abort
from sftp_gateway.sftp.status import EXISTS, RefusedError

if TYPE_CHECKING:
    from sftp_gateway.files.draft import Draft


class Storing:
    """Stores a draft: by a copy that the filesystem makes itself, atomically, or else in place.

    Owned by a draft, whose `lock` it holds over local disk only. Raises `fs.errors`, `RefusedError`, OSError.
    """

    def __init__(self, draft: Draft, filesystem: FS, *, atomic: bool, lock: AbstractContextManager[object]) -> None:
        self._draft = draft
        self._filesystem = filesystem
        self._atomic = atomic
        self._lock = lock

    def open_file(self, resume: str | None, *, at_once: bool = False) -> Any:
        """Open the file for writing from its first byte to its last, or resume with the text of a checkpoint."""
        draft = self._draft
        options: dict[str, Any] = {"seekable": False}
        if draft.base.version is not None:
            options["expected_version"] = draft.base.version
        if draft.write_back:
            options["write_back"] = True
        if at_once:
            options["at_once"] = True
        if resume is not None:
            options["resume"] = resume
        return self._filesystem.openbin(draft.path, "xb" if draft.exclusive else "wb", **options)

    def store(self, stream: Stream | None, size: int, *, at_once: bool = False) -> None:
        """Store the first `size` bytes, of which `stream` has sent the beginning. In the path's turn."""
        if at_once:
            self._write_and_close(self.open_file(None, at_once=True), 0, size)
            return
        if self._is_copied():
            return
        self._draft.base.check_unchanged(self._filesystem, self._draft.path)
        if self._atomic:
            self._store_atomically(stream, size)
        elif not self._store_as_new_file(size):
            self._store_in_place(size)

    def _is_copied(self) -> bool:
        """Have the filesystem copy another file, if the draft is an exact copy of it and has no time of its own."""
        draft = self._draft
        is_more = draft.spool.used or draft.size != draft.base.size or draft.modified is not None
        if draft.base.copy_of is None or is_more:
            return False
        if not self._atomic and self._filesystem.exists(draft.path):
            return False  # it may be the source under another name: copying it onto itself would empty it
        return draft.base.copy_to(self._filesystem, draft.path, replace=not draft.exclusive)

    def _store_atomically(self, stream: Stream | None, size: int) -> None:
        forwarding = self._draft.forwarding
        try:
            self._send_and_close(stream, size)
        except OperationFailed as error:
            if not forwarding.may_start_anew(error):
                raise
            forwarding.resume = None
            self._send_and_close(None, size)

    def _send_and_close(self, stream: Stream | None, size: int) -> None:
        file, done = self._draft.forwarding.finish(stream)
        self._write_and_close(file, done, size)

    def _write_and_close(self, file: Any, done: int, size: int) -> None:
        try:
            for piece in self._pieces(done, size):
                file.write(piece)
            modified = self._draft.modified
            if modified is not None:
                file.modified = datetime.fromtimestamp(modified, UTC)
        except BaseException:
            abort(file)
            raise
        file.close()

    def _store_as_new_file(self, size: int) -> bool:
        draft = self._draft
        if draft.exclusive and self._filesystem.exists(draft.path):
            raise RefusedError(EXISTS)
        pieces = self._pieces(0, size)
        content = local_upload.Received(pieces, partial(draft.give, size))
        is_stored = local_upload.upload(
            self._filesystem, draft.path, content, draft.modified, exclusive=draft.exclusive
        )
        return is_stored or draft.spool.is_given  # in place it would be emptied before it is copied onto itself

    def _store_in_place(self, size: int) -> None:
        """Store in a filesystem without atomic writes: from the spool alone, as the old content is overwritten."""
        draft, base = self._draft, self._draft.base
        if base.is_there:
            plain_upload.gather(base, draft.spool, self._lock)
            base.close()
        plain_upload.upload(self._filesystem, draft.path, self._piece, size, draft.modified)

    def _pieces(self, offset: int, end: int) -> Iterator[bytes]:
        while offset < end and (piece := self._piece(offset, min(PIECE_BYTES, end - offset))):
            yield piece
            offset += len(piece)

    def _piece(self, offset: int, size: int) -> bytes:
        """Return the bytes to store at `offset`; raises if the draft was cut off meanwhile, and may hold fewer now."""
        piece = self._draft.read(offset, size)
        if not self._draft.is_open:
            raise RefusedError("the upload was cut off")
        return piece
