"""The current state of a gateway: its gauges, and its sessions as `sftp-gateway sessions` shows them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sftp_gateway.files.directory_handle import DirectoryHandle
from sftp_gateway.files.handles import WriteHandle
from sftp_gateway.serving.services import Services
from sftp_gateway.serving.session import Session
from sftp_gateway.write_back.journal_rows import Totals


def gauges(sessions: Iterable[Session], services: Services, pending: Totals, *, draining: bool) -> Mapping[str, float]:
    """Return the current values, by the names of the gauges in `sftp_gateway.reports.metrics`."""
    known = list(sessions)
    channels = [channel for session in known for channel in session.channels if not channel.wait(0)]
    threads, busy, waiting = services.workers.load
    return {
        **services.accounts.gauges,
        "connections": len(known),
        "sessions": sum(session.signed_in_at is not None for session in known),
        "handles": sum(channel.open_handles for channel in channels),
        "worker_threads": threads,
        "worker_threads_busy": busy,
        "requests_waiting": waiting,
        "draining": draining,
        "banned_addresses": services.gatekeeper.bans,
        "pending_files": pending.waiting,
        "pending_bytes": pending.bytes,
        "pending_failed": pending.failed,
        "pending_oldest_seconds": max(0.0, time.time() - pending.oldest) if pending.oldest is not None else 0.0,
    }


def describe(session: Session) -> Mapping[str, Any] | None:
    """Return a description of a session; None before it has signed in."""
    login, signed_in_at = session.login, session.signed_in_at
    if login is None or signed_in_at is None:
        return None
    now = time.monotonic()
    return {
        "session": session.name,
        "user": login.shown,
        "from": session.address,
        "since": datetime.fromtimestamp(time.time() - (now - signed_in_at), UTC).isoformat(timespec="seconds"),
        "seconds": round(now - signed_in_at),
        "idle_seconds": round(session.idle_seconds),
        "client": session.client,
        "rights": login.rights,
        "files": [
            {"path": handle.path, "open_for": "writing" if isinstance(handle, WriteHandle) else "reading"}
            for channel in session.channels
            for handle in channel.handles
            if not isinstance(handle, DirectoryHandle)
        ],
    }


def answer(
    request: Mapping[str, Any], sessions: Iterable[Session], end: Callable[[Callable[[Session], bool], str], list[str]]
) -> Mapping[str, Any]:
    """Answer a request of the control socket: show sessions, or end some with `end`, which returns their names."""
    if request.get("command") == "sessions":
        described = [describe(session) for session in sessions]
        return {"pid": os.getpid(), "sessions": [session for session in described if session is not None]}
    if request.get("command") == "kick":
        return {"ended": end(lambda session: _is_meant(session, request), "ended by the administrator")}
    return {"error": "unknown command"}


def _is_meant(session: Session, request: Mapping[str, Any]) -> bool:
    """Return whether a request to end sessions, by name or by user, applies to this one."""
    login = session.login
    if login is None:
        return False
    return session.name == request.get("session") or login.shown == request.get("user")
