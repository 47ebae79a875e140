"""The rules of Dropbox path strings: lookup keys, what is malformed, which names are refused. Knows no tree."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from fs_dropbox.emulator.model.errors import PathLookupError, TaggedError, WriteError

MAX_NAME_UNITS = 255  # UTF-16 code units in one component
_DISALLOWED = frozenset({"desktop.ini", "thumbs.db", ".ds_store", "icon\r", ".dropbox", ".dropbox.attr"})
_OLD_UNICODE = unicodedata.ucd_3_2_0


def normalize(name: str) -> str:
    """Return the name as Dropbox stores it: composed (NFC)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


@lru_cache(maxsize=65536)
def fold(name: str) -> str:
    """Return the lookup key of a name or path: NFC, then lower case by an old Unicode table, letter by letter."""
    if name.isascii():
        return name.lower()
    return "".join(_lower(character) for character in normalize(name))


def _lower(character: str) -> str:
    lowered = character.lower()
    known = len(lowered) == 1 and _OLD_UNICODE.category(character) != "Cn"
    return lowered if known else character


def split(path: str, *, astral: bool = True, writing: bool = False) -> list[str]:
    """Return the components of an absolute path, or raise malformed_path or disallowed_name.

    `writing` tells which error union the answer needs; only names that are written can be disallowed.
    """
    if path == "":
        return []
    failed: type[TaggedError] = WriteError if writing else PathLookupError
    components = path.split("/")[1:]
    for component in components:
        if _is_malformed(component, astral):
            raise failed("malformed_path")
    if writing and any(component.lower() in _DISALLOWED for component in components):
        raise WriteError("disallowed_name")
    return [normalize(component) for component in components]


def _is_malformed(component: str, astral: bool) -> bool:
    if component in ("", ".", "..") or component.endswith(" "):
        return True
    if "\\" in component or "\x7f" in component or "\x00" in component:
        return True
    try:
        units = _units(component)
    except UnicodeEncodeError:  # a lone surrogate
        return True
    return units > MAX_NAME_UNITS or (not astral and units != len(component))


def _units(text: str) -> int:
    """Return the length in UTF-16 code units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def with_suffix(name: str, suffix: str) -> str:
    """Return "report (1).txt" for "report.txt" and " (1)", whether it names a file or a folder.

    The stem of a long name gives way, so that the whole is no longer than a name may be.
    """
    stem, dot, extension = name.rpartition(".")
    end = f"{suffix}.{extension}"
    if not dot or not stem or _units(end) >= MAX_NAME_UNITS:
        stem, end = name, suffix
    while _units(stem + end) > MAX_NAME_UNITS:
        stem = stem[:-1]
    return stem + end
