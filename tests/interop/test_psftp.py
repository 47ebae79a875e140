"""psftp, whose core is FileZilla's: put, get, reput, reget."""

from __future__ import annotations

import os

import pytest

from tests.clients import client

from .stack import MIB, PASSWORD, Stack, digest, run

pytestmark = pytest.mark.interop


def psftp(stack: Stack, *lines: str) -> str:
    (stack.folder / "batch").write_text("".join(f"{line}\n" for line in lines))
    (stack.folder / "password").write_text(PASSWORD)
    where = ["-P", str(stack.port), "-l", "bob", "-pwfile", "password", "127.0.0.1"]
    command = [client("psftp"), "-hostkey", stack.fingerprint, "-b", "batch", *where]
    done = run(command, environment={"HOME": str(stack.folder)}, folder=stack.folder)
    assert done.code == 0, done.out + done.err
    return done.out


def test_a_file_goes_up_and_comes_back(stack: Stack) -> None:
    content = stack.write("file", os.urandom(3 * MIB + 1)).read_bytes()
    psftp(stack, 'put file "there ä"', 'get "there ä" back')
    assert stack.stored() == {"there ä": digest(content)}
    assert (stack.folder / "back").read_bytes() == content


def test_reput_and_reget_go_on_where_the_file_ends(stack: Stack) -> None:
    content = stack.write("file", os.urandom(2 * MIB + 7)).read_bytes()
    stack.control.write("/file", content[:MIB])
    psftp(stack, "reput file")
    assert stack.stored() == {"file": digest(content)}
    stack.write("back", content[: MIB + 3])
    psftp(stack, "reget file back")
    assert (stack.folder / "back").read_bytes() == content


def test_a_tree_goes_up_and_comes_back(stack: Stack) -> None:
    stack.write("tree/a/one", b"1")
    stack.write("tree/empty", b"")
    psftp(stack, "put -r tree", "get -r tree back", "mv tree/a/one tree/eins", "ls tree")
    assert stack.stored("/tree") == {"eins": digest(b"1"), "empty": digest(b"")}
    assert (stack.folder / "back" / "a" / "one").read_bytes() == b"1"
