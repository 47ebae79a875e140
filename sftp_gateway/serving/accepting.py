"""`Acceptor`: accepts connections on the listening socket, and turns away those that the gatekeeper refuses."""

from __future__ import annotations

import errno
import logging
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterable

from sftp_gateway.logs import log_event
from sftp_gateway.network.addresses import plain
from sftp_gateway.network.proxy_protocol import ProxyDoor
from sftp_gateway.network.wake_up import WakeUp
from sftp_gateway.serving.gatekeeper import Gatekeeper
from sftp_gateway.ssh.transport import shut_down

_COURTESY_TRIES = 5
_COURTESY_SECONDS = 0.001

_logger = logging.getLogger(__name__)


class Acceptor:
    """Hands on every permitted connection, with the address that counts for it. Owned by `SFTPGateway`.

    Has a thread from `start` to `close`; if there are proxies, their door has another. `admit` receives the connections
    that the gatekeeper has counted, in either thread; `refused` is called for connections that are refused.
    """

    def __init__(
        self,
        listener: socket.socket,
        gatekeeper: Gatekeeper,
        *,
        admit: Callable[[socket.socket, str], None],
        refused: Callable[[str, str], None],
        proxies: Iterable[str],
        max_waiting: int,
    ) -> None:
        """`proxies` are the networks whose connections must start with a PROXY header; at most `max_waiting` of these
        connections wait for it."""
        self._listener = listener
        self._gatekeeper = gatekeeper
        self._admit = admit
        self._refused = refused
        self._wake_up = WakeUp()  # rung to end
        self._door = ProxyDoor(proxies, self._let_in, refused, limit=max_waiting) if proxies else None
        self._thread = threading.Thread(target=self._run, name="sftp-gateway-accept", daemon=True)

    def start(self) -> None:
        """Start to accept connections."""
        self._thread.start()

    def trust(self, proxies: Iterable[str]) -> None:
        """Expect headers from these proxies from now on; does nothing if the acceptor was created without proxies."""
        if self._door is not None:
            self._door.trust(proxies)

    def close(self) -> None:
        """Stop accepting; close the listening socket and connections still waiting for a header. To be called once."""
        self._wake_up.ring()
        self._thread.join()
        if self._door is not None:
            self._door.close()
        self._wake_up.close()

    def _run(self) -> None:
        while self._wake_up.wait(self._listener):
            if self._leave_it_to_others():
                continue
            try:
                sock, peer = self._listener.accept()
            except (BlockingIOError, ConnectionError):
                continue
            except OSError as error:  # usually out of file descriptors: serve the open connections, try again
                _logger.error("a connection cannot be accepted: %s%s", error.strerror or error, _advice(error))
                self._wake_up.wait(seconds=1.0)
                continue
            if self._door is not None and self._door.is_proxy(peer[0]):
                self._door.enter(sock, peer[0])
            else:
                self._let_in(sock, peer[0])
        self._listener.close()

    def _leave_it_to_others(self) -> bool:
        """Give a process with fewer connections time to accept the next one; return whether one did."""
        for _ in range(_COURTESY_TRIES):
            if not self._gatekeeper.is_ahead():
                return False
            self._wake_up.wait(seconds=_COURTESY_SECONDS)
            if not self._wake_up.wait(self._listener, 0):
                return True
        return False

    def _let_in(self, sock: socket.socket, address: str) -> None:
        try:
            address = plain(address)
            refusal = self._gatekeeper.connect(address)
            if refusal is None:
                self._admit(sock, address)
                return
            log_event("refused", level=logging.DEBUG, reason=refusal, **{"from": address})
            self._refused(address, refusal)
            _dismiss(sock, refusal)
        except sqlite3.OperationalError as error:
            reason = f"connections cannot be counted in the state folder: {error}"
            log_event("refused", level=logging.ERROR, reason=reason, **{"from": address})
            _dismiss(sock, "the server is out of order, try again later")
        except Exception:
            _logger.exception("a connection could not be served")
            sock.close()


def _advice(error: OSError) -> str:
    if error.errno not in (errno.EMFILE, errno.ENFILE):
        return ""
    return "; raise the limit of open files (ulimit -n, LimitNOFILE of a systemd unit), or lower max_connections"


def _dismiss(sock: socket.socket, reason: str) -> None:
    """Send the reason before the SSH banner, where RFC 4253 allows lines of text, and close; never waits."""
    try:
        sock.setblocking(False)
        sock.send(f"{reason}\r\n".encode())
    except OSError:
        _logger.debug("a refused client was gone already")
    shut_down(sock)
    sock.close()
