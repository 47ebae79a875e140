"""What another process has left, as it ended or was killed, is taken over as it is by then, or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftp_gateway.files import notes, partials
from sftp_gateway.files.draft import Draft
from sftp_gateway.files.spool import Spool
from sftp_gateway.files.store import Store
from sftp_gateway.files.tree import TreeLimits
from tests.sftp_gateway.atomic_fs import AtomicFS
from tests.sftp_gateway.files.sharing.shared_stores import CONTENT, written
from tests.sftp_gateway.raw_client import C, T, W
from tests.waiting import eventually


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
