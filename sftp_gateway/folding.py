"""Which spellings of a path are one for a filesystem that folds case, and which one is shown. Pure."""

from __future__ import annotations

import unicodedata

from fs.path import basename


def fold_path(path: str) -> str:
    """Return what is equal for all spellings of a path; macOS writes letters and their accents apart."""
    return path.lower() if path.isascii() else unicodedata.normalize("NFC", path).lower()


def shown_name(path: str) -> str:
    """Return the name of what is at `path` as a listing shows it once it is stored: composed."""
    return unicodedata.normalize("NFC", basename(path))
