"""How uploads share slots and memory, what they take without waiting, and how they are broken off."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fs_dropbox.api.client import Client, Commit
from fs_dropbox.content_hash import BLOCK_SIZE
from fs_dropbox.emulator import Emulator
from fs_dropbox.errors import ApiError, TransportError
from fs_dropbox.uploads.memory import Allowance
from fs_dropbox.uploads.upload import APPENDS_PER_UPLOAD, Upload, Uploader
from tests.fs_dropbox.uploads.uploading import APPEND, START, content, put
from tests.waiting import eventually


def test_appends_run_in_parallel_while_the_writer_writes(emulator: Emulator, uploader: Uploader) -> None:
    emulator.control.latency(route_seconds={APPEND: 0.3})
    put(uploader, "/file", content(9 * BLOCK_SIZE))
    assert emulator.control.peak_concurrency(APPEND) > 1


def test_memory_is_bounded_when_the_network_is_slow(emulator: Emulator, uploader: Uploader) -> None:
    emulator.control.latency(route_seconds={APPEND: 0.1})
    piece = content(BLOCK_SIZE)
    tracemalloc.start()
    upload = uploader.open(Commit("/file", "add"))
    for _ in range(30):
        upload.write(piece)
    upload.commit()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Blocks in flight, one being filled and copied; the emulator in this process holds some of each request as well.
    assert peak < (2 * APPENDS_PER_UPLOAD + 4) * BLOCK_SIZE
    assert emulator.control.peak_concurrency(APPEND) <= APPENDS_PER_UPLOAD


def test_many_uploads_share_the_slots(
    emulator: Emulator, make_uploader: Callable[..., Uploader], client: Client
) -> None:
    uploader = make_uploader(client, appends=3)
    data = content(3 * BLOCK_SIZE + 1)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: put(uploader, f"/{number}", data), range(6)))
    assert [emulator.control.read(f"/{number}") for number in range(6)] == [data] * 6


def test_only_what_has_to_wait_is_sent_last(
    emulator: Emulator, make_uploader: Callable[..., Uploader], client: Client
) -> None:
    """The append that closes the session follows all others, so it carries less than 4 MiB where others still run."""
    emulator.control.latency(route_seconds={APPEND: 0.7})
    data = content(5 * BLOCK_SIZE + 1000)
    put(make_uploader(client, block_bytes=4 * BLOCK_SIZE), "/file", data, piece=len(data))
    assert emulator.control.read("/file") == data
    appends = [record for record in emulator.control.requests() if record.route == APPEND]
    assert sorted(record.bytes_in for record in appends) == [1000, BLOCK_SIZE, 4 * BLOCK_SIZE]
    assert appends[-1].argument["close"]


def test_where_nothing_runs_any_more_the_last_bytes_are_one_append(
    emulator: Emulator, make_uploader: Callable[..., Uploader], client: Client
) -> None:
    upload = make_uploader(client, block_bytes=2 * BLOCK_SIZE).open(Commit("/file", "add"))
    upload.write(bytes(2 * BLOCK_SIZE + 1))
    eventually(lambda: upload.checkpoint is not None and upload._appends[0].done())
    upload.write(bytes(BLOCK_SIZE))
    upload.commit()
    appends = [record.bytes_in for record in emulator.control.requests() if record.route == APPEND]
    assert appends == [2 * BLOCK_SIZE, BLOCK_SIZE + 1]


def test_many_open_uploads_keep_within_the_memory_of_all(emulator: Emulator, uploader: Uploader) -> None:
    """What hundreds of writers collect goes to local disk rather than to memory, and gives back what it took."""
    uploader.collected = Allowance(4 * 2**20)
    data = content(BLOCK_SIZE + 70_000)
    files = [uploader.open(Commit(f"/{number}", "add")) for number in range(20)]
    for start in range(0, len(data), 500_000):
        for file in files:
            file.write(data[start : start + 500_000])
        assert uploader.collected.taken_bytes <= 4 * 2**20
    assert any(file._block.is_on_disk for file in files)
    for file in files[10:]:
        file.abort()
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda file: file.commit(), files[:10]))
    assert [emulator.control.read(f"/{number}") == data for number in range(10)] == [True] * 10
    assert not emulator.control.exists("/10")
    eventually(lambda: not uploader.sending.taken_bytes)
    assert uploader.collected.taken_bytes == 0


def test_medium_files_wait_for_memory(
    emulator: Emulator, make_uploader: Callable[..., Uploader], client: Client
) -> None:
    emulator.control.latency(delay_seconds=0.02)
    uploader = make_uploader(client)
    uploader.committing = Allowance(BLOCK_SIZE)
    data = content(3 * 2**20)
    peak: list[int] = []
    commit_group = uploader.small_files.commit

    def commit(commit: Commit, data: bytes) -> Any:
        peak.append(uploader.committing.taken_bytes)
        return commit_group(commit, data)

    uploader.small_files.commit = commit
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: put(uploader, f"/{number}", data), range(8)))
    assert len(peak) == 8
    assert 0 < max(peak) <= BLOCK_SIZE
    assert emulator.control.read("/7") == data


def test_small_files_do_not_wait_for_large_ones(emulator: Emulator, uploader: Uploader) -> None:
    """Neither those that are sent slowly, nor, when they are smallest, those that are committed."""
    uploader.sending.take(10**9)
    assert put(uploader, "/medium", content(3 * 2**20)).size == 3 * 2**20
    uploader.committing.take(10**9)
    assert put(uploader, "/small", content(100_000)).size == 100_000
    uploader.sending.give(10**9)
    uploader.committing.give(10**9)


def test_abort_breaks_off_nobody_elses_append(make_uploader: Callable[..., Uploader]) -> None:
    """Threads send blocks of one upload after the other; by the time of the abort theirs may be another one's."""
    released, next_began = threading.Event(), threading.Event()
    was_next_hit: list[bool] = []

    class Slow:
        appends = 0

        def session_start(self) -> str:
            return "a session"

        def session_append(self, *_: object) -> None:
            self.appends += 1
            (next_began.set if self.appends > 1 else released.wait)()

        def interrupt(self, thread_id: int | None) -> None:
            assert thread_id
            released.set()
            was_next_hit.append(next_began.wait(0.3))

        def close(self) -> None:
            released.set()

    slow: Any = Slow()
    uploader = make_uploader(slow, appends=1)
    uploader.sending = Allowance(10**9)
    uploads = [uploader.open(Commit(f"/{number}", "add")) for number in range(2)]
    for upload in uploads:
        upload.write(bytes(BLOCK_SIZE + 1))
        eventually(lambda: slow.appends == 1)
    uploads[0].abort()
    assert was_next_hit == [False]
    eventually(next_began.is_set)
    uploads[1].abort()


def test_abort_breaks_off_what_is_under_way(emulator: Emulator, uploader: Uploader) -> None:
    emulator.control.fault(APPEND, "stall", count=None, at="answer")
    upload = uploader.open(Commit("/file", "add"))
    upload.write(content(3 * BLOCK_SIZE))
    eventually(lambda: emulator.control.faults_struck == 2)
    began = time.monotonic()
    upload.abort()
    uploader.close()
    assert time.monotonic() - began < 8  # a call is given up after ten
    assert not [each for each in threading.enumerate() if each.name.startswith("fs-dropbox-append")]
    emulator.control.release()


def test_closing_the_client_ends_uploads(emulator: Emulator, uploader: Uploader, client: Client) -> None:
    emulator.control.fault(APPEND, "stall", count=None, at="answer")
    upload = uploader.open(Commit("/file", "add"))
    upload.write(content(3 * BLOCK_SIZE))
    eventually(lambda: emulator.control.faults_struck > 0)
    began = time.monotonic()
    client.close()
    uploader.close()
    assert time.monotonic() - began < 8  # a call is given up after ten
    with pytest.raises(TransportError):
        upload.commit()
    emulator.control.release()


def given_at_once(upload: Upload, data: bytes, piece: int = BLOCK_SIZE // 4) -> int:
    """Write pieces as long as they are taken at once; return how many bytes that were."""
    for start in range(0, len(data), piece):
        before = upload.bytes_written
        if not upload.write_now(memoryview(data)[start : start + piece]):
            assert upload.bytes_written == before, "nothing of it was taken"
            return start
    return len(data)


def test_what_need_not_wait_is_taken_at_once(emulator: Emulator, uploader: Uploader) -> None:
    data = content((APPENDS_PER_UPLOAD + 5) * BLOCK_SIZE + 17)
    emulator.control.fault(APPEND, "stall", count=None)
    upload = uploader.open(Commit("/file", "add"))
    taken = given_at_once(upload, data)
    assert taken == (APPENDS_PER_UPLOAD + 1) * BLOCK_SIZE, "as many as are sent at once, and one that is filled"
    emulator.control.clear_faults()
    eventually(lambda: upload.checkpoint is not None and upload.checkpoint.sent == APPENDS_PER_UPLOAD * BLOCK_SIZE)
    assert taken + given_at_once(upload, data[taken:], 300_001) == len(data)
    upload.commit()
    assert emulator.control.read("/file") == data
    eventually(lambda: uploader.sending.taken_bytes == 0)


@pytest.mark.parametrize("end", ["commit", "stage"])
def test_a_failure_lets_go_of_what_was_not_sent(
    emulator: Emulator, make_uploader: Callable[..., Uploader], client: Client, end: str
) -> None:
    emulator.control.fault(START, "error", error={".tag": "payload_too_large"}, count=None)
    uploader = make_uploader(client)
    upload = uploader.open(Commit("/file", "add"))
    upload.write(memoryview(content(uploader.block_bytes)))
    upload.write(memoryview(content(2**20)))
    assert uploader.collected.taken_bytes > 0
    with pytest.raises(ApiError):
        getattr(upload, end)()
    assert uploader.collected.taken_bytes == 0


def test_what_is_not_taken_at_once_is_written_then(
    emulator: Emulator, make_uploader: Callable[..., Uploader], client: Client
) -> None:
    uploader = make_uploader(client, appends=1)
    data = content(6 * BLOCK_SIZE + 17)
    upload = uploader.open(Commit("/file", "add"))
    refused = 0
    for start in range(0, len(data), 300_001):
        piece = data[start : start + 300_001]
        if not upload.write_now(piece):
            refused += 1
            upload.write(piece)
    upload.commit()
    assert refused > 0
    assert emulator.control.read("/file") == data
    eventually(lambda: uploader.sending.taken_bytes == 0)


def test_more_than_a_block_is_not_taken_at_once(uploader: Uploader) -> None:
    upload = uploader.open(Commit("/file", "add"))
    assert not upload.write_now(bytes(2 * BLOCK_SIZE + 1))
    assert upload.bytes_written == 0
    upload.abort()


def test_a_failed_append_is_told_by_the_next_write(emulator: Emulator, uploader: Uploader) -> None:
    emulator.control.fault(APPEND, "error", error={".tag": "too_large"})
    upload = uploader.open(Commit("/file", "overwrite"))
    assert given_at_once(upload, bytes(BLOCK_SIZE + 1)) == BLOCK_SIZE + 1
    eventually(lambda: emulator.control.faults_struck == 1 and uploader.sending.taken_bytes == 0)
    assert given_at_once(upload, bytes(BLOCK_SIZE)) < BLOCK_SIZE
    with pytest.raises(ApiError, match="too_large"):
        upload.write(bytes(BLOCK_SIZE))
    assert not upload.write_now(b"x")
    upload.abort()
    assert not upload.write_now(b"x")


def test_what_goes_wrong_at_once_keeps_no_memory(uploader: Uploader) -> None:
    upload = uploader.open(Commit("/file", "overwrite"))
    assert upload.write_now(bytes(BLOCK_SIZE))
    uploader.close()
    with pytest.raises(TransportError, match="closed"):
        upload.write_now(b"x")
    upload.abort()
    assert uploader.sending.taken_bytes == uploader.collected.taken_bytes == 0


def test_what_a_session_has_is_not_taken_at_once(emulator: Emulator, uploader: Uploader) -> None:
    data = content(2 * BLOCK_SIZE + 17)
    first = uploader.open(Commit("/file", "add"))
    first.write(data)
    eventually(lambda: first.checkpoint is not None and first.checkpoint.sent == 2 * BLOCK_SIZE)
    first.abort()
    second = uploader.open(Commit("/file", "add"), first.checkpoint)
    assert not second.write_now(data[:1000])
    second.write(data[: 2 * BLOCK_SIZE])
    assert second.write_now(data[2 * BLOCK_SIZE :])
    second.commit()
    assert emulator.control.read("/file") == data


def test_what_is_given_up_before_it_is_sent_keeps_no_memory(
    emulator: Emulator, make_uploader: Callable[..., Uploader], client: Client
) -> None:
    uploader = make_uploader(client, appends=1)
    emulator.control.fault(START, "stall")
    upload = uploader.open(Commit("/file", "add"))
    upload.write(bytes(BLOCK_SIZE + 1))
    assert uploader.sending.taken_bytes == BLOCK_SIZE
    upload.abort()  # while the only thread waits for the session
    assert uploader.sending.taken_bytes == 0
    emulator.control.release()


def test_what_finds_no_thread_is_done_once(
    emulator: Emulator, make_uploader: Callable[..., Uploader], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An executor that cannot start a thread raises, and leaves what it was given to those that it has."""
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def one_is_left(thread: threading.Thread) -> None:
        if thread.name.startswith("fs-dropbox-append"):
            if started:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", one_is_left)
    uploader = make_uploader(client, appends=4)
    emulator.control.latency(route_seconds={START: 0.3})  # meanwhile that thread takes nothing else
    data = content(4 * BLOCK_SIZE + 17)
    put(uploader, "/file", data)
    uploader.start_session().result()  # after whatever was still queued
    assert started
    assert emulator.control.read("/file") == data
    assert emulator.control.calls()[APPEND] == 5
    eventually(lambda: uploader.sending.taken_bytes == 0)
