"""HTTP/1.1 on one connection: TLS or plain, keep-alive, streamed bodies, CONNECT back to itself.

Knows nothing of Dropbox. The standard library's handler spends more time on parsing headers than the emulator on a
whole call, and can neither cut a body on purpose nor end its threads, hence this one.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qsl, unquote

log = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 18
MAX_HEAD_BYTES = 1 << 20  # the argument of append_batch travels in a header
HANDSHAKE_SECONDS = 30.0
TLS_HANDSHAKE = b"\x16"


class DroppedError(Exception):
    """The connection is gone or is to be dropped without an answer."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__("reset" if reset else "closed")
        self.reset = reset


class ClosableBlocks(Protocol):
    """A body that is sent in blocks."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Response:
    """An answer. A streamed body needs its length; `cut_at` drops the connection after so many bytes of the body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | ClosableBlocks = b""
    length: int | None = None  # None for streams of unknown length: sent chunked
    reason: str | None = None
    cut_at: int | None = None
    before_cut: Callable[[], None] | None = None
    on_block: Callable[[int], None] | None = None  # called with the number of bytes about to be sent; may wait
    on_end: Callable[[], None] | None = None  # called once, before the last bytes are sent or when the client is gone

    def block(self, size: int) -> None:
        """Tell that bytes of the body are about to be sent."""
        if self.on_block is not None:
            self.on_block(size)

    def end(self) -> None:
        """Tell, once, that nothing more has to be done for this answer."""
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()

    def close(self) -> None:
        """Release a streamed body."""
        self.end()
        if not isinstance(self.body, bytes):
            self.body.close()


class Request:
    """A request whose body has not been read yet."""

    def __init__(self, connection: Connection, method: str, target: str, headers: dict[str, str]) -> None:
        self.method = method
        if target.startswith(("http://", "https://")):  # every server has to take this form, too: it names the host
            headers["host"], slash, rest = target.partition("://")[2].partition("/")
            target = slash + rest
        path, _, query = target.partition("?")
        self.path = unquote(path)
        self.query: dict[str, str] = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
        self.headers = headers
        self.pace: Callable[[int], None] | None = None  # called with the bytes just read
        self.bytes_read = 0
        self._connection = connection
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length") or "0"
        if not (length.isascii() and length.isdigit()):
            raise DroppedError
        self.length: int | None = None if self._chunked else int(length)
        self._expects = "100-continue" in headers.get("expect", "").lower()
        self._finished = False
        self._stream = self._read_blocks()

    @property
    def host(self) -> str:
        """The name or address that the client called, without the port."""
        return self.headers.get("host", "").rpartition(":")[0] or self.headers.get("host", "")

    @property
    def base_url(self) -> str:
        """The address by which the client called: scheme, host and port."""
        scheme = "https" if self._connection.is_encrypted else "http"
        return f"{scheme}://{self.headers.get('host', '')}"

    @property
    def is_abandoned(self) -> bool:
        """Tell whether the client has gone away, so that nobody waits for the answer."""
        return self._connection.is_abandoned

    def blocks(self) -> Iterator[memoryview]:
        """Return the body's blocks, from where the last reader stopped; each is valid until the next.

        Raises DroppedError when the client goes away.
        """
        return self._stream

    def _read_blocks(self) -> Iterator[memoryview]:
        if self._expects:
            self._connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        buffer = bytearray(BLOCK_BYTES if self._chunked else min(BLOCK_BYTES, self.length or 1))
        sizes = self._chunk_sizes() if self._chunked else iter([self.length or 0])
        for size in sizes:
            left = size
            while left > 0:
                view = memoryview(buffer)[: min(len(buffer), left)]
                self._connection.read_into(view)
                left -= len(view)
                self.bytes_read += len(view)
                if self.pace is not None:
                    self.pace(len(view))
                yield view
        self._finished = True

    def _chunk_sizes(self) -> Iterator[int]:
        while True:
            try:
                size = int(self._connection.read_line().partition(b";")[0], 16)
            except ValueError:
                raise DroppedError from None
            if size == 0:
                while self._connection.read_line():
                    pass
                return
            yield size
            self._connection.read_line()

    def read(self, limit: int) -> bytes:
        """Return the whole body; raises ValueError when it is larger than `limit`."""
        body = bytearray()
        for block in self.blocks():
            body += block
            if len(body) > limit:
                raise ValueError(f"body of more than {limit} bytes")
        return bytes(body)

    def drain(self) -> None:
        """Read and drop the rest of the body, so that the connection can go on."""
        if not self._expects or self.bytes_read:
            for _ in self.blocks():
                pass

    def detach(self, *, hang_up: bool) -> None:
        """Take in the whole body, so that the request is carried out whatever becomes of its client; or drop that."""
        body = b"".join(map(bytes, self.blocks()))
        self._stream = iter([memoryview(body)] if body else [])
        if hang_up:
            self._connection.shutdown()

    @property
    def can_go_on(self) -> bool:
        """Tell whether the body was read to its end, so that another request can follow."""
        return self._finished or (self.length == 0 and not self._chunked)


class Connection:
    """One client connection, served by one thread."""

    def __init__(
        self,
        sock: socket.socket,
        handler: Callable[[Request], Response],
        tls: ssl.SSLContext,
        tunnel_status: Callable[[Request], int],
    ) -> None:
        self._socket = sock
        self._handler = handler
        self._tls = tls
        self._tunnel_status = tunnel_status
        self._buffer = bytearray()

    def serve(self) -> None:
        """Answer requests until either side closes."""
        try:
            self._start_tls_if_asked()
            while self._serve_one():
                pass
        except DroppedError as error:
            if error.reset:
                # With a zero linger time, close() sends RST instead of FIN.
                linger = struct.pack("ii", 1, 0)
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        except (OSError, ssl.SSLError) as error:
            log.debug("connection ended: %s", error)
        finally:
            self._socket.close()

    def shutdown(self) -> None:
        """Wake the thread from whatever it reads or writes; callable from any thread."""
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown, which takes the TLS object away from under the thread that uses it.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    @property
    def is_encrypted(self) -> bool:
        """Tell whether the connection speaks TLS."""
        return isinstance(self._socket, ssl.SSLSocket)

    @property
    def is_abandoned(self) -> bool:
        """Tell whether the client has closed its side."""
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0))
        return bool(poll.poll(0))

    def _start_tls_if_asked(self) -> None:
        if self._socket.recv(1, socket.MSG_PEEK) != TLS_HANDSHAKE:
            return
        self._socket.settimeout(HANDSHAKE_SECONDS)
        self._socket = self._tls.wrap_socket(
            self._socket, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        assert isinstance(self._socket, ssl.SSLSocket)
        self._socket.do_handshake()
        self._socket.settimeout(None)

    def _serve_one(self) -> bool:
        request = self._read_request()
        if request is None:
            return False
        if request.method == "CONNECT":
            return self._connect(request)
        response = self._handler(request)
        try:
            keep = self._send_response(request, response)
        finally:
            response.close()
        return keep

    def _connect(self, request: Request) -> bool:
        status = self._tunnel_status(request)
        if status != HTTPStatus.OK:
            head = f"HTTP/1.1 {status} {_reason(status)}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            self.send(head.encode())
            return False
        self.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self._start_tls_if_asked()
        return True

    def _read_request(self) -> Request | None:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES or not self._fill():
                return None
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            self.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return None
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Request(self, words[0], words[1], headers)

    def _send_response(self, request: Request, response: Response) -> bool:
        if response.cut_at is None:
            request.drain()
        keep = request.can_go_on and request.headers.get("connection", "").lower() != "close"
        body = response.body
        length = len(body) if isinstance(body, bytes) else response.length
        reason = response.reason or _reason(response.status)
        head = [f"HTTP/1.1 {response.status} {reason}"]
        head.extend(f"{name}: {value}" for name, value in response.headers.items())
        head.append(f"Content-Length: {length}" if length is not None else "Transfer-Encoding: chunked")
        if not keep:
            head.append("Connection: close")
        raw_head = ("\r\n".join(head) + "\r\n\r\n").encode("latin-1", "replace")
        if request.method == "HEAD":
            self.send(raw_head)
        elif isinstance(body, bytes) and response.cut_at is None:
            # The client may look at the counters as soon as it has the answer, so they are right before.
            response.block(len(body))
            response.end()
            self.send(raw_head + body)
        else:
            self.send(raw_head)
            self._send_body(response, [body] if isinstance(body, bytes) else body, length)
        return keep

    def _send_body(self, response: Response, blocks: Iterable[bytes], length: int | None) -> None:
        sent = 0
        for whole in blocks:
            block = whole if response.cut_at is None else whole[: response.cut_at - sent]
            sent += len(block)
            response.block(len(block))
            if sent == length:
                response.end()
            if block:
                self.send(block if length is not None else b"%x\r\n%b\r\n" % (len(block), block))
            if sent == response.cut_at:
                if response.before_cut is not None:
                    response.before_cut()
                raise DroppedError
        if length is None:
            response.end()
            self.send(b"0\r\n\r\n")

    # Bytes ------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send everything, or raise DroppedError."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise DroppedError from error

    def read_into(self, view: memoryview) -> None:
        """Fill the view, or raise DroppedError at the end of the stream."""
        position = min(len(self._buffer), len(view))
        if position:
            view[:position] = self._buffer[:position]
            del self._buffer[:position]
        while position < len(view):
            try:
                count = self._socket.recv_into(view[position:])
            except OSError as error:
                raise DroppedError from error
            if count == 0:
                raise DroppedError
            position += count

    def read_line(self) -> bytes:
        """Return a line without its end."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            if not self._fill():
                raise DroppedError
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _fill(self) -> bool:
        try:
            data = self._socket.recv(65536)
        except OSError as error:
            raise DroppedError from error
        self._buffer += data
        return bool(data)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
