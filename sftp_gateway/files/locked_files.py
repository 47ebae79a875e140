"""Files whose lock tells whether a process uses them: how they are made, tested, and removed if never finished."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

NEW_SUFFIX: Final = ".new"  # until a file gets its final name, moments later
_FORGOTTEN_SECONDS: Final = 3600.0


def create(directory: Path, suffix: str) -> tuple[Path, int]:
    """Make a file with mode 0600; return its path and the descriptor that holds its lock. Raises OSError."""
    path = directory / f"{secrets.token_hex(12)}{suffix}"
    begun = path.with_suffix(NEW_SUFFIX)
    descriptor = os.open(begun, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        begun.rename(path)  # after it is locked: unlocked under this name, others would take it for abandoned
    except BaseException:
        os.close(descriptor)
        begun.unlink(missing_ok=True)
        raise
    return path, descriptor


@contextlib.contextmanager
def locked(file: Path, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Lock a file within a `with`; raises BlockingIOError if it is locked already, and OSError."""
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def is_locked(file: Path) -> bool:
    """Tell whether a process uses a file. It is locked for a moment, which others have to expect. Raises OSError."""
    try:
        with locked(file, fcntl.LOCK_SH):
            return False
    except BlockingIOError:
        return True


def clear_begun(file: Path) -> None:
    """Remove a file that never got its final name, if it is old enough that its process must have died."""
    with contextlib.suppress(OSError):
        if time.time() - file.stat().st_mtime > _FORGOTTEN_SECONDS:
            file.unlink()
