"""Fixtures for every test: whatever a test starts must be gone when it ends."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

LEAK_DEADLINE_SECONDS = 30.0


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for whatever a shell runs in the background
    # Programs that the tests start would inherit that, and never see a Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _open_sockets() -> set[str]:
    """Return the identities of this process's sockets (Linux only; elsewhere nothing)."""
    folder = Path("/proc/self/fd")
    sockets = set()
    for name in os.listdir(folder) if folder.is_dir() else ():
        try:
            target = os.readlink(folder / name)
        except OSError:
            continue
        if target.startswith("socket:"):
            sockets.add(target)
    return sockets


@pytest.fixture(autouse=True)
def loggers_keep_their_levels() -> Iterator[None]:
    """Undo what a command line that ran in this process has set."""
    loggers = [logging.getLogger(name) for name in (None, "fs_dropbox", "sftp_gateway", "paramiko")]
    before = [(logger, logger.level, list(logger.handlers), logger.propagate) for logger in loggers]
    yield
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Fail a test that leaves a thread or a socket behind."""
    threads_before = set(threading.enumerate())
    sockets_before = _open_sockets()
    yield
    deadline = time.monotonic() + LEAK_DEADLINE_SECONDS
    while True:
        threads = [thread for thread in threading.enumerate() if thread not in threads_before and thread.is_alive()]
        sockets = _open_sockets() - sockets_before
        if not threads and not sockets:
            return
        if time.monotonic() > deadline:
            break
        gc.collect()
        time.sleep(0.02)
    pytest.fail(f"left behind: threads {[thread.name for thread in threads]}, {len(sockets)} sockets", pytrace=False)
