"""What tests of who is let in share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sftp_gateway.serving.gatekeeping import Clock


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    yield clock
    for gate in clock.gates:
        gate.close()
