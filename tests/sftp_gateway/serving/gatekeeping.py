"""A gatekeeper with few of everything, over a clock that the test winds."""

from __future__ import annotations

from typing import Any

from sftp_gateway.config import GatewayConfig
from sftp_gateway.serving.gatekeeper import Gatekeeper, Register


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.gates: list[Gatekeeper] = []

    def __call__(self) -> float:
        return self.now


def keeper(clock: Clock, *, register: Register | None = None, **settings: Any) -> Gatekeeper:
    clock.gates.append(Gatekeeper(limits(**settings), register=register, clock=clock))
    return clock.gates[-1]


def limits(**settings: Any) -> GatewayConfig:
    values: dict[str, Any] = {
        "max_connections": 10,
        "max_connections_per_address": 3,
        "max_sessions_per_user": 2,
        "connections_per_minute": 0.0,
        "connection_burst": 1,
        "ban_failures": 3,
        "ban_seconds": 60.0,
        "ban_exempt": (),
        "rate_exempt": (),
    }
    return GatewayConfig(**(values | settings))


def connections(gate: Gatekeeper, address: str, number: int) -> int:
    """Connect so many times and leave at once; return how many times that was possible."""
    answers = [gate.connect(address) for _ in range(number)]
    for answer in answers:
        if answer is None:
            gate.disconnect(address)
    assert {*answers} <= {None, "too many connections in a short time"}
    return answers.count(None)
