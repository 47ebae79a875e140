"""A filesystem that has nothing but what each must have."""

from __future__ import annotations

from typing import Any

from fs.base import FS
from fs.memoryfs import MemoryFS


class Essential(FS):
    """Nothing but the methods that every filesystem must have, and nothing told about itself."""

    def __init__(self) -> None:
        super().__init__()
        self._inner = MemoryFS()

    def getinfo(self, path: str, namespaces: Any = None) -> Any:
        return self._inner.getinfo(path, namespaces)

    def listdir(self, path: str) -> Any:
        return self._inner.listdir(path)

    def makedir(self, path: str, permissions: Any = None, recreate: bool = False) -> Any:
        self._inner.makedir(path, permissions, recreate)
        return self.opendir(path)

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        assert not options, "options that nobody has offered"
        return self._inner.openbin(path, mode)

    def remove(self, path: str) -> None:
        self._inner.remove(path)

    def removedir(self, path: str) -> None:
        self._inner.removedir(path)

    def setinfo(self, path: str, info: Any) -> None:
        self._inner.setinfo(path, info)
