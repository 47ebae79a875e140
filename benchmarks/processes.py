"""What a process takes, as Linux tells it: nothing once it has ended."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_GONE: Final = (FileNotFoundError, ProcessLookupError)


def reset_peak(process: int) -> int:
    """Let a process's memory peak begin anew; returns what it has now, in bytes."""
    Path(f"/proc/{process}/clear_refs").write_text("5")
    return memory(process, "VmRSS")


def memory(process: int, name: str) -> int:
    """Return a line of the process's status in bytes: VmRSS is what it has now, VmHWM the most it had."""
    for line in _told(process, "status").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process, and of those of its children that have ended."""
    fields = _told(process, "stat").rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def family(process: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [process]
    for parent in found:
        with contextlib.suppress(*_GONE):
            for thread in Path(f"/proc/{parent}/task").iterdir():
                with contextlib.suppress(*_GONE):
                    found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def _told(process: int, name: str) -> str:
    """Return a file of a process; nothing of one that has ended, perhaps since it was listed."""
    with contextlib.suppress(*_GONE):
        return Path(f"/proc/{process}/{name}").read_text()
    return ""
