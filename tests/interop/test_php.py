"""phpseclib, SSH and SFTP in pure PHP, with the algorithms that everybody is offered."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.clients import client

from .stack import MIB, PASSWORD, Stack, digest, run

pytestmark = pytest.mark.interop

BEGIN = """<?php
error_reporting(E_ALL & ~E_DEPRECATED);
require_once 'phpseclib3/autoload.php';
use phpseclib3\\Net\\SFTP;
$sftp = new SFTP('127.0.0.1', (int) $argv[1], 30);
$login = fn() => $sftp->login('bob', $argv[2]);
"""


def php(stack: Stack, script: str) -> Any:
    """Run a script that may sign in as bob with `$login()`; return what it leaves in `$found`."""
    (stack.folder / "script.php").write_text(f"{BEGIN}{script}\necho json_encode($found);")
    done = run([client("php"), "script.php", str(stack.port), PASSWORD], folder=stack.folder)
    assert done.code == 0, done.out + done.err
    return json.loads(done.out)


@pytest.mark.write_back
def test_files_go_up_come_back_and_are_resumed(stack: Stack) -> None:
    content = stack.write("file", os.urandom(MIB + 1)).read_bytes()
    found = php(
        stack,
        """
        $content = file_get_contents('file');
        $found = [$login(), $sftp->mkdir('/a/b c', -1, true), $sftp->chdir('/a/b c')];
        $found[] = $sftp->put('Grüße', 'file', SFTP::SOURCE_LOCAL_FILE);
        $found[] = $sftp->get('Grüße') === $content;
        $found[] = $sftp->put('part', substr($content, 0, 500000));
        $found[] = $sftp->put('part', 'file', SFTP::SOURCE_LOCAL_FILE | SFTP::RESUME_START);
        $found[] = $sftp->get('part', false, 499990, 20) === substr($content, 499990, 20);
        $found[] = [$sftp->put('text', 'abc'), $sftp->put('text', 'def', SFTP::RESUME), $sftp->get('text')];
        $found[] = [$sftp->truncate('text', 4), $sftp->filesize('text'), $sftp->is_dir('.'), $sftp->stat('missing')];
        $found[] = [$sftp->rename('text', 'other'), $sftp->rename('other', 'part'), $sftp->symlink('other', 'link')];
        $found[] = [$sftp->delete('missing'), $sftp->rmdir('/a'), $sftp->getLastSFTPError()];
        """,
    )
    assert all(found[:8]), found
    assert found[8:10] == [[True, True, "abcdef"], [True, 4, True, False]]
    assert found[10] == [True, False, False]
    assert found[11][:2] == [False, False]
    assert "not empty" in found[11][2]
    assert stack.stored("/a/b c") == {"Grüße": digest(content), "part": digest(content), "other": digest(b"abcd")}


def test_a_tree_is_listed_and_removed(stack: Stack) -> None:
    found = php(
        stack,
        """
        $login();
        $sftp->mkdir('/many/deep', -1, true);
        for ($i = 0; $i < 20; $i++) $sftp->put("/many/$i", (string) $i);
        $sftp->put('/many/deep/file', '');
        $found = [count($sftp->nlist('/many')), $sftp->nlist('/many/deep', true)];
        array_push($found, $sftp->delete('/many'), $sftp->nlist('/'));
        """,
    )
    assert found[0] == 2 + 21
    assert sorted(found[1]) == [".", "..", "file"]
    assert found[2] is True
    assert sorted(found[3]) == [".", ".."]
    assert stack.stored() == {}
