"""What CLOSE does to files of a local disk: they are replaced as a whole, or stay as they are."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO
from unittest.mock import Mock, patch

import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS
from fs.mountfs import MountFS
from fs.multifs import MultiFS
from fs.osfs import OSFS
from fs.subfs import SubFS
from fs.wrapfs import WrapFS

from sftp_gateway.files.draft import Draft, State
from sftp_gateway.files.store import Store, TreeLimits
from sftp_gateway.files.storing import Storing
from sftp_gateway.files.stream import PIECE_BYTES
from sftp_gateway.sftp.status import RefusedError
from tests.sftp_gateway.raw_client import C, T, W, X

OLD, NEW = b"old" * 100, bytes(range(256)) * (PIECE_BYTES // 128)
KILLED = """
import os, signal, sys
from tests.sftp_gateway.files.test_local_uploads import *
home, limits = Path(sys.argv[1]), TreeLimits(spool_memory=int(sys.argv[2]))
store = Store(OSFS(str(home)), spool_directory=home.parent / "killed", limits=limits)
with amid_each_close(lambda: os.kill(os.getpid(), signal.SIGKILL)):
    put(store, "/f", NEW)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with one file, `f`."""
    home = tmp_path / "home"
    home.mkdir()
    try:
        os.close(os.open(home, os.O_TMPFILE | os.O_WRONLY))
    except OSError as error:
        pytest.skip(f"this disk has no files without a name: {error}")
    (home / "f").write_bytes(OLD)
    return home


@pytest.fixture(params=[2**30, 0], ids=["copied", "moved"])
def limits(request: pytest.FixtureRequest) -> TreeLimits:
    """Files are stored from memory, or have a file on the same disk already."""
    return TreeLimits(spool_memory=request.param)


@pytest.fixture
def filesystem(home: Path) -> FS:
    return OSFS(str(home))


@pytest.fixture
def store(filesystem: FS, tmp_path: Path, limits: TreeLimits) -> Iterator[Store]:
    store = Store(filesystem, spool_directory=tmp_path / "spool", limits=limits)
    yield store
    store.close()
    assert not [file for file in (tmp_path / "spool").glob("*") if file.is_file()]


def put(store: Store, path: str, content: bytes, flags: int = W | C | T, *, modified: float | None = None) -> None:
    handle = object()
    draft = store.open_for_writing(path, flags, None, handle)
    draft.write(0, content)
    draft.modified = modified
    store.commit(draft, handle)


@contextlib.contextmanager
def amid_each_close(act: Callable[[], object]) -> Iterator[None]:
    """Do something before the second piece of a file is stored, or the file is moved."""
    piece, give = Storing._piece, Draft.give

    def acting(storing: Storing, offset: int, size: int) -> bytes:
        if offset:
            act()
        return piece(storing, offset, size)

    def giving(draft: Draft, size: int, move: Callable[[int, Path], bool]) -> bool:
        return give(draft, size, lambda descriptor, path: (act(), move(descriptor, path))[1])

    with patch.object(Storing, "_piece", acting), patch.object(Draft, "give", giving):
        yield


@contextlib.contextmanager
def after_each_move(act: Callable[[], object]) -> Iterator[None]:
    """Do something as soon as a file was moved."""
    give = Draft.give

    def giving(draft: Draft, size: int, move: Callable[[int, Path], bool]) -> bool:
        return give(draft, size, lambda descriptor, path: (move(descriptor, path), act())[0])

    with patch.object(Draft, "give", giving):
        yield


def run_and_kill(script: str, home: Path, *, spool_memory: int) -> None:
    """Run a script that ends itself with `kill -9`."""
    command = [sys.executable, "-c", script, str(home), str(spool_memory)]
    done = subprocess.run(command, cwd=Path.cwd(), timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


def contents(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.iterdir()}


def _mounted(home: Path) -> FS:
    outer = MountFS()
    outer.mount("one/two", OSFS(str(home)))
    return SubFS(outer, "/one/two")


def _layered(home: Path) -> FS:
    outer = MultiFS()
    outer.add_fs("lower", MemoryFS())
    outer.add_fs("upper", OSFS(str(home)), write=True)
    return outer


def _disk_full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "make",
    [
        lambda home: OSFS(str(home)),
        lambda home: OSFS(str(home.parent)).opendir("home"),
        lambda home: WrapFS(OSFS(str(home))),
        _mounted,
        _layered,
    ],
    ids=["osfs", "subfs", "wrapfs", "mountfs", "multifs"],
)
def test_a_close_that_fails_leaves_the_old_version(
    home: Path, tmp_path: Path, make: Callable[[Path], FS], limits: TreeLimits
) -> None:
    with make(home) as filesystem:
        store = Store(filesystem, spool_directory=tmp_path / "spool", limits=limits)
        with amid_each_close(_disk_full):
            for path in ("/f", "/new"):
                with pytest.raises(OSError, match="No space left"):
                    put(store, path, NEW)
        assert contents(home) == {"f": OLD}
        put(store, "/f", NEW)
        put(store, "/new", NEW)
        assert contents(home) == {"f": NEW, "new": NEW}
        store.close()


def test_who_reads_it_meanwhile_reads_the_old_version(store: Store, home: Path) -> None:
    """Also who has opened it before and goes on after."""
    seen = []
    with (home / "f").open("rb") as reader:
        with amid_each_close(lambda: seen.append(contents(home))):
            put(store, "/f", NEW)
        assert reader.read() == OLD
    assert seen == [{"f": OLD}]
    assert (home / "f").read_bytes() == NEW


def test_kill_9_amid_a_close_leaves_the_old_version_and_nothing_else(home: Path, limits: TreeLimits) -> None:
    run_and_kill(KILLED, home, spool_memory=limits.spool_memory)
    assert contents(home) == {"f": OLD}


def test_what_is_changed_in_place_is_stored_as_a_whole(store: Store, home: Path) -> None:
    """Old content comes from the file that is about to go away."""
    (home / "f").write_bytes(NEW)
    with amid_each_close(_disk_full):
        with pytest.raises(OSError, match="No space left"):
            put(store, "/f", b"new", W)
        assert (home / "f").read_bytes() == NEW
    put(store, "/f", b"new", W)
    assert (home / "f").read_bytes() == b"new" + NEW[3:]


class _Late(OSFS):
    """Does not know yet of what another process has just made."""

    def exists(self, path: str) -> bool:
        return False


def test_excl_replaces_nothing_whenever_that_came(home: Path, tmp_path: Path, limits: TreeLimits) -> None:
    with _Late(str(home)) as filesystem:
        store = Store(filesystem, spool_directory=tmp_path / "spool", limits=limits)
        refused = pytest.raises(RefusedError, match="exists already")
        with amid_each_close(lambda: (home / "new").write_bytes(OLD)), refused:
            put(store, "/new", NEW, W | C | X)
        assert contents(home) == {"f": OLD, "new": OLD}
        put(store, "/newer", NEW, W | C | X)
        assert (home / "newer").read_bytes() == NEW
        assert (home / "newer").stat().st_nlink == 1
        store.close()


def test_what_came_meanwhile_is_replaced(store: Store, home: Path) -> None:
    with amid_each_close(lambda: (home / "new").write_bytes(OLD)):
        put(store, "/new", NEW)
    assert contents(home) == {"f": OLD, "new": NEW}


def test_mode_attributes_and_owner_stay_and_the_time_is_set(store: Store, home: Path) -> None:
    os.chmod(home / "f", 0o604)
    with_attributes = hasattr(os, "setxattr")
    if with_attributes:
        try:
            os.setxattr(home / "f", "user.colour", b"red")
        except OSError:  # not on this disk
            with_attributes = False
    if os.geteuid() == 0:
        os.chown(home / "f", 1234, 4321)
    before = (home / "f").stat()
    put(store, "/f", NEW, modified=1e9)
    after = (home / "f").stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_mtime == 1e9
    assert not with_attributes or os.getxattr(home / "f", "user.colour") == b"red"
    mask = os.umask(0)
    os.umask(mask)
    for path, content in (("/empty", b""), ("/new", NEW)):
        put(store, path, content)
        assert (home / path[1:]).stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give such rights")
def test_other_content_does_not_inherit_the_rights_of_a_program(store: Store, home: Path) -> None:
    """As if it had been written in place, by its owner."""
    os.chmod(home / "f", 0o6755)
    with contextlib.suppress(OSError):  # not in every container
        os.setxattr(home / "f", "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    put(store, "/f", NEW)
    assert (home / "f").stat().st_mode & 0o7777 == 0o755
    assert "security.capability" not in os.listxattr(home / "f")


def test_a_link_is_written_through_and_other_names_stay_the_same_file(store: Store, home: Path) -> None:
    (home / "link").symlink_to("f")
    (home / "to come").symlink_to("later")
    put(store, "/link", NEW)
    put(store, "/to come", NEW)
    assert os.readlink(home / "link") == "f"
    assert (home / "f").read_bytes() == (home / "later").read_bytes() == NEW
    os.link(home / "f", home / "other")
    put(store, "/f", OLD)
    assert (home / "other").read_bytes() == OLD
    assert sorted(os.listdir(home)) == ["f", "later", "link", "other", "to come"]


def _refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


_CALLS = ("fchown", "link", "replace")


@pytest.mark.parametrize(("name", "instead"), [("O_TMPFILE", 0), *((name, _refuse) for name in _CALLS)])
@pytest.mark.parametrize("limits", [TreeLimits(spool_memory=2**30)], ids=["copied"])
def test_what_cannot_be_replaced_is_written_in_place(store: Store, home: Path, name: str, instead: object) -> None:
    """On a disk without files that have no name, of another owner, without /proc, mounted by itself."""
    os.chmod(home / "f", 0o604)
    number = (home / "f").stat().st_ino
    with patch.object(os, name, instead):
        put(store, "/f", NEW)
    assert (home / "f").stat().st_ino == number
    assert contents(home) == {"f": NEW}


@pytest.mark.parametrize("limits", [TreeLimits(spool_memory=0)], ids=["moved"])
class TestMoving:
    """What was received is on the same disk already: it is given its name, and nothing is copied."""

    def test_the_file_is_the_one_that_was_received(self, store: Store, home: Path) -> None:
        for path in ("/f", "/new"):
            handle = object()
            draft = store.open_for_writing(path, W | C | T, None, handle)
            draft.write(0, NEW)
            assert draft.spool.path is not None
            number = draft.spool.path.stat().st_ino
            store.commit(draft, handle)
            assert (home / path[1:]).stat().st_ino == number
            assert store.quota.used == 0

    def test_another_disk_has_it_copied(self, store: Store, home: Path) -> None:
        """One that only the move itself finds to be another."""
        move = os.replace

        def within(source: str | Path, target: str | Path) -> None:
            if Path(source).parent != Path(target).parent:
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            move(source, target)

        with patch.object(os, "replace", within):
            put(store, "/f", NEW)
        assert contents(home) == {"f": NEW}

    def test_what_others_still_write_is_copied(self, store: Store, home: Path) -> None:
        first, second = object(), object()
        draft = store.open_for_writing("/f", W | C | T, None, first)
        assert store.open_for_writing("/f", W, None, second) is draft
        draft.write(0, NEW)
        store.commit(draft, first)
        draft.write(0, b"more")
        assert (home / "f").read_bytes() == NEW
        store.commit(draft, second)
        assert (home / "f").read_bytes() == b"more" + NEW[4:]

    def test_what_is_not_all_there_is_copied(self, store: Store, home: Path) -> None:
        (home / "f").write_bytes(NEW)
        for offset in (1, len(NEW) + 1):
            handle = object()
            draft = store.open_for_writing("/f", W, None, handle)
            draft.write(offset, b"!")
            store.commit(draft, handle)
        assert (home / "f").read_bytes() == NEW[:1] + b"!" + NEW[2:] + b"\0!"

    def test_who_reads_what_is_being_written_goes_on(self, store: Store, home: Path) -> None:
        handle, reader, session = object(), Mock(), object()
        draft = store.open_for_writing("/f", W | C | T, session, handle)
        draft.write(0, NEW)
        assert store.open_for_reading("/f", session, reader) is draft
        read: list[bytes] = []
        reader.settle = lambda path, is_it: read.append(draft.read(0, len(NEW)))
        store.commit(draft, handle)
        assert read == [NEW]

    def test_a_session_that_ends_amid_a_close_takes_nothing_away(self, store: Store, home: Path) -> None:
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

    def test_what_fails_after_the_move_takes_nothing_away(self, store: Store, home: Path) -> None:
        give = Draft.give

        def giving(draft: Draft, size: int, move: Callable[[int, Path], bool]) -> bool:
            assert give(draft, size, move)
            raise OSError(errno.EPERM, "Operation not permitted")

        with patch.object(Draft, "give", giving):
            put(store, "/f", NEW)
        assert contents(home) == {"f": NEW}

    @pytest.mark.parametrize(("flags", "names"), [("W | C | T", 1), ("W | C | X", 2)])
    def test_kill_9_after_the_move_leaves_nothing_to_go_on_with(
        self, home: Path, limits: TreeLimits, flags: str, names: int
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

    def test_kill_9_before_the_move_leaves_it_to_be_gone_on_with(self, home: Path, limits: TreeLimits) -> None:
        run_and_kill(KILLED.replace('"/f", NEW', '"/new", NEW'), home, spool_memory=limits.spool_memory)
        again = Store(OSFS(str(home)), spool_directory=home.parent / "killed", limits=TreeLimits())
        assert [(draft.path, draft.size) for draft in again.overlay.partials()] == [("/new", len(NEW) - 1)]
        again.close()

    def test_what_other_processes_may_have_open_is_copied(self, home: Path, tmp_path: Path, limits: TreeLimits) -> None:
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

    def test_its_time_is_that_of_the_close(self, store: Store, home: Path) -> None:
        """As if it had been copied: who looks for what is new since then finds it."""
        handle = object()
        draft = store.open_for_writing("/f", W | C | T, None, handle)
        draft.write(0, NEW)
        assert draft.spool.path is not None
        os.utime(draft.spool.path, (1e9, 1e9))
        store.commit(draft, handle)
        assert (home / "f").stat().st_mtime > 1e9


class _Encrypting(OSFS):
    """Keeps contents in a form of its own."""

    def upload(self, path: str, file: object, chunk_size: int | None = None, **options: object) -> None:
        self.writebytes(path, bytes(byte ^ 1 for byte in file.read()))  # type: ignore[attr-defined]

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: object) -> BinaryIO:
        return super().openbin(path, mode, buffering, **options)


def test_who_keeps_contents_in_another_form_is_given_them(home: Path, tmp_path: Path) -> None:
    with _Encrypting(str(home)) as filesystem:
        store = Store(filesystem, spool_directory=tmp_path / "spool", limits=TreeLimits())
        put(store, "/f", b"secret")
        assert (home / "f").read_bytes() == bytes(byte ^ 1 for byte in b"secret")
        store.close()
