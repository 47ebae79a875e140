"""`Signals`: what SIGTERM, Ctrl-C and SIGHUP mean to a process that serves."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

_logger = logging.getLogger(__name__)


class Signals:
    """Turn SIGTERM and Ctrl-C into the end of `wait`; a second Ctrl-C ends the process on the spot.

    With `hangup`, SIGHUP does what `on_hangup` was given, as soon as it was.
    """

    def __init__(self, *, hangup: bool = False) -> None:
        self._numbers = (signal.SIGTERM, signal.SIGINT, *((signal.SIGHUP,) if hangup else ()))
        self._asked = threading.Event()
        self._before: dict[int, Any] = {}
        self._lock = threading.Lock()
        # guarded by _lock
        self._hangup: Callable[[], None] | None = None
        self._hung_up = False  # before there was anything to do

    def __enter__(self) -> Signals:
        # A signal may reach the process in any thread, and Python runs handlers only once the main one wakes: the
        # number also goes to a socket, from C, where a thread reads it.
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            self._before[number] = signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._numbers)  # a supervisor's process begins with them blocked
        threading.Thread(target=self._read, name="sftp-gateway-signals", daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._sender.close()  # ends the thread

    def on_hangup(self, work: Callable[[], None]) -> None:
        """Do `work` on each SIGHUP, one after the other; at once, where one has come already."""
        with self._lock:
            self._hangup = work
            if self._hung_up:
                self._hang_up_locked()

    def wait(self) -> None:
        """Return when the process was asked to end."""
        self._asked.wait()

    def _read(self) -> None:
        with self._receiver:
            while numbers := self._receiver.recv(1):
                if self._asked.is_set() and numbers[0] == signal.SIGINT:
                    os._exit(130)
                if numbers[0] == signal.SIGHUP:
                    with self._lock:
                        self._hang_up_locked()
                elif numbers[0] in self._before:
                    self._asked.set()

    def _hang_up_locked(self) -> None:
        self._hung_up = True
        try:
            if self._hangup is not None and not self._asked.is_set():
                self._hangup()
        except Exception:
            _logger.exception("SIGHUP could not be followed")
