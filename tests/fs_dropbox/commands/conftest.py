"""What the command line finds where it runs as a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from fs_dropbox.emulator import Emulator
from fs_dropbox.login.connections import Connection, Connections
from tests.fs_dropbox.commands.command_line import environment


@pytest.fixture
def env(emulator: Emulator, tmp_path: Path) -> dict[str, str]:
    return environment(emulator, tmp_path)


@pytest.fixture
def store(env: dict[str, str], emulator: Emulator) -> Connections:
    """The connections of the processes, with the emulated account as the default."""
    connections = Connections(Path(env["XDG_CONFIG_HOME"]) / "fs-dropbox" / "connections.json")
    plain = emulator.fs_url.partition("?")[0]
    connections.put(Connection("Dropbox (Ann Example)", plain, account="Ann Example", email="ann@example.com"))
    return connections
