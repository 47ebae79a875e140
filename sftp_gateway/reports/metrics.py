"""`Metrics`: what the gateway counts and measures, in Prometheus' format. Knows no SSH and no HTTP."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.multiprocess import MultiProcessCollector

from sftp_gateway.sftp.packets import Kind

CONTENT_TYPE: Final = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4
_REQUEST_BUCKETS: Final = (0.0001, 0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
_LOGINS: Final = {"login": "ok", "login_failed": "failed", "login_refused": "refused", "no_login": "none"}
_CHANGES: Final = ("rename", "remove", "rmdir", "mkdir")
_OTHER: Final = "other"


_COUNTERS: Final[Mapping[str, tuple[str, ...]]] = {  # what each means, and its labels
    "refused": ("Connections refused at once.", "reason"),
    "logins": ("Connections by how signing in ended; none: the client left before it tried.", "result", "user"),
    "bans": ("Addresses banned after failed logins.",),
    "transfers": ("Finished transfers.", "direction", "result", "user"),
    "transferred_bytes": ("Bytes of files in finished transfers.", "direction", "user"),
    "changes": ("Changes of names.", "operation"),
    "failures": ("Requests answered with an error worth a log line.", "operation"),
    "hook_events": ("Events for hooks, by what became of them.", "hook", "result"),
    "received_bytes": ("Bytes received in SFTP packets.",),
    "sent_bytes": ("Bytes sent in SFTP packets.",),
}
# How things stand in one process at this moment; for all of them together these are added up.
_GAUGES: Final = {
    "connections": "Connections, signed in or not.",
    "sessions": "Connections that have signed in.",
    "handles": "Files and directories that clients have open.",
    "spool_bytes": "Local disk and memory in use for uploads that are not finished.",
    "worker_threads": "Threads for requests that wait for the storage.",
    "worker_threads_busy": "Those of them that carry out a request.",
    "requests_waiting": "Requests that wait for a thread.",
    "accounts": "Open filesystems.",
    "accounts_throttled": "Open filesystems whose storage holds up writers at present.",
    "accounts_unfollowed": "Open filesystems that do not hear of foreign changes at present.",
    "draining": "1 while the gateway takes nobody in any more.",
}
# How things stand that all processes see alike.
_SHARED_GAUGES: Final = {
    "banned_addresses": "Addresses that are banned after failed logins.",
    "pending_files": "Files acknowledged in write-back mode that are not delivered yet.",
    "pending_bytes": "Bytes of files acknowledged in write-back mode that are not delivered, failed ones included.",
    "pending_failed": "Files acknowledged in write-back mode that the storage has refused for good.",
    "pending_oldest_seconds": "Age of the oldest file that is not delivered yet.",
}
_MODES: Final[Mapping[Literal["livesum", "livemax"], Mapping[str, str]]] = {
    "livesum": _GAUGES,
    "livemax": _SHARED_GAUGES,
}


class Metrics:
    """Counts events, requests and bytes; thread-safe through prometheus_client, which locks each value.

    Owned by `SFTPGateway`. No label holds a name that clients choose: users appear only if the configuration names
    them and asks for it. With a `directory`, the values of all processes are kept there, by the number of the process,
    so that each of them can show the sum, and a process that takes another's place goes on counting where it ended.
    """

    def __init__(
        self,
        *,
        users: Collection[str] | None = None,
        look: Callable[[], Mapping[str, float]] = dict,
        directory: Path | None = None,
        process: int = 0,
    ) -> None:
        """`users` are those that are told apart, None for a single number for all; `look` tells how things stand."""
        self.users = users
        self._look = look
        self._directory = directory
        if directory is not None:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
            values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        if directory is None:
            prometheus_client.ProcessCollector(registry=registry)
        self._count = {
            name: Counter(f"sftp_gateway_{name}", meaning, _without_users(labels, users), registry=registry)
            for name, (meaning, *labels) in _COUNTERS.items()
        }
        requests = Histogram(
            "sftp_gateway_request_seconds",
            "Seconds from a request to its answer.",
            ["type"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self._requests = {int(kind): requests.labels(kind.name.lower()).observe for kind in _asked()}
        self._unknown = requests.labels(_OTHER).observe
        self.received: Callable[[float], None] = self._count["received_bytes"].inc
        self._sent = self._count["sent_bytes"].inc
        info = Gauge("sftp_gateway_info", "The version.", ["version"], multiprocess_mode="livemax", registry=registry)
        info.labels(_version()).set(1)
        self._gauges = {
            name: Gauge(f"sftp_gateway_{name}", meaning, multiprocess_mode=mode, registry=registry)
            for mode, gauges in _MODES.items()
            for name, meaning in gauges.items()
        }

    def answered(self, kind: int, seconds: float, size: int) -> None:
        """Count one answered request: its kind, and the bytes of the answer."""
        self._requests.get(kind, self._unknown)(seconds)
        self._sent(size)

    def on_event(self, event: str, seen: Mapping[str, Any]) -> None:
        """Count an event as the log tells it."""
        if event in _LOGINS:
            self._count["logins"].labels(_LOGINS[event], *self._user(seen)).inc()
        elif event in ("upload", "download"):
            self._count["transfers"].labels(event, seen["result"], *self._user(seen)).inc()
            self._count["transferred_bytes"].labels(event, *self._user(seen)).inc(seen["bytes"])
        elif event in _CHANGES:
            self._count["changes"].labels(event).inc()
        elif event == "failure":
            self._count["failures"].labels(seen["operation"]).inc()
        elif event == "refused":
            self._count["refused"].labels(seen["reason"]).inc()
        elif event == "ban":
            self._count["bans"].inc()

    def on_hook(self, hook: str, result: str) -> None:
        """Count what became of an event for a hook: "delivered", "failed" or "dropped"."""
        self._count["hook_events"].labels(hook, result).inc()

    def refresh(self) -> None:
        """Look how things stand; each process does so every second for the others."""
        for name, value in self._look().items():
            self._gauges[name].set(value)

    def render(self) -> bytes:
        """Return all metrics, of all processes."""
        self.refresh()
        registry = self._registry
        if self._directory is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, path=str(self._directory))  # type: ignore[no-untyped-call]
        return prometheus_client.generate_latest(registry)

    def _user(self, seen: Mapping[str, Any]) -> tuple[str, ...]:
        if self.users is None:
            return ()
        name = seen.get("user", _OTHER)
        return (name if name in self.users else _OTHER,)


def _without_users(labels: Iterable[str], users: Collection[str] | None) -> list[str]:
    return [label for label in labels if label != "user" or users is not None]


def _asked() -> list[Kind]:
    """The kinds of packets that clients send."""
    return [kind for kind in Kind if (kind < Kind.STATUS and kind != Kind.VERSION) or kind == Kind.EXTENDED]


def _version() -> str:
    try:
        return metadata.version("fs-dropbox")
    except metadata.PackageNotFoundError:
        return "unknown"
