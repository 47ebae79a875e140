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
GOING_ON_SECONDS = 86400.0  # between the end of an upload and its client's going on, at most


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """Bounds of one tree; sizes are bytes."""

    spool_quota: int = 10 * 2**30  # of all files being written and of kept partial uploads
    spool_memory: int = 2**20  # a file is kept in memory up to this size
    partial_seconds: float = 86400.0  # how long an upload that was cut off can be continued
    partials: int = 1000  # uploads that were cut off and can be continued; each takes a file descriptor
    commit_wait_seconds: float = 120.0  # how long one request waits for another that changes the same path
    shared: bool = False  # other processes of this gateway use the same spool directory
    streams: int = 32  # uploads that are sent on while they arrive; others when one of them has ended, or at CLOSE


class _Replacing(NamedTuple):
    """An upload that was to replace a version as a whole, and has ended without a commit."""

    at: float
    user: str
    version: Fingerprint


class Drafts:
    """What is between a client and the filesystem, of this process and, as far as it was cut off, of others.

    Every draft is in the overlay from when it is made, or found on disk, until it is let go of. Owned by a `Store`.
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
        """Take up what an earlier process has left in `spool_directory`."""
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
        self._unfinished: Leavings[float] = Leavings()  # when an upload has ended of which not enough is left
        self._replacing: Leavings[_Replacing] = Leavings()
        for partial in self.partials.load():
            self._revive(partial)
        self._keep_few()

    def close(self) -> None:
        """Give up what is still being written; partials stay for a later process. Idempotent."""
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
        """Begin a draft over `base`, if that is given; else it takes the place of what was cut off at `path`.

        `exclusive`: its commit is to replace nothing; `fresh`: nothing is committed there now; `anew`: its client does
        not mean to go on with anything.
        """
        if time.monotonic() >= self._sweep_at:  # each time would cost every upload dearly where many partials wait
            self.sweep()  # not before somebody has gone on with what he was shown, however old
        draft = self._draft(path, self._spool(), base=base, exclusive=exclusive, fresh=fresh)
        draft.join(session, handle)
        if not anew:
            self._go_on(draft)
        if base is None:
            self.drop_partials(path)
        self._overlay.add(draft)
        return draft

    def join(self, draft: Draft, session: object, handle: object) -> bool:
        """Let `handle` go on with a draft; tell whether it is not too late for that."""
        joined = draft.join(session, handle)
        if not joined and draft.state is State.PARTIAL:  # another process has just taken it
            self.partials.doubt()
        return joined

    def cut_off(self, draft: Draft) -> None:
        """Keep what can be continued of a draft that nobody writes any more; let go of it where that is nothing."""
        if not self._keep(draft):
            self.fail(draft, "the upload was cut off")
            return
        draft.note_down()
        if self._limits.shared:
            draft.share()
        self._keep_latest(draft.path)
        self._keep_few()

    def stored(self, path: str) -> None:
        """Know that what is at `path` is what its client has sent, also where it looks like what it has replaced."""
        self._replacing.forget(self._overlay.fold(path))

    def fail(self, draft: Draft, reason: str) -> None:
        """Let go of a draft that is not stored; its client may mean to go on with it all the same."""
        if draft.size or draft.replaces is not None:  # else nobody has seen anything of it
            self._remember(draft)
        self.let_go(draft, reason)

    def let_go(self, draft: Draft, reason: str) -> None:
        """End a draft: nothing of it is left. `reason` is for whoever still wants to write or read it."""
        draft.give_up()
        self._end(draft, reason)

    # -- what was cut off

    def drop_partials(self, path: str) -> None:
        """Let go of what was cut off at `path`: something else takes its place."""
        for draft in self._overlay.at(path):
            self._drop(draft, "replaced")

    def make_room(self) -> bool:
        """Keep no longer what the storage has of a file that is being written, or the oldest partial; tell whether."""
        if any(draft.pace.thin() for draft in self._overlay.all()):
            return True
        oldest = self._overlay.partials()[:1]
        for draft in oldest:
            self._forgo(draft, "its space was needed", at_once=True)  # else the next would go, too, before it is free
        return bool(oldest)

    def sweep(self) -> None:
        """Drop the partials that have waited for too long."""
        self._sweep_at = time.monotonic() + self._limits.partial_seconds / _SWEEPS
        for draft in self._overlay.partials():
            if draft.touched < time.time() - self._limits.partial_seconds:
                self._forgo(draft, "it was too old")

    def note_again(self, draft: Draft) -> None:
        """Note the new path of a draft that has a note, unless another process has taken it over."""
        draft.note_again()
        if self._limits.shared:
            draft.share()

    def follow(self, *, at_once: bool = False) -> None:
        """Know the partials that other processes have left, and forget those that they go on with."""
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
                    del found[file]  # else who went on with it was killed before that was noted
                elif draft.yield_up():
                    self._remember(draft)  # that one may have dropped it, too, and a client here has seen it
                    self._overlay.remove(draft)
            for partial in found.values():
                self._revive(partial)

    # -- within

    def _keep_latest(self, path: str) -> None:
        """Keep of several partials of one file the latest alone: who goes on with it is not to mix two uploads."""
        for draft in self._overlay.partials(path)[:-1]:
            self._drop(draft, "replaced by a later upload")

    def _keep_few(self) -> None:
        """Keep the latest partials alone, where there are too many."""
        for draft in self._overlay.partials()[: -self._limits.partials]:
            self._forgo(draft, "later ones took its place")

    def _forgo(self, draft: Draft, reason: str, *, at_once: bool = False) -> None:
        """Let go of a partial whose client may have seen it, and is not to go on behind a gap."""
        self._remember(draft)
        self._drop(draft, reason, at_once=at_once)

    def _drop(self, draft: Draft, reason: str, *, at_once: bool = False) -> None:
        """Let go of a partial, unless somebody has gone on with it meanwhile."""
        if draft.give_up():
            self._end(draft, reason, at_once=at_once)

    def _end(self, draft: Draft, reason: str, *, at_once: bool = False) -> None:
        """End a draft with which nobody can go on any more."""
        try:
            draft.end(reason, at_once=at_once)
        finally:
            self._overlay.remove(draft)

    def _remember(self, draft: Draft) -> None:
        """Know for a while what is not to be taken for a part of this draft, nor the old content in its place."""
        key, now = self._overlay.fold(draft.path), time.monotonic()
        self._unfinished.note(key, now)
        if draft.replaces is not None:
            self._replacing.note(key, _Replacing(now, _user(draft.owner), draft.replaces))

    def _go_on(self, draft: Draft) -> None:
        """Know what the client may mean to go on with: it comes after an upload that has ended."""
        key, since = self._overlay.fold(draft.path), time.monotonic() - GOING_ON_SECONDS
        replacing, ended_at = self._replacing.last(key), self._unfinished.last(key)
        if replacing is not None and replacing.at > since and self._is_its_client(draft, replacing):
            draft.bounds.goes_on(since=0)
        elif ended_at is not None and ended_at > since:
            draft.bounds.goes_on(since=draft.size)

    def _is_its_client(self, draft: Draft, replacing: _Replacing) -> bool:
        """Tell whether who writes may take what is there for the beginning of what was to replace it."""
        if _user(draft.owner) != replacing.user:
            return False
        try:
            return replacing.version == fingerprint(self._filesystem, draft.path)
        except FSError:  # nobody can tell: better safe than sorry
            return True

    def _keep(self, draft: Draft) -> bool:
        """Make a draft a partial; tell whether that could be."""
        with contextlib.suppress(OSError, RefusedError):  # the disk is full, perhaps
            return draft.keep()
        return False

    def _revive(self, partial: Partial) -> None:
        """Show what was cut off in another process."""
        path, size, touched, file = partial
        spool = self._spool()
        if not self._take_over(spool, partial):
            spool.release()
            return
        draft = self._draft(path, spool, fresh=True)
        draft.size, draft.touched, draft.state = size, touched, State.PARTIAL
        draft.forwarding.resume = self.partials.checkpoint(file)
        draft.forwarding.cut(size)
        draft.note_down()  # before the file is cut, from whose size its note may have told how much there is
        spool.truncate(size)
        if self._limits.shared:
            draft.share()
        self._overlay.add(draft)
        self._keep_latest(path)

    def _take_over(self, spool: Spool, partial: Partial) -> bool:
        """Have what was cut off as a spool; tell whether that could be. What is of no use to anybody is removed."""
        file = partial.file
        with contextlib.suppress(OSError):  # another was quicker; or the system refuses, which says nothing of the file
            try:
                spool.adopt(file, partial.size)
                return self.partials.noted(file) == partial  # else another process went on with it meanwhile
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
    """Return who has signed in to a session: a client that goes on with what was cut off does so as the same user."""
    return str(getattr(session, "user", ""))
