"""libssh2 as programs in C, PHP and Python use it: one blocking session, appends with offsets of its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .stack import MIB, Stack, digest

pytestmark = pytest.mark.interop

sftp = pytest.importorskip("ssh2.sftp")
session = pytest.importorskip("ssh2.session")
exceptions = pytest.importorskip("ssh2.exceptions")

CREATE = sftp.LIBSSH2_FXF_WRITE | sftp.LIBSSH2_FXF_CREAT
TRUNCATE = CREATE | sftp.LIBSSH2_FXF_TRUNC
APPEND = CREATE | sftp.LIBSSH2_FXF_APPEND
READ = sftp.LIBSSH2_FXF_READ


@contextmanager
def signed_in(stack: Stack) -> Iterator[Any]:
    with socket.create_connection(("127.0.0.1", stack.port)) as sock:
        connection = session.Session()
        connection.handshake(sock)
        connection.userauth_publickey_fromfile("ann", f"{stack.folder}/id", "", f"{stack.folder}/id.pub")
        yield connection.sftp_init()
        connection.disconnect()


def read(client: Any, path: str) -> bytes:
    with client.open(path, READ, 0) as file:
        return b"".join(piece for _, piece in file)


def test_a_file_goes_up_and_comes_back(stack: Stack) -> None:
    content = os.urandom(5 * MIB + 1)
    with signed_in(stack) as client:
        assert client.realpath(".") == "/"
        client.mkdir("/folder", 0o755)
        with client.open("/folder/file", TRUNCATE, 0o644) as file:
            file.write(content)
        assert client.stat("/folder/file").filesize == len(content)
        assert read(client, "/folder/file") == content
        with client.opendir("/folder") as folder:
            assert [name for _, name, _ in folder.readdir()] == [b".", b"..", b"file"]
    assert stack.stored() == {"folder/file": digest(content)}


def test_a_file_is_appended_to_and_edited(stack: Stack) -> None:
    stack.control.write("/file", b"one")
    with signed_in(stack) as client:
        with client.open("/file", APPEND, 0o644) as file:
            file.write(b"two")
        with client.open("/file", sftp.LIBSSH2_FXF_WRITE, 0) as file:
            file.seek64(1)
            file.write(b"X")
            assert file.fstat().filesize == 6
        assert read(client, "/file") == b"oXetwo"
    assert stack.control.read("/file") == b"oXetwo"


def test_what_cannot_be_done_has_its_status(stack: Stack) -> None:
    stack.control.write("/a", b"1")
    stack.control.write("/b", b"2")
    with signed_in(stack) as client:
        for attempt, status in (
            (lambda: client.rename("/a", "/b"), 4),
            (lambda: client.symlink("/a", "/link"), 8),
            (lambda: client.unlink("/missing"), 2),
            (lambda: client.mkdir("/a", 0o755), 4),
        ):
            with pytest.raises(exceptions.SFTPProtocolError):
                attempt()
            assert client.last_error() == status
    assert stack.control.tree() == {"/a": 1, "/b": 1}
