"""Hooks that are commands: what they get, and what becomes of those that fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sftp_gateway.config import HookConfig
from tests.sftp_gateway.conftest import LogLines
from tests.sftp_gateway.reports.hooking import UPLOAD, command, hooking, written
from tests.waiting import eventually


@pytest.fixture
def counted() -> list[tuple[str, str]]:
    return []


def test_a_command_gets_json_and_variables_and_no_shell(
    tmp_path: Path, counted: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANNER_URL", "dropbox://KEY~SECRET:TOKEN@/")
    run, out = command(tmp_path, "$(touch /tmp/never)", "; exit 1")
    path = "/$(id)\n`id`\0'\"\udcff"
    with hooking(counted, HookConfig(events=("upload",), command=run)) as hooks:
        hooks.on_event("upload", UPLOAD | {"path": path})
        eventually(lambda: counted, "the command did not end")
    assert counted == [(Path(sys.executable).name, "delivered")]
    (call,) = written(out)
    assert call["arguments"] == ["$(touch /tmp/never)", "; exit 1"]
    assert call["told"]["path"] == path
    assert call["environment"]["SFTP_EVENT"] == "upload"
    assert call["environment"]["SFTP_USER"] == "ann"
    assert call["environment"]["SFTP_PATH"] == path.replace("\0", "\ufffd")
    assert "SCANNER_URL" not in call["environment"]
    assert "TOKEN" not in json.dumps(call)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ((sys.executable, "-c", "import sys; sys.exit(3)"), "exit status 3"),
        (("/nowhere/program",), "cannot be started: No such file or directory"),
        (("/bin/sh", "-c", "sleep 60 & wait"), "did not end within 0.5 s"),
    ],
)
def test_a_command_that_fails_is_one_line(
    counted: list[tuple[str, str]], log_lines: LogLines, program: tuple[str, ...], reason: str
) -> None:
    seconds = 0.5 if "sh" in program[0] else 20.0
    with hooking(counted, HookConfig(events=("upload",), command=program, timeout_seconds=seconds)) as hooks:
        hooks.on_event("upload", UPLOAD)
        eventually(lambda: counted, "the command did not end")
    assert counted[0][1] == "failed"
    (line,) = log_lines("hook_failed")
    assert (line["reason"], line["attempts"]) == (reason, 1)


def test_what_a_command_prints_goes_nowhere(counted: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]) -> None:
    program = ("/bin/sh", "-c", "echo printed; echo printed >&2")
    with hooking(counted, HookConfig(events=("upload",), command=program)) as hooks:
        hooks.on_event("upload", UPLOAD)
        eventually(lambda: counted, "the command did not end")
    assert counted == [("sh", "delivered")]
    assert "printed" not in "".join(capfd.readouterr())
