"""The spool holds what was written, and nothing else, within its bounds."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import os
import stat
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftp_gateway.files import holes
from sftp_gateway.files.intervals import Intervals
from sftp_gateway.files.spool import PAGE_BYTES, DamagedError, Quota, Spool, SpoolFullError
from sftp_gateway.sftp.status import RefusedError
from tests.waiting import eventually

SPACE = 200

ranges = st.tuples(st.integers(0, SPACE), st.integers(0, SPACE)).map(sorted)
steps = st.lists(st.tuples(st.sampled_from(["add", "remove", "truncate", "missing"]), ranges), max_size=60)


@given(steps)
def test_intervals_agree_with_a_model(moves: list[tuple[str, list[int]]]) -> None:
    intervals, model = Intervals(), bytearray(SPACE)
    for move, (start, end) in moves:
        if move == "add":
            new = model[start:end].count(0)
            assert intervals.add(start, end) == new
            model[start:end] = b"\1" * (end - start)
        elif move in ("remove", "truncate"):
            end = SPACE if move == "truncate" else end
            dropped = model[start:end].count(1)
            assert intervals.remove(start, end) == dropped
            model[start:end] = bytes(end - start)
        else:
            gaps = intervals.missing(start, end)
            expected = bytearray(b"\1" * SPACE)
            for first, last in gaps:
                expected[first:last] = bytes(last - first)
            assert expected[start:end] == model[start:end]
            assert all(a[1] < b[0] for a, b in itertools.pairwise(gaps))
        assert intervals.total == model.count(1)
        assert intervals.end == len(bytes(model).rstrip(b"\0"))
        assert intervals.prefix == (bytes(model) + b"\0").index(0)
        shown = list(intervals)
        assert all(first < last for first, last in shown)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(shown)), "ranges touch"


writes = st.tuples(st.integers(0, SPACE), st.binary(max_size=40))
spool_steps = st.lists(
    st.one_of(st.tuples(st.just("write"), writes), st.tuples(st.just("truncate"), st.integers(0, SPACE))), max_size=40
)


@given(spool_steps, st.sampled_from([0, 50, 10_000]), st.sampled_from([0, 50, 10_000]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_spool_agrees_with_a_model(tmp_path: Path, moves: list[Any], memory_limit: int, memory_of_all: int) -> None:
    quota = Quota(10**6, memory_of_all)
    spool = Spool(tmp_path, quota, memory_limit=memory_limit)
    model, known = bytearray(SPACE * 2), bytearray(SPACE * 2)
    for move, argument in moves:
        if move == "write":
            offset, data = argument
            spool.write(offset, data)
            model[offset : offset + len(data)] = data
            known[offset : offset + len(data)] = b"\1" * len(data)
        else:
            spool.truncate(argument)
            model[argument:] = bytes(len(model) - argument)
            known[argument:] = bytes(len(known) - argument)
        assert spool.pread(0, len(model)) == model
        assert spool.used == known.count(1)
        assert quota.used == spool.used + max(0, len(spool._written) - 1) * PAGE_BYTES
        assert quota._in_memory == len(spool._memory or b"") <= min(memory_limit, memory_of_all)
        missing = bytearray(b"\1" * len(known))
        for start, end in spool.missing(0, len(known)):
            missing[start:end] = bytes(end - start)
        assert missing == known
    spool.close()
    spool.close()
    assert quota.used == quota._in_memory == 0
    assert not list(tmp_path.iterdir())


def test_single_bytes_far_apart_take_no_more_of_the_disk_than_there_is(tmp_path: Path) -> None:
    quota = Quota(100 * PAGE_BYTES)
    spool = Spool(tmp_path, quota, memory_limit=0)
    taken = 0
    with contextlib.suppress(SpoolFullError):
        for taken in range(1000):
            spool.write(taken * 2 * PAGE_BYTES, b"x")
    assert 50 < taken <= os.stat(spool.to_disk()).st_blocks * 512 / PAGE_BYTES <= 100
    spool.truncate(PAGE_BYTES)
    assert quota.used == 1
    spool.close()
    assert quota.used == 0


def test_what_cannot_be_cut_off_is_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else zeros would take the place of what a client believes to be there as before."""
    spool = Spool(tmp_path, Quota(1000), memory_limit=0)
    spool.write(0, b"0123456789")
    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", Mock(side_effect=OSError(errno.EIO, "input/output error")))
        with pytest.raises(OSError, match="input/output"):
            spool.truncate(4)
    assert (spool.used, spool.quota.used, spool.missing(0, 10)) == (10, 10, [])
    spool.close()


def test_all_spools_together_have_little_in_memory(tmp_path: Path) -> None:
    """One byte behind a gap of a MiB took a MiB of memory, and none of the quota."""
    quota = Quota(10_000, 350)
    spools = [Spool(tmp_path, quota, memory_limit=100) for _ in range(10)]
    for spool in spools:
        spool.write(99, b"x")
    assert [spool.path is None for spool in spools] == [True] * 3 + [False] * 7
    assert [spool.pread(98, 2) for spool in spools] == [b"\0x"] * 10
    spools[0].close()
    spools[1].truncate(0)
    later = [Spool(tmp_path, quota, memory_limit=100) for _ in range(3)]
    for spool in later:
        spool.write(99, b"x")
    assert [spool.path is None for spool in later] == [True, True, False]
    for spool in (*spools, *later):
        spool.close()
    assert quota._in_memory == 0


def test_a_large_file_goes_to_disk_where_nobody_else_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = Spool(folder, Quota(2**20), memory_limit=100)
    spool.write(0, b"a" * 100)
    assert spool.path is None
    spool.write(100, b"b")
    assert spool.path is not None
    assert stat.S_IMODE(spool.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    spool.close()
    assert not list(folder.iterdir())


def test_nobody_waits_for_the_space_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close, freed, may_free = os.close, threading.Event(), threading.Event()

    def slow_close(fd: int) -> None:
        if threading.current_thread().name == "sftp-spool":
            assert may_free.wait(30)
            freed.set()
        close(fd)

    monkeypatch.setattr("sftp_gateway.files.freeing.LARGE_BYTES", 1000)
    monkeypatch.setattr(os, "close", slow_close)
    quota = Quota(2**20)
    spool = Spool(tmp_path, quota, memory_limit=100)
    spool.write(0, bytes(1000))
    spool.close()
    assert quota.used == 0
    assert not list(tmp_path.iterdir())
    assert not freed.is_set()
    may_free.set()
    eventually(freed.is_set, "its space was not freed")
    kept = Spool(tmp_path, quota, memory_limit=100)
    kept.write(0, bytes(1000))
    kept.release()
    later = Spool(tmp_path, quota, memory_limit=100)
    later.adopt(next(tmp_path.iterdir()), 1000)  # as the lock is given back before `release` returns
    later.close()


def test_a_far_offset_takes_no_space(tmp_path: Path) -> None:
    quota = Quota(100)
    spool = Spool(tmp_path, quota, memory_limit=1000)
    spool.write(2**40, b"x")
    assert spool.path is not None
    assert spool.path.stat().st_blocks * 512 < 2**20
    assert quota.used == 1
    assert spool.pread(2**40 - 3, 4) == b"\0\0\0x"
    spool.close()


def test_the_quota_refuses_one_write_and_keeps_the_rest(tmp_path: Path) -> None:
    quota = Quota(10)
    spool = Spool(tmp_path, quota, memory_limit=1000)
    spool.write(0, b"12345678")
    with pytest.raises(RefusedError, match="used up"):
        spool.write(8, b"abc")
    spool.write(4, b"WXYZ")  # rewriting takes nothing
    spool.write(8, b"ab")
    assert spool.pread(0, 10) == b"1234WXYZab"
    spool.truncate(2)
    assert quota.used == 2
    spool.close()


def test_a_file_that_is_written_is_locked_until_it_is_shared(tmp_path: Path) -> None:
    """Or another process would take it for one that nobody writes any more."""
    spool = Spool(tmp_path, Quota(100), memory_limit=0)
    spool.write(0, b"12345")
    assert spool.path is not None
    other = os.open(spool.path, os.O_RDWR)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        spool.share()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(other)
    spool.close()


@pytest.mark.parametrize("meanwhile", ["nothing", "removed", "continued", "in use"])
def test_a_shared_file_is_reclaimed_only_as_it_was(tmp_path: Path, meanwhile: str) -> None:
    spool = Spool(tmp_path, Quota(100), memory_limit=0)
    spool.write(0, b"12345")
    assert spool.path is not None
    path = spool.path
    spool.share()
    other = os.open(path, os.O_RDWR)
    try:
        if meanwhile == "removed":
            path.unlink()
        elif meanwhile == "continued":
            os.pwrite(other, b"6", 5)
        elif meanwhile == "in use":
            fcntl.flock(other, fcntl.LOCK_EX)
        assert spool.reclaim() is (meanwhile == "nothing")
        if meanwhile != "nothing":  # then it is left to the others
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(other)
    spool.close()


@pytest.mark.parametrize("memory_limit", [0, 1000])
def test_a_write_that_the_disk_refuses_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_limit: int
) -> None:
    quota = Quota(5000)
    spool = Spool(tmp_path, quota, memory_limit=memory_limit)
    spool.write(0, b"12345678")
    with monkeypatch.context() as patched:
        patched.setattr("sftp_gateway.files.spool._write_all", full_disk)
        with pytest.raises(OSError, match="No space left"):
            spool.write(4, bytes(2000))
    assert quota.used == spool.used == 8
    assert spool.missing(0, 10) == [(8, 10)]
    assert spool.pread(0, 8) == b"12345678"
    spool.write(8, bytes(2000))
    assert quota.used == 2008
    spool.close()
    assert quota.used == 0
    assert not list(tmp_path.iterdir())


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_spool_file_is_cut_and_given_up_with_what_was_noted_of_it(tmp_path: Path) -> None:
    quota = Quota(100)
    path = tmp_path / "f.spool"
    path.write_bytes(b"0123456789")
    spool = Spool(tmp_path, quota, memory_limit=0)
    with pytest.raises(DamagedError, match="shorter than noted"):
        spool.adopt(path, 11)
    assert quota.used == 0
    with pytest.raises(RefusedError, match="used up"):
        Spool(tmp_path, Quota(5), memory_limit=0).adopt(path, 9)
    spool.adopt(path, 9)
    spool.truncate(9)
    assert path.stat().st_size == 9
    with pytest.raises(BlockingIOError):
        Spool(tmp_path, quota, memory_limit=0).adopt(path, 9)
    assert quota.used == 9
    spool.close()
    assert quota.used == 0


def test_a_spool_file_is_taken_over(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Quota(100), memory_limit=0)
    spool.write(0, b"12345")
    path = spool.to_disk()
    spool.release()
    quota = Quota(100)
    later = Spool(tmp_path, quota, memory_limit=0)
    later.adopt(path, 4)
    assert later.pread(0, 4) == b"1234"
    assert later.missing(0, 11) == [(4, 11)]
    assert quota.used == 4
    later.close()
    assert not path.exists()


def test_the_beginning_is_dropped_where_it_is_whole(tmp_path: Path) -> None:
    quota = Quota(10**6)
    spool = Spool(tmp_path, quota, memory_limit=0)
    spool.write(0, b"x" * 100_000)
    spool.write(200_000, b"y" * 100_000)
    assert not spool.drop_before(100_001), "what is still to come"
    assert spool.drop_before(50_000)
    assert not spool.drop_before(50_000)
    assert (spool.dropped, spool.used, spool.prefix, quota.used) == (50_000, 200_000, 100_000, 150_000 + PAGE_BYTES)
    with pytest.raises(RefusedError, match="from its start to its end"):
        spool.pread(49_999, 10)
    assert spool.pread(50_000, 2) == b"xx"
    spool.forget_dropped()
    assert (spool.used, quota.used, spool.missing(0, 60_000)) == (150_000, 150_000 + PAGE_BYTES, [(0, 50_000)])
    spool.write(0, b"z" * 50_000)
    assert spool.pread(0, 100_000) == b"z" * 50_000 + b"x" * 50_000
    spool.close()
    assert quota.used == 0


def test_what_is_in_memory_is_not_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Quota(1000), memory_limit=1000)
    spool.write(0, b"x" * 100)
    assert not spool.drop_before(50)
    assert spool.pread(0, 100) == b"x" * 100
    spool.close()


@pytest.mark.parametrize(
    ("failures", "is_dropped"),
    [
        ([errno.EINTR, errno.EINTR], True),
        ([errno.ENOSPC], True),
        ([errno.EIO], True),
        ([errno.EOPNOTSUPP], False),
        ([errno.ENOSYS], False),
    ],
)
def test_what_the_disk_may_have_dropped_is_not_taken_for_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: list[int], is_dropped: bool
) -> None:
    """A disk that is full, for one, fails half-way."""

    def fallocate(*_: int) -> int:
        if not failures:
            return 0
        ctypes.set_errno(failures.pop(0))
        return -1

    monkeypatch.setattr(holes, "_fallocate", lambda: fallocate)
    spool = Spool(tmp_path, Quota(10**6), memory_limit=0)
    spool.write(0, b"x" * 100_000)
    assert spool.drop_before(50_000) == is_dropped
    if is_dropped:
        with pytest.raises(RefusedError):
            spool.pread(0, 10)
    else:
        assert spool.pread(0, 10) == b"x" * 10
    assert not failures
    spool.close()


def test_what_a_system_cannot_do_changes_nothing(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    assert not holes.punch(reader, 0, 4096)
    os.close(reader)
    os.close(writer)
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10_000)
    with file.open("rb") as read_only:
        assert not holes.punch(read_only.fileno(), 0, 4096)
    assert file.read_bytes() == b"x" * 10_000
    with file.open("r+b") as writable:
        assert holes.punch(writable.fileno(), 0, 4096)
    assert file.read_bytes() == bytes(4096) + b"x" * 5904
