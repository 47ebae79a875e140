"""Many files at once in fsspec's terms: what `put` and `pipe` upload and `rm` removes, in few calls."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import fs.errors
from fs.path import dirname, isbase, recursepath
from fsspec.callbacks import Callback
from fsspec.spec import AbstractFileSystem

from fs_dropbox.fsspec_adapter.os_errors import os_errors
from fs_dropbox.mirroring.transfer import CHUNK_BYTES, local_file
from fs_dropbox.paths import key
from fs_dropbox.uploads.session_commits import COMMIT_FILES


class Pairs(Callback):  # type: ignore[misc]
    """A callback for fsspec's own `put`: takes the pairs of local and remote paths that it finds, and ends it there."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def wrap(self, iterable: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        self.found = list(iterable)
        return iter(())


class _Copies:
    """Stands for a filesystem in fsspec's own `copy`: takes the pairs of paths that it finds, and copies none."""

    def __init__(self, filesystem: Any) -> None:
        self.isdir = filesystem.isdir
        self.expand_path = filesystem.expand_path
        self.found: list[tuple[str, str]] = []

    def cp_file(self, source: str, target: str, **_: Any) -> None:
        self.found.append((source, target))


def moves(
    filesystem: Any, sources: Any, targets: Any, *, recursive: bool, maxdepth: int | None
) -> list[tuple[str, str, bool]]:
    """Return what becomes what, and whether it is a folder, where fsspec's `copy` would make copies of these.

    With `maxdepth` folders are made, and stay.
    """
    for one in [] if recursive else filesystem.expand_path(sources):
        if filesystem.isdir(one):
            raise IsADirectoryError(f"{one} is a folder: give recursive=True")
    copies = _Copies(filesystem)
    AbstractFileSystem.copy(copies, sources, targets, recursive=recursive, maxdepth=maxdepth, on_error="raise")
    found: list[tuple[str, str, bool]] = []
    folders: list[str] = []
    taken: dict[str, str] = {}
    for pair in copies.found:
        source, target = map(filesystem._strip_protocol, pair)
        is_folder = filesystem.isdir(source)
        if is_folder and maxdepth is not None:
            filesystem.makedirs(target, exist_ok=True)
        elif not any(isbase(folder, source) for folder in folders):
            found.append((source, target, is_folder))
            folders += [source] if is_folder else []
            other = taken.setdefault(key(target), source)
            if other != source:
                raise FileExistsError(errno.EEXIST, f"{other} and {source} would both become this", target)
    return found


def put(filesystem: Any, pairs: Iterable[tuple[str, str]], callback: Callback) -> None:
    """Upload local files, and make folders like local ones; `callback` is told of each that is there.

    Where some cannot be stored, the others are, and OSError is raised for the first of them.
    """
    pairs = list(pairs)
    callback.set_size(len(pairs))
    files = [(local, remote) for local, remote in pairs if not os.path.isdir(local)]
    made = {folder for _, remote in files for folder in recursepath(dirname(remote))}
    for local, remote in pairs:
        if os.path.isdir(local):
            if remote not in made:  # the others come with what is in them
                with os_errors(remote):
                    filesystem.makedirs(remote, recreate=True)
            callback.relative_update()

    def stored(index: int) -> None:
        with callback.branched(*files[index]) as child:
            child.set_size(sizes[index])
            child.relative_update(sizes[index])
        callback.relative_update()

    sizes = [os.path.getsize(local) for local, _ in files]
    contents = [_Content(remote, _reader(local), size) for (local, remote), size in zip(files, sizes, strict=True)]
    _upload(filesystem, contents, stored)


def get(filesystem: Any, remote: str, local: str, callback: Callback) -> None:
    """Download a file, with the local folders above it: whole or not at all."""
    os.makedirs(os.path.dirname(os.path.abspath(local)), exist_ok=True)
    with os_errors(), filesystem.openbin(remote) as file, local_file(local, local, None) as write:
        callback.set_size(file.size)
        while chunk := file.read(CHUNK_BYTES):
            write(chunk)
            callback.relative_update(len(chunk))


def pipe(filesystem: Any, contents: Mapping[str, bytes]) -> None:
    """Store contents by path; raises as `put` does."""
    _upload(filesystem, [_Content(path, partial(io.BytesIO, data), len(data)) for path, data in contents.items()])


def remove(filesystem: Any, wanted: Iterable[str]) -> None:
    """Remove files; where some cannot be removed the others are, and OSError is raised for the first of them."""
    with os_errors():
        filesystem.remove_files(wanted)


class _Content(NamedTuple):
    path: str
    open: Callable[[], BinaryIO]
    size: int


def _reader(path: str) -> Callable[[], BinaryIO]:
    return lambda: Path(path).open("rb")


def _upload(filesystem: Any, contents: list[_Content], stored: Callable[[int], None] = lambda _: None) -> None:
    failures: dict[int, Exception] = {}
    for begin in range(0, len(contents), COMMIT_FILES):
        window = contents[begin : begin + COMMIT_FILES]
        for index, error in _results(filesystem, window):
            if error is None:
                stored(begin + index)
            else:
                failures[begin + index] = error
    for index in sorted(failures)[:1]:
        with os_errors(contents[index].path):
            raise failures[index]


def _results(filesystem: Any, window: list[_Content]) -> Iterator[tuple[int, Exception | None]]:
    """Send contents ahead and commit them together, with the folders that are missing; yield what became of each."""
    tokens: list[tuple[int, str]] = []
    for index, token in filesystem.stage_files((content.open, content.size) for content in window):
        if isinstance(token, str):
            tokens.append((index, token))
        else:
            yield index, token
    now = datetime.now(UTC)
    files = ((window[index].path, token, now, None) for index, token in tokens)
    for position, outcome in filesystem.commit_files(files):
        index = tokens[position][0]
        if outcome is False:
            outcome = fs.errors.OperationFailed(window[index].path, msg="'{path}': what was sent is lost; put it again")
        yield index, None if outcome is True else outcome
