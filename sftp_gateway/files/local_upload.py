"""`upload`: a draft's content into a file of a local disk, all or nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from fs.mountfs import MountFS
from fs.multifs import MultiFS
from fs.osfs import OSFS
from fs.subfs import ClosingSubFS, SubFS
from fs.wrapfs import WrapFS

from sftp_gateway.files import freeing
from sftp_gateway.sftp.status import EXISTS, RefusedError

# This user or this disk cannot do it this way: writing in place works, or reports what is wrong.
_NOT_THIS_WAY: Final = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL),
    *(errno.EISDIR, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG),
}


class Received(NamedTuple):
    """The content that is to be stored."""

    pieces: Iterable[bytes]
    give: Callable[[Callable[[int, Path], bool]], bool]
    """Lets a function have a file that holds all of it, by descriptor and path, if there is one, to give it its name;
    returns whether it did. The pieces are not needed then."""


def upload(filesystem: Any, path: str, content: Received, modified: float | None, *, exclusive: bool = False) -> bool:
    """Replace the file at `path` by the `content`, all at once; return whether that is possible.

    It is not on other storages, on disks without unnamed files (NFS, FAT), and if a new file would differ from the old
    one: if that has other names (hard links), an owner that we cannot give it, or a directory that we may not change.
    Nothing has changed then. Raises `fs.errors`, OSError, `RefusedError`, and what the content raises.
    """
    place = _place(filesystem, path)
    if place is None or not hasattr(os, "O_TMPFILE"):
        return False
    try:
        return _store(place, content, modified, exclusive=exclusive)
    except FileExistsError:
        raise RefusedError(EXISTS) from None
    except OSError as error:
        if error.errno in _NOT_THIS_WAY:
            return False
        raise


def _place(filesystem: Any, path: str) -> str | None:
    """Return where on disk a filesystem would write; None if it may store contents in a form of its own."""
    while True:
        kind = type(filesystem)
        if kind in (WrapFS, SubFS, ClosingSubFS):
            filesystem, path = filesystem.delegate_path(path)
        elif kind is MountFS:
            filesystem, path = filesystem._delegate(path)
        elif kind is MultiFS:
            filesystem = filesystem.write_fs
        elif isinstance(filesystem, OSFS) and kind.openbin is OSFS.openbin:
            return str(filesystem.getsyspath(filesystem.validatepath(path)))
        else:
            return None


def _store(place: str, content: Received, modified: float | None, *, exclusive: bool) -> bool:
    if os.path.islink(place):
        place = os.path.realpath(place)
    with _held(place) as old:
        return _replace(place, old, content, modified, exclusive=exclusive)


@contextlib.contextmanager
def _held(place: str) -> Iterator[os.stat_result | None]:
    """Hold the file that is there, if there is one: whoever replaces it does not wait until its space is free."""
    try:
        descriptor = os.open(place, os.O_PATH)
    except FileNotFoundError:
        yield None
        return
    old = os.fstat(descriptor)
    try:
        yield old
    finally:
        freeing.close(descriptor, frees=old.st_size)


def _replace(
    place: str, old: os.stat_result | None, content: Received, modified: float | None, *, exclusive: bool
) -> bool:
    # A file that we may not write must not be replaced either, although the directory would allow it.
    if old is not None and not (stat.S_ISREG(old.st_mode) and old.st_nlink == 1 and os.access(place, os.W_OK)):
        return False
    # The file has no name until it is complete: it is in no listing, and gone with the process.
    with open(os.open(os.path.dirname(place), os.O_TMPFILE | os.O_WRONLY, 0o666), "wb") as file:
        if old is not None and not _is_made_alike(file.fileno(), place):
            return False
        if content.give(partial(_move, place, file.fileno(), modified, exclusive=exclusive)):
            return True
        for piece in content.pieces:
            file.write(piece)
        file.flush()
        if modified is not None:
            os.utime(file.fileno(), (modified, modified))
        if exclusive or old is None:
            try:
                _give_name(file.fileno(), place)
                return True
            except FileExistsError:
                if exclusive:
                    raise
        # For the moment between these two calls the new version is there twice: a kill then leaves it under this name.
        between = os.path.join(os.path.dirname(place), f".{secrets.token_hex(8)}")
        _give_name(file.fileno(), between)  # as no call gives it a name that is taken
        try:
            os.replace(between, place)
        except BaseException:
            os.unlink(between)
            raise
    return True


def _move(place: str, like: int, modified: float | None, descriptor: int, path: Path, *, exclusive: bool) -> bool:
    """Give a complete file its name; return whether that is possible: on the same disk, if it can be made `like`."""
    if os.fstat(descriptor).st_dev != os.fstat(like).st_dev or not _is_made_alike(descriptor, like):
        return False
    try:
        os.utime(descriptor, None if modified is None else (modified, modified))
        (os.link if exclusive else os.replace)(path, place)
    except OSError as error:
        if error.errno in _NOT_THIS_WAY:
            return False
        raise
    return True


def _give_name(descriptor: int, place: str) -> None:
    """Link an unnamed file to a name; raises FileExistsError if the name is taken."""
    os.link(f"/proc/self/fd/{descriptor}", place, src_dir_fd=descriptor)  # without one, links are not followed


def _is_made_alike(descriptor: int, model: int | str) -> bool:
    """Give a new file the mode, owner and attributes (access control) of another; return whether it has them."""
    wanted = _traits(model)
    if _traits(descriptor) == wanted:
        return True
    (mode, user, group), attributes = wanted
    with contextlib.suppress(OSError):
        os.fchown(descriptor, user, group)
        os.fchmod(descriptor, mode)
        for name, value in attributes.items():
            os.setxattr(descriptor, name, value)
    return _traits(descriptor) == wanted


def _traits(file: int | str) -> tuple[tuple[int, int, int], dict[str, bytes]]:
    """Return all but the rights that a program gains from its file, which other content must not inherit."""
    there = os.stat(file)
    return (there.st_mode & 0o777, there.st_uid, there.st_gid), {
        name: os.getxattr(file, name) for name in os.listxattr(file) if name != "security.capability"
    }
