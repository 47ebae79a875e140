"""`one_at_a_time`: a filesystem that is not made for threads, for the many that the gateway has."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Final, cast

from fs.base import FS

_NOT_SAFE: Final = {"fs.tarfs.ReadTarFS", "fs.sshfs.sshfs.SSHFS"}
"""They say that they are, and yet have one position for all files, or one SFTP client of paramiko's."""


def one_at_a_time(filesystem: FS) -> FS:
    """Return the filesystem itself, or where it says, or is known, not to be safe in threads, one that lets in one."""
    is_known = any(f"{kind.__module__}.{kind.__qualname__}" in _NOT_SAFE for kind in type(filesystem).__mro__)
    if filesystem.getmeta().get("thread_safe") is not False and not is_known:
        return filesystem
    return cast(FS, _Filesystem(filesystem, threading.RLock()))


class _OneAtATime:
    """Something whose methods are called by one thread at a time, and so are those of what they return.

    One reentrant lock for a filesystem and all its files, held over its calls on purpose.
    """

    def __init__(self, inner: Any, lock: Any) -> None:
        self._inner = inner
        self._lock = lock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                result = found(*arguments, **options)
                if isinstance(result, FS) or hasattr(result, "read"):
                    return _OneAtATime(result, self._lock)
                return iter(list(result)) if isinstance(result, Iterator) else result

        return call


class _Filesystem(_OneAtATime):
    def getmeta(self, namespace: str = "standard") -> Any:
        """Say that every call may have to wait."""
        with self._lock:
            meta = self._inner.getmeta(namespace)
        return {**meta, "network": True} if namespace == "standard" else meta
