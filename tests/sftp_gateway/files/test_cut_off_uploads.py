"""Uploads that end without a CLOSE: the old version stays, what came is kept and can be continued."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from unittest.mock import Mock

import pytest
from fs import errors
from fs.memoryfs import MemoryFS

from sftp_gateway.files.spool import Spool
from sftp_gateway.files.tree import TreeLimits
from sftp_gateway.sftp.packets import Status
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import A, C, R, T, W, a
from tests.sftp_gateway.without_doors import Serving, spool_files
from tests.waiting import eventually

MIB = 2**20

# -- the end without a CLOSE


def test_a_cut_connection_leaves_the_old_version(serving: Serving, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/f", b"good")
    session = serving.session()
    client = session.raw()
    for sent in (1, 100_000, 6 * MIB):
        handle = client.opened("/f", W | C | T)
        for offset in range(0, sent, 32768):
            client.wait(client.write(handle, offset, os.urandom(min(32768, sent - offset))))
    session.cut()
    assert filesystem.readbytes("/f") == b"good"
    assert filesystem.commits == [("/f", 4, None)]
    assert spool_files(serving) == []
    assert [transfer.result for transfer in session.events.transfers] == ["aborted"] * 3
    after = serving.raw()
    assert after.wait(after.stat("/f")).attributes.size == 4


def test_a_close_that_was_sent_counts_even_if_the_client_is_gone(serving: Serving, filesystem: AtomicFS) -> None:
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    with filesystem.stalled("commit", "/f"):
        client.write(handle, 0, b"content")
        client.close(handle)
        eventually(lambda: filesystem.happened("commit") == ["/f"], "never: the commit runs")
        session.socket.close()  # type: ignore[union-attr]
    eventually(lambda: len(filesystem.commits) == 1, "never: the commit is carried out")
    assert filesystem.readbytes("/f") == b"content"


def test_an_upload_that_was_cut_off_can_be_continued(serving: Serving, filesystem: AtomicFS) -> None:
    content = os.urandom(3 * MIB)
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f.filepart", W | C | T, a(size=len(content)))
    for offset in range(0, 2 * MIB, 32768):
        client.wait(client.write(handle, offset, content[offset : offset + 32768]))
    session.cut()
    assert not MemoryFS.exists(filesystem, "/f.filepart")
    client = serving.raw()
    kept = client.wait(client.lstat("/f.filepart")).attributes.size or 0
    assert 2 * MIB - 32768 <= kept < 2 * MIB
    assert client.list("/")["f.filepart"].size == kept
    assert client.wait(client.rename("/f.filepart", "/f")).code == Status.FAILURE
    handle = client.opened("/f.filepart", W | C)
    requests = [
        client.write(handle, offset, content[offset : offset + 32768]) for offset in range(kept, len(content), 32768)
    ]
    requests += [client.close(handle), client.rename("/f.filepart", "/f"), client.lstat("/f")]
    *statuses, found = client.all(requests)
    assert all(reply.ok for reply in statuses)
    assert found.attributes.size == len(content)
    assert filesystem.readbytes("/f") == content


@pytest.mark.parametrize("old", [b"", b"old"], ids=["a new file", "over an old version"])
def test_who_has_seen_more_than_could_be_kept_does_not_go_on(
    serving: Serving, filesystem: AtomicFS, old: bytes
) -> None:
    """It had asked for the size just before: what is missing in between would be zeros."""
    if old:
        filesystem.writebytes("/f", old)
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"0123456789"))
    client = serving.raw()
    seen = client.wait(client.stat("/f")).attributes.size
    assert seen == 10
    session.cut()
    handle = client.opened("/f", W | C)
    assert client.wait(client.write(handle, seen, b"abc")).ok
    assert "upload the whole file again" in client.wait(client.close(handle)).text
    assert filesystem.exists("/f") == bool(old)
    assert not old or filesystem.readbytes("/f") == old


@pytest.mark.parametrize("end", ["cut off at once", "cut off", "refused"])
def test_old_content_is_not_taken_for_the_beginning_of_what_was_to_replace_it(
    serving: Serving, filesystem: AtomicFS, end: str
) -> None:
    """Clients (FileZilla, `reput`) go on behind what is there, and what is there is the old version."""
    filesystem.writebytes("/f", b"old")
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    if end != "cut off at once":
        assert client.wait(client.write(handle, 0, b"0123456789")).ok
    if end == "refused":
        filesystem.faults["commit"] = errors.InsufficientStorage("/f")
        assert not client.wait(client.close(handle)).ok
        filesystem.faults.clear()
    session.cut()
    eventually(lambda: not serving.tree.store.overlay.all(), "never: the gateway notices")
    client = serving.raw()
    for flags in (W, W | C | A):
        handle = client.opened("/f", flags)
        assert client.wait(client.write(handle, 3, b"3456789")).ok
        assert "upload the whole file again" in client.wait(client.close(handle)).text
        assert filesystem.readbytes("/f") == b"old"
    handle = client.opened("/f", W)
    assert all(reply.ok for reply in client.all([client.write(handle, 1, b"L"), client.close(handle)])), "in its place"
    client.put("/f", b"0123")
    handle = client.opened("/f", W | A)
    assert all(reply.ok for reply in client.all([client.write(handle, 0, b"4"), client.close(handle)]))
    assert filesystem.readbytes("/f") == b"01234"


def test_after_an_upload_that_was_cut_off_before_its_first_byte_a_file_may_begin_with_a_gap(
    serving: Serving, filesystem: AtomicFS
) -> None:
    session = serving.session()
    session.raw().opened("/f", W | C | T)
    session.cut()
    client = serving.raw()
    handle = client.opened("/f", W | C)
    assert all(reply.ok for reply in client.all([client.write(handle, 5, b"abc"), client.close(handle)]))
    assert filesystem.readbytes("/f") == b"\0\0\0\0\0abc"


def test_who_goes_on_in_another_order_or_sets_the_size_goes_on(serving: Serving, filesystem: AtomicFS) -> None:
    for path, order in (("/f", (12, 9)), ("/g", ())):
        session = serving.session()
        client = session.raw()
        client.wait(client.write(client.opened(path, W | C | T), 0, b"0123456789"))
        session.cut()
        client = serving.raw()
        handle = client.opened(path, W | C)
        for offset in order:
            assert client.wait(client.write(handle, offset, b"abc")).ok
        assert order or client.wait(client.fsetstat(handle, size=12)).ok
        assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes("/f") == b"012345678abcabc"
    assert filesystem.readbytes("/g") == b"012345678\0\0\0"


@pytest.mark.parametrize("flags", [W | C | A, A])
def test_a_cut_off_upload_is_continued_by_append(serving: Serving, filesystem: AtomicFS, flags: int) -> None:
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"0123456789"))
    session.cut()
    client = serving.raw()
    assert client.wait(client.stat("/f")).attributes.size == 9
    handle = client.opened("/f", flags)
    assert all(reply.ok for reply in client.all([client.write(handle, 0, b"9abc"), client.close(handle)]))
    assert filesystem.readbytes("/f") == b"0123456789abc"


@pytest.mark.parametrize("end", ["remove", "replace", "foreign", "quota", "age"])
def test_a_partial_goes_away(filesystem: AtomicFS, tmp_path: Path, end: str) -> None:
    limits = TreeLimits(spool_quota=1000, partial_seconds=0.0 if end == "age" else 1000.0, spool_memory=10)
    serving = Serving(filesystem, tmp_path / "spool", limits=limits)
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"x" * 600))
    session.cut()
    client = serving.raw()
    if end != "age":
        assert client.wait(client.stat("/f")).attributes.size == 599
    assert len(spool_files(serving)) == 1
    if end == "remove":
        assert client.wait(client.remove("/f")).ok
        assert client.wait(client.stat("/f")).code == Status.NO_SUCH_FILE
    elif end == "replace":
        client.put("/f", b"new")
        assert client.get("/f") == b"new"
    elif end == "foreign":
        filesystem.writebytes("/f", b"theirs")
        assert client.wait(client.stat("/f")).attributes.size == 6
        handle = client.opened("/f", W | C)
        assert client.wait(client.fstat(handle)).attributes.size == 6
        assert client.wait(client.close(handle)).ok
        assert filesystem.readbytes("/f") == b"theirs"
    else:
        client.put("/g", b"y" * 900)
    assert spool_files(serving) == []
    assert serving.tree.store.quota.used == 0
    serving.close()


@pytest.mark.parametrize("why", ["number", "quota", "age"])
def test_nobody_goes_on_with_what_was_not_kept_for_long(filesystem: AtomicFS, tmp_path: Path, why: str) -> None:
    """Of as many as a client likes each would take a descriptor; of one that went, the beginning would be zeros."""
    seconds = 0.0 if why == "age" else 1000.0
    serving = Serving(filesystem, tmp_path, limits=TreeLimits(spool_quota=1000, partials=3, partial_seconds=seconds))
    for path in ("/f", "/g", "/h")[: 1 if why == "age" else 3]:
        session = serving.session()
        client = session.raw()
        client.wait(client.write(client.opened(path, W | C | T), 0, b"0123456789"))
        session.cut()
    client = serving.raw()
    assert client.wait(client.stat("/f")).attributes.size == 9
    if why == "quota":
        client.put("/large", bytes(980))
    elif why == "age":
        client.opened("/other", W | C)
    else:
        session = serving.session()
        other = session.raw()
        other.wait(other.write(other.opened("/i", W | C | T), 0, b"0123456789"))
        session.cut()
    assert client.wait(client.stat("/f")).code == Status.NO_SUCH_FILE
    if why != "age":
        assert client.wait(client.stat("/h")).attributes.size == 9
    handle = client.opened("/f", W | C)
    assert client.wait(client.write(handle, 9, b"9abc")).ok
    assert "upload the whole file again" in client.wait(client.close(handle)).text
    assert not filesystem.exists("/f")
    serving.close()


def test_holes_are_not_kept(serving: Serving) -> None:
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"x" * 50))
    client.wait(client.write(handle, 100, b"y" * 50))
    session.cut()
    client = serving.raw()
    assert client.wait(client.stat("/f")).attributes.size == 49


def test_another_session_takes_an_upload_over(serving: Serving, filesystem: AtomicFS) -> None:
    old, new = serving.raw(), serving.raw()
    stale = old.opened("/f", W | C | T)
    old.wait(old.write(stale, 0, b"01234"))
    size = new.wait(new.stat("/f")).attributes.size or 0
    handle = new.opened("/f", W | C)
    assert new.wait(new.write(handle, size, b"56789")).ok
    assert "goes on with it" in old.wait(old.write(stale, 0, b"XXXXX")).text
    assert old.wait(old.close(stale)).code == Status.FAILURE
    assert new.wait(new.close(handle)).ok
    assert filesystem.readbytes("/f") == b"0123456789"


def test_who_overwrites_what_another_session_writes_has_a_version_of_its_own(
    serving: Serving, filesystem: AtomicFS
) -> None:
    one, other = serving.raw(), serving.raw()
    first, second = one.opened("/f", W | C | T), other.opened("/f", W | C | T)
    assert one.wait(one.write(first, 0, b"the longer one")).ok
    assert other.wait(other.write(second, 0, b"another")).ok
    assert other.wait(other.close(second)).ok
    assert filesystem.readbytes("/f") == b"another"
    assert one.wait(one.close(first)).ok
    assert filesystem.readbytes("/f") == b"the longer one"


def test_who_has_changed_nothing_loses_nothing_to_another_session(serving: Serving, filesystem: AtomicFS) -> None:
    """As of nbdkit, which opens an image for reading and writing once more for each connection."""
    filesystem.writebytes("/f", b"01234")
    one, other = serving.raw(), serving.raw()
    idle = one.opened("/f", R | W)
    handle = other.opened("/f", R | W)
    assert one.wait(one.close(idle)).ok
    assert other.wait(other.write(handle, 5, b"56789")).ok
    late = one.opened("/f", R | W)
    assert one.wait(one.write(late, 0, b"X")).ok
    assert other.wait(other.close(handle)).code == Status.FAILURE
    assert one.wait(one.close(late)).ok
    assert filesystem.readbytes("/f") == b"X123456789"


def test_stop_aborts_what_is_open(serving: Serving, filesystem: AtomicFS) -> None:
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"content"))
    assert session.channels[0].stop(5.0)
    assert filesystem.commits == []
    assert [transfer.result for transfer in session.events.transfers] == ["aborted"]
    with pytest.raises((EOFError, OSError)):
        client.wait(client.stat("/"))


def test_stop_lets_a_commit_end(serving: Serving, filesystem: AtomicFS) -> None:
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    with filesystem.stalled("commit", "/f"):
        client.close(handle)
        eventually(lambda: filesystem.happened("commit") == ["/f"], "never: the commit runs")
        assert not session.channels[0].stop(0.05)
    assert session.channels[0].wait(20)
    assert filesystem.readbytes("/f") == b""


def test_what_no_disk_has_room_for_when_it_is_cut_off_is_let_go(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told that the file is still being written."""
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    assert client.wait(client.write(handle, 0, b"content")).ok
    no_room = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patched:
        patched.setattr(Spool, "to_disk", Mock(side_effect=no_room))
        session.cut()
    assert not serving.tree.store.overlay.all()
    assert session.events.transfers[-1].result == "aborted"
    serving.raw().put("/f", b"other")
