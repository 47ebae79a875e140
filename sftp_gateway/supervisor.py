"""`Supervisor`: runs several processes that serve one port, replaces those that die, forwards signals. Knows no SSH."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NoReturn

from sftp_gateway.config import ConfigError, GatewayConfig
from sftp_gateway.logs import log_event
from sftp_gateway.network.listening import ListenError, listen
from sftp_gateway.reports.reporting import StatusShare, listen_for_status
from sftp_gateway.server import Crew, GatewayError, take_state_folder
from sftp_gateway.serving.gatekeeper import Register
from sftp_gateway.serving.reloading import merged

_EXIT_FAILED = 1
_EXIT_UNABLE = 2  # of a process that has logged why it cannot serve
_EXIT_BUG = 70
_PASSED_ON = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_SIGNALS = _PASSED_ON | {signal.SIGCHLD, signal.SIGALRM}
_STEADY_SECONDS = 5.0  # a process that dies sooner is replaced after longer and longer delays
_MAX_DELAY_SECONDS = 30.0
_REFUSED_SECONDS = 1.0  # before the next try to start a process that the system refused to fork
_LOOK_SECONDS = 0.05  # between checks for signals while the processes start
_LATE_SECONDS = 30.0  # after `drain_seconds`, before processes that have not ended are killed

_logger = logging.getLogger(__name__)


class Supervisor:
    """Forks the processes, and waits for signals and for processes to end. Single-threaded, so that forking is safe.

    Each process starts from the supervisor's state and holds no connection, lock or thread of another process, so its
    death does not affect the others. If the supervisor itself dies, the processes end as on SIGTERM.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        serve: Callable[[GatewayConfig, Crew], int],
        reload: Callable[[], GatewayConfig],
    ) -> None:
        """`serve` runs in each process until a signal ends it, and returns the exit code. It starts with SIGTERM,
        SIGINT and SIGHUP blocked, so that none is lost before it can handle them. `reload` reads the settings again,
        for processes that start after SIGHUP, or raises `ConfigError`."""
        self._config = config
        self._serve = serve
        self._reload = reload
        self._processes: dict[int, int] = {}  # number by pid
        self._started: dict[int, float] = {}  # by number
        self._due: dict[int, float] = {}  # when a process is to be restarted, by number
        self._early_deaths: dict[int, int] = {}  # in a row, by number
        self._stopping = False
        self._exit_code = 0
        self._begun: Callable[[], None]  # a process calls it to report that it serves; closes its descriptor of a pipe

    def run(self, tell: Callable[[tuple[str, int]], None]) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code. Calls `tell` with the address once all processes serve.

        Raises `GatewayError` if it cannot start.
        """
        with contextlib.ExitStack() as undone:
            self._claim = take_state_folder(self._config)
            undone.callback(self._claim.release)
            try:
                address = self._prepare(undone)
            except OSError as error:
                raise GatewayError(f"{error.filename}: cannot be made: {error.strerror or error}") from error
            except ListenError as error:
                raise GatewayError(str(error)) from error
            undone.pop_all()
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._lifeline = os.pipe()  # never written to: end of file tells the processes that the supervisor is gone
        try:
            self._start_all()
            if not self._stopping:
                tell(address)
            while self._processes or (self._due and not self._stopping):
                self._handle(signal.sigwait(_SIGNALS))
        finally:
            self._kill()
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._listener.close()
            for end in self._lifeline:
                os.close(end)
            self._register.remove()
            if self._status is not None:
                self._status.listener.close()
                shutil.rmtree(self._status.directory, ignore_errors=True)
            self._claim.release()
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
        return self._exit_code

    def _prepare(self, undone: contextlib.ExitStack) -> tuple[str, int]:
        """Listen, and create what the processes share; return the address. Raises `ListenError` and OSError."""
        self._listener: socket.socket = listen(*self._config.listen_address, "--listen")
        undone.callback(self._listener.close)
        address: tuple[str, int] = self._listener.getsockname()[:2]
        register = self._config.state_path / f"gate-{address[1]}.sqlite"
        self._register = Register(register, processes=self._config.processes)
        self._register.prepare()
        undone.callback(self._register.remove)
        self._status = self._share_status(address[1])
        return address

    def _start_all(self) -> None:
        """Start the processes; return when each of them serves or has ended, or when a signal stops the supervisor."""
        beginning, begun = os.pipe()  # reaches end of file when no process has its second end open any more
        self._begun = partial(os.close, begun)
        for number in range(self._config.processes):
            self._start(number)
        self._begun()
        self._begun = lambda: None  # nobody waits for replacements
        while not self._stopping and not select.select([beginning], (), (), _LOOK_SECONDS)[0]:
            while signal.sigpending() & _SIGNALS:
                self._handle(signal.sigwait(_SIGNALS))
        os.close(beginning)

    # -- what happens

    def _handle(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._stopping and number == signal.SIGINT:
                self._exit_code = 130
                self._kill()
            else:
                self._stop()
        elif number == signal.SIGHUP:
            self._pass_on(signal.SIGHUP)  # first: `reload` may load what new users need
            with contextlib.suppress(ConfigError):  # each process logs what is wrong
                self._config = merged(self._config, self._reload())
        elif number == signal.SIGALRM:
            self._on_time()
        self._reap()

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._listener.close()
        self._due.clear()
        self._pass_on(signal.SIGTERM)
        signal.setitimer(signal.ITIMER_REAL, self._config.drain_seconds + _LATE_SECONDS)

    def _on_time(self) -> None:
        if self._stopping:
            _logger.error("%d processes do not end: they are killed", len(self._processes))
            self._exit_code = _EXIT_FAILED
            self._kill()
            return
        now = time.monotonic()
        for number, due in list(self._due.items()):
            if due <= now:
                del self._due[number]
                self._start(number)
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._due and not self._stopping:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, min(self._due.values()) - time.monotonic()))

    def _reap(self) -> None:
        for pid in list(self._processes):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._ended(pid, os.waitstatus_to_exitcode(status))

    def _ended(self, pid: int, code: int) -> None:
        number = self._processes.pop(pid)
        lived = time.monotonic() - self._started[number]
        if self._stopping:
            self._exit_code = self._exit_code or (_EXIT_FAILED if code else 0)
            return
        reason = f"exit code {code}" if code >= 0 else f"signal {-code}"
        log_event("process_ended", level=logging.ERROR, process=number, pid=pid, seconds=round(lived, 1), reason=reason)
        early = lived < _STEADY_SECONDS
        if early and code == _EXIT_UNABLE and number not in self._early_deaths:
            self._stop()
            self._exit_code = _EXIT_FAILED
            return
        deaths = self._early_deaths[number] = self._early_deaths.get(number, 0) + 1 if early else 0
        delay = min(_MAX_DELAY_SECONDS, 2.0 ** (deaths - 2)) if deaths > 1 else 0.0
        self._due[number] = time.monotonic() + delay
        self._set_alarm()

    # -- processes

    def _share_status(self, port: int) -> StatusShare | None:
        """Create what the processes need to show one status page, without counts that a crashed run may have left."""
        listener = listen_for_status(self._config)
        if listener is None:
            return None
        directory = self._config.state_path / f"metrics-{port}"
        shutil.rmtree(directory, ignore_errors=True)
        try:
            directory.mkdir(mode=0o700, parents=True)
        except OSError:
            listener.close()
            raise
        return StatusShare(listener, directory)

    def _start(self, number: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or no memory: the others continue
            _logger.error("process %d cannot be started: %s", number, error.strerror or error)
            self._due[number] = time.monotonic() + _REFUSED_SECONDS
            self._set_alarm()
            return
        if pid == 0:
            self._be_process(number)
        self._processes[pid] = number
        self._started[number] = time.monotonic()
        log_event("process_started", level=logging.DEBUG, process=number, pid=pid)

    def _be_process(self, number: int) -> NoReturn:
        """Serve as one of the processes, in the forked child; never returns."""
        code = _EXIT_BUG
        try:
            os.setpgid(0, 0)  # Ctrl-C in a terminal reaches only the supervisor, which forwards it
            os.close(self._lifeline[1])
            self._claim.release()
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before | _PASSED_ON)
            threading.Thread(target=_end_with, args=(self._lifeline[0],), name="lifeline", daemon=True).start()
            crew = Crew(self._listener, replace(self._register, process=number), self._status, self._begun)
            code = self._serve(self._config, crew)
        except GatewayError as error:
            _logger.error("%s", error)
            code = _EXIT_UNABLE
        except BaseException:
            _logger.exception("a process failed")
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _pass_on(self, number: signal.Signals) -> None:
        for pid in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _kill(self) -> None:
        self._pass_on(signal.SIGKILL)
        for pid in self._processes:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self._processes.clear()


def _end_with(lifeline: int) -> None:
    """Wait until the supervisor is gone, then end this process cleanly with SIGTERM."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
