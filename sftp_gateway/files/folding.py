"""Equal spellings of paths for filesystems that fold case, and which path lies below which. Pure."""

from __future__ import annotations

import unicodedata

from fs.path import basename


def fold_path(path: str) -> str:
    """Return a key that is equal for all spellings of a path; macOS sends decomposed names.

    Storages lower each letter by itself, while Python treats the final sigma and İ in special ways.
    """
    if path.isascii():
        return path.lower()
    path = unicodedata.normalize("NFC", path).replace("\u03a3", "\u03c3")
    return "İ".join(map(str.lower, path.split("İ"))) if "İ" in path else path.lower()


def shown_name(path: str) -> str:
    """Return the name of what is at `path` as a listing shows it once it is stored: composed."""
    return unicodedata.normalize("NFC", basename(path))


def is_at_or_below(key: str, other: str) -> bool:
    """Tell whether a folded path is another one, or lies below it."""
    return key == other or key.startswith(other.rstrip("/") + "/")


def related(key: str, other: str) -> bool:
    """Tell whether two folded paths are the same, or one lies below the other."""
    if len(key) == len(other):
        return key == other
    if len(key) < len(other):
        key, other = other, key
    return key.startswith(other.rstrip("/") + "/")


def moved(path: str, source: str, target: str) -> str:
    """Return the new path of what is at `path` after `source`, at or above it, was renamed to `target`."""
    rest = path.split("/")[source.rstrip("/").count("/") + 1 :]
    return "/".join([target.rstrip("/"), *rest])
