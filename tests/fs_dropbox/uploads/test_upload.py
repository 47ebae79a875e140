"""Uploads: nothing visible before the commit, bounded memory, the right bytes under every fault."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from fs_dropbox.api.client import Client, Commit, Update
from fs_dropbox.content_hash import BLOCK_SIZE
from fs_dropbox.emulator import Emulator
from fs_dropbox.errors import ApiError, reason
from fs_dropbox.uploads import group_commit
from fs_dropbox.uploads.checkpoints import Checkpoint
from fs_dropbox.uploads.upload import APPENDS_PER_UPLOAD, Uploader
from tests.fs_dropbox.uploads.uploading import APPEND, FINISH, START, content, put
from tests.waiting import eventually

SIZES = [0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE, 3 * BLOCK_SIZE + 17]


@pytest.mark.parametrize("size", SIZES)
def test_every_size(emulator: Emulator, uploader: Uploader, size: int) -> None:
    data = content(size)
    entry = put(uploader, "/file", data)
    assert (entry.size, entry.rev) == (size, emulator.control.metadata("/file")["rev"])
    assert emulator.control.read("/file") == data
    calls = emulator.control.calls()
    if size <= BLOCK_SIZE:
        assert (calls["files/upload"], calls[START]) == (1, 0)
    else:
        assert (calls["files/upload"], calls[START], calls[FINISH]) == (0, 1, 1)
        assert calls[APPEND] == -(-size // BLOCK_SIZE)


def test_blocks_are_of_the_right_size(make_uploader: Callable[..., Uploader], client: Client) -> None:
    with pytest.raises(ValueError, match="multiple"):
        make_uploader(client, block_bytes=BLOCK_SIZE + 1)


def test_one_large_write(emulator: Emulator, uploader: Uploader) -> None:
    data = content(5 * BLOCK_SIZE + 5)
    put(uploader, "/file", data, piece=len(data))
    assert emulator.control.read("/file") == data


@pytest.mark.parametrize("size", [10, 2 * BLOCK_SIZE + 10])
def test_nothing_is_visible_before_the_commit_or_after_an_abort(
    emulator: Emulator, uploader: Uploader, size: int
) -> None:
    emulator.control.write("/file", b"old")
    upload = uploader.open(Commit("/file", "overwrite"))
    upload.write(content(size))
    assert emulator.control.read("/file") == b"old"
    upload.abort()
    upload.abort()
    assert emulator.control.read("/file") == b"old"
    for use in (lambda: upload.write(b"x"), upload.commit):
        with pytest.raises(ValueError, match="ended"):
            use()
    assert emulator.control.calls()[FINISH] == emulator.control.calls()["files/upload"] == 0


@pytest.mark.parametrize("size", [10, 2 * BLOCK_SIZE + 10])
def test_the_time_may_come_with_the_commit(emulator: Emulator, uploader: Uploader, size: int) -> None:
    moment = datetime(2021, 2, 3, 4, 5, 6, tzinfo=UTC)
    upload = uploader.open(Commit("/file", "add"))
    upload.write(content(size))
    assert upload.commit(client_modified=moment).client_modified == moment


@pytest.mark.parametrize("size", [10, 2 * BLOCK_SIZE + 10])
def test_a_foreign_change_is_not_overwritten(emulator: Emulator, uploader: Uploader, client: Client, size: int) -> None:
    rev = client.upload(Commit("/file", "add"), b"old").rev
    upload = uploader.open(Commit("/file", Update(rev)))
    upload.write(content(size))
    emulator.control.write("/file", b"of another")
    with pytest.raises(ApiError) as caught:
        upload.commit()
    assert caught.value.lost_update
    assert emulator.control.read("/file") == b"of another"


@pytest.mark.parametrize("size", [10, 2 * BLOCK_SIZE + 10])
def test_exact_creation(emulator: Emulator, uploader: Uploader, size: int) -> None:
    data = content(size)
    put(uploader, "/file", data, mode="add", strict_conflict=True)
    with pytest.raises(ApiError) as caught:
        put(uploader, "/file", data, mode="add", strict_conflict=True)
    assert caught.value.tag == ("path", "conflict", "file")


FAULTS: dict[str, dict[str, Any]] = {
    "429": {"kind": "rate_limit", "retry_after": 0},
    "500": {"kind": "server_error", "status": 500, "count": 2},
    "reset": {"kind": "reset"},
    "cut in the middle": {"kind": "cut_request", "at_byte": 1_000_000},
    "lost answer": {"kind": "ambiguous"},
    "lost answers": {"kind": "ambiguous", "count": 3},
    "lost behind a 502": {"kind": "ambiguous", "status": 502},
    "blank": {"kind": "blank_body"},
    "expired token": {"kind": "expired_token"},
    "stall": {"kind": "stall", "at": "answer"},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("route", [START, APPEND, FINISH, "last append"])
def test_faults_go_unnoticed(
    emulator: Emulator,
    make_client: Callable[..., Client],
    make_uploader: Callable[..., Uploader],
    route: str,
    fault: str,
) -> None:
    uploader = make_uploader(make_client(timeout_seconds=2.0))
    data = content(4 * BLOCK_SIZE + 100)
    parameters = dict(FAULTS[fault])
    kind = parameters.pop("kind")
    if route == "last append":
        emulator.control.fault(APPEND, kind, path='"close":true', **parameters)
    else:
        emulator.control.fault(route, kind, **parameters)
    entry = put(uploader, "/file", data)
    assert emulator.control.faults_struck > 0
    assert entry.rev == emulator.control.metadata("/file")["rev"]
    assert emulator.control.read("/file") == data
    assert len(uploader.client.list_revisions("/file")) == 1  # type: ignore[attr-defined]


def test_a_failed_append_fails_the_commit(emulator: Emulator, uploader: Uploader) -> None:
    emulator.control.write("/file", b"old")
    emulator.control.fault(APPEND, "error", count=None, error={".tag": "too_large"})
    upload = uploader.open(Commit("/file", "overwrite"))
    upload.write(content(2 * BLOCK_SIZE))
    with pytest.raises(ApiError) as caught:
        upload.commit()
    assert caught.value.tag == ("too_large",)
    assert emulator.control.read("/file") == b"old"
    assert emulator.control.calls()[FINISH] == 0


def test_a_failed_append_fails_the_writes_that_follow(emulator: Emulator, uploader: Uploader) -> None:
    emulator.control.fault(APPEND, "error", count=None, error={".tag": "too_large"})
    upload = uploader.open(Commit("/file", "overwrite"))
    upload.write(content(2 * BLOCK_SIZE))
    eventually(lambda: emulator.control.faults_struck == 1)
    with pytest.raises(ApiError, match="too_large"):
        upload.write(content((APPENDS_PER_UPLOAD + 3) * BLOCK_SIZE))
    for use in (lambda: upload.write(b"x"), upload.commit):
        with pytest.raises(ApiError, match="too_large"):
            use()
    upload.abort()
    assert not emulator.control.exists("/file")


def test_a_session_that_dropbox_has_forgotten_is_a_clear_error(emulator: Emulator, uploader: Uploader) -> None:
    upload = uploader.open(Commit("/file", "add"))
    upload.write(content(2 * BLOCK_SIZE))
    eventually(lambda: emulator.control.calls()[APPEND] == 1)
    emulator.control.advance(8 * 86400)
    with pytest.raises(ApiError) as caught:
        upload.commit()
    assert caught.value.tag == ("not_found",)
    assert "upload the file again" in reason(caught.value)


def test_the_token_may_expire_in_the_middle(emulator: Emulator, uploader: Uploader) -> None:
    data = content(4 * BLOCK_SIZE)
    upload = uploader.open(Commit("/file", "add"))
    upload.write(data[: 2 * BLOCK_SIZE])
    eventually(lambda: emulator.control.calls()[APPEND] == 1)
    emulator.control.expire_tokens()
    upload.write(data[2 * BLOCK_SIZE :])
    upload.commit()
    assert emulator.control.read("/file") == data
    assert emulator.control.calls()["oauth2/token"] == 2


def test_small_files_at_the_same_time_share_calls(
    emulator: Emulator, uploader: Uploader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "GATHER_SECONDS", 1.0)  # threads of a busy machine come back late
    monkeypatch.setattr(group_commit, "LONGEST_GATHER_SECONDS", 1.0)
    emulator.control.latency(delay_seconds=0.03, commit_seconds=0.05)
    emulator.control.seed("/taken")
    outcomes: dict[int, object] = {}

    def write(number: int) -> None:
        for each in range(10):
            path = "/taken" if (number, each) == (3, 4) else f"/{number}-{each}"
            try:
                outcomes[number * 10 + each] = put(uploader, path, f"{path}!".encode()).path_display
            except ApiError as error:
                outcomes[number * 10 + each] = error.tag

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(16)))
    emulator.control.latency(delay_seconds=0.0, commit_seconds=0.0)
    assert outcomes.pop(34) == ("path", "conflict", "folder")
    assert outcomes == {n * 10 + e: f"/{n}-{e}" for n in range(16) for e in range(10) if (n, e) != (3, 4)}
    assert all(emulator.control.read(path) == f"{path}!".encode() for path in outcomes.values())  # type: ignore[arg-type]
    assert emulator.control.calls().total() < 60


@pytest.mark.parametrize("route", ["files/upload_session/append_batch", "files/upload_session/finish_batch_v2"])
@pytest.mark.parametrize("fault", ["500", "reset", "lost answer", "429", "lost behind a 502"])
def test_groups_under_faults(emulator: Emulator, uploader: Uploader, route: str, fault: str) -> None:
    emulator.control.latency(delay_seconds=0.02)
    parameters = dict(FAULTS[fault])
    emulator.control.fault(route, parameters.pop("kind"), **{**parameters, "count": 2})
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda number: put(uploader, f"/{number}", str(number).encode()), range(48)))
    emulator.control.latency(delay_seconds=0.0)
    assert emulator.control.faults_struck == 2
    for number in range(48):
        assert emulator.control.read(f"/{number}") == str(number).encode()
        assert len(uploader.client.list_revisions(f"/{number}")) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [10, 20 * 2**20])
def test_what_dropbox_has_is_compared(uploader: Uploader, size: int) -> None:
    """A byte that changes between the writer and Dropbox fails the commit, whatever said that it was well."""
    upload = uploader.open(Commit("/a", "overwrite"))
    upload.write(bytes(size))
    upload._hash.update(b"!")  # what Dropbox gets is no longer what was written
    with pytest.raises(ApiError) as raised:
        upload.commit()
    assert raised.value.tag == ("stored_otherwise",)


def test_an_upload_goes_on_where_another_stopped(emulator: Emulator, uploader: Uploader) -> None:
    data = content(3 * BLOCK_SIZE + 17)
    commit = Commit("/file", "overwrite")
    first = uploader.open(commit)
    assert first.checkpoint is None
    first.write(data[: 2 * BLOCK_SIZE + 1])
    eventually(lambda: first.checkpoint is not None and first.checkpoint.sent >= 2 * BLOCK_SIZE)
    first.abort()
    known = Checkpoint.parse(str(first.checkpoint))
    assert known.sent == 2 * BLOCK_SIZE
    emulator.control.reset_counts()
    second = uploader.open(commit, known)
    second.write(data)
    assert second.bytes_written == len(data)
    second.commit()
    assert emulator.control.read("/file") == data
    assert emulator.control.bytes_in()[APPEND] == BLOCK_SIZE + 17
    assert emulator.control.calls()[START] == 0


def test_what_dropbox_has_forgotten_is_not_gone_on_with(uploader: Uploader) -> None:
    with pytest.raises(ApiError, match="not_found"):
        uploader.open(Commit("/file", "add"), Checkpoint("gone", BLOCK_SIZE, 64 * "0"))


def test_what_goes_on_must_be_the_same_content(emulator: Emulator, uploader: Uploader) -> None:
    commit = Commit("/file", "overwrite")
    first = uploader.open(commit)
    first.write(bytes(BLOCK_SIZE + 1))
    eventually(lambda: first.checkpoint is not None)
    first.abort()
    short = uploader.open(commit, first.checkpoint)
    short.write(b"short")
    with pytest.raises(ValueError, match="fewer"):
        short.commit()
    other = uploader.open(commit, first.checkpoint)
    assert other.checkpoint == first.checkpoint
    other.write(bytes(BLOCK_SIZE - 1))
    for call in (lambda: other.write(b"other"), other.commit):
        with pytest.raises(ApiError, match="begun_otherwise"):
            call()
    assert not emulator.control.exists("/file")  # a mix of both would have been there for a moment


def test_what_arrives_late_of_the_upload_before_is_told(uploader: Uploader, client: Client) -> None:
    """Dropbox tells nothing of a session before its commit."""
    commit, old, new = Commit("/file", "overwrite"), bytes(2 * BLOCK_SIZE), bytes(BLOCK_SIZE) + content(BLOCK_SIZE)
    first = uploader.open(commit)
    first.write(old[: BLOCK_SIZE + 1])
    eventually(lambda: first.checkpoint is not None)
    first.abort()
    known = first.checkpoint
    assert known is not None
    second = uploader.open(commit, known)
    second.write(new + b"!")
    eventually(lambda: second.checkpoint is not None and second.checkpoint.sent == 2 * BLOCK_SIZE)
    client.session_append(known.session_id, BLOCK_SIZE, old[BLOCK_SIZE:], False)
    with pytest.raises(ApiError, match="stored_otherwise"):
        second.commit()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4194304",
        "x:HASH:id",
        "5:HASH:id",
        "-4194304:HASH:id",
        "0:HASH:id",
        "4194304:HASH:",
        "4194304:id",
        "4194304:a:id",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the checkpoint of an upload"):
        Checkpoint.parse(text.replace("HASH", 64 * "0"))
