"""`Draft`: a file that is being written, from OPEN to its commit or its end."""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fs.base import FS
from fs.errors import FSError

from sftp_gateway.files.base import Base
from sftp_gateway.files.bounds import Bounds
from sftp_gateway.files.content import Content, Fingerprint
from sftp_gateway.files.forwarding import Forwarding
from sftp_gateway.files.notes import Note
from sftp_gateway.files.pace import Pace
from sftp_gateway.files.partials import Partials
from sftp_gateway.files.readers import Readers
from sftp_gateway.files.spool import Spool
from sftp_gateway.files.storing import Storing
from sftp_gateway.sftp.status import RefusedError, words_of


class State(enum.Enum):
    """What becomes of a draft."""

    OPEN = "open"  # at least one handle writes it
    PARTIAL = "partial"  # its upload was cut off: waits to be continued
    ENDED = "ended"  # committed, dropped or given up


class Draft:
    """What a client has written over what was there, not yet visible in the filesystem.

    Its content is what the spool holds; in the spool's gaps the old content (`base`), as far as that still counts; and
    zeros beyond. Old content is fetched only when it is read, or at the commit. Owned by a store. Thread-safe: one lock
    over its fields and the spool, never held over calls of the filesystem. A commit is made in the path's turn
    (`Overlay.turn`).
    """

    def __init__(
        self,
        filesystem: FS,
        path: str,
        spool: Spool,
        *,
        atomic: bool,
        streams: threading.BoundedSemaphore,
        partials: Partials,
        base: Content | None = None,
        exclusive: bool = False,
        fresh: bool = False,
    ) -> None:
        self._filesystem = filesystem
        self._lock = threading.RLock()
        self._storing = Storing(self, filesystem, atomic=atomic, lock=self._lock)
        # guarded by _lock
        self.path = path
        self.spool = spool
        self.state = State.OPEN
        self.owner: object = None  # the session that writes it
        self.write_back = False  # its commit may end in the journal on local disk
        self.handles: set[object] = set()
        self.size = base.size if base is not None else 0
        self._least = self.size  # the smallest size since the last commit began
        self.modified: float | None = None  # the time that the client has set
        self.touched = time.time()
        self.dirty = base is None
        self.fresh = fresh  # no committed file is at its path
        self.replaces: Fingerprint | None = None  # the committed version that it replaces as a whole, if there is one
        self.note = Note(self, partials)
        self.end_reason = ""
        self.readers = Readers()
        self.bounds = Bounds(self)
        self.pace = Pace(self, self._lock)
        self._closing = False
        self.base = Base(base)
        self.exclusive = exclusive  # its commit is to replace nothing
        self.forwarding = Forwarding(
            spool, self._storing.open_file, atomic=atomic, streams=streams, on_progress=self.pace.advanced
        )

    # -- what the client does

    def write(self, offset: int | None, data: bytes | memoryview) -> bool:
        """Store `data` at `offset` (None: at the end); tell whether the storage keeps up.

        Raises `RefusedError`, OSError, and what the storage refused earlier.
        """
        with self._lock:
            if offset is None:
                offset = self.size
            if not len(data):
                self._check()
                return True
            end = offset + len(data)
            try:
                self._check()
                if end > self.size:
                    self.bounds.check_growth(end, zeros_to=offset)
                if offset < self.size:  # what lies beyond was not sent on yet
                    self._rewrite(offset)
                self.note.before_write(offset)
                self.spool.write(offset, data)
            except Exception as error:
                self.bounds.refused(offset, end, error)
                raise
            self.bounds.taken(offset, end)
            if end > self.size:
                self.size = end
            self.dirty = True
            self.touched = time.time()
            self.forwarding.extend(offset, data)
            self.note.after_write(end)
            if self.spool.quota.is_scarce:
                self.pace.thin()
            return not self.pace.is_behind

    def truncate(self, size: int) -> None:
        """Make the file `size` bytes long, filling up with zeros."""
        with self._lock:
            self._check()
            if size == self.size:
                return
            self.bounds.check_growth(size, zeros_to=size)
            if size < self.size:
                self._rewrite(size)
                self.spool.truncate(size)
                self.base.cut(size)
            self.bounds.may_end_anywhere()
            self.size = size
            self._least = min(self._least, size)
            self.dirty = True
            self.touched = time.time()
            self.note.after_truncate()

    def read(self, offset: int, size: int) -> bytes:
        """Return what the file holds now at `offset`; may fetch old content. Raises `fs.errors`, OSError."""
        with self._lock:
            if self.state is State.ENDED:
                raise RefusedError(self.end_reason)
            end = min(offset + size, self.size)
            base, base_size = self.base, self.base.size
            if end <= offset:
                return b""
            gaps = self.spool.missing(offset, end)
            whole = self.spool.pread(offset, end - offset)
            if not gaps:
                return whole
        piece = bytearray(whole)
        for start, stop in gaps:
            old = base.pread(start, min(stop, base_size))
            piece[start - offset : stop - offset] = old + bytes(stop - start - len(old))
        return bytes(piece)

    def needs_base(self, offset: int, size: int) -> bool:
        """Tell whether `read` would have to fetch old content."""
        with self._lock:
            end = min(offset + size, self.base.size)
            return end > offset and bool(self.spool.missing(offset, end))

    # -- what the store does

    def join(self, session: object, handle: object) -> bool:
        """Let a handle write this file, which then is its session's alone; return whether that is still possible."""
        with self._lock:
            if self.state is State.ENDED or self._closing:
                return False
            if self.state is State.PARTIAL:
                was_shared = self.spool.is_shared
                if not self.spool.reclaim():
                    return False
                if was_shared:  # another process may have continued it meanwhile
                    self.forwarding.resume = self.note.noted_checkpoint()
                    self.forwarding.cut(self.size)
                self.state = State.OPEN
                self.bounds.goes_on(since=0)
                self.dirty = True
                self.forwarding.allow()
            if self.owner is not session:  # a client that has reconnected takes over from its dead session
                self.handles.clear()
                self.owner, self.write_back = session, bool(getattr(session, "write_back", False))
            self.handles.add(handle)
            return True

    def check_writer(self, handle: object) -> None:
        """Raise `RefusedError` if a handle does not write this file any more."""
        if handle not in self.handles or self.state is State.ENDED:
            raise RefusedError(self.end_reason or "another session has opened the file and goes on with it")

    def leave(self, handle: object) -> bool:
        """Remove a handle; return whether it was the last one, after which none can join."""
        with self._lock:
            self.handles.discard(handle)
            self._closing = self._closing or not self.handles
            return not self.handles

    def retarget(self, path: str, *, exclusive: bool | None = None, fresh: bool | None = None) -> None:
        """Give the file another path to be committed to."""
        with self._lock:
            self.path = path
            self.bounds.room = None  # it may replace another file there: the quota is checked again at CLOSE
            self.exclusive = self.exclusive if exclusive is None else exclusive
            self.fresh = self.fresh if fresh is None else fresh
            self.forwarding.retarget()

    def become_copy(self, content: Content, path: str) -> bool:
        """Become a copy of `content`, the committed file at `path`, if this draft is empty; return whether it was."""
        with self._lock:
            self._check()
            if self.size or self.base.is_there:
                return False
            self.base, self.dirty = Base(content, copy_of=path), True
            self.size = content.size
            return True

    def may_end_on_disk(self, most: int) -> bool:
        """Tell whether this is a new file of at most `most` bytes, none sent on yet, that the journal may take."""
        is_new = self.dirty and self.fresh and not self.base.is_there and not self.exclusive
        return self.write_back and is_new and self.size <= most and self.forwarding.is_idle

    def commit(self, handle: object, size: int, *, at_once: bool = False) -> None:
        """Store the first `size` bytes in the filesystem, at the CLOSE of `handle`. Called in the path's turn.

        What other handles add meanwhile is committed by their own CLOSE. The caller calls `leave` afterwards; until
        then no handle can join. Raises `fs.errors`, `RefusedError`, OSError; with `at_once` `NotAtOnceError` if it
        would have to wait for more than the local disk.
        """
        with self._lock:
            self.check_writer(handle)
            self.forwarding.check()
            self.bounds.check_unstored()
            if not self.dirty:
                return
            self.bounds.check_going_on()
            self.dirty, self._least = False, self.size
            self._closing = True  # a handle that joined now would write over a version that is being replaced
            stream = self.forwarding.take()
        try:
            self._storing.store(stream, size, at_once=at_once)
        except BaseException:
            self.dirty, self._closing = True, False
            raise
        finally:
            self.forwarding.done(stream)
        self.exclusive = self.fresh = False
        if len(self.handles) > 1:
            self._start_over(size)
            self._closing = False

    def give(self, size: int, move: Callable[[int, Path], bool]) -> bool:
        """Let `move(descriptor, path)` make the spool's file the committed one; return whether it did.

        That is possible if it is all of the content, and nobody else writes it. Within `commit`.
        """
        with self._lock:
            return self.is_open and len(self.handles) == 1 and self.spool.give(size, move)

    def may_be(self, size: int, content: Content) -> bool:
        """Tell whether `content` can be the `size` bytes that were just committed, perhaps truncated since."""
        with self._lock:
            return min(self._least, size) <= content.size <= size

    def end(self, reason: str, *, at_once: bool = False) -> None:
        """Give up: nothing more is committed, and the spool is freed, `at_once` or in the background. Idempotent."""
        with self._lock:
            if self.state is State.ENDED:
                return
            self.state = State.ENDED
            self.end_reason = reason
            self.forwarding.cancel()
            base, self.base = self.base, Base(None)
            with contextlib.suppress(OSError):
                self.note.settle()
            self.spool.close(at_once=at_once)
        base.close()

    def note_down(self) -> None:
        """Note on disk how much of it can be continued."""
        with self._lock:
            self.note.settle()

    def note_again(self) -> None:
        """Renew what is noted on disk, unless another process has taken it over."""
        with self._lock:
            if self.note.size and self.spool.reclaim():
                self.note.renew()

    def share(self) -> None:
        """Let other processes continue this partial, unless this one is continuing it already."""
        with self._lock:
            if self.state is State.PARTIAL:
                self.spool.share()

    def give_up(self) -> bool:
        """Keep everybody from continuing a partial that is about to end; return whether it still was a partial."""
        with self._lock:
            if self.state is not State.PARTIAL:
                return False
            self._closing = True
            if not self.spool.reclaim():
                self.spool.release()  # another process has continued or dropped it
            return True

    def yield_up(self) -> bool:
        """End as a partial that another process has continued or dropped; return whether that is possible."""
        with self._lock:
            if self.state is not State.PARTIAL or not self.spool.is_shared:
                return False
            self.state = State.ENDED
            self.end_reason = "another process goes on with it"
            self.spool.release()
            return True

    @property
    def is_open(self) -> bool:
        """Whether somebody writes it."""
        return self.state is State.OPEN

    @property
    def lasting(self) -> int:
        """How many bytes a client could resume from if the upload were cut off now.

        Always at least one less than there are: a client that saw the full size would take the file for complete.
        """
        with self._lock:
            if self.state is State.PARTIAL:
                return self.size
            if self.state is State.ENDED or not self.fresh or self.base.is_there or self.pace.is_thin:
                return 0
            return max(0, min(self.spool.prefix, self.size) - 1)

    def keep(self) -> bool:
        """Become a partial, if there is anything to continue; return whether there is."""
        with self._lock:
            size = self.lasting
            if self.state is not State.OPEN or not size:
                return False
            self.forwarding.suspend()
            self.forwarding.cut(size)
            self.spool.truncate(size)
            self.spool.to_disk()
            self.size = size
            self.bounds.forget_refused()
            self.state = State.PARTIAL
            self.owner = None
            self.handles.clear()
            self._closing = False
            return True

    # -- within

    def _check(self) -> None:
        if self.state is State.ENDED:
            raise RefusedError(self.end_reason)
        self.forwarding.check()

    def _rewrite(self, offset: int) -> None:
        """Know that the bytes from `offset` on are about to change: what was sent on of them cannot be continued."""
        if self.forwarding.rewrite(offset):
            self.note.after_rewrite()

    def _start_over(self, size: int) -> None:
        """Write on over the `size` bytes that were just committed, for the handles that are still open."""
        self.base.close()
        try:
            content = Content(self._filesystem, self.path, local=False, quota=self.spool.quota)
        except (FSError, OSError, RefusedError) as error:  # the commit stands; the handles that still write are told
            self.end(f"what another handle has stored cannot be opened again to be gone on with: {words_of(error)}")
            return
        if not self.may_be(size, content):
            content.close()
            self.end("what another handle has stored was changed by someone else at once")
            return
        base = Base(content)
        with self._lock:
            base.cut(self._least)  # another handle may have truncated it since
            self.base = base
            self.spool.forget_dropped()
