"""`StatusPage`: /metrics and /healthz over HTTP, for Prometheus and load balancers."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, cast

from sftp_gateway.network.wake_up import WakeUp

_TEXT: Final = "text/plain; charset=utf-8"
_REQUEST_SECONDS = 5.0  # for all of it
_MAX_REQUESTS = 16

_logger = logging.getLogger(__name__)


class StatusPage:
    """Answers HTTP requests on a listening socket until `close()`, which ends its threads. Thread-safe.

    Owned by `SFTPGateway`. Has one thread that accepts and one for each request under way: a peer that is slow delays
    no health check.
    """

    def __init__(
        self, listener: socket.socket, *, metrics: Callable[[], bytes], content_type: str, healthy: Callable[[], bool]
    ) -> None:
        self.pages: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": lambda: (200, content_type, metrics()),
            "/healthz": lambda: (200, _TEXT, b"ok\n") if healthy() else (503, _TEXT, b"draining\n"),
        }
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._listener = listener
        self._room = threading.BoundedSemaphore(_MAX_REQUESTS)
        self._threads: list[threading.Thread] = []
        self._wake_up = WakeUp()
        self._thread = threading.Thread(target=self._serve, name="sftp-gateway-status", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End, after the requests under way. Idempotent."""
        self._wake_up.ring()
        self._thread.join()
        self._listener.close()
        for thread in self._threads:
            thread.join()
        self._wake_up.close()

    def _serve(self) -> None:
        while (taken := self._wake_up.accept(self._listener)) is not None:
            self._take(*taken)

    def _take(self, request: socket.socket, peer: Any) -> None:
        """Answer in a thread. No `ThreadingHTTPServer`: that trips over a thread that could not be started."""
        if not self._room.acquire(blocking=False):
            request.close()
            return
        thread = threading.Thread(target=self._answer, args=(request, peer), name="sftp-gateway-page")
        try:
            thread.start()
        except RuntimeError as error:  # no more threads
            _logger.error("a status page cannot be shown: %s", error)
            self._end(request)
        else:
            self._threads = [known for known in self._threads if known.is_alive()] + [thread]

    def _answer(self, request: socket.socket, peer: Any) -> None:
        deadline = threading.Timer(_REQUEST_SECONDS, _cut, (request,))
        try:
            deadline.start()
            _Handler(request, peer, cast(Any, self))
        except OSError:
            pass  # the peer has gone, or was too slow
        except Exception:
            _logger.exception("a status page failed")
        finally:
            deadline.cancel()
            self._end(request)

    def _end(self, request: socket.socket) -> None:
        _cut(request)
        request.close()
        self._room.release()


class _Handler(BaseHTTPRequestHandler):
    server: Any  # the StatusPage
    server_version = "SFTPGateway"
    sys_version = ""

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        code, kind, body = page() if page is not None else (404, _TEXT, b"there are /metrics and /healthz\n")
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: scrapers come every few seconds."""


def _cut(request: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has just ended
        request.shutdown(socket.SHUT_RDWR)
