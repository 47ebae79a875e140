"""Names as clients of other systems give them: accents apart, junk files, names that Dropbox does not take."""

from __future__ import annotations

import unicodedata

import pytest

from sftp_gateway.sftp.packets import Kind, Status
from tests.sftp_gateway.raw_client import C, R, T, W, X

from .sessions import raw
from .stack import Stack

pytestmark = pytest.mark.interop

COMPOSED = "Café Zürich"
APART = unicodedata.normalize("NFD", COMPOSED)


def test_accents_are_one_however_they_are_written(stack: Stack) -> None:
    with raw(stack) as client:
        client.put(f"/{APART}", b"from macOS")
        assert set(client.list("/")) == {".", "..", COMPOSED}
        assert client.get(f"/{APART}") == client.get(f"/{COMPOSED}") == b"from macOS"
        assert client.wait(client.open(f"/{COMPOSED}", W | C | X)).code == Status.FAILURE
        handle = client.opened(f"/{APART}", W | C | T)
        assert client.wait(client.write(handle, 0, b"again")).ok
        assert len(client.list("/")) == 3  # what is being written is no second file
        assert client.wait(client.lstat(f"/{COMPOSED}")).attributes.size == 5
        assert client.wait(client.close(handle)).ok
        assert client.wait(client.rename(f"/{APART}", f"/{COMPOSED.upper()}")).ok
    assert stack.control.tree() == {f"/{COMPOSED.upper()}": 5}


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (".DS_Store", "Dropbox reserves the name '.DS_Store'"),
        ("desktop.ini", "Dropbox reserves the name 'desktop.ini'"),
        ("Thumbs.db", "Dropbox reserves the name 'Thumbs.db'"),
        ("ends with a space ", "end with a space"),
        ("back\\slash", "a backslash"),
        ("x" * 256, "255"),
        ("😀" * 128, "255"),
    ],
)
def test_names_that_dropbox_does_not_take_are_refused_with_the_rule(stack: Stack, name: str, rule: str) -> None:
    with raw(stack) as client:
        stack.control.reset_counts()
        for request in (client.open(f"/{name}", W | C | T), client.mkdir(f"/{name}")):
            reply = client.wait(request)
            assert reply.code == Status.FAILURE
            assert rule in reply.text
        # whoever only looks learns that there is no such file, which is true
        for request in (client.lstat(f"/{name}"), client.stat(f"/{name}"), client.open(f"/{name}", R)):
            assert client.wait(request).code == Status.NO_SUCH_FILE
    assert stack.control.tree() == {}
    assert not [route for route in stack.control.calls() if "upload" in route or "create" in route]


@pytest.mark.write_back
def test_a_rename_to_where_no_directory_is_says_which_one_is_missing(stack: Stack) -> None:
    """The first path of a reason is the source's, which is there."""
    with raw(stack) as client:
        client.put("/file", b"content")
        client.wait(client.mkdir("/directory"))
        for name in ("file", "directory"):
            status = client.wait(client.rename(f"/{name}", f"/none/{name}"))
            assert status.text == f"/{name}: the target's directory does not exist"


@pytest.mark.parametrize(
    "name", ["x" * 255, "é" * 255, "😀" * 127, "ends with a dot.", "~$lock.docx", ".~lock.odt#", ':*?"<>|', "-rf"]
)
def test_unusual_names_that_dropbox_takes_are_kept(stack: Stack, name: str) -> None:
    with raw(stack) as client:
        client.put(f"/{name}", b"content")
        assert set(client.list("/")) == {".", "..", name}
        assert client.get(f"/{name}") == b"content"
        assert client.wait(client.stat(f"/{name}")).kind == Kind.ATTRS
    assert stack.control.tree() == {f"/{name}": 7}
