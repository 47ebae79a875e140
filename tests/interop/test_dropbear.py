"""Dropbear's client, of small devices: it sends its side of the key exchange before it knows which one it is."""

from __future__ import annotations

import os

import pytest

from tests.clients import client

from .stack import MIB, PASSWORD, Stack, run

pytestmark = pytest.mark.interop


def test_files_go_up_and_come_back(stack: Stack) -> None:
    content = stack.write("file", os.urandom(2 * MIB + 1)).read_bytes()
    # What OpenSSH's sftp calls in place of ssh; all that it would tell ssh is known here.
    program = stack.write(
        "connect", f'#!/bin/sh\nexec "{client("dbclient")}" -y -y -p {stack.port} bob@127.0.0.1 -s sftp\n'.encode()
    )
    program.chmod(0o700)
    done = run(
        [client("sftp"), "-S", program, "-b", "-", "127.0.0.1"],
        stdin="put file /file\nget /file back\nrename /file /renamed\n",
        environment={"DROPBEAR_PASSWORD": PASSWORD, "HOME": str(stack.folder)},
        folder=stack.folder,
    )
    assert done.code == 0, done.out + done.err
    assert (stack.folder / "back").read_bytes() == content
    assert stack.control.read("/renamed") == content
