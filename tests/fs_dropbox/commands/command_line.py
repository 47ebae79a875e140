"""`fs-dropbox` as a process, in an environment of its own that leads to the emulator."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from ssl import create_default_context
from typing import NamedTuple

from fs_dropbox.emulator import Emulator
from tests.root import ROOT

COMMAND = (sys.executable, "-W", "ignore", "-m", "fs_dropbox.cli")
LEAKING = ("DROPBOX_", "FS_DROPBOX", "XDG_", "PYTHON", "BROWSER", "HTTPS_PROXY", "COVERAGE")


def environment(emulator: Emulator, home: Path, **others: str) -> dict[str, str]:
    """Return the environment of a machine with no connections, where Dropbox is the emulator."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(LEAKING)}
    own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
    return inherited | own | emulator.environment | others


def run(*arguments: str, env: dict[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        (*COMMAND, *arguments), env=env, input=stdin, capture_output=True, text=True, timeout=120, check=False
    )


def start(*arguments: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """Start the command line with pipes."""
    pipe = subprocess.PIPE
    return subprocess.Popen((*COMMAND, *arguments), env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def visit(url: str, ca_file: str | Path, answer: str = "approve=1") -> str:
    """Open a consent page, answer it, and return the page at the end of all redirects."""
    with urllib.request.urlopen(f"{url}&{answer}", context=create_default_context(cafile=ca_file), timeout=30) as page:
        return str(page.read().decode())


def code_on(page: str) -> str:
    """Return the code that a consent page shows."""
    match = re.search(r'id="code" readonly value="([^"]+)"', page)
    assert match, page
    return match[1]


class Done(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Done]
