"""curl with sftp:// (libssh2): uploads, downloads, ranges, resumed transfers."""

from __future__ import annotations

import os

import pytest

from tests.clients import client

from .stack import MIB, PASSWORD, Done, Stack, digest, run

pytestmark = pytest.mark.interop


def try_curl(stack: Stack, *arguments: str) -> Done:
    # the password comes from a file, not from the list of processes
    (stack.folder / "curlrc").write_text(f'user = "bob:{PASSWORD}"\ninsecure\nsilent\nshow-error\nmax-time = 60\n')
    return run([client("curl"), "--config", "curlrc", *arguments], folder=stack.folder)


def curl(stack: Stack, *arguments: str) -> str:
    done = try_curl(stack, *arguments)
    assert done.code == 0, done.err
    return done.out


def url(stack: Stack, path: str) -> str:
    return f"sftp://127.0.0.1:{stack.port}{path}"


def test_a_file_goes_up_and_comes_back(stack: Stack) -> None:
    content = stack.write("file", os.urandom(9 * MIB + 1)).read_bytes()
    curl(stack, "-T", "file", url(stack, "/there%20%C3%A4.bin"))
    assert stack.stored() == {"there ä.bin": digest(content)}
    curl(stack, "-o", "back", url(stack, "/there%20%C3%A4.bin"))
    assert digest((stack.folder / "back").read_bytes()) == digest(content)


def test_an_empty_file_goes_up(stack: Stack) -> None:
    stack.write("empty", b"")
    curl(stack, "-T", "empty", url(stack, "/empty"))
    assert stack.stored() == {"empty": digest(b"")}


def test_folders_are_made_on_the_way(stack: Stack) -> None:
    stack.write("file", b"1")
    curl(stack, "--ftp-create-dirs", "-T", "file", url(stack, "/a/b/c/file"))
    curl(stack, "--ftp-create-dirs", "-T", "file", url(stack, "/a/b/d/file"))
    assert stack.stored() == {"a/b/c/file": digest(b"1"), "a/b/d/file": digest(b"1")}


def test_a_range_is_fetched(stack: Stack) -> None:
    content = os.urandom(2 * MIB)
    stack.control.write("/file", content)
    curl(stack, "-r", "1000000-1000099", "-o", "part", url(stack, "/file"))
    assert (stack.folder / "part").read_bytes() == content[1_000_000:1_000_100]


def test_an_upload_goes_on_where_the_file_ends(stack: Stack) -> None:
    content = stack.write("file", os.urandom(2 * MIB + 7)).read_bytes()
    stack.control.write("/file", content[:MIB])
    curl(stack, "-C", "-", "-T", "file", url(stack, "/file"))
    assert stack.stored() == {"file": digest(content)}


def test_a_download_goes_on_where_the_file_ends(stack: Stack) -> None:
    content = os.urandom(2 * MIB + 7)
    stack.control.write("/file", content)
    stack.write("file", content[: MIB + 1])
    curl(stack, "-C", "-", "-o", "file", url(stack, "/file"))
    assert (stack.folder / "file").read_bytes() == content


def test_a_folder_is_listed_and_quoted_commands_are_obeyed(stack: Stack) -> None:
    stack.control.write("/folder/file", b"12345")
    listing = curl(stack, url(stack, "/folder/"))
    assert [line.split()[4] for line in listing.splitlines() if line.endswith(" file")] == ["5"]
    curl(stack, "-Q", "rename /folder/file /folder/other", "-Q", "mkdir /new", url(stack, "/"))
    assert stack.control.tree() == {"/folder": None, "/folder/other": 5, "/new": None}


def test_a_missing_file_and_a_wrong_password_have_their_own_exit_codes(stack: Stack) -> None:
    assert try_curl(stack, url(stack, "/missing")).code == 78
    assert try_curl(stack, "--user", "bob:wrong", url(stack, "/")).code == 67


def test_the_old_scp_is_refused_and_taken_for_no_success(stack: Stack) -> None:
    """libssh2 1.10 takes a channel that ends with something on stderr for a success."""
    stack.write("file", b"1")
    stack.control.write("/there", b"1")
    old = url(stack, "/there").replace("sftp:", "scp:")
    assert try_curl(stack, "-o", "back", old).code != 0
    assert try_curl(stack, "-T", "file", old + "2").code != 0
    assert stack.control.tree() == {"/there": 1}
