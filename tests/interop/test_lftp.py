"""lftp: mirrors both ways, and goes on with what was cut off."""

from __future__ import annotations

import os

import pytest

from .programs import lftp
from .stack import MIB, Stack, digest, digests, make_tree

pytestmark = pytest.mark.interop


def test_a_tree_is_mirrored_both_ways(stack: Stack) -> None:
    tree = make_tree(stack.folder / "tree")
    lftp(stack, "mirror -R --parallel=4 tree there")
    assert stack.stored("/there") == tree
    lftp(stack, "mirror --parallel=4 there back")
    assert digests(stack.folder / "back") == tree


@pytest.mark.write_back
def test_a_mirror_sends_only_what_is_newer(stack: Stack) -> None:
    make_tree(stack.folder / "tree")
    lftp(stack, "mirror -R tree there")
    stack.control.reset_counts()
    lftp(stack, "mirror -R tree there")
    assert not [route for route in stack.control.calls() if "upload" in route]
    (stack.folder / "tree" / "one").write_bytes(b"more than before")
    (stack.folder / "tree" / "empty").unlink()
    lftp(stack, "mirror -R --delete tree there")
    assert stack.stored("/there") == digests(stack.folder / "tree")


def test_put_c_goes_on_where_the_file_ends(stack: Stack) -> None:
    content = stack.write("file", os.urandom(2 * MIB + 7)).read_bytes()
    stack.control.write("/file", content[:MIB])
    lftp(stack, "put -c file")
    assert stack.stored() == {"file": digest(content)}


def test_put_replaces_and_keeps_the_time(stack: Stack) -> None:
    stack.control.write("/file", b"an older and longer one")
    os.utime(stack.write("file", b"new"), (1_500_000_000, 1_500_000_000))
    lftp(stack, "put file")
    assert stack.control.read("/file") == b"new"
    assert stack.control.metadata("/file")["client_modified"] == "2017-07-14T02:40:00Z"


def test_mv_cd_and_rm(stack: Stack) -> None:
    stack.control.write("/folder/one", b"1")
    stack.control.write("/folder/two", b"2")
    lftp(stack, "cd folder", "mv one eins", "rm two", "cd ..", "mv folder Ordner", "mkdir -p a/b", "rm -r a")
    assert stack.control.tree() == {"/Ordner": None, "/Ordner/eins": 1}
