"""Names and paths: PyFilesystem's form, the API's form, the lookup key, and the names that Dropbox refuses."""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

MAX_NAME_UTF16_UNITS = 255

# Names that Dropbox keeps for its desktop clients, in any case.
DISALLOWED_NAMES = frozenset({"desktop.ini", "thumbs.db", ".ds_store", "icon\r", ".dropbox", ".dropbox.attr"})
_BETWEEN = re.compile(r"/\.[0-9a-f]{12}\.renaming(/|$)")
REFUSED_CHARACTERS = {"\0": "a null character", "\\": "a backslash", "\x7f": "a delete character"}
_OLD_UNICODE = unicodedata.ucd_3_2_0


def to_api(path: str) -> str:
    """Return the API path of a normalised absolute PyFilesystem path ("/" becomes "")."""
    return "" if path in ("", "/") else path


def key(path: str) -> str:
    """Return the lookup key of a path in either form: what Dropbox calls path_lower.

    Dropbox normalises to NFC and lowers character by character (no final sigma), by a Unicode table that is older
    than Python's. Prefer the server's own path_lower where there is one.
    """
    path = to_api(path)
    if path.isascii():
        return path.lower()
    return "".join(map(_lower, unicodedata.normalize("NFC", path)))


def other_keys(known: str) -> set[str]:
    """Return the keys by which the same may be known, too, where Dropbox lowers other scripts otherwise than `key`."""
    return set() if known.isascii() else {key(known.upper()), unicodedata.normalize("NFC", known.lower())} - {known}


@lru_cache(maxsize=4096)
def _lower(character: str) -> str:
    """Lower one character as Dropbox does: by an old Unicode table, and to one character only."""
    lowered = character.lower()
    return lowered if len(lowered) == 1 and _OLD_UNICODE.category(character) != "Cn" else character


def parent(path: str) -> str:
    """Return the API path or key of the folder that holds an API path or key; the root is its own parent."""
    return path.rpartition("/")[0]


def ancestors(path: str) -> Iterator[str]:
    """Yield the folders above a path or key, nearest first, without the root."""
    above = parent(path)
    while above:
        yield above
        above = parent(above)


def name(path: str) -> str:
    """Return the last component of a path, "" for the root."""
    return path.rpartition("/")[2]


def spelling(path: str) -> str:
    """Return a path as Dropbox keeps it: with accents composed."""
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def extension(path: str) -> str:
    """Return what follows the last dot of a name, "" where there is none (or nothing before it)."""
    stem, _, found = name(path).rpartition(".")
    return found if stem else ""


def join(folder: str, child: str) -> str:
    """Return the API path or key of a child of a folder."""
    return f"{folder}/{child}"


def is_under(path: str, folder: str) -> bool:
    """Tell whether a key is a folder's own key or lies anywhere below it."""
    return not folder or path == folder or path.startswith(f"{folder}/")


def between(folder: str) -> str:
    """Return a path in a folder where something is while its name changes in case alone, which takes two moves."""
    return join(folder.rstrip("/"), f".{secrets.token_hex(6)}.renaming")


def is_between(path: str) -> bool:
    """Tell whether something was at a path, or below it, only while a name changed."""
    return _BETWEEN.search(path) is not None


@lru_cache(maxsize=1024)  # the same path is checked for each question about it
def check_path(path: str) -> str | None:
    """Return why Dropbox refuses a normalised absolute path, in words for people; None when it accepts it."""
    if path in ("", "/"):
        return None
    for component in path.lstrip("/").split("/"):
        reason = _check_name(component)
        if reason is not None:
            return reason
    return None


def _check_name(name: str) -> str | None:
    for character, meaning in REFUSED_CHARACTERS.items():
        if character in name:
            return f"Dropbox does not allow {meaning} in names"
    if name.endswith(" "):
        return "Dropbox does not allow names that end with a space"
    if not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name):
        return "the name is not valid Unicode"
    if len(name) * 2 > MAX_NAME_UTF16_UNITS and len(name.encode("utf-16-le")) // 2 > MAX_NAME_UTF16_UNITS:
        return f"Dropbox does not allow names longer than {MAX_NAME_UTF16_UNITS} characters"
    if name.lower() in DISALLOWED_NAMES:
        return f"Dropbox reserves the name {name!r}"
    return None
