"""Whether what an operation has said of itself is true, by the trees before and after it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import fs.errors

from fs_dropbox import VersionConflict
from fs_dropbox.errors import UNSETTLED
from tests.fs_dropbox.filesystem.tree_model import ClashError, RefusedError, Tree, ancestors, delete, is_folder
from tests.fs_dropbox.filesystem.tree_operations import Apply, Operation

# Errors that say how things are, and not that something went wrong.
STATE: Final = (fs.errors.ResourceError, VersionConflict)
GONE: Final = "if the file that was there is gone"
ELSEWHERE: Final = "it may be at "


def is_unknown(error: Exception) -> bool:
    """Tell whether an error says that what it is about may have been done all the same."""
    return any(text in str(error) for text in (UNSETTLED, GONE, ELSEWHERE))


def differences(one: Tree, other: Tree) -> dict[str, Any]:
    """Return what is not the same in two trees."""

    def told(tree: Tree, key: str) -> object:
        return str(tree[key])[:12] if key in tree else "nothing"

    keys = {key for key in one.keys() | other.keys() if told(one, key) != told(other, key)}
    return {key: (told(one, key), told(other, key)) for key in keys}


def judge(
    op: Operation, before: Tree, after: Tree, error: Exception | None, changes: Sequence[Apply], *, is_struck: bool
) -> None:
    """Raise AssertionError unless what came of an operation is what it says, whenever in it others did their part."""
    orders: list[list[Apply]] = [[], [op.apply]]
    if changes:
        orders = [[*changes], [op.apply, *changes], [*changes, op.apply], [*changes, _revive(op, before), op.apply]]
    none: list[Tree] = []
    done: list[Tree] = []
    is_refused = is_clash = False
    for order in orders:
        try:
            (done if op.apply in order else none).append(_after(before, order))
        except RefusedError as refusal:
            is_refused = True
            is_clash = is_clash or isinstance(refusal, ClashError)
    if error is None:
        if is_clash or (op.is_partial and changes):
            check_kept(op, before, after, changes)
        elif changes and ("remove" in op.text or ("make" in op.text and is_struck)):
            # A folder counts as made when it is there, whoever made it, and anything as removed when it is not; what
            # others put into a folder after it was seen to be empty goes as well.
            with suppress(RefusedError):
                if "removedir" in op.text:
                    done.append(_after(before, [*changes, partial(delete, key=op.touched[-1])]))
            assert after in done + none, "it is neither done nor was it done by others"
        else:
            assert after in done, f"it is not done: {differences(done[0] if done else before, after)}"
        return
    if op.is_partial or is_clash or ELSEWHERE in str(error):
        check_kept(op, before, after, changes)
    elif is_unknown(error):
        gone = [{key: tree[key] for key in tree if key != op.touched[-1]} for tree in none + done if GONE in str(error)]
        with suppress(RefusedError):  # where others have taken its place, what was to be replaced does not come back
            gone += [_after({key: before[key] for key in before if key != op.touched[-1]}, changes)] if changes else []
        assert after in [*none, *done, *gone], f"neither done nor not done: {differences(before, after)}"
    else:
        assert after in none, f"it is done: {differences(before, after)}"
    if isinstance(error, STATE):
        is_contested = bool(changes) and (
            is_unknown(error) or isinstance(error, (VersionConflict, fs.errors.FileExists))
        )
        assert is_refused or is_contested or (changes and op.merged), "what it says is not true"
    else:
        assert is_struck or is_refused, "an error without a fault"


def _revive(op: Operation, before: Tree) -> Apply:
    """Return what makes the folders above a target that others have just removed: Dropbox does, unasked."""

    def revive(tree: Tree) -> None:
        above = {folder for key in op.touched[-1 if not op.items else 0 :] for folder in ancestors(key)}
        tree.update({folder: None for folder in above if is_folder(before, folder) and folder not in tree})

    return revive


def _after(tree: Tree, order: Iterable[Apply]) -> Tree:
    tree = dict(tree)
    for apply in order:
        apply(tree)
    return tree


def judge_items(op: Operation, results: dict[int, Any], before: Tree, after: Tree, changes: Sequence[Apply]) -> None:
    """Raise AssertionError unless each of many has become what its result says; those of one path in their order."""
    assert len(results) == len(op.items), "there is not one result for each"
    possible = [dict(before)]
    for index, apply in enumerate(op.items):
        outcome = results[index]
        grown: list[Tree] = []
        for tree in _with(op, changes, possible, before):
            if outcome is not None:
                grown.append(tree)
            if outcome is None or is_unknown(outcome):
                try:
                    grown.append(_after(tree, [apply]))
                except RefusedError:
                    assert outcome is not None or changes, f"number {index} cannot be"
        possible = [tree for at, tree in enumerate(grown) if tree not in grown[:at]]
    if not changes:
        assert after in possible, [differences(tree, after) for tree in possible]
        return
    possible = _with(op, changes, possible, before)
    for key in before.keys() | after.keys():
        assert after.get(key, b"?") in [tree.get(key, b"?") for tree in possible], f"{key} is none of what it may be"


def _with(op: Operation, changes: Sequence[Apply], trees: list[Tree], before: Tree) -> list[Tree]:
    """Return trees as they are, and as they are after what others have done, where that can be."""
    changed = []
    for tree in trees if changes else []:
        with suppress(RefusedError):
            changed += [_after(tree, changes), _after(tree, [*changes, _revive(op, before)])]
    return trees + changed


def judge_losses(
    op: Operation, before: Tree, after: Tree, error: Exception | None, changes: Sequence[Apply], *, has_moved: bool
) -> None:
    """Raise AssertionError where something is gone that the operation, as things were, was not to take away.

    Who knows things otherwise than they are may well do other things, and elsewhere where the root `has_moved`.
    """
    if changes:
        return
    wanted = dict(before)
    for apply in op.items or [op.apply]:
        with suppress(RefusedError):
            apply(wanted)
    for key, content in before.items():
        is_meant = wanted.get(key) != content or (op.is_partial and key in op.touched)
        if content is not None and not is_meant:
            assert _is_kept(content, after), f"lost: {key}"
    if error is not None and not is_unknown(error) and not op.is_partial and not op.merged and not has_moved:
        assert before == after, f"it is done: {differences(before, after)}"


def _is_kept(content: bytes, tree: Tree) -> bool:
    return any(content == each or (content and each and content in each) for each in tree.values())


def check_kept(op: Operation, before: Tree, after: Tree, changes: Sequence[Apply]) -> None:
    """Raise AssertionError where something is gone of which a part was done, unless others or that took its place."""
    try:
        changed = _after(before, changes)
    except RefusedError:  # it was done to what the operation had made
        return
    source, target = op.merged or ("", "")
    gone: set[bytes | None] = set()
    if changes:
        with suppress(RefusedError):  # what others have removed at its new place
            gone = set(before.values()) - set(_after(before, [op.apply, *changes]).values())
    for key, content in before.items():
        if content is None or changed.get(key) != content or content in after.values() or content in gone:
            continue
        if op.merged is None:
            assert key in op.touched, f"lost: {key}"
        else:
            is_replaced = key.startswith(f"{target}/") and before.get(source + key[len(target) :]) == after.get(key)
            assert is_replaced, f"lost: {key}"
    if op.merged and op.merged[0] != op.merged[1] and not changes:
        for key in before.keys() ^ after.keys():
            assert any(f"{key}/".startswith(f"{each}/") for each in op.merged), f"not asked for: {key}"
