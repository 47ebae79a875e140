"""A machine on which few threads can be started."""

from __future__ import annotations

import threading

import pytest


def allow_threads(monkeypatch: pytest.MonkeyPatch, names: str, most: int) -> None:
    """Let only so many more threads be started whose names begin so; the system says no as it does."""
    start = threading.Thread.start
    left = [most]

    def scarce(thread: threading.Thread) -> None:
        if thread.name.startswith(names):
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
