"""One line for each event, for people or programs, whatever names and secrets hold."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from sftp_gateway.logs import FAILURES_A_MINUTE, SessionLog, log_event, set_up_logging
from sftp_gateway.sftp.events import Transfer


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """What is logged, after a test called `set_up_logging` with it; logging is as before in the end."""
    names = ("", "sftp_gateway", "sftp_gateway.paramiko", "fs_dropbox", "paramiko")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.level, logger.handlers[:]) for logger in loggers]
    yield io.StringIO()
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


def test_lines_for_people(output: io.StringIO) -> None:
    set_up_logging("info", "text", output)
    log = SessionLog("7", "10.0.0.1")
    log.knows("ann")
    log.on_transfer(Transfer("upload", "/a b/ü.txt", 3_000_000, 1.5, "ok"))
    log.on_transfer(Transfer("download", "/x", 10, 0.0, "failed", "not allowed"))
    log.on_rename("/a", "/b")
    log.on_remove("/a", directory=False)
    log.on_remove("/d", directory=True)
    log.on_mkdir("/d")
    log.on_failure("open", "/a", "file exists")
    who = "session=7 from=10.0.0.1 user=ann"
    lines = [line.partition(" ")[2] for line in output.getvalue().splitlines()]
    assert lines == [
        f'INFO upload {who} path="/a b/ü.txt" bytes=3000000 seconds=1.5 rate=2MB/s result=ok',
        f'WARNING download {who} path=/x bytes=10 seconds=0.0 result=failed reason="not allowed"',
        f"INFO rename {who} path=/a target=/b",
        f"INFO remove {who} path=/a",
        f"INFO rmdir {who} path=/d",
        f"INFO mkdir {who} path=/d",
        f'WARNING failure {who} operation=open path=/a reason="file exists"',
    ]


def test_lines_for_programs(output: io.StringIO) -> None:
    set_up_logging("info", "json", output)
    log_event("upload", path='/a "b"\n', bytes=3, rate=1.5, absent=None)
    logging.getLogger("other").warning("careful\nnow")
    first, second = (json.loads(line) for line in output.getvalue().splitlines())
    assert {key: first[key] for key in ("level", "event", "path", "bytes", "rate")} == {
        "level": "info",
        "event": "upload",
        "path": '/a "b"\n',
        "bytes": 3,
        "rate": 1.5,
    }
    assert "absent" not in first
    assert second["message"] == "careful\nnow"


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_name_cannot_forge_a_line(output: io.StringIO, style: str) -> None:
    set_up_logging("info", style, output)
    name = "/a\n2026 INFO login user=root\r\x1b[2J\x7f\x9b2J\u202e\u2028\U000e0001\udce4"
    SessionLog("1", "10.0.0.1").on_remove(name, directory=False)
    assert output.getvalue().count("\n") == 1
    assert output.getvalue()[:-1].isprintable()
    if style == "json":
        assert json.loads(output.getvalue())["path"] == name


@pytest.mark.parametrize("style", ["text", "json"])
def test_secrets_of_the_session_are_struck_out(output: io.StringIO, style: str) -> None:
    set_up_logging("debug", style, output)
    log = SessionLog("1", "10.0.0.1")
    log.knows("KEY~***", ["TOKEN", "TOKEN%21", "SECRET"])
    log.on_failure("open", "/TOKEN", "token TOKEN%21 of SECRET is no good")
    assert "TOKEN" not in output.getvalue()
    assert "SECRET" not in output.getvalue()
    assert "token *** of *** is no good" in output.getvalue()
    log.knows("ann", ["ANOTHER"])  # as when a second attempt signs in
    log.on_failure("open", "/x", "neither TOKEN nor ANOTHER")
    assert "neither *** nor ***" in output.getvalue()


def test_whoever_fails_without_end_does_not_fill_the_log(output: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are told to metrics and hooks, and what else happens is logged."""
    set_up_logging("info", "json", output)
    now = 1000.0
    stopped = SimpleNamespace(monotonic=lambda: now, strftime=time.strftime, gmtime=time.gmtime)
    monkeypatch.setattr("sftp_gateway.logs.time", stopped)
    told: list[str] = []
    log = SessionLog("1", "10.0.0.1", [lambda event, _: told.append(event)])
    log.knows("anna", ["SECRET"])
    for number in range(5000):
        log.on_failure("mkdir", "/d", "exists already", is_expected=True)  # which is debug: no line
        log.on_failure("open", f"/{number}", "not allowed", trace="Traceback of SECRET" if number % 2 else None)
    log.on_mkdir("/d")
    log.on_failure("open", "/5000", "not allowed")
    now += 60.0
    log.on_failure("open", "/5001", "not allowed")
    log.on_failure("open", "/5002", "not allowed")
    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    failures = [line["path"] for line in lines if line["event"] == "failure"]
    assert failures == [*(f"/{number}" for number in range(FAILURES_A_MINUTE)), "/5001", "/5002"]
    assert [line.get("omitted") for line in lines[-4:]] == [None, 5000 - FAILURES_A_MINUTE, 1, None]
    assert [(line["level"], line.get("trace")) for line in lines[:2]] == [
        ("warning", None),
        ("error", "Traceback of ***"),
    ]
    assert (len(told), told.count("failure")) == (10_004, 10_003)


def test_paramiko_is_quiet(output: io.StringIO) -> None:
    set_up_logging("info", "text", output)
    logging.getLogger("paramiko.transport").error("Exception (server): Error reading SSH protocol banner")
    logging.getLogger("sftp_gateway.paramiko").error("Exception (server): Error reading SSH protocol banner")
    assert output.getvalue() == ""


def test_levels(output: io.StringIO) -> None:
    set_up_logging("warning", "text", output)
    SessionLog("1", "10.0.0.1").on_mkdir("/d")
    assert output.getvalue() == ""
