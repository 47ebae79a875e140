"""What was once stored wrongly, or could not be read as it was written, whatever else happened at that moment."""

from __future__ import annotations

import errno
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fs import errors
from fs.base import FS
from fs.memoryfs import MemoryFS

from sftp_gateway.files import draft as drafts
from sftp_gateway.files import forwarding, plain_upload, spool, storing, stream
from sftp_gateway.files.draft import Draft
from sftp_gateway.files.handles import WriteHandle
from sftp_gateway.files.names import Names
from sftp_gateway.files.store import Store, TreeLimits
from sftp_gateway.files.tree import Tree
from sftp_gateway.sftp.packets import Attributes, OpenFlag
from sftp_gateway.sftp.status import RefusedError
from tests.sftp_gateway.atomic_fs import AtomicFS, PendingFile
from tests.sftp_gateway.files.lagging_fs import LaggingFS, Traits
from tests.sftp_gateway.files.writing_world import threads
from tests.sftp_gateway.raw_client import C, T, W
from tests.sftp_gateway.without_doors import Serving
from tests.waiting import eventually

NEW = OpenFlag.WRITE | OpenFlag.CREAT | OpenFlag.TRUNC


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "STREAM_FROM_BYTES", 20)
    monkeypatch.setattr(spool, "PAGE_BYTES", 1)
    for module in (storing, stream, plain_upload):
        monkeypatch.setattr(module, "PIECE_BYTES", 10)


def test_who_ends_amid_a_commit_stores_no_part(store: Store, filesystem: AtomicFS) -> None:
    """What is kept to be continued is less than what is being stored."""
    handle, told = object(), list[Exception]()
    draft = store.open_for_writing("/f", NEW, "session", handle)
    draft.write(0, b"x" * 7)
    draft.truncate(50)

    def commit() -> None:
        try:
            store.commit(draft, handle)
        except RefusedError as error:
            told.append(error)

    thread = threading.Thread(target=commit)
    with filesystem.stalled("write", "/f"):
        thread.start()
        eventually(lambda: filesystem.happened("write"))
        store.close()
    thread.join()
    assert told
    assert not filesystem.exists("/f")


def test_who_ends_amid_a_plain_commit_tells_of_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(MemoryFS(), spool_directory=tmp_path, limits=TreeLimits())
    handle = object()
    draft = store.open_for_writing("/f", NEW, "session", handle)
    draft.write(0, b"x" * 50)
    read = draft.read

    def ends(offset: int, size: int) -> bytes:
        if offset == 30:
            assert draft.keep()
        return read(offset, size)

    monkeypatch.setattr(draft, "read", ends)
    with pytest.raises(RefusedError):
        store.commit(draft, handle)
    store.close()


@pytest.mark.parametrize("kind", [AtomicFS, MemoryFS])
def test_what_another_handle_cuts_off_amid_a_commit_does_not_come_back(
    tmp_path: Path, kind: Callable[[], FS], monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem = kind()
    store = Store(filesystem, spool_directory=tmp_path, limits=TreeLimits())
    first, second = object(), object()
    draft = store.open_for_writing("/f", NEW, "session", first)
    assert store.open_for_writing("/f", OpenFlag.WRITE, "session", second) is draft
    draft.write(0, b"x" * 50)
    read = draft.read

    def cuts(offset: int, size: int) -> bytes:
        piece = read(offset, size)
        if offset == 40:
            draft.truncate(0)
            draft.write(30, b"y")
        return piece

    with monkeypatch.context() as patched:
        patched.setattr(draft, "read", cuts)
        store.commit(draft, first)
    assert draft.read(0, 100) == bytes(30) + b"y"
    store.commit(draft, second)
    assert filesystem.readbytes("/f") == bytes(30) + b"y"
    assert store.quota.used == 0


class KnowingFile(PendingFile):
    """Has all that it was given for certain, and goes on with that."""

    def checkpoint(self) -> tuple[str, int]:
        return self._content.hex(), len(self._content)

    def begin(self, known: bytes) -> None:
        self._content[:] = known
        self._skip = len(known)

    def write(self, data: Any) -> int:
        fresh = data[self._skip :]
        self._skip -= len(data) - len(fresh)
        super().write(fresh)
        return len(data)


class KnowingFS(AtomicFS):
    """A storage with resumed uploads."""

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, *, resume: str = "", **options: Any) -> Any:
        file = super().openbin(path, mode, buffering, **options)
        if isinstance(file, PendingFile):
            file.__class__ = KnowingFile
            file.begin(bytes.fromhex(resume))  # type: ignore[attr-defined]
        return file


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("then", ["closed", "lengthened"])
def test_what_the_storage_has_beyond_what_is_gone_on_with_is_not_stored(
    tmp_path: Path, restarts: bool, then: str
) -> None:
    """Of an upload that was cut off the last byte is not kept: clients would take it for finished."""
    filesystem = KnowingFS()
    store = Store(filesystem, spool_directory=tmp_path, limits=TreeLimits())
    content = bytes(range(1, 51))
    handle = object()
    draft = store.open_for_writing("/f", NEW, "session", handle)
    draft.write(0, content)
    eventually(lambda: draft.forwarding.checkpoint == (content.hex(), 50), "never: the storage has it all")
    if restarts:
        file = draft.spool.to_disk()
        store.drafts.partials.save(draft, grows=True)
        copy = tmp_path / "copy"
        copy.mkdir()
        for each in (file, file.with_suffix(".json")):
            shutil.copy(each, copy)
        store.close()
        store = Store(filesystem, spool_directory=copy, limits=TreeLimits())
    else:
        store.abandon(draft, handle)
    draft = store.open_for_writing("/f", OpenFlag.WRITE, "successor", handle)
    expected = content[:49]
    if then == "lengthened":
        draft.truncate(60)
        expected += bytes(11)
    store.commit(draft, handle)
    assert filesystem.readbytes("/f") == expected


class UnwillingFS(KnowingFS):
    """Has forgotten what it was sent, or finds that it is of no use: at the first `write`, or right at `open`."""

    def __init__(self, fails: str) -> None:
        super().__init__()
        self.fails = fails
        self.resumed = 0

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, *, resume: str = "", **options: Any) -> Any:
        self.resumed += bool(resume)
        self.faults = {"write": errors.OperationFailed(path)} if resume and self.fails == "write" else {}
        if resume and self.fails == "open":
            raise errors.ResourceNotFound(path)
        return super().openbin(path, mode, buffering, resume=resume, **options)


@pytest.mark.parametrize("fails", ["open", "write"])
def test_what_the_storage_does_not_go_on_with_is_sent_anew(tmp_path: Path, fails: str) -> None:
    filesystem = UnwillingFS(fails)
    store = Store(filesystem, spool_directory=tmp_path, limits=TreeLimits())
    content, handle = bytes(range(1, 51)), object()
    draft = store.open_for_writing("/f", NEW, "session", handle)
    draft.write(0, content)
    eventually(lambda: draft.forwarding.checkpoint == (content.hex(), 50), "never: the storage has it all")
    Names(store).rename("/f", "/g", replace=False)  # what is sent on after that goes to another place
    draft.write(50, b"more")
    eventually(lambda: draft.forwarding._stream and (fails == "open" or draft.forwarding._stream.error))
    draft.write(54, b"end")
    store.commit(draft, handle)
    assert filesystem.readbytes("/g") == content + b"moreend"
    assert filesystem.resumed == 1


def test_what_a_full_disk_took_a_part_of_is_not_there_after_a_restart(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note vouches for all that a spool file holds."""
    draft = store.open_for_writing("/f", NEW, "session", object())
    draft.write(0, b"x" * 30)
    file = draft.spool.to_disk()
    write = spool._write_all

    def write_all(fd: int, data: Any, offset: int) -> None:
        write(fd, bytes(data)[:10], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(spool, "_write_all", write_all)
        with pytest.raises(OSError, match="No space"):
            draft.write(30, b"refused" * 5)
    assert file.stat().st_size == 30


def refused_and_renamed(store: Store, filesystem: AtomicFS, handle: object) -> Draft:
    """Have a WRITE to /f refused, as its storage has failed, and the file renamed to /g when that works again."""
    draft = store.open_for_writing("/f", NEW, "session", handle)
    filesystem.faults["write"] = errors.RemoteConnectionError("/f", msg="gone")
    draft.write(0, b"x" * 30)
    eventually(lambda: draft.forwarding._stream and draft.forwarding._stream.error, "never: the storage fails")
    with pytest.raises(errors.RemoteConnectionError):
        draft.write(30, b"refused")
    filesystem.faults.clear()
    Names(store).rename("/f", "/g", replace=False)
    return draft


def test_what_was_refused_is_not_forgotten_by_a_rename(store: Store, filesystem: AtomicFS) -> None:
    """Which ends the stream that had failed, and begins another."""
    handle = object()
    draft = refused_and_renamed(store, filesystem, handle)
    with pytest.raises(errors.RemoteConnectionError):
        store.commit(draft, handle)
    assert not filesystem.exists("/g")


def test_what_was_refused_can_be_sent_again_after_a_rename(store: Store, filesystem: AtomicFS) -> None:
    handle = object()
    draft = refused_and_renamed(store, filesystem, handle)
    draft.write(30, b"refused")
    store.commit(draft, handle)
    assert filesystem.readbytes("/g") == b"x" * 30 + b"refused"


@pytest.mark.parametrize("memory", [0, 1000])
def test_zeros_that_nobody_sent_are_not_there_after_a_kill(tmp_path: Path, memory: int) -> None:
    """A file that is cut within a gap ends, on disk, before that: a note may vouch for all that its spool holds."""
    kept = spool.Spool(tmp_path, spool.Quota(1000), memory_limit=memory)
    kept.write(0, b"x" * 20)
    kept.write(100, b"y" * 20)
    kept.truncate(70)
    kept.write(0, b"z" * 30)
    assert kept.is_gapless
    assert kept.to_disk().stat().st_size == 30
    kept.close()


def test_what_is_stored_is_not_refused_because_it_cannot_be_opened_again(
    filesystem: AtomicFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = Serving(filesystem, tmp_path)
    client = serving.raw()
    first, second = client.opened("/f", W | C | T), client.opened("/f", W)
    assert client.wait(client.write(first, 0, b"content")).ok

    def refuse(*_: object, **__: object) -> None:
        raise errors.RemoteConnectionError(msg="no answer")

    monkeypatch.setattr(drafts, "Content", refuse)
    assert client.wait(client.close(first)).ok
    assert filesystem.readbytes("/f") == b"content"
    assert "no answer" in client.wait(client.write(second, 0, b"C")).text
    assert "no answer" in client.wait(client.close(second)).text
    assert filesystem.readbytes("/f") == b"content"
    assert client.wait(client.stat("/f")).attributes.size == 7
    serving.close()
    assert serving.tree.store.quota.used == 0


@pytest.mark.parametrize("traits", [Traits(), Traits(versions=False), Traits(atomic=False)], ids=str)
@pytest.mark.parametrize("who", ["others", "nobody", "the session"])
def test_a_change_in_place_replaces_no_version_but_its_own(tmp_path: Path, traits: Traits, who: str) -> None:
    filesystem = LaggingFS(traits, random.Random(0))
    filesystem.writebytes("/old", b"0123456789")
    tree = Tree(filesystem, spool_directory=tmp_path)
    view = tree.view()
    handle = view.open("/old", W, Attributes())
    assert isinstance(handle, WriteHandle)
    handle.write(3, b"abc")
    view.rename("/old", "/file", replace=False)
    handle.write(0, b"012abc6789" * 3)  # enough to be sent ahead
    if who == "the session":
        view.set_attributes("/file", Attributes(mtime=5))
    if who == "others":
        super(LaggingFS, filesystem).commit("/file", b"9876543210")
        with pytest.raises((errors.FSError, RefusedError), match="changed by someone else"):
            handle.close()
    else:
        handle.close()
    assert filesystem.readbytes("/file") == (b"9876543210" if who == "others" else b"012abc6789" * 3)
    eventually(lambda: not threads(), "something is still sent")
    tree.close()
