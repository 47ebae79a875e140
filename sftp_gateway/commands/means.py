"""System resources of a serving process: open files, memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource

_ARENA_MAX = -8  # M_ARENA_MAX, malloc.h of the GNU C library
_ARENAS = 2


def allow_many_files() -> None:
    """Raise the limit of open files as far as the system allows: a session takes up to four, and 1024 is usual."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def share_free_memory() -> None:
    """Let threads reuse memory that other threads have freed; to be called before there are threads.

    Otherwise the C library keeps up to eight arenas of free memory for each core: hundreds of megabytes if tens are
    in use.
    """
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_ARENA_MAX, _ARENAS)


def keep_loaded() -> None:
    """Exempt everything that is loaded by now from garbage collection (`gc.freeze`).

    Each full collection would stop all threads to look through it, and write to memory that forked processes share.
    """
    gc.collect()
    gc.freeze()
