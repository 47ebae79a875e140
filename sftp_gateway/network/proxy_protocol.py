"""The PROXY protocol, versions 1 and 2: the address of a client behind a proxy. `ProxyDoor` waits for the headers."""

from __future__ import annotations

import ipaddress
import logging
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from sftp_gateway.logs import log_event
from sftp_gateway.network.addresses import is_in, networks_of
from sftp_gateway.network.wake_up import WakeUp

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_TEXT_SIGNATURE: Final = b"PROXY "
_MAX_LINE: Final = 107  # of version 1, with the line end
_MAX_BODY: Final = 4096  # of version 2; addresses take 36 bytes, the rest are extensions that are ignored here
_HEADER_SECONDS: Final = 5.0


class HeaderError(Exception):
    """The received data is not a valid PROXY header; the text is one line."""


class HeaderReader:
    """Parses a header piece by piece, and never asks for a byte beyond its end. Pure."""

    def __init__(self) -> None:
        self.source: str | None = None
        """The client's address once `wanted` is 0; None if the header gives none: the proxy speaks for itself."""
        self.wanted = len(SIGNATURE)  # how many bytes to read next; both versions are longer
        self._data = b""

    def feed(self, data: bytes) -> None:
        """Take in at most `wanted` bytes; raises `HeaderError`."""
        self._data += data
        self.wanted -= len(data)
        start = self._data[: len(SIGNATURE)]
        if not (SIGNATURE.startswith(start) or _TEXT_SIGNATURE.startswith(start[:6])):
            raise HeaderError("sent no PROXY header")
        if self.wanted:
            return
        if start == SIGNATURE:
            self._feed_binary()
        else:
            self._feed_text()

    def _feed_text(self) -> None:
        if not self._data.endswith(b"\r\n"):
            if len(self._data) >= _MAX_LINE:
                raise HeaderError("sent a PROXY header without an end")
            self.wanted = 1
            return
        words = self._data[:-2].split(b" ")
        if words[1] == b"UNKNOWN":
            return
        if words[1] not in (b"TCP4", b"TCP6") or len(words) != 6:
            raise HeaderError("sent a PROXY header that makes no sense")
        self.source = _address(words[2].decode("ascii", "replace"), 4 if words[1] == b"TCP4" else 6)

    def _feed_binary(self) -> None:
        if len(self._data) == len(SIGNATURE):
            self.wanted = 4
            return
        version_command, family, length = struct.unpack_from(">BBH", self._data, len(SIGNATURE))
        if version_command >> 4 != 2 or version_command & 15 > 1:
            raise HeaderError("sent a PROXY header of an unknown version")
        if length > _MAX_BODY:
            raise HeaderError("sent a PROXY header that is too long")
        self.wanted = len(SIGNATURE) + 4 + length - len(self._data)
        if self.wanted or version_command & 15 == 0:  # LOCAL: the proxy's own health check
            return
        body = self._data[len(SIGNATURE) + 4 :]
        size = {1: 4, 2: 16}.get(family >> 4)
        if size is None:
            return
        if len(body) < 2 * size + 4:
            raise HeaderError("sent a PROXY header without addresses")
        self.source = str(ipaddress.ip_address(body[:size]))


def _address(text: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != version:
        raise HeaderError("sent a PROXY header with a wrong address")
    return str(address)


class ProxyDoor:
    """Waits for the headers of connections from proxies, then hands the connections on with the client's address.

    Owned by an `Acceptor`, whose thread calls `enter`; `admit` is called in the door's own thread. At most `limit`
    connections wait, each for a few seconds. `_lock`, a leaf, guards the connections that have just entered.
    """

    def __init__(
        self,
        networks: Iterable[str],
        admit: Callable[[socket.socket, str], None],
        refused: Callable[[str, str], None] = lambda _address, _reason: None,
        *,
        limit: int,
    ) -> None:
        """`refused` is called for each connection that is not admitted, with its peer's address and the reason."""
        self._admit = admit
        self._refused = refused
        self._limit = limit
        self.trust(networks)
        self._waiting: dict[socket.socket, tuple[HeaderReader, str, float]] = {}  # of the thread alone
        self._wake_up = WakeUp()
        self._closed = False
        self._lock = threading.Lock()
        self._new: deque[tuple[socket.socket, str]] = deque()  # guarded by _lock
        self._thread = threading.Thread(target=self._run, name="sftp-gateway-proxy", daemon=True)
        self._thread.start()

    def trust(self, networks: Iterable[str]) -> None:
        """Expect headers from these networks, and from no others, from now on."""
        self._networks = networks_of(networks)

    def is_proxy(self, address: str) -> bool:
        """Return whether a peer has to send a header."""
        return is_in(self._networks, address)

    def enter(self, sock: socket.socket, address: str) -> None:
        """Take over a new connection; returns at once."""
        sock.setblocking(False)
        with self._lock:
            room = len(self._new) + len(self._waiting) < self._limit
            if room:
                self._new.append((sock, address))
        if not room:
            self._refuse(sock, address, "too many connections without a PROXY header")
            return
        self._wake_up.ring()

    def close(self) -> None:
        """Close the connections that still wait, and end the thread. Idempotent."""
        self._closed = True
        self._wake_up.ring()
        self._thread.join()
        self._wake_up.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_up, selectors.EVENT_READ)
            while not self._closed:
                for key, _ in selector.select(self._patience()):
                    if key.fileobj is self._wake_up:
                        self._wake_up.clear()
                    else:
                        self._read(selector, key.fileobj)  # type: ignore[arg-type]
                with self._lock:
                    new, self._new = self._new, deque()
                for sock, address in new:
                    self._waiting[sock] = (HeaderReader(), address, time.monotonic() + _HEADER_SECONDS)
                    selector.register(sock, selectors.EVENT_READ)
                self._end_late(selector)
            for sock in [*self._waiting, *(sock for sock, _ in self._new)]:
                sock.close()

    def _patience(self) -> float | None:
        if not self._waiting:
            return None
        return max(0.0, min(until for _, _, until in self._waiting.values()) - time.monotonic())

    def _end_late(self, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        for sock, (_, address, until) in list(self._waiting.items()):
            if until <= now:
                self._leave(selector, sock)
                self._refuse(sock, address, "sent no PROXY header in time")

    def _leave(self, selector: selectors.BaseSelector, sock: socket.socket) -> None:
        selector.unregister(sock)
        del self._waiting[sock]

    def _read(self, selector: selectors.BaseSelector, sock: socket.socket) -> None:
        reader, address, _ = self._waiting[sock]
        try:
            while reader.wanted:
                piece = sock.recv(reader.wanted)
                if not piece:
                    raise ConnectionResetError
                reader.feed(piece)
        except BlockingIOError:
            return
        except OSError:  # such as a health check that only connects
            self._leave(selector, sock)
            self._refuse(sock, address, "left without a PROXY header", level=logging.DEBUG)
            return
        except HeaderError as error:
            self._leave(selector, sock)
            self._refuse(sock, address, str(error))
            return
        self._leave(selector, sock)
        sock.setblocking(True)
        self._admit(sock, reader.source or address)

    def _refuse(self, sock: socket.socket, address: str, reason: str, *, level: int = logging.WARNING) -> None:
        log_event("refused", level=level, reason=reason, **{"from": address})
        self._refused(address, reason)
        sock.close()
