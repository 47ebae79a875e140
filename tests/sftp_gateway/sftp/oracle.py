"""OpenSSH's own server as an oracle: the same request to it and to a gateway must have the same outcome.

Where a gateway differs by design (docs/semantics.md), the comparison follows these rules, and no others:

1. `CREAT` and `APPEND` are enough to write; who only reads cuts nothing; who only writes reads nothing.
2. Who opens a file for reading sees that version to the end, but for what the same session is just writing: that it
   sees as it grows. Who truncates a file while opening it begins another version: not tried while somebody writes it.
3. What was removed or replaced while it was being written is given up: all that is asked of its handles fails, and
   to remove it then is no error.
4. Paths are taken as text, without a look at what is there, but for the slash at the end of what is to be made or
   written; the empty path is the root.
5. Something that is there, but no directory, or no file, is a FAILURE, and never "no such file"; which of the other
   codes of failure is told does not matter, nor which error of several.
6. What is in flight together is about different files, or is in one handle, or names paths; a listing may or may not
   have what was made or removed since its OPENDIR, or is in flight together with that.
"""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from sftp_gateway.files.tree import normal
from tests.sftp_gateway.raw_client import RawClient

PLACES = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")


class Oracle:
    """OpenSSH's sftp-server, which serves a folder as "/"."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen([program(), "-e", "-l", "QUIET"], stdin=theirs, stdout=theirs, cwd=folder)  # type: ignore[call-overload]
        self._socket = ours
        self.raw = RawClient(ours).init()  # type: ignore[arg-type]  # of a channel, it uses what sockets have

    def path(self, path: str, *, made: bool = False) -> str:
        """Return what the oracle calls a path; never what is above the folder. `made`: of what may be new."""
        if (name := normal(path)) == "/":
            return f"{self.folder}/."
        return f"{self.folder}{name}/" if made and path.endswith(("/", "/.")) else f"{self.folder}{name}"

    def tree(self) -> dict[str, bytes | None]:
        """Return what is there: contents, None for folders."""
        found = {f"/{path.relative_to(self.folder)}": path for path in self.folder.rglob("*")}
        return {name: None if path.is_dir() else path.read_bytes() for name, path in found.items()}

    def close(self) -> None:
        self._socket.close()
        self._process.wait(20)


def program() -> str:
    for place in PLACES:
        if os.path.exists(place):
            return place
    if os.environ.get("REQUIRE_CLIENTS"):
        pytest.fail("OpenSSH's sftp-server is not installed", pytrace=False)
    pytest.skip("OpenSSH's sftp-server is not installed")
