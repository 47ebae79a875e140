"""What a process that serves takes of its system: open files, memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource

_ARENA_MAX = -8  # M_ARENA_MAX, malloc.h of the GNU C library
_ARENAS = 2


def allow_many_files() -> None:
    """Let this process open as many files as the system lets it: a session takes up to four; 1024 are usual."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def share_free_memory() -> None:
    """Let threads take what others have let go of; call it before there are threads.

    Else the C library keeps what was free at last for each few of them, up to eight times as often as there are cores:
    hundreds of megabytes where tens are in use.
    """
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_ARENA_MAX, _ARENAS)


def keep_loaded() -> None:
    """Take all that is loaded by now for what stays: nobody looks through it for what could be freed any more.

    That would stop all threads each time, and write to memory that forked processes share.
    """
    gc.collect()
    gc.freeze()
