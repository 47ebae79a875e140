"""Clients behind proxies are known by their own address; nobody else may claim one."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import time
from pathlib import Path

import paramiko
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftp_gateway import SFTPGateway
from sftp_gateway.network.proxy_protocol import SIGNATURE, HeaderError, HeaderReader
from tests.clients import client
from tests.sftp_gateway.conftest import PASSWORD, LogLines, StartGateway

LOCAL_PROXY = ("127.0.0.0/8",)
BANNER = b"SSH-2.0-SFTPGateway\r\n"


def binary(source: str, *, command: int = 1, extensions: bytes = b"") -> bytes:
    if ":" in source:
        addresses = socket.inet_pton(socket.AF_INET6, source) + bytes(16)
        family = 0x21
    else:
        addresses = socket.inet_aton(source) + bytes(4)
        family = 0x11
    body = addresses + struct.pack(">HH", 40000, 22) + extensions
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack(">H", len(body)) + body


def read(data: bytes, size: int = 10**6) -> tuple[str | None, bytes]:
    """Feed a reader in pieces of at most `size` bytes; return the source and what the reader left."""
    reader, position = HeaderReader(), 0
    while reader.wanted and position < len(data):
        piece = data[position : position + min(size, reader.wanted)]
        position += len(piece)
        reader.feed(piece)
    assert not reader.wanted, "the header is not complete"
    return reader.source, data[position:]


HEADERS = [
    (b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 22\r\n", "203.0.113.7"),
    (b"PROXY TCP6 2001:db8::7 ::1 40000 22\r\n", "2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    (binary("203.0.113.7"), "203.0.113.7"),
    (binary("2001:db8::7"), "2001:db8::7"),
    (binary("203.0.113.7", extensions=b"\x04\x00\x03abc"), "203.0.113.7"),
    (binary("203.0.113.7", command=0), None),
    (SIGNATURE + b"\x21\x00\x00\x00", None),  # an unknown family
]


@pytest.mark.parametrize(("header", "source"), HEADERS)
@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_headers_are_read_and_not_a_byte_more(header: bytes, source: str | None, size: int) -> None:
    assert read(header + b"SSH-2.0-x\r\n", size) == (source, b"SSH-2.0-x\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 203.0.113.7 10.0.0.1 40000\r\n",
        b"PROXY TCP4 2001:db8::7 ::1 40000 22\r\n",
        b"PROXY TCP4 203.0.113.700 10.0.0.1 40000 22\r\n",
        b"PROXY TCP5 203.0.113.7 10.0.0.1 40000 22\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
        SIGNATURE + b"\x21\x11\xff\xff" + bytes(200),
    ],
)
def test_what_is_no_header(data: bytes) -> None:
    with pytest.raises(HeaderError):
        read(data + bytes(300))


@given(st.binary(max_size=200), st.sampled_from([b"", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
def test_whatever_comes_is_a_header_or_an_error(data: bytes, start: bytes) -> None:
    with contextlib.suppress(HeaderError):
        read(start + data + bytes(5000))


# A gateway behind a proxy.


@contextlib.contextmanager
def connected(gateway: SFTPGateway, header: bytes):  # type: ignore[no-untyped-def]
    with socket.create_connection(gateway.address, timeout=20) as sock:
        sock.sendall(header)
        yield sock


@pytest.mark.parametrize("header", [b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 22\r\n", binary("203.0.113.7")])
def test_a_client_behind_a_proxy_has_its_own_address(
    start_gateway: StartGateway, log_lines: LogLines, header: bytes
) -> None:
    gateway = start_gateway(proxy_protocol=LOCAL_PROXY)
    with connected(gateway, header) as sock, paramiko.Transport(sock) as transport:
        transport.connect(username="ann", password=PASSWORD)
        (login,) = log_lines("login", 1)
        assert login["from"] == "203.0.113.7"
    transport.join(30)


def test_the_ban_meets_the_client_and_not_the_proxy(start_gateway: StartGateway, log_lines: LogLines) -> None:
    gateway = start_gateway(proxy_protocol=LOCAL_PROXY, ban_failures=1)
    with (
        connected(gateway, binary("203.0.113.7")) as sock,
        paramiko.Transport(sock) as transport,
        pytest.raises((paramiko.SSHException, EOFError)),
    ):
        transport.connect(username="ann", password="wrong password")
    transport.join(30)
    log_lines("ban", 1)
    with connected(gateway, binary("203.0.113.7")) as sock:
        assert sock.recv(100) == b"banned after failed logins\r\n"
    with connected(gateway, binary("203.0.113.8")) as sock:
        assert sock.recv(100) == BANNER


def test_the_limit_for_an_address_meets_the_client(start_gateway: StartGateway) -> None:
    gateway = start_gateway(proxy_protocol=LOCAL_PROXY, max_connections_per_address=1)
    with connected(gateway, binary("203.0.113.7")) as first, connected(gateway, binary("203.0.113.8")) as other:
        assert first.recv(100) == other.recv(100) == BANNER
        with connected(gateway, binary("203.0.113.7")) as second:
            assert second.recv(100) == b"too many connections from one address\r\n"


def test_a_proxy_without_a_header_is_refused_with_one_line(start_gateway: StartGateway, log_lines: LogLines) -> None:
    gateway = start_gateway(proxy_protocol=LOCAL_PROXY)
    with connected(gateway, b"SSH-2.0-OpenSSH_9.2\r\n") as sock, contextlib.suppress(ConnectionResetError):
        assert sock.recv(100) == b""
    (line,) = log_lines("refused", 1)
    assert line == {"reason": "sent no PROXY header", "from": "127.0.0.1"}


def test_a_proxy_that_says_nothing_is_refused_in_time_and_delays_nobody(
    start_gateway: StartGateway, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftp_gateway.network.proxy_protocol._HEADER_SECONDS", 2.0)
    gateway = start_gateway(proxy_protocol=LOCAL_PROXY)
    with connected(gateway, SIGNATURE[:5]) as silent:
        with connected(gateway, binary("203.0.113.7")) as sock:
            assert sock.recv(100) == BANNER
        started = time.monotonic()
        assert silent.recv(100) == b""
        assert time.monotonic() - started < 15
    (line,) = log_lines("refused", 1)
    assert line["reason"] == "sent no PROXY header in time"


def test_those_who_wait_are_limited(start_gateway: StartGateway) -> None:
    gateway = start_gateway(proxy_protocol=LOCAL_PROXY, max_connections=2)
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connected(gateway, b"")) for _ in range(3)]
        assert waiting[2].recv(100) == b""
        waiting[0].sendall(binary("203.0.113.7"))
        assert waiting[0].recv(100) == BANNER


@pytest.mark.parametrize("proxies", [(), ("10.0.0.0/8",)])
@pytest.mark.parametrize("header", [b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 22\r\n", binary("203.0.113.7")])
def test_a_header_from_anybody_else_is_refused_with_one_line(
    start_gateway: StartGateway, log_lines: LogLines, proxies: tuple[str, ...], header: bytes
) -> None:
    gateway = start_gateway(proxy_protocol=proxies)
    with connected(gateway, header + b"SSH-2.0-OpenSSH_9.2\r\n") as sock, contextlib.suppress(ConnectionResetError):
        while sock.recv(1000):
            pass
    (line,) = log_lines("no_login", 1)
    assert "a PROXY header came from an address that proxy_protocol does not name" in line["reason"]
    assert line["from"] == "127.0.0.1"


def test_others_need_no_header(start_gateway: StartGateway) -> None:
    gateway = start_gateway(proxy_protocol=("10.0.0.0/8",))
    with connected(gateway, b"") as sock:
        assert sock.recv(100) == BANNER


@pytest.mark.interop
@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_haproxy_in_front(start_gateway: StartGateway, log_lines: LogLines, tmp_path: Path, version: str) -> None:
    gateway = start_gateway(proxy_protocol=LOCAL_PROXY, metrics="127.0.0.1:0")
    assert gateway.metrics_address is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        f"defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n"
        f"frontend sftp\n    bind 127.0.0.1:{port}\n    default_backend gateways\n"
        f"backend gateways\n    option httpchk GET /healthz\n    server one 127.0.0.1:{gateway.address[1]} {version} "
        f"source 127.0.0.1 check no-check-send-proxy inter 200ms port {gateway.metrics_address[1]}\n"
    )
    with subprocess.Popen([client("haproxy"), "-db", "-q", "-f", config], stderr=subprocess.DEVNULL) as haproxy:
        try:
            deadline = time.monotonic() + 40
            while True:
                with (
                    contextlib.suppress(OSError, EOFError, paramiko.SSHException),
                    socket.create_connection(("127.0.0.1", port), timeout=20, source_address=("127.0.0.99", 0)) as sock,
                    paramiko.Transport(sock) as transport,
                ):
                    transport.connect(username="ann", password=PASSWORD)
                    transport.close()
                    transport.join(30)
                    break
                assert time.monotonic() < deadline
            assert log_lines("login", 1)[0]["from"] == "127.0.0.99"
        finally:
            haproxy.terminate()
