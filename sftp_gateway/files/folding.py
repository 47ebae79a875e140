"""Which spellings of a path are one for a filesystem that folds case, which is shown, and what lies where. Pure."""

from __future__ import annotations

import unicodedata

from fs.path import basename


def fold_path(path: str) -> str:
    """Return what is equal for all spellings of a path; macOS writes letters and their accents apart.

    Storages lower each letter by itself. Python knows the sigma at the end of a word, and makes two letters of İ.
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
    """Return the path of what is at `path`, at or below `source`, once that is `target`; spellings may differ."""
    rest = path.split("/")[source.rstrip("/").count("/") + 1 :]
    return "/".join([target.rstrip("/"), *rest])
