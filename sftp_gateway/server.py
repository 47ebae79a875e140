"""`SFTPGateway`: listens, creates sessions, enforces deadlines, shuts down cleanly. Knows no SFTP."""

from __future__ import annotations

import contextlib
import hmac
import itertools
import logging
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import fs
import paramiko
from fs.base import FS

from sftp_gateway.config import ConfigError, GatewayConfig
from sftp_gateway.logs import log_event
from sftp_gateway.network.listening import ListenError, listen
from sftp_gateway.reports.reporting import Reporting, StatusShare
from sftp_gateway.serving import inspection
from sftp_gateway.serving.accepting import Acceptor
from sftp_gateway.serving.claim import Claim, ClaimError
from sftp_gateway.serving.gatekeeper import Register
from sftp_gateway.serving.keeper import Keeper
from sftp_gateway.serving.reloading import merged, needing_restart
from sftp_gateway.serving.services import load_account_secret, make_services
from sftp_gateway.serving.session import SIGN_IN_CHANGED, Session
from sftp_gateway.ssh.hostkey import COMPATIBLE, MODERN, HostKeyError, load_host_key, load_or_create_host_key
from sftp_gateway.ssh.transport import DISCONNECT_BY_APPLICATION, BoundedTransport, prepare_socket
from sftp_gateway.write_back.between import WriteBackLimits
from sftp_gateway.write_back.journal_rows import Totals
from sftp_gateway.write_back.journals import Journals

_WATCH_SECONDS = 1.0
_GOODBYE_SECONDS = 10.0
"""How long a connection may take to end after it was asked to, before it is cut."""

_logger = logging.getLogger(__name__)


class GatewayError(Exception):
    """The gateway cannot start; the text is one line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class Crew:
    """What each of several processes that serve one port together receives from the supervisor that started it."""

    listener: socket.socket
    """Listens already. All processes accept connections from its one queue: connections that a process had not accepted
    when it died wait there for the others."""
    register: Register
    status: StatusShare | None = None
    begun: Callable[[], None] = lambda: None
    """To be called once, when the process serves."""


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Convert the errors that keep a gateway from starting to `GatewayError`."""
    try:
        yield
    except (ClaimError, ConfigError, HostKeyError, ListenError, OSError, sqlite3.Error) as error:
        raise GatewayError(str(error)) from error


@_explained()
def load_host_keys(config: GatewayConfig) -> list[paramiko.PKey]:
    """Return the configured host keys, or those in the state folder, creating any that are missing."""
    if config.host_keys:
        return [load_host_key(Path(path).expanduser()) for path in config.host_keys]
    kinds = COMPATIBLE if config.compatible_algorithms else (MODERN,)
    return [load_or_create_host_key(config.state_path / f"host_key_{kind}", kind) for kind in kinds]


def fingerprints(host_keys: Iterable[paramiko.PKey]) -> list[str]:
    """Return the fingerprints of host keys as clients show them."""
    return [f"{key.get_name()} {key.fingerprint}" for key in host_keys]


@_explained()
def take_state_folder(config: GatewayConfig) -> Claim:
    """Keep other gateways out of the state folder from now on; raises `GatewayError` if one is using it."""
    return Claim(config.state_path, config.listen)


class SFTPGateway:
    """An SFTP server over PyFilesystems.

    `start` returns when the gateway listens, `stop` when it has shut down; also a context manager. Thread-safe. Owns
    the acceptor, a thread that watches deadlines, and one transport per connection, which has a thread of its own.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        open_filesystem: Callable[[str], FS] = fs.open_fs,
        crew: Crew | None = None,
    ) -> None:
        self._config = config
        self._crew = crew
        self._open_filesystem = open_filesystem
        self._listener: socket.socket | None = None
        self._watcher: threading.Thread | None = None
        self._claim: Claim | None = None
        self._stopping = threading.Event()
        self._numbers = itertools.count(1)  # of sessions
        self._lock = threading.Lock()
        # guarded by _lock
        self._connections: dict[Session, BoundedTransport] = {}

    # Life.

    @_explained()
    def start(self) -> None:
        """Listen and serve in background threads; raises `GatewayError`."""
        if self._listener is not None:
            raise GatewayError("a gateway starts once; make another")
        config = self._config
        self._host_keys = load_host_keys(config)
        self._listener = listener = self._prepare()
        self._address: tuple[str, int] = listener.getsockname()[:2]
        self._keeper = Keeper(self._services.accounts, self._journals, lambda: self._services.users.urls())
        self._keeper.start()
        self._acceptor = Acceptor(
            listener,
            self._services.gatekeeper,
            admit=self._admit,
            refused=self._reporting.refused,
            proxies=config.proxy_protocol,
            max_waiting=config.max_connections,
        )
        self._acceptor.start()
        self._watcher = threading.Thread(target=self._watch, name="sftp-gateway-watch", daemon=True)
        self._watcher.start()
        self._reporting.open(config, self._address[1], answer=self._answer, healthy=lambda: not self._stopping.is_set())

    def stop(self, drain_seconds: float | None = None) -> bool:
        """Stop accepting, let current transfers finish, end every session; return whether everything ended cleanly.

        Waits up to `drain_seconds` (by default the configured time) for transfers, and a few seconds for the rest.
        Idempotent.
        """
        with self._lock:
            again = self._stopping.is_set()
            self._stopping.set()
        if self._watcher is None:
            return True
        if again:
            return not self._watcher.is_alive()
        self._acceptor.close()
        self._watcher.join()
        drain = self._config.drain_seconds if drain_seconds is None else drain_seconds
        deadline = time.monotonic() + drain
        clean = self._end_sessions(drain)
        clean = self._services.workers.close() and clean
        self._services.accounts.drain(max(0.0, deadline - time.monotonic()))
        clean = self._keeper.stop(self._config.open_seconds) and clean
        clean = self._services.accounts.close() and clean
        clean = self._reporting.close() and clean
        if not self._snapshot():
            self._services.gatekeeper.close()
        if self._claim is not None:
            self._claim.release()
        return clean

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop(0.0 if kind is not None else None)

    def reload(self, config: GatewayConfig, *, first: Callable[[], None] = lambda: None) -> None:
        """Apply users, limits, times, hooks and logins of another configuration, or raise `ConfigError`.

        Changed settings that need a restart are named in the log. The sessions of a user end at once if the user no
        longer exists, or now signs in differently, sees something else or has other rights; all other sessions continue
        undisturbed. `first` is called when nothing else can fail any more: if it raises, nothing has changed.
        """
        old = self._config
        change_reports = self._reporting.prepare(config)
        first()
        change_reports()
        for key in needing_restart(old, config):
            log_event("reload", level=logging.WARNING, setting=key, reason="takes effect after a restart")
        self._config = new = merged(old, config)
        self._services.configure(new)
        self._acceptor.trust(new.proxy_protocol)
        ended = self._end_where(
            lambda session: session.login is not None and not self._services.users.still_grants(session.login),
            SIGN_IN_CHANGED,
        )
        log_event("reload", users=len(new.users), sessions_ended=len(ended))

    # What it looks like from outside.

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port that the gateway listens on; the actual port if 0 was configured."""
        if self._listener is None:
            raise GatewayError("the gateway has not started")
        return self._address

    @property
    def fingerprints(self) -> list[str]:
        """The fingerprints of the host keys as clients show them."""
        return fingerprints(self._host_keys)

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """The host and the port of /metrics and /healthz; None if they are not served."""
        return self._reporting.metrics_address

    @property
    def connections(self) -> int:
        """The current number of connections, signed in or not."""
        with self._lock:
            return len(self._connections)

    def pending(self) -> Totals:
        """Return how much was acknowledged but not delivered yet, or could not be delivered."""
        return self._journals.totals()

    # Start.

    def _prepare(self) -> socket.socket:
        """Create what all sessions share, and return the listening socket; undo what was done if any of it fails."""
        config, crew = self._config, self._crew
        secret = load_account_secret(config)
        self._journals = Journals(
            config.state_path / "journal",
            limits=WriteBackLimits(quota=config.write_back_quota_bytes, delay_seconds=config.write_back_delay_seconds),
            users_of=lambda url: [name for name, each in self._services.users.urls(write_back=True) if each == url],
            digest=lambda text: hmac.new(secret, text.encode("utf-8", "surrogatepass"), "sha256").hexdigest(),
        )
        with contextlib.ExitStack() as undone:
            if crew is None:
                self._claim = take_state_folder(config)
                undone.callback(self._claim.release)
            self._reporting = Reporting(
                config,
                look=self._look,
                process=crew.register.process if crew is not None else 0,
                shared=crew.status if crew is not None else None,
            )
            undone.callback(self._reporting.close)
            listener = crew.listener if crew is not None else listen(*config.listen_address, "--listen")
            undone.callback(listener.close)
            self._services = make_services(
                config,
                self._reporting,
                open_filesystem=self._open_filesystem,
                secret=secret,
                wrap=self._journals.wrap,
                register=crew.register if crew is not None else None,
            )
            undone.pop_all()
        return listener

    # Questions.

    def _look(self) -> Mapping[str, float]:
        sessions = [session for session, _ in self._snapshot()]
        return inspection.gauges(sessions, self._services, self.pending(), draining=self._stopping.is_set())

    def _answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answer a request of the control socket: show sessions, or end some."""
        return inspection.answer(request, [session for session, _ in self._snapshot()], self._end_where)

    def _end_where(self, meant: Callable[[Session], bool], reason: str) -> list[str]:
        """End the sessions for which `meant` returns true, at once; return their names."""
        ended = []
        for session, transport in self._snapshot():
            if meant(session) and transport.leaving_since is None:
                session.log.log("ended", reason=reason)
                transport.disconnect(DISCONNECT_BY_APPLICATION, reason)
                ended.append(session.name)
        return ended

    # Connections.

    def _admit(self, sock: socket.socket, address: str) -> None:
        """Create a session for a connection that the gatekeeper has counted."""
        name = f"{next(self._numbers):x}"
        if self._crew is not None:
            name = f"{self._crew.register.process}-{name}"
        session = Session(self._services, name, address)
        try:
            prepare_socket(sock)
            transport = BoundedTransport(
                sock,
                host_keys=self._host_keys,
                on_login=session.signed_in,
                on_end=lambda: self._ended(session),
                compatible_algorithms=self._config.compatible_algorithms,
                strict_algorithms=self._config.strict_algorithms,
                keepalive_seconds=self._config.keepalive_seconds,
                busy_poll_seconds=self._config.busy_poll_seconds,
            )
            session.transport = transport
            with self._lock:
                self._connections[session] = transport
            transport.start_server(event=threading.Event(), server=session)
        except (OSError, RuntimeError, paramiko.SSHException) as error:  # a peer already gone, or no more threads
            _logger.debug("a connection could not be served: %s", error)
            sock.close()
            with self._lock:
                self._connections.pop(session, None)
            self._services.gatekeeper.disconnect(address)

    def _ended(self, session: Session) -> None:
        """Clean up after a connection; its transport's thread does this last."""
        try:
            session.ended()
        finally:
            try:
                self._services.gatekeeper.disconnect(session.address, signed_in=session.signed_in_at is not None)
            finally:
                with self._lock:
                    del self._connections[session]

    # Watch.

    def _watch(self) -> None:
        """Enforce every connection's deadlines, and close accounts that nobody uses, until the gateway stops."""
        while not self._stopping.wait(_WATCH_SECONDS):
            try:
                for session, transport in self._snapshot():
                    self._watch_one(session, transport, time.monotonic())
                self._services.accounts.close_idle()
                self._reporting.tick()
            except Exception:
                _logger.exception("the deadlines of this moment could not be held")

    def _watch_one(self, session: Session, transport: BoundedTransport, now: float) -> None:
        config = self._config
        if transport.leaving_since is not None:
            if now - transport.leaving_since > _GOODBYE_SECONDS:
                transport.close()
        elif session.signed_in_at is None:
            if now - session.started_at > config.login_seconds:
                transport.disconnect(DISCONNECT_BY_APPLICATION, "the login took too long")
        elif not session.channels:
            if now - session.signed_in_at > config.channel_seconds:
                transport.disconnect(DISCONNECT_BY_APPLICATION, "no SFTP was asked for")
        elif session.idle_seconds > config.idle_seconds:
            session.log.log("idle", seconds=round(session.idle_seconds))
            transport.disconnect(DISCONNECT_BY_APPLICATION, "idle for too long")

    def _snapshot(self) -> list[tuple[Session, BoundedTransport]]:
        with self._lock:
            return list(self._connections.items())

    # Stop.

    def _end_sessions(self, drain_seconds: float) -> bool:
        """Wait for transfers, disconnect all clients, then cut those that do not leave; return whether all ended."""
        deadline = time.monotonic() + drain_seconds
        while time.monotonic() < deadline and any(session.busy for session, _ in self._snapshot()):
            for session, transport in self._snapshot():
                if not session.busy:
                    transport.disconnect(DISCONNECT_BY_APPLICATION, "the server is stopping")
            time.sleep(0.05)
        for session, transport in self._snapshot():
            session.drain(max(0.0, deadline - time.monotonic()))
            transport.disconnect(DISCONNECT_BY_APPLICATION, "the server is stopping")
        for patience in (2.0, _GOODBYE_SECONDS):
            deadline = time.monotonic() + patience
            for _, transport in self._snapshot():
                transport.join(max(0.0, deadline - time.monotonic()))
                transport.close()
        return not self._snapshot()
