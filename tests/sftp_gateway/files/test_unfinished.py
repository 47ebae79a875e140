"""What a client could not write completely never becomes visible, whatever the client then does with it."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fs_dropbox.emulator import Emulator
from sftp_gateway.files import draft as draft_module
from sftp_gateway.files import drafts, notes
from sftp_gateway.files.handles import WriteHandle
from sftp_gateway.files.store import Store
from sftp_gateway.files.tree import TreeLimits, TreeView
from sftp_gateway.sftp.packets import Attributes
from sftp_gateway.sftp.status import RefusedError
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.conftest import ServeDropbox
from tests.sftp_gateway.raw_client import A, C, R, RawClient, T, W
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import eventually

QUOTA = 100_000


@pytest.fixture
def serving(serve_dropbox: ServeDropbox) -> Serving:
    return serve_dropbox(TreeLimits(spool_quota=QUOTA))


def cut_off(serving: Serving) -> RawClient:
    """Cut off an upload of 1,000 bytes to /f; return another client, once what arrived of it is kept."""
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    assert client.wait(client.write(handle, 0, b"x" * 1000)).ok
    session.cut()
    client = serving.raw()
    eventually(lambda: client.wait(client.stat("/f")).attributes.size == 999, "never: the upload is kept")
    return client


@pytest.mark.parametrize("then", ["close", "write_on", "begin_again", "cut_back"])
def test_a_file_of_which_a_write_failed_is_not_committed(serving: Serving, emulator: Emulator, then: str) -> None:
    emulator.control.seed("/f", b"old")
    client = serving.raw()
    handle = client.opened("/f", W | C | T)
    assert client.wait(client.write(handle, 0, b"x" * 60_000)).ok
    assert "used up" in client.wait(client.write(handle, 60_000, b"x" * 60_000)).text
    if then == "write_on":
        assert client.wait(client.write(handle, 80_000, b"y")).ok
    if then == "begin_again":  # of what failed, not all is sent again
        assert client.wait(client.write(handle, 60_000, b"x" * 10_000)).ok
    if then == "cut_back":
        client.wait(client.fsetstat(handle, size=60_000))
    reply = client.wait(client.close(handle))
    assert not reply.ok
    assert "used up" in reply.text
    assert emulator.control.read("/f") == b"old"
    assert client.get("/f") == b"old"
    assert serving.tree.store.quota.used == 0


def test_a_write_that_failed_can_be_sent_again(serving: Serving, emulator: Emulator) -> None:
    client = serving.raw()
    other = client.opened("/other", W | C | T)
    assert client.wait(client.write(other, 0, b"o" * 60_000)).ok
    handle = client.opened("/f", W | C | T)
    assert not any(client.wait(client.write(handle, offset, b"x" * 60_000)).ok for offset in (0, 30_000))
    assert client.wait(client.close(other)).ok
    for offset, data in ((0, b"x" * 20_000), (60_000, b"x" * 30_000), (20_000, b"x" * 40_000)):  # in other pieces
        assert client.wait(client.write(handle, offset, data)).ok
    assert client.wait(client.close(handle)).ok
    assert emulator.control.read("/f") == b"x" * 90_000


def test_an_upload_that_was_cut_off_after_a_write_failed_can_be_continued(serving: Serving, emulator: Emulator) -> None:
    """Whoever goes on sends what failed in pieces of its own."""
    session = serving.session()
    client = session.raw()
    handle = client.opened("/f", W | C | T)
    assert client.wait(client.write(handle, 0, b"x" * 60_000)).ok
    assert not client.wait(client.write(handle, 60_000, b"x" * 60_000)).ok
    session.cut()
    client = serving.raw()
    eventually(lambda: client.wait(client.stat("/f")).attributes.size == 59_999, "never: the upload is kept")
    handle = client.opened("/f", W)
    pieces = [client.write(handle, offset, b"y" * 5001) for offset in (59_999, 65_000)]
    assert all(reply.ok for reply in client.all([*pieces, client.close(handle)])), client.replies
    assert emulator.control.read("/f") == b"x" * 59_999 + b"y" * 10_002


def test_what_was_written_last_counts_be_it_cut_off_or_not(serving: Serving, emulator: Emulator) -> None:
    """Of the earlier upload nobody may have noticed yet that its client is gone."""
    client, session = serving.raw(), serving.session()
    handle = client.opened("/f", W | C | T)
    assert client.wait(client.write(handle, 0, b"x" * 1000)).ok
    other = session.raw()
    assert other.wait(other.write(other.opened("/f", W | C | T), 0, b"y" * 500)).ok
    session.cut()
    eventually(lambda: serving.tree.store.quota.used == 1499, "never: the later upload is kept")
    assert client.wait(client.stat("/f")).attributes.size == 499
    assert client.wait(client.write(handle, 1000, b"x")).ok
    assert client.wait(client.stat("/f")).attributes.size == 1001
    assert client.list("/")["f"].size == 1001
    appending = client.opened("/f", W)
    assert client.wait(client.write(appending, 1001, b"x")).ok
    assert all(reply.ok for reply in client.all([client.close(appending), client.close(handle)]))
    assert emulator.control.read("/f") == b"x" * 1002


def test_what_is_older_than_what_was_cut_off_is_not_gone_on_with(serving: Serving) -> None:
    """Of three uploads of one file: another goes on, and one that has come between them does not."""
    client, other, session = serving.raw(), serving.raw(), serving.session()
    handle = client.opened("/f", W | C | T)
    other.opened("/f", W | C | T)
    third = session.raw()
    assert third.wait(third.write(third.opened("/f", W | C | T), 0, b"y" * 500)).ok
    session.cut()
    eventually(lambda: other.wait(other.stat("/f")).attributes.size == 499, "never: the upload is kept")
    assert client.wait(client.write(handle, 0, b"x" * 1000)).ok
    assert other.wait(other.stat("/f")).attributes.size == 1000


def test_what_is_written_for_days_is_kept_from_its_last_byte_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its note is as old as its first mebibyte when the gateway is killed; a copy of the folder is what is left."""
    store = Store(AtomicFS(), spool_directory=tmp_path / "spool", limits=TreeLimits())
    with monkeypatch.context() as patched:
        patched.setattr(draft_module, "time", SimpleNamespace(time=lambda: time.time() - 2 * 86400))
        handle = object()
        long = store.open_for_writing("/f", W | C | T, object(), handle)
        long.write(0, bytes(2**20 + 1))
        noted = [file.read_bytes() for file in (tmp_path / "spool").glob("*.json")]
    long.write(2**20 + 1, b"more")
    assert noted == [file.read_bytes() for file in (tmp_path / "spool").glob("*.json")]
    shutil.copytree(tmp_path / "spool", tmp_path / "left")
    store.close()
    later = Store(AtomicFS(), spool_directory=tmp_path / "left", limits=TreeLimits())
    later.drafts.sweep()
    assert later.looking.stat("/f").size == 2**20 + 4
    later.close()


def test_what_is_gone_on_with_outlives_kill_9_but_for_its_last_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "NOTE_SECONDS", 0.0)
    store = Store(AtomicFS(), spool_directory=tmp_path / "spool", limits=TreeLimits())
    first, second = object(), object()
    draft = store.open_for_writing("/f", W | C | T, object(), first)
    draft.write(0, b"x" * 1000)
    store.abandon(draft, first)
    store.open_for_writing("/f", W, object(), second).write(999, b"x" * 1000)
    shutil.copytree(tmp_path / "spool", tmp_path / "left")
    store.close()
    later = Store(AtomicFS(), spool_directory=tmp_path / "left", limits=TreeLimits())
    assert later.looking.stat("/f").size == 1998
    later.close()


def test_nobody_goes_on_with_the_beginning_of_another_upload(serving: Serving, emulator: Emulator) -> None:
    """The file was changed and sent once more, of which the gateway hears before it misses the first client."""
    sessions = serving.session(), serving.session()
    for session, content in zip(sessions, (b"x" * 1000, b"y" * 500), strict=True):
        client = session.raw()
        assert client.wait(client.write(client.opened("/f", W | C | T), 0, content)).ok
    client = serving.raw()
    for session in reversed(sessions):
        session.cut()
        eventually(lambda: client.wait(client.stat("/f")).attributes.size == 499, "never: the later one is shown")
    handle = client.opened("/f", W)
    assert all(reply.ok for reply in client.all([client.write(handle, 499, b"y" * 501), client.close(handle)]))
    assert emulator.control.read("/f") == b"y" * 1000


def test_of_two_uploads_of_one_file_that_were_cut_off_the_later_is_kept(serving: Serving) -> None:
    sessions = [serving.session(), serving.session()]
    for session, size in zip(sessions, (1000, 500), strict=True):
        client = session.raw()
        handle = client.opened("/f", W | C | T)
        assert client.wait(client.write(handle, 0, b"x" * size)).ok
    for session in sessions:
        session.cut()
    assert serving.tree.store.quota.used == 499, "the earlier one is kept, too"
    client = serving.raw()
    assert client.wait(client.stat("/f")).attributes.size == 499


@pytest.mark.parametrize("who", ["another user", "a day later", "after it was sent anew"])
def test_who_does_not_go_on_with_what_was_cut_off_adds_to_the_old_version(
    serving: Serving, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """As a program does that adds to a log."""
    view = serving.tree.view(user="ann")
    put(view, W | C | T, b"old")
    view.open("/f", W | C | T, Attributes()).abort()
    if who == "another user":
        view = serving.tree.view(user="log")
    elif who == "after it was sent anew":
        put(view, W | C | T, b"old")
    else:
        begun = time.monotonic()
        for hours in (1, 23):
            clock = SimpleNamespace(monotonic=lambda hours=hours: begun + hours * 3600, time=time.time)
            monkeypatch.setattr(drafts, "time", clock)
            with pytest.raises(RefusedError, match="upload the whole file again"):
                put(view, W | C | A, b"+")
        clock.monotonic = lambda: begun + 25 * 3600
    put(view, W | C | A, b"+")
    assert emulator.control.read("/f") == b"old+"


def put(view: TreeView, flags: int, content: bytes) -> None:
    """Write /f, with a time, as `put -p` does: sent once more, it looks as before."""
    handle = view.open("/f", flags, Attributes())
    assert isinstance(handle, WriteHandle)
    handle.write(0, content)
    handle.set_modified(1_500_000_000.0)
    handle.close()


def test_setting_the_size_of_a_cut_off_upload_does_not_commit_it(serving: Serving, emulator: Emulator) -> None:
    client = cut_off(serving)
    assert "not finished" in client.wait(client.setstat("/f", size=500)).text
    assert not emulator.control.exists("/f")
    assert client.wait(client.stat("/f")).attributes.size == 999
    assert client.wait(client.setstat("/f", size=0)).ok, "an empty file is complete"
    assert emulator.control.read("/f") == b""


def test_a_cut_off_upload_is_not_renamed_as_if_it_were_a_file(serving: Serving, emulator: Emulator) -> None:
    client = cut_off(serving)
    for rename in (client.rename, client.posix_rename):
        assert "not finished" in client.wait(rename("/f", "/g")).text
    assert client.wait(client.stat("/f")).attributes.size == 999
    assert not emulator.control.tree()


def test_who_reads_what_is_being_written_reads_on_after_its_close(serving: Serving) -> None:
    client = serving.raw()
    writing = client.opened("/f", W | C | T)
    assert client.wait(client.write(writing, 0, b"content")).ok
    reading = client.opened("/f", R)
    assert client.wait(client.read(reading, 0, 3)).data == b"con"
    assert client.wait(client.close(writing)).ok
    assert client.wait(client.read(reading, 3, 100)).data == b"tent"
    assert client.wait(client.fstat(reading)).attributes.size == 7
    assert client.wait(client.close(reading)).ok


def test_who_reads_what_was_removed_while_it_was_written_is_told(serving: Serving) -> None:
    client = serving.raw()
    writing = client.opened("/f", W | C | T)
    assert client.wait(client.write(writing, 0, b"content")).ok
    reading = client.opened("/f", R)
    assert client.wait(client.remove("/f")).ok
    reply = client.wait(client.read(reading, 0, 3))
    assert not reply.data
    assert not reply.ok


def test_a_cut_off_upload_is_kept_for_its_time_only(serve_dropbox: ServeDropbox, tmp_path: Path) -> None:
    serving = serve_dropbox(TreeLimits(partial_seconds=0.0, spool_memory=10))
    client = cut_off(serving)
    client.put("/other", b"")
    assert not client.wait(client.stat("/f")).attributes.size
    assert list((tmp_path / "spool").iterdir()) == []


def test_nobody_else_may_read_what_is_kept(serving: Serving, tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        session = serving.session()
        client = session.raw()
        handle = client.opened("/secret name", W | C | T)
        assert client.wait(client.write(handle, 0, b"x" * 1000)).ok
        session.cut()
        client = serving.raw()
        eventually(lambda: len(list((tmp_path / "spool").iterdir())) == 2, "never: the upload and its note are kept")
    finally:
        os.umask(mask)
    modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "spool").iterdir()}
    assert modes == {".spool": 0o600, ".json": 0o600}
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700
