"""Many files in few calls: each has its own honest result, whatever Dropbox or the source does."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO

import fs.errors
import pytest

from fs_dropbox import DropboxFS
from fs_dropbox.api.commits import Commit
from fs_dropbox.emulator import Emulator
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import UNSETTLED, ApiError
from tests.waiting import DEADLINE_SECONDS

WHEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
FINISH = "files/upload_session/finish_batch_v2"
APPEND = "files/upload_session/append_batch"
START = "files/upload_session/start_batch"


def _source(data: bytes) -> Callable[[], BinaryIO]:
    return lambda: io.BytesIO(data)


def _files(contents: dict[str, bytes]) -> list[tuple[str, Callable[[], BinaryIO], int, datetime | None]]:
    return [(path, _source(data), len(data), WHEN) for path, data in contents.items()]


def _upload(dropbox_fs: DropboxFS, contents: dict[str, bytes]) -> list[Exception | None]:
    """Upload and return the results in the order of the files, after checking that each has one."""
    results = list(dropbox_fs.upload_files(_files(contents)))
    assert sorted(index for index, _ in results) == list(range(len(contents)))
    return [error for _, error in sorted(results, key=lambda pair: pair[0])]


def _calls(emulator: Emulator) -> dict[str, int]:
    return dict(emulator.control.calls())


@pytest.fixture
def contents() -> dict[str, bytes]:
    return {f"/in/{number:04}.txt": f"content {number}".encode() * 10 for number in range(300)}


@pytest.fixture
def dropbox_fs(emulator: Emulator, open_dropbox: Callable[..., DropboxFS]) -> DropboxFS:
    dropbox_fs = open_dropbox(change_feed=False)
    dropbox_fs.makedir("/in")
    dropbox_fs.listdir("/in")
    emulator.control.reset_counts()
    return dropbox_fs


def test_a_thousand_files_cost_a_dozen_calls(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    contents = {f"/in/{number:04}": bytes([number % 256]) * 10_000 for number in range(1000)}
    assert _upload(dropbox_fs, contents) == [None] * 1000
    calls = _calls(emulator)
    assert sum(calls.values()) <= 12, calls
    assert all(status < 400 for status in (record.status for record in emulator.control.requests()))
    # what was written is seen at once, without a call
    assert len(dropbox_fs.listdir("/in")) == 1000
    info = dropbox_fs.getinfo("/in/0007", ["details"])
    assert (info.size, info.modified) == (10_000, WHEN)
    assert _calls(emulator) == calls
    for path in ("/in/0000", "/in/0999"):
        assert emulator.control.read(path) == contents[path]


def test_without_cache_each_folder_is_looked_at_once(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS]
) -> None:
    dropbox_fs = open_dropbox(cache=False)
    dropbox_fs.makedir("/in")
    emulator.control.reset_counts()
    assert _upload(dropbox_fs, {f"/in/{number}": b"x" for number in range(100)}) == [None] * 100
    calls = _calls(emulator)
    assert calls.pop("files/get_metadata") == 1
    assert sum(calls.values()) <= 4


def test_small_and_large_and_empty_together(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    contents = {f"/in/{size}": b"x" * size for size in (0, 1, 2, 10, 4 * 2**20, 4 * 2**20 + 1, 20_000_000)}
    assert _upload(dropbox_fs, contents) == [None] * len(contents)
    for path, data in contents.items():
        assert emulator.control.read(path) == data


def test_few_files_go_one_by_one(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    assert _upload(dropbox_fs, {"/in/a": b"1"}) == [None]
    assert _calls(emulator) == {"files/upload": 1}
    assert list(dropbox_fs.upload_files([])) == []


def test_two_files_of_one_path_keep_their_order(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    many = [(f"/in/{number}", _source(b"-"), 1, None) for number in range(10)]
    files = [*many, ("/in/a", _source(b"first"), 5, None), ("/IN/A", _source(b"second"), 6, None), *many]
    results = list(dropbox_fs.upload_files(files))
    assert sorted(results) == [(index, None) for index in range(22)]
    assert emulator.control.read("/in/a") == b"second"
    assert [info.get("details", "size") for info in dropbox_fs.versions("/in/a")] == [6, 5]


def test_each_refusal_is_one_files_own(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    emulator.control.seed("/in/folder/within")
    contents = {f"/in/{number}": b"x" for number in range(10)}
    contents |= {"/in/folder": b"x", "/absent/a": b"x", "/in/a\\b": b"x", "/": b"x"}
    *fine, folder, absent, invalid, root = _upload(dropbox_fs, contents)
    assert fine == [None] * 10
    assert isinstance(folder, fs.errors.FSError)
    assert "/in/folder" in str(folder)
    assert isinstance(absent, fs.errors.ResourceNotFound)
    assert isinstance(invalid, fs.errors.InvalidCharsInPath)
    assert isinstance(root, fs.errors.FileExpected)
    assert not emulator.control.exists("/absent")
    assert dropbox_fs.isdir("/in/folder"), "a refusal tells that what was known is not so"


def test_more_than_one_call_commits_are_told_once_each(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    names = [f"/in/{number}" for number in range(1001)]
    files = [("/absent/a", _source(b"x"), 1, None), *[(name, _source(b"x"), 1, WHEN) for name in names]]
    results = sorted(dropbox_fs.upload_files(files), key=lambda result: result[0])
    assert isinstance(results[0][1], fs.errors.ResourceNotFound)
    assert results[1:] == [(index, None) for index in range(1, 1002)]
    assert _calls(emulator).get(FINISH) == 1, "the last one alone goes as any single file"
    emulator.control.reset_counts()
    assert {dropbox_fs.getinfo(name, ["details"]).modified for name in names} == {WHEN}
    assert _calls(emulator) == {}, "what was stored is known"


def test_a_window_ends_at_the_first_path_that_is_in_it_and_no_later_one(
    emulator: Emulator, dropbox_fs: DropboxFS
) -> None:
    many = [(f"/in/{number}", _source(b"-"), 1, None) for number in range(10)]
    files = [*many, ("/absent/a", _source(b"x"), 1, None), *many, *many]
    results = list(dropbox_fs.upload_files(files))
    assert sorted(index for index, _ in results) == list(range(31))
    assert _calls(emulator)[FINISH] == 3


def test_a_source_that_cannot_be_read_fails_alone(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    def gone() -> BinaryIO:
        raise FileNotFoundError("it has gone")

    files = _files({f"/in/{number}": b"12345" for number in range(6)})
    files[2] = ("/in/2", gone, 5, None)
    files[3] = ("/in/3", _source(b"has grown since"), 5, None)
    files[4] = ("/in/4", _source(b"cut"), 5, None)
    results = dict(dropbox_fs.upload_files(files))
    assert isinstance(results.pop(2), FileNotFoundError)
    assert set(results.values()) == {None}
    assert emulator.control.read("/in/3") == b"has grown since"
    assert emulator.control.read("/in/4") == b"cut"
    assert not emulator.control.exists("/in/2")


@pytest.mark.parametrize(
    ("route", "kind", "parameters"),
    [
        (START, "server_error", {}),
        (START, "reset", {}),
        (APPEND, "server_error", {}),
        (APPEND, "ambiguous", {}),
        (APPEND, "cut_request", {}),
        (FINISH, "server_error", {}),
        (FINISH, "ambiguous", {}),
        (FINISH, "ambiguous", {"status": 500}),
        (FINISH, "cut_body", {}),
        (FINISH, "rate_limit", {"retry_after": 0}),
        (FINISH, "too_many_write_operations", {}),
        (FINISH, "expired_token", {}),
    ],
    ids=lambda value: value.rpartition("/")[2] if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_faults_leave_every_file_there_once(
    emulator: Emulator, dropbox_fs: DropboxFS, contents: dict[str, bytes], route: str, kind: str, parameters: Any
) -> None:
    emulator.control.fault(route, kind, count=1, **parameters)
    assert _upload(dropbox_fs, contents) == [None] * len(contents)
    assert emulator.control.faults_struck == 1
    for path in ("/in/0000.txt", "/in/0150.txt", "/in/0299.txt"):
        assert emulator.control.read(path) == contents[path]
        assert len(dropbox_fs.versions(path)) == 1
    # and once more: the same content makes no second revision
    assert _upload(dropbox_fs, contents) == [None] * len(contents)
    assert len(dropbox_fs.versions("/in/0150.txt")) == 1


@pytest.mark.usefixtures("impatient")
def test_what_cannot_be_looked_up_may_be_stored(
    emulator: Emulator, dropbox_fs: DropboxFS, contents: dict[str, bytes]
) -> None:
    emulator.control.fault(FINISH, "ambiguous", count=1)
    emulator.control.fault("files/get_metadata", "server_error", count=None)
    results = _upload(dropbox_fs, contents)
    assert emulator.control.read("/in/0000.txt") == contents["/in/0000.txt"]
    assert all(UNSETTLED in str(error) for error in results)


@pytest.mark.usefixtures("impatient")
def test_what_may_be_committed_yet_is_not_uploaded_anew(
    emulator: Emulator, dropbox_fs: DropboxFS, contents: dict[str, bytes]
) -> None:
    emulator.control.fault(FINISH, "late", count=None)
    results = _upload(dropbox_fs, contents)
    assert all(UNSETTLED in str(error) for error in results)
    assert "files/upload" not in _calls(emulator)
    emulator.control.clear_faults()


def test_busy_namespaces_are_waited_for(
    emulator: Emulator, dropbox_fs: DropboxFS, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[int] = []
    monkeypatch.setattr(dropbox_fs._parts.client, "pause_after", pauses.append)
    emulator.control.fault(FINISH, "too_many_write_operations", count=2)
    assert _upload(dropbox_fs, contents) == [None] * len(contents)
    assert pauses == [1]
    assert _calls(emulator)[FINISH] == 2  # the second for two files alone
    assert "files/upload" not in _calls(emulator)


def test_whoever_is_closed_while_he_waits_for_a_busy_namespace_is_told(
    emulator: Emulator, dropbox_fs: DropboxFS, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = dropbox_fs._parts.client
    pause_after = client.pause_after

    def closed(failures: int) -> None:
        client.close()
        pause_after(failures)

    monkeypatch.setattr(client, "pause_after", closed)
    emulator.control.fault(FINISH, "too_many_write_operations", count=2)
    results = _upload(dropbox_fs, contents)
    failed = [error for error in results if error is not None]
    assert 0 < len(failed) < len(results)
    assert all(isinstance(error, fs.errors.RemoteConnectionError) for error in failed)


def test_what_is_not_taken_together_is_committed_one_by_one(
    emulator: Emulator, dropbox_fs: DropboxFS, contents: dict[str, bytes]
) -> None:
    """As by one of the names: nothing is sent again for that, and nothing looked up."""
    emulator.control.fault(FINISH, "server_error", count=None, status=400, text="did not match pattern")
    assert _upload(dropbox_fs, contents) == [None] * len(contents)
    assert _calls(emulator)["files/upload_session/finish"] == len(contents)
    assert not {"files/upload", "files/get_metadata"} & set(_calls(emulator))


def test_what_has_changed_when_its_session_is_refused_is_stored_as_it_is_by_then(
    emulator: Emulator, dropbox_fs: DropboxFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter([b"first", b"later"])
    files = _files({f"/in/{number}": b"12345" for number in range(6)})
    files[0] = ("/in/0", lambda: io.BytesIO(next(states)), 5, WHEN)

    def refuse_first(parts: Sequence[object]) -> list[ApiError | None]:
        return [ApiError(APPEND, ("not_found",)), *append(parts)[1:]]

    append: Any = dropbox_fs._parts.client.session_append_batch
    monkeypatch.setattr(dropbox_fs._parts.client, "session_append_batch", refuse_first)
    assert dict(dropbox_fs.upload_files(files)) == dict.fromkeys(range(6))
    assert emulator.control.read("/in/0") == b"later"


def test_what_dropbox_never_got_is_no_success(
    emulator: Emulator, open_dropbox: Callable[..., DropboxFS], contents: dict[str, bytes]
) -> None:
    emulator.control.set_quota(1000)
    dropbox_fs = open_dropbox()
    dropbox_fs.makedir("/in")
    results = _upload(dropbox_fs, contents)
    there = {path for path, size in emulator.control.tree("/in").items() if size is not None}
    for path, error in zip(contents, results, strict=True):
        assert (error is None) == (path in there), path
        assert error is None or isinstance(error, fs.errors.InsufficientStorage)
    assert 0 < len(there) < len(contents)


def test_what_is_stored_for_an_iterator_that_is_closed_is_known(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    contents = {f"/in/{number}": b"x" for number in range(3)}  # few, and so each on its own
    results: Any = dropbox_fs.upload_files(_files(contents))
    next(results)
    results.close()
    stored = [path for path, size in emulator.control.tree("/in").items() if size is not None]
    assert stored
    assert all(dropbox_fs.exists(path) for path in stored)


def test_what_was_in_doubt_when_an_iterator_is_closed_is_looked_up_anew(
    emulator: Emulator, dropbox_fs: DropboxFS, contents: dict[str, bytes]
) -> None:
    emulator.control.fault(FINISH, "ambiguous", count=1)  # all are stored, and the answer is lost
    results: Any = dropbox_fs.upload_files(_files(contents))
    assert next(results)[1] is None
    results.close()
    assert {f"/in/{name}" for name in dropbox_fs.listdir("/in")} == set(contents)


def test_what_is_uploaded_anew_while_an_iterator_is_closed_is_seen(
    emulator: Emulator, dropbox_fs: DropboxFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has looked meanwhile believes that it is not there."""
    client, looked = dropbox_fs._parts.client, threading.Event()
    upload = client.upload

    def upload_later(commit: Commit, data: bytes) -> FileEntry:
        assert commit.path == "/in/0" or looked.wait(DEADLINE_SECONDS)
        return upload(commit, data)

    def forgotten(finished: Sequence[object]) -> list[ApiError]:
        dropbox_fs._parts.uploader.small_files.shrink(1)  # each goes on its own from here on
        return [ApiError(FINISH, ("lookup_failed", "not_found")) for _ in finished]

    monkeypatch.setattr(client, "session_finish_batch", forgotten)
    monkeypatch.setattr(client, "upload", upload_later)
    results: Any = dropbox_fs.upload_files(_files({f"/in/{number}": b"x" for number in range(8)}))
    assert next(results) == (0, None)
    assert not any(dropbox_fs.exists(f"/in/{number}") for number in range(1, 8))
    looked.set()
    results.close()
    stored = [path for path, size in emulator.control.tree("/in").items() if size is not None]
    assert len(stored) > 1
    assert all(dropbox_fs.exists(path) for path in stored)


def test_what_has_not_begun_is_not_uploaded_for_an_iterator_that_is_closed(dropbox_fs: DropboxFS) -> None:
    opened: list[int] = []

    def source(number: int) -> BinaryIO:
        opened.append(number)
        return io.BytesIO(b"x")

    dropbox_fs._parts.uploader.small_files.shrink(1)  # each goes on its own
    files = [(f"/in/{number}", partial(source, number), 1, None) for number in range(200)]
    results: Any = dropbox_fs.upload_files(files)
    assert next(results)[1] is None
    results.close()
    assert 0 < len(opened) < 200


def test_an_iterator_that_is_closed_gives_up_the_rest(emulator: Emulator, dropbox_fs: DropboxFS) -> None:
    asked = []

    def endless() -> Iterator[Any]:
        for number in range(100_000):
            asked.append(number)
            yield f"/in/{number}", _source(b"x"), 1, None

    results: Any = dropbox_fs.upload_files(endless())
    assert next(results)[1] is None
    results.close()
    assert len(asked) <= 3000
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fs-dropbox-bulk")]
