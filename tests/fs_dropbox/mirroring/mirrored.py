"""What mirroring is tried with: a local tree, and what came of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fs.base import FS
from fs.memoryfs import MemoryFS

from fs_dropbox.mirroring.mirror import Mirror
from fs_dropbox.mirroring.steps import Observer, Step, Summary
from fs_dropbox.mirroring.transfer import Place


class FoldingFS(MemoryFS):
    """A filesystem that says it cannot tell case apart."""

    def getmeta(self, namespace: str = "standard") -> dict[str, Any]:
        return dict(super().getmeta(namespace)) | {"case_insensitive": True}


class Recorder(Observer):
    def __init__(self) -> None:
        self.plan = 0
        self.bytes = 0
        self.steps: list[Step] = []

    def planned(self, size: int) -> None:
        self.plan = size

    def advanced(self, size: int) -> None:
        self.bytes += size

    def done(self, step: Step) -> None:
        self.steps.append(step)


def run(source: FS, target: FS, folder: str = "/", **options: Any) -> Summary:
    return Mirror(Place(source), Place(target, folder), **options).run()


def content(filesystem: FS, folder: str = "/") -> dict[str, bytes | None]:
    tree = filesystem.opendir(folder)
    return {p: None if info.is_dir else tree.readbytes(p) for p, info in tree.walk.info()}


def write_many(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04}.txt").write_bytes(f"{number}".encode() * 100)


def make_unreadable(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the system refuse to list local folders whose paths end so: for root, permissions do not."""
    scandir = os.scandir

    def unreadable(path: str) -> Any:
        if path.endswith(ending):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", unreadable)
