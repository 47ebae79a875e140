"""Files of which a lock tells whether somebody uses them: how they are made, looked at, and cleared away half made."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

NEW_SUFFIX: Final = ".new"  # of what gets its name moments later
_FORGOTTEN_SECONDS: Final = 3600.0


def create(directory: Path, suffix: str) -> tuple[Path, int]:
    """Make a file that only we can read; return its path and the descriptor that has it locked. Raises OSError."""
    path = directory / f"{secrets.token_hex(12)}{suffix}"
    begun = path.with_suffix(NEW_SUFFIX)
    descriptor = os.open(begun, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        begun.rename(path)  # locked before it has the name by which others would take it for forgotten
    except BaseException:
        os.close(descriptor)
        begun.unlink(missing_ok=True)
        raise
    return path, descriptor


@contextlib.contextmanager
def locked(file: Path, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Have a file locked meanwhile; raises BlockingIOError where it is locked already, and OSError."""
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def is_locked(file: Path) -> bool:
    """Tell whether somebody uses a file; whoever takes it over waits for such a look. Raises OSError."""
    try:
        with locked(file, fcntl.LOCK_SH):
            return False
    except BlockingIOError:
        return True


def clear_begun(file: Path) -> None:
    """Remove what was to get its name, if its process died long ago."""
    with contextlib.suppress(OSError):
        if time.time() - file.stat().st_mtime > _FORGOTTEN_SECONDS:
            file.unlink()
