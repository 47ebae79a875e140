"""`Documents`: files without bytes of their own (Paper, Google docs), shown as what they are exported as. No HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Final, Literal, TypeAlias, TypeGuard

import fs.errors
from cachetools import LRUCache

from fs_dropbox import paths
from fs_dropbox.conventions import path_error
from fs_dropbox.entries import FileEntry
from fs_dropbox.errors import ApiError, fs_errors
from fs_dropbox.metadata.known import Present
from fs_dropbox.metadata.single_flight import SingleFlight
from fs_dropbox.pool import map_in

Show: TypeAlias = Literal["export", "as_is", "hide"]
Export: TypeAlias = Callable[[FileEntry, str | None], bytes]

# What each kind of document is exported as unless its reader wants something else; others as Dropbox proposes.
_DEFAULTS: Final = {"paper": "markdown", "papert": "markdown"}
_KINDS: Final = {"paper": "a Paper document", "papert": "a Paper template"} | dict.fromkeys(
    ("gdoc", "gsheet", "gslides"), "a Google document"
)
_EXTENSIONS: Final = {"markdown": "md", "plain_text": "txt"}  # of formats that are not named by their extension
_EXPORTED: Final = frozenset({"md", "html", "txt", "docx", "xlsx", "pptx", "pdf", "csv", "odt", "ods", "odp", "rtf"})
HELD_BYTES: Final = 32 * 2**20
SIZES_KEPT: Final = 20_000
SHOWS: Final[Sequence[Show]] = ("export", "as_is", "hide")


class Documents:
    """Names, sizes and contents of exports. Thread-safe: one leaf lock over what is held; exports run unlocked.

    `Notes.paper` is shown as `Notes.paper.md`: its own name with the extension of the export, so that two documents
    never share a name, none takes the place of a real `Notes.md`, and each way back is plain. Its size is that of the
    export, exact, because clients stop reading where the size says so: to tell it, a document is exported, once for a
    revision. At most `HELD_BYTES` of exports are held.

    Owned by DropboxFS. Raises `fs.errors` errors.
    """

    def __init__(
        self, export: Export, executor: Executor, *, show: Show = "export", formats: Sequence[str] = ()
    ) -> None:
        """Set up.

        Args:
            export: gives the content of a revision in a format; raises ApiError or TransportError.
            executor: where the documents of a folder are exported at once.
            show: "export"; "as_is" for their own names and sizes, unreadable; "hide" leaves them out of listings.
            formats: which to prefer, such as "html" or "docx", in this order; none for a default by kind.
        """
        self._export = export
        self._executor = executor
        self._show = show
        self._formats = tuple(each.strip().lower() for each in formats)
        self._flights = SingleFlight()
        self._lock = threading.Lock()
        # guarded by _lock; rev and format -> what the export is, and how long (0: there is none)
        self._held: LRUCache[tuple[str, str | None], bytes] = LRUCache(HELD_BYTES, getsizeof=len)
        self._sizes: LRUCache[tuple[str, str | None], int] = LRUCache(SIZES_KEPT)

    def named(self, entry: Present) -> Present:
        """Return an entry under the name that it is shown by."""
        if self._show != "export" or not has_no_bytes(entry) or not is_document(entry):
            return entry
        return entry._replace(name=f"{entry.name}.{self._extension(entry)}")

    def listed(self, entries: list[Present]) -> list[Present]:
        """Return what is in a folder as it is shown. A name that a real file has already is left to it."""
        if not any(map(has_no_bytes, entries)):
            return entries
        if self._show == "hide":
            return [each for each in entries if not has_no_bytes(each)]
        taken = {paths.key(each.name) for each in entries}
        named = [(each, self.named(each)) for each in entries]
        return [each if shown is not each and paths.key(shown.name) in taken else shown for each, shown in named]

    def original(self, path: str) -> str | None:
        """Return the path of the document that a path would be the export of; None for all other names."""
        stem, _, extension = path.rpartition(".")
        if self._show != "export" or extension.lower() not in _EXPORTED or _kind(stem) is None:
            return None
        return stem

    def is_shown_at(self, entry: Present | None, path: str) -> bool:
        """Tell whether an entry, found at `original(path)`, is the document that is shown at `path`."""
        return has_no_bytes(entry) and paths.key(self.named(entry).name) == paths.key(paths.name(path))

    def sized(self, path: str, entries: Iterable[Present]) -> list[Present]:
        """Return entries with the sizes of what can be read; `path` is where errors are said to be.

        Documents whose size is not known yet are exported, several at once. One that Dropbox refuses to export has the
        size 0: opening it tells why.
        """
        sized = list(entries)
        if self._show != "export":
            return sized
        documents = {at: each for at, each in enumerate(sized) if has_no_bytes(each)}
        with fs_errors(path):
            sizes = map_in(self._executor, self._size, list(documents.values()))
            for (at, entry), size in zip(documents.items(), sizes, strict=True):
                sized[at] = entry._replace(size=size, content_hash=None)
        return sized

    def known_size(self, entry: Present) -> Present | None:
        """Return an entry with the size of what can be read, None where a document would have to be exported."""
        if self._show != "export" or not has_no_bytes(entry):
            return entry
        size = self._kept_size(entry)
        return None if size is None else entry._replace(size=size, content_hash=None)

    def content(self, path: str, entry: FileEntry) -> bytes:
        """Return what a document is exported as; raises Unsupported where it cannot be."""
        if self._show != "export" or entry.export is None:
            why = "Dropbox has no export of it" if entry.export is None else "documents are not exported here"
            raise path_error(
                fs.errors.Unsupported, path, f"{kind_of(entry)} cannot be downloaded, only exported, and {why}"
            )
        with fs_errors(path):
            return self._content(entry)

    def target(self, source: FileEntry, path: str) -> str:
        """Return where a document goes that is moved or copied to `path`: it keeps its own extension."""
        if not paths.extension(source.path_display):
            return path
        extension = f".{paths.extension(source.path_display)}"
        shown = f"{extension}.{self._extension(source)}"
        if path.lower().endswith(shown.lower()):
            return path[: len(path) - len(shown) + len(extension)]
        if path.lower().endswith(extension.lower()):
            return path
        raise path_error(fs.errors.Unsupported, path, f"{kind_of(source)} keeps its extension: call it *{shown}")

    def _size(self, entry: FileEntry) -> int:
        known = self._kept_size(entry)
        if known is not None:
            return known
        try:
            return len(self._content(entry)) if entry.export is not None else 0
        except ApiError as error:
            if error.is_transient:
                raise
            with self._lock:
                self._sizes[entry.rev, self._format(entry)] = 0
            return 0

    def _kept_size(self, entry: FileEntry) -> int | None:
        with self._lock:
            return self._sizes.get((entry.rev, self._format(entry)))

    def _content(self, entry: FileEntry) -> bytes:
        key = entry.rev, self._format(entry)
        with self._lock:
            held = self._held.get(key)
        if held is not None:
            return held
        content = self._flights.do(key, lambda: self._export(entry, key[1]))
        with self._lock:
            self._sizes[key] = len(content)
            if len(content) <= HELD_BYTES:
                self._held[key] = content
        return content

    def _format(self, entry: FileEntry) -> str | None:
        """Return the format to ask for, None for the one that Dropbox proposes."""
        export = entry.export
        if export is None:
            return None
        offered = export.options or ((export.format,) if export.format else ())
        default = _DEFAULTS.get(paths.extension(entry.path_display or entry.name).lower())
        chosen = next((each for each in (*self._formats, default) if each in offered), None)
        return chosen if chosen != export.format else None

    def _extension(self, entry: FileEntry) -> str:
        chosen = self._format(entry) or (entry.export.format if entry.export else None) or "bin"
        return _EXTENSIONS.get(chosen, chosen)


def check_show(show: str) -> None:
    """Raise ValueError for what is no way to show documents."""
    if show not in SHOWS:
        raise ValueError(f"documents is one of {', '.join(SHOWS)}, not {show!r}")


def has_no_bytes(entry: Present | None) -> TypeGuard[FileEntry]:
    """Tell whether an entry is a file that cannot be downloaded, only exported."""
    return isinstance(entry, FileEntry) and not entry.is_downloadable


def is_document(entry: FileEntry) -> bool:
    """Tell whether an entry is shown by the name of its export: one of the known kinds that can be exported."""
    return entry.export is not None and _kind(entry.name) is not None


def is_document_name(path: str) -> bool:
    """Tell whether a path ends like those of documents."""
    return _kind(path) is not None


def kind_of(entry: FileEntry) -> str:
    """Return what a file is that cannot be downloaded, in words for people."""
    return _kind(entry.path_display or entry.name) or "this kind of file"


def _kind(name: str) -> str | None:
    return _KINDS.get(paths.extension(name).lower())
