"""Uploads over a filesystem with atomic writes: what a CLOSE stores, what is fetched and sent for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, TypeAlias

import pytest
from fs import errors
from fs.memoryfs import MemoryFS

from sftp_gateway.files import forwarding
from sftp_gateway.requests import replies
from sftp_gateway.requests.channel import SFTPChannel
from sftp_gateway.requests.room import ChannelLimits
from sftp_gateway.sftp.packets import Kind, Status
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.raw_client import C, R, RawClient, T, W, X
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import eventually

MIB = 2**20

# -- commit


def test_close_is_the_commit(client: RawClient, filesystem: AtomicFS) -> None:
    handle = client.opened("/f", W | C | T)
    assert client.wait(client.write(handle, 0, b"new")).ok
    assert not MemoryFS.exists(filesystem, "/f")
    with filesystem.stalled("commit", "/f"):
        closing = client.close(handle)
        assert not client.is_answered(closing, within=0.1)
    assert client.wait(closing).ok
    assert filesystem.readbytes("/f") == b"new"


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        (errors.InsufficientStorage("/f"), Status.FAILURE, "quota exceeded"),
        (errors.PermissionDenied("/f"), Status.PERMISSION_DENIED, "permission denied"),
        (errors.RemoteConnectionError(msg="gone"), Status.FAILURE, "the storage cannot be reached"),
        (errors.ResourceError("/f", msg="no"), Status.FAILURE, "no"),
        (
            RuntimeError("secret token 123"),
            Status.FAILURE,
            "internal error (RuntimeError) in close, of which the gateway's log tells more",
        ),
    ],
)
def test_a_commit_that_fails_says_why(
    client: RawClient, filesystem: AtomicFS, fault: Exception, code: int, text: str
) -> None:
    filesystem.writebytes("/f", b"old")
    handle = client.opened("/f", W | C | T)
    client.wait(client.write(handle, 0, b"new"))
    filesystem.faults["commit"] = fault
    reply = client.wait(client.close(handle))
    assert (reply.code, reply.text) == (code, f"/f: {text}")
    assert client.wait(client.close(handle)).code == Status.FAILURE, "the handle is gone"
    assert filesystem.readbytes("/f") == b"old"
    assert client.wait(client.stat("/f")).attributes.size == 3


def test_the_reason_of_an_error_is_passed_on(client: RawClient, filesystem: AtomicFS) -> None:
    fault = errors.InvalidPath("/f", msg="a long explanation")
    fault.reason = "the name is not allowed by Dropbox"  # type: ignore[attr-defined]
    filesystem.faults["commit"] = fault
    handle = client.opened("/f", W | C)
    assert client.wait(client.close(handle)).text == "/f: the name is not allowed by Dropbox"


def test_remove_after_a_failed_upload_is_no_error(client: RawClient, filesystem: AtomicFS) -> None:
    handle = client.opened("/f", W | C)
    filesystem.faults["commit"] = errors.InsufficientStorage("/f")
    assert client.wait(client.close(handle)).code == Status.FAILURE
    filesystem.faults.clear()
    assert client.wait(client.remove("/f")).ok
    assert client.wait(client.remove("/f")).code == Status.NO_SUCH_FILE


def test_names_are_refused_before_a_byte_is_sent(
    client: RawClient, filesystem: AtomicFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> str:
        if "bad" in path:
            raise errors.InvalidPath(path, msg="not allowed")
        return path

    monkeypatch.setattr(filesystem, "validatepath", refuse)
    for request in (client.open("/bad", W | C), client.mkdir("/bad"), client.rename("/x", "/bad")):
        assert client.wait(request).code == Status.FAILURE
    assert filesystem.calls == []


def test_an_in_place_change_does_not_overwrite_a_foreign_one(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/f", b"first")
    handle = client.opened("/f", W)
    client.wait(client.write(handle, 0, b"F"))
    filesystem.writebytes("/f", b"foreign")
    reply = client.wait(client.close(handle))
    assert reply.code == Status.FAILURE
    assert "changed" in reply.text
    assert filesystem.readbytes("/f") == b"foreign"


def test_excl_is_exact_even_if_someone_is_quicker(client: RawClient, filesystem: AtomicFS) -> None:
    handle = client.opened("/f", W | C | X)
    filesystem.writebytes("/f", b"quicker")
    assert client.wait(client.close(handle)).code == Status.FAILURE
    assert filesystem.readbytes("/f") == b"quicker"


def test_one_commit_for_each_upload(client: RawClient, filesystem: AtomicFS) -> None:
    client.put("/f", b"x" * 100_000)
    handle = client.opened("/f", W)
    assert client.wait(client.close(handle)).ok  # nothing was written
    assert filesystem.commits == [("/f", 100_000, None)]
    client.put("/empty", b"")
    assert len(filesystem.commits) == 2


# -- what is fetched and what is sent


def test_scp_of_a_short_file_over_a_long_one_fetches_nothing(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/f", os.urandom(10 * MIB))
    content = os.urandom(MIB)
    handle = client.opened("/f", W | C)
    requests = [client.write(handle, offset, content[offset : offset + 32768]) for offset in range(0, MIB, 32768)]
    requests += [client.fsetstat(handle, size=MIB), client.close(handle)]
    assert all(reply.ok for reply in client.all(requests))
    assert filesystem.readbytes("/f") == content
    assert filesystem.bytes_read == 0
    assert filesystem.happened("pread") == []


def test_an_edit_in_the_middle_fetches_the_old_content_once(client: RawClient, filesystem: AtomicFS) -> None:
    content = bytearray(os.urandom(5 * MIB))
    filesystem.writebytes("/f", bytes(content))
    handle = client.opened("/f", R | W)
    content[2 * MIB : 2 * MIB + 10] = b"0123456789"
    assert client.wait(client.write(handle, 2 * MIB, b"0123456789")).ok
    assert client.wait(client.fsetstat(handle, size=4 * MIB)).ok
    assert client.wait(client.fsetstat(handle, size=4 * MIB + 100)).ok
    assert client.wait(client.close(handle)).ok
    content[4 * MIB :] = bytes(100)
    assert filesystem.readbytes("/f") == content
    assert filesystem.bytes_read <= 4 * MIB
    assert [size for _, size, _ in filesystem.commits] == [5 * MIB, 4 * MIB + 100]


def test_setstat_size_zero_fetches_nothing(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/f", b"x" * MIB)
    assert client.wait(client.setstat("/f", size=0)).ok
    assert filesystem.readbytes("/f") == b""
    assert filesystem.bytes_read == 0


def test_a_large_upload_is_sent_on_while_it_arrives(client: RawClient, filesystem: AtomicFS) -> None:
    content = os.urandom(8 * MIB)
    handle = client.opened("/f", W | C | T)
    for offset in range(0, len(content), 256 * 1024):
        assert client.wait(client.write(handle, offset, content[offset : offset + 256 * 1024])).ok
    eventually(lambda: filesystem.bytes_written == len(content), "never: everything was sent on before CLOSE")
    assert not MemoryFS.exists(filesystem, "/f")
    assert client.wait(client.fsetstat(handle, atime=1, mtime=1_400_000_000)).ok
    assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes("/f") == content
    assert filesystem.bytes_written == len(content)
    path, size, modified = filesystem.commits[0]
    assert (path, size) == ("/f", len(content))
    assert modified is not None
    assert modified.timestamp() == 1_400_000_000


@pytest.mark.parametrize("change", ["rewrite", "truncate", "rename"])
def test_what_was_sent_on_already_can_still_be_changed(client: RawClient, filesystem: AtomicFS, change: str) -> None:
    content = bytearray(os.urandom(6 * MIB))
    handle = client.opened("/f", W | C | T)
    for offset in range(0, len(content), MIB // 4):
        client.wait(client.write(handle, offset, bytes(content[offset : offset + MIB // 4])))
    eventually(lambda: filesystem.bytes_written == len(content), "never: all sent on")
    name = "/f"
    if change == "rewrite":
        content[10:14] = b"HEAD"
        assert client.wait(client.write(handle, 10, b"HEAD")).ok
    elif change == "truncate":
        del content[MIB:]
        assert client.wait(client.fsetstat(handle, size=MIB)).ok
    else:
        name = "/g"
        assert client.wait(client.rename("/f", "/g")).ok
    assert client.wait(client.close(handle)).ok
    assert filesystem.readbytes(name) == content
    eventually(lambda: len(filesystem.happened("abort")) == 1, "never: what was sent in vain is discarded")
    assert [path for path, _, _ in filesystem.commits] == [name]


def test_an_error_while_sending_on_is_told_early(client: RawClient, filesystem: AtomicFS) -> None:
    filesystem.faults["write"] = errors.InsufficientStorage("/f")
    handle = client.opened("/f", W | C | T)
    for offset in range(0, 5 * MIB, MIB // 4):
        client.wait(client.write(handle, offset, bytes(MIB // 4)))
    eventually(lambda: not client.wait(client.write(handle, 5 * MIB, b"x")).ok, "never: a WRITE fails")
    reply = client.wait(client.close(handle))
    assert reply.code == Status.FAILURE
    assert "quota exceeded" in reply.text
    assert not MemoryFS.exists(filesystem, "/f")


class Ahead(NamedTuple):
    """A client that is further ahead of a stalled storage than it may be: answers to it are held back."""

    client: RawClient
    handle: bytes
    channel: SFTPChannel
    writes: list[int]  # of 6 MiB, to the first of which the answers are not held back


BeginAhead: TypeAlias = Callable[..., AbstractContextManager[Ahead]]


@pytest.fixture
def begin_ahead(serving: Serving, filesystem: AtomicFS, monkeypatch: pytest.MonkeyPatch) -> BeginAhead:
    @contextmanager
    def begin(flags: int = W | C | T, *, hold_seconds: float = 3600.0) -> Iterator[Ahead]:
        monkeypatch.setattr(forwarding, "LAG_BYTES", 5 * MIB)
        monkeypatch.setattr(replies, "HOLD_SECONDS", hold_seconds)
        client = serving.raw()
        handle = client.opened("/f", flags)
        (channel,) = serving.sessions[0].channels
        with filesystem.stalled("write", "/f"):
            writes = [client.write(handle, offset, bytes(MIB // 4)) for offset in range(0, 6 * MIB, MIB // 4)]
            yield Ahead(client, handle, channel, writes)

    return begin


def test_a_client_that_waits_for_no_answer_is_slowed_down_too(begin_ahead: BeginAhead) -> None:
    """What it sends after so many WRITEs whose answers are held back is not taken in, and so not kept either."""
    with begin_ahead() as (client, handle, channel, _):
        writes = [client.write(handle, 6 * MIB + number, b"x") for number in range(1000)]
        eventually(lambda: channel._stream.unconsumed > 1000, "everything is taken in")
        assert channel._replies.held <= ChannelLimits().in_flight
    assert all(reply.ok for reply in client.all(writes))
    assert client.wait(client.close(handle)).ok


def test_a_client_that_is_held_back_is_answered_now_and_then(begin_ahead: BeginAhead) -> None:
    """One WRITE after the other: all at once, it would send as many more, and the gateway keep them."""
    with begin_ahead(hold_seconds=0.1) as (client, handle, channel, _):
        writes = [client.write(handle, 6 * MIB + number, b"x") for number in range(200)]
        for write in writes[:2]:
            assert client.wait(write).ok
            assert channel._replies.held > 100
    assert all(reply.ok for reply in client.all(writes[2:]))
    assert client.wait(client.close(handle)).ok


def test_whoever_says_no_more_still_gets_the_answers_that_are_held_back(begin_ahead: BeginAhead) -> None:
    with begin_ahead() as (client, _, channel, writes):
        eventually(lambda: channel._replies.held, "nothing is held back")
        client.channel.shutdown_write()
        assert all(reply.ok for reply in client.all(writes))


def test_little_is_kept_of_what_is_read_behind_answers_that_are_held_back(begin_ahead: BeginAhead) -> None:
    with begin_ahead(R | W | C | T) as (client, handle, channel, _):
        reads = [client.read(handle, 0, MIB // 4) for _ in range(100)]
        eventually(lambda: channel._stalled, "everything is taken in")
        assert channel._replies.held_bytes <= ChannelLimits().output_bytes + MIB
    assert all(reply.data == bytes(MIB // 4) for reply in client.all(reads))
    assert channel._replies.held_bytes == 0
    assert client.wait(client.close(handle)).ok


def test_a_client_that_is_faster_than_the_storage_is_slowed_down(
    client: RawClient, filesystem: AtomicFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "LAG_BYTES", 6 * MIB)
    piece = MIB // 4
    handle = client.opened("/f", W | C | T)
    with filesystem.stalled("write", "/f"):
        early = [client.write(handle, offset, bytes(piece)) for offset in range(0, 5 * MIB, piece)]
        assert all(reply.ok for reply in client.all(early))
        late = [client.write(handle, offset, bytes(piece)) for offset in range(5 * MIB, 8 * MIB, piece)]
        asked = client.fstat(handle)
        assert not client.is_answered(late[-1], within=0.3)
        other = client.wait(client.stat("/"))
        assert other.kind == Kind.ATTRS
    assert all(reply.ok for reply in client.all(late))
    assert client.wait(asked).attributes.size == 8 * MIB
    assert [i for i in client.order if i in (*late, asked)] == [*late, asked], "replies of one handle keep their order"
    assert client.wait(client.close(handle)).ok
    assert MemoryFS.getsize(filesystem, "/f") == 8 * MIB


def test_a_time_that_is_set_by_name_while_a_file_is_written_travels_with_it(
    client: RawClient, filesystem: AtomicFS
) -> None:
    handle = client.opened("/f", W | C | T)
    assert client.wait(client.write(handle, 0, b"content")).ok
    assert client.wait(client.setstat("/f", atime=1000, mtime=1000)).ok
    assert client.wait(client.stat("/f")).attributes.mtime == 1000
    assert client.wait(client.close(handle)).ok
    assert client.wait(client.stat("/f")).attributes.mtime == 1000


def test_a_size_that_cannot_be_leaves_the_file_to_others(serving: Serving, filesystem: AtomicFS) -> None:
    filesystem.writebytes("/f", b"content")
    first, second = serving.raw(), serving.raw()
    assert not first.wait(first.setstat("/f", size=2**60)).ok
    assert second.wait(second.stat("/f")).attributes.size == 7
    assert not serving.tree.store.overlay.all()
    second.put("/f", b"other")
    assert filesystem.readbytes("/f") == b"other"
