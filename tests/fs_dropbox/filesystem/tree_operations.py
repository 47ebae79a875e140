"""Operations at random on a folder of an account: each as a call, and as what it comes to in the model."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, Final, TypeAlias

import fs.errors

from fs_dropbox.emulator.control.control import Control
from fs_dropbox.emulator.model.errors import CallError
from fs_dropbox.errors import UNSETTLED
from tests.fs_dropbox.filesystem import tree_model
from tests.fs_dropbox.filesystem.tree_model import Tree, below, is_folder

NAMES: Final = ("a", "b", "C", "d", "e.txt", "F", "g")
SIZES: Final = (0, 10, 300, 1100, 2500, 5000)
NO_REV: Final = "0123456789abcdef0"

Apply: TypeAlias = Callable[[Tree], None]


def _nothing(_: Tree) -> None:
    """Leave a tree as it is."""


@dataclass(slots=True)
class Operation:
    """One that an account is asked for. `apply` raises RefusedError where it cannot be done."""

    text: str
    call: Callable[[Any], Any]
    apply: Apply = _nothing
    touched: tuple[str, ...] = ()  # keys; the last one is the target
    merged: tuple[str, str] | None = None  # keys of a folder, and of that which its contents go to
    items: list[Apply] = field(default_factory=list)  # of many files, each with a result of its own
    is_partial: bool = False  # what is done of it before it fails stays done
    is_update: bool = False  # of one version of a file, and no other


@dataclass(slots=True)
class Change:
    """What somebody else does."""

    text: str
    call: Callable[[], None]
    apply: Apply


class Operations:
    """Chooses operations. Owns no more than chance; `folder` may come to be elsewhere."""

    def __init__(self, control: Control, folder: str) -> None:
        self.control = control
        self.folder = folder
        self.chance = random.Random(folder)
        self.written = 0

    # What is there

    def tree(self) -> Tree:
        """Return what Dropbox has."""
        base = len(self.folder)
        return {
            path[base:].lower(): None if size is None else self.control.read(path)
            for path, size in self.control.tree(self.folder).items()
        }

    def rev(self, key: str) -> str:
        """Return the revision of a file, "" of anything else."""
        path = self.folder + key
        return str(self.control.metadata(path).get("rev", "")) if self.control.exists(path) else ""

    def path(self, tree: Tree, *, there: float = 0.6, folder: bool | None = None) -> str:
        """Return a path below the folder, which is one of the tree's with that chance."""
        chance = self.chance
        known = [key for key in tree if folder is None or (tree[key] is None) == folder]
        if known and chance.random() < there:
            key = chance.choice(known)
            return key.swapcase() if chance.random() < 0.1 else key
        folders = ["", *(key for key in tree if tree[key] is None)]
        above = chance.choice(folders) if chance.random() < 0.9 else f"/{chance.choice(NAMES)}"
        return f"{above}/{chance.choice(NAMES)}"

    def content(self) -> bytes:
        """Return what no file has had yet."""
        self.written += 1
        return f"<{self.written}>".encode().ljust(self.chance.choice(SIZES), b"-")

    # What others do

    def foreign(self, note: Callable[[str], object]) -> Change:
        """Choose what somebody else does, and notes if it can be done."""
        tree, control = self.tree(), self.control
        kind = self.chance.choice(("write", "write", "write", "folder", "delete", "move"))
        path, other, content = self.path(tree), self.path(tree, there=0.2), self.content()
        key, target = path.lower(), other.lower()

        def call() -> None:
            at = self.folder + path
            if (kind == "folder" and control.exists(at)) or (kind == "move" and key == target):
                return
            try:
                match kind:
                    case "write":
                        control.write(at, content)
                    case "folder":
                        control.seed(at)
                    case "delete":
                        control.delete(at)
                    case "move":
                        control.move(at, self.folder + other)
            except CallError:
                return
            note(f"others {kind} {path} {other if kind == 'move' else ''}")

        apply: dict[str, Apply] = {
            "write": partial(tree_model.put, key=key, content=content),
            "folder": partial(tree_model.put, key=key, content=None),
            "delete": partial(tree_model.delete, key=key),
            "move": partial(tree_model.relocate, source=key, target=target, move=True),
        }
        return Change(kind, call, apply[kind])

    # What an account is asked for

    def choose(self, tree: Tree) -> Operation:
        """Choose an operation, one that makes sense most of the time."""
        kinds = (
            self._make,
            self._write,
            self._write,
            self._remove,
            self._remove_folder,
            self._transfer,
            self._transfer,
            self._transfer_folder,
            self._transfer_folder,
            self._replace_version,
            self._store_many,
            self._commit_staged,
            self._remove_many,
        )
        return self.chance.choice(kinds)(tree)

    def _make(self, tree: Tree) -> Operation:
        path, recreate, what = (
            self.path(tree, there=0.3),
            self.chance.random() < 0.4,
            self.chance.choice(("makedir", "makedirs")),
        )
        return Operation(
            f"{what} {path} {recreate}",
            lambda account: getattr(account, what)(self.folder + path, recreate=recreate),
            partial(tree_model.make, key=path.lower(), recreate=recreate, with_parents=what == "makedirs"),
            (path.lower(),),
        )

    def _write(self, tree: Tree) -> Operation:
        path, content, mode = self.path(tree, folder=False), self.content(), self.chance.choice("wwxa+")
        mode = "r+" if mode == "+" else mode

        def call(account: Any) -> None:
            with account.openbin(self.folder + path, mode) as file:
                file.write(content)

        return Operation(
            f"open {path} {mode} {_short(content)}",
            call,
            partial(tree_model.write, key=path.lower(), content=content, mode=mode),
            (path.lower(),),
            is_update=mode in ("a", "r+") and path.lower() in tree,
        )

    def _replace_version(self, tree: Tree) -> Operation:
        path, content = self.path(tree, there=0.95, folder=False), self.content()
        key, rev = path.lower(), self.rev(path)
        expected = rev if rev and self.chance.random() < 0.7 else NO_REV

        def call(account: Any) -> None:
            with account.openbin(self.folder + path, "w", expected_version=expected) as file:
                file.write(content)

        def apply(now: Tree) -> None:
            tree_model.require(expected == rev and now.get(key) == tree.get(key))
            tree_model.write(now, key, content)

        return Operation(f"replace {path} {expected == rev} {_short(content)}", call, apply, (key,), is_update=True)

    def _remove(self, tree: Tree) -> Operation:
        path = self.path(tree, there=0.9, folder=False)
        return Operation(
            f"remove {path}",
            lambda account: account.remove(self.folder + path),
            partial(tree_model.remove, key=path.lower()),
            (path.lower(),),
        )

    def _remove_folder(self, tree: Tree) -> Operation:
        path, what = (
            self.path(tree, there=0.9, folder=True),
            self.chance.choice(("removedir", "removedir", "removetree")),
        )
        return Operation(
            f"{what} {path}",
            lambda account: getattr(account, what)(self.folder + path),
            partial(tree_model.remove_folder, key=path.lower(), with_contents=what == "removetree"),
            (path.lower(),),
        )

    def _transfer(self, tree: Tree) -> Operation:
        source, target = self.path(tree, there=0.9, folder=False), self.path(tree, there=0.4)
        if self.chance.random() < 0.1:
            target = source.swapcase()
        what, overwrite = self.chance.choice(("move", "move", "copy")), self.chance.random() < 0.6

        def apply(tree: Tree) -> None:
            same_name, keys = source == target, (source.lower(), target.lower())
            tree_model.transfer(tree, *keys, move=what == "move", overwrite=overwrite, same_name=same_name)

        return Operation(
            f"{what} {source} {target} {overwrite}",
            lambda account: getattr(account, what)(self.folder + source, self.folder + target, overwrite=overwrite),
            apply,
            (source.lower(), target.lower()),
        )

    def _transfer_folder(self, tree: Tree) -> Operation:
        source, target = self.path(tree, there=0.9, folder=True), self.path(tree, there=0.5, folder=True)
        what, create = self.chance.choice(("movedir", "movedir", "copydir")), self.chance.random() < 0.8
        keys = source.lower(), target.lower()
        return Operation(
            f"{what} {source} {target} {create}",
            lambda account: getattr(account, what)(self.folder + source, self.folder + target, create=create),
            lambda tree: tree_model.transfer_folder(tree, *keys, move=what == "movedir", create=create),
            keys,
            merged=keys,
            is_partial=is_folder(tree, target.lower()),
        )

    def _remove_many(self, tree: Tree) -> Operation:
        folder = self.chance.choice(["", *(key for key in tree if tree[key] is None)])
        keys = [key for key in below(tree, folder) if tree_model.parent(key) == folder and tree[key] is not None]
        keys = keys or [self.path(tree, folder=False).lower()]

        def apply(tree: Tree) -> None:
            for key in keys:
                tree_model.remove(tree, key)

        return Operation(
            f"remove files {keys}",
            lambda account: account.remove_files([self.folder + key for key in keys]),
            apply,
            tuple(keys),
            is_partial=True,
        )

    def _store_many(self, tree: Tree) -> Operation:
        """Upload files; look at them while they are on their way, and wait for no more than a few results."""
        most = self.chance.choice((None, None, 1, 2))
        names = [self.path(tree, folder=False) for _ in range(self.chance.choice((1, 3, 8)))]
        wanted = [(name, self.content()) for name in names if name.lower() in _apart(names)]

        def call(account: Any) -> dict[int, Any]:
            files = [(self.folder + path, partial(io.BytesIO, content), len(content), None) for path, content in wanted]
            told = account.upload_files(files)
            results: dict[int, Any] = {}
            for index, outcome in islice(told, most):
                results[index] = outcome
                for path, _ in wanted if most else []:
                    with suppress(fs.errors.FSError):
                        account.exists(self.folder + path)
            told.close()
            return {index: results.get(index, _Unknown("it was not waited for")) for index in range(len(wanted))}

        return Operation(
            f"store {most or 'all'} of {[(path, _short(content)) for path, content in wanted]}",
            call,
            touched=tuple(path.lower() for path, _ in wanted),
            items=[partial(tree_model.write, key=path.lower(), content=content) for path, content in wanted],
        )

    def _commit_staged(self, tree: Tree) -> Operation:
        """Stage files, and ask for their commit until it is known what has become of them, or not as long as that."""
        keys = _apart([self.path(tree, folder=False) for _ in range(self.chance.choice((1, 3, 6)))])
        revs = {key: self.rev(key) for key in keys}
        wanted = [(key, self.content(), self.chance.choice((None, "", revs[key] or None, NO_REV))) for key in keys]
        turns, now = self.chance.choice((1, 3)), datetime.now(UTC)

        def call(account: Any) -> dict[int, Any]:
            staged = dict(account.stage_files((partial(io.BytesIO, data), len(data)) for _, data, _ in wanted))
            results = {at: token for at, token in staged.items() if isinstance(token, Exception)}
            left = [at for at in staged if at not in results]
            for _ in range(turns):
                files = [(self.folder + wanted[at][0], staged[at], now, wanted[at][2]) for at in left]
                results |= {left[index]: outcome for index, outcome in account.commit_files(files)}
                left = [at for at in left if isinstance(results[at], Exception)]
            told: dict[Any, Exception | None] = {True: None, False: fs.errors.OperationFailed(msg="it never will be")}
            # After an error it may become visible yet.
            results |= {at: _Unknown(results[at]) for at in left}
            return {at: told.get(outcome, outcome) for at, outcome in results.items()}

        def apply(now: Tree, key: str, content: bytes, expected: str | None) -> None:
            tree_model.require(expected != "" or key not in now)
            tree_model.require(not expected or (expected == revs[key] and now.get(key) == tree.get(key)))
            tree_model.put(now, key, content)

        return Operation(
            f"stage {[(key, _short(content), expected) for key, content, expected in wanted]}",
            call,
            touched=tuple(keys),
            items=[partial(apply, key=key, content=content, expected=expected) for key, content, expected in wanted],
        )


class _Unknown(Exception):
    """An error after which something may be done yet."""

    def __str__(self) -> str:
        return f"{self.args[0]}{UNSETTLED}"


def _apart(paths: list[str]) -> list[str]:
    """Return the keys of paths that are in none of the others, once each."""
    keys = dict.fromkeys(path.lower() for path in paths)
    return [key for key in keys if not any(key.startswith(f"{other}/") for other in keys)]


def _short(content: bytes) -> str:
    return f"{content[:6]!r} of {len(content)}"
