"""The listening socket: opened at the configured address, or one line that says why it cannot be."""

from __future__ import annotations

import errno
import socket

_BACKLOG = 256


class ListenError(Exception):
    """It is impossible to listen at an address; the text is one line that says why and what to do."""


def listen(host: str, port: int, flag: str) -> socket.socket:
    """Return a non-blocking listening socket; raises `ListenError`, which names the flag to choose another address."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
    except OSError as error:
        raise ListenError(f"{host}: is no address of this machine: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # `::` accepts IPv4, too, whatever the system's default
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {host}:{port}: {_why_not(error, flag)}") from error
    return listener


def _why_not(error: OSError, flag: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"the port is in use; stop the other server, or choose another port with {flag}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"ports below 1024 need privileges; choose another port with {flag}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no such address; choose another with {flag}"
    return error.strerror or str(error)
