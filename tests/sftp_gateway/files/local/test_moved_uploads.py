"""What was received is on the disk of its folder already: CLOSE gives it its name, and nothing is copied."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock, patch

import pytest
from fs.osfs import OSFS

from sftp_gateway.files.draft import Draft, State
from sftp_gateway.files.store import Store, TreeLimits
from tests.sftp_gateway.files.local.uploading import KILLED, NEW, OLD, contents, put, run_and_kill
from tests.sftp_gateway.raw_client import C, T, W


@pytest.fixture
def limits() -> TreeLimits:
    return TreeLimits(spool_memory=0)


def test_the_file_is_the_one_that_was_received(store: Store, home: Path) -> None:
    for path in ("/f", "/new"):
        handle = object()
        draft = store.open_for_writing(path, W | C | T, None, handle)
        draft.write(0, NEW)
        assert draft.spool.path is not None
        number = draft.spool.path.stat().st_ino
        store.commit(draft, handle)
        assert (home / path[1:]).stat().st_ino == number
        assert store.quota.used == 0


def test_another_disk_has_it_copied(store: Store, home: Path) -> None:
    """One that only the move itself finds to be another."""
    move = os.replace

    def within(source: str | Path, target: str | Path) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        move(source, target)

    with patch.object(os, "replace", within):
        put(store, "/f", NEW)
    assert contents(home) == {"f": NEW}


def test_what_others_still_write_is_copied(store: Store, home: Path) -> None:
    first, second = object(), object()
    draft = store.open_for_writing("/f", W | C | T, None, first)
    assert store.open_for_writing("/f", W, None, second) is draft
    draft.write(0, NEW)
    store.commit(draft, first)
    draft.write(0, b"more")
    assert (home / "f").read_bytes() == NEW
    store.commit(draft, second)
    assert (home / "f").read_bytes() == b"more" + NEW[4:]


def test_what_is_not_all_there_is_copied(store: Store, home: Path) -> None:
    (home / "f").write_bytes(NEW)
    for offset in (1, len(NEW) + 1):
        handle = object()
        draft = store.open_for_writing("/f", W, None, handle)
        draft.write(offset, b"!")
        store.commit(draft, handle)
    assert (home / "f").read_bytes() == NEW[:1] + b"!" + NEW[2:] + b"\0!"


def test_who_reads_what_is_being_written_goes_on(store: Store, home: Path) -> None:
    handle, reader, session = object(), Mock(), object()
    draft = store.open_for_writing("/f", W | C | T, session, handle)
    draft.write(0, NEW)
    assert store.open_for_reading("/f", session, reader) is draft
    read: list[bytes] = []
    reader.settle = lambda find: read.append(draft.read(0, len(NEW)))
    store.commit(draft, handle)
    assert read == [NEW]


def test_a_session_that_ends_amid_a_close_takes_nothing_away(store: Store, home: Path) -> None:
    handle = object()
    draft = store.open_for_writing("/new", W | C | T, None, handle)
    draft.write(0, NEW)
    give = draft.give

    def giving(size: int, move: Callable[[int, Path], bool]) -> bool:
        is_given = give(size, move)
        store.abandon(draft, handle)
        return is_given

    with patch.object(draft, "give", giving):
        store.commit(draft, handle)
    assert contents(home) == {"f": OLD, "new": NEW}


def test_what_fails_after_the_move_takes_nothing_away(store: Store, home: Path) -> None:
    give = Draft.give

    def giving(draft: Draft, size: int, move: Callable[[int, Path], bool]) -> bool:
        assert give(draft, size, move)
        raise OSError(errno.EPERM, "Operation not permitted")

    with patch.object(Draft, "give", giving):
        put(store, "/f", NEW)
    assert contents(home) == {"f": NEW}


@pytest.mark.parametrize(("flags", "names"), [("W | C | T", 1), ("W | C | X", 2)])
def test_kill_9_after_the_move_leaves_nothing_to_go_on_with(
    home: Path, limits: TreeLimits, flags: str, names: int
) -> None:
    """Also if the file still has its name in the spool, as a move that replaces nothing only adds one."""
    script = KILLED.replace("with amid_each_close(", "with after_each_move(")
    run_and_kill(script.replace('"/f", NEW', f'"/new", NEW, {flags}'), home, spool_memory=limits.spool_memory)
    assert contents(home) == {"f": OLD, "new": NEW}
    assert (home / "new").stat().st_nlink == names
    again = Store(OSFS(str(home)), spool_directory=home.parent / "killed", limits=TreeLimits())
    assert not again.overlay.partials()
    again.close()
    assert not list((home.parent / "killed").iterdir())
    assert (home / "new").stat().st_nlink == 1
    assert contents(home) == {"f": OLD, "new": NEW}


def test_kill_9_before_the_move_leaves_it_to_be_gone_on_with(home: Path, limits: TreeLimits) -> None:
    run_and_kill(KILLED.replace('"/f", NEW', '"/new", NEW'), home, spool_memory=limits.spool_memory)
    again = Store(OSFS(str(home)), spool_directory=home.parent / "killed", limits=TreeLimits())
    assert [(draft.path, draft.size) for draft in again.overlay.partials()] == [("/new", len(NEW) - 1)]
    again.close()


def test_what_other_processes_may_have_open_is_copied(home: Path, tmp_path: Path, limits: TreeLimits) -> None:
    """One that has not noticed yet that the file was gone on with does not write to what is stored."""
    shared = replace(limits, shared=True)
    stores = [Store(OSFS(str(home)), spool_directory=tmp_path / "spool", limits=shared) for _ in range(2)]
    handle = object()
    left = stores[0].open_for_writing("/new", W | C | T, None, handle)
    left.write(0, NEW)
    stores[0].abandon(left, handle)
    assert left.state is State.PARTIAL
    gone_on = stores[1].open_for_writing("/new", W, None, handle)
    assert gone_on.size == left.size
    stores[1].commit(gone_on, handle)
    assert (home / "new").read_bytes() == NEW[:-1]
    assert not left.join(None, handle)
    assert not left.spool.is_as_known
    for store in stores:
        store.close()


def test_its_time_is_that_of_the_close(store: Store, home: Path) -> None:
    """As if it had been copied: who looks for what is new since then finds it."""
    handle = object()
    draft = store.open_for_writing("/f", W | C | T, None, handle)
    draft.write(0, NEW)
    assert draft.spool.path is not None
    os.utime(draft.spool.path, (1e9, 1e9))
    store.commit(draft, handle)
    assert (home / "f").stat().st_mtime > 1e9
