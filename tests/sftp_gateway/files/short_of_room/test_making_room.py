"""Where there is no room for more of an upload: who makes some, who is held back, and who is refused."""

from __future__ import annotations

import errno
import threading
from collections import deque
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sftp_gateway.files import freeing, spool, stream
from sftp_gateway.files.tree import TreeLimits
from sftp_gateway.requests import replies
from sftp_gateway.sftp.packets import Kind
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.files.short_of_room.telling_fs import (
    CONTENT,
    MIB,
    ONLY_FORWARD,
    PIECE,
    QUOTA,
    TellingFS,
    on_disk,
    send,
    thinned,
)
from tests.sftp_gateway.raw_client import C, R, T, W, a
from tests.sftp_gateway.without_doors import Serving, spool_files


def test_a_disk_that_cannot_do_it_has_the_room_it_has(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    monkeypatch.setattr(spool, "punch", lambda _fd, _start, end: bool(tries.append(end)))
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    send(serving, client, handle, CONTENT[:QUOTA])
    assert "used up" in client.wait(client.write(handle, QUOTA, b"x")).text
    assert len(tries) == 1
    session.cut()
    client = serving.raw()
    assert client.wait(client.stat("/f")).attributes.size == QUOTA - 1, "it cannot be continued any more"


def test_a_full_disk_is_no_end_either(serving: Serving, storage: TellingFS, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.tree.store.quota.limit = 100 * QUOTA
    write = spool._write_all

    def write_all(fd: int, data: Any, offset: int) -> None:
        if on_disk(serving) + len(data) > QUOTA:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(fd, data, offset)

    monkeypatch.setattr(spool, "_write_all", write_all)
    session = serving.session()
    client = session.raw()
    send(serving, client, client.opened("/cut off", W | C | T), CONTENT[: 2 * MIB])
    session.cut()
    client = serving.raw()
    handle = thinned(client, serving)
    assert client.wait(client.close(handle)).ok
    assert storage.readbytes("/f") == CONTENT
    assert client.wait(client.stat("/cut off")).attributes.size == 2 * MIB - 1, "it was dropped without need"


def test_who_has_sent_enough_for_now_makes_room_for_others(serving: Serving, storage: TellingFS) -> None:
    client = serving.raw()
    first = client.opened("/first", W | R | C | T)
    send(serving, client, first, CONTENT[: QUOTA // 2])
    second = client.opened("/second", W | C | T)
    with storage.stalled("write", "/second"):
        for offset in range(0, QUOTA * 3 // 4, PIECE):
            assert client.wait(client.write(second, offset, CONTENT[offset : offset + PIECE])).ok
        assert ONLY_FORWARD in client.wait(client.read(first, 0, 100)).text
    for handle in (first, second):
        assert client.wait(client.close(handle)).ok
    assert storage.readbytes("/first") == CONTENT[: QUOTA // 2]
    assert storage.readbytes("/second") == CONTENT[: QUOTA * 3 // 4]


def test_who_is_faster_than_the_storage_is_held_back_before_there_is_no_room(
    serving: Serving, storage: TellingFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(replies, "HOLD_SECONDS", 0.5)
    storage.most_stored = MIB  # all is handed on, and on its way
    client = serving.raw()
    handle = client.opened("/f", W | C | T)
    unanswered: deque[int] = deque()
    (channel,) = serving.sessions[0].channels
    for offset in range(0, len(CONTENT), PIECE):
        unanswered.append(client.write(handle, offset, CONTENT[offset : offset + PIECE]))
        if len(unanswered) == 8:  # as many as clients send ahead
            if channel._replies.held:
                storage.most_stored += 2 * MIB
            assert client.wait(unanswered.popleft()).ok
            assert serving.tree.store.quota.used <= QUOTA
    assert storage.most_stored > MIB, "nothing was held back"
    assert all(reply.ok for reply in client.all(list(unanswered)))
    assert client.wait(client.close(handle)).ok
    assert storage.readbytes("/f") == CONTENT


def test_nobody_is_held_back_for_what_makes_no_room(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose beginning is missing is not sent on, and stays here until it is closed."""
    monkeypatch.setattr(replies, "HOLD_SECONDS", 3600.0)
    client = serving.raw()
    handle = client.opened("/f", W | C | T)
    for offset in range(1, QUOTA - PIECE, PIECE):
        assert client.wait(client.write(handle, offset, CONTENT[offset : offset + PIECE])).ok


def test_nobody_is_held_back_by_a_storage_that_does_not_tell_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes no room before the end."""
    monkeypatch.setattr(replies, "HOLD_SECONDS", 3600.0)
    with closing(Serving(AtomicFS(), tmp_path, limits=TreeLimits(spool_quota=QUOTA))) as serving:
        client = serving.raw()
        handle = client.opened("/f", W | C | T)
        for offset in range(0, QUOTA, PIECE):
            assert client.wait(client.write(handle, offset, CONTENT[offset : offset + PIECE])).ok
        assert client.wait(client.close(handle)).ok


def test_what_makes_room_has_made_it(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the next would be dropped, too, before the first is gone."""
    session = serving.session()
    client = session.raw()
    send(serving, client, client.opened("/f", W | C | T), CONTENT[: 2 * MIB])
    session.cut()
    (partial,) = spool_files(serving)
    monkeypatch.setattr(freeing, "LARGE_BYTES", MIB)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail(f"{thread} is not waited for"))
    assert serving.tree.store.drafts.make_room()
    assert not partial.exists()


def test_zeros_that_nobody_sent_are_bounded_all_the_same(serving: Serving) -> None:
    client = serving.raw()
    handle = thinned(client, serving)
    far = len(CONTENT) + QUOTA
    refusal = client.wait(client.write(handle, far + 1, b"x"))
    assert "would be used up" in refusal.text
    assert client.wait(client.fsetstat(handle, size=far)).ok
    assert not client.wait(client.fsetstat(handle, size=far + 1)).ok


@pytest.mark.parametrize(("resumable", "write_back"), [(False, False), (False, True), (True, True), (True, False)])
def test_a_size_that_is_told_ahead_is_refused_where_it_cannot_be_passed_on(
    storage: TellingFS, tmp_path: Path, resumable: bool, write_back: bool
) -> None:
    storage._meta["resumable_uploads"] = resumable
    serving = Serving(storage, tmp_path, limits=TreeLimits(spool_quota=QUOTA))
    session = serving.session()
    session.view.write_back = write_back
    client = session.raw()
    reply = client.wait(client.open("/f", W | C, a(size=QUOTA + 1)))
    if resumable and not write_back:
        assert reply.kind == Kind.HANDLE
    else:
        assert "larger than" in reply.text
    serving.close()
