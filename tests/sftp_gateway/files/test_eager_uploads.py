"""Large uploads that are sent on while they are written, to a storage that takes what it can at once."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from fs import errors
from fs.memoryfs import MemoryFS

from sftp_gateway.files import forwarding
from sftp_gateway.files.store import Store, TreeLimits
from sftp_gateway.sftp.packets import OpenFlag
from tests.sftp_gateway.atomic_fs import AtomicFS, PendingFile
from tests.waiting import eventually

NEW = OpenFlag.WRITE | OpenFlag.CREAT | OpenFlag.TRUNC
MIB = 2**20


class EagerFS(AtomicFS):
    """Its files take all at once, but what `fault_at` forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.fault_at: int | None = None
        self.taken_now = 0

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        file = super().openbin(path, mode, buffering, **options)
        return file if "r" in mode else EagerFile(self, file)


class EagerFile:
    def __init__(self, filesystem: EagerFS, file: PendingFile) -> None:
        self.modified = None
        self._filesystem = filesystem
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write_now(self, data: Any) -> bool:
        at = self._filesystem.fault_at
        if at is not None and self._filesystem.bytes_written >= at:
            raise errors.InsufficientStorage("/f")
        self._filesystem.taken_now += self._file.write(data)
        return True


@pytest.fixture
def filesystem() -> EagerFS:
    return EagerFS()


def test_a_large_upload_goes_on_at_once(store: Store, filesystem: EagerFS) -> None:
    content = os.urandom(9 * MIB)
    handle = object()
    draft = store.open_for_writing("/f", NEW, "session", handle)
    draft.write(0, bytes(content[: 5 * MIB]))
    eventually(lambda: filesystem.bytes_written == 5 * MIB and not draft.forwarding.lag, "never: it is sent on")
    before = filesystem.taken_now
    for offset in range(5 * MIB, len(content), MIB // 4):
        assert draft.write(offset, memoryview(content)[offset : offset + MIB // 4])
    assert filesystem.taken_now == before + 4 * MIB
    store.commit(draft, handle)
    assert filesystem.readbytes("/f") == content
    assert filesystem.bytes_written == len(content)


def test_what_was_handed_on_can_still_be_changed(store: Store, filesystem: EagerFS) -> None:
    content = bytearray(os.urandom(6 * MIB))
    handle = object()
    draft = store.open_for_writing("/f", NEW, "session", handle)
    draft.write(0, bytes(content[: 5 * MIB]))
    eventually(lambda: filesystem.bytes_written == 5 * MIB and not draft.forwarding.lag, "never: it is sent on")
    before = filesystem.taken_now
    draft.write(5 * MIB, bytes(content[5 * MIB :]))
    assert filesystem.taken_now == before + MIB
    content[5 * MIB + 7 : 5 * MIB + 11] = b"HEAD"
    draft.write(5 * MIB + 7, b"HEAD")
    store.commit(draft, handle)
    assert filesystem.readbytes("/f") == content
    assert len(filesystem.commits) == 1


def test_what_is_cut_off_is_not_sent_by_a_storage_that_is_behind(store: Store, filesystem: EagerFS) -> None:
    content, size = os.urandom(6 * MIB), 5 * MIB + 7
    handle = object()
    draft = store.open_for_writing("/f", NEW, "session", handle)
    with filesystem.stalled("open", "/f"):
        draft.write(0, content)
        draft.truncate(size)
    eventually(lambda: draft.forwarding.lag <= 0, "never: the storage has caught up")
    draft.write(size, b"other")
    store.commit(draft, handle)
    assert filesystem.readbytes("/f") == content[:size] + b"other"


def test_what_changes_is_not_sent_just_then(store: Store, filesystem: EagerFS, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(6 * MIB)
    handle = object()
    draft = store.open_for_writing("/f", NEW, "session", handle)
    door = contextlib.ExitStack()
    door.enter_context(filesystem.stalled("open", "/f"))

    def before_write(offset: int) -> None:
        door.close()
        eventually(lambda: filesystem.bytes_written >= offset, "never: it is sent on up to there")

    with door:
        draft.write(0, content)
        monkeypatch.setattr(draft.note, "before_write", before_write)
        draft.write(7, b"changed")
    store.commit(draft, handle)
    assert filesystem.readbytes("/f") == content[:7] + b"changed" + content[14:]
    assert filesystem.bytes_written == len(content), "what was sent could stay"


def test_who_waits_for_the_storage_goes_on_when_the_rest_is_cut_off(
    store: Store, filesystem: EagerFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "LAG_BYTES", 2 * MIB)
    draft = store.open_for_writing("/f", NEW, "session", object())
    goes_on = threading.Event()
    with filesystem.stalled("open", "/f"):
        assert not draft.write(0, os.urandom(6 * MIB))
        draft.pace.when_caught_up(goes_on.set)
        assert not goes_on.is_set()
        draft.truncate(MIB)
        assert goes_on.wait(1)


def test_an_upload_that_fails_at_once_fails(store: Store, filesystem: EagerFS) -> None:
    filesystem.commit("/f", b"old")
    handle = object()
    draft = store.open_for_writing("/f", NEW, "session", handle)
    draft.write(0, bytes(5 * MIB))
    eventually(lambda: filesystem.bytes_written == 5 * MIB and not draft.forwarding.lag, "never: it is sent on")
    filesystem.fault_at = 5 * MIB
    draft.write(5 * MIB, b"x")
    filesystem.fault_at = None
    with pytest.raises(errors.InsufficientStorage):
        draft.write(5 * MIB + 1, b"y")
    with pytest.raises(errors.InsufficientStorage):
        store.commit(draft, handle)
    assert MemoryFS.readbytes(filesystem, "/f") == b"old"
    eventually(lambda: filesystem.happened("abort") == ["/f"], "never: what was sent is discarded")


def test_without_another_thread_everything_is_sent_at_close(
    store: Store, filesystem: EagerFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    content = os.urandom(5 * MIB)
    handle = object()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        draft = store.open_for_writing("/f", NEW, "session", handle)
        draft.write(0, content)
    store.commit(draft, handle)
    assert filesystem.readbytes("/f") == content
    handles = [object() for _ in range(store.limits.streams)]  # none of the streams is gone for good
    drafts = [store.open_for_writing(f"/{number}", NEW, "session", each) for number, each in enumerate(handles)]
    for draft in drafts:
        draft.write(0, content)
    eventually(lambda: filesystem.bytes_written == (1 + len(drafts)) * 5 * MIB, "one of them is not sent on")


def test_whoever_comes_when_enough_are_sent_on_is_sent_on_after_them(store: Store, filesystem: EagerFS) -> None:
    handles = [object() for _ in range(store.limits.streams + 1)]
    drafts = [store.open_for_writing(f"/{number}", NEW, "session", each) for number, each in enumerate(handles)]
    for draft in drafts:
        draft.write(0, bytes(5 * MIB))
    late = drafts[-1]
    assert late.forwarding.lag == 0
    store.commit(drafts[0], handles[0])
    late.write(5 * MIB, bytes(MIB))
    eventually(lambda: filesystem.bytes_written == len(drafts) * 5 * MIB + MIB, "it is not sent on")
    store.commit(late, handles[-1])
    assert filesystem.getsize(late.path) == 6 * MIB


def test_who_cancels_again_and_again_while_the_storage_hangs_has_no_more_threads_than_may_be(
    tmp_path: Path, filesystem: EagerFS
) -> None:
    """Each of them waits for the storage, whatever its client does meanwhile."""
    store = Store(filesystem, spool_directory=tmp_path, limits=TreeLimits(streams=2))
    handle, paths = object(), [f"/{number}" for number in range(6)]
    draft = store.open_for_writing(paths[0], NEW, "session", handle)
    with contextlib.ExitStack() as hangs:
        for path in paths:
            hangs.enter_context(filesystem.stalled("open", path))
            store.overlay.move(draft, path)
            draft.write(draft.size, bytes(5 * MIB))
        threads = [thread for thread in threading.enumerate() if thread.name == "sftp-stream"]
        assert len(threads) == 2
    eventually(lambda: not threads[0].is_alive(), "never: one that was cancelled ends")
    store.commit(draft, handle)
    assert filesystem.getsize(paths[-1]) == len(paths) * 5 * MIB
    store.close()
