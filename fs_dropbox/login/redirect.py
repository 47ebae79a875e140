"""`Redirect`: the loopback page to which Dropbox sends the browser after consent. Knows no token and no terminal."""

from __future__ import annotations

import hmac
import html
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

DEFAULT_PORT: Final = 53682
# A browser may open connections ahead and send nothing.
_IDLE_SECONDS: Final = 5.0

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>fs-dropbox</title>
<body style="font: 18px/1.5 system-ui, sans-serif; max-width: 36em; margin: 4em auto; padding: 0 1em">
<h1 style="font-size: 1.3em">{title}</h1><p>{text}</p></body></html>
"""


class RedirectError(Exception):
    """The answer did not come, or was a refusal; the text is one line."""


class Redirect:
    """A web server on 127.0.0.1 that takes one answer with the right state; use it as a context manager.

    Owner: the login. One thread listens, one serves each connection; what is shared is a queue.
    """

    def __init__(self, state: str, port: int = DEFAULT_PORT) -> None:
        """Listen at once.

        Raises:
            RedirectError: the port is taken.
        """
        self.state = state
        self.answers: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        try:
            self._server = _Server(("127.0.0.1", port), self)
        except OSError as error:
            raise RedirectError(
                f"port {port} on 127.0.0.1 cannot be used ({error.strerror}): use --port with another one, "
                "or --no-browser, which needs none"
            ) from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="fs-dropbox-redirect")

    @property
    def uri(self) -> str:
        """The redirect URI as it has to be registered with the app."""
        return f"http://localhost:{self.port}/"

    def wait(self, timeout_seconds: float) -> str:
        """Return the authorization code.

        Raises:
            RedirectError: nothing came in time, or the person declined.
        """
        try:
            answer = self.answers.get(timeout=timeout_seconds)
        except queue.Empty:
            raise RedirectError(f"no answer from the browser within {timeout_seconds:.0f} seconds") from None
        if "code" in answer:
            return answer["code"]
        if answer.get("error") == "access_denied":
            raise RedirectError("the request was declined in the browser: nothing was stored")
        reason = answer.get("error_description") or answer.get("error", "no code")
        raise RedirectError(f"Dropbox refused: {reason}")

    def __enter__(self) -> Redirect:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Whoever else listens on the port must not get the answer.
    allow_reuse_port = False

    def __init__(self, address: tuple[str, int], redirect: Redirect) -> None:
        super().__init__(address, _Handler)
        self.redirect = redirect

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that browsers drop are nobody's concern."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _IDLE_SECONDS
    server_version = "fs-dropbox"
    sys_version = ""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        answer = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.path != "/" or not ("code" in answer or "error" in answer):
            self._page(404, "Nothing here", "This page waits for the answer of Dropbox.")
        elif not hmac.compare_digest(answer.get("state", "").encode(), self.server.redirect.state.encode()):
            # A tab of an earlier login, or a forged answer: the true one may still come.
            self._page(400, "Another login", "This answer belongs to another login. Start again from the terminal.")
        else:
            if "code" in answer:
                self._page(200, "Almost done", "Dropbox has answered. Close this page and look at the terminal.")
            else:
                self._page(200, "Not connected", answer.get("error_description", answer.get("error", "")))
            self.server.redirect.answers.put(answer)

    def _page(self, status: int, title: str, text: str) -> None:
        body = _PAGE.format(title=html.escape(title), text=html.escape(text)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the request line holds the code."""
