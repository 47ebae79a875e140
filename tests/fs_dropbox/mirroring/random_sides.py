"""What random mirroring goes between: folders on disk, in memory and in the account, as others see and change them."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

from fs import errors
from fs.base import FS
from fs.memoryfs import MemoryFS
from fs.osfs import OSFS

from fs_dropbox import DropboxFS, paths
from fs_dropbox.emulator.control.control import Control
from fs_dropbox.mirroring.transfer import PART_SUFFIX, Place

Tree: TypeAlias = dict[str, bytes | str | None]
"""By relative path: what a file holds, None for a folder, where a symbolic link leads."""
UNREADABLE: Final = "unreadable"


class Side:
    """A folder of one kind, looked at and changed without what mirrors it."""

    folds = False
    is_atomic = True

    def __init__(self, filesystem: FS, folder: str = "/") -> None:
        self.filesystem = filesystem
        self.place = Place(filesystem, folder)

    def write(self, path: str, data: bytes, seconds: float) -> None:
        raise NotImplementedError

    def make_folder(self, path: str) -> None:
        raise NotImplementedError

    def remove(self, path: str) -> None:
        raise NotImplementedError

    def tree(self) -> Tree:
        raise NotImplementedError

    def seconds(self, path: str) -> float:
        """Return when a file was last modified."""
        raise NotImplementedError

    def key(self, path: str) -> str:
        """Return what names of one file have in common."""
        return paths.key(path) if self.folds else path

    def refuses(self, path: str) -> bool:
        """Tell whether such a name cannot be stored here."""
        return False

    def read(self) -> Tree:
        """Return the tree as whoever reads it finds it: links to files are those; of others only the path counts."""
        return self.tree()

    def leftovers(self) -> list[str]:
        """Return what was left of broken transfers."""
        return [path for path in self.tree() if path.endswith(PART_SUFFIX)]


class PartlyReadable(OSFS):
    """A folder on disk, some of whose files may not be read, whoever asks (permissions do not stop root)."""

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        if UNREADABLE in path and mode == "r":
            raise errors.PermissionDenied(path)
        return super().openbin(path, mode, buffering, **options)


class OnDisk(Side):
    """On disk, with links, also to a folder beside it, which is none of the mirror's business."""

    def __init__(self, root: Path) -> None:
        self.root = root / "side"
        self.beside = root / "beside"
        (self.beside / "below").mkdir(parents=True)
        (self.beside / "below" / "a.txt").write_bytes(b"beside")
        self.root.mkdir()
        super().__init__(PartlyReadable(str(self.root)))

    def write(self, path: str, data: bytes, seconds: float) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_symlink():
            file.unlink()
        file.write_bytes(data)
        os.utime(file, (seconds, seconds))

    def make_folder(self, path: str) -> None:
        (self.root / path).mkdir(parents=True)

    def link(self, path: str, target: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).symlink_to(target)

    def remove(self, path: str) -> None:
        file = self.root / path
        if file.is_symlink() or not file.is_dir():
            file.unlink()
            return
        for child in os.listdir(file):
            self.remove(posixpath.join(path, child))
        file.rmdir()

    def tree(self) -> Tree:
        assert (self.beside / "below" / "a.txt").read_bytes() == b"beside", "what is behind a link has changed"
        found: Tree = {}
        for folder, folders, files in os.walk(self.root):
            for name in folders + files:
                file = Path(folder) / name
                path = str(file.relative_to(self.root))
                with contextlib.suppress(FileNotFoundError):  # the mirror may be at work, and remove its own
                    is_link, is_folder = file.is_symlink(), file.is_dir()
                    found[path] = os.readlink(file) if is_link else None if is_folder else file.read_bytes()
        return found

    def read(self) -> Tree:
        found = self.tree()
        for path, value in found.items():
            if isinstance(value, str) and (self.root / path).is_file():
                found[path] = (self.root / path).read_bytes()
        return found

    def seconds(self, path: str) -> float:
        return (self.root / path).stat().st_mtime

    def refuses(self, path: str) -> bool:
        return any(len(os.fsencode(name)) > 255 for name in path.split("/"))


class InMemory(Side):
    """In memory: with neither hashes nor a system's path, and with files that are seen while they are written."""

    is_atomic = False

    def __init__(self) -> None:
        super().__init__(MemoryFS())

    def write(self, path: str, data: bytes, seconds: float) -> None:
        self.filesystem.makedirs(posixpath.dirname(path), recreate=True)
        self.filesystem.writebytes(path, data)
        self.filesystem.setinfo(path, {"details": {"modified": seconds}})

    def make_folder(self, path: str) -> None:
        self.filesystem.makedirs(path)

    def remove(self, path: str) -> None:
        (self.filesystem.removetree if self.filesystem.isdir(path) else self.filesystem.remove)(path)

    def tree(self) -> Tree:
        walk = self.filesystem.walk.info("/")
        return {path[1:]: None if info.is_dir else self.filesystem.readbytes(path) for path, info in walk}

    def seconds(self, path: str) -> float:
        return float(self.filesystem.getinfo(path, ["details"]).get("details", "modified"))


class InAccount(Side):
    """A folder of the emulated account."""

    folds = True

    def __init__(self, control: Control, account: DropboxFS, folder: str) -> None:
        super().__init__(account, folder)
        self.control = control
        self.folder = folder
        control.seed(folder)

    def write(self, path: str, data: bytes, seconds: float) -> None:
        self._changed(lambda: self.control.write(f"{self.folder}/{path}", data, int(seconds)))

    def make_folder(self, path: str) -> None:
        self._changed(lambda: self.control.seed(f"{self.folder}/{path}"))

    def remove(self, path: str) -> None:
        self._changed(lambda: self.control.delete(f"{self.folder}/{path}"))

    def _changed(self, change: Callable[[], object]) -> None:
        change()
        self.filesystem.forget("/")  # type: ignore[attr-defined]

    def tree(self) -> Tree:
        found = self.control.tree(self.folder)
        return {
            path[len(self.folder) + 1 :]: None if size is None else self.control.read(path)
            for path, size in found.items()
        }

    def seconds(self, path: str) -> float:
        told = str(self.control.metadata(f"{self.folder}/{path}")["client_modified"])
        return datetime.fromisoformat(told).timestamp()

    def refuses(self, path: str) -> bool:
        return paths.check_path("/" + path) is not None
