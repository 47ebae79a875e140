"""Who may connect now: limits in all, for one address and for one user, and bans after failed logins. No I/O."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

_MAX_REMEMBERED_ADDRESSES = 10_000


class Gatekeeper:
    """Count connections, sessions and failed logins. Thread-safe: one leaf lock; owned by `SFTPGateway`.

    Only different failures count towards a ban: a scanner that repeats one outdated password is a nuisance, no attack.
    A successful login clears the failures of its address, so parallel logins of a good client never add up.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        max_connections_per_address: int,
        max_sessions_per_user: int,
        ban_failures: int,
        ban_seconds: float,
        ban_exempt: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_connections = max_connections
        self._max_connections_per_address = max_connections_per_address
        self._max_sessions_per_user = max_sessions_per_user
        self._ban_failures = ban_failures
        self._ban_seconds = ban_seconds
        self._ban_exempt = [ipaddress.ip_network(network, strict=False) for network in ban_exempt]
        self._clock = clock
        self._lock = threading.Lock()
        # guarded by _lock
        self._connections: Counter[str] = Counter()
        self._sessions: Counter[str] = Counter()
        self._failures: OrderedDict[str, dict[bytes, float]] = OrderedDict()
        self._banned: OrderedDict[str, float] = OrderedDict()

    def connect(self, address: str) -> str | None:
        """Count a new connection and return None, or return why there may be none."""
        place = _place(address)
        with self._lock:
            if self._banned.get(place, 0.0) > self._clock():
                return "banned after failed logins"
            if self._connections.total() >= self._max_connections:
                return "too many connections"
            if self._connections[place] >= self._max_connections_per_address:
                return "too many connections from one address"
            self._connections[place] += 1
        return None

    def disconnect(self, address: str) -> None:
        """Stop counting a connection that `connect` counted."""
        with self._lock:
            _decrement(self._connections, _place(address))

    def sign_in(self, user: str, address: str, *, maximum: int = 0) -> bool:
        """Count a session of this user, up to `maximum` where it is not 0; forgive what failed from its address."""
        with self._lock:
            self._failures.pop(_place(address), None)
            if self._sessions[user] >= (maximum or self._max_sessions_per_user):
                return False
            self._sessions[user] += 1
        return True

    def sign_out(self, user: str) -> None:
        """Stop counting a session that `sign_in` counted."""
        with self._lock:
            _decrement(self._sessions, user)

    def fail(self, address: str, attempt: bytes) -> bool:
        """Note a failed login, told apart by a digest of what was tried; return True when that bans the address."""
        place = _place(address)
        if not self._ban_failures or self._is_exempt(address):
            return False
        now = self._clock()
        with self._lock:
            recent = {seen: at for seen, at in self._failures.pop(place, {}).items() if now - at < self._ban_seconds}
            recent[attempt] = now
            if len(recent) >= self._ban_failures:
                self._banned[place] = now + self._ban_seconds
                self._banned.move_to_end(place)
                _trim(self._banned)
                return True
            self._failures[place] = recent
            _trim(self._failures)
        return False

    def _is_exempt(self, address: str) -> bool:
        host = _host(address)
        return any(host in network for network in self._ban_exempt)


def _host(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    host = ipaddress.ip_address(address.partition("%")[0])
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    return mapped or host


def _place(address: str) -> str:
    """What stands for one peer: an IPv4 address, or the /64 that an IPv6 peer has to itself."""
    host = _host(address)
    if isinstance(host, ipaddress.IPv4Address) or host.is_loopback:
        return str(host)
    return str(ipaddress.ip_network(f"{host}/64", strict=False))


def _decrement(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def _trim(table: OrderedDict[str, float] | OrderedDict[str, dict[bytes, float]]) -> None:
    while len(table) > _MAX_REMEMBERED_ADDRESSES:
        table.popitem(last=False)
