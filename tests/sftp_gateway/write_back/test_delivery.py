"""How a delivery chooses, sends and compares: bounded groups, each file's own outcome, nothing left behind."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from fs import errors

from sftp_gateway.write_back.delivery import same_content
from sftp_gateway.write_back.vault import Vault
from tests.sftp_gateway.conftest import ServeWriteBack
from tests.sftp_gateway.write_back.remote_fs import RemoteFS, StagedFS, put
from tests.waiting import eventually


class Drip(io.RawIOBase):
    """Gives its content in small pieces, as files of a network may."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._content.read(min(size, 7))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"", b"", True),
        (b"abc", b"abc", True),
        (b"abc", b"abd", False),
        (b"abc", b"abcd", False),  # ours goes on
        (b"abcd", b"abc", False),
        (b"", b"a", False),
        (b"a", b"", False),
        (bytes(2**20), bytes(2**20), True),
        (bytes(2**20), bytes(2**20 + 1), False),
        (bytes(2**20) + b"a", bytes(2**20) + b"b", False),
    ],
)
def test_only_equal_contents_are_the_same(one: bytes, other: bytes, same: bool) -> None:
    assert same_content(io.BytesIO(one), io.BytesIO(other)) is same
    if len(one) < 1000:
        assert same_content(Drip(one * 10), io.BytesIO(other * 10)) is same


class BreakingFS(StagedFS):
    """Says what became of the first file of a group, and then nothing any more, as often as a test wants."""

    breaks = 1

    def commit_files(
        self, files: Iterable[tuple[str, str, datetime, str | None]]
    ) -> Iterator[tuple[int, bool | Exception]]:
        for number, outcome in enumerate(super().commit_files(files)):
            if number == 1 and self.breaks:
                self.breaks -= 1
                raise errors.RemoteConnectionError(msg="the line broke")
            yield outcome


def test_what_the_storage_says_nothing_of_is_sent_again(
    serve_write_back: ServeWriteBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftp_gateway.write_back.refusals.MAX_BACKOFF_SECONDS", 0.05)
    filesystem = BreakingFS()
    serving = serve_write_back(filesystem, delay_seconds=60.0)
    client = serving.client()
    for number in range(4):
        put(client, f"/f{number}", b"content")
    serving.journal.hurry()
    serving.settled()
    assert not serving.pending()
    assert sorted(filesystem.listdir("/")) == ["f0", "f1", "f2", "f3"]
    assert filesystem.happened("bulk")[0] == "4"


def test_a_group_holds_so_many_bytes_at_most(serve_write_back: ServeWriteBack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftp_gateway.write_back.delivery.BULK_BYTES", 25)
    monkeypatch.setattr("sftp_gateway.write_back.delivery.QUIET_SECONDS", 1000.0)
    filesystem = StagedFS()
    filesystem.reachable.clear()
    serving = serve_write_back(filesystem, delay_seconds=60.0)
    client = serving.client()
    with filesystem.stalled("bulk", "2"):
        for number in range(5):
            put(client, f"/f{number}", b"0123456789")
        serving.journal.hurry()
        eventually(lambda: filesystem.happened("bulk") == ["2"], "no group is on its way")
    filesystem.reachable.set()
    serving.journal.hurry()
    serving.settled()
    assert not serving.pending()
    assert {*filesystem.happened("bulk")} == {"2"}


def test_what_nobody_named_is_cleared_away_after_an_hour(tmp_path: Path) -> None:
    old, young = tmp_path / "old.new", tmp_path / "young.new"
    for path in (old, young):
        path.write_bytes(b"of a process that died, or of one that is just making it")
    long_ago = time.time() - 3700
    os.utime(old, (long_ago, long_ago))
    Vault(tmp_path).clear(lambda _name: False)
    assert list(tmp_path.iterdir()) == [young]


def test_what_hangs_in_the_storage_keeps_nobody_from_delivering_once_it_ends(
    storage: RemoteFS, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then, nobody else sends what it may be sending."""
    monkeypatch.setattr("sftp_gateway.write_back.filesystem._STOP_SECONDS", 0.01)
    first = start()
    with storage.stalled("arrival", "/f"):
        put(first.client(), "/f", b"content")
        eventually(lambda: ("arrival", "/f") in storage.calls)
        first.close()
        second = start()
        put(second.client(), "/g", b"content")
        assert first.written_back._delivery.is_mine
        assert not second.written_back._delivery.is_mine
    eventually(lambda: second.written_back._delivery.is_mine, "nobody delivers any more")
    second.settled()
    assert storage.happened("arrival") == ["/f", "/g"]


def test_few_threads_deliver_all_the_same(
    storage: RemoteFS, start: ServeWriteBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name in ("sftp-delivery-1", "sftp-delivery-2"):
            raise RuntimeError("can't start new thread")
        begin(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        serving = start()
    put(serving.client(), "/f", b"content")
    serving.settled()
    assert storage.readbytes("/f") == b"content"
