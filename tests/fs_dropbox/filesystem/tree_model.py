"""What operations on a tree come to: a plain model, of which Dropbox and DropboxFS may be no less. No I/O.

A tree is a dict: lower-case path ("" is the root, which is not in it) to content, None of a folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

Tree: TypeAlias = dict[str, bytes | None]


class RefusedError(Exception):
    """What is asked for cannot be done, as things are."""


class ClashError(RefusedError):
    """A file is met where a folder is, or the reverse, in the middle of a merge: how far that got is open."""


def parent(key: str) -> str:
    return key.rpartition("/")[0]


def ancestors(key: str) -> Iterator[str]:
    """Yield the folders above a key but for the root."""
    while key := parent(key):
        yield key


def below(tree: Tree, key: str) -> Iterator[str]:
    return (each for each in list(tree) if each.startswith(f"{key}/"))


def is_folder(tree: Tree, key: str) -> bool:
    return not key or (key in tree and tree[key] is None)


def is_file(tree: Tree, key: str) -> bool:
    return tree.get(key) is not None


def require(condition: object) -> None:
    if not condition:
        raise RefusedError


# What Dropbox does, for anybody: folders above what is made are made.


def put(tree: Tree, key: str, content: bytes | None) -> None:
    """Store a file, or make a folder that is not there."""
    require(not is_folder(tree, key) and (content is not None or key not in tree))
    above = parent(key)
    missing = []
    while above and above not in tree:
        missing.append(above)
        above = parent(above)
    require(is_folder(tree, above))
    tree.update(dict.fromkeys(reversed(missing)))
    tree[key] = content


def delete(tree: Tree, key: str) -> None:
    require(key in tree)
    for each in [key, *below(tree, key)]:
        del tree[each]


def relocate(tree: Tree, source: str, target: str, *, move: bool) -> None:
    require(source in tree and target not in tree and not f"{target}/".startswith(f"{source}/"))
    taken = {target + each[len(source) :]: tree[each] for each in [source, *below(tree, source)]}
    put(tree, target, taken[target])
    tree.update(taken)
    if move:
        delete(tree, source)


# What the operations of PyFilesystem do.


def make(tree: Tree, key: str, *, recreate: bool, with_parents: bool) -> None:
    if is_folder(tree, key) and recreate:
        return
    require(with_parents or is_folder(tree, parent(key)))
    put(tree, key, None)


def write(tree: Tree, key: str, content: bytes, *, mode: str = "w") -> None:
    require(not is_folder(tree, key) and is_folder(tree, parent(key)))
    old = tree.get(key)
    require(old is None if mode == "x" else old is not None if mode == "r+" else True)
    kept = (old or b"") if mode == "a" else b""
    rest = (old or b"")[len(content) :] if mode == "r+" else b""
    tree[key] = kept + content + rest


def remove(tree: Tree, key: str) -> None:
    require(is_file(tree, key))
    delete(tree, key)


def remove_folder(tree: Tree, key: str, *, with_contents: bool) -> None:
    require(is_folder(tree, key) and (with_contents or not any(below(tree, key))))
    delete(tree, key)


def transfer(tree: Tree, source: str, target: str, *, move: bool, overwrite: bool, same_name: bool) -> None:
    """Copy or move a file. `same_name`: the target is spelt as the source."""
    if source == target and move and not same_name:
        require(is_file(tree, source))
        return
    require(overwrite or target not in tree)
    require(is_file(tree, source))
    if source == target:
        return
    require(not is_folder(tree, target) and is_folder(tree, parent(target)))
    tree.pop(target, None)
    relocate(tree, source, target, move=move)


def transfer_folder(tree: Tree, source: str, target: str, *, move: bool, create: bool) -> None:
    if source == target and move:
        require(is_folder(tree, source))
        return
    require(target in tree or create)
    require(is_folder(tree, source))
    if source == target:
        return
    require(not f"{target}/".startswith(f"{source}/"))
    require(is_folder(tree, target) or (target not in tree and is_folder(tree, parent(target))))
    pairs = [(each, target + each[len(source) :]) for each in sorted(below(tree, source))]
    if any(onto in tree and is_file(tree, onto) != is_file(tree, each) for each, onto in pairs):
        raise ClashError
    if any(onto == source or source.startswith(f"{onto}/") for _, onto in pairs) and move:
        raise ClashError  # a folder goes into what is above it, over its own ancestors
    taken = {onto: tree[each] for each, onto in pairs}
    if move:
        delete(tree, source)
    tree.setdefault(target)
    tree.update(taken)
