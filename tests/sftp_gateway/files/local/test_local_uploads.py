"""What CLOSE does to files of a local disk: they are replaced as a whole, or stay as they are."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from unittest.mock import patch

import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS
from fs.mountfs import MountFS
from fs.multifs import MultiFS
from fs.osfs import OSFS
from fs.subfs import SubFS
from fs.wrapfs import WrapFS

from sftp_gateway.files.store import Store, TreeLimits
from sftp_gateway.sftp.status import RefusedError
from tests.sftp_gateway.files.local.uploading import KILLED, NEW, OLD, amid_each_close, contents, put, run_and_kill
from tests.sftp_gateway.raw_client import C, W, X


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


def test_nobody_waits_until_the_space_of_the_old_version_is_free(store: Store, home: Path) -> None:
    """A large file takes long to be freed, which is done by whoever has it open last."""
    move = os.replace
    held: list[str] = []

    def moving(source: str | Path, target: str | Path) -> None:
        move(source, target)
        held.extend(os.readlink(file) for file in _open_files() if Path(target) == home / "f")

    with patch.object(os, "replace", moving):
        put(store, "/f", NEW)
    gone = f"{home / 'f'} (deleted)"
    assert gone in held
    assert gone not in [os.readlink(file) for file in _open_files()]


def _open_files() -> list[Path]:
    return [file for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]


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
