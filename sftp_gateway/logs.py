"""One line for each login, transfer, rename, removal and failure, for people or as JSON.

Callers pass fields, never texts with secrets in them; `SessionLog` also strikes the secrets of its own session out.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import math
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from io import TextIOWrapper
from typing import Any, Final, TextIO

from sftp_gateway.sftp.events import Listener, Transfer

HIDDEN: Final = "***"
FAILURES_A_MINUTE: Final = 100
"""Failure lines of one session that are written: a client can fail thousands of times a second."""

_PLAIN: Final = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII but for space, quotes, "=" and the backslash

_logger = logging.getLogger("sftp_gateway")


def log_event(event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log one event; a field that is None is left out."""
    if _logger.isEnabledFor(level):
        shown = {key: value for key, value in fields.items() if value is not None}
        _logger.log(level, "%s", _line(event, shown), extra={"event": event, "fields": shown})


class SessionLog:
    """Write the lines of one session: who, from where, what happened; no secret of its login. Thread-safe.

    Receives the events of the session's channels (`sftp_gateway.sftp.events.Events`), and tells every event of the
    session to the listeners, whatever the level and however many there are. One leaf lock.
    """

    def __init__(self, session: str, address: str, listeners: Iterable[Listener] = ()) -> None:
        self._fields: dict[str, Any] = {"session": session, "from": address}
        self._listeners = tuple(listeners)
        self._secrets: tuple[str, ...] = ()
        self._lock = threading.Lock()
        # guarded by _lock
        self._minute = -math.inf  # when the present one began
        self._failures = 0  # in it
        self._omitted = 0  # since the last line

    def knows(self, user: str, secrets: Iterable[str] = ()) -> None:
        """Name the user from now on, and remove these texts from every line."""
        self._fields = {**self._fields, "user": user}
        self._secrets = tuple(sorted({*self._secrets, *secrets}, key=len, reverse=True))

    def log(self, event: str, *, level: int = logging.INFO, **fields: Any) -> None:
        """Log an event of this session."""
        omitted = self._omitted_before(event) if _logger.isEnabledFor(level) else None
        if not self._listeners and omitted is None:
            return
        struck = {key: self._strike(value) for key, value in fields.items() if value is not None}
        told = self._fields | struck
        if omitted is not None:
            log_event(event, level=level, **told, omitted=omitted or None)
        for listener in self._listeners:
            listener(event, told)

    def log_bug(self, place: str) -> None:
        """Log the exception that is being handled: one that nobody expected there."""
        self.log("bug", level=logging.ERROR, place=place, trace=traceback.format_exc())

    def on_transfer(self, transfer: Transfer) -> None:
        rate = transfer.size / transfer.seconds if transfer.seconds > 0 else None
        self.log(
            transfer.direction,
            level=logging.INFO if transfer.result == "ok" else logging.WARNING,
            path=transfer.path,
            bytes=transfer.size,
            seconds=round(transfer.seconds, 3),
            rate=None if rate is None else round(rate),
            result=transfer.result,
            reason=transfer.reason or None,
        )

    def on_rename(self, source: str, target: str) -> None:
        self.log("rename", path=source, target=target)

    def on_remove(self, path: str, *, directory: bool) -> None:
        self.log("rmdir" if directory else "remove", path=path)

    def on_mkdir(self, path: str) -> None:
        self.log("mkdir", path=path)

    def on_failure(
        self, operation: str, path: str, reason: str, *, is_expected: bool = False, trace: str | None = None
    ) -> None:
        level = logging.ERROR if trace else logging.DEBUG if is_expected else logging.WARNING
        self.log("failure", level=level, operation=operation, path=path, reason=reason, trace=trace)

    def _omitted_before(self, event: str) -> int | None:
        """Return how many failures were omitted since the last line; None if this one must be omitted, too."""
        with self._lock:
            if event == "failure":
                now = time.monotonic()
                if now - self._minute >= 60.0:
                    self._minute, self._failures = now, 0
                self._failures += 1
                if self._failures > FAILURES_A_MINUTE:
                    self._omitted += 1
                    return None
            omitted, self._omitted = self._omitted, 0
            return omitted

    def _strike(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, HIDDEN)
        return value


class TextFormatter(logging.Formatter):
    """`2026-11-21T07:00:00Z INFO upload session=… path="/a b" …`, one line whatever happens."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{_time(record)} {record.levelname} {printable(record.getMessage())}"
        if record.exc_info:
            text += " " + printable(self.formatException(record.exc_info))
        return text


class JSONFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        line: dict[str, Any] = {"time": _time(record), "level": record.levelname.lower()}
        if fields is None:
            line |= {"event": "message", "logger": record.name, "message": record.getMessage()}
        else:
            line |= {"event": getattr(record, "event", ""), **fields}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return printable_json(json.dumps(line, ensure_ascii=False, default=str))


class LogFile(logging.handlers.WatchedFileHandler):
    """A log file that its group may read; reopened after it was renamed or removed, as by logrotate."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        return open(descriptor, "a", encoding="utf-8", errors="backslashreplace")


def set_up_logging(level: str, style: str, stream: TextIO | None = None, *, file: str = "") -> None:
    """Send everything that is logged in this process to the file, or to the stream (standard error).

    Raises OSError if the file cannot be opened; nothing has changed then.
    """
    # These are never shown: the documentation of logging advises to switch them off, for speed.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = LogFile(file) if file else logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.flush()
        if isinstance(old, LogFile):
            old.close()
    root.addHandler(handler)
    debug = level == "debug"
    root.setLevel(logging.WARNING)
    for name in ("sftp_gateway", "fs_dropbox"):
        logging.getLogger(name).setLevel(level.upper())
    # paramiko reports every port scan as an error with a traceback; the gateway logs one line of its own.
    logging.getLogger("sftp_gateway.paramiko").setLevel(logging.DEBUG if debug else logging.CRITICAL)
    logging.getLogger("paramiko").setLevel(logging.WARNING if debug else logging.CRITICAL)


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _line(event: str, fields: dict[str, Any]) -> str:
    return " ".join([event, *(f"{key}={_value(key, value)}" for key, value in fields.items())])


def _value(key: str, value: Any) -> str:
    if key == "rate":
        return _rate(value)
    if not isinstance(value, str):
        return str(value)
    return value if _PLAIN.fullmatch(value) else json.dumps(printable(value), ensure_ascii=False)


def _rate(bytes_per_second: float) -> str:
    for unit in ("B/s", "KB/s", "MB/s"):
        if bytes_per_second < 1000:
            return f"{bytes_per_second:.3g}{unit}"
        bytes_per_second /= 1000
    return f"{bytes_per_second:.3g}GB/s"


def printable(text: str) -> str:
    """Escape what could forge a line or steer a terminal: everything that is not printable."""
    if text.isprintable():  # as nearly all are
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def printable_json(line: str) -> str:
    """Escape a line of JSON in the same way; it stays valid JSON and means the same."""
    if line.isprintable():
        return line
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in line)
