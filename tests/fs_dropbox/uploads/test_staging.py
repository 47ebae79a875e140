"""Content that is sent ahead becomes visible when that is asked for, and once at most."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, BinaryIO

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.api.retry import RetryPolicy
from fs_dropbox.emulator import Emulator
from fs_dropbox.errors import ApiError, TransportError
from tests.waiting import eventually

WHEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
FINISH = "files/upload_session/finish_batch_v2"
SIZES = [0, 10, 4 * 2**20 + 1, 9 * 2**20]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = RetryPolicy(attempts=2, deadline_seconds=20.0, first_pause_seconds=0.01)
    monkeypatch.setattr("fs_dropbox.api.client.RetryPolicy", lambda: policy)


@pytest.fixture
def account(open_dropbox: Callable[..., DropboxFS]) -> DropboxFS:
    return open_dropbox(change_feed=False)


def source(content: bytes) -> tuple[Callable[[], BinaryIO], int]:
    return lambda: io.BytesIO(content), len(content)


def staged(account: Any, *contents: bytes) -> list[str]:
    tokens = dict(account.stage_files(source(content) for content in contents))
    assert sorted(tokens) == list(range(len(contents)))
    assert all(isinstance(token, str) for token in tokens.values()), tokens
    return [tokens[index] for index in range(len(contents))]


def commit(account: Any, path: str, token: str, expected: str | None = None) -> bool | Exception:
    ((index, outcome),) = account.commit_files([(path, token, WHEN, expected)])
    assert index == 0
    return outcome  # type: ignore[no-any-return]


def done(emulator: Emulator, count: int) -> None:
    """Wait until so many commits have been carried out."""
    eventually(lambda: [each.route for each in emulator.control.requests()].count(FINISH) >= count)


@pytest.mark.parametrize("many", [1, 30])
def test_contents_of_all_sizes_become_visible_at_the_commit(emulator: Emulator, account: DropboxFS, many: int) -> None:
    contents = [bytes([number % 251]) * size for number, size in enumerate(SIZES + [1000] * (many - 1))]
    tokens = staged(account, *contents)
    assert emulator.control.tree() == {}
    files = [(f"/{number}", token, WHEN, None) for number, token in enumerate(tokens)]
    assert dict(account.commit_files(files)) == dict.fromkeys(range(len(contents)), True)
    for number, content in enumerate(contents):
        assert emulator.control.read(f"/{number}") == content
        assert account.getinfo(f"/{number}", ["details"]).modified == WHEN
    assert emulator.control.calls()[FINISH] == 1


def test_many_cost_few_calls_and_one_costs_two(emulator: Emulator, account: DropboxFS) -> None:
    account.listdir("/")
    emulator.control.reset_counts()
    assert commit(account, "/one", staged(account, b"1")[0]) is True
    assert sum(emulator.control.calls().values()) == 2
    tokens = staged(account, *(b"%d" % number for number in range(300)))
    assert set(dict(account.commit_files((f"/{i}", t, WHEN, None) for i, t in enumerate(tokens))).values()) == {True}
    assert sum(emulator.control.calls().values()) == 2 + 5


@pytest.mark.parametrize("second_finish", ["not_found", "closed", "repeat"])
@pytest.mark.parametrize("since", ["nothing", "replaced", "removed"])
def test_what_was_committed_is_not_committed_again(
    emulator: Emulator, account: DropboxFS, second_finish: str, since: str
) -> None:
    emulator.control.options(second_finish=second_finish)
    (token,) = staged(account, b"content")
    assert commit(account, "/f", token) is True
    if since == "replaced":
        emulator.control.write("/f", b"by another")
    elif since == "removed":
        emulator.control.delete("/f")
    before = emulator.control.tree()
    assert commit(account, "/f", token) is True
    assert emulator.control.tree() == before


@pytest.mark.parametrize("expected", [None, "", "rev"])
def test_a_commit_that_is_carried_out_late_undoes_nothing(
    emulator: Emulator, account: DropboxFS, open_dropbox: Callable[..., DropboxFS], expected: str | None
) -> None:
    """As after `kill -9`: one has asked for the commit, another one hears of the outcome."""
    if expected == "rev":
        expected = emulator.control.write("/f", b"base")["rev"]
    (token,) = staged(account, b"content")
    emulator.control.fault(FINISH, "late", count=2)
    assert isinstance(commit(account, "/f", token, expected), fs.errors.RemoteConnectionError)
    another = open_dropbox(change_feed=False)
    assert commit(another, "/f", token, expected) is True
    another.remove("/f")
    emulator.control.release()
    done(emulator, 3)
    assert emulator.control.tree() == {}


def test_a_late_commit_that_came_first_is_found(emulator: Emulator, account: DropboxFS) -> None:
    (token,) = staged(account, b"content")
    emulator.control.fault(FINISH, "late", count=2)
    assert isinstance(commit(account, "/f", token), fs.errors.RemoteConnectionError)
    emulator.control.release()
    done(emulator, 2)
    assert commit(account, "/f", token) is True
    assert len(account.versions("/f")) == 1


def test_what_may_have_become_visible_is_looked_up(emulator: Emulator, open_dropbox: Callable[..., DropboxFS]) -> None:
    account = open_dropbox(change_feed=False, cache_ttl_seconds=1000.0)
    account.listdir("/")
    (token,) = staged(account, b"content")
    emulator.control.fault(FINISH, "ambiguous", count=2)
    assert isinstance(commit(account, "/f", token), fs.errors.RemoteConnectionError)
    assert account.exists("/f"), "it is believed not to be there"
    emulator.control.write("/g", b"theirs")
    (token,) = staged(account, b"content")
    assert isinstance(commit(account, "/g", token, ""), fs.errors.FileExists)
    assert account.exists("/g"), "its absence is believed although a call has told of it"


def test_what_dropbox_has_is_compared(account: DropboxFS, monkeypatch: pytest.MonkeyPatch) -> None:
    (token,) = staged(account, b"content")
    finish = account._parts.client.session_finish_batch

    def damaged(*arguments: Any) -> Any:
        return [entry._replace(content_hash="0" * 64) for entry in finish(*arguments)]  # type: ignore[union-attr]

    monkeypatch.setattr(account._parts.client, "session_finish_batch", damaged)
    outcome = commit(account, "/f", token)
    assert isinstance(outcome, fs.errors.OperationFailed)
    assert "not what was sent" in str(outcome)


def test_two_versions_of_one_path_keep_their_order(emulator: Emulator, account: DropboxFS) -> None:
    first, second = staged(account, b"first", b"second")
    files: list[Any] = [("/f", first, WHEN, None), ("/F", second, WHEN, None)]
    assert dict(account.commit_files(files)) == {0: True, 1: True}
    assert emulator.control.read("/f") == b"second"
    assert len(account.versions("/f")) == 2


def test_what_has_expired_is_told_from_what_was_committed(emulator: Emulator, account: DropboxFS) -> None:
    """Equal content that was there before does not count: its time is another."""
    emulator.control.write("/f", b"content", 1_500_000_000)
    emulator.control.write("/f", b"something else")
    (token,) = staged(account, b"content")
    emulator.control.advance(8 * 86400)
    assert commit(account, "/f", token) is False
    assert emulator.control.read("/f") == b"something else"
    assert commit(account, "/f", "no token") is False


def test_what_is_there_is_respected(emulator: Emulator, account: DropboxFS) -> None:
    rev = emulator.control.write("/f", b"base")["rev"]
    new, over, same = staged(account, b"new", b"over", b"over")
    assert isinstance(commit(account, "/f", new, ""), fs.errors.FileExists)
    assert commit(account, "/f", over, rev) is True
    assert "changed by someone else" in str(commit(account, "/f", new, rev))
    now = emulator.control.metadata("/f")["rev"]
    assert commit(account, "/f", same, now) is True, "Dropbox makes no revision of equal content"
    assert isinstance(commit(account, "/f/in", new), fs.errors.DirectoryExpected)
    assert commit(account, "/g", new, "") is True, "a refusal does not use it up"


def test_folders_above_that_are_missing_are_made(emulator: Emulator, account: DropboxFS) -> None:
    assert not account.exists("/none")
    (token,) = staged(account, b"1")
    emulator.control.reset_counts()
    assert commit(account, "/none/deep/f", token) is True
    assert sum(emulator.control.calls().values()) == 1
    assert account.isdir("/none")
    assert account.listdir("/none/deep") == ["f"]


def test_a_source_that_cannot_be_read_fails_alone(emulator: Emulator, account: DropboxFS) -> None:
    def broken() -> BinaryIO:
        raise OSError("gone")

    outcomes = dict(account.stage_files([source(b"1"), (broken, 5), source(b"2"), source(b"3"), source(b"4")]))
    assert isinstance(outcomes.pop(1), OSError)
    assert len(outcomes) == 4
    ((_, alone),) = account.stage_files([(broken, 5)])
    assert isinstance(alone, OSError)


def test_what_dropbox_does_not_know_of_a_commit_is_no_answer(
    account: DropboxFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take place yet: only who asks again is told for certain."""
    (token,) = staged(account, b"content")
    with monkeypatch.context() as patched:
        unknown = ApiError(FINISH, ("internal_error",))
        patched.setattr(account._parts.client, "session_finish_batch", lambda finished: [unknown])
        patched.setattr(account._parts.client, "pause_after", lambda failures: None)
        assert isinstance(commit(account, "/f", token), fs.errors.FSError)
    assert commit(account, "/f", token) is True


def test_busy_namespaces_are_waited_for(
    emulator: Emulator, account: DropboxFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[int] = []
    monkeypatch.setattr(account._parts.client, "pause_after", pauses.append)
    (token,) = staged(account, b"1")
    emulator.control.fault(FINISH, "too_many_write_operations", count=2)
    assert commit(account, "/f", token) is True
    assert pauses == [1]


def test_one_name_that_is_not_taken_fails_alone(emulator: Emulator, account: DropboxFS) -> None:
    """As one that no path may be: Dropbox takes none of a call that has it."""
    tokens = staged(account, b"0", b"1", b"2")
    for route in (FINISH, "files/upload_session/finish"):
        emulator.control.fault(route, "server_error", None, path="/refused", status=400, text="did not match pattern")
    names = ("/one", "/refused", "/two")
    outcomes = dict(account.commit_files((name, token, WHEN, "") for name, token in zip(names, tokens, strict=True)))
    assert (outcomes[0], outcomes[2]) == (True, True)
    assert isinstance(outcomes[1], fs.errors.FSError)
    assert "/refused" in str(outcomes[1])
    assert set(emulator.control.tree()) == {"/one", "/two"}


def test_what_is_no_path_or_no_token_is_told_of_and_the_others_are_committed(
    emulator: Emulator, account: DropboxFS
) -> None:
    (token,) = staged(account, b"content")
    files = [("/a\0b", token, WHEN, None), ("/one", token, WHEN, None), ("/two", "no token", WHEN, None)]
    outcomes = dict(account.commit_files(files))
    assert isinstance(outcomes[0], fs.errors.InvalidCharsInPath)
    assert (outcomes[1], outcomes[2]) == (True, False)
    assert set(emulator.control.tree()) == {"/one"}


def test_where_the_whole_call_is_refused_nothing_is_looked_up(emulator: Emulator, account: DropboxFS) -> None:
    tokens = staged(account, *[b"x"] * 6)
    emulator.control.fault(FINISH, "invalid_token", None)
    emulator.control.reset_counts()
    outcomes = dict(account.commit_files((f"/{number}", token, WHEN, None) for number, token in enumerate(tokens)))
    assert all(isinstance(outcome, fs.errors.PermissionDenied) for outcome in outcomes.values()), outcomes
    assert not {"files/get_metadata", "files/list_revisions"} & set(emulator.control.calls())


def test_folders_of_the_account_stage_too(emulator: Emulator, account: DropboxFS) -> None:
    emulator.control.seed("/in/deep")
    folder = account.opendir("/in")
    assert folder.getmeta()["staged_uploads"] is True
    (token,) = staged(folder, b"1")
    assert commit(folder, "/deep/f", token) is True
    assert emulator.control.read("/in/deep/f") == b"1"
    (other,) = staged(folder, b"2")
    refused = commit(folder, "/deep/f/in", other)
    assert isinstance(refused, fs.errors.DirectoryExpected)
    assert refused.path == "/deep/f/in"


@pytest.mark.parametrize("method", ["commit_files", "upload_files"])
def test_what_may_have_become_visible_is_not_denied(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Whatever is known of a path, by whichever name it was given, is forgotten where its commit may have happened."""
    account: Any = open_dropbox(change_feed=False, cache_ttl_seconds=3600)
    names = [f"folder/{number}" for number in range(6)]
    tokens = staged(account, *[b"x"] * 6)
    account.makedir("folder")
    assert account.listdir("folder") == []
    with monkeypatch.context() as patched:
        finish = account._parts.client.session_finish_batch

        def lost(*arguments: Any) -> Any:
            finish(*arguments)
            raise unsettled()

        def unsettled(*_: Any, **__: Any) -> TransportError:
            error = TransportError("reset")
            error.is_unsettled = True
            return error

        def unreachable(*_: Any, **__: Any) -> Any:
            raise unsettled()

        patched.setattr(account._parts.client, "session_finish_batch", lost)
        patched.setattr(account._parts.client, "get_metadata", unreachable)
        if method == "commit_files":
            files = [(name, token, WHEN, None) for name, token in zip(names, tokens, strict=True)]
        else:
            files = [(name, *source(b"x"), None) for name in names]  # type: ignore[misc]
        outcomes = dict(getattr(account, method)(files))
    assert all(isinstance(outcome, fs.errors.RemoteConnectionError) for outcome in outcomes.values()), outcomes
    assert [name for name in names if account.exists(name)] == names
    assert len(emulator.control.tree()) == 1 + len(names)


def test_who_does_not_hear_all_of_it_sees_all_of_it(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS], monkeypatch: pytest.MonkeyPatch
) -> None:
    account: Any = open_dropbox(change_feed=False, cache_ttl_seconds=3600)
    tokens = staged(account, *[b"x"] * 20)
    assert account.listdir("/") == []
    files = [(f"{number}", token, WHEN, None) for number, token in enumerate(tokens)]
    applied = account._parts.staging._catalog.applied

    def slowly(*arguments: Any) -> None:
        applied(*arguments)
        time.sleep(0.01)

    monkeypatch.setattr(account._parts.staging._catalog, "applied", slowly)
    outcomes = account.commit_files(files)
    assert next(outcomes) == (0, True)
    outcomes.close()
    assert len(emulator.control.tree()) == len(account.listdir("/")) == 20
