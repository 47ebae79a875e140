"""What files that are being written hold, and how small steps make everything happen within some hundred bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from sftp_gateway.files import forwarding, freeing, notes, pace, partials, plain_upload, spool, storing, stream
from sftp_gateway.sftp.packets import OpenFlag

MOST_BYTES = 400


class Moments:
    """Where a process may be killed: before and after each change of the local disk."""

    def __init__(self) -> None:
        self.act: Callable[[], None] = lambda: None


MOMENTS = Moments()
NOW = itertools.count()


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything that is done every few mebibytes done every few bytes."""
    monkeypatch.setattr(forwarding, "STREAM_FROM_BYTES", 20)
    monkeypatch.setattr(forwarding, "LAG_BYTES", 40)
    for module in (stream, storing, plain_upload):
        monkeypatch.setattr(module, "PIECE_BYTES", 16)
    monkeypatch.setattr(notes, "NOTE_BYTES", 16)
    monkeypatch.setattr(notes, "NOTE_SECONDS", 0)
    monkeypatch.setattr(pace, "THIN_BYTES", 16)
    monkeypatch.setattr(freeing, "LARGE_BYTES", 100)
    monkeypatch.setattr(spool, "PAGE_BYTES", 3)
    around(monkeypatch, spool.Spool, "truncate")
    around(monkeypatch, partials.Partials, "save")
    around(monkeypatch, partials.Partials, "forget")


def around(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    method = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        MOMENTS.act()
        result = method(*args, **options)
        MOMENTS.act()
        return result

    monkeypatch.setattr(owner, name, wrapped)


@dataclass(eq=False)
class Model:
    """What a file that is being written holds."""

    path: str
    content: bytearray
    sent: set[int] = field(default_factory=set)  # positions
    doubtful: set[int] = field(default_factory=set)  # positions of WRITEs that were refused
    refused: set[int] = field(default_factory=set)  # the same, also where the file was cut since
    dirty: bool = True
    is_partial: bool = False
    vague: bool = False  # what it was written over has changed, on a storage that does not keep versions
    based: bool = False
    is_outdated: bool = False  # others have changed what it is written over
    is_exclusive: bool = False
    is_copy: bool = False  # of another file, until it is stored
    replaces: bytes | None = None  # what was there when it was begun anew
    refuses_ends: bool = False  # who only adds to the old content takes that for what was cut off
    touched: int = field(default_factory=NOW.__next__)  # grows with whatever is written anywhere

    def write(self, offset: int, data: bytes) -> None:
        if not data:
            return
        end = offset + len(data)
        self.content.extend(bytes(max(0, offset - len(self.content))))
        self.content[offset:end] = data
        self.sent.update(range(offset, end))
        self.doubtful.difference_update(range(offset, end))
        self.refused.difference_update(range(offset, end))
        self._touch()

    def resize(self, size: int) -> None:
        if size == len(self.content):
            return
        self.refuses_ends = False
        del self.content[size:]
        self.content.extend(bytes(size - len(self.content)))
        self.sent = {position for position in self.sent if position < size}
        self.doubtful = {position for position in self.doubtful if position < size}
        self._touch()

    def _touch(self) -> None:
        self.dirty, self.touched = True, next(NOW)

    def holds(self, found: bytes) -> bool:
        return all(at in self.doubtful or self.content[at] == byte for at, byte in enumerate(found))

    def copy(self) -> Model:
        return Model(self.path, bytearray(self.content), set(self.sent), set(self.doubtful), touched=self.touched)


def torn(old: Model, new: Model) -> Model:
    """Return what is there when the process dies amid a WRITE: of each byte the old or the new."""
    mixed = new.copy()
    mixed.sent |= old.sent
    mixed.doubtful |= {at for at, pair in enumerate(zip(old.content, new.content, strict=False)) if pair[0] != pair[1]}
    return mixed


def flag_names(flags: int) -> str:
    return " ".join(flag.name or "" for flag in OpenFlag if flags & flag)
