"""From a host's name to a connected socket: within one deadline, and broken off whenever nobody wants it any more."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, Final, TypeAlias

# (family, type, protocol, canonical name, address), as the system's resolver gives them.
Address: TypeAlias = tuple[Any, Any, int, str, Any]

_LEAST_SECONDS: Final = 0.05


class Resolver:
    """Looks names up, each once for all who ask meanwhile. Thread-safe: one leaf lock over the look-ups under way.

    Nothing breaks off the system's resolver, so it works in threads of its own, which end when it answers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, int], Future[list[Address]]] = {}  # guarded by _lock

    def lookup(self, host: str, port: int) -> Future[list[Address]]:
        """Return what will be the addresses of a host, or the resolver's OSError."""
        found: Future[list[Address]] = Future()
        with contextlib.suppress(socket.gaierror):  # an address needs no resolver
            found.set_result(_addresses(host, port, socket.AI_NUMERICHOST))
            return found
        with self._lock:
            under_way = self._under_way.get((host, port))
            if under_way is not None:
                return under_way
            self._under_way[host, port] = found
        arguments = (host, port, found)
        try:
            threading.Thread(target=self._look_up, args=arguments, name="fs-dropbox-names", daemon=True).start()
        except RuntimeError:  # the system has no thread left: nobody breaks this lookup off, but all get its answer
            self._look_up(*arguments)
        return found

    def _look_up(self, host: str, port: int, found: Future[list[Address]]) -> None:
        addresses: list[Address] = []
        failure: OSError | None = None
        try:
            addresses = _addresses(host, port)
        except UnicodeError:
            failure = socket.gaierror(socket.EAI_NONAME, "no valid host name")
        except OSError as error:
            failure = error
        finally:  # after Ctrl-C, too: nobody may wait for what does not come
            with self._lock:
                del self._under_way[host, port]
            if failure is None:
                found.set_result(addresses)
            else:
                found.set_exception(failure)


class Dial:
    """One attempt to connect, from the name to the end of the TLS handshake. For one thread at a time.

    `break_off` may come from any thread: one leaf lock over the handle of the socket.
    """

    def __init__(self, resolver: Resolver, seconds: float) -> None:
        self._resolver = resolver
        self._deadline = time.monotonic() + seconds
        self._wake = threading.Event()
        self._lock = threading.RLock()  # finalizers of forgotten files break off uploads, in any thread
        # guarded by _lock; a handle of its own: TLS takes the socket's away while it shakes hands
        self._handle: socket.socket | None = None
        self._is_broken = False

    @property
    def seconds_left(self) -> float:
        """Seconds to the deadline, never none at all."""
        return max(self._deadline - time.monotonic(), _LEAST_SECONDS)

    def connect(self, host: str, port: int, options: Iterable[Any]) -> socket.socket:
        """Return a socket that is connected to one of the host's addresses; its timeout is what is left.

        Raises TimeoutError after the deadline, else the OSError of the last address.
        """
        addresses = self._resolve(host, port)
        failure = OSError("the host has no address")
        for index, address in enumerate(addresses):
            # Each address has its share: one that swallows packets must not keep the others from being tried.
            seconds = self.seconds_left / (len(addresses) - index)
            try:
                return self._connect(address, seconds, options)
            except OSError as error:
                failure = error
        raise failure

    def break_off(self) -> None:
        """End whatever is waited for, with an OSError for who waits."""
        with self._lock:
            self._is_broken = True
            if self._handle is not None:
                with contextlib.suppress(OSError):  # it is not connected, or not any more
                    self._handle.shutdown(socket.SHUT_RDWR)
        self._wake.set()

    def close(self) -> None:
        """Let go of the socket, which lives on. Idempotent."""
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    def _resolve(self, host: str, port: int) -> list[Address]:
        found = self._resolver.lookup(host.strip("[]"), port)
        found.add_done_callback(lambda _: self._wake.set())
        self._wake.wait(self.seconds_left)
        self._check()
        if not found.done():
            raise TimeoutError("its name was not resolved in time")
        return found.result()

    def _connect(self, address: Address, seconds: float, options: Iterable[Any]) -> socket.socket:
        family, kind, protocol, _, where = address
        sock = socket.socket(family, kind, protocol)
        try:
            for option in options:
                sock.setsockopt(*option)
            self.close()
            with self._lock:
                self._handle = sock.dup()
            self._check()
            sock.settimeout(seconds)
            sock.connect(where)
            self._check()
            sock.settimeout(self.seconds_left)
        except BaseException:
            sock.close()
            raise
        return sock

    def _check(self) -> None:
        if self._is_broken:
            raise ConnectionAbortedError("broken off")


def _addresses(host: str, port: int, flags: int = 0) -> list[Address]:
    # By position, as everybody calls it: what tests put in its place may know it in no other way.
    return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, flags)
