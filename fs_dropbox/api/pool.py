"""The HTTP connections to Dropbox: whom they trust, which way they take, and how a request under way is broken off."""

from __future__ import annotations

import http.client
import io
import math
import os
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import requests
import requests.adapters
import urllib3
import urllib3.connection
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from fs_dropbox.api.dialing import Dial, Resolver
from fs_dropbox.api.retry import Waiter
from fs_dropbox.errors import TransportError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CONNECT_SECONDS: Final = 15.0
ANSWER_SECONDS: Final = 600.0
"""How long an answer may take from its first byte on, unless it is content: each byte may be the last for a minute."""
HTTPS_PORT: Final = 443
CA_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
# Dropbox has answered with the second now and then; what is in front of it adds a charset.
JSON_TYPES: Final = ("application/json", "text/javascript")


class Activity(threading.local):
    """What the current thread is doing: its call, where it connected to last, whether its request has left, whether the
    answer is content, and the last answer."""

    waiter: Waiter | None = None
    host: str = ""  # as people name it: without the usual port
    was_sent: bool = False
    is_content: bool = False
    response: requests.Response | None = None

    def take(self) -> requests.Response | None:
        """Return the last answer and keep it no longer."""
        response, self.response = self.response, None
        return response


class Connections:
    """Open connections, so that close() can break off what is under way. Thread-safe: one leaf lock."""

    def __init__(self, activity: Activity) -> None:
        self.activity = activity
        self.resolver = Resolver()
        self._lock = threading.Lock()
        # guarded by _lock
        self._open: weakref.WeakSet[Tracked] = weakref.WeakSet()
        self._closed = False

    def add(self, connection: Tracked) -> None:
        """Remember a connection; raises TransportError once closed."""
        with self._lock:
            if self._closed:
                raise TransportError("closed", was_sent=False)
            self._open.add(connection)

    def break_all(self) -> None:
        """Break off every request under way and refuse new ones."""
        with self._lock:
            self._closed = True
            connections = list(self._open)
        for connection in connections:
            connection.break_off()


class _Timely(io.RawIOBase):
    """What comes from a connection, no longer than `ANSWER_SECONDS` after the first of it."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._until = math.inf

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        now = time.monotonic()
        if now > self._until:
            raise TimeoutError("timed out")
        count = self._raw.readinto(buffer)
        self._until = min(self._until, now + ANSWER_SECONDS)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Final(http.client.HTTPResponse):
    """An answer without those before it that say only that it is under way, such as 103 Early Hints.

    http.client takes them for the answer, but for 100, and what follows for that to the connection's next request.
    """

    activity: Activity  # set in the subclass that each session makes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.activity.is_content:
            self.fp = io.BufferedReader(_Timely(self.fp.detach()))

    def begin(self) -> None:
        super().begin()
        while 100 < self.status < 200 and self.status != 101:
            self.headers = self.msg = None  # type: ignore[assignment]  # there are none yet: it reads on
            super().begin()


class Tracked(urllib3.connection.HTTPConnection):
    """A connection whose request can be broken off by other threads."""

    connections: Connections  # set in the subclass that each session makes
    waiter: Waiter | None = None  # of the request under way
    _dial: Dial | None = None  # while it is being connected

    def connect(self) -> None:
        """Connect and shake hands, all within the connect timeout."""
        activity = self.connections.activity
        activity.host = _place(self.host, self.port)  # of the proxy, where there is one
        seconds = self.timeout if isinstance(self.timeout, (int, float)) else CONNECT_SECONDS
        self._dial = dial = Dial(self.connections.resolver, seconds)
        try:
            self.connections.add(self)
            if activity.waiter is not None:
                self.serve(activity.waiter)
            super().connect()
        finally:
            self._dial = None
            dial.close()

    def _new_conn(self) -> socket.socket:
        assert self._dial is not None
        try:
            return self._dial.connect(self.host, self.port, self.socket_options or ())
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, str(error)) from error
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request; from here on it may be carried out."""
        activity = self.connections.activity
        self.connections.add(self)
        if activity.waiter is not None:
            self.serve(activity.waiter)
        activity.host = _place(self._tunnel_host or self.host, self._tunnel_port or self.port)
        activity.was_sent = True
        super().request(*args, **kwargs)

    def serve(self, waiter: Waiter) -> None:
        """Be broken off when this waiter is interrupted; raises TransportError when it is already."""
        self.waiter = waiter
        waiter.on_interrupt = lambda: self.break_off(waiter)
        waiter.check()

    def break_off(self, waiter: Waiter | None = None) -> None:
        """Shut the socket down, unless it serves another request than the waiter's by now; its reader gets an error."""
        if waiter is not None and self.waiter is not waiter:
            return
        dial, sock = self._dial, self.sock
        if dial is not None:
            dial.break_off()
        if not isinstance(sock, socket.socket):  # there is none, or what tests put in its place
            return
        try:
            # Not SSLSocket.shutdown, which takes the TLS state away from under the reader.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except OSError:
            return  # it is closed already


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections with one TLS context, in pools that count them."""

    def __init__(self, connections: Connections, context: ssl.SSLContext, size: int) -> None:
        answer = type("Answer", (_Final,), {"activity": connections.activity})
        known = {"connections": connections, "response_class": answer}
        plain = type("TrackedConnection", (Tracked,), known)
        secure = type("TrackedTLSConnection", (Tracked, urllib3.connection.HTTPSConnection), known)
        self._pools = {
            "http": type("TrackedPool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("TrackedTLSPool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": secure}),
        }
        self._context = context
        super().__init__(pool_connections=8, pool_maxsize=size)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **others: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._context, **others)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **others: Any) -> Any:
        if not proxy.lower().startswith(("http://", "https://")):
            # SOCKS has connection classes of its own: with ours in their place, requests would go past the proxy.
            raise requests.exceptions.InvalidProxyURL("only HTTP proxies are supported")
        manager = super().proxy_manager_for(proxy, ssl_context=self._context, **others)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def close(self) -> None:
        """Close every pool; urllib3 leaves that to the garbage collector, which a response under way holds off."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for pool in [manager.pools[key] for key in manager.pools.keys()]:  # noqa: SIM118 - it is no dict
                pool.close()
        super().close()

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        # The context decides whom to trust; a bundle named here too would be loaded again for every connection.
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {"cert_reqs": "CERT_REQUIRED"}

    def cert_verify(self, conn: Any, *_: Any, **__: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"


class Session(requests.Session):
    """The requests.Session that the SDK sends through.

    Speaks no TLS to `plain_hosts`, never follows redirects, reads no netrc, and notes the answer for its thread before
    the SDK looks at it. The environment's HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE and SSL_CERT_FILE
    have their usual meaning.
    """

    def __init__(self, activity: Activity, *, plain_hosts: Iterable[str], ca_certs: str | None, size: int) -> None:
        super().__init__()
        self.connections = Connections(activity)
        self._activity = activity
        self._plain = tuple(f"https://{host}/" for host in plain_hosts)
        self._settings: dict[str, dict[str, Any]] = {}  # by host; made again rather than locked
        self.auth = _leave_as_it_is
        adapter = _Adapter(self.connections, tls_context(ca_certs), size)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Return what requests does, which goes through the whole environment for every call: here, for every host."""
        host = urlsplit(url).netloc
        settings = self._settings.get(host)
        if settings is None or proxies:
            settings = dict(super().merge_environment_settings(url, proxies, None, verify, cert))
            self._settings[host] = settings
        return {**settings, "stream": self.stream if stream is None else stream}

    def request(self, method: str, url: str, **others: Any) -> requests.Response:  # type: ignore[override]
        if url.startswith(self._plain):
            url = url.replace("https", "http", 1)
        activity = self._activity
        activity.response = None
        activity.was_sent = False
        others["allow_redirects"] = False
        response = activity.response = super().request(method, url, **others)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in JSON_TYPES or response.status_code == 200:
            response.headers["content-type"] = JSON_TYPES[0]  # the SDK takes this spelling alone; what it is shows
        return response


def _place(host: str, port: int | None) -> str:
    return host if port in (None, HTTPS_PORT) else f"{host}:{port}"


def _leave_as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Be the session's `auth`, without which requests looks into ~/.netrc and overwrites the Authorization header."""
    return request


def tls_context(ca_certs: str | None) -> ssl.SSLContext:
    """Return a context that trusts a PEM file, or a folder as OpenSSL wants it; raises TransportError."""
    variable = next((name for name in CA_VARIABLES if os.environ.get(name)), None) if not ca_certs else None
    bundle = ca_certs or (os.environ[variable] if variable is not None else DEFAULT_CA_BUNDLE_PATH)
    context = ssl.create_default_context()
    try:
        if os.path.isdir(bundle):
            context.load_verify_locations(capath=bundle)
        else:
            context.load_verify_locations(cafile=bundle)
    except (OSError, ssl.SSLError) as error:
        # OpenSSL's codes say nothing to people: what is no certificate is named so, the rest is the system's word.
        why = "there is no PEM certificate in it" if isinstance(error, ssl.SSLError) else error.strerror or str(error)
        source = f" (named by {variable})" if variable is not None else ""
        raise TransportError("trust", f"{bundle}{source}: {why}", was_sent=False) from error
    return context
