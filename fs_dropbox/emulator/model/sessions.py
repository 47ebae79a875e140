"""Upload sessions: bytes on their way to a commit, sequential or concurrent. Knows no paths and no HTTP."""

from __future__ import annotations

import hashlib
import secrets
import threading
from itertools import takewhile
from typing import Any

from fs_dropbox.content_hash import ContentHash
from fs_dropbox.emulator.model.contents import Content, Contents, Spool, SpoolWriter
from fs_dropbox.emulator.model.errors import TaggedError
from fs_dropbox.emulator.model.state import State

REMEMBERED = 10_000  # finished sessions, for a second finish
HASH_BLOCK_BYTES = 4 * 1024 * 1024  # offsets and sizes in concurrent sessions are multiples of it


class SessionError(TaggedError):
    """A files.UploadSessionLookupError, or another member that start, append and finish have in common."""


class UploadSession:
    """One session. `lock` guards its fields; bodies are written outside of it, block by block under it.

    An append counts only when it is complete: what a broken connection left is overwritten by the next one.
    """

    def __init__(self, session_id: str, kind: str, account_id: str | None, created_at: float, spool: Spool) -> None:
        self.id = session_id
        self.kind = kind
        self.account_id = account_id
        self.created_at = created_at
        self.spool = spool
        self.lock = threading.Lock()
        # guarded by lock
        self.closed = False
        self.is_finished = False
        self.size = 0  # sequential: the bytes so far; concurrent: the end of the furthest append
        self.digests: dict[int, bytes] = {}  # concurrent: by number of the 4 MiB block
        self.hash: ContentHash | None = ContentHash()  # sequential; None after a restart until it is needed
        self.writers: dict[int, Append] = {}  # by offset: a newer append takes the place of a stale one

    @property
    def is_concurrent(self) -> bool:
        """Tell whether appends may come in any order."""
        return self.kind == "concurrent"

    def append(
        self, offset: int, *, close: bool, max_file_bytes: int, size: int | None = None, check: bool = False
    ) -> Append:
        """Begin to append at this offset, or raise SessionError. `size` is the number of bytes when it is known.

        With `check` the append can tell the content hash of its own bytes.
        """
        with self.lock:
            if self.closed:
                raise SessionError("closed")
            if self.is_concurrent:
                if offset % HASH_BLOCK_BYTES:
                    raise SessionError("concurrent_session_invalid_offset")
                if size is not None:
                    check_concurrent_size(size, close=close)
            elif offset != self.size:
                raise SessionError("incorrect_offset", correct_offset=self.size)
            if offset + (size or 0) > max_file_bytes:
                raise SessionError("too_large")
            append = self.writers[offset] = Append(self, offset, self.running_hash(), check=check)
            return append

    def running_hash(self) -> ContentHash | None:
        """Return a copy of the hash of a sequential session's bytes; needs the lock."""
        if self.is_concurrent:
            return None
        if self.hash is None:
            self.hash = ContentHash()
            for block in self.spool.read(self.size):
                self.hash.update(block)
        return self.hash.copy()

    def check_complete(self) -> None:
        """Raise SessionError unless a concurrent session is closed and has no holes."""
        if self.is_concurrent:
            if not self.closed:
                raise SessionError("concurrent_session_not_closed")
            if len(self.digests) != -(-self.size // HASH_BLOCK_BYTES):
                raise SessionError("concurrent_session_missing_data")

    def check_end(self, offset: int) -> None:
        """Raise SessionError unless the session is complete and ends at this offset."""
        self.check_complete()
        if offset != self.size:
            raise SessionError("incorrect_offset", correct_offset=self.size)

    def content_hash(self) -> str:
        """Return the content hash of all bytes."""
        with self.lock:
            if self.is_concurrent:
                return hashlib.sha256(b"".join(self.digests[i] for i in sorted(self.digests))).hexdigest()
            running = self.running_hash()
            assert running is not None
            return running.hexdigest()

    def document(self) -> dict[str, Any]:
        """Return what is stored."""
        with self.lock:
            return {
                "kind": self.kind,
                "account_id": self.account_id,
                "created_at": self.created_at,
                "closed": self.closed,
                "size": self.size,
                "digests": {str(number): digest.hex() for number, digest in self.digests.items()},
            }

    def restore(self, document: dict[str, Any]) -> None:
        """Take up the stored fields after a restart."""
        self.closed = document["closed"]
        self.size = document["size"]
        self.digests = {int(number): bytes.fromhex(digest) for number, digest in document["digests"].items()}
        self.hash = None


def check_concurrent_size(size: int, *, close: bool) -> None:
    """Only the append that closes a concurrent session may have a size that is no multiple of 4 MiB."""
    if size % HASH_BLOCK_BYTES and not close:
        raise SessionError("concurrent_session_invalid_data_size")


class Append:
    """The bytes of one append, which count from complete() on."""

    def __init__(self, session: UploadSession, offset: int, running: ContentHash | None, *, check: bool) -> None:
        # The running hash covers the session from its beginning: at offset 0 it is the append's own, too.
        self._check = ContentHash() if check and offset > 0 and running is not None else None
        self._session = session
        self._offset = offset
        self._running = running
        self._writer = SpoolWriter(session.spool, offset)
        self._digests: dict[int, bytes] = {}
        self._block = hashlib.sha256()
        self.size = 0

    def write(self, block: memoryview) -> None:
        """Write the next bytes, or raise SessionError when a newer append has taken over this place."""
        with self._session.lock:
            self._check_current()
            self._writer.write(block)
        if self._check is not None:
            self._check.update(block)
        if self._running is not None:
            self._running.update(block)
        else:
            self._digest(block)
        self.size += len(block)

    def _digest(self, block: memoryview) -> None:
        done = self.size
        while block:
            part = block[: HASH_BLOCK_BYTES - done % HASH_BLOCK_BYTES]
            self._block.update(part)
            done += len(part)
            block = block[len(part) :]
            if done % HASH_BLOCK_BYTES == 0:
                self._digests[(self._offset + done) // HASH_BLOCK_BYTES - 1] = self._block.digest()
                self._block = hashlib.sha256()

    def complete(self, *, close: bool) -> None:
        """Count the bytes as part of the session."""
        session = self._session
        if session.is_concurrent:
            check_concurrent_size(self.size, close=close)
            if self.size % HASH_BLOCK_BYTES:
                self._digests[(self._offset + self.size) // HASH_BLOCK_BYTES] = self._block.digest()
        with session.lock:
            self._check_current()
            del session.writers[self._offset]
            if session.is_concurrent:
                session.digests.update(self._digests)
                session.size = max(session.size, self._offset + self.size)
            else:
                session.hash = self._running
                session.size += self.size
            session.closed = close

    def _check_current(self) -> None:
        session = self._session
        if session.closed:
            raise SessionError("closed")
        if session.writers.get(self._offset) is not self:
            raise SessionError("incorrect_offset", correct_offset=session.size)

    def content_hash(self) -> str:
        """Return the content hash of this append's bytes alone; a sequential one must have been begun with `check`."""
        if self._session.is_concurrent:
            digests = list(self._digests.values())
            if self.size % HASH_BLOCK_BYTES:
                digests.append(self._block.digest())
            return hashlib.sha256(b"".join(digests)).hexdigest()
        own = self._running if self._check is None else self._check
        assert own is not None
        return own.hexdigest()

    def end(self) -> None:
        """Release the writer."""
        self._writer.close()


class Incoming:
    """A complete content that waits for its commit."""

    def __init__(self, contents: Contents, session: UploadSession) -> None:
        self._contents = contents
        self._session = session
        self.hash = session.content_hash()
        self.size = session.size

    def keep(self) -> Content:
        """Turn it into a content, to be released after a revision refers to it. Uses the session's bytes up.

        Raises SessionError when another call has finished the session meanwhile.
        """
        if self._session.is_finished:
            raise SessionError("not_found")
        return self._contents.keep(self._session.spool, self.hash, self.size)


class Sessions:
    """All upload sessions. `_lock` guards the tables."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._stored = state.collection("session")
        self._lock = threading.Lock()
        self._sessions: dict[str, UploadSession] = {}
        self._finished: dict[str, Any] = {}
        for session_id, document in list(self._stored.items()):
            self._take_up(session_id, document)

    def _take_up(self, session_id: str, document: dict[str, Any]) -> None:
        path = self._state.contents.incoming / f"session-{session_id}"
        if not path.exists():
            with self._state.mutation():
                del self._stored[session_id]
            return
        spool = Spool(path, durable=True)
        session = UploadSession(session_id, document["kind"], document["account_id"], document["created_at"], spool)
        session.restore(document)
        self._sessions[session_id] = session

    def spool_names(self) -> set[str]:
        """Return the names of the spools that are in use."""
        return {session.spool.path.name for session in self._sessions.values()}

    def new(self, kind: str, account_id: str | None) -> UploadSession:
        """Return a session that is not registered yet: also an upload in one call begins as one."""
        self._drop_expired()
        session_id = "pid_upload_session:" + secrets.token_urlsafe(32)
        spool = self._state.contents.spool(f"session-{session_id}")
        return UploadSession(session_id, kind, account_id, self._state.clock(), spool)

    def _drop_expired(self) -> None:
        oldest = self._state.clock() - self._state.options.session_life_seconds
        with self._lock:
            # In the order of their beginnings: usually this looks at one session only.
            expired = list(takewhile(lambda known: known.created_at < oldest, self._sessions.values()))
            for session in expired:
                del self._sessions[session.id]
        for session in expired:
            session.spool.discard()
            if session.id in self._stored:
                with self._state.mutation():
                    del self._stored[session.id]

    def register(self, session: UploadSession) -> None:
        """Make a session known, or store its progress; not of one that another call has finished meanwhile."""
        with self._lock:
            if session.is_finished:
                return
            self._sessions[session.id] = session
        if self._state.storage.is_durable:
            with self._state.mutation():
                self._stored[session.id] = session.document()

    def get(self, session_id: str, account_id: str | None) -> UploadSession:
        """Return a session of this account, or raise SessionError."""
        with self._lock:
            session = self._sessions.get(session_id)
        life = self._state.options.session_life_seconds
        if session is None or session.account_id != account_id or self._state.clock() - session.created_at > life:
            if session_id in self._finished and self._state.options.second_finish == "closed":
                raise SessionError("closed")
            raise SessionError("not_found")
        return session

    def incoming(self, session: UploadSession) -> Incoming:
        """Return the complete content of a session."""
        return Incoming(self._state.contents, session)

    def finish(self, session: UploadSession, result: Any) -> None:
        """Forget a session whose content was committed."""
        with session.lock:
            session.closed = session.is_finished = True  # what is still being appended comes too late
        with self._lock:
            self._sessions.pop(session.id, None)
            self._finished[session.id] = result
            if len(self._finished) > REMEMBERED:
                del self._finished[next(iter(self._finished))]
        session.spool.discard()
        if session.id in self._stored:
            with self._state.mutation():
                del self._stored[session.id]

    def repeated(self, session_id: str) -> Any:
        """Return what a finished session became, where finishing it again answers that; else None."""
        return self._finished.get(session_id) if self._state.options.second_finish == "repeat" else None
