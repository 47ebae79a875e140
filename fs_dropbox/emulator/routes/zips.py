"""Folders as zip files, made while they are sent."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import Any

from fs_dropbox.emulator.arguments import Arguments
from fs_dropbox.emulator.model import metadata
from fs_dropbox.emulator.model.contents import Contents
from fs_dropbox.emulator.model.errors import RouteError, nested
from fs_dropbox.emulator.model.tree import File, Folder, Revision
from fs_dropbox.emulator.model.view import View
from fs_dropbox.emulator.web import registry
from fs_dropbox.emulator.web.context import Context, Download

MAX_ZIP_BYTES = 20 * 1024**3
MAX_FILE_BYTES = 4 * 1024**3
MAX_ENTRIES = 10_000
ZIP64_BYTES = 2**31 - 2**20


class ZipBody:
    """The blocks of a zip file. Holds a reference to every content, so that a change meanwhile does no harm."""

    def __init__(self, contents: Contents, entries: list[tuple[str, Revision | None]]) -> None:
        self._contents = contents
        self._entries = entries
        self._made = bytearray()
        for _, revision in entries:
            if revision is not None:
                contents.reference(revision.content_hash, revision.size)

    def write(self, data: bytes) -> int:
        """Take what zipfile makes; it cannot seek, so it does not try to."""
        self._made += data
        return len(data)

    def flush(self) -> None:
        """There is nothing to flush."""

    def __iter__(self) -> Iterator[bytes]:
        with zipfile.ZipFile(self, "w") as archive:
            for name, revision in self._entries:
                if revision is None:
                    archive.writestr(name, b"")
                else:
                    yield from self._add(archive, name, revision)
        yield self._take()

    def _add(self, archive: zipfile.ZipFile, name: str, revision: Revision) -> Iterator[bytes]:
        reader = self._contents.read(revision.content_hash)
        try:
            with archive.open(name, "w", force_zip64=revision.size >= ZIP64_BYTES) as member:
                for block in reader:
                    member.write(block)
                    yield self._take()
        finally:
            reader.close()

    def _take(self) -> bytes:
        made = bytes(self._made)
        self._made.clear()
        return made

    def close(self) -> None:
        """Release all contents."""
        for _, revision in self._entries:
            if revision is not None:
                self._contents.release(revision.content_hash)
        self._entries = []


@registry.route("files/download_zip")
def download_zip(context: Context, arg: Arguments) -> Any:
    """Send a folder with everything below as a zip file."""
    path = arg.path("path")
    with context.service.state.lock, nested():
        view = context.view
        folder = view.find(path)
        if not isinstance(folder, Folder):
            raise RouteError({".tag": "path", "path": {".tag": "not_folder"}})
        body = zip_body(context.service.state.contents, view, folder)
        result = {"metadata": metadata.of_entry(view, folder, tagged=False)}
    return Download(result, body, None, content_type="application/zip")


def zip_body(contents: Contents, view: View, folder: Folder) -> ZipBody:
    """Return a folder as a zip file, or raise too_many_files or too_large."""
    entries: list[tuple[str, Revision | None]] = [(f"{folder.name}/", None)]
    for path, entry in view.walk(folder, folder.name):
        entries.append((path, entry.revision) if isinstance(entry, File) else (f"{path}/", None))
    if len(entries) >= MAX_ENTRIES:
        raise RouteError("too_many_files")
    sizes = [revision.size for _, revision in entries if revision is not None]
    if sum(sizes) >= MAX_ZIP_BYTES or max(sizes, default=0) >= MAX_FILE_BYTES:
        raise RouteError("too_large")
    return ZipBody(contents, entries)
