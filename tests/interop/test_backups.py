"""Backup programs: what they stored is checked, restored and thinned out by themselves."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.clients import client

from .programs import restic
from .stack import Stack, digests, make_tree, run

pytestmark = pytest.mark.interop


def test_restic_backs_up_checks_prunes_and_restores(stack: Stack) -> None:
    make_tree(stack.folder / "tree")
    restic(stack, "init")
    restic(stack, "backup", "tree")
    stack.write("tree/one", os.urandom(100_000))
    restic(stack, "backup", "tree")
    restic(stack, "forget", "--keep-last", "1", "--prune")
    assert "no errors were found" in restic(stack, "check", "--read-data").out
    restic(stack, "restore", "latest", "--target", "back")
    assert digests(stack.folder / "back" / "tree") == digests(stack.folder / "tree")
    assert not [path for path in stack.control.tree() if "restic-temp" in path]
    assert not [path for path in stack.control.tree("/backup/locks") if path != "/backup/locks"]


@pytest.mark.soak
@pytest.mark.parametrize("backend", ["paramiko+sftp", "pexpect+sftp"])
def test_duplicity_backs_up_verifies_and_restores(stack: Stack, backend: str) -> None:
    """It reads the passwords of users from the environment and the keys of hosts from ssh's options."""
    make_tree(stack.folder / "tree")
    for path in (stack.folder / "tree").rglob("*"):  # it cannot print names beyond its locale
        if path.is_file() and not path.name.isascii():
            path.unlink()
    shutil.rmtree(stack.folder / "tree" / "Grüße")
    where = f"{backend}://ann@127.0.0.1:{stack.port}//backup"
    ssh = f"-oIdentityFile={stack.folder}/id -oUserKnownHostsFile={stack.folder}/known_hosts -oStrictHostKeyChecking=no"

    def duplicity(*arguments: str) -> str:
        options = ["--no-encryption", "--volsize", "4", "--archive-dir", "archive", f"--ssh-options={ssh}"]
        environment = {"HOME": str(stack.folder)}
        done = run([client("duplicity"), *arguments, *options], environment=environment, folder=stack.folder)
        assert done.code == 0, done.out + done.err
        return done.out

    stack.sftp("ls")  # so that the host's key is known
    (stack.folder / ".ssh").mkdir()
    shutil.copy(stack.folder / "known_hosts", stack.folder / ".ssh" / "known_hosts")
    duplicity("full", "tree", where)
    stack.write("tree/one", os.urandom(100_000))
    duplicity("incremental", "tree", where)
    assert "0 differences found" in duplicity("verify", where, "tree")
    duplicity("restore", where, "back")
    assert digests(stack.folder / "back") == digests(stack.folder / "tree")
