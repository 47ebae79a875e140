"""`Partials`: notes on disk about unfinished uploads, so that a later process can continue them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sftp_gateway.files.locked_files import NEW_SUFFIX, clear_begun, is_locked, locked
from sftp_gateway.files.spool import SPOOL_SUFFIX

if TYPE_CHECKING:
    from sftp_gateway.files.draft import Draft

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
TICK_NANOSECONDS = 20_000_000
NOTE_SUFFIX = ".json"


class Partial(NamedTuple):
    """An upload that was cut off, as it is noted."""

    path: str
    size: int
    touched: float
    file: Path  # the spool file


class Partials:
    """One small JSON file beside each kept spool file: path, size and time. Owned by a store. Thread-safe.

    A file that is being written has one, too, in case the process is killed. While the file is written in order, its
    note says so and need not be rewritten: the size of the spool file tells how much there is. A spool file that is
    neither locked nor has a note was left by a process that died early: it is removed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        # guarded by _lock
        self._seen = 0
        self._looked_at = 0.0
        self._locked: set[Path] = set()  # at the last look, or could not be looked at

    def save(self, draft: Draft, grows: bool = False) -> None:
        """Note how much of a draft can be continued: its current size or, if it `grows`, whatever its spool file holds.

        Called under the draft's lock. If the note cannot be written, a restart loses the partial; that is logged.
        """
        size = draft.lasting
        if draft.spool.path is None or size <= 0:
            self.forget(draft)
            return
        checkpoint = draft.forwarding.checkpoint
        draft.note.written(size, checkpoint, grows=grows)
        note = {"path": draft.path, "size": size, "grows": grows, "touched": draft.touched, "upload": checkpoint}
        target = draft.spool.path.with_suffix(NOTE_SUFFIX)
        fresh = target.with_suffix(NEW_SUFFIX)
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(json.dumps(note))
            fresh.replace(target)
        except OSError as error:
            logger.warning("a cut-off upload cannot be continued after a restart: %s", error)

    def forget(self, draft: Draft) -> None:
        """Drop the note of a draft. Idempotent."""
        if draft.spool.path is not None:
            draft.spool.path.with_suffix(NOTE_SUFFIX).unlink(missing_ok=True)
        draft.note.written(0, None, grows=False)  # last: if the removal fails, it can be tried again

    def checkpoint(self, file: Path) -> tuple[str, int] | None:
        """Return the filesystem's checkpoint from the note of a spool file, if it has one."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            text, sent = json.loads(file.with_suffix(NOTE_SUFFIX).read_text())["upload"]
            return str(text), int(sent)
        return None

    def may_differ(self, *, at_once: bool) -> bool:
        """Tell whether other processes may have left or taken partials since this last returned True.

        The end of a process that held a lock changes no time stamp: whether the locked files are free by now is checked
        a few times a second, and always with `at_once`.
        """
        with self._lock:
            now = time.monotonic()
            try:
                seen = self._directory.stat().st_mtime_ns
            except OSError:
                return False
            if seen == self._seen:
                if not at_once and now - self._looked_at < LOOK_SECONDS:
                    return False
                self._looked_at = now
                if all(map(_is_still_locked, self._locked)):
                    return False
            self._looked_at = now
            # Another change within the same tick of the file system's clock would have the same time.
            self._seen = seen if abs(time.time_ns() - seen) > TICK_NANOSECONDS else 0
            return True

    def doubt(self) -> None:
        """Have `may_differ` look again: a partial is not as it was."""
        with self._lock:
            self._seen = 0

    def load(self) -> Iterator[Partial]:
        """Yield every partial that no living process uses; remove what is of no use."""
        if not self._directory.is_dir():
            return
        were_locked = set()
        for file in sorted(self._directory.iterdir()):
            if file.suffix == NEW_SUFFIX:
                clear_begun(file)
            if file.suffix == NOTE_SUFFIX and not file.with_suffix(SPOOL_SUFFIX).exists():
                file.unlink(missing_ok=True)  # its process died when the upload had just been moved into place
            if file.suffix != SPOOL_SUFFIX:
                continue
            try:
                is_used = is_locked(file)
                partial = None if is_used else self.noted(file)
            except OSError:  # out of descriptors, perhaps: that says nothing about the upload
                is_used = True
            if is_used:
                were_locked.add(file)
            elif partial is not None:
                yield partial
            else:
                self.clear(file)
        self._locked = were_locked

    def drop_old(self, before: float) -> None:
        """Remove partials that are older than a time, of an account that this process does not have open."""
        for partial in self.load():
            if partial.touched < before:
                with contextlib.suppress(OSError), locked(partial.file):  # fails if somebody has just opened it
                    if self.noted(partial.file) == partial:
                        self.clear(partial.file)

    def clear(self, file: Path) -> None:
        """Remove a spool file with its note. Raises OSError."""
        for suffix in (NEW_SUFFIX, NOTE_SUFFIX, SPOOL_SUFFIX):  # the spool file last: the others are found by it
            file.with_suffix(suffix).unlink(missing_ok=True)

    def noted(self, file: Path) -> Partial | None:
        """Return what the note of a spool file says; None if nothing can be continued. Raises OSError."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            there = file.stat()  # before the note is read: notes are saved before their files are truncated
            content = json.loads(file.with_suffix(NOTE_SUFFIX).read_text())
            size, touched = int(content["size"]), float(content["touched"])
            if content.get("grows"):
                size, touched = there.st_size - 1, there.st_mtime  # see `Draft.lasting`
            if size > 0 and there.st_nlink == 1:  # else it is in place already, and its process died just then
                return Partial(str(content["path"]), size, touched, file)
        return None


def _is_still_locked(file: Path) -> bool:
    with contextlib.suppress(OSError):
        return is_locked(file)
    return False
