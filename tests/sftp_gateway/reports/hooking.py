"""What tests of hooks have in common: hooks, a receiver of webhooks, a command that keeps what it is told."""

from __future__ import annotations

import contextlib
import json
import ssl
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sftp_gateway.config import HookConfig
from sftp_gateway.reports.hooks import Hooks

UPLOAD = {"session": "1", "from": "10.0.0.1", "user": "ann", "path": "/a b", "bytes": 3, "seconds": 0.1, "result": "ok"}


class Receiver:
    """An HTTP server that keeps what it is sent, and answers with the statuses that it is given, then with 204."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.hold = threading.Event()
        self.hold.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((dict(self.headers.items()), body))
                receiver.hold.wait(20)
                with contextlib.suppress(OSError):
                    self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                    self.send_header("Location", "http://192.0.2.1/")
                    self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/events?key=of-the-url"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def hooking(counted: list[tuple[str, str]], *hooks: HookConfig) -> Iterator[Hooks]:
    made = Hooks(hooks, count=lambda *what: counted.append(what), backoff_seconds=0.01)
    try:
        yield made
    finally:
        assert made.close()


PROGRAM = """
import json, os, sys
told = json.load(sys.stdin)
with open(sys.argv[1], "a") as file:
    file.write(json.dumps({"told": told, "environment": dict(os.environ), "arguments": sys.argv[2:]}) + "\\n")
"""


def command(tmp_path: Path, *arguments: str) -> tuple[tuple[str, ...], Path]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    return (sys.executable, "-I", str(program), str(tmp_path / "out"), *arguments), tmp_path / "out"


def written(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
