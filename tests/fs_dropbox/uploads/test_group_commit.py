"""Small files that are committed at the same time share their calls, and each gets its own result."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from fs_dropbox.api.client import Commit, Update
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, TransportError
from fs_dropbox.uploads import group_commit
from fs_dropbox.uploads.group_commit import SHARED_BYTES, GroupCommit
from tests.fs_dropbox.uploads.grouping import RESET, Account, burst, hold_first
from tests.waiting import DEADLINE_SECONDS, eventually

BUSY = ApiError("files/upload_session/finish_batch_v2", ("path", "too_many_write_operations"))
REFUSED = ApiError("files/upload_session/finish_batch_v2", ("path", "conflict", "folder"))


@pytest.fixture
def account() -> Account:
    return Account()


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
