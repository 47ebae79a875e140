"""`Brawler`: a session that does things at random to names that others change at the same time. It expects nothing."""

from __future__ import annotations

import contextlib
import random

from sftp_gateway.sftp.packets import Kind
from tests.sftp_gateway.raw_client import A, C, R, Reply, T, W, X
from tests.sftp_gateway.sessions.random_places import Place

NAMES = ("a", "b", "c.txt")
FOLDERS = ("", "", "/d", "/e")
FLAGS = (W | C | T, W | C | T, W | C, R | W, W | C | A, W | C | X)

Tree = dict[str, bytes | None]


class Brawler:
    """One session below `root`; whatever it is told, it goes on."""

    def __init__(self, place: Place, root: str, seed: str) -> None:
        self.root = root
        self.chance = random.Random(seed)
        self.log: list[str] = []
        self._place = place
        self._raw = place.connect().raw()
        self._handles: list[bytes] = []

    def step(self) -> None:
        """Do something, or look at something."""
        chance = self.chance.random()
        if chance < 0.3:
            self._write()
        elif chance < 0.45:
            self._close()
        elif chance < 0.85:
            self._change_names()
        elif chance < 0.95:
            self._look()
        else:
            self._place.stir(self.chance)

    def close_all(self) -> None:
        while self._handles:
            self._close()

    def tree(self) -> Tree:
        """Return all that this session sees; AssertionError where the gateway contradicts itself."""
        return self._tree("")

    def _tree(self, folder: str) -> Tree:
        found: Tree = {}
        for name, attributes in self._raw.list(f"{self.root}{folder}").items():
            path = f"{folder}/{name}".lower()
            if name in (".", ".."):
                continue
            if attributes.permissions == 0o40755:
                found |= {path: None, **self._tree(path)}
            else:
                content = found[path] = self._raw.get(f"{self.root}{path}")
                told = self._raw.wait(self._raw.stat(f"{self.root}{path}"))
                assert told.kind == Kind.ATTRS, f"{path}: listed and read, then {told}"
                sizes = attributes.size, told.attributes.size, len(content)
                assert len(set(sizes)) == 1, f"{path}: listed, told and read are {sizes} bytes"
        return found

    def _path(self) -> str:
        return self.root + self.chance.choice(FOLDERS) + "/" + self.chance.choice(NAMES)

    def _folder(self) -> str:
        return self.root + self.chance.choice(FOLDERS[2:])

    def _either(self) -> str:
        return self._path() if self.chance.random() < 0.8 else self._folder()

    def _ask(self, what: str, request: int) -> Reply:
        self.log.append(what)
        reply = self._raw.wait(request)
        self.log[-1] += f" -> {reply}"
        assert "internal error" not in reply.text, self.log[-1]
        return reply

    def _write(self) -> None:
        path, flags = self._path(), self.chance.choice(FLAGS)
        reply = self._ask(f"open {path} {flags}", self._raw.open(path, flags))
        if reply.kind == Kind.HANDLE:
            self._handles.append(reply.handle)
            data = self.chance.randbytes(self.chance.choice((1, 1000, 70_000)))
            self._ask(f"write {path} {len(data)} bytes", self._raw.write(reply.handle, 0, data))
        if len(self._handles) > 3 or self.chance.random() < 0.5:
            self._close()

    def _close(self) -> None:
        if self._handles:
            handle = self._handles.pop(self.chance.randrange(len(self._handles)))
            self._ask(f"close {handle.hex()}", self._raw.close(handle))

    def _change_names(self) -> None:
        raw, source, target = self._raw, self._either(), self._either()
        kind = self.chance.choice(("rename", "posix-rename", "remove", "remove", "mkdir", "rmdir", "setstat"))
        if kind == "rename":
            self._ask(f"rename {source} {target}", raw.rename(source, target))
        elif kind == "posix-rename":
            self._ask(f"posix-rename {source} {target}", raw.posix_rename(source, target))
        elif kind == "remove":
            self._ask(f"remove {source}", raw.remove(source))
        elif kind == "setstat":
            self._ask(f"setstat {source} size=100", raw.setstat(source, size=100))
        else:
            folder = self._folder()
            self._ask(f"{kind} {folder}", raw.mkdir(folder) if kind == "mkdir" else raw.rmdir(folder))

    def _look(self) -> None:
        path = self._either()
        if self.chance.random() < 0.5:
            self._ask(f"stat {path}", self._raw.stat(path))
        elif self.chance.random() < 0.5:
            with contextlib.suppress(AssertionError):  # it is not there
                self._raw.list(self._folder())
        else:
            with contextlib.suppress(AssertionError):
                self._raw.get(path)
