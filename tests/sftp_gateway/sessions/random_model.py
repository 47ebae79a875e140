"""A plain model of what a session sees of its folder, as docs/semantics.md has it: names, sizes, contents, times.

It knows nothing of requests, caches or journals: each method is what one request does where it succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from sftp_gateway.files.intervals import Intervals


def parent_of(key: str) -> str:
    return key.rpartition("/")[0] or "/"


def is_below(key: str, folder: str) -> bool:
    return key.startswith(folder.rstrip("/") + "/")


@dataclass
class File:
    """A committed file; `time` is None until it is known. `is_loose`: the storage may keep an earlier time."""

    name: str
    content: bytes
    time: int | None = None
    is_loose: bool = False


@dataclass
class Partial:
    """What is left of an upload that was cut off."""

    name: str
    content: bytes


@dataclass(eq=False)
class Writer:
    """A file that is being written, over nothing, or over what is committed."""

    handle: bytes
    key: str
    name: str
    content: bytearray
    flags: int
    is_new: bool  # nothing committed had its name
    dirty: bool
    based: bool = False  # over committed content
    has_gaps: bool = True  # of zeros that nobody sends; not where something was cut off, whose end its client may mean
    goes_on: int | None = None  # its size when it was opened over what an upload without an end was to replace
    time: int | None = None
    received: Intervals = field(default_factory=Intervals)
    may_be_kept: bool | None = None  # cut off now; None: not promised

    def write(self, offset: int, data: bytes) -> None:
        if not data:
            return
        end = offset + len(data)
        if len(self.content) < end:
            self.content.extend(bytes(end - len(self.content)))
        self.content[offset:end] = data
        self.received.add(offset, end)
        self.dirty = True

    def truncate(self, size: int) -> None:
        if size != len(self.content):
            self.received.remove(size, max(size, self.received.end))
            self.content[size:] = bytes(max(0, size - len(self.content)))
            self.dirty, self.goes_on = True, None

    @property
    def may_be_refused(self) -> bool:
        """Whether its client may mean to go on with an upload that was cut off, and has the old content before that."""
        return self.goes_on is not None and self.received.prefix <= self.goes_on < len(self.content)


class Model:
    """One folder. Keys are folded paths within it; "/" is the folder itself."""

    def __init__(self, fold: Callable[[str], str]) -> None:
        self.fold = fold
        self.folders: dict[str, str] = {"/": ""}  # key to name
        self.files: dict[str, File] = {}
        self.partials: dict[str, Partial] = {}
        self.writers: dict[str, Writer] = {}
        self.unnamed: set[str] = set()  # whose case the next listing tells
        self.to_go: dict[str, File] = {}  # what uploads that were cut off were to replace as a whole
        self._had: dict[str, set[bytes]] = {}  # contents by key

    # -- looking

    def size(self, key: str) -> int | None:
        """Return the size of the file that is seen at a path; None where none is."""
        content = self.content(key)
        return None if content is None else len(content)

    def content(self, key: str) -> bytes | None:
        """Return what the session itself reads at a path."""
        if (writer := self.writers.get(key)) is not None:
            return bytes(writer.content)
        if (file := self.files.get(key)) is not None:
            return file.content
        partial = self.partials.get(key)
        return None if partial is None else partial.content

    def is_there(self, key: str) -> bool:
        return key in self.folders or self.size(key) is not None

    def names(self, folder: str) -> dict[str, int | None]:
        """Return what a listing shows: name to size, None for folders."""
        shown: dict[str, int | None] = {name: None for key, name in self.folders.items() if _is_in(key, folder)}
        for key in self.visible():
            if _is_in(key, folder):
                shown[self.name(key)] = self.size(key)
        return shown

    def learn_names(self, folder: str, shown: Iterable[str]) -> None:
        """Take the case of names over that is not known."""
        names = {self.fold(name): name for name in shown}
        for key in [key for key in self.unnamed if _is_in(key, folder)]:
            self.unnamed.discard(key)
            held = self.files.get(key) or self.writers.get(key) or self.partials.get(key)
            if held is not None:
                held.name = names.get(key.rpartition("/")[2], held.name)

    def name(self, key: str) -> str:
        held = self.files.get(key) or self.writers.get(key) or self.partials.get(key)
        return self.folders[key] if held is None else held.name

    def visible(self) -> Iterator[str]:
        """Yield the keys of all files that are seen."""
        yield from dict.fromkeys([*self.files, *self.writers, *self.partials])

    def below(self, folder: str) -> list[str]:
        return [key for key in [*self.folders, *self.visible()] if key != folder and is_below(key, folder)]

    def can_hold(self, key: str) -> bool:
        """Tell whether a path's parent is a folder."""
        return parent_of(key) in self.folders

    # -- files

    def commit(self, key: str, name: str, content: bytes, time: int | None) -> None:
        old = self.files.get(key)
        self.partials.pop(key, None)
        had = self._had.setdefault(key, set())
        is_loose = content in had or not content
        had.add(content)
        self.files[key] = File(old.name if old is not None else name, content, time, is_loose)

    def close(self, writer: Writer) -> bool:
        """Commit what was written; tell whether that was anything."""
        del self.writers[writer.key]
        if writer.dirty:
            self.commit(writer.key, writer.name, bytes(writer.content), writer.time)
        return writer.dirty

    def cut(self) -> list[str]:
        """End what is being written; return the paths of which it is not promised whether something is kept."""
        unclear = []
        for key, writer in list(self.writers.items()):
            del self.writers[key]
            if key in self.files and not writer.based:
                self.to_go[key] = self.files[key]
            left = max(0, min(writer.received.prefix, len(writer.content)) - 1)
            if not writer.is_new or writer.based or key in self.files or not left:
                continue
            if writer.may_be_kept is None:
                unclear.append(key)
            self.partials[key] = Partial(writer.name, bytes(writer.content[:left]))
        return unclear

    def remove(self, key: str) -> Writer | None:
        """Remove a file; return what was being written in its place, which has ended."""
        self.files.pop(key, None)
        self.partials.pop(key, None)
        return self.writers.pop(key, None)

    # -- names

    def may_rename(self, source: str, target: str, *, replace: bool, is_same: bool) -> bool:
        """Tell whether a plain rename, or one that replaces, succeeds; `is_same`: even the case is."""
        if not self.is_there(source) or not self.can_hold(target) or is_below(target, source):
            return False
        if source in self.partials and source not in self.files and source not in self.writers:
            return False  # it is not finished
        if source == target:
            return replace or not is_same
        if not self.is_there(target):
            return True
        if not replace or (source in self.folders) != (target in self.folders):
            return False
        return target not in self.folders or not self.below(target)

    def rename(self, source: str, target: str, name: str) -> Writer | None:
        """Give a path another name; what was there is replaced. Return what was being written there."""
        ended = None
        if source in self.folders:
            if source != target:
                self.folders.pop(target, None)
            for key in self.below(source):
                self._move(key, target.rstrip("/") + key[len(source.rstrip("/")) :], None)
            del self.folders[source]
            self.folders[target] = name
            return None
        if source != target:
            is_only_being_written = source not in self.files
            old = self.files.get(target)
            if self.size(target) is not None:
                self.unnamed.add(target)
            ended = self.remove(target)
            if old is not None and is_only_being_written:
                self.files[target] = old  # until what is being written is closed
        self._move(source, target, name)
        return ended

    def _move(self, source: str, target: str, name: str | None) -> None:
        if source in self.folders:
            self.folders[target] = self.folders.pop(source)
            return
        if name is None and source in self.unnamed:
            self.unnamed.remove(source)
            self.unnamed.add(target)
        for table in (self.files, self.partials, self.writers):
            if source in table:
                held = table.pop(source)
                if name is not None:
                    held.name = name
                if isinstance(held, Writer):
                    held.key = target
                elif isinstance(held, File) and source != target:
                    had = self._had.setdefault(target, set())
                    held.is_loose |= held.content in had
                    had.add(held.content)
                table[target] = held  # type: ignore[assignment]


def _is_in(key: str, folder: str) -> bool:
    return key != "/" and parent_of(key) == folder
