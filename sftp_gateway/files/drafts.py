"""`Drafts`: makes the drafts of a store, keeps those whose upload was cut off, and lets go of them."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fs.base import FS
from fs.errors import FSError

from sftp_gateway.files.content import Content, Fingerprint, fingerprint
from sftp_gateway.files.draft import Draft, State
from sftp_gateway.files.leavings import Leavings
from sftp_gateway.files.overlay import Overlay
from sftp_gateway.files.partials import Partial, Partials
from sftp_gateway.files.spool import DamagedError, Quota, Spool, SpoolFullError
from sftp_gateway.sftp.status import RefusedError

_SWEEPS = 100  # within the time for which partials are kept
GOING_ON_SECONDS = 86400.0  # how long after its end a client may still believe that it can resume an upload


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """Bounds of one tree; sizes are bytes."""

    spool_quota: int = 10 * 2**30  # of all files being written and of kept partial uploads
    spool_memory: int = 2**20  # a file is kept in memory up to this size
    partial_seconds: float = 86400.0  # how long an upload that was cut off can be continued
    partials: int = 1000  # uploads that were cut off and can be continued; each takes a file descriptor
    commit_wait_seconds: float = 120.0  # how long one request waits for another that changes the same path
    shared: bool = False  # other processes of this gateway use the same spool directory
    streams: int = 32  # uploads that are sent on while they arrive; more wait until one has ended, or for their CLOSE


class _Replacing(NamedTuple):
    """An upload that was meant to replace a whole version and has ended without a commit."""

    at: float
    user: str
    version: Fingerprint


class Drafts:
    """All that was written and is not committed: of this process and, where it was cut off, of other processes.

    A draft is in the overlay from the moment when it is made, or found on disk, until it ends. Owned by a `Store`.
    Thread-safe; one lock, held over local disk only. Raises `RefusedError` and OSError.
    """

    def __init__(
        self,
        filesystem: FS,
        overlay: Overlay,
        quota: Quota,
        *,
        atomic: bool,
        spool_directory: Path,
        limits: TreeLimits,
    ) -> None:
        """Show the partials that an earlier process has left in `spool_directory`."""
        self.partials = Partials(spool_directory)
        self._filesystem = filesystem
        self._overlay = overlay
        self._quota = quota
        self._spool_directory = spool_directory
        self._limits = limits
        self._streams = threading.BoundedSemaphore(limits.streams)
        self._draft = functools.partial(Draft, filesystem, atomic=atomic, streams=self._streams, partials=self.partials)
        self._sweep_at = 0.0  # when to look next for partials that are too old; monotonic
        self._following = threading.Lock()  # one thread at a time compares the partials with the directory
        # By folded path:
        self._unfinished: Leavings[float] = Leavings()  # when an upload has ended that cannot be continued in full
        self._replacing: Leavings[_Replacing] = Leavings()
        for partial in self.partials.load():
            self._revive(partial)
        self._keep_few()

    def close(self) -> None:
        """End all drafts; what can be continued stays on disk for a later process. Idempotent."""
        for draft in self._overlay.all():
            if self._keep(draft):
                draft.note_down()
            if draft.state is State.PARTIAL:
                draft.spool.release()
            self.let_go(draft, "the server is ending")

    # -- drafts that somebody writes

    def new(
        self,
        path: str,
        session: object,
        handle: object,
        *,
        base: Content | None = None,
        exclusive: bool = False,
        fresh: bool = False,
        anew: bool = True,
    ) -> Draft:
        """Begin a draft over `base`; without one it replaces the partials at `path`.

        `exclusive`: its commit must not replace anything; `fresh`: nothing is committed there now; `anew`: its client
        does not mean to resume an earlier upload.
        """
        if time.monotonic() >= self._sweep_at:  # not for each upload: with many partials that would be slow
            self.sweep()
        draft = self._draft(path, self._spool(), base=base, exclusive=exclusive, fresh=fresh)
        draft.join(session, handle)
        if not anew:
            self._go_on(draft)
        if base is None:
            self.drop_partials(path)
        self._overlay.add(draft)
        return draft

    def join(self, draft: Draft, session: object, handle: object) -> bool:
        """Let `handle` write an existing draft; return whether that is still possible."""
        joined = draft.join(session, handle)
        if not joined and draft.state is State.PARTIAL:  # another process has just taken it
            self.partials.doubt()
        return joined

    def cut_off(self, draft: Draft) -> None:
        """Keep what can be continued of a draft that nobody writes any more; end it if that is nothing."""
        if not self._keep(draft):
            self.fail(draft, "the upload was cut off")
            return
        draft.note_down()
        if self._limits.shared:
            draft.share()
        self._keep_latest(draft.path)
        self._keep_few()

    def stored(self, path: str) -> None:
        """Know that an upload to `path` is complete: what is there now is the client's own content."""
        self._replacing.forget(self._overlay.fold(path))

    def fail(self, draft: Draft, reason: str) -> None:
        """End a draft that could not be stored; its client may try to resume it all the same."""
        if draft.size or draft.replaces is not None:  # else no client has seen anything of it
            self._remember(draft)
        self.let_go(draft, reason)

    def let_go(self, draft: Draft, reason: str) -> None:
        """End a draft and keep nothing of it. `reason` is told to whoever still writes or reads it."""
        draft.give_up()
        self._end(draft, reason)

    # -- what was cut off

    def drop_partials(self, path: str) -> None:
        """End the partials at `path`: something else takes their place."""
        for draft in self._overlay.at(path):
            self._drop(draft, "replaced")

    def make_room(self) -> bool:
        """Free spool space: what the storage already has of a file, else the oldest partial; return whether any was."""
        if any(draft.pace.thin() for draft in self._overlay.all()):
            return True
        oldest = self._overlay.partials()[:1]
        for draft in oldest:
            self._forgo(draft, "its space was needed", at_once=True)  # else the next would be dropped before it is free
        return bool(oldest)

    def sweep(self) -> None:
        """Drop the partials that are too old."""
        self._sweep_at = time.monotonic() + self._limits.partial_seconds / _SWEEPS
        for draft in self._overlay.partials():
            if draft.touched < time.time() - self._limits.partial_seconds:
                self._forgo(draft, "it was too old")

    def note_again(self, draft: Draft) -> None:
        """Update the note of a draft that was renamed, unless another process has taken it over."""
        draft.note_again()
        if self._limits.shared:
            draft.share()

    def follow(self, *, at_once: bool = False) -> None:
        """Show the partials that other processes have left, and hide those that they have continued or dropped."""
        if not self._limits.shared or not self.partials.may_differ(at_once=at_once):
            return
        with self._following:
            found = {partial.file: partial for partial in self.partials.load()}
            for draft in self._overlay.partials():
                file = draft.spool.path or Path()
                noted = found.get(file)
                if (
                    noted is not None
                    and (noted.path, noted.size) == (draft.path, draft.size)
                    and draft.spool.is_as_known
                ):
                    del found[file]  # if not, a process that continued it was killed before it could note that
                elif draft.yield_up():
                    self._remember(draft)  # the other process may have dropped it, and a client here has seen it
                    self._overlay.remove(draft)
            for partial in found.values():
                self._revive(partial)

    # -- within

    def _keep_latest(self, path: str) -> None:
        """Keep only the latest of several partials of one file, so that nobody mixes two uploads."""
        for draft in self._overlay.partials(path)[:-1]:
            self._drop(draft, "replaced by a later upload")

    def _keep_few(self) -> None:
        """Keep only the latest partials, if there are too many."""
        for draft in self._overlay.partials()[: -self._limits.partials]:
            self._forgo(draft, "later ones took its place")

    def _forgo(self, draft: Draft, reason: str, *, at_once: bool = False) -> None:
        """Drop a partial, and remember that: its client may have seen it, and must not append behind a gap."""
        self._remember(draft)
        self._drop(draft, reason, at_once=at_once)

    def _drop(self, draft: Draft, reason: str, *, at_once: bool = False) -> None:
        """Drop a partial, unless somebody has continued it meanwhile."""
        if draft.give_up():
            self._end(draft, reason, at_once=at_once)

    def _end(self, draft: Draft, reason: str, *, at_once: bool = False) -> None:
        """End a draft that nobody can continue any more."""
        try:
            draft.end(reason, at_once=at_once)
        finally:
            self._overlay.remove(draft)

    def _remember(self, draft: Draft) -> None:
        """Remember for a while that this upload has ended: neither a new one nor old content is its beginning."""
        key, now = self._overlay.fold(draft.path), time.monotonic()
        self._unfinished.note(key, now)
        if draft.replaces is not None:
            self._replacing.note(key, _Replacing(now, _user(draft.owner), draft.replaces))

    def _go_on(self, draft: Draft) -> None:
        """Have a draft's gaps refused if its client may believe that it resumes an upload that has ended."""
        key, since = self._overlay.fold(draft.path), time.monotonic() - GOING_ON_SECONDS
        replacing, ended_at = self._replacing.last(key), self._unfinished.last(key)
        if replacing is not None and replacing.at > since and self._is_its_client(draft, replacing):
            draft.bounds.goes_on(since=0)
        elif ended_at is not None and ended_at > since:
            draft.bounds.goes_on(since=draft.size)

    def _is_its_client(self, draft: Draft, replacing: _Replacing) -> bool:
        """Tell whether the client may take the old version, which is there unchanged, for its own earlier upload."""
        if _user(draft.owner) != replacing.user:
            return False
        try:
            return replacing.version == fingerprint(self._filesystem, draft.path)
        except FSError:  # cannot be told: assume so, to be safe
            return True

    def _keep(self, draft: Draft) -> bool:
        """Make a draft a partial; return whether that was possible."""
        with contextlib.suppress(OSError, RefusedError):  # the disk is full, perhaps
            return draft.keep()
        return False

    def _revive(self, partial: Partial) -> None:
        """Show a partial that another process has left."""
        path, size, touched, file = partial
        spool = self._spool()
        if not self._take_over(spool, partial):
            spool.release()
            return
        draft = self._draft(path, spool, fresh=True)
        draft.size, draft.touched, draft.state = size, touched, State.PARTIAL
        draft.forwarding.resume = self.partials.checkpoint(file)
        draft.forwarding.cut(size)
        draft.note_down()  # before the file is truncated: the old note may take the size from the file
        spool.truncate(size)
        if self._limits.shared:
            draft.share()
        self._overlay.add(draft)
        self._keep_latest(path)

    def _take_over(self, spool: Spool, partial: Partial) -> bool:
        """Adopt the file of a partial as a spool; return whether that was possible. Useless files are removed."""
        file = partial.file
        with contextlib.suppress(OSError):  # another process was quicker, or we are out of descriptors: keep the file
            try:
                spool.adopt(file, partial.size)
                return self.partials.noted(file) == partial  # if not, another process has continued it meanwhile
            except DamagedError:
                if self.partials.noted(file) == partial:
                    self.partials.clear(file)
            except SpoolFullError:
                if not self._limits.shared or partial.touched < time.time() - self._limits.partial_seconds:
                    self.partials.clear(file)  # else another process may have the room for it
        return False

    def _spool(self) -> Spool:
        return Spool(self._spool_directory, self._quota, memory_limit=self._limits.spool_memory)


def _user(session: object) -> str:
    """Return who has signed in to a session: only the same user resumes an upload."""
    return str(getattr(session, "user", ""))
