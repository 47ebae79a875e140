"""Fixtures that run foreign clients against the whole stack; nothing of it is left on disk or in memory.

Every test that has a gateway runs twice: with CLOSE answered by Dropbox (`direct`), and for users with write-back
(`write-back`). The second is a soak, but for tests marked `write_back`, which are in the default run in both modes.
Tests marked `direct_only(why)` are about what write-back does differently by design.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fs_dropbox.emulator import Emulator
from tests.waiting import eventually

from .stack import GatewayProcess, Stack, serving

LogLines = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    given = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "written_back" not in metafunc.fixturenames or "written_back" in given:
        return
    modes = [pytest.param(False, id="direct")]
    if metafunc.definition.get_closest_marker("direct_only") is None:
        is_always_run = metafunc.definition.get_closest_marker("write_back") is not None
        modes.append(pytest.param(True, id="write-back", marks=() if is_always_run else pytest.mark.soak))
    metafunc.parametrize("written_back", modes)


@pytest.fixture
def bare_stack(emulator: Emulator, tmp_path: Path, written_back: bool) -> Iterator[Stack]:
    """An emulator, and no gateway yet."""
    yield Stack(emulator, tmp_path, write_back=written_back)
    for path in tmp_path.iterdir():  # pytest would keep hundreds of megabytes for days
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@pytest.fixture
def stack(bare_stack: Stack) -> Iterator[Stack]:
    """A gateway in this process, whose threads and sockets are counted."""
    with serving(bare_stack):
        yield bare_stack


@pytest.fixture
def process(bare_stack: Stack) -> Iterator[GatewayProcess]:
    """A gateway as a process of its own, which a test may kill."""
    gateway = GatewayProcess(bare_stack)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.close()


@pytest.fixture
def log_lines(caplog: pytest.LogCaptureFixture) -> LogLines:
    """Return the fields of every line logged for events that begin so, once there are so many."""
    caplog.set_level(logging.DEBUG, logger="sftp_gateway")

    def lines(event: str, at_least: int = 0) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            records = [record.__dict__ for record in caplog.records if hasattr(record, "event")]
            events = [{"event": fields["event"], **fields["fields"]} for fields in records]
            return [fields for fields in events if fields["event"].startswith(event)]

        eventually(lambda: len(found()) >= at_least, f"{event} was not logged")
        return found()

    return lines
