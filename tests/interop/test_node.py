"""ssh2-sftp-client, the SFTP client of most programs on node: 64 requests in flight, writes out of order."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.clients import client, node_modules

from .stack import MIB, Stack, digest, digests, make_tree, run

pytestmark = pytest.mark.interop

SCRIPT = Path(__file__).parent / "node" / "client.js"


def calls(stack: Stack, *wanted: list[Any]) -> list[Any]:
    """Carry out calls one after the other in one session; return what each returned."""
    connect = {"host": "127.0.0.1", "port": stack.port, "username": "ann", "privateKey": f"{stack.folder}/id"}
    environment = {"NODE_PATH": str(node_modules("ssh2-sftp-client"))}
    job = json.dumps({"connect": connect, "calls": wanted})
    done = run([client("node"), SCRIPT], stdin=job, environment=environment, folder=stack.folder)
    assert done.code == 0, done.err
    results: list[Any] = json.loads(done.out)
    return results


def test_files_go_up_and_come_back(stack: Stack) -> None:
    content = stack.write("file", os.urandom(9 * MIB + 1)).read_bytes()
    results = calls(
        stack,
        ["cwd"],
        ["mkdir", "/deep/er", True],
        ["fastPut", "file", "/deep/er/fast"],
        ["put", "file", "/deep/er/streamed"],
        ["stat", "/deep/er/streamed"],
        ["fastGet", "/deep/er/fast", "back"],
        ["list", "/deep/er"],
    )
    assert not [result for result in results if isinstance(result, dict) and "error" in result]
    assert results[0] == "/"
    assert results[4]["size"] == len(content)
    assert sorted((entry["type"], entry["name"], entry["size"]) for entry in results[6]) == [
        ("-", "fast", len(content)),
        ("-", "streamed", len(content)),
    ]
    assert stack.stored("/deep/er") == {"fast": digest(content), "streamed": digest(content)}
    assert digest((stack.folder / "back").read_bytes()) == digest(content)


@pytest.mark.write_back
def test_files_are_appended_to_moved_and_removed(stack: Stack) -> None:
    results = calls(
        stack,
        ["put", {"bytes": "abc"}, "/a"],
        ["append", {"bytes": "def"}, "/a"],
        ["get", "/a"],
        ["rename", "/a", "/b"],
        ["put", {"bytes": "new"}, "/a"],
        ["posixRename", "/a", "/b"],
        ["chmod", "/b", 0o600],
        ["get", "/b"],
        ["rcopy", "/b", "/c"],
        ["delete", "/b"],
        ["exists", "/b"],
    )
    assert not [result for result in results if isinstance(result, dict)]
    assert (results[2], results[7], results[10]) == ("abcdef", "new", False)
    assert stack.control.tree() == {"/c": 3}


def test_a_tree_goes_up_and_comes_back(stack: Stack) -> None:
    tree = make_tree(stack.folder / "tree")
    results = calls(stack, ["uploadDir", "tree", "/tree"], ["downloadDir", "/tree", "back"], ["rmdir", "/tree", True])
    assert not [result for result in results if isinstance(result, dict)], results
    assert digests(stack.folder / "back") == tree
    assert stack.control.tree() == {}


def test_reasons_are_told(stack: Stack) -> None:
    stack.control.write("/a", b"1")
    stack.control.write("/b", b"2")
    refused, exists, missing = calls(
        stack, ["put", {"bytes": "x"}, "/desktop.ini"], ["rename", "/a", "/b"], ["get", "/missing"]
    )
    assert "Dropbox reserves the name 'desktop.ini'" in refused["error"]
    assert "the target b exists already" in exists["error"]
    assert "No such file" in missing["error"]
    assert stack.control.tree() == {"/a": 1, "/b": 1}
