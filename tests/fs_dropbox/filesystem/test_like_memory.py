"""DropboxFS beside PyFilesystem's MemoryFS: any sequence of operations and foreign changes has the same outcome.

What differs on purpose is in docs/semantics.md, section 16, in `_outcome`, `_Memory`, `SAME`, `transfer` and the tests
at the end of this file.
"""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import fs.errors
import hypothesis.strategies as st
import pytest
from fs.base import FS
from fs.info import Info
from fs.memoryfs import MemoryFS
from fs.path import dirname
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from fs_dropbox import DropboxFS, paths
from fs_dropbox.content_hash import ContentHash
from fs_dropbox.emulator import Emulator
from fs_dropbox.emulator.model.errors import CallError
from fs_dropbox.metadata import changes
from tests.fs_dropbox.accounts import open_account
from tests.waiting import eventually

# Threads of the emulator and the client draw random numbers while hypothesis draws examples.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")
SYNC_SECONDS = 20.0

NAMES = st.sampled_from(["a", "b", "B", "Ä", "ä", "c.txt"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))
CONTENT = st.binary(max_size=6)
FLAG = st.booleans()

Outcome = Any
# The same in other words: ours, and MemoryFS's.
SAME = {(fs.errors.DirectoryExists, fs.errors.DirectoryExpected)}  # a folder is to be made where a file is
BELOW_A_FILE = {fs.errors.ResourceNotFound, fs.errors.DirectoryExpected}


def _hash(content: bytes) -> str:
    return ContentHash(content).hexdigest()


def _outcome(work: Callable[[], Outcome]) -> Outcome:
    """Return what an operation returns, or the class of its error."""
    try:
        return work()
    except fs.errors.FSError as error:
        return type(error)
    except AssertionError as error:  # MemoryFS's way to say that it takes a file for a folder
        if str(error) != "must be a directory":
            raise
        return fs.errors.DirectoryExpected


class _Memory(MemoryFS):
    """MemoryFS, with the moves of PyFilesystem's base class: its own put things over folders, which are lost then.

    Before anything is made, it looks whether all is there that has to be.
    """

    move = FS.move

    def copydir(self, src_path: str, dst_path: str, create: bool = False, preserve_time: bool = False) -> None:
        self.opendir(src_path)
        self.opendir(dirname(dst_path))
        super().copydir(src_path, dst_path, create, preserve_time)

    def movedir(self, src_path: str, dst_path: str, create: bool = False, preserve_time: bool = False) -> None:
        self.opendir(src_path)
        self.opendir(dirname(dst_path))
        FS.movedir(self, src_path, dst_path, create, preserve_time)


class LikeMemory(RuleBasedStateMachine):
    """One account, and a folder of it for each run; beside it a MemoryFS with folded names."""

    arguments: ClassVar[dict[str, Any]] = {}
    emulator: ClassVar[Emulator]
    account: ClassVar[DropboxFS]
    runs: ClassVar[itertools.count[int]]

    @initialize()
    def begin(self) -> None:
        self.root = f"/run {next(self.runs)}"
        self.dropbox = self.account.makedir(self.root)
        self.memory = _Memory()

    def both(self, work: Callable[[FS, Callable[[str], str]], Outcome]) -> None:
        """Do the same in both; the outcome has to be the same."""
        asked: list[str] = []

        def folded(path: str) -> str:
            asked.append(paths.key(path))
            return asked[-1]

        theirs = _outcome(lambda: work(self.memory, folded))
        is_below_a_file = self.is_below_a_file(*asked)
        ours = _outcome(lambda: work(self.dropbox, str))
        if len(asked) > 1 and isinstance(theirs, type) and isinstance(ours, type):
            return  # where both paths are wrong, either may be blamed
        if ours != theirs and (ours, theirs) not in SAME:
            assert is_below_a_file, (ours, theirs)
            assert {ours, theirs} <= BELOW_A_FILE

    def transfer(self, source: str, other: str, work: Callable[[FS, Callable[[str], str]], Outcome]) -> None:
        """Do the same in both, but where a path would go onto or into itself: there MemoryFS loses what it holds."""
        if paths.is_under(paths.key(other), paths.key(source)):
            _outcome(lambda: work(self.dropbox, str))  # and nothing changes
        elif not self.clash(paths.key(source), paths.key(other)):
            self.both(work)

    def clash(self, source: str, other: str) -> bool:
        """Tell whether folders cannot be merged: how far that goes before it fails depends on the order."""
        if not self.memory.isdir(source):
            return False
        if paths.is_under(source, other) and self.memory.isdir(source + source[len(other) :]):
            return True  # what would take its own place, and is lost there
        held = [path for path, _ in self.memory.opendir(source).walk.info("/")]
        pairs = [(source + path, other + path) for path in held if self.memory.exists(other + path)]
        return any(self.memory.isdir(one) != self.memory.isdir(two) for one, two in pairs)

    def is_below_a_file(self, *keys: str) -> bool:
        """Tell whether any of the paths leads through a file: MemoryFS has two answers to that."""
        return any(self.memory.isfile(above) for key in keys for above in paths.ancestors(key))

    @invariant()
    def both_hold_the_same(self) -> None:
        held = {
            path: None if info.is_dir else _hash(self.memory.readbytes(path)) for path, info in self.memory.walk.info()
        }
        assert {paths.key(path): info.get("dropbox", "content_hash") for path, info in self.seen()} == held
        really = self.emulator.control.tree(self.root)
        assert {paths.key(path[len(self.root) :]) for path in really} == held.keys()

    def seen(self) -> Iterator[tuple[str, Info]]:
        """Yield what is seen in the account, asked for anew with one call."""
        yield from self.dropbox.walk.info("/", namespaces=["details", "dropbox"])

    # Looking

    @rule(path=PATHS)
    def look(self, path: str) -> None:
        self.both(lambda f, at: (f.exists(at(path)), f.isdir(at(path)), f.isfile(at(path))))
        self.both(lambda f, at: f.getsize(at(path)) if not f.isdir(at(path)) else 0)

    @rule(path=PATHS)
    def read(self, path: str) -> None:
        self.both(lambda f, at: f.readbytes(at(path)))

    @rule(path=PATHS)
    def listing(self, path: str) -> None:
        self.both(lambda f, at: sorted(paths.key(name) for name in f.listdir(at(path))))

    @rule()
    def walk(self) -> None:
        self.both(lambda f, _: sorted(paths.key(path) for path in f.walk.files("/")))

    # Files

    @rule(path=PATHS, data=CONTENT)
    def write(self, path: str, data: bytes) -> None:
        self.both(lambda f, at: f.writebytes(at(path), data))

    @rule(path=PATHS, data=CONTENT)
    def append(self, path: str, data: bytes) -> None:
        self.both(lambda f, at: f.appendbytes(at(path), data))

    @rule(path=PATHS, data=CONTENT, wipe=FLAG)
    def create(self, path: str, data: bytes, wipe: bool) -> None:
        self.both(lambda f, at: f.create(at(path), wipe=wipe))

    @rule(path=PATHS, data=CONTENT, position=st.integers(0, 8), size=st.none() | st.integers(0, 8))
    def change_in_place(self, path: str, data: bytes, position: int, size: int | None) -> None:
        def change(filesystem: FS, at: Callable[[str], str]) -> None:
            with filesystem.openbin(at(path), "r+") as file:
                file.seek(position)
                file.write(data)
                if size is not None:
                    file.truncate(size)

        self.both(change)

    @rule(files=st.lists(st.tuples(PATHS, CONTENT), min_size=1, max_size=8))
    def upload_many(self, files: list[tuple[str, bytes]]) -> None:
        def opened(data: bytes) -> Callable[[], io.BytesIO]:
            return lambda: io.BytesIO(data)

        items = [(self.root + path, opened(data), len(data), None) for path, data in files]
        ours = dict(self.account.upload_files(items))
        for at, (path, data) in enumerate(files):
            is_below_a_file = self.is_below_a_file(paths.key(path))
            theirs = _outcome(partial(self.memory.writebytes, paths.key(path), data))
            outcome = type(ours[at]) if ours[at] else None
            assert outcome == theirs or (is_below_a_file and {outcome, theirs} <= BELOW_A_FILE)

    @rule(path=PATHS)
    def remove(self, path: str) -> None:
        self.both(lambda f, at: f.remove(at(path)))

    @rule(source=PATHS, other=PATHS, overwrite=FLAG)
    def copy(self, source: str, other: str, overwrite: bool) -> None:
        self.transfer(source, other, lambda f, at: f.copy(at(source), at(other), overwrite=overwrite))

    @rule(source=PATHS, other=PATHS, overwrite=FLAG)
    def move(self, source: str, other: str, overwrite: bool) -> None:
        self.transfer(source, other, lambda f, at: f.move(at(source), at(other), overwrite=overwrite))

    # Directories

    @rule(path=PATHS, recreate=FLAG)
    def make(self, path: str, recreate: bool) -> None:
        self.both(lambda f, at: bool(f.makedir(at(path), recreate=recreate)))

    @rule(path=PATHS, recreate=FLAG)
    def make_all(self, path: str, recreate: bool) -> None:
        self.both(lambda f, at: bool(f.makedirs(at(path), recreate=recreate)))

    @rule(path=PATHS)
    def remove_folder(self, path: str) -> None:
        self.both(lambda f, at: f.removedir(at(path)))

    @rule(path=PATHS)
    def remove_tree(self, path: str) -> None:
        self.both(lambda f, at: f.removetree(at(path)))

    @rule(source=PATHS, other=PATHS, create=FLAG)
    def copy_folder(self, source: str, other: str, create: bool) -> None:
        self.transfer(source, other, lambda f, at: f.copydir(at(source), at(other), create=create))

    @rule(source=PATHS, other=PATHS, create=FLAG)
    def move_folder(self, source: str, other: str, create: bool) -> None:
        self.transfer(source, other, lambda f, at: f.movedir(at(source), at(other), create=create))

    # Others

    def foreign(self, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
        """Let somebody else change the account, and wait until that is known, where there is a cache."""
        try:
            ours()
        except CallError:
            return
        theirs()
        self.catch_up()

    def catch_up(self) -> None:
        """Nothing to wait for: without cache, foreign changes are seen at once."""

    @rule(path=PATHS, data=CONTENT)
    def foreign_write(self, path: str, data: bytes) -> None:
        def write() -> None:
            self.memory.makedirs(paths.parent(paths.key(path)) or "/", recreate=True)
            self.memory.writebytes(paths.key(path), data)

        self.foreign(lambda: self.emulator.control.write(self.root + path, data), write)

    @rule(path=PATHS)
    def foreign_removal(self, path: str) -> None:
        def remove() -> None:
            key = paths.key(path)
            (self.memory.removetree if self.memory.isdir(key) else self.memory.remove)(key)

        self.foreign(lambda: self.emulator.control.delete(self.root + path), remove)


def run(machine: type[LikeMemory], examples: int, *, random: bool = False) -> None:
    """Run sequences of operations over one emulator; the same ones each time unless they are to be random."""
    with Emulator() as emulator, open_account(emulator, **machine.arguments) as account:
        account.listdir("/")
        eventually(lambda: account._parts.feed is None or account._parts.feed.is_live)
        machine.emulator, machine.account, machine.runs = emulator, account, itertools.count()
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=20,
                deadline=None,
                database=None,
                # Shrinking takes minutes; the steps are few enough.
                phases=[Phase.generate],
                derandomize=not random,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )


class WithoutCache(LikeMemory):
    arguments: ClassVar[dict[str, Any]] = {"cache": False}


class WithCache(LikeMemory):
    """With the cache and the change feed, which has to know of a foreign change before the next look."""

    numbers = itertools.count()

    def seen(self) -> Iterator[tuple[str, Info]]:
        """Yield what the cache knows of, looked at folder by folder."""
        folders = ["/"]
        while folders:
            folder = folders.pop()
            for info in self.dropbox.scandir(folder, ["details", "dropbox"]):
                yield info.make_path(folder), info
                if info.is_dir:
                    folders.append(info.make_path(folder))

    def catch_up(self) -> None:
        told = threading.Event()
        name = f"/mark {next(self.numbers)}"
        end = self.account.subscribe(
            lambda entries: told.set() if any(entry.path_lower == name for entry in entries) else None
        )
        self.emulator.control.write(name, b"")
        assert told.wait(SYNC_SECONDS)
        end()


@pytest.mark.parametrize("machine", [WithoutCache, WithCache])
def test_the_same_as_in_memory(machine: type[LikeMemory], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "REST_SECONDS", 0.0)
    run(machine, 12)


@pytest.mark.soak
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("machine", [WithoutCache, WithCache])
def test_the_same_as_in_memory_for_long(machine: type[LikeMemory], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "REST_SECONDS", 0.0)
    run(machine, 500, random=True)


# What differs.


@pytest.mark.parametrize("recreate", [False, True])
def test_where_a_file_is_no_directory_can_be_made(dropbox_fs: DropboxFS, emulator: Emulator, recreate: bool) -> None:
    dropbox_fs.writetext("file", "one")
    with pytest.raises(fs.errors.DirectoryExists, match="'file': a file with this name is there already"):
        dropbox_fs.makedir("file", recreate=recreate)
    with pytest.raises(fs.errors.DirectoryExpected, match="'file/below': part of its path is a file, not a folder"):
        dropbox_fs.makedirs("file/below", recreate=recreate)
    assert emulator.control.tree() == {"/file": 3}


@pytest.fixture
def trees(dropbox_fs: DropboxFS) -> DropboxFS:
    """An account with two directories that have one in common, and a file."""
    for path in ("from/sub/new", "from/top", "to/sub/old", "file"):
        dropbox_fs.makedirs(dirname(path), recreate=True)
        dropbox_fs.writetext(path, path)
    return dropbox_fs


@pytest.mark.parametrize("transfer", ["copydir", "movedir"])
def test_a_directory_goes_into_one_that_is_there_and_over_no_file(
    trees: DropboxFS, emulator: Emulator, transfer: str
) -> None:
    before = emulator.control.tree()
    with pytest.raises(fs.errors.DirectoryExpected):
        getattr(trees, transfer)("from", "file", create=True)
    assert emulator.control.tree() == before
    getattr(trees, transfer)("from", "to")
    assert sorted(trees.walk.files("/to")) == ["/to/sub/new", "/to/sub/old", "/to/top"]
    assert emulator.control.exists("/from") == (transfer == "copydir")


@pytest.mark.parametrize("transfer", ["copydir", "movedir"])
def test_nothing_is_made_above_what_a_directory_becomes(trees: DropboxFS, emulator: Emulator, transfer: str) -> None:
    before = emulator.control.tree()
    with pytest.raises(fs.errors.ResourceNotFound):
        getattr(trees, transfer)("from", "none/new", create=True)
    assert emulator.control.tree() == before
    getattr(trees, transfer)("from", "new", create=True)
    assert sorted(trees.walk.files("/new")) == ["/new/sub/new", "/new/top"]


@pytest.mark.parametrize("transfer", ["copydir", "movedir"])
@pytest.mark.parametrize("odd", ["from/sub/old/deep", "to/top/deep"], ids=["onto a file", "onto a directory"])
def test_a_merge_that_meets_another_kind_fails_and_loses_nothing(
    trees: DropboxFS, emulator: Emulator, odd: str, transfer: str
) -> None:
    trees.makedirs(dirname(odd))
    trees.writetext(odd, odd)
    before = {path: emulator.control.read(path) for path in trees.walk.files("/")}
    with pytest.raises(fs.errors.FSError):
        getattr(trees, transfer)("from", "to")
    after = {path: emulator.control.read(path) for path in trees.walk.files("/")}
    assert set(before.values()) == set(after.values())
    assert {path: after[path] for path in before if path.startswith("/to")}.items() <= before.items()
