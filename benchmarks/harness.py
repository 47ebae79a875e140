"""Rows, and how they are measured: every side of a row runs in a process of its own, so memory and CPU are honest.

A row has a task of ours and tasks of peers. A task is a function at the top of a module that takes a `Stage`, sets up
what is not to be measured, and does the work within `stage.measured()` or `stage.program(…)`; each of these gives a
line of the table. Ours and the peers' lines belong together by their label.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.account import Account
from benchmarks.processes import cpu_seconds, memory, reset_peak

OURS: Final = "fs-dropbox"
TASK_SECONDS: Final = 1800.0  # a bound, not an expectation
ROOT: Final = Path(__file__).resolve().parent.parent

# Delays of the emulator: those that the table is about, and a tenth of them for small sizes.
FULL_MODEL: Final[Mapping[str, float]] = {
    "delay_seconds": 0.1,
    "commit_seconds": 0.15,
    "upload_bytes_per_second": 20e6,
    "download_bytes_per_second": 20e6,
}
QUICK_MODEL: Final[Mapping[str, float]] = {
    "delay_seconds": 0.01,
    "commit_seconds": 0.015,
    "upload_bytes_per_second": 200e6,
    "download_bytes_per_second": 200e6,
}


@dataclass(slots=True)
class Measured:
    """One line: what a piece of work took. Memory is the peak of the process that did it."""

    seconds: float
    cpu_seconds: float
    memory_bytes: int
    grown_bytes: int = 0  # the peak above what the process had before; 0 for programs
    calls: dict[str, int] = field(default_factory=dict)  # by route
    wire_bytes: int = 0  # of bodies, both ways
    refused: int = 0  # 429 answers among the last 2,000
    numbers: dict[str, float] = field(default_factory=dict)  # whatever else the row is about

    @property
    def all_calls(self) -> int:
        """The calls of every route."""
        return sum(self.calls.values())


Task = Callable[["Stage"], None]
Results = Mapping[str, Mapping[str, Measured]]  # side -> label -> line


@dataclass(frozen=True, slots=True)
class Target:
    """A promise about a row: its text and whether the results keep it."""

    text: str
    is_met: Callable[[Results], bool]


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison; `peers` are names and tasks. Tasks are functions at the top of a module.

    All sides are measured `repeats` times, in turns, and each line is the one with the median time: one number of a
    machine that is shared with others says little.
    """

    name: str
    title: str
    ours: Task
    peers: Sequence[tuple[str, Task]] = ()
    prepare: Task | None = None  # before both, without delays
    targets: Sequence[Target] = ()
    needs_account: bool = True
    repeats: int = 1


class Stage:
    """What a task works with, in its own process."""

    def __init__(self, *, quick: bool, scratch: Path, account: Account | None) -> None:
        self.quick = quick
        self.scratch = scratch  # a local folder, shared by the tasks of a row
        self._account = account
        self.lines: dict[str, Measured] = {}

    @property
    def account(self) -> Account:
        """The emulated Dropbox."""
        if self._account is None:
            raise LookupError("this row has no account")
        return self._account

    def size(self, full: int, quick: int) -> int:
        """Return how much of something there is to be."""
        return quick if self.quick else full

    @contextmanager
    def measured(self, label: str = "", *, process: int | None = None) -> Iterator[dict[str, float]]:
        """Measure this process, or another one (such as a server), while the block runs; yields room for numbers."""
        who = os.getpid() if process is None else process
        numbers: dict[str, float] = {}
        self._begin()
        before = reset_peak(who)
        cpu, began = cpu_seconds(who), time.perf_counter()
        yield numbers
        line = Measured(time.perf_counter() - began, cpu_seconds(who) - cpu, memory(who, "VmHWM"), numbers=numbers)
        line.grown_bytes = max(0, line.memory_bytes - before)
        self._end(label, line)

    def program(self, command: Sequence[str], environment: Mapping[str, str] | None = None, *, label: str = "") -> None:
        """Run a program and measure it from start to end; its output is dropped. Raises OSError when it fails."""
        self._begin()
        began = time.perf_counter()
        with tempfile.TemporaryFile() as said:
            started = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
            )
            _, status, usage = os.wait4(started.pid, 0)
            started.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.perf_counter() - began
            if started.returncode:
                said.seek(0)
                text = said.read().decode(errors="replace")
                raise OSError(f"{command[0]} ended with {started.returncode}: {text[-2000:]}")
        self._end(label, Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024))

    def _begin(self) -> None:
        if self._account is not None:
            self._account.reset_counts()

    def _end(self, label: str, line: Measured) -> None:
        if self._account is not None:
            line.calls, line.wire_bytes, line.refused = self._account.counts()
        self.lines[label] = line


def run_row(row: Row, *, quick: bool, tell: Callable[[str], None]) -> dict[str, dict[str, Measured]]:
    """Run all sides of a row and return their lines: ours first. Raises RuntimeError when a task fails."""
    rounds: list[dict[str, dict[str, Measured]]] = []
    with ExitStack() as stack:
        scratch = Path(tempfile.mkdtemp(prefix="fs-dropbox-bench-"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        account = stack.enter_context(Account.started()) if row.needs_account else None
        if row.prepare is not None:
            row.prepare(Stage(quick=quick, scratch=scratch, account=account))
        if account is not None:
            account.control("latency", **(QUICK_MODEL if quick else FULL_MODEL))
        for number in range(1 if quick else row.repeats):
            rounds.append({})
            for side, task in ((OURS, row.ours), *row.peers):
                tell(f"{row.name}: {side}" + (f", once more ({number + 1} of {row.repeats})" if number else ""))
                rounds[-1][side] = _run_task(task, quick=quick, scratch=scratch, account=account)
    return {side: _medians([results[side] for results in rounds]) for side in rounds[0]}


def _medians(rounds: Sequence[dict[str, Measured]]) -> dict[str, Measured]:
    """Return of each line the one with the median time."""

    def median(label: str) -> Measured:
        return sorted((lines[label] for lines in rounds), key=lambda line: line.seconds)[(len(rounds) - 1) // 2]

    return {label: median(label) for label in rounds[0]}


def _run_task(task: Task, *, quick: bool, scratch: Path, account: Account | None) -> dict[str, Measured]:
    order = {
        "task": [task.__module__, task.__qualname__],
        "quick": quick,
        "scratch": str(scratch),
        "account": account.as_json() if account is not None else None,
    }
    answer = scratch / "answer.json"
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.worker", str(answer)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True, text=True) as worker:
        try:
            worker.communicate(json.dumps(order), timeout=TASK_SECONDS)
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
    if worker.returncode or not answer.exists():
        raise RuntimeError(f"{task.__qualname__} failed (exit code {worker.returncode})")
    return {label: Measured(**line) for label, line in json.loads(answer.read_text()).items()}


def perform(order: Mapping[str, Any], answer: Path) -> None:
    """Carry out a task in this process, and write down its lines."""
    import importlib

    module, name = order["task"]
    account = None if order["account"] is None else Account(**order["account"])
    stage = Stage(quick=order["quick"], scratch=Path(order["scratch"]), account=account)
    getattr(importlib.import_module(module), name)(stage)
    answer.write_text(json.dumps({label: asdict(line) for label, line in stage.lines.items()}))
