"""An account that takes commits in groups, and bursts of writers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from fs_dropbox.api.client import Commit
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, DropboxError, TransportError
from fs_dropbox.uploads.group_commit import GroupCommit
from tests.waiting import DEADLINE_SECONDS, eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESET = TransportError("reset")


class Account:
    """Takes commits as the client does; each call can be held up, or fail."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.files: dict[str, bytes] = {}
        self.groups: list[int] = []
        self.before: Callable[[str], None] = lambda call: None
        self.entry_errors: dict[str, ApiError] = {}
        self._sessions: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def _begin(self, call: str) -> None:
        with self._lock:
            self.calls[call] += 1
        self.before(call)

    def _store(self, commit: Commit, data: bytes) -> FileEntry:
        self.files[commit.path] = data
        return FileEntry(commit.path, commit.path, commit.path, "id:1", "123456789", len(data), NOW, NOW)

    def upload(self, commit: Commit, data: bytes) -> FileEntry:
        self._begin("upload")
        return self._store(commit, data)

    def session_start_batch(self, count: int) -> list[str]:
        self._begin("start_batch")
        with self._lock:
            first = len(self._sessions)
            sessions = [f"s{first + number}" for number in range(count)]
            self._sessions.update(dict.fromkeys(sessions, b""))
        return sessions

    def session_append(self, session_id: str, offset: int, data: bytes, close: bool) -> None:
        assert (offset, close) == (0, True)
        self._begin("append")
        self._sessions[session_id] = data

    def session_append_batch(self, parts: Sequence[tuple[str, bytes]]) -> list[ApiError | None]:
        self._begin("append_batch")
        self._sessions.update(parts)
        return [None] * len(parts)

    def session_finish_batch(self, finished: Sequence[tuple[str, int, Commit]]) -> list[FileEntry | ApiError]:
        self._begin("finish_batch")
        self.groups.append(len(finished))
        results: list[FileEntry | ApiError] = []
        for session, size, commit in finished:
            assert len(self._sessions[session]) == size
            error = self.entry_errors.pop(commit.path, None)
            results.append(error or self._store(commit, self._sessions.pop(session)))
        return results


def hold_first(account: Account, *, lost: str = "", error: Exception = RESET) -> threading.Event:
    """Hold up the first call until the event is set; the answer of calls named `lost` gets lost."""
    gate, first = threading.Event(), threading.Event()

    def before(call: str) -> None:
        if not first.is_set():
            first.set()
            assert gate.wait(DEADLINE_SECONDS)
        if call == lost:
            raise error

    account.before = before
    return gate


def burst(
    account: Account, count: int, *, lost: str = "", error: Exception = RESET, grouped: GroupCommit | None = None
) -> list[object]:
    """Commit `count` files: one that is held up, the others while it is; return their results, errors as values."""
    gate = hold_first(account, lost=lost, error=error)
    grouped = grouped or GroupCommit(account)

    def write(number: int) -> object:
        try:
            return grouped.commit(Commit(f"/{number}", "add"), b"content %d" % number)
        except DropboxError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        first = pool.submit(write, 0)
        others = [pool.submit(write, number) for number in range(1, count)]
        eventually(lambda: len(grouped._queue) == count - 1)
        gate.set()
        return [call.result(DEADLINE_SECONDS) for call in (first, *others)]
