"""Listens on one port, serves each connection with a thread of its own, and ends them all."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable

from fs_dropbox.emulator.http import Connection, Request, Response

log = logging.getLogger(__name__)


class HTTPServer:
    """Listens on one port and serves each connection with a thread. stop() ends all of them.

    Thread-safe; `_lock` guards the set of connections.
    """

    def __init__(
        self,
        handler: Callable[[Request], Response],
        tls: ssl.SSLContext,
        tunnel_status: Callable[[Request], int],
        on_connect: Callable[[], None],
    ) -> None:
        self._on_connect = on_connect  # called in the connection's own thread; may wait
        self._handler = handler
        self._tls = tls
        self._tunnel_status = tunnel_status
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, Connection] = {}
        self._ending: list[threading.Thread] = []  # have nothing left to do, but must be joined
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._stopping = False

    def start(self, address: str, port: int) -> int:
        """Listen and return the port. Raises OSError when the port is taken."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, port), family=family, backlog=512)
        self._acceptor = threading.Thread(target=self._accept, name="emulator-accept")
        self._acceptor.start()
        return int(self._listener.getsockname()[1])

    def stop(self) -> None:
        """Close every socket and join every thread."""
        if self._listener is None or self._acceptor is None:
            return
        with self._lock:
            self._stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        while running := self.drop_connections():
            for thread in running:
                thread.join(0.05)
        self._join_ended()
        self._listener = self._acceptor = None

    def drop_connections(self) -> list[threading.Thread]:
        """Close every connection, whatever it does; return the threads that are about to end."""
        with self._lock:
            running = list(self._connections.items())
        for _, connection in running:
            connection.shutdown()
        return [thread for thread, _ in running]

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            self._join_ended()
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if self._stopping:
                    return
                log.warning("cannot accept a connection: %s", error)
                threading.Event().wait(0.1)  # out of file descriptors: some will close
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, self._handler, self._tls, self._tunnel_status)
            thread = threading.Thread(target=self._serve, args=(connection,), name="emulator-connection")
            with self._lock:
                if self._stopping:
                    sock.close()
                    return
                self._connections[thread] = connection
            try:
                thread.start()
            except RuntimeError as error:  # out of threads: some will end
                log.warning("cannot serve a connection: %s", error)
                with self._lock:
                    del self._connections[thread]
                sock.close()

    def _serve(self, connection: Connection) -> None:
        try:
            self._on_connect()
            connection.serve()
        finally:
            with self._lock:
                del self._connections[threading.current_thread()]
                self._ending.append(threading.current_thread())

    def _join_ended(self) -> None:
        with self._lock:
            ended, self._ending = self._ending, []
        for thread in ended:
            thread.join()
