"""GNOME's gvfs, which file managers and editors save through: new files take the place of old ones."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory

import pytest

from tests.clients import client

from .stack import MIB, PASSWORD, Stack, digest, run

pytestmark = [pytest.mark.interop, pytest.mark.soak]


def test_files_are_copied_saved_and_moved(stack: Stack) -> None:
    content = stack.write("file", os.urandom(5 * MIB + 1)).read_bytes()
    stack.control.write("/edited", b"old")
    where = f"sftp://bob@127.0.0.1:{stack.port}"
    script = f"""
        set -e
        echo '{PASSWORD}' | gio mount {where}/
        gio copy file {where}/copied
        gio copy {where}/copied back
        echo new | gio save {where}/edited
        echo newer | gio save -b {where}/edited
        echo more | gio save -a {where}/edited
        gio mkdir -p {where}/a/b
        gio move {where}/copied {where}/a/b/moved
        gio rename {where}/a/b/moved 'Grüße'
        gio list -l {where}/a/b
        gio info -f {where}/
        gio mount -u {where}/
    """
    (stack.folder / "script").write_text(script)
    with TemporaryDirectory() as runtime:  # the paths of sockets have to be short
        environment = {"XDG_RUNTIME_DIR": runtime, "GVFS_DISABLE_FUSE": "1"}
        done = run([client("dbus-run-session"), "--", "sh", "script"], environment=environment, folder=stack.folder)
    assert done.code == 0, done.out + done.err
    assert f"Grüße\t{len(content)}" in done.out
    assert "filesystem::size: 2000000000000" in done.out
    assert digest((stack.folder / "back").read_bytes()) == digest(content)
    assert stack.control.read("/edited") == b"newer\nmore\n"
    assert stack.stored("/a/b") == {"Grüße": digest(content)}
