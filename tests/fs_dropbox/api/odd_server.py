"""A second, much smaller stand-in for Dropbox, written apart from the emulator: it answers in every way that the API
leaves open, and fails in ways that servers and what is in front of them have. One folder tree in a dict, no more."""

from __future__ import annotations

import gzip
import http.server
import json
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme

from tests.fs_dropbox.api.odd_account import OddServer, Refused

CHANGES = {"files/upload", "files/create_folder_v2", "files/delete_v2", "files/move_v2", "files/copy_v2"}
HTML = b"<html><head><title>503 Service Temporarily Unavailable</title></head></html>"


def scrambled(value: Any) -> Any:
    """Return the same JSON with its fields in another order, and with fields that nobody knows."""
    if isinstance(value, list):
        return [scrambled(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        "zzz": [1, {".tag": "?"}],
        **{key: scrambled(value[key]) for key in sorted(value, reverse=True)},
        "new": None,
    }


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    server: Any
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        odd: OddServer = self.server.odd
        route = self.path.removeprefix("/2/").lstrip("/")
        body = self.body()
        text = self.headers.get("Dropbox-API-Arg") or body.decode()
        with odd.lock:
            odd.routes.append(route)
            number = next(odd.calls)
        if route == "oauth2/token":
            self.reply(200, {"access_token": f"sl.{number}", "expires_in": 14400, "token_type": "bearer"})
            return
        if self.strike(odd, route, number):
            return
        arg = json.loads(text)
        if route == "files/download":
            self.download(odd, arg)
            return
        try:
            result = odd.answer(route, arg, body)
        except Refused as refused:
            self.reply(
                409, {"error": refused.args[0], **({} if "strange" in odd.quirks else {"error_summary": "x/.."})}
            )
            return
        if "lost" in odd.quirks and number % 3 == 0 and odd.may_hit(route):
            self.close_connection = True  # the work is done, and nobody is told
            return
        self.reply(200, result)

    def date_time_string(self, timestamp: float | None = None) -> str:
        odd: OddServer = self.server.odd
        ahead = 7 * 3600 if "429 date" in odd.quirks else 0  # a clock that nobody has set
        return super().date_time_string((time.time() if timestamp is None else timestamp) + ahead)

    def body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionResetError("the client has left")  # as it may when its filesystem is closed
        return body

    def strike(self, odd: OddServer, route: str, number: int) -> bool:
        """Fail now and then, as the quirks say."""
        is_change = "503 changes" in odd.quirks and route in CHANGES
        if "429" in odd.quirks and number in (3, 6):
            self.send(429, b"" if number == 3 else b"Too many requests", {"Content-Type": "text/plain"})
        elif "429 date" in odd.quirks and number in (3, 6):
            self.send(429, b"Too many requests", {"Retry-After": self.date_time_string(time.time() + 1)})
        elif "429 both" in odd.quirks and number in (3, 6, 9):
            reason = {"reason": {".tag": "too_many_write_operations"}, "retry_after": 1}
            self.send(429, json.dumps({"error": reason}).encode(), {"Retry-After": "0"})
        elif (("503" in odd.quirks and number % 4 == 0) or is_change) and odd.may_hit(route):
            self.send(503, HTML, {"Content-Type": "text/html"})
        elif "409 page" in odd.quirks and number % 4 == 0 and odd.may_hit(route):
            self.send(409, HTML, {"Content-Type": "text/html"})
        elif "502 cut" in odd.quirks and number % 4 == 0 and odd.may_hit(route):
            self.send(502, HTML, {"Content-Type": "text/html", "Content-Length": "5000"})
            self.close_connection = True
        else:
            return False
        odd.struck += 1
        return True

    def download(self, odd: OddServer, arg: Any) -> None:
        with odd.lock:
            try:
                file = odd.revs.get(arg["path"]) or odd.tree[odd.found(arg["path"], "path")]
            except Refused as refused:
                self.reply(409, {"error": refused.args[0]})
                return
            content, told = file[2], odd.metadata(odd.key(file[0]), tagged=False, file=file)
        assert content is not None
        headers = {"Dropbox-API-Result": json.dumps(told), "Content-Type": "application/octet-stream"}
        asked = self.headers.get("Range")
        if asked is None:
            self.send(200, content, headers)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1 if last else None]
        total = "*" if "strange" in odd.quirks else len(content)
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{total}"
        self.send(206, part, headers)

    def reply(self, status: int, result: Any) -> None:
        odd: OddServer = self.server.odd
        if "scrambled" in odd.quirks:
            result = scrambled(result)
        kind = "text/javascript; charset=utf-8" if "strange" in odd.quirks else "application/json"
        indent = 4 if "strange" in odd.quirks else None
        raw = json.dumps(result, indent=indent, ensure_ascii="raw" not in odd.quirks).encode()
        self.send(status, raw, {"Content-Type": kind})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        odd: OddServer = self.server.odd
        number = next(odd.answers)
        if "gzip" in odd.quirks and "gzip" in self.headers.get("Accept-Encoding", ""):
            body, headers = gzip.compress(body), {**headers, "Content-Encoding": "gzip"}
        if "hints" in odd.quirks:
            for interim in (102, 103, 103):
                self.send_response(interim)
                self.send_header("Link", "</style.css>; rel=preload")
                self.end_headers()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.lower() if "strange" in odd.quirks else name, value)
        length = len(body)
        if "too long" in odd.quirks and number % 5 == 0:
            length += 100  # more is said than comes
            self.close_connection = True
        if "too short" in odd.quirks and number % 5 == 0 and length:
            length -= 1  # more comes than is said
        if "chunked" in odd.quirks:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, len(body), 7000):
                piece = body[at : at + 7000]
                self.wfile.write(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
            return
        if "Content-Length" not in headers and "unsized" not in odd.quirks:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)
        if {"closes", "unsized"} & odd.quirks:
            self.close_connection = True  # and nothing has said so

    def log_message(self, *_: object) -> None:
        return None


class _Listening(http.server.ThreadingHTTPServer):
    daemon_threads = True
    odd: OddServer
    tls: ssl.SSLContext
    mistakes: list[BaseException]

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self.tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, *_: object) -> None:
        """Keep what went wrong here, which a client takes for one more fault; connections may break at any time."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self.mistakes.append(error)


@contextmanager
def serving(odd: OddServer, folder: Path) -> Iterator[dict[str, Any]]:
    """Serve an account on a free port; yields the arguments with which DropboxFS finds it."""
    authority = trustme.CA()
    ca_file = folder / "odd-ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    listening = _Listening(("127.0.0.1", 0), Handler)
    listening.odd, listening.mistakes = odd, []
    listening.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(listening.tls)
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield {
            "app_key": "key",
            "refresh_token": "refresh",
            "api_host": f"127.0.0.1:{listening.server_address[1]}",
            "ca_certs": str(ca_file),
        }
    finally:
        with odd.lock:
            odd.journal.append("")
            odd.changed.notify_all()
        listening.shutdown()
        thread.join()
        listening.server_close()
        if listening.mistakes:
            raise listening.mistakes[0]
