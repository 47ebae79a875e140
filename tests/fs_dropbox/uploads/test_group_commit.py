"""Small files that are committed at the same time share their calls, and each gets its own result."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from fs_dropbox import paths
from fs_dropbox.api.client import Commit, Update
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, TransportError
from fs_dropbox.uploads import group_commit
from fs_dropbox.uploads.group_commit import SHARED_BYTES, GroupCommit
from tests.waiting import DEADLINE_SECONDS, eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BUSY = ApiError("files/upload_session/finish_batch_v2", ("path", "too_many_write_operations"))
RESET = TransportError("reset")
REFUSED = ApiError("files/upload_session/finish_batch_v2", ("path", "conflict", "folder"))


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


@pytest.fixture
def account() -> Account:
    return Account()


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
        except (ApiError, TransportError) as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        first = pool.submit(write, 0)
        others = [pool.submit(write, number) for number in range(1, count)]
        eventually(lambda: len(grouped._queue) == count - 1)
        gate.set()
        return [call.result(DEADLINE_SECONDS) for call in (first, *others)]


def taken(grouped: GroupCommit) -> int:
    """Take the next group from the queue, and tell how many are in it."""
    group: list[group_commit._Writer] = []
    grouped._take_group_locked(group)
    return len(group)


def test_a_lone_writer_is_one_call(account: Account) -> None:
    GroupCommit(account).commit(Commit("/a", "overwrite"), b"1")
    assert account.calls == {"upload": 1}


def test_writers_that_come_meanwhile_share_their_calls(account: Account) -> None:
    results = burst(account, 40)
    assert all(isinstance(result, FileEntry) for result in results)
    assert account.files == {f"/{number}": b"content %d" % number for number in range(40)}
    assert account.calls == {"upload": 1, "start_batch": 1, "append_batch": 1, "finish_batch": 1}


def test_exact_commits_share_no_calls(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group whose answer is lost is settled by asking again, which does not settle them."""
    monkeypatch.setattr(group_commit, "PATIENCE_SECONDS", 2 * DEADLINE_SECONDS)
    gate, grouped = hold_first(account), GroupCommit(account)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(grouped.commit, Commit("/first", "overwrite"), b"x")
        eventually(lambda: account.calls)
        exact = (Commit("/a", "add", strict_conflict=True), Commit("/b", Update("123456789")))
        others = [pool.submit(grouped.commit, commit, b"x") for commit in exact]
        try:
            assert all(isinstance(other.result(DEADLINE_SECONDS / 5), FileEntry) for other in others)
        finally:
            gate.set()
        first.result(DEADLINE_SECONDS)
    assert account.calls == {"upload": 3}


def test_sessions_are_started_ahead(account: Account) -> None:
    grouped = GroupCommit(account)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: grouped.commit(Commit(f"/{number}", "add"), b"x"), range(1000)))
    assert len(account.files) == 1000
    assert account.calls["start_batch"] <= 8


def test_each_writer_gets_its_own_error(account: Account) -> None:
    account.entry_errors = {"/3": REFUSED}
    results = burst(account, 8)
    assert results[3] is REFUSED
    assert sum(isinstance(result, FileEntry) for result in results) == 7


def test_a_busy_namespace_is_tried_again_alone(account: Account) -> None:
    account.entry_errors = {"/3": BUSY}
    assert all(isinstance(result, FileEntry) for result in burst(account, 8))
    assert account.calls["upload"] == 2


def test_a_group_that_was_not_committed_is_committed_one_by_one(account: Account) -> None:
    assert all(isinstance(result, FileEntry) for result in burst(account, 5, lost="finish_batch"))
    assert account.calls["upload"] == 5


@pytest.mark.parametrize(
    ("call", "error", "most"),
    [
        ("finish_batch", ApiError("finish", ("bad_request",), status=400), group_commit.GROUP_FILES),
        ("finish_batch", TransportError("protocol", status=404), 1),
        ("append_batch", ApiError("append", ("bad_request",), status=400), 4),
        ("append_batch", TransportError("protocol", status=413), 4),
        ("start_batch", TransportError("server", status=501), 1),
    ],
    ids=str,
)
def test_a_shared_call_that_is_not_taken(account: Account, call: str, error: Exception, most: int) -> None:
    """The files go one by one; what was wrong with one of their names says nothing of the next group."""
    grouped = GroupCommit(account)
    results = burst(account, 9, lost=call, error=error, grouped=grouped)
    assert all(isinstance(result, FileEntry) for result in results)
    assert (account.calls["upload"], len(account.files)) == (9, 9)
    assert grouped.most_files == most


def test_what_may_still_be_committed_is_not_committed_once_more(account: Account) -> None:
    """The second time could come after the file has been changed again."""
    unsettled = TransportError("timeout")
    unsettled.is_unsettled = True
    results = burst(account, 5, lost="finish_batch", error=unsettled)
    assert account.calls["upload"] == 1, "of the first, which was alone"
    assert all(isinstance(result, TransportError) and result.is_unsettled for result in results[1:])


@pytest.mark.parametrize("tag", [("internal_error",), ("lookup_failed", "not_found")])
def test_what_a_group_may_have_committed_may_be_there_whatever_ends_the_second_try(
    account: Account, tag: tuple[str, ...]
) -> None:
    account.entry_errors["/1"] = ApiError("files/upload_session/finish_batch_v2", tag)
    result = burst(account, 4, lost="upload")[1]
    assert isinstance(result, TransportError)
    assert result.is_unsettled
    assert not RESET.is_unsettled, "others may have the same one"


def test_larger_files_travel_beside_each_other_and_share_the_commit(account: Account) -> None:
    gate = hold_first(account)
    grouped = GroupCommit(account)
    sizes = [SHARED_BYTES + 1, 10, SHARED_BYTES, 5 * SHARED_BYTES, 2 * SHARED_BYTES]
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(grouped.commit, Commit("/first", "add"), b"x" * 5 * SHARED_BYTES)]
        eventually(lambda: account.calls)
        for number, size in enumerate(sizes):
            calls.append(pool.submit(grouped.commit, Commit(f"/{number}", "add"), bytes([number]) * size))
        eventually(lambda: len(grouped._queue) == len(sizes))
        assert account.calls["append"] == 3  # while the first is still being committed
        gate.set()
        assert all(isinstance(call.result(DEADLINE_SECONDS), FileEntry) for call in calls)
    assert [account.files[f"/{number}"] for number in range(5)] == [bytes([n]) * size for n, size in enumerate(sizes)]
    assert (account.calls["upload"], account.calls["append_batch"], account.calls["finish_batch"]) == (1, 1, 1)


def test_a_larger_file_whose_content_does_not_arrive_fails_alone(account: Account) -> None:
    gate = hold_first(account)
    hold = account.before

    def before(call: str) -> None:
        hold(call)
        if call == "append":
            raise TransportError("timeout")

    account.before = before
    grouped = GroupCommit(account)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(grouped.commit, Commit("/first", "add"), b"1")
        eventually(lambda: account.calls)
        large = pool.submit(grouped.commit, Commit("/large", "add"), bytes(SHARED_BYTES + 1))
        assert isinstance(large.exception(DEADLINE_SECONDS), TransportError)
        gate.set()
        first.result(DEADLINE_SECONDS)
    assert set(account.files) == {"/first"}


def test_exact_creation_never_shares(account: Account) -> None:
    grouped = GroupCommit(account)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: grouped.commit(Commit(f"/{n}", "add", strict_conflict=True), b"x"), range(20)))
    assert account.calls == {"upload": 20}


def test_two_commits_of_one_path_keep_their_order(account: Account) -> None:
    gate = hold_first(account)
    grouped = GroupCommit(account)
    with ThreadPoolExecutor(3) as pool:
        calls = []
        for expected, data in enumerate((b"0", b"1", b"2")):
            calls.append(pool.submit(grouped.commit, Commit("/a", "overwrite"), data))
            eventually(lambda expected=expected: account.calls and len(grouped._queue) == expected)  # type: ignore[misc]
        gate.set()
        for call in calls:
            call.result(DEADLINE_SECONDS)
    assert account.files["/a"] == b"2"


def test_spellings_of_one_name_are_one_path(account: Account) -> None:
    grouped = GroupCommit(account)
    names = "/É", "/e\u0301", "/é", "/other"
    grouped._queue.extend(group_commit._Writer(Commit(name, "overwrite"), b"x") for name in names)
    assert [taken(grouped) for _ in range(3)] == [1, 1, 2]


def test_a_group_holds_so_many_bytes_at_most(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have sent their content themselves do not count: it is not held for a shared call."""
    monkeypatch.setattr(group_commit, "GROUP_BYTES", 25)
    grouped = GroupCommit(account)
    writers = [group_commit._Writer(Commit(f"/{number}", "overwrite"), b"0123456789") for number in range(5)]
    writers[1].session = "sent"
    grouped._queue.extend(writers)
    assert [taken(grouped) for _ in range(2)] == [3, 2]


def test_sessions_that_were_started_long_ago_are_not_counted_on(account: Account) -> None:
    now = [0.0]
    grouped = GroupCommit(account, now=lambda: now[0])
    first = grouped._take_sessions(2)
    now[0] = group_commit.SESSION_SECONDS - 1
    soon = grouped._take_sessions(2)
    assert account.calls["start_batch"] == 1
    now[0] = group_commit.SESSION_SECONDS + 1
    later = grouped._take_sessions(2)
    assert account.calls["start_batch"] == 2
    assert len({*first, *soon, *later}) == 6
    assert int(later[0][1:]) > int(soon[1][1:]) + 2, "one of those from the beginning"


def test_whoever_leads_and_is_interrupted_leaves_nobody_waiting(account: Account) -> None:
    class Interruption(BaseException):
        """As Ctrl-C is one."""

    gate = hold_first(account)
    hold = account.before

    def before(call: str) -> None:
        hold(call)
        if call == "finish_batch":
            raise Interruption

    account.before = before
    grouped = GroupCommit(account)
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(grouped.commit, Commit("/first", "add"), b"1")]
        eventually(lambda: account.calls)
        calls += [pool.submit(grouped.commit, Commit(f"/{number}", "add"), b"1") for number in range(4)]
        eventually(lambda: len(grouped._queue) == 4)
        gate.set()
        errors = [call.exception(DEADLINE_SECONDS) for call in calls]
    assert errors[0] is None
    assert sorted(type(error).__name__ for error in errors[1:]) == ["Interruption", *["TransportError"] * 3]
    assert all(
        error.kind == "interrupted" and error.is_unsettled for error in errors if isinstance(error, TransportError)
    )
    account.before = lambda call: None
    assert grouped.commit(Commit("/next", "add"), b"1")


@pytest.mark.parametrize("others", [0, 1])
def test_whoever_waits_and_is_interrupted_leaves_nothing_to_be_committed_later(account: Account, others: int) -> None:
    class Interruption(BaseException):
        """As Ctrl-C is one."""

    grouped = GroupCommit(account)
    gate = hold_first(account)
    wait, waiting = grouped._changed.wait, threading.Event()

    def interrupted(seconds: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread():
            raise Interruption
        waiting.set()
        return wait(seconds)

    grouped._changed.wait = interrupted  # type: ignore[assignment]
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(grouped.commit, Commit("/first", "overwrite"), b"1")]
        eventually(lambda: account.calls)
        with pytest.raises(Interruption):
            grouped.commit(Commit("/file", "overwrite"), b"old")
        calls += [pool.submit(grouped.commit, Commit("/other", "overwrite"), b"1") for _ in range(others)]
        assert not others or waiting.wait(DEADLINE_SECONDS)
        gate.set()
        for call in calls:
            call.result(DEADLINE_SECONDS)
        account.files["/file"] = b"new"
        pool.submit(grouped.commit, Commit("/next", "overwrite"), b"1").result(DEADLINE_SECONDS)
    assert account.files["/file"] == b"new"


def test_who_is_interrupted_as_he_gathers_a_group_leaves_it_to_the_next(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold_first(account)
    grouped = GroupCommit(account)
    keys: list[str] = []

    def key(path: str) -> str:
        keys.append(path)
        if len(keys) == 4:  # after that of the first, which is held up, and of two others
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(paths, "key", key)
    with ThreadPoolExecutor(5) as pool:
        calls = []
        for number in range(5):
            calls.append(pool.submit(grouped.commit, Commit(f"/{number}", "add"), b"x"))
            eventually(lambda: account.calls and len(grouped._queue) == len(calls) - 1)
        gate.set()
        with pytest.raises(KeyboardInterrupt):
            calls.pop(1).result(DEADLINE_SECONDS)
        for call in calls:
            assert call.result(DEADLINE_SECONDS)
    assert set(account.files) == {"/0", "/2", "/3", "/4"}


def test_a_stalled_commit_does_not_hold_up_the_others(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "PATIENCE_SECONDS", 0.05)
    gate = hold_first(account)
    grouped = GroupCommit(account)
    with ThreadPoolExecutor(4) as pool:
        stalled = pool.submit(grouped.commit, Commit("/stalled", "add"), b"x")
        eventually(lambda: account.calls)
        others = [pool.submit(grouped.commit, Commit(f"/{number}", "add"), b"y") for number in range(3)]
        for other in others:
            other.result(DEADLINE_SECONDS)
        assert not stalled.done()
        gate.set()
        stalled.result(DEADLINE_SECONDS)
    assert set(account.files) == {"/stalled", "/0", "/1", "/2"}


def test_a_group_waits_a_moment_for_those_just_served(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers that each wait for their own commit come back one after the other; still they stay together."""
    monkeypatch.setattr(group_commit, "GATHER_SECONDS", 2.0)
    monkeypatch.setattr(group_commit, "LONGEST_GATHER_SECONDS", 2.0)
    grouped = GroupCommit(account)
    gate = hold_first(account)

    def write(writer: int) -> None:
        for number in range(10):
            grouped.commit(Commit(f"/{writer}-{number}", "add"), b"x")

    with ThreadPoolExecutor(8) as pool:
        writers = [pool.submit(write, writer) for writer in range(8)]
        eventually(lambda: len(grouped._queue) == 7)
        gate.set()
        for each in writers:
            each.result(20)
    assert len(account.files) == 80
    assert account.calls["upload"] + account.calls["finish_batch"] <= 13


def test_a_lone_writer_waits_for_nobody(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "GATHER_SECONDS", 100.0)
    monkeypatch.setattr(group_commit, "LONGEST_GATHER_SECONDS", 100.0)
    grouped = GroupCommit(account)
    for number in range(5):
        grouped.commit(Commit(f"/{number}", "add"), b"x")
    assert account.calls == {"upload": 5}
