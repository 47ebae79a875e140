"""Hosts that are out of reach, each in its own way; each yields the address to give as `api_host`."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
import trustme

from fs_dropbox.api import dialing


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """Refuse connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
    yield host


@contextlib.contextmanager
def certified(certificate: trustme.LeafCert) -> Iterator[str]:
    """Show a certificate, and say nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def shake_hands() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with contextlib.suppress(OSError), connection:
                    context.wrap_socket(connection, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=shake_hands)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(30)


@contextlib.contextmanager
def unknown() -> Iterator[str]:
    """Have no address."""
    yield "no-such-host.invalid:443"


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """Accept connections and say nothing, not even TLS."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def swallowing() -> Iterator[str]:
    """Answer not even SYN, as a firewall that drops packets."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):  # until the backlog is full
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def unresolved(monkeypatch: pytest.MonkeyPatch, asked: list[str] | None = None) -> Iterator[str]:
    """Let the resolver hang until the end; `asked` is told of the names that it was asked for."""
    answer = threading.Event()
    look_up = dialing._addresses

    def hang(host: str, port: int, flags: int = 0) -> list[dialing.Address]:
        if flags:
            return look_up(host, port, flags)
        if asked is not None:
            asked.append(host)
        answer.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(dialing, "_addresses", hang)
    try:
        yield "dropbox.invalid:443"
    finally:
        answer.set()
