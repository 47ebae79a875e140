"""`Hooks`: reports events to commands and URLs through bounded queues; no transfer ever waits for one."""

from __future__ import annotations

import contextlib
import hmac
import http.client
import json
import logging
import os
import random
import signal
import socket
import ssl
import subprocess
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError, Future, InvalidStateError
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sftp_gateway.config import ConfigError, HookConfig, read_text, why_unreadable
from sftp_gateway.logs import log_event

TIMESTAMP_HEADER: Final = "X-SFTP-Gateway-Timestamp"
SIGNATURE_HEADER: Final = "X-SFTP-Gateway-Signature"
DELIVERY_HEADER: Final = "X-SFTP-Gateway-Delivery"
_URL_ATTEMPTS: Final = 5
_COMMAND_ATTEMPTS: Final = 1
_MAX_BACKOFF_SECONDS: Final = 60.0
_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")  # others can hold secrets
_WORTH_ANOTHER_TRY: Final = (408, 425, 429)

_logger = logging.getLogger(__name__)


class _FailedError(Exception):
    """An attempt failed; the text says why and holds no secret."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return what the signature header holds: HMAC-SHA256 over the timestamp, a dot and the body."""
    return "sha256=" + hmac.digest(secret.encode(), timestamp.encode() + b"." + body, "sha256").hex()


def pause_after(attempt: int, first: float) -> float:
    """Return the seconds to wait after an attempt, counted from 1; `first` is the wait after the first one."""
    return min(_MAX_BACKOFF_SECONDS, first * 4.0 ** (attempt - 1))


def read_secret(hook: HookConfig) -> str:
    """Return the secret of a hook, "" if it has none; raises `ConfigError` with a message of one line."""
    if not hook.secret_file:
        return hook.secret
    try:
        secret = read_text(Path(hook.secret_file)).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = why_unreadable(hook.secret_file, error)
        raise ConfigError(f"hook {hook.target}: {hook.secret_file}: {reason}") from error
    if not secret:
        raise ConfigError(f"hook {hook.target}: {hook.secret_file}: is empty")
    return secret


class Hooks:
    """Hands events to hooks that asked for them. Thread-safe; owned by `SFTPGateway`.

    Each hook has a queue and a thread of its own, made with its first event, which delivers the events in order.
    `count` is called with the outcome of each.
    """

    def __init__(
        self,
        hooks: Iterable[HookConfig] = (),
        *,
        count: Callable[[str, str], None] = lambda _hook, _result: None,
        backoff_seconds: float = 1.0,
    ) -> None:
        """Raises `ConfigError` when a secret cannot be read."""
        self._count = count
        self._backoff_seconds = backoff_seconds
        self._lines = self._make(hooks)

    def on_event(self, event: str, fields: Mapping[str, Any]) -> None:
        """Queue an event for the hooks that want it; returns at once."""
        if event == "upload" and fields["result"] != "ok":
            event = "upload_failed"
        for line in self._lines:
            if event in line.hook.events and (not line.hook.users or fields.get("user") in line.hook.users):
                line.add(_told(event, fields))

    def prepare(self, hooks: Iterable[HookConfig]) -> Callable[[], None]:
        """Return a function that replaces the hooks by these; raises `ConfigError`.

        Hooks that are unchanged keep their queues.
        """
        made = self._make(hooks)

        def replace() -> None:
            before = {line.hook: line for line in self._lines}
            self._lines = [before.pop(line.hook, line) for line in made]
            for line in before.values():
                threading.Thread(target=line.close, args=(line.hook.timeout_seconds,), daemon=True).start()

        return replace

    def close(self, seconds: float = 5.0) -> bool:
        """Deliver what is queued for up to `seconds`, without retries; return whether all threads ended."""
        deadline = time.monotonic() + seconds
        for line in self._lines:
            line.hurry()
        ended = [line.close(max(0.0, deadline - time.monotonic())) for line in self._lines]
        return all(ended)

    def _make(self, hooks: Iterable[HookConfig]) -> list[_Line]:
        return [_Line(hook, read_secret(hook), self._count, self._backoff_seconds) for hook in hooks]


class _Line:
    """The queue of one hook, and the thread that delivers it. `_condition` guards the fields below it."""

    def __init__(self, hook: HookConfig, secret: str, count: Callable[[str, str], None], backoff: float) -> None:
        self.hook = hook
        self._count = count
        self._backoff = backoff
        self._teller = _Command(hook) if hook.command else _Post(hook, secret)
        self._condition = threading.Condition()
        self._queue: deque[Mapping[str, Any]] = deque()
        self._thread: threading.Thread | None = None
        self._dropping = False
        self._hurried = False
        self._closed = False

    def add(self, told: Mapping[str, Any]) -> None:
        with self._condition:
            full = self._closed or len(self._queue) >= self.hook.queue
            first_dropped, self._dropping = full and not self._dropping, full
            if not full:
                self._queue.append(told)
                self._condition.notify()
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="sftp-gateway-hook", daemon=True)
                    with contextlib.suppress(RuntimeError):  # no more threads: the next event tries again
                        thread.start()
                        self._thread = thread
        if full:
            self._count(self.hook.target, "dropped")
        if first_dropped:
            self._complain("hook_full", "its queue is full: events are dropped until it keeps up")

    def hurry(self) -> None:
        """Stop waiting between attempts."""
        with self._condition:
            self._hurried = True
            self._condition.notify_all()

    def close(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        with self._condition:
            self._hurried = self._closed = True
            self._condition.notify_all()
            thread = self._thread
        if thread is None:
            return True
        thread.join(seconds)
        with self._condition:
            left = len(self._queue)
            self._queue.clear()
        for _ in range(left):
            self._count(self.hook.target, "dropped")
        if left:
            self._complain("hook_failed", f"{left} events could not be told before the end")
        while thread.is_alive() and time.monotonic() < deadline + 2.0:
            self._teller.break_off()
            thread.join(0.1)
        return not thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._queue and not self._closed:
                    self._condition.wait()
                if not self._queue:
                    return
                told = self._queue.popleft()
            try:
                result = self._attempt_all(told)
            except Exception:
                _logger.exception("a hook could not be told")
                result = "failed"
            self._count(self.hook.target, result)

    def _attempt_all(self, told: Mapping[str, Any]) -> str:
        attempts = self.hook.attempts or (_COMMAND_ATTEMPTS if self.hook.command else _URL_ATTEMPTS)
        for attempt in range(1, attempts + 1):
            try:
                self._teller.tell(told)
            except _FailedError as error:
                last = error.permanent or attempt == attempts or self._hurried
                if last:
                    self._complain("hook_failed", str(error), told=told["event"], id=told["id"], attempts=attempt)
                    return "failed"
                pause = pause_after(attempt, self._backoff) * random.uniform(0.8, 1.2)
                with self._condition:
                    self._condition.wait_for(lambda: self._hurried, pause)
            else:
                log_event("hook", level=logging.DEBUG, hook=self.hook.target, told=told["event"], id=told["id"])
                return "delivered"
        raise AssertionError("no attempt")

    def _complain(self, event: str, reason: str, **fields: Any) -> None:
        log_event(event, level=logging.WARNING, hook=self.hook.target, reason=reason, **fields)


class _Command:
    """Runs a command for each event: fields in SFTP_… variables, all of it as JSON on standard input."""

    def __init__(self, hook: HookConfig) -> None:
        self._hook = hook
        self._process: subprocess.Popen[bytes] | None = None

    def tell(self, told: Mapping[str, Any]) -> None:
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {f"SFTP_{key.upper()}": str(value).replace("\0", "\ufffd") for key, value in told.items()}
        try:
            self._process = process = subprocess.Popen(
                self._hook.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise _FailedError(f"cannot be started: {getattr(error, 'strerror', None) or error}") from None
        try:
            process.communicate(_body(told), timeout=self._hook.timeout_seconds)
        except subprocess.TimeoutExpired:
            self.break_off()
            process.communicate()
            raise _FailedError(f"did not end within {self._hook.timeout_seconds:g} s") from None
        finally:
            self._process = None
        if process.returncode:
            raise _FailedError(f"exit status {process.returncode}")

    def break_off(self) -> None:
        """Kill the command and its child processes."""
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class _Post:
    """Posts each event as signed JSON; follows no redirects. An attempt ends at its deadline in any case."""

    def __init__(self, hook: HookConfig, secret: str) -> None:
        self._hook = hook
        self._secret = secret
        self._url = urlsplit(hook.url)
        self._host = self._url.hostname or ""
        self._found: Future[list[Any]] | None = None
        self._sock: socket.socket | None = None

    def tell(self, told: Mapping[str, Any]) -> None:
        body = _body(told)
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "sftp-gateway",
            DELIVERY_HEADER: told["id"],
            TIMESTAMP_HEADER: timestamp,
        }
        if self._secret:
            headers[SIGNATURE_HEADER] = signature(self._secret, timestamp, body)
        try:
            status = self._exchange(headers, body, time.monotonic() + self._hook.timeout_seconds)
        except (OSError, ValueError, RuntimeError, http.client.HTTPException, CancelledError) as error:
            # ValueError: an invalid host name; RuntimeError: no more threads
            raise _FailedError(f"no answer: {getattr(error, 'strerror', None) or type(error).__name__}") from None
        if not 200 <= status < 300:
            permanent = status < 500 and status not in _WORTH_ANOTHER_TRY
            raise _FailedError(f"answered {status}", permanent=permanent)

    def break_off(self) -> None:
        """End the request that is under way."""
        found, sock = self._found, self._sock
        if found is not None:
            found.cancel()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _exchange(self, headers: Mapping[str, str], body: bytes, until: float) -> int:
        """Post and return the status of the answer."""
        context = ssl.create_default_context() if self._url.scheme == "https" else None
        connection = http.client.HTTPConnection(self._host, self._url.port)
        if context is not None:
            connection = http.client.HTTPSConnection(self._host, self._url.port, context=context)
        with contextlib.closing(connection), contextlib.ExitStack() as stack:
            sock = stack.enter_context(self._connect(connection.port, until))
            deadline = threading.Timer(max(0.0, until - time.monotonic()), self.break_off)
            deadline.daemon = True
            deadline.start()
            stack.callback(deadline.join)
            stack.callback(deadline.cancel)
            if context is not None:
                secured = context.wrap_socket(sock, server_hostname=self._host, do_handshake_on_connect=False)
                self._sock = sock = stack.enter_context(secured)
                secured.do_handshake()
            connection.sock = sock
            target = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
            connection.request("POST", target, body, headers)
            return connection.getresponse().status

    def _connect(self, port: int, until: float) -> socket.socket:
        """Return a socket that is connected to the host, at whichever of its addresses answers."""
        addresses = self._look_up(port, until)
        for left, (family, kind, protocol, _, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
            self._sock = sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(max(0.001, until - time.monotonic()) / left)
                sock.connect(address)
                sock.settimeout(self._hook.timeout_seconds)
            except OSError:
                sock.close()
                if left == 1:
                    raise
            else:
                return sock
        raise OSError("the name has no address")

    def _look_up(self, port: int, until: float) -> list[Any]:
        """Return the host's addresses. The resolver cannot be interrupted: it runs in a thread, one at a time."""
        if self._found is None or self._found.done():
            found: Future[list[Any]] = Future()
            arguments = (self._host, port, found)
            threading.Thread(target=_resolve, args=arguments, name="sftp-gateway-hook-names", daemon=True).start()
            self._found = found
        return self._found.result(until - time.monotonic())


def _resolve(host: str, port: int, found: Future[list[Any]]) -> None:
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        tell = partial(found.set_exception, error)
    else:
        tell = partial(found.set_result, addresses)
    with contextlib.suppress(InvalidStateError):  # nobody waits for it any more
        tell()


def _told(event: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a hook receives: the fields of the log line, the time, and an id that is the same in retries."""
    told = {key: value for key, value in fields.items() if key != "rate"}
    return {
        "id": str(uuid.uuid4()),
        "event": event,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
    } | told


def _body(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told).encode()
