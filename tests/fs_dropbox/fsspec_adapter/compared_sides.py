"""`Sides`: a folder of the account and a local one, in fsspec's terms, that are compared."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from fs_dropbox.emulator.control.control import Control
from fs_dropbox.fsspec_adapter.filesystem import DropboxFileSystem


class Sides:
    """Owns a folder of the account and a local one. For one thread."""

    def __init__(self, name: str, control: Control, dropbox: DropboxFileSystem, scratch: Path) -> None:
        self.name = name
        self.control = control
        self.dropbox = dropbox
        self.folder = f"/{name}"
        self.root, self.local_files = scratch / "root", scratch / "local"
        self.root.mkdir(parents=True)
        self.local_files.mkdir()
        control.seed(self.folder)
        dropbox.invalidate_cache()
        self.sides = [
            DirFileSystem(self.folder, dropbox),
            DirFileSystem(str(self.root), LocalFileSystem(auto_mkdir=True, skip_instance_cache=True)),
        ]

    def tree(self) -> dict[str, bytes | None]:
        found = self.control.tree(self.folder)
        return {
            path[len(self.folder) + 1 :]: None if size is None else self.control.read(path)
            for path, size in found.items()
        }

    def local_tree(self) -> dict[str, bytes | None]:
        files = (path for path in self.root.rglob("*"))
        return {str(path.relative_to(self.root)): None if path.is_dir() else path.read_bytes() for path in files}

    def check_trees(self) -> None:
        ours, theirs = self.tree(), self.local_tree()
        differing = {path for path in {*ours, *theirs} if ours.get(path, "-") != theirs.get(path, "-")}
        told = {path: (short(ours.get(path, "-")), short(theirs.get(path, "-"))) for path in differing}
        assert not told, f"here and there: {told}"

    def follow(self) -> None:
        """Make the local folder what the account is, after a failure."""
        shutil.rmtree(self.root)
        self.root.mkdir()
        for path, data in self.tree().items():
            local = self.root / path
            (local if data is None else local.parent).mkdir(parents=True, exist_ok=True)
            if data is not None:
                local.write_bytes(data)


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 300 else f"{len(value)}: {text[:300]}"
