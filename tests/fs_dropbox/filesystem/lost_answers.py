"""Answers that are lost, and what others do before anybody looks what became of the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fs_dropbox.api.client import Client
from fs_dropbox.emulator import Emulator

LANDED: dict[str, Any] = {"kind": "ambiguous"}
NOT_DONE: dict[str, Any] = {"kind": "server_error", "status": 502}
Meanwhile = Callable[[], object]


def lose(emulator: Emulator, client: Client, route: str, fault: dict[str, Any], meanwhile: Meanwhile) -> None:
    """Let the next call of a route fail, and something happen before the client looks what became of it."""
    parameters = dict(fault)
    struck = emulator.control.faults_struck
    emulator.control.fault(route, parameters.pop("kind"), **parameters)
    look = client.get_metadata

    def look_later(path: str) -> Any:
        if emulator.control.faults_struck > struck:
            vars(client).pop("get_metadata")
            meanwhile()
        return look(path)

    client.get_metadata = look_later
