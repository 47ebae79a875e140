"""`one_at_a_time`: makes a filesystem that is not thread-safe usable by the gateway's threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Final, cast

from fs.base import FS

_NOT_SAFE: Final = {"fs.tarfs.ReadTarFS", "fs.sshfs.sshfs.SSHFS"}
"""They claim to be thread-safe, but have one position for all files, or share one paramiko client."""


def one_at_a_time(filesystem: FS) -> FS:
    """Return the filesystem itself if it is thread-safe, else a wrapper that lets one thread in at a time."""
    is_known = any(f"{kind.__module__}.{kind.__qualname__}" in _NOT_SAFE for kind in type(filesystem).__mro__)
    if filesystem.getmeta().get("thread_safe") is not False and not is_known:
        return filesystem
    return cast(FS, _Filesystem(filesystem, threading.RLock()))


class _OneAtATime:
    """A wrapper whose methods, and those of the files that they return, run in one thread at a time.

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
        """Return the metadata with `network` set: every call may have to wait."""
        with self._lock:
            meta = self._inner.getmeta(namespace)
        return {**meta, "network": True} if namespace == "standard" else meta
