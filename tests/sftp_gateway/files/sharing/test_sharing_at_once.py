"""Partial uploads while another process, or another session, does something to the same one at that very moment."""

from __future__ import annotations

import errno
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sftp_gateway.files import partials
from sftp_gateway.files.draft import Draft, State
from sftp_gateway.files.spool import Spool
from sftp_gateway.files.store import Store
from sftp_gateway.files.tree import TreeLimits
from sftp_gateway.sftp.status import RefusedError
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.files.lagging_fs import LaggingFS, Traits
from tests.sftp_gateway.files.sharing.shared_stores import CONTENT, written
from tests.sftp_gateway.files.writing_model import make_small
from tests.sftp_gateway.raw_client import C, T, W
from tests.waiting import eventually


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
