"""Whoever carries a file to the storage, the thread or the writer itself: every byte arrives once and in its place."""

from __future__ import annotations

import io
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fs import errors

from sftp_gateway.files import stream
from sftp_gateway.files.spool import Quota, Spool
from sftp_gateway.files.stream import Stream
from tests.waiting import eventually

PIECE = 1000


class Target:
    """A file that takes what it is given, at once as long as `takes` says so."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.by: list[str] = []  # which thread brought each piece, and how
        self.takes: Callable[[], bool] = lambda: True
        self.may_write = threading.Event()
        self.may_write.set()
        self.fault: Exception | None = None
        self.is_aborted = False
        self._busy = threading.Lock()

    def write(self, data: bytes) -> int:
        assert self.may_write.wait(20)
        self._add("write", data)
        return len(data)

    def write_now(self, data: bytes | memoryview) -> bool:
        if self.fault is not None:
            raise self.fault
        if not self.takes():
            return False
        self._add("write_now", data)
        return True

    def abort(self) -> None:
        self.is_aborted = True

    def _add(self, how: str, data: bytes | memoryview) -> None:
        assert self._busy.acquire(blocking=False), "two threads write at once"
        self.content += data
        name = threading.current_thread().name
        self.by.append(f"{how} in {name if name == 'sftp-stream' else 'the writer'}")
        self._busy.release()


class Sending:
    """A spool with a stream over it."""

    def __init__(self, folder: Path, target: Target) -> None:
        self.spool = Spool(folder, Quota(10**9), memory_limit=10 * PIECE)
        self.stream = Stream(self.spool, lambda: target, on_progress=lambda: None)
        self.target = target
        self.end = 0

    def send(self, data: bytes) -> None:
        self.spool.write(self.end, data)
        offset, self.end = self.end, self.end + len(data)
        view = memoryview(data)
        self.stream.extend(self.spool.prefix, offset, view)
        view.release()  # fails where somebody has kept it

    def begin(self, data: bytes) -> None:
        """Have the thread carry the beginning."""
        takes, self.target.takes = self.target.takes, lambda: False
        self.send(data)
        self.catch_up()
        self.target.takes = takes

    def catch_up(self) -> None:
        eventually(lambda: self.stream.lag == 0, "never: the stream has caught up")

    def finish(self) -> None:
        """Do what a commit does."""
        file, done = self.stream.finish()
        if done < self.end:
            file.write(self.spool.pread(done, self.end - done))


@pytest.fixture
def target() -> Target:
    return Target()


@pytest.fixture
def sending(tmp_path: Path, target: Target) -> Iterator[Sending]:
    sending = Sending(tmp_path, target)
    yield sending
    target.may_write.set()
    sending.stream.cancel()
    sending.spool.close()


def test_the_writer_itself_hands_on_what_follows(sending: Sending, target: Target) -> None:
    sending.begin(b"a" * PIECE)
    for letter in (b"b", b"c", b"d"):
        sending.send(letter * PIECE)
        assert target.content.endswith(letter), "it is there already"
    assert target.by == ["write in sftp-stream"] + ["write_now in the writer"] * 3
    sending.finish()
    assert target.content == b"".join(letter * PIECE for letter in (b"a", b"b", b"c", b"d"))


def test_nothing_overtakes_what_the_thread_has_still_to_carry(sending: Sending, target: Target) -> None:
    content = os.urandom(20 * PIECE)
    target.may_write.clear()
    target.takes = lambda: False
    sending.send(content[:PIECE])
    target.takes = lambda: True
    for offset in range(PIECE, len(content) // 2, PIECE):
        sending.send(content[offset : offset + PIECE])
    assert target.by == []
    target.may_write.set()
    sending.catch_up()
    for offset in range(len(content) // 2, len(content), PIECE):
        sending.send(content[offset : offset + PIECE])
    assert target.by[-1] == "write_now in the writer"
    sending.finish()
    assert target.content == content


def test_what_is_not_taken_is_carried_and_then_it_goes_on_at_once(sending: Sending, target: Target) -> None:
    content = os.urandom(6 * PIECE)
    sending.begin(content[:PIECE])
    target.takes = lambda: False
    sending.send(content[PIECE : 2 * PIECE])
    sending.catch_up()
    assert target.by == ["write in sftp-stream"] * 2
    target.takes = lambda: True
    for offset in range(2 * PIECE, len(content), PIECE):
        sending.send(content[offset : offset + PIECE])
    assert target.by[2:] == ["write_now in the writer"] * 4
    sending.finish()
    assert target.content == content


def test_what_is_about_to_change_is_not_carried(sending: Sending, target: Target) -> None:
    target.may_write.clear()
    target.takes = lambda: False
    sending.send(b"a" * PIECE)
    eventually(lambda: sending.stream._taken == PIECE, "never: the thread has begun")
    sending.send(b"b" * PIECE)
    assert not sending.stream.retract(PIECE - 1), "this has been carried"
    assert sending.stream.retract(PIECE + 10)
    target.may_write.set()
    sending.catch_up()
    assert target.content == b"a" * PIECE + b"b" * 10
    sending.spool.truncate(PIECE + 10)
    sending.end = PIECE + 10
    sending.send(b"c" * PIECE)
    sending.catch_up()
    sending.finish()
    assert target.content == b"a" * PIECE + b"b" * 10 + b"c" * PIECE


@pytest.mark.parametrize("seed", range(5))
def test_every_byte_arrives_once_whoever_carries_it(sending: Sending, target: Target, seed: int) -> None:
    chance = random.Random(seed)
    content = chance.randbytes(300 * PIECE)
    target.takes = lambda: chance.random() < 0.7
    offset = 0
    while offset < len(content):
        size = chance.randrange(1, 3 * PIECE)
        sending.send(content[offset : offset + size])
        offset += size
        if chance.random() < 0.3:
            sending.catch_up()
    sending.finish()
    assert target.content == content
    assert len({how.split()[0] for how in target.by}) == 2, "both ways were taken"


def test_what_the_file_refuses_at_once_is_told_and_discarded(sending: Sending, target: Target) -> None:
    sending.begin(b"a" * PIECE)
    target.fault = errors.InsufficientStorage("/f")
    sending.send(b"b" * PIECE)
    assert sending.stream.error is target.fault
    target.fault = None
    sending.send(b"c" * PIECE)
    eventually(lambda: target.is_aborted, "never: the file is discarded")
    assert target.content == b"a" * PIECE, "nothing follows what is missing"
    with pytest.raises(errors.InsufficientStorage):
        sending.stream.finish()


def test_nothing_is_handed_on_after_the_end(sending: Sending, target: Target) -> None:
    sending.begin(b"a" * PIECE)
    sending.stream.cancel()
    sending.send(b"b" * PIECE)
    eventually(lambda: target.is_aborted, "never: the file is discarded")
    assert target.content == b"a" * PIECE


def test_a_file_without_the_ability_is_carried_to(tmp_path: Path) -> None:
    plain = io.BytesIO()
    sending = Sending(tmp_path, plain)  # type: ignore[arg-type]
    for letter in (b"a", b"b"):
        sending.send(letter * PIECE)
        sending.catch_up()
    sending.finish()
    assert plain.getvalue() == b"a" * PIECE + b"b" * PIECE
    sending.spool.close()


def test_what_the_storage_has_by_and_by_is_looked_at_while_nothing_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is noted of it is what a gateway that is killed can go on with; after a while nothing changes any more."""
    monkeypatch.setattr(stream, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(stream, "MOST_LOOKS", 5)
    looks: list[int] = []
    spool = Spool(tmp_path, Quota(10**9), memory_limit=10 * PIECE)
    target = Target()
    sending = Stream(spool, lambda: target, on_progress=lambda: looks.append(len(target.content)))
    eventually(lambda: len(looks) == 5)
    for end in (PIECE, 2 * PIECE):
        spool.write(end - PIECE, bytes(PIECE))
        sending.extend(end)
        eventually(lambda end=end: looks.count(end) == 6)  # type: ignore[misc]
    assert sending.finish()[1] == 2 * PIECE
    assert len(looks) == 5 + 6 + 6 + 1, "it looked on for ever"
    spool.close()
