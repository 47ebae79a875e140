"""`Machine`: does at random what fsspec can do, in the account and in a local folder, and compares."""

from __future__ import annotations

import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from fsspec.implementations.dirfs import DirFileSystem

from fs_dropbox.emulator.control.control import Control
from fs_dropbox.fsspec_adapter.filesystem import DropboxFileSystem
from tests.fs_dropbox.files import random_faults
from tests.fs_dropbox.files.small_blocks import UNIT
from tests.fs_dropbox.fsspec_adapter.compared_sides import Sides, short

NAMES: Final = ("a.txt", "b", "sub", "deep", "c.csv", "\u00e9 1", "#{x}")
PATTERNS: Final = ("*", "*.txt", "sub/*", "**", "**/a.txt", "?", "[ab]*", "sub/**", "*/*")
SIZES: Final = (0, 1, 10, 255, 256, 700, 1023, 1024, 1025, 2048, 4096, 5000, 9 * UNIT)
CACHES: Final = ("readahead", "bytes", "none", "all", "first", "background", "blockcache")
ERRORS: Final = (OSError, ValueError)


class Machine(Sides):
    """Does things at random on both sides. For one thread."""

    def __init__(self, name: str, control: Control, dropbox: DropboxFileSystem, scratch: Path, *, faults: bool) -> None:
        super().__init__(name, control, dropbox, scratch)
        self.faults = faults
        self.chance = random.Random(name)
        self.log: list[str] = []
        self.is_corrupting = False  # what is read in part is not checked

    def run(self, steps: int) -> None:
        """Do so many things; raises AssertionError with what was done."""
        try:
            for _ in range(steps):
                if self.faults and self.chance.random() < 0.3:
                    self.log.append(random_faults.declare(self.control, self.chance))
                    self.is_corrupting |= "corrupt" in self.log[-1]
                self.step()
                self.check_trees()
        except Exception as error:
            done = "\n".join(self.log[-50:])
            raise AssertionError(f"{self.name}: {type(error).__name__}: {error}\nafter\n{done}") from error
        finally:
            self.control.clear_faults()

    # Choices

    def some_path(self, *, kind: str = "any", new: float = 0.3) -> str:
        tree = self.local_tree()
        there = sorted(path for path, data in tree.items() if kind == "any" or (data is None) == (kind == "folder"))
        if there and self.chance.random() >= new:
            return self.chance.choice(there)
        folders = ["", *sorted(path for path, data in tree.items() if data is None)]
        return os.path.join(self.chance.choice(folders), self.chance.choice(NAMES))

    def some_bytes(self) -> bytes:
        size = min(self.chance.choice(SIZES), self.chance.choice((9 * UNIT, 600)))
        data = self.chance.randbytes(max(1, size // 4)).hex().encode()
        return b"\n".join(data[at : at + 50] for at in range(0, len(data), 50))[:size].ljust(size, b"-")

    # Steps

    def step(self) -> None:
        kinds: tuple[tuple[int, Callable[[], None]], ...] = (
            (6, self.write), (5, self.read), (3, self.look), (2, self.open_and_read), (2, self.copy), (2, self.move),
            (2, self.remove), (1, self.make), (2, self.upload), (2, self.download), (1, self.foreign),
            (1, self.transact), (1, self.copies_elsewhere),
        )  # fmt: skip
        self.chance.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]()

    def both(self, what: str, work: Callable[[Any], Any], *, changes: bool = False, partial: bool = False) -> None:
        """Do something on both sides: with one result, or one failure."""
        self.log.append(what)
        struck, before = self.control.faults_struck, self.tree() if changes else {}
        error: BaseException | None = None
        result: Any = None
        try:
            result = work(self.sides[0])
        except ERRORS as caught:
            self.log.append(f"  {caught!r}")
            error = caught
        if error is not None and self.control.faults_struck != struck:
            if changes:
                self.check_partial(before, work)
                self.follow()
            return
        expected: Any = None
        there: BaseException | None = None
        try:
            expected = work(self.sides[1])
        except ERRORS as caught:
            there = caught
        assert (error is None) == (there is None), f"{error!r} or {short(result)}, there {there!r} or {short(expected)}"
        if not (partial and self.is_corrupting):
            assert result == expected, f"came {short(result)}, not {short(expected)}"
        if there is not None and changes:
            self.follow()  # of several things some may be done, there others than here

    def check_partial(self, before: dict[str, bytes | None], work: Callable[[Any], Any]) -> None:
        """What a fault has broken off has changed some files, whole, and others not."""
        try:
            work(self.sides[1])
        except ERRORS:
            return
        after, wanted = self.tree(), self.local_tree()
        for path, data in after.items():
            known = [tree[path] for tree in (before, wanted) if path in tree]
            assert data is None or data in known, f"{path}: {short(data)} is none of {[short(each) for each in known]}"
        lost = [path for path in before if path in wanted and before[path] == wanted[path] and path not in after]
        assert not lost, f"lost: {lost}"
        held = list(after.values())
        moved = [path for path, data in before.items() if data and data in wanted.values() and data not in held]
        assert not moved, f"lost on their way: {moved}"

    def write(self) -> None:
        path, data = self.some_path(kind="file"), self.some_bytes()
        roll = self.chance.random()
        if roll < 0.3:
            self.both(f"pipe_file {path} {len(data)} {data[:9]!r}", lambda fs: fs.pipe_file(path, data), changes=True)
        elif roll < 0.5:
            many = {self.some_path(kind="file"): self.some_bytes() for _ in range(self.chance.choice((2, 5, 8)))}
            if self.is_sound(many):
                told = {each: (len(value), value[:9]) for each, value in many.items()}
                self.both(f"pipe {told}", lambda fs: fs.pipe(many), changes=True)
        elif roll < 0.6:
            truncate = self.chance.random() < 0.5
            self.both(f"touch {path} {truncate}", lambda fs: fs.touch(path, truncate=truncate), changes=True)
        elif roll < 0.7:
            self.both(f"create {path}", lambda fs: fs.pipe_file(path, data, mode="create"), changes=True)
        else:
            mode = self.chance.choice(("wb", "ab", "xb", "w", "a"))
            pieces = [data[at : at + 700] for at in range(0, len(data), 700)]

            def work(fs: Any) -> None:
                with fs.open(path, mode) as file:
                    for piece in pieces:
                        file.write(piece if "b" in mode else piece.decode())

            self.both(f"open {path} {mode} {len(data)}", work, changes=True)

    def is_sound(self, many: dict[str, bytes]) -> bool:
        """Whether paths can all be files: else it depends on the order what can be stored."""
        tree = self.local_tree()
        paths = {*many}
        for path in paths:
            if tree.get(path, b"") is None:
                return False
            above = path
            while above := os.path.dirname(above):
                if above in paths or tree.get(above) is not None:
                    return False
        return True

    def read(self) -> None:
        path, roll = self.some_path(kind="file", new=0.1), self.chance.random()
        start, end = (self.chance.choice((None, 0, 1, 255, 256, 1000, 1024, 3000, -1, -700, -5000)) for _ in "ab")
        if roll < 0.25:
            self.both(f"cat_file {path}", lambda fs: fs.cat_file(path))
        elif roll < 0.5:
            tree = self.local_tree()
            data = tree.get(path)
            self.log.append(f"cat_file {path} {start} {end}")
            struck = self.control.faults_struck
            try:
                came = self.sides[0].cat_file(path, start, end)
            except OSError:
                is_excused = data is None or self.control.faults_struck != struck
                if not is_excused:
                    raise
            else:
                assert data is not None
                assert self.is_corrupting or came == data[start:end]
        elif roll < 0.65:
            paths = [self.some_path(kind="file", new=0.1) for _ in range(3)]
            self.both(f"cat {paths}", lambda fs: sorted(fs.cat(paths).items()))
        elif roll < 0.75 and not self.faults:
            self.both(f"cat {path} on_error", lambda fs: sorted(fs.cat([path], on_error="omit").items()))
        elif roll < 0.85:
            self.both(f"head, tail {path}", lambda fs: (fs.head(path, 300), fs.tail(path, 300)), partial=True)
        elif roll < 0.92:
            delimiter = self.chance.choice((None, b"\n"))
            self.both(f"read_block {path}", lambda fs: fs.read_block(path, 0, 900, delimiter), partial=True)
        else:
            paths = [self.some_path(kind="file", new=0.0) for _ in range(3)]
            self.both(f"cat_ranges {paths}", lambda fs: fs.cat_ranges(paths, 10, 900, on_error="raise"), partial=True)

    def look(self) -> None:
        path, depth, dirs = self.some_path(), self.chance.choice((None, 1, 2)), self.chance.random() < 0.5
        pattern = self.chance.choice(PATTERNS)
        work: tuple[Callable[[Any], Any], ...] = (
            lambda fs: sorted(fs.ls(path, detail=False)),
            lambda fs: sorted(map(described, fs.ls(path, detail=True))),
            lambda fs: [fs.exists(path), fs.isfile(path), fs.isdir(path)],
            lambda fs: fs.find(path, maxdepth=depth, withdirs=dirs),
            lambda fs: fs.glob(pattern, **({} if depth is None or "**" not in pattern else {"maxdepth": depth})),
            lambda fs: fs.expand_path(path, recursive=dirs, maxdepth=depth),
            lambda fs: sorted((top, sorted(dirs), sorted(names)) for top, dirs, names in fs.walk(path, maxdepth=depth)),
            lambda fs: fs.du(path, maxdepth=depth),
            lambda fs: fs.size(path) if fs.isfile(path) else None,
        )  # fmt: skip
        which = self.chance.randrange(len(work))
        self.both(f"look {which} {path} {pattern} {depth} {dirs}", work[which])

    def open_and_read(self) -> None:
        path, mode = self.some_path(kind="file", new=0.05), self.chance.choice(("rb", "rb", "r"))
        options = {"cache_type": self.chance.choice(CACHES), "block_size": self.chance.choice((100, 1000))}
        seed, is_pickled = self.chance.random(), mode == "rb" and self.chance.random() < 0.3

        def work(fs: Any) -> list[Any]:
            chance, came = random.Random(seed), []
            with fs.open(path, mode, **(options if fs is self.sides[0] and mode == "rb" else {})) as file:
                for _ in range(6):
                    what = chance.randrange(4)
                    if mode == "rb" and what == 0:
                        came.append(file.seek(chance.choice((0, 100, 1024, 4000))))
                    elif what == 1:
                        came.append(file.readline())
                    else:
                        came.append(file.read(chance.choice((0, 1, 255, 1000, 3000, -1))))
                if is_pickled and fs is self.sides[0]:
                    with pickle.loads(pickle.dumps(file)) as other:
                        came.append(other.read())
                else:
                    came.append(file.read())
            return came

        self.both(f"open {path} {mode} {options} {is_pickled}", work, partial=True)

    def copy(self) -> None:
        source, target = self.some_path(new=0.1), self.some_path(new=0.6)
        recursive = self.chance.random() < 0.5
        if self.overlap(source, target) or (self.local_tree().get(target, b"") is not None and recursive):
            return
        self.both(
            f"cp {source} {target} {recursive}", lambda fs: fs.cp(source, target, recursive=recursive), changes=True
        )

    def overlap(self, source: str, target: str) -> bool:
        return f"{source}/".startswith(f"{target}/") or f"{target}/".startswith(f"{source}/")

    def move(self) -> None:
        """Compare with what was there: local moves are not fsspec's."""
        roll = self.chance.random()
        source: Any = self.some_path(new=0.05)
        target = self.some_path(new=0.7)
        options: dict[str, Any] = {"recursive": self.chance.random() < 0.6}
        if roll < 0.2:
            source, target = self.chance.choice(PATTERNS), self.chance.choice(("into", "into/"))
        elif roll < 0.4:
            source, target = [self.some_path(kind="file", new=0.05) for _ in range(2)], "into/"
        elif roll < 0.6:
            options["maxdepth"] = self.chance.choice((1, 2))
        if isinstance(source, str) and self.overlap(source, target):
            return
        before, struck = self.tree(), self.control.faults_struck
        self.log.append(f"mv {source} {target} {options}")
        told = ""
        try:
            self.sides[0].mv(source, target, **options)
        except ERRORS as error:
            told = repr(error)
            self.log.append(f"  {told}")
        after = self.tree()
        contents = list(after.values())
        replaced = [before[path] for path in before if path in after and after[path] != before[path]]
        for path, data in before.items():
            is_kept = data is None or data in contents or data in replaced or "restore its rev" in told
            assert is_kept, f"{path} is lost: {short(data)}"
        assert {data for data in contents if data} <= {data for data in before.values() if data}
        assert struck <= self.control.faults_struck
        self.follow()

    def remove(self) -> None:
        roll, path = self.chance.random(), self.some_path(new=0.1)
        if roll < 0.3:
            self.both(f"rm_file {path}", lambda fs: fs.rm_file(path), changes=True)
        elif roll < 0.5:
            recursive = self.chance.random() < 0.6
            self.both(f"rm {path} {recursive}", lambda fs: fs.rm(path, recursive=recursive), changes=True)
        elif roll < 0.7:
            paths = sorted({self.some_path(kind="file", new=0.0) for _ in range(3)})
            self.both(f"rm {paths}", lambda fs: fs.rm(paths), changes=True)
        else:
            self.both(f"rmdir {path}", lambda fs: fs.rmdir(path), changes=True)

    def make(self) -> None:
        path, exist_ok = self.some_path(kind="folder", new=0.7), self.chance.random() < 0.5
        work: tuple[Callable[[Any], Any], ...] = (
            lambda fs: fs.mkdir(path),
            lambda fs: fs.mkdir(path, create_parents=False),
            lambda fs: fs.makedirs(path, exist_ok=exist_ok),
        )
        which = self.chance.randrange(len(work))
        self.both(f"make {which} {path}", work[which], changes=True)

    def upload(self) -> None:
        shutil.rmtree(self.local_files)
        self.local_files.mkdir()
        for _ in range(self.chance.choice((1, 2, 6))):
            path = self.local_files / self.chance.choice(("", "in", "in/deep")) / self.chance.choice(NAMES)
            if not path.is_dir() and not any(above.is_file() for above in path.parents):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.some_bytes())
        target = self.some_path(kind="folder", new=0.5) + self.chance.choice(("", "/"))
        self.both(f"put {target}", lambda fs: fs.put(f"{self.local_files}/", target, recursive=True), changes=True)

    def download(self) -> None:
        path, recursive = self.some_path(new=0.05), self.chance.random() < 0.7
        targets = [self.local_files.parent / f"got {number}" for number in (0, 1)]
        old = self.some_bytes()
        for target in targets:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            (target / os.path.basename(path)).write_bytes(old)
        whole = self.local_tree().get(path)

        def work(fs: Any) -> list[tuple[str, Any]]:
            target = targets[self.sides.index(fs)]
            try:
                fs.get(path, f"{target}/", recursive=recursive)
            except OSError:
                if isinstance(whole, bytes):
                    assert (target / os.path.basename(path)).read_bytes() in (old, whole), "half a file"
                raise
            return sorted(
                (str(each.relative_to(target)), each.is_file() and each.read_bytes()) for each in target.rglob("*")
            )

        self.both(f"get {path} {recursive}", work)

    def foreign(self) -> None:
        """Change something as others do, and tell of it as who knows of it does."""
        path, data = self.some_path(kind="file"), self.some_bytes()
        if not self.is_sound({path: data}):
            return
        self.log.append(f"foreign {path} {len(data)}")
        self.control.write(f"{self.folder}/{path}", data)
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(data)
        self.sides[0].invalidate_cache()

    def transact(self) -> None:
        many = {self.some_path(kind="file"): self.some_bytes() for _ in range(3)}
        fails = self.chance.random() < 0.3
        if not self.is_sound(many):
            return

        def work(fs: Any) -> None:
            inner = fs.fs
            prefix = self.folder if fs is self.sides[0] else str(self.root)
            if fs is self.sides[1]:
                if not fails:
                    fs.pipe(many)
                return
            try:
                with inner.transaction:
                    for path, data in many.items():
                        inner.pipe_file(f"{prefix}/{path}", data)
                    if fails:
                        raise KeyError
            except KeyError:
                assert fails

        # Folders above are made when a file is opened.
        for path in many:
            folder = os.path.dirname(path)
            if folder and not (self.root / folder).is_dir():
                return
        self.both(f"transaction {[*many]} fails={fails}", work, changes=True)

    def copies_elsewhere(self) -> None:
        """Go on with what a pickle makes of it."""
        self.log.append("pickled")
        self.sides[0] = DirFileSystem(self.folder, pickle.loads(pickle.dumps(self.dropbox)))


def described(info: dict[str, Any]) -> tuple[Any, ...]:
    is_file = info["type"] == "file"
    return info["name"], info["type"], info["size"] if is_file else None
