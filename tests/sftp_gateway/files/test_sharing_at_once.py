"""Partial uploads while another process, or another session, does something to the same one at that very moment."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sftp_gateway.files import notes, partials
from sftp_gateway.files.draft import Draft, State
from sftp_gateway.files.spool import Spool
from sftp_gateway.files.store import Store
from sftp_gateway.files.tree import TreeLimits
from sftp_gateway.sftp.status import RefusedError
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.files.lagging_fs import LaggingFS, Traits
from tests.sftp_gateway.files.writing_model import make_small
from tests.sftp_gateway.raw_client import C, T, W
from tests.waiting import eventually

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(AtomicFS(), spool_directory=tmp_path, limits=TreeLimits(shared=True))
    yield store
    store.close()


def written(store: Store, path: str, session: object, handle: object) -> Draft:
    draft = store.open_for_writing(path, W | C | T, session, handle)
    draft.write(0, CONTENT[:1001])
    return draft


def amid_the_note(store: Store, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something happen between an upload's end and the note of it."""
    save = store.drafts.partials.save

    def save_late(draft: Draft, grows: bool = False) -> None:
        monkeypatch.setattr(store.drafts.partials, "save", save)
        act()
        save(draft, grows)

    monkeypatch.setattr(store.drafts.partials, "save", save_late)


def test_what_is_just_being_kept_is_not_taken_for_another_processes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, handle = object(), object()
    draft = written(store, "/file", session, handle)
    amid_the_note(store, monkeypatch, lambda: store.drafts.follow(at_once=True))
    store.abandon(draft, handle)
    assert store.looking.stat("/file").size == 1000


def test_nobody_goes_on_behind_what_another_process_has_dropped(tmp_path: Path) -> None:
    storage, limits = AtomicFS(), TreeLimits(shared=True, partials=1)
    first, second = (Store(storage, spool_directory=tmp_path, limits=limits) for _ in range(2))
    handle, session = object(), object()
    first.abandon(written(first, "/file", session, handle), handle)
    assert second.looking.stat("/file").size == 1000
    first.abandon(written(first, "/later", session, handle), handle)
    draft = second.open_for_writing("/file", W | C, session, handle)
    draft.write(1000, CONTENT[1000:2000])
    with pytest.raises(RefusedError, match="its upload was cut off"):
        second.commit(draft, handle)
    assert not storage.exists("/file")
    first.close()
    second.close()


def test_what_somebody_goes_on_with_at_once_is_not_given_to_other_processes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle, session, successor = object(), object(), object()
    draft = written(store, "/file", object(), handle)
    amid_the_note(store, monkeypatch, lambda: store.open_for_writing("/file", W, session, successor))
    store.abandon(draft, handle)
    assert successor in draft.handles
    other = Store(AtomicFS(), spool_directory=tmp_path, limits=TreeLimits(shared=True))
    try:
        assert not other.overlay.all()
    finally:
        other.close()
    draft.write(1000, CONTENT[1000:])
    store.commit(draft, successor)
    assert store.filesystem.readbytes("/file") == CONTENT


def test_a_full_disk_does_not_keep_a_store_from_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(AtomicFS(), spool_directory=tmp_path, limits=TreeLimits())
    drafts = [written(store, f"/{number}", object(), object()) for number in range(2)]

    def refuse(_: Spool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Spool, "to_disk", refuse)
    store.close()
    assert all(draft.state is State.ENDED for draft in drafts)


def resumed_when(store: Store, monkeypatch: pytest.MonkeyPatch, path: str) -> list[tuple[Draft, object]]:
    """Have somebody go on with what was cut off at a path in the moment in which it has been chosen to be dropped."""
    handle, resumed = object(), list[tuple[Draft, object]]()
    give_up = Draft.give_up

    def late(draft: Draft) -> bool:
        monkeypatch.setattr(Draft, "give_up", give_up)
        resumed.append((store.open_for_writing(path, W, object(), handle), handle))
        return give_up(draft)

    monkeypatch.setattr(Draft, "give_up", late)
    return resumed


@pytest.mark.parametrize("why", ["age", "room", "replaced", "cut off again"])
def test_what_somebody_goes_on_with_is_not_dropped(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    handle, other = object(), object()
    later = written(store, "/file", object(), other) if why == "cut off again" else None
    draft = written(store, "/file" if why != "age" else "/old", object(), handle)
    store.abandon(draft, handle)
    resumed = resumed_when(store, monkeypatch, draft.path)
    if why == "age":
        draft.touched = 0.0
        store.drafts.sweep()
    elif why == "room":
        assert store.drafts.make_room()
    elif why == "replaced":
        store.drafts.drop_partials("/file")
    else:
        assert later is not None
        store.abandon(later, other)
    ((going_on, successor),) = resumed
    assert going_on is draft
    draft.write(1000, CONTENT[1000:])
    store.commit(draft, successor)
    assert store.filesystem.readbytes(draft.path) == CONTENT


def test_what_is_too_old_can_be_gone_on_with_as_long_as_it_is_shown(store: Store) -> None:
    handle, successor = object(), object()
    draft = written(store, "/file", object(), handle)
    store.abandon(draft, handle)
    draft.touched = 0.0
    assert store.looking.stat("/file").size == 1000
    assert store.open_for_writing("/file", W | C, object(), successor) is draft
    draft.write(1000, CONTENT[1000:])
    store.commit(draft, successor)
    assert store.filesystem.readbytes("/file") == CONTENT


def test_what_cannot_be_removed_from_the_disk_is_let_go_of_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for its end."""
    handle = object()
    draft = written(store, "/file", object(), handle)
    store.abandon(draft, handle)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.unlink", refuse)
        with pytest.raises(PermissionError):
            store.drafts.make_room()
    assert draft.state is State.ENDED
    assert not store.overlay.all()
    assert store.open_for_writing("/file", W | C, object(), object()).size == 0


@pytest.fixture
def other(store: Store, tmp_path: Path) -> Iterator[Store]:
    """Another process with the same storage."""
    other = Store(store.filesystem, spool_directory=tmp_path, limits=TreeLimits(shared=True))
    yield other
    other.close()


def before_it_takes_over(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something happen after a process has read a partial's note, and before it locks the file."""
    adopt = Spool.adopt

    def late(spool: Spool, *arguments: Any) -> None:
        monkeypatch.setattr(Spool, "adopt", adopt)
        opened = os.open

        def open_early(path: Any, *rest: Any) -> int:
            monkeypatch.setattr("os.open", opened)
            descriptor = opened(path, *rest)
            act()
            return descriptor

        monkeypatch.setattr("os.open", open_early)
        adopt(spool, *arguments)

    monkeypatch.setattr(Spool, "adopt", late)


def test_what_another_process_drops_just_then_is_not_taken_over(
    store: Store, other: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = object()
    store.abandon(written(store, "/file", object(), handle), handle)
    before_it_takes_over(monkeypatch, store.drafts.make_room)
    other.drafts.follow(at_once=True)
    assert not other.overlay.all()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [3001, 501])
def test_what_another_process_goes_on_with_just_then_is_taken_over_as_it_is_afterwards(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    handle = object()
    store.abandon(written(store, "/file", object(), handle), handle)

    def go_on() -> None:
        draft = store.open_for_writing("/file", W, object(), handle)
        draft.write(1000, CONTENT[1000:3001])
        draft.truncate(size)
        store.abandon(draft, handle)

    before_it_takes_over(monkeypatch, go_on)
    other.drafts.follow(at_once=True)
    assert store.looking.stat("/file").size == other.looking.stat("/file").size == size - 1
    draft = other.open_for_writing("/file", W, object(), handle)
    draft.write(size - 1, CONTENT[size - 1 :])
    other.commit(draft, handle)
    assert store.filesystem.readbytes("/file") == CONTENT


@pytest.mark.parametrize("noted", [False, True])
def test_a_note_that_was_just_being_written_when_its_process_was_killed_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: bool
) -> None:
    """With what it is about, if there was no earlier note of that."""
    monkeypatch.setattr(notes, "NOTE_BYTES", 100 if noted else 10_000)
    store = Store(AtomicFS(), spool_directory=tmp_path / "spool", limits=TreeLimits(shared=True, spool_memory=10))
    handle = object()
    draft = written(store, "/file", object(), handle)
    replace = Path.replace

    def copy_first(file: Path, target: Path) -> Path:
        shutil.copytree(tmp_path / "spool", tmp_path / "left")
        return replace(file, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", copy_first)
        store.abandon(draft, handle)
    store.close()
    assert {file.suffix for file in (tmp_path / "left").iterdir()} >= {".new", ".spool"}
    later = Store(AtomicFS(), spool_directory=tmp_path / "left", limits=TreeLimits(shared=True))
    assert [draft.size for draft in later.overlay.all()] == ([999] if noted else [])
    later.close()
    assert sorted(file.suffix for file in (tmp_path / "left").iterdir()) == ([".json", ".spool"] if noted else [])


def test_what_was_just_begun_is_left_alone_until_its_process_is_certainly_gone(tmp_path: Path) -> None:
    begun = tmp_path / "0.new"
    begun.touch()
    Store(AtomicFS(), spool_directory=tmp_path, limits=TreeLimits()).close()
    assert begun.exists()
    os.utime(begun, (0, 0))
    Store(AtomicFS(), spool_directory=tmp_path, limits=TreeLimits()).close()
    assert not begun.exists()


@pytest.mark.parametrize("why", ["damaged", "too large"])
def test_of_what_cannot_be_taken_up_nothing_is_left(tmp_path: Path, why: str) -> None:
    store = Store(AtomicFS(), spool_directory=tmp_path, limits=TreeLimits())
    handle = object()
    store.abandon(written(store, "/file", object(), handle), handle)
    store.close()
    if why == "damaged":
        os.truncate(next(tmp_path.glob("*.spool")), 999)
    Store(AtomicFS(), spool_directory=tmp_path, limits=TreeLimits(spool_quota=999)).close()
    assert not list(tmp_path.iterdir())


def test_nobody_goes_on_with_what_is_just_being_dropped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = object()
    draft = written(store, "/file", object(), handle)
    store.abandon(draft, handle)
    end, joined = draft.end, []

    def end_late(reason: str, **options: bool) -> None:
        joined.append(draft.join(object(), object()))
        end(reason, **options)

    monkeypatch.setattr(draft, "end", end_late)
    assert store.drafts.make_room()
    assert joined == [False]


def test_who_goes_on_just_as_the_end_of_a_connection_is_noticed_is_not_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = object()
    draft = written(store, "/file", object(), handle)
    leaving, cut_off = threading.Event(), store.drafts.cut_off

    def cut_off_late(draft: Draft) -> None:
        leaving.set()
        time.sleep(0.1)
        cut_off(draft)

    monkeypatch.setattr(store.drafts, "cut_off", cut_off_late)
    thread = threading.Thread(target=store.abandon, args=(draft, handle))
    thread.start()
    assert leaving.wait(20)
    assert store.open_for_writing("/file", W, object(), object()) is draft
    assert draft.size == 1000
    thread.join(20)


@pytest.mark.parametrize("what", ["dropped", "gone on with"])
def test_nobody_goes_on_with_what_is_another_processes_by_now(store: Store, other: Store, what: str) -> None:
    """Whatever was last seen of it."""
    handle = object()
    draft = written(store, "/file", object(), handle)
    store.abandon(draft, handle)
    other.drafts.follow(at_once=True)
    if what == "dropped":
        other.drafts.make_room()
    else:
        taken = other.open_for_writing("/file", W, object(), handle)
        taken.write(1000, CONTENT[1000:3001])
        other.abandon(taken, handle)
    assert not draft.join(object(), handle)
    assert draft.size == 1000


def test_what_another_process_has_left_later_is_shown(store: Store, other: Store) -> None:
    handle = object()
    store.abandon(written(store, "/file", object(), handle), handle)
    assert other.looking.stat("/file").size == 1000
    draft = store.open_for_writing("/file", W, object(), handle)
    draft.write(1000, CONTENT[1000:3001])
    store.abandon(draft, handle)
    assert other.looking.stat("/file").size == 3000
    assert len(other.overlay.all()) == 1


@pytest.mark.parametrize("size", [1100, 500])
def test_what_a_killed_process_went_on_with_before_it_noted_that(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Others still know what was there before, of which the directory does not tell that it has changed."""
    monkeypatch.setattr(partials, "TICK_NANOSECONDS", 0)
    handle = object()
    store.abandon(written(store, "/file", object(), handle), handle)
    eventually(lambda: other.looking.stat("/file").size == 1000 and not other.drafts.partials.may_differ(at_once=True))
    draft = store.open_for_writing("/file", W, object(), handle)
    draft.write(1000, CONTENT[1000:1100])
    kill(draft)
    assert draft.spool.path is not None
    os.truncate(draft.spool.path, size)  # of a shorter one, the end was just being cut off
    goes_on = other.open_for_writing("/file", W | C, object(), handle)
    assert goes_on.size == (1000 if size > 1000 else 0)
    goes_on.write(goes_on.size, CONTENT[goes_on.size :])
    other.commit(goes_on, handle)
    assert other.filesystem.readbytes("/file") == CONTENT


def kill(draft: Draft) -> None:
    """Let go of its file as the end of a process does."""
    fcntl.flock(draft.spool._fd, fcntl.LOCK_UN)


def test_what_is_not_taken_over_after_all_is_neither_counted_nor_locked(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = object()
    store.abandon(written(store, "/file", object(), handle), handle)
    with monkeypatch.context() as patched:
        before_it_takes_over(patched, lambda: patched.setattr(other.drafts.partials, "noted", lambda _: None))
        other.drafts.follow(at_once=True)
    assert not other.overlay.all()
    assert other.quota.used == 0
    assert store.open_for_writing("/file", W, object(), handle).size == 1000


def test_a_rename_leaves_the_note_of_what_another_process_goes_on_with(store: Store, other: Store) -> None:
    handle = object()
    draft = written(store, "/file", object(), handle)
    store.abandon(draft, handle)
    assert draft.spool.path is not None
    note = draft.spool.path.with_suffix(partials.NOTE_SUFFIX)
    before = note.read_text()
    other.open_for_writing("/file", W, object(), handle)
    store.overlay.move(draft, "/renamed")
    store.drafts.note_again(draft)
    assert note.read_text() == before


def test_after_a_kill_nothing_beyond_a_gap_is_vouched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although what follows on the beginning is noted as it comes."""
    monkeypatch.setattr(notes, "NOTE_BYTES", 100)
    store = Store(AtomicFS(), spool_directory=tmp_path / "spool", limits=TreeLimits())
    draft = store.open_for_writing("/file", W | C | T, object(), object())
    for start, end in ((0, 1000), (5000, 6000), (1000, 2000)):
        draft.write(start, CONTENT[start:end])
    draft.spool.to_disk()
    draft.write(2000, CONTENT[2000:3001])
    shutil.copytree(tmp_path / "spool", tmp_path / "left")
    store.close()
    later = Store(AtomicFS(), spool_directory=tmp_path / "left", limits=TreeLimits())
    assert [found.size for found in later.overlay.all()] == [3000]
    later.close()


def test_what_another_process_has_rewritten_is_sent_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although it has left as much as was there before."""
    make_small(monkeypatch)
    storage = LaggingFS(Traits(), random.Random(1))
    first, second = (Store(storage, spool_directory=tmp_path, limits=TreeLimits(shared=True)) for _ in range(2))

    def write(store: Store, flags: int, *pieces: tuple[int, bytes]) -> tuple[Draft, object]:
        handle = object()
        draft = store.open_for_writing("/file", flags, handle, handle)
        for offset, data in pieces:
            draft.write(offset, data)
        return draft, handle

    draft, handle = write(first, W | C | T, (0, b"a" * 50))
    eventually(lambda: draft.forwarding.checkpoint is not None, "nothing was stored ahead")
    first.abandon(draft, handle)
    assert second.looking.stat("/file").size == 49
    first.abandon(*write(first, W, (0, b"b" * 10), (49, b"b")))
    assert second.looking.stat("/file").size == 49
    second.commit(*write(second, W, (49, b"c")))
    assert storage.readbytes("/file") == b"b" * 10 + b"a" * 39 + b"c"
    for store in (first, second):
        store.close()


def test_an_upload_that_is_under_way_has_nobody_read_all_others_again_and_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a hundred that were cut off, each OPEN took 26 ms for as long as one of a mebibyte was written."""
    written(store, "/file", object(), object()).spool.to_disk()
    load, loads = store.drafts.partials.load, []
    monkeypatch.setattr(store.drafts.partials, "load", lambda: loads.append(1) or load())

    def is_known() -> bool:
        before = len(loads)
        store.drafts.follow(at_once=True)
        return len(loads) == before

    eventually(is_known, "never: they are not read again")
