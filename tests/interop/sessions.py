"""Sessions of hand-made clients: cut off, left in the middle, or packet by packet."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paramiko

from tests.sftp_gateway.raw_client import RawClient

from .stack import Stack


def size_of(sftp: paramiko.SFTPClient, path: str) -> int:
    """Return the size that a client is told."""
    size = sftp.stat(path).st_size
    assert size is not None
    return size


def cut(sftp: paramiko.SFTPClient, *, reset: bool) -> None:
    """End the connection under the client, as a pulled cable or a crashed machine does."""
    channel = sftp.get_channel()
    assert channel is not None
    sock: Any = channel.get_transport().sock
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    else:
        sock.shutdown(socket.SHUT_RDWR)


def send(sftp: paramiko.SFTPClient, path: str, content: bytes) -> paramiko.SFTPFile:
    """Open a file anew and write to it, with every write answered; CLOSE is left to the caller."""
    file = sftp.open(path, "wb")
    file.set_pipelined(True)
    for begin in range(0, len(content), 32768):
        file.write(content[begin : begin + 32768])
    assert file.stat().st_size == len(content)  # answered after all writes
    return file


@contextmanager
def raw(stack: Stack) -> Iterator[RawClient]:
    """Sign in with a client that sends packets as they are told."""
    with stack.connection() as sftp:
        channel = sftp.get_channel()
        assert channel is not None
        session = channel.get_transport().open_session()
        session.invoke_subsystem("sftp")
        yield RawClient(session).init()
