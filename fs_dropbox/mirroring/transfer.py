"""`copy_file`: one file from one filesystem to another, complete or not at all. Knows no folders and no terminal."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any, BinaryIO, Final

from fs import errors
from fs.base import FS
from fs.path import abspath, basename, dirname, join, normpath, relpath

from fs_dropbox.content_hash import ContentHash
from fs_dropbox.conventions import literal

CHUNK_BYTES: Final = 1024 * 1024
SNAPSHOT_BYTES: Final = 4 * CHUNK_BYTES
PART_SUFFIX: Final = ".fs-dropbox-part"
_PART: Final = re.compile(r"\..{1,50}\.[0-9a-f]{8}" + re.escape(PART_SUFFIX), re.DOTALL)

Advanced = Callable[[int], None]
_Stamp = tuple[int, float | None, int]
"""Of a file: its size, the time of its content, and that time in nanoseconds where there are such."""


class StoppedError(Exception):
    """Someone asked for an end; nothing half-written was left."""


class GrownError(errors.OperationFailed):
    """A file was small as it was listed, and is too large to be held in memory by now."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder or a file of an open filesystem."""

    filesystem: FS
    path: str = "/"

    def at(self, relative: str) -> Place:
        """Return the place of this path below."""
        return Place(self.filesystem, join(abspath(normpath(self.path)), relpath(relative)) if relative else self.path)

    @property
    def local_path(self) -> str | None:
        """The path for the operating system, None where the filesystem is not on this machine's disks."""
        filesystem = self.filesystem
        return str(filesystem.getsyspath(self.path)) if filesystem.hassyspath(self.path) else None

    @property
    def folds_case(self) -> bool:
        """Whether the filesystem says that names that differ only in case mean the same; disks do not say."""
        return bool(self.filesystem.getmeta().get("case_insensitive", False))

    @property
    def is_atomic(self) -> bool:
        """Whether what is read is one version, whoever writes, and what is written becomes the next one as a whole."""
        return bool(self.filesystem.getmeta().get("atomic_writes", False))

    @property
    def is_spelled_otherwise(self) -> bool:
        """Whether there is something at this path of a disk that is listed under another name, as of another case."""
        local = self.local_path
        if local is None or not os.path.lexists(local):
            return False
        with contextlib.suppress(OSError):
            return os.path.basename(local) not in os.listdir(os.path.dirname(local))
        return False


def copy_file(
    source: Place, target: Place, *, advanced: Advanced | None = None, stop: threading.Event | None = None
) -> int:
    """Copy a file over what the target may hold, with its time where that can be kept; return the bytes copied.

    The target changes at the very end or not at all, as far as its filesystem allows. `advanced` is told of bytes
    as they pass, in the caller's thread.

    Raises:
        StoppedError: `stop` was set.
        fs.errors.FSError: either side failed.
    """
    if source.filesystem is target.filesystem and source.local_path is None:
        source.filesystem.copy(source.path, target.path, overwrite=True)
        size = int(source.filesystem.getsize(target.path))
        if advanced is not None:
            advanced(size)
        return size
    # Asked for before the content: of two versions, the time is that of the older one, and the next run looks again.
    earlier = _modified(source) if source.is_atomic else None
    with source.filesystem.openbin(source.path, "r") as reader:
        before = _stamp(source, reader)
        # With its fraction, or the copy would be older than its source, and be replaced by every run.
        modified = earlier if before is None else moment(before[1])
        copied = 0
        with _open_target(target, modified) as write:
            for chunk in _unchanged_chunks(source, reader, before, stop):
                write(chunk)
                copied += len(chunk)
                if advanced is not None:
                    advanced(len(chunk))
    return copied


def snapshot(source: Place) -> BinaryIO:
    """Return the whole content of a small file, as it was at one moment.

    Raises:
        GrownError: it is no small one any more.
        fs.errors.FSError: it changes, or cannot be read.
    """
    held = io.BytesIO()
    with source.filesystem.openbin(source.path, "r") as reader:
        for chunk in _unchanged_chunks(source, reader, _stamp(source, reader), None):
            held.write(chunk)
            if held.tell() > SNAPSHOT_BYTES:
                raise GrownError(source.path)
    held.seek(0)
    return held


def hash_file(place: Place, *, stop: threading.Event | None = None) -> str:
    """Return the content hash of a file by reading it."""
    content_hash = ContentHash()
    with place.filesystem.openbin(place.path, "r") as reader:
        for chunk in _chunks(reader, stop):
            content_hash.update(chunk)
    return content_hash.hexdigest()


def holds_the_same(source: Place, target: Place) -> bool:
    """Tell whether the target is a file of the source's content: by content hash; the side that tells none is read."""
    try:
        infos = [place.filesystem.getinfo(place.path, ["details", "dropbox"]) for place in (source, target)]
    except errors.ResourceNotFound:
        return False
    if any(info.is_dir for info in infos) or infos[0].size != infos[1].size:
        return False
    hashes = [str(info.get("dropbox", "content_hash") or "") for info in infos]
    return have_equal_hashes(source, hashes[0], target, hashes[1])


def have_equal_hashes(
    source: Place, source_hash: str, target: Place, target_hash: str, *, stop: threading.Event | None = None
) -> bool:
    """Tell whether two files have one content hash; reads the side that tells none ("") where the other does."""
    if not (source_hash or target_hash):
        return False
    return (source_hash or hash_file(source, stop=stop)) == (target_hash or hash_file(target, stop=stop))


def write_stream(stream: IO[bytes], target: Place, *, advanced: Advanced | None = None) -> int:
    """Write what a stream yields until its end as one file; return the bytes written."""
    written = 0
    with _open_target(target, None) as write:
        for chunk in _chunks(stream, None):
            write(chunk)
            written += len(chunk)
            if advanced is not None:
                advanced(len(chunk))
    return written


def _chunks(reader: IO[bytes], stop: threading.Event | None) -> Iterator[bytes]:
    while True:
        if stop is not None and stop.is_set():
            raise StoppedError
        chunk = reader.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def _unchanged_chunks(
    source: Place, reader: IO[bytes], before: _Stamp | None, stop: threading.Event | None
) -> Iterator[bytes]:
    """Yield the content of an open file; raises OperationFailed at the end where it is not what it was `before`."""
    size = 0
    for chunk in _chunks(reader, stop):
        size += len(chunk)
        yield chunk
        # At once, or a file that grows as fast as it is read would never end.
        if before is not None and size > before[0]:
            break
    if before is not None and (size, before) != (before[0], _stamp(source, reader)):
        raise errors.OperationFailed(source.path, msg="the file changed while it was read; it was not copied")


def _stamp(source: Place, reader: IO[bytes]) -> _Stamp | None:
    """Return what changes with the content of an open file, None where that cannot change."""
    if source.is_atomic:
        return None
    try:
        status = os.fstat(reader.fileno())
    except (OSError, AttributeError, ValueError):
        details: Any = source.filesystem.getinfo(source.path, ["details"]).raw.get("details", {})
        size, seconds = details.get("size"), details.get("modified")
        return None if size is None else (int(size), seconds, 0)
    return status.st_size, status.st_mtime_ns / 10**9, status.st_mtime_ns


def moment(seconds: object) -> datetime | None:
    """Return the time that a filesystem tells of a file, in seconds since 1970; None where no calendar has it."""
    if not isinstance(seconds, (int, float)):
        return None
    try:
        return datetime.fromtimestamp(seconds, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _modified(source: Place) -> datetime | None:
    return moment(source.filesystem.getinfo(source.path, namespaces=["details"]).get("details", "modified"))


@contextlib.contextmanager
def _open_target(target: Place, modified: datetime | None) -> Iterator[Callable[[bytes], Any]]:
    """Yield a write function; what it was given becomes the file when the block ends, and is discarded if it raises."""
    folder = Place(target.filesystem, dirname(target.path)).local_path
    if folder is not None:
        with local_file(os.path.join(folder, basename(target.path)), target.path, modified) as write:
            yield write
        return
    atomic = target.is_atomic
    # Written from the first byte to the last: no copy on local disk is needed.
    options: dict[str, Any] = {"seekable": False} if atomic else {}
    if atomic and modified is not None:
        options["modified"] = modified
    file = target.filesystem.openbin(target.path, "w", **options)
    try:
        yield file.write
    except BaseException:
        if hasattr(file, "abort"):
            file.abort()
        else:
            # What was there is gone since the file was opened; better none than half of one.
            with contextlib.suppress(errors.FSError, OSError):
                file.close()
                target.filesystem.remove(target.path)
        raise
    file.close()
    if modified is not None and not atomic:
        with contextlib.suppress(errors.FSError):  # whatever keeps no times
            target.filesystem.setinfo(target.path, {"details": {"modified": modified.timestamp()}})


@contextlib.contextmanager
def local_file(name: str, shown: str, modified: datetime | None) -> Iterator[Callable[[bytes], Any]]:
    """Yield a write function for a file on disk, which is replaced when the block ends; `shown` is its path in errors.

    What is no file, such as /dev/null or a pipe, is written into as it is.
    """
    if os.path.isdir(name):
        raise errors.FileExpected(shown)
    folder, base = os.path.split(name)
    # A character has up to four bytes, a name 255 of them.
    part = os.path.join(folder, f".{base[:50]}.{secrets.token_hex(4)}{PART_SUFFIX}")
    try:
        if os.path.exists(name) and not os.path.isfile(name):
            with open(name, "wb") as file:
                yield file.write
            return
        with open(part, "xb") as file:  # buffered: an unbuffered one may take a part and say so in what it returns
            with contextlib.suppress(OSError):  # not every disk has locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until it is closed: it is under way
            yield file.write
            with contextlib.suppress(OSError):
                os.fchmod(file.fileno(), os.stat(name).st_mode & 0o7777)
        if modified is not None:
            os.utime(part, (modified.timestamp(), modified.timestamp()))
        os.replace(part, name)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(part)
        if isinstance(error, OSError):
            raise local_error(shown, error) from error
        raise


def is_part(path: str) -> bool:
    """Tell whether a path is the name under which a file is written until it is whole."""
    return _PART.fullmatch(basename(path)) is not None


def remove(place: Place, *, is_folder: bool) -> None:
    """Remove a file, or a folder with all that is in it; links are removed and not followed.

    Raises:
        fs.errors.FSError: it, or a part of it, could not be removed.
    """
    local = place.local_path
    try:
        if local is not None and is_folder:
            # Not the filesystem's own way, which empties what is behind links to folders as well.
            shutil.rmtree(local)
        elif local is not None:
            os.unlink(local)
        elif is_folder:
            place.filesystem.removetree(place.path)
        else:
            place.filesystem.remove(place.path)
    except OSError as error:
        raise local_error(place.path, error) from error


def remove_abandoned(place: Place) -> None:
    """Remove a local file that a transfer has left which broke off, unless it cannot be, as of one under way."""
    with contextlib.suppress(OSError), open(str(place.local_path), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(file.name)


def local_error(shown: str, error: OSError) -> errors.FSError:
    """Return an error of this machine's disks as PyFilesystem has it; `shown` is the path that it names."""
    if isinstance(error, FileNotFoundError):
        return errors.ResourceNotFound(shown, exc=error)
    if isinstance(error, NotADirectoryError):
        return errors.DirectoryExpected(shown, exc=error)
    if isinstance(error, PermissionError):
        return errors.PermissionDenied(shown, exc=error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.InsufficientStorage(shown, exc=error, msg=literal(f"{shown}: {error.strerror}"))
    return errors.OperationFailed(shown, exc=error, msg=literal(f"{shown}: {error.strerror}"))
