"""The HTTP server by itself: junk on the wire, clients that stop in the middle, and an end to all of it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

import pytest

from fs_dropbox.emulator import Emulator
from tests.waiting import eventually

from .raw_api import Api


def connect(emulator: Emulator) -> socket.socket:
    return socket.create_connection(("127.0.0.1", emulator.port), timeout=30)


def exchange(emulator: Emulator, data: bytes) -> bytes:
    """Send bytes, then nothing more, and return what comes back until the end."""
    with connect(emulator) as sock:
        sock.sendall(data)
        with contextlib.suppress(OSError):  # the other end may have gone already
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := sock.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
        return answer


@pytest.mark.parametrize(
    ("junk", "expected"),
    [
        (b"", b""),
        (b"\x16\x03\x01junk that is no handshake", None),
        (b"GET\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/9.9\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"404 Not Found"),
        (b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n", b""),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b""),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b""),
        (b"POST /oauth2/token HTTP/1.1\r\nContent-Length: 100\r\n\r\nshort", b""),
        (b"CONNECT example.com:443 HTTP/1.1\r\n\r\n", b"403 Forbidden"),
        (b"CONNECT api.dropboxapi.com:443 HTTP/1.1\r\n\r\n", b"200 Connection established"),
        (b"X" * (2 << 20), b""),
    ],
)
def test_junk_on_the_wire(emulator: Emulator, junk: bytes, expected: bytes | None) -> None:
    answer = exchange(emulator, junk)
    if expected is not None:
        assert expected in answer
        assert bool(expected) == bool(answer)
    assert b"404" in exchange(emulator, b"GET /nothing HTTP/1.1\r\n\r\n")


def test_the_absolute_form_of_a_target_names_the_host(emulator: Emulator) -> None:
    """So ask clients that take the emulator for their proxy and speak plain HTTP."""
    token = emulator.access_token().encode()
    rest = b" HTTP/1.1\r\nHost: other\r\nAuthorization: Bearer " + token + b"\r\n\r\n"
    route = b".dropboxapi.com/2/users/get_space_usage"
    assert b'{"used": 0' in exchange(emulator, b"POST http://api" + route + rest)
    assert b"This function is on api.dropboxapi.com" in exchange(emulator, b"POST http://content" + route + rest)


def test_chunked_bodies(api: Api) -> None:
    head = (
        f"POST /2/files/upload HTTP/1.1\r\nAuthorization: Bearer {api.token}\r\nDropbox-API-Arg: "
        '{"path":"/a"}\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n'
    )
    answer = exchange(api.emulator, head.encode() + b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n")
    assert b"200 OK" in answer
    assert api.emulator.control.read("/a") == b"abcdefg"


def test_a_client_that_goes_away_leaves_nothing(api: Api) -> None:
    head = (
        f"POST /2/files/upload HTTP/1.1\r\nAuthorization: Bearer {api.token}\r\nDropbox-API-Arg: "
        '{"path":"/a"}\r\nContent-Type: application/octet-stream\r\nContent-Length: 5000000\r\n\r\n'
    )
    assert exchange(api.emulator, head.encode() + bytes(3_000_000)) == b""
    incoming = api.emulator.service.state.contents.incoming
    eventually(lambda: not list(incoming.iterdir()))
    assert not api.emulator.control.exists("/a")


def test_stop_ends_everything() -> None:
    with Emulator() as emulator:
        api = Api(emulator)
        api.put("/a", bytes(30 << 20))
        cursor = api.ok(api.rpc("files/list_folder/get_latest_cursor", {"path": ""}))["cursor"]
        silent = connect(emulator)
        handshake = connect(emulator)
        handshake.sendall(b"\x16\x03\x01")
        uploading = connect(emulator)
        uploading.sendall(b"POST /oauth2/token HTTP/1.1\r\nContent-Length: 100\r\n\r\nshort")
        tls = ssl.create_default_context(cafile=str(emulator.ca_file))
        reading = tls.wrap_socket(connect(emulator), server_hostname="127.0.0.1")
        arg = f'Authorization: Bearer {api.token}\r\nDropbox-API-Arg: {{"path":"/a"}}\r\n'
        reading.sendall(f"POST /2/files/download HTTP/1.1\r\n{arg}\r\n".encode())
        assert reading.recv(12) == b"HTTP/1.1 200"
        body = f'{{"cursor":"{cursor}"}}'.encode()
        polling = connect(emulator)
        polling.sendall(
            b"POST /2/files/list_folder/longpoll HTTP/1.1\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        eventually(lambda: emulator.control.calls()["files/list_folder/longpoll"])
        begin = time.monotonic()
        emulator.stop()
        assert time.monotonic() - begin < 20
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("emulator")]
        for sock in (silent, handshake, uploading, reading, polling):
            sock.close()
        api.http.close()
        emulator.stop()  # once more does no harm


def test_a_connection_without_a_thread_is_not_the_last(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def no_more(thread: threading.Thread) -> None:
        if thread.name == "emulator-connection":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        assert exchange(api.emulator, b"GET /nothing HTTP/1.1\r\n\r\n") == b""
    assert b"404" in exchange(api.emulator, b"GET /nothing HTTP/1.1\r\n\r\n")


def test_a_disk_that_fails_is_an_answer(api: Api) -> None:
    """Clients hear of it; they need not guess why their connection is gone."""
    incoming = api.emulator.service.state.contents.incoming
    incoming.rmdir()
    big = bytes(3 << 20)
    assert api.upload("files/upload", {"path": "/a"}, big).status_code == 500
    incoming.mkdir()
    assert api.put("/a", big)["size"] == len(big)


def test_all_addresses_are_called_by_one() -> None:
    with Emulator(address="0.0.0.0") as emulator:
        assert emulator.url == f"https://127.0.0.1:{emulator.port}"
        api = Api(emulator)
        assert api.ok(api.rpc("users/get_current_account"))["email"] == "ann@example.com"
        api.http.close()


def test_an_ipv6_address() -> None:
    try:
        with Emulator(address="::1") as emulator:
            assert emulator.host == f"[::1]:{emulator.port}"
            api = Api(emulator)
            assert api.ok(api.rpc("users/get_current_account"))["email"] == "ann@example.com"
            api.http.close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
