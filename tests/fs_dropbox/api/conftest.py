"""The clock of calls that do what a test says."""

from __future__ import annotations

import pytest

from tests.fs_dropbox.api.scripted_calls import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
