"""`Sender`: brings pending files into a storage: many at once where it stages uploads, else one by one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fs import errors
from fs.base import FS
from fs.path import dirname

from sftp_gateway.files.stream import PIECE_BYTES, abort
from sftp_gateway.write_back.journal import Journal
from sftp_gateway.write_back.journal_rows import Pending


class Sender:
    """Owned by a `Delivery`. Thread-safe: has no state.

    With staged uploads the journal knows the token of what is sent before the storage is asked to store it, and the
    same token is used until the outcome is known: a commit that was requested by a process that died, or by a call
    whose answer was lost, cannot take effect later, when the file may have been removed, renamed or changed again.
    """

    def __init__(self, filesystem: FS, journal: Journal) -> None:
        self._filesystem: Any = filesystem
        self._journal = journal
        self.has_staging = bool(filesystem.getmeta().get("staged_uploads")) and hasattr(filesystem, "stage_files")

    def send(self, sending: Sequence[Pending]) -> Iterator[tuple[Pending, Exception | None]]:
        """Send files; yield each of them once, with the error or None."""
        if self.has_staging:
            yield from self._send_staged(sending)
        else:
            yield from ((pending, self._try(pending)) for pending in sending)

    # -- staged

    def _send_staged(
        self, sending: Sequence[Pending], *, again: bool = True
    ) -> Iterator[tuple[Pending, Exception | None]]:
        staged = [pending for pending in sending if pending.staged is not None]
        new = [pending for pending in sending if pending.staged is None]
        sources = [(functools.partial(self._journal.open, pending), pending.size) for pending in new]
        for pending, token in _answered(new, self._filesystem.stage_files, sources):
            if isinstance(token, Exception):
                yield pending, token
            else:
                staged.append(replace(pending, staged=token))
        if new:
            self._journal.note_staged({pending.id: pending.staged for pending in staged})
        gone = []
        for pending, outcome in self._commit(staged):
            if outcome is False:
                gone.append(replace(pending, staged=None))
            else:
                yield pending, None if outcome is True else outcome
        if gone:
            self._journal.note_staged({pending.id: None for pending in gone})
            if again:
                yield from self._send_staged(gone, again=False)
            else:
                forgotten = errors.OperationFailed(msg="the storage has forgotten what it was sent")
                yield from ((pending, forgotten) for pending in gone)

    def _commit(self, staged: list[Pending]) -> Iterator[tuple[Pending, bool | Exception]]:
        expected = {"replace": None, "create": ""}
        files = [
            (pending.path, pending.staged, _moment(pending), expected.get(pending.mode, pending.expected))
            for pending in staged
        ]
        yield from _answered(staged, self._filesystem.commit_files, files)

    # -- one by one

    def _try(self, pending: Pending) -> Exception | None:
        """Send one file; return the error or None."""
        try:
            try:
                self._send(pending)
            except errors.ResourceNotFound:  # a directory that somebody has removed is made again
                parent = dirname(pending.path)
                self._journal.directories.doubt(parent)
                self._filesystem.makedirs(parent, recreate=True)
                self._send(pending)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is noted and tried again, unless that is vain
            return error
        return None

    def _send(self, pending: Pending) -> None:
        options: dict[str, Any] = {"seekable": False}
        if pending.expected is not None:
            options["expected_version"] = pending.expected
        with self._journal.open(pending) as content:
            file = self._filesystem.openbin(pending.path, "xb" if pending.mode == "create" else "wb", **options)
            try:
                while piece := content.read(PIECE_BYTES):
                    file.write(piece)
                file.modified = _moment(pending)
            except BaseException:
                abort(file)
                raise
            file.close()


def _answered(
    files: Sequence[Pending], ask: Callable[[list[Any]], Iterable[tuple[int, Any]]], questions: list[Any]
) -> Iterator[tuple[Pending, Any]]:
    """Ask the storage something about each file; yield each once, with the answer or the error."""
    left = dict(enumerate(files))
    failure: Exception = errors.OperationFailed(msg="the storage said nothing of it")
    try:
        for index, answer in ask(questions) if files else ():
            yield left.pop(index), answer
    except Exception as error:  # noqa: BLE001 - whatever it is, the rest is tried again
        failure = error
    for pending in left.values():
        yield pending, failure


def _moment(pending: Pending) -> datetime:
    return datetime.fromtimestamp(pending.modified, UTC)
