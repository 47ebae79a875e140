"""The supervisor alone, over processes that do as the test says."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sftp_gateway.program import begin, is_alive
from tests.waiting import DEADLINE_SECONDS, eventually

SCRIPT = """
import os, signal, sys, threading, time
from msgspec.structs import replace
from sftp_gateway.config import GatewayConfig
from sftp_gateway.logs import set_up_logging
from sftp_gateway.supervisor import Supervisor

def serve(config, crew):
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    {begun}
    {body}

{prelude}
set_up_logging("debug", "text")
config = GatewayConfig(listen="127.0.0.1:0", state_folder=sys.argv[1], processes=2, drain_seconds=0)
reload = lambda: replace(config, idle_seconds=77.0)
sys.exit(Supervisor(config, serve=serve, reload=reload).run(lambda address: print("ready", flush=True)))
"""


@contextlib.contextmanager
def supervised(
    tmp_path: Path, body: str, prelude: str = "", *, begun: str = "crew.begun()"
) -> Iterator[subprocess.Popen[str]]:
    script = SCRIPT.format(begun=begun, body=body, prelude=prelude)
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_process_that_dies_at_once_is_started_again_later_and_later(tmp_path: Path) -> None:
    with supervised(tmp_path, "os._exit(1 if crew.register.process else signal.pause())") as process:
        started: list[float] = []
        assert process.stderr is not None
        while len(started) < 4:
            line = process.stderr.readline()
            assert line, "the supervisor gave up"
            if "process_started process=1" in line:
                started.append(time.monotonic())
    _, second, third = (after - before for before, after in itertools.pairwise(started))
    assert second >= 0.9
    assert third >= 1.9


def test_where_no_process_can_be_started_the_others_serve_on(tmp_path: Path) -> None:
    prelude = """
fork, answers = os.fork, [True, False]

def refuse_once():
    if answers and not answers.pop(0):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()

os.fork = refuse_once
"""
    with supervised(tmp_path, "signal.pause()", prelude) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(3)]
    assert "process_started process=0" in lines[0]
    assert "process 1 cannot be started: Resource temporarily unavailable" in lines[1]
    assert "process_started process=1" in lines[2]


def test_a_process_that_cannot_serve_ends_all(tmp_path: Path) -> None:
    body = "os._exit(2 if crew.register.process else signal.pause())"
    with supervised(tmp_path, body, begun="") as process:
        assert process.communicate(timeout=DEADLINE_SECONDS)[0] == "", "it was said to be ready"
        assert process.returncode == 1


def test_it_is_ready_when_those_serve_that_can(tmp_path: Path) -> None:
    with supervised(tmp_path, "os._exit(1 if crew.register.process else signal.pause())") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"


@pytest.mark.parametrize("begun", ["crew.begun()", ""])
def test_sighup_is_passed_on(tmp_path: Path, begun: str) -> None:
    """Also while processes are still beginning."""
    body = "signal.signal(signal.SIGHUP, lambda *_: os.write(2, b'hup\\n')); os.write(2, b'up\\n'); signal.pause(); "
    body += "signal.pause()"
    with supervised(tmp_path, body, begun=begun) as process:
        assert process.stderr is not None
        lines = process.stderr
        assert [line for line in (lines.readline() for _ in range(4)) if line == "up\n"] == ["up\n"] * 2
        process.send_signal(signal.SIGHUP)
        assert [lines.readline(), lines.readline()] == ["hup\n", "hup\n"]


def test_a_process_that_starts_after_a_reload_has_the_new_settings(tmp_path: Path) -> None:
    body = "signal.signal(signal.SIGHUP, lambda *_: os._exit(1)); "
    body += "os.write(2, f'idle {config.idle_seconds}\\n'.encode()); signal.pause()"
    with supervised(tmp_path, body) as process:
        assert process.stderr is not None
        told = (line for line in iter(process.stderr.readline, "") if line.startswith("idle"))
        before = [next(told), next(told)]
        process.send_signal(signal.SIGHUP)
        assert [next(told), next(told)] == ["idle 77.0\n"] * 2
    assert "idle 77.0\n" not in before


def test_processes_hear_of_a_reload_before_the_supervisor_looks_at_it(tmp_path: Path) -> None:
    """It may have to load what new users need, and a user who was taken away is to be gone at once."""
    body = "signal.signal(signal.SIGHUP, lambda *_: os.write(2, b'hup\\n')); os.write(2, b'up\\n'); signal.pause(); "
    body += "signal.pause()"
    prelude = "import sftp_gateway.supervisor as s; s.merged = lambda old, new: time.sleep(600)"
    with supervised(tmp_path, body, prelude) as process:
        started(process)
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        assert [process.stderr.readline(), process.stderr.readline()] == ["hup\n", "hup\n"]


DEAF = "[signal.signal(each, signal.SIG_IGN) for each in (signal.SIGTERM, signal.SIGINT)]; os.write(2, b'up\\n'); "
DEAF += "[signal.pause() for _ in iter(int, 1)]"


def started(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert [line for line in (next(lines) for _ in range(4)) if line == "up\n"] == ["up\n"] * 2


def is_pending(pid: int, number: signal.Signals) -> bool:
    pending = re.search(r"^ShdPnd:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert pending
    return bool(int(pending[1], 16) >> (number - 1) & 1)


def test_processes_that_do_not_end_in_time_are_killed(tmp_path: Path) -> None:
    with supervised(tmp_path, DEAF, "import sftp_gateway.supervisor as s; s._LATE_SECONDS = 0.5") as process:
        started(process)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=DEADLINE_SECONDS)
        assert "2 processes do not end: they are killed" in told
        assert process.returncode == 1


def test_a_second_sigterm_hurries_nobody(tmp_path: Path) -> None:
    with supervised(tmp_path, DEAF, "import sftp_gateway.supervisor as s; s._LATE_SECONDS = 2.0") as process:
        started(process)
        process.send_signal(signal.SIGTERM)
        eventually(lambda: not is_pending(process.pid, signal.SIGTERM))  # two that wait together are one
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == 1  # after the time, and not at once as with a second Ctrl-C


def test_ctrl_c_of_a_terminal_reaches_the_processes_through_their_supervisor_alone(tmp_path: Path) -> None:
    with supervised(tmp_path, "os.write(2, f'{os.getpgid(0) == os.getpid()}\\n'.encode()); signal.pause()") as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(4)]
        assert lines.count("True\n") == 2


def test_what_is_left_of_a_gateway_that_was_killed_is_not_in_the_way_of_its_successor(tmp_path: Path) -> None:
    """Its processes let transfers under way finish, which may take them a while."""
    (tmp_path / "gateway.toml").write_text('listen = "127.0.0.1:0"\nstate_folder = "."\n')
    body = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); os.write(2, b'up\\n'); time.sleep(600)"
    with supervised(tmp_path, body) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(4)]
        pids = [int(pid) for pid in re.findall(r" pid=(\d+)", "".join(lines))]
        process.kill()
        process.wait(DEADLINE_SECONDS)
        try:
            successor, _ = begin(tmp_path / "gateway.toml")
            with successor:
                successor.terminate()
                assert successor.wait(DEADLINE_SECONDS) == 0
            assert list(map(is_alive, pids)) == [True, True]
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
