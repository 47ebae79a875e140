"""rclone's sftp backend: copies, synchronises, checks."""

from __future__ import annotations

import json
import os
import time

import pytest

from .programs import rclone
from .stack import Stack, digests, make_tree

pytestmark = pytest.mark.interop


@pytest.mark.write_back
def test_a_tree_is_copied_both_ways_and_checked(stack: Stack) -> None:
    tree = make_tree(stack.folder / "tree")
    rclone(stack, "copy", "tree", "box:there")
    assert stack.stored("/there") == tree
    rclone(stack, "check", "--download", "tree", "box:there")
    rclone(stack, "copy", "box:there", "back")
    assert digests(stack.folder / "back") == tree


def test_a_second_sync_sends_only_what_changed(stack: Stack) -> None:
    make_tree(stack.folder / "tree")
    rclone(stack, "sync", "tree", "box:there")
    (stack.folder / "tree" / "one").write_bytes(b"more than before")
    (stack.folder / "tree" / "empty").unlink()
    stack.control.reset_counts()
    rclone(stack, "sync", "--size-only", "tree", "box:there")
    assert stack.stored("/there") == digests(stack.folder / "tree")
    assert sum(stack.control.bytes_in()[route] for route in stack.control.bytes_in() if "upload" in route) < 10_000


def test_update_leaves_alone_what_did_not_change(stack: Stack) -> None:
    """rclone sets times after CLOSE, which changes nothing: without --update all of it would be sent again."""
    for name in ("same", "changed"):
        os.utime(stack.write(f"tree/{name}", b"old content"), (1_500_000_000, 1_500_000_000))
    rclone(stack, "sync", "--update", "tree", "box:there")
    changed = stack.write("tree/changed", b"new content")  # of the same size
    os.utime(changed, (time.time() + 60, time.time() + 60))
    stack.control.reset_counts()
    rclone(stack, "sync", "--update", "tree", "box:there")
    assert stack.stored("/there") == digests(stack.folder / "tree")
    assert stack.commits() == 1


def test_about_shows_the_quota(stack: Stack) -> None:
    stack.control.set_quota(1 << 40)
    assert json.loads(rclone(stack, "about", "--json", "box:"))["total"] == 1 << 40


def test_files_are_moved_and_removed(stack: Stack) -> None:
    stack.control.write("/folder/one", b"1")
    stack.control.write("/folder/two", b"2")
    rclone(stack, "moveto", "box:folder/one", "box:other/eins")
    rclone(stack, "deletefile", "box:folder/two")
    assert {path: size for path, size in stack.control.tree().items() if size is not None} == {"/other/eins": 1}
    rclone(stack, "purge", "box:other")
    assert not stack.control.exists("/other")
