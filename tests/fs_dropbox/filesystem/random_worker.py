"""A thread that does random things in its folder of an account, and compares what it sees with a plain model."""

from __future__ import annotations

import io
import random
import traceback
from collections.abc import Callable
from functools import partial

import fs.errors
import pytest
from fs.base import FS

from fs_dropbox import DropboxFS, paths

COMMON = "/Common"
NAMES = ("alpha", "Beta.txt", "gamma", "Ünï", "e")
DEPTH = 3
Held = dict[str, bytes | None]  # folded path -> content, None for folders


class Worker:
    """One thread: does random things in its folder, and compares what it sees with its model."""

    def __init__(self, account: DropboxFS, number: int, seed: int) -> None:
        self.chance = random.Random(seed * 1000 + number)
        self.number = number
        self.account = account
        self.root = f"{COMMON}/Thread {number}"
        self.held: Held = {}
        self.done: list[str] = []
        below = account.makedirs(self.root)
        self.views: list[tuple[FS, str]] = [
            (account, self.root),
            (below, ""),
            (account.opendir(COMMON), self.root[len(COMMON) :]),
        ]

    def work(self, operations: int) -> None:
        """Do so much; whatever goes wrong tells what was done."""
        try:
            for _ in range(operations):
                self.step()
                self.look()
        except Exception as error:
            done = "\n".join(self.done)
            raise AssertionError(f"thread {self.number}:\n{done}\n{traceback.format_exc()}") from error

    # What there is to choose from

    def folders(self) -> list[str]:
        return ["", *(path for path, content in self.held.items() if content is None)]

    def files(self) -> list[str]:
        return [path for path, content in self.held.items() if content is not None]

    def below(self, folder: str) -> list[str]:
        return [path for path in self.held if path.startswith(f"{folder}/")]

    def new(self) -> str | None:
        """Return a path in a folder that is there, at which there is nothing."""
        found = [
            path
            for folder in self.folders()
            for name in NAMES
            if folder.count("/") < DEPTH and (path := f"{folder}/{paths.key(name)}") not in self.held
        ]
        return self.chance.choice(found) if found else None

    def any_of(self, found: list[str]) -> str | None:
        return self.chance.choice(found) if found else None

    def at(self, path: str) -> tuple[FS, str]:
        """Return a filesystem and where it has a path, in any case of letters."""
        filesystem, prefix = self.chance.choice(self.views)
        spelt = "".join(self.chance.choice((letter, letter.upper())) if letter.isascii() else letter for letter in path)
        return filesystem, prefix + spelt or "/"

    def pair(self, source: str, target: str) -> tuple[FS, str, str]:
        filesystem, prefix = self.chance.choice(self.views)
        return filesystem, prefix + source, prefix + target

    # Operations: each changes the account and then the model

    def step(self) -> None:
        kinds: list[Callable[[], str | None]] = [
            self.make_all, self.make_all, self.make, self.write, self.write, self.create, self.append, self.remove,
            self.remove_folder, self.remove_tree, self.move, self.replace, self.move_folder, self.copy,
            self.copy_folder, self.upload_many, self.change_case,
        ]  # fmt: skip
        while self.chance.choice(kinds)() is None:
            pass

    def noted(self, what: str) -> str:
        self.done.append(what)
        return what

    def make_all(self) -> str | None:
        path = "".join(f"/{paths.key(self.chance.choice(NAMES))}" for _ in range(self.chance.randint(1, DEPTH)))
        above = [path, *paths.ancestors(path)]
        if path in self.held or any(self.held.get(each) is not None for each in above):
            return None
        what = self.noted(f"makedirs {path}")
        filesystem, where = self.at(path)
        filesystem.makedirs(where)
        self.held |= dict.fromkeys(above)
        return what

    def make(self) -> str | None:
        if (path := self.new()) is None:
            return None
        what = self.noted(f"makedir {path}")
        filesystem, where = self.at(path)
        filesystem.makedir(where)
        self.held[path] = None
        return what

    def write(self) -> str | None:
        path = self.new() if self.chance.random() < 0.6 else self.any_of(self.files())
        if path is None:
            return None
        content = self.chance.randbytes(self.chance.randrange(20))
        what = self.noted(f"write {path} ({len(content)} bytes)")
        filesystem, where = self.at(path)
        filesystem.writebytes(where, content)
        self.held[path] = content
        return what

    def create(self) -> str | None:
        if (path := self.new()) is None:
            return None
        what = self.noted(f"create {path}")
        filesystem, where = self.at(path)
        assert filesystem.create(where)
        self.held[path] = b""
        return what

    def append(self) -> str | None:
        if (path := self.any_of(self.files())) is None:
            return None
        what = self.noted(f"append {path}")
        filesystem, where = self.at(path)
        filesystem.appendbytes(where, b"more")
        self.held[path] = (self.held[path] or b"") + b"more"
        return what

    def remove(self) -> str | None:
        if (path := self.any_of(self.files())) is None:
            return None
        what = self.noted(f"remove {path}")
        filesystem, where = self.at(path)
        filesystem.remove(where)
        del self.held[path]
        return what

    def remove_folder(self) -> str | None:
        path = self.any_of([folder for folder in self.folders() if folder and not self.below(folder)])
        if path is None:
            return None
        what = self.noted(f"removedir {path}")
        filesystem, where = self.at(path)
        filesystem.removedir(where)
        del self.held[path]
        return what

    def remove_tree(self) -> str | None:
        path = self.any_of(self.folders()[1:])
        if path is None or self.chance.random() < 0.5:
            return None
        what = self.noted(f"removetree {path}")
        filesystem, where = self.at(path)
        filesystem.removetree(where)
        self.drop(path)
        return what

    def move(self) -> str | None:
        source, target = self.any_of(self.files()), self.new()
        if source is None or target is None:
            return None
        what = self.noted(f"move {source} {target}")
        filesystem, old, new = self.pair(source, target)
        filesystem.move(old, new)
        self.held[target] = self.held.pop(source)
        return what

    def replace(self) -> str | None:
        source, target = self.any_of(self.files()), self.any_of(self.files())
        if source is None or target is None or source == target:
            return None
        moves = self.chance.random() < 0.5
        what = self.noted(f"{'move' if moves else 'copy'} {source} over {target}")
        filesystem, old, new = self.pair(source, target)
        (filesystem.move if moves else filesystem.copy)(old, new, overwrite=True)
        self.held[target] = self.held[source]
        if moves:
            del self.held[source]
        return what

    def copy(self) -> str | None:
        source, target = self.any_of(self.files()), self.new()
        if source is None or target is None:
            return None
        what = self.noted(f"copy {source} {target}")
        filesystem, old, new = self.pair(source, target)
        filesystem.copy(old, new)
        self.held[target] = self.held[source]
        return what

    def move_folder(self) -> str | None:
        return self.transfer_folder("movedir", moves=True)

    def copy_folder(self) -> str | None:
        return self.transfer_folder("copydir", moves=False)

    def transfer_folder(self, kind: str, *, moves: bool) -> str | None:
        source, target = self.any_of(self.folders()[1:]), self.new()
        if source is None or target is None or paths.is_under(target, source):
            return None
        tree = {path: self.held[path] for path in (source, *self.below(source))}
        if max(path.count("/") for path in tree) - source.count("/") + target.count("/") > DEPTH + 1:
            return None
        what = self.noted(f"{kind} {source} {target}")
        filesystem, old, new = self.pair(source, target)
        (filesystem.movedir if moves else filesystem.copydir)(old, new, create=True)
        if moves:
            self.drop(source)
        self.held |= {target + path[len(source) :]: content for path, content in tree.items()}
        return what

    def upload_many(self) -> str | None:
        found = {path for _ in range(5) if (path := self.new()) is not None}
        if not found:
            return None
        what = self.noted(f"upload {sorted(found)}")
        contents = {path: self.chance.randbytes(self.chance.randrange(20)) for path in sorted(found)}
        items = [
            (self.root + path, partial(io.BytesIO, content), len(content), None) for path, content in contents.items()
        ]
        for _, error in self.account.upload_files(items):
            assert error is None, error
        self.held |= contents
        return what

    def change_case(self) -> str | None:
        path = self.any_of(self.files())
        if path is None or self.chance.random() < 0.5:
            return None
        what = self.noted(f"change the case of {path}")
        filesystem, prefix = self.chance.choice(self.views)
        name = filesystem.getinfo(prefix + path).name
        spelt = name.swapcase() if name.isascii() else name
        filesystem.move(prefix + path, f"{prefix}{paths.parent(path)}/{spelt}", overwrite=True)
        return what

    def drop(self, path: str) -> None:
        for each in (*self.below(path), path):
            del self.held[each]

    # Looking

    def look(self) -> None:
        """Compare some of what is seen with the model: around what was done last, and elsewhere."""
        known = [*self.held, "", self.new() or "/nothing", "/alpha/nothing/deeper"]
        for path in self.chance.sample(known, min(3, len(known))):
            self.look_at(path)
        if self.chance.random() < 0.2:
            filesystem, where = self.at("")
            seen = {paths.key(path) for path, _ in filesystem.walk.info(where)}
            prefix = paths.key(where).rstrip("/")
            assert {path[len(prefix) :] for path in seen} == self.held.keys(), "walk"
        for path in (*self.held, ""):
            self.look_quickly(path)

    def look_at(self, path: str) -> None:
        """Look at one path in every way."""
        filesystem, where = self.at(path)
        held = self.held.get(path) if path else None
        is_there = not path or path in self.held
        assert filesystem.exists(where) == is_there, f"exists {path}"
        assert filesystem.isdir(where) == (is_there and held is None), f"isdir {path}"
        if not is_there:
            with pytest.raises(fs.errors.ResourceNotFound):
                filesystem.getinfo(where)
        elif held is None:
            children = {each[len(path) + 1 :] for each in self.below(path) if paths.parent(each) == path}
            assert {paths.key(name) for name in filesystem.listdir(where)} == children, f"listdir {path}"
            scanned = {paths.key(info.name): info for info in filesystem.scandir(where, ["details"])}
            assert scanned.keys() == children, f"scandir {path}"
            assert {paths.key(name) for name in filesystem.opendir(where).listdir("/")} == children, f"opendir {path}"
        else:
            assert filesystem.getinfo(where, ["details"]).size == len(held), f"getinfo {path}"
            assert filesystem.readbytes(where) == held, f"contents of {path}"

    def look_quickly(self, path: str) -> None:
        """Look at what is known without a call."""
        where = (self.root + path) or "/"
        info = self.account.cached_info(where, ["details"])  # raises where it is known not to be there
        held = self.held.get(path)
        if info is not None:
            assert info.is_dir == (held is None), f"kind of {path}"
            assert held is None or info.size == len(held), f"known size of {path}"
        listing = self.account.cached_listing(where) if held is None else None
        if listing is not None:
            children = {each[len(path) + 1 :] for each in self.below(path) if paths.parent(each) == path}
            assert {paths.key(each.name) for each in listing} == children, f"known listing of {path}"
