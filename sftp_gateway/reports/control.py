"""`ControlSocket`: a local socket through which its owner asks a running gateway; and asking all that run."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from sftp_gateway.network.wake_up import WakeUp
from sftp_gateway.private_directories import make_private

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]
_SECONDS: Final = 5.0
_MAX_BYTES: Final = 64 * 1024
_PATH_BYTES: Final = 100  # a socket's path may have 107

_logger = logging.getLogger(__name__)


class ControlSocket:
    """Answers requests, one JSON object a line, of this user and of root alone. Thread-safe; has one thread.

    Owned by `SFTPGateway`.
    """

    def __init__(self, path: Path, answer: Answer) -> None:
        """Raises OSError when there can be no socket at the path; a stale one is replaced."""
        self._path = path
        self._answer = answer
        make_private(path.parent)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(self._listener.fileno(), 0o600)  # before there is a path: nobody else ever gets in
            with _short(path) as name:
                self._listener.bind(name)
            self._path.chmod(0o600)
            self._inode = path.stat().st_ino
            self._listener.listen(16)
            self._listener.setblocking(False)
        except OSError:
            self._listener.close()
            raise
        self._wake_up = WakeUp()
        self._thread = threading.Thread(target=self._serve, name="sftp-gateway-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more, and remove the socket, unless its place was taken. Idempotent."""
        self._wake_up.ring()
        self._thread.join()
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._listener.close()
        self._wake_up.close()

    def _serve(self) -> None:
        while (taken := self._wake_up.accept(self._listener)) is not None:
            with taken[0] as sock, contextlib.suppress(OSError):
                self._serve_one(sock)

    def _serve_one(self, sock: socket.socket) -> None:
        sock.settimeout(_SECONDS)
        if not _is_owner(sock):
            return
        try:
            request = json.loads(_receive_line(sock))
            answer = self._answer(request) if isinstance(request, dict) else {"error": "not a request"}
        except ValueError:
            answer = {"error": "not a request"}
        except OSError:
            raise
        except Exception:
            _logger.exception("a request of the control socket failed")
            answer = {"error": "the gateway failed to answer; see its log"}
        sock.sendall(json.dumps(answer).encode() + b"\n")


def socket_path(directory: Path, port: int, process: int) -> Path:
    """Return where a gateway's process has its socket."""
    return directory / f"control-{port}-{process}.sock"


def ask_all(directory: Path, request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the answers of all processes that have their socket in the directory; those that are gone give none."""
    answers = []
    for path in sorted(directory.glob("control-*.sock")):
        with contextlib.suppress(ConnectionError, FileNotFoundError, TimeoutError, ValueError):
            answers.append(_ask(path, request))
    return answers


def _ask(path: Path, request: Mapping[str, Any]) -> Mapping[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, _short(path) as name:
        sock.settimeout(_SECONDS)
        sock.connect(name)
        sock.sendall(json.dumps(dict(request)).encode() + b"\n")
        answer: Mapping[str, Any] = json.loads(_receive_line(sock, _MAX_BYTES * 1024))
    return answer


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a name for the path that fits into a socket's address."""
    if len(os.fsencode(path)) <= _PATH_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _receive_line(sock: socket.socket, limit: int = _MAX_BYTES) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = sock.recv(_MAX_BYTES)
        line += piece
        if not piece or len(line) > limit:
            raise ValueError("no complete line")
    return line


def _is_owner(sock: socket.socket) -> bool:
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the mode of the socket has to do
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid in (0, os.geteuid())
