"""Connections to a gateway: SFTP on one, and waiting until none is left."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import paramiko

from sftp_gateway import SFTPGateway
from tests.sftp_gateway.conftest import PASSWORD
from tests.waiting import eventually


def wait_for_no_connection(gateway: SFTPGateway) -> None:
    """Wait until the gateway has let go of every connection."""
    eventually(lambda: not gateway.connections, "connections are left")


def first_line(gateway: SFTPGateway) -> bytes:
    """Return what the gateway says to whoever connects."""
    with socket.create_connection(gateway.address, timeout=20) as sock:
        return sock.makefile("rb").readline()


def seconds_until_closed(sock: socket.socket) -> float:
    """Read to the end of a connection and return how long that took."""
    started = time.monotonic()
    sock.settimeout(20)
    while sock.recv(65536):
        pass
    return time.monotonic() - started


def sftp(transport: paramiko.Transport) -> paramiko.SFTPClient:
    """Open SFTP on a connection that is signed in."""
    client = paramiko.SFTPClient.from_transport(transport)
    assert client is not None
    return client


@contextmanager
def signed_in(port: int, name: str = "ann", password: str = PASSWORD) -> Iterator[paramiko.SFTPClient]:
    """Sign in to a gateway on a port of this machine, for the time of a block."""
    transport = paramiko.Transport(("127.0.0.1", port))
    try:
        transport.connect(username=name, password=password)
        yield sftp(transport)
    finally:
        transport.close()
        transport.join(30)
